//! Which process is meant, and what `/proc` says of it: threads, code mappings, cgroup, machine.
//!
//! No ELF is parsed here and nothing is judged. A process can end between any two reads: then it
//! is [`Failure::NoTarget`], or the part that is gone is left out.

mod cgroup;
mod describe;
mod descriptor;
mod find;
mod host;
mod maps;
mod memory;
mod process;
mod sockets;
mod stat;
#[cfg(test)]
mod tests;

use std::{io, os::unix::fs::MetadataExt as _};

pub use cgroup::Throttle;
pub use describe::describe;
pub use descriptor::{Descriptor, Opener, descriptor, ends, openers, pidfd_process};
pub use find::{by_name, by_pid};
pub use host::{Clocks, Host, clocks, host, is_initial_pid_namespace};
pub use maps::{ExecMapping, MappingKind, mappings, open_mapped};
pub use memory::{read_memory, read_readable, stack_pointer, threads_inside};
use nix::errno::Errno;
pub use process::{Process, children, process_name, sched_stat, switches, threads};
pub use sockets::{InetSocket, UnixSocket, UnixSockets, inet_sockets};
pub use stat::SchedStat;

use crate::{failure::Failure, units::Pid};

/// Whether a process is there and runs a program: one that has ended and was not waited for yet does
/// not.
pub fn has_program(pid: Pid) -> bool {
    match std::fs::read_link(format!("/proc/{pid}/exe")) {
        Ok(_) => true,
        Err(error) => error.kind() != io::ErrorKind::NotFound && !is_errno(&error, Errno::ESRCH),
    }
}

/// Whether nobody but this user and root can have written a file.
pub fn only_we_can_write(file: &std::fs::File) -> bool {
    const WRITABLE_BY_OTHERS: u32 = 0o022;
    file.metadata().is_ok_and(|file| {
        let ours = [0, nix::unistd::geteuid().as_raw()].contains(&file.uid());
        ours && file.mode() & WRITABLE_BY_OTHERS == 0
    })
}

/// What a failed read of one of a process's files means.
fn failure_of(pid: Pid, error: &io::Error) -> Option<Failure> {
    if error.kind() == io::ErrorKind::NotFound || is_errno(error, Errno::ESRCH) {
        return Some(Failure::NoTarget(format!(
            "process {pid} has ended; `pgrep -af NAME` lists what runs now"
        )));
    }
    (error.kind() == io::ErrorKind::PermissionDenied).then(|| {
        Failure::NotPermitted(format!(
            "not permitted to look into process {pid}: it is another user's or has more rights \
             than you; run with sudo, or give stallscope CAP_SYS_PTRACE (`stallscope doctor` says how)"
        ))
    })
}

/// A failed read of `/proc/PID/FILE` as an error with its exit code.
fn unreadable(pid: Pid, file: &str, error: io::Error) -> anyhow::Error {
    match failure_of(pid, &error) {
        Some(failure) => failure.into(),
        None => anyhow::Error::new(error).context(format!("cannot read /proc/{pid}/{file}")),
    }
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno as i32)
}
