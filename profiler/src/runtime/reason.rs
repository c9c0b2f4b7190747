//! What the kernel was asked to wait for, from syscall, scheduler state and kernel functions.

use super::meaning::Reason;

/// `TASK_UNINTERRUPTIBLE` of `linux/sched.h`.
const UNINTERRUPTIBLE: u32 = 0x2;
/// `__TASK_STOPPED | __TASK_TRACED`.
const STOPPED_OR_TRACED: u32 = 0x4 | 0x8;
/// The state bits that are the same in every kernel since 4.14; modifiers lie above.
const STATE_MASK: u32 = 0x7f;

/// What is known about one wait.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The syscall's number, where the wait is in one.
    pub syscall: Option<u32>,
    /// A fault or an interrupt: registers were read and there is no syscall.
    pub fault: bool,
    /// Scheduler state bits.
    pub task_state: u32,
}

/// The reason of a wait entered by `entry` with the kernel functions `kernel`, leaf first.
///
/// `kernel` may be empty: reads and writes are then taken for a file's.
pub fn reason<'a>(entry: Entry, kernel: impl IntoIterator<Item = &'a str>) -> Reason {
    let state = entry.task_state & STATE_MASK;
    if state & STOPPED_OR_TRACED != 0 {
        return Reason::Stopped;
    }
    let in_kernel = kernel.into_iter().find_map(kernel_reason);
    if in_kernel == Some(Reason::Stopped) {
        return Reason::Stopped;
    }
    if entry.fault {
        return Reason::PageFault;
    }
    let Some(number) = entry.syscall else {
        return in_kernel.unwrap_or(Reason::Other);
    };
    match syscall_reason(i64::from(number)) {
        Asked::Exactly(reason) => reason,
        Asked::FileDescriptor => match in_kernel {
            Some(reason @ (Reason::Pipe | Reason::Socket)) => reason,
            _ if state & UNINTERRUPTIBLE != 0 => Reason::Disk,
            _ => Reason::File,
        },
        Asked::Unclear => in_kernel.unwrap_or(Reason::Other),
    }
}

enum Asked {
    Exactly(Reason),
    /// Pipe, socket, file or terminal: only the kernel's stack tells.
    FileDescriptor,
    Unclear,
}

fn syscall_reason(number: i64) -> Asked {
    match number {
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => Asked::Exactly(Reason::Sleep),
        // futex_waitv, and futex_wait of Linux 6.7, are newer than libc's list.
        libc::SYS_futex | 449 | 455 => Asked::Exactly(Reason::Futex),
        libc::SYS_recvfrom
        | libc::SYS_recvmsg
        | libc::SYS_recvmmsg
        | libc::SYS_sendto
        | libc::SYS_sendmsg
        | libc::SYS_sendmmsg
        | libc::SYS_accept
        | libc::SYS_accept4
        | libc::SYS_connect
        | libc::SYS_shutdown => Asked::Exactly(Reason::Socket),
        libc::SYS_poll
        | libc::SYS_ppoll
        | libc::SYS_select
        | libc::SYS_pselect6
        | libc::SYS_epoll_wait
        | libc::SYS_epoll_pwait
        | libc::SYS_epoll_pwait2
        | libc::SYS_io_uring_enter
        | libc::SYS_io_getevents => Asked::Exactly(Reason::Poll),
        // A new process is waited for only until it has a program of its own.
        libc::SYS_wait4
        | libc::SYS_waitid
        | libc::SYS_vfork
        | libc::SYS_clone
        | libc::SYS_clone3 => Asked::Exactly(Reason::Process),
        libc::SYS_msgrcv
        | libc::SYS_msgsnd
        | libc::SYS_semop
        | libc::SYS_semtimedop
        | libc::SYS_mq_timedsend
        | libc::SYS_mq_timedreceive => Asked::Exactly(Reason::Ipc),
        libc::SYS_read
        | libc::SYS_write
        | libc::SYS_readv
        | libc::SYS_writev
        | libc::SYS_pread64
        | libc::SYS_pwrite64
        | libc::SYS_preadv
        | libc::SYS_pwritev
        | libc::SYS_preadv2
        | libc::SYS_pwritev2
        | libc::SYS_open
        | libc::SYS_openat
        | libc::SYS_openat2
        | libc::SYS_creat
        | libc::SYS_close
        | libc::SYS_fsync
        | libc::SYS_fdatasync
        | libc::SYS_sync
        | libc::SYS_syncfs
        | libc::SYS_sync_file_range
        | libc::SYS_msync
        | libc::SYS_fallocate
        | libc::SYS_ftruncate
        | libc::SYS_truncate
        | libc::SYS_sendfile
        | libc::SYS_splice
        | libc::SYS_tee
        | libc::SYS_vmsplice
        | libc::SYS_copy_file_range
        | libc::SYS_stat
        | libc::SYS_lstat
        | libc::SYS_fstat
        | libc::SYS_newfstatat
        | libc::SYS_statx
        | libc::SYS_getdents64
        | libc::SYS_rename
        | libc::SYS_renameat
        | libc::SYS_renameat2
        | libc::SYS_unlink
        | libc::SYS_unlinkat
        | libc::SYS_mkdir
        | libc::SYS_mkdirat
        | libc::SYS_access
        | libc::SYS_faccessat
        | libc::SYS_flock
        | libc::SYS_fcntl
        | libc::SYS_ioctl => Asked::FileDescriptor,
        _ => Asked::Unclear,
    }
}

/// Kernel functions that only one kind of wait goes through, by the beginning of their names.
const KERNEL: &[(&str, Reason)] = &[
    ("anon_pipe_", Reason::Pipe),
    ("fifo_open", Reason::Pipe),
    ("pipe_", Reason::Pipe),
    ("wait_for_partner", Reason::Pipe),
    ("inet_", Reason::Socket),
    ("netlink_", Reason::Socket),
    ("sk_wait_", Reason::Socket),
    ("sk_stream_wait_", Reason::Socket),
    ("sock_", Reason::Socket),
    ("tcp_", Reason::Socket),
    ("udp_", Reason::Socket),
    ("unix_stream_", Reason::Socket),
    ("unix_dgram_", Reason::Socket),
    ("vsock_", Reason::Socket),
    ("do_freezer_trap", Reason::Stopped),
    ("do_signal_stop", Reason::Stopped),
    ("ptrace_stop", Reason::Stopped),
    ("do_poll", Reason::Poll),
    ("do_select", Reason::Poll),
    ("ep_poll", Reason::Poll),
    ("io_cqring_wait", Reason::Poll),
    ("futex_", Reason::Futex),
    ("hrtimer_nanosleep", Reason::Sleep),
    ("do_nanosleep", Reason::Sleep),
    ("kernel_wait", Reason::Process),
    ("wait_for_vfork_done", Reason::Process),
    ("handle_mm_fault", Reason::PageFault),
    ("io_schedule", Reason::Disk),
];

fn kernel_reason(function: &str) -> Option<Reason> {
    KERNEL.iter().find(|(prefix, _)| function.starts_with(prefix)).map(|(_, reason)| *reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(syscall: i64, task_state: u32, kernel: &[&str], expected: Reason) {
        let entry = Entry { syscall: u32::try_from(syscall).ok(), fault: false, task_state };
        let found = reason(entry, kernel.iter().copied());
        assert_eq!(found, expected, "syscall {syscall} state {task_state:#x} in {kernel:?}");
    }

    #[test]
    fn a_syscall_that_waits_for_one_thing_says_it() {
        check(libc::SYS_clock_nanosleep, 1, &[], Reason::Sleep);
        check(libc::SYS_futex, 0x2001, &[], Reason::Futex);
        check(libc::SYS_epoll_wait, 1, &["ep_poll"], Reason::Poll);
        check(libc::SYS_accept4, 1, &[], Reason::Socket);
        check(libc::SYS_wait4, 1, &[], Reason::Process);
        check(libc::SYS_clone3, 0x2, &["kernel_clone"], Reason::Process);
        check(libc::SYS_semop, 1, &[], Reason::Ipc);
        check(libc::SYS_getpid, 1, &[], Reason::Other);
    }

    #[test]
    fn a_file_descriptor_needs_the_kernel_stack() {
        let leaf = ["finish_task_switch", "__schedule", "schedule"];
        let with = |function| [&leaf[..], &[function, "vfs_read"]].concat();
        check(libc::SYS_read, 1, &with("pipe_read"), Reason::Pipe);
        check(libc::SYS_read, 1, &with("anon_pipe_read"), Reason::Pipe);
        check(libc::SYS_read, 1, &with("tcp_recvmsg"), Reason::Socket);
        check(libc::SYS_write, 1, &with("unix_stream_sendmsg"), Reason::Socket);
        check(libc::SYS_openat, 1, &["wait_for_partner", "fifo_open"], Reason::Pipe);
        check(libc::SYS_read, 1, &with("n_tty_read"), Reason::File);
        check(libc::SYS_read, 1, &[], Reason::File);
    }

    #[test]
    fn disk_wait_is_a_state_not_a_syscall() {
        check(libc::SYS_fsync, 0x2, &["jbd2_log_wait_commit"], Reason::Disk);
        check(libc::SYS_read, 0x102, &["io_schedule"], Reason::Disk);
        // Interruptible and freezable: 0x2000 must not be read as a disk wait.
        check(libc::SYS_read, 0x2001, &["n_tty_read"], Reason::File);
        check(libc::SYS_read, 0x2, &["pipe_read"], Reason::Pipe);
    }

    #[test]
    fn stopped_and_faulting_threads_are_in_no_wait_of_their_syscall() {
        check(libc::SYS_futex, 0x4, &[], Reason::Stopped);
        check(libc::SYS_futex, 0x108, &[], Reason::Stopped);
        check(libc::SYS_futex, 1, &["do_freezer_trap"], Reason::Stopped);
        let fault = Entry { syscall: None, fault: true, task_state: 2 };
        assert_eq!(reason(fault, ["io_schedule"]), Reason::PageFault);
    }

    #[test]
    fn a_restarted_or_unread_syscall_is_told_by_the_kernel_stack() {
        check(libc::SYS_restart_syscall, 1, &["do_nanosleep", "hrtimer_nanosleep"], Reason::Sleep);
        check(-1, 1, &["futex_wait_queue", "futex_wait"], Reason::Futex);
        check(-1, 1, &[], Reason::Other);
    }
}
