#!/bin/busybox sh
# Runs as the first process of the virtual machine: makes the checks, one line each, and powers off.

/bin/busybox --install -s /bin
export PATH=/bin HOME=/tmp
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tracefs tracing /sys/kernel/tracing
mount -t debugfs debug /sys/kernel/debug
mount -t bpf bpf /sys/fs/bpf
# The loopback services of the demo and of the workload.
ip link set lo up
cd /tmp

# The firmware left the cursor in the middle of a line.
echo
made=0

# check NAME COMMAND...: its output in full, then one line that xtask reads.
check() {
    name=$1
    shift
    made=$((made + 1))
    "$@" >"/tmp/$name.log" 2>&1
    code=$?
    cat "/tmp/$name.log"
    if [ $code = 0 ]; then
        echo "CHECK $name PASS"
    else
        reason=$(grep -m 1 '^error' "/tmp/$name.log" || grep . "/tmp/$name.log" | tail -n 1)
        echo "CHECK $name FAIL exit code $code: $reason"
    fi
}

# Records a program that times its own waiting, from before its first wait until it ends.
truth() {
    mkfifo /tmp/control
    touch /tmp/truth.out /tmp/record.err
    /workload truth </tmp/control >/tmp/truth.out &
    exec 3>/tmp/control
    until grep -q '^ready' /tmp/truth.out; do usleep 10000; done
    pid=$(sed -n 's/^ready //p' /tmp/truth.out)
    # Without the workload's stdin, whose end is what ends the workload.
    /stallscope record -p "$pid" -o /tmp/truth.json 2>/tmp/record.err 3>&- &
    recorder=$!
    until grep -q '^recording' /tmp/record.err; do
        kill -0 $recorder 2>/dev/null || { cat /tmp/record.err; return 1; }
        usleep 10000
    done
    echo go >&3
    sleep 3
    echo stop >&3
    exec 3>&-
    wait $recorder || { cat /tmp/record.err; return 1; }
    # An emulated processor is on the CPU for a tenth of what lies between the two clocks (measured:
    # 3 to 9 %); that the hooks work is what is tried here, not the accuracy.
    /workload compare --within 20 /tmp/truth.json /tmp/truth.out
}

# stacks NAME PROGRAM FUNCTION...: records a program; its stacks are whole, and the functions are in them.
stacks() {
    cell=$1
    program=$2
    shift 2
    rm -f /tmp/control
    mkfifo /tmp/control
    $program </tmp/control >"/tmp/$cell.out" &
    exec 3>/tmp/control
    until grep -q '^ready' "/tmp/$cell.out"; do usleep 10000; done
    pid=$(sed -n 's/^ready //p' "/tmp/$cell.out")
    echo go >&3
    /stallscope record -p "$pid" -d 3 -o "/tmp/$cell.json" 3>&- || return 1
    exec 3>&-
    /workload whole "/tmp/$cell.json" "$@"
}

check doctor /stallscope doctor
check demo /stallscope demo -d 3 -o /tmp/demo
check truth truth
check rust stacks rust-cell '/workload truth' workload::sites::sleep_mix workload::sites::read_pipe
frames="cell_alloca cell_vla cell_drap cell_qsort cell_compare cell_saves"
check c stacks c-cell '/shapes frames' $frames
# A frame of 300 KB: no copy of the stack reaches beyond it, only the walk in the kernel does. Where the
# kernel side cannot walk, doctor has said so.
if ! grep -q 'walk in the kernel *no' /tmp/doctor.log; then
    check walk stacks huge-cell '/shapes huge' cell_huge
fi
echo "CHECKS END $made"
poweroff -f
