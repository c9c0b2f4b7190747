//! The machine that the target runs on, and its clocks.

use std::{fs, os::unix::fs::MetadataExt};

use anyhow::Context;
use nix::{
    sys::utsname::uname,
    time::{ClockId, clock_gettime},
};

use crate::units::{Ktime, Nanos, Pid};

/// Inode of the first PID namespace (`PROC_PID_INIT_INO`, `linux/proc_ns.h`).
const INITIAL_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Kernel release, as `uname -r` says.
    pub kernel: String,
    /// Machine type, as `uname -m` says.
    pub arch: String,
    /// CPUs online.
    pub cpus: u32,
    /// Id of this boot.
    pub boot_id: String,
}

/// One instant on all clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clocks {
    /// On the clock of the recording.
    pub monotonic: Ktime,
    /// In nanoseconds since the Unix epoch.
    pub unix_ns: i64,
    /// `CLOCK_BOOTTIME` minus `CLOCK_MONOTONIC`: how long the machine was suspended.
    pub boot_minus_monotonic: Nanos,
}

/// The machine we run on.
pub fn host() -> anyhow::Result<Host> {
    let names = uname().context("uname failed")?;
    let online = fs::read_to_string("/sys/devices/system/cpu/online").ok();
    let cpus = online.and_then(|list| cpus_in(&list)).or_else(|| {
        // `/sys` is not mounted: then as many as we may use.
        std::thread::available_parallelism().ok().map(|cpus| cpus.get() as u32)
    });
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("cannot read /proc/sys/kernel/random/boot_id; is /proc mounted?")?;
    Ok(Host {
        kernel: names.release().to_string_lossy().into_owned(),
        arch: names.machine().to_string_lossy().into_owned(),
        cpus: cpus.unwrap_or(1),
        boot_id: boot_id.trim().to_owned(),
    })
}

/// The present instant on all clocks.
pub fn clocks() -> anyhow::Result<Clocks> {
    let read = |clock: ClockId| {
        let time = clock_gettime(clock).with_context(|| format!("cannot read clock {clock}"))?;
        Ok::<_, anyhow::Error>(time.tv_sec() * 1_000_000_000 + time.tv_nsec())
    };
    let before = read(ClockId::CLOCK_MONOTONIC)?;
    let unix_ns = read(ClockId::CLOCK_REALTIME)?;
    let boot = read(ClockId::CLOCK_BOOTTIME)?;
    let after = read(ClockId::CLOCK_MONOTONIC)?;
    let monotonic = before.midpoint(after);
    Ok(Clocks {
        monotonic: Ktime(monotonic.cast_unsigned()),
        unix_ns,
        // Never suspended: what is left is the time between the two reads.
        boot_minus_monotonic: Nanos(if boot <= after { 0 } else { (boot - after).cast_unsigned() }),
    })
}

/// Whether we are in the machine's own PID namespace, whose numbers the kernel programs speak.
pub fn is_initial_pid_namespace() -> bool {
    fs::metadata("/proc/self/ns/pid").is_ok_and(|ns| ns.ino() == INITIAL_PID_NAMESPACE)
}

pub(super) fn own_pid() -> Pid {
    Pid(std::process::id())
}

/// How many CPUs a list such as `0-3,8` has.
fn cpus_in(ranges: &str) -> Option<u32> {
    ranges
        .trim()
        .split(',')
        .map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (first, last) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
            last.checked_sub(first)?.checked_add(1)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_are_counted() {
        let check = |list, expected| assert_eq!(cpus_in(list), expected, "{list}");
        check("0\n", Some(1));
        check("0-3\n", Some(4));
        check("0-3,8,10-11\n", Some(7));
        check("\n", None);
        check("3-1", None);
    }
}
