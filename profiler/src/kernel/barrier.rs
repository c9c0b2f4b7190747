//! Waits until every program run that began before has ended.
#![expect(unsafe_code, reason = "no safe wrapper of membarrier exists")]

use std::io;

/// `MEMBARRIER_CMD_GLOBAL` of `linux/membarrier.h`.
const GLOBAL: libc::c_int = 1;

/// Waits until every BPF program that was running anywhere when this was called has returned.
///
/// The kernel runs tracing programs with preemption disabled, which is an RCU read-side section,
/// and `membarrier` in its global form is one `synchronize_rcu`.
///
/// # Errors
/// If the kernel has no `membarrier`.
pub fn wait_for_running_programs() -> io::Result<()> {
    // SAFETY: takes integers only and touches no memory of this process.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, GLOBAL, 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
