//! The kernel's own measurement of program run times, on only while somebody holds it on.
#![expect(unsafe_code, reason = "no safe wrapper of BPF_ENABLE_STATS exists")]

use std::{
    io,
    os::fd::{FromRawFd as _, OwnedFd},
};

/// `BPF_ENABLE_STATS` and `BPF_STATS_RUN_TIME` of `linux/bpf.h`.
const ENABLE_STATS: libc::c_long = 32;
const RUN_TIME: u32 = 0;

/// Turns the measurement on until the returned descriptor is closed.
///
/// # Errors
/// If the kernel refuses (it wants `CAP_SYS_ADMIN`).
pub fn enable() -> io::Result<OwnedFd> {
    let kind = RUN_TIME;
    // SAFETY: for this command the kernel reads the four bytes of the attribute, no more.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, ENABLE_STATS, &raw const kind, 4) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just gave this descriptor to us alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}
