//! Targets in PID and mount namespaces of their own, and targets whose executable is gone.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use tempfile::tempdir;

use crate::support::{
    attached,
    proc::{Untouched, field, free_number},
    process::{Recorder, Workload, run_as, stallscope, workload},
    refusal::expect_empty,
    report::Report,
};

#[test]
fn a_deleted_executable_still_has_names() {
    // The second time another program lies at its path by then.
    for replaced in [false, true] {
        let dir = tempdir().unwrap();
        let program = dir.path().join("workload");
        fs::copy(workload(), &program).unwrap();
        let mut command = Command::new(&program);
        command.arg("truth");
        let workload = Workload::start_as(command);
        fs::remove_file(&program).unwrap();
        if replaced {
            fs::copy("/bin/true", &program).unwrap();
        }
        expect_names(workload, &program, None);
    }
}

/// The executable lies on a file system that only the target sees, and is deleted for the second
/// recording. The number that the target has in there is no other process's outside.
#[test]
fn a_target_in_namespaces_of_its_own_is_found_by_either_number() {
    for deleted in [false, true] {
        let dir = tempdir().unwrap();
        let inner = free_number();
        let script = r#"mount -t tmpfs none "$1" && cp "$2" "$1/workload" || exit 99
            echo $(($3 - 1)) > /proc/sys/kernel/ns_last_pid
            exec 3<&0; "$1/workload" truth <&3 & [ "$4" = false ] || { sleep 0.2; rm "$1/workload"; }
            wait"#;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]);
        command.args([script, "sh"]).arg(dir.path()).arg(workload());
        command.args([&inner.to_string(), &deleted.to_string()]);
        let workload = Workload::start_as(command);
        assert_eq!(workload.pid(), inner, "the number it has in there");
        let outer = outer_number(workload.child_pid(), inner);
        let program = dir.path().join("workload");
        assert!(!program.exists(), "out here there is no such file");
        expect_names(workload, &program, Some(outer));
    }
}

/// The kernel side speaks the machine's own numbers, which a recorder in there cannot see.
#[test]
fn a_recorder_in_a_namespace_of_its_own_says_where_to_run() {
    let out = tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--mount-proc", "--kill-child", "sh", "-c"]);
    command.args([r#"sleep 5 & "$0" record -p $! -d 1 -o "$1""#]);
    command.arg(stallscope().get_program()).arg(out.path().join("out.svg"));
    run_as(command).expect(4, &["PID namespace of its own", "--pid=host"]);
    expect_empty(out.path());
}

/// The number, out here, of the process that has `inner` in the namespace that `unshare` made.
fn outer_number(unshare: u32, inner: u32) -> u32 {
    let mut family = vec![unshare];
    let mut at = 0;
    while let Some(&pid) = family.get(at) {
        if field(pid, "NSpid").ends_with(&format!("\t{inner}")) && pid != inner {
            return pid;
        }
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        family.extend(children.split_whitespace().map(|child| child.parse::<u32>().unwrap()));
        at += 1;
    }
    panic!("no process is {inner} in there");
}

/// Records by the target's own number, or by both, and checks that its functions have names.
fn expect_names(mut workload: Workload, program: &Path, outer: Option<u32>) {
    workload.go();
    let pid = outer.unwrap_or(workload.pid());
    let untouched = (outer.is_none()).then(|| Untouched::before(pid));
    for number in [Some(workload.pid()), outer].into_iter().flatten() {
        let out = tempdir().unwrap();
        let json = out.path().join("out.json");
        let recorder = Recorder::start(&["-p", &number.to_string(), "-o", json.to_str().unwrap()]);
        std::thread::sleep(Duration::from_millis(600));
        let ended = recorder.interrupt().expect(0, &[]);
        if number != pid {
            let note = format!("note: {number} is the id of process {pid}");
            assert!(ended.stderr.contains(&note), "{}", ended.stderr);
        }
        let report = Report::read(&json);
        assert_eq!(report.0["target"]["pid"], pid);
        assert_eq!(PathBuf::from(report.0["target"]["exe"].as_str().unwrap()), program);
        for function in ["sleep_mix", "lock_contended", "read_pipe", "read_socket"] {
            let seen = report.time_in(function);
            assert!(seen > 200_000_000, "{function}: {seen} ns");
        }
        assert_eq!(report.counter("modules_unreadable"), 0);
        if let Some(untouched) = &untouched {
            untouched.check();
        }
        attached::expect_nothing_left();
    }
    workload.stop();
}
