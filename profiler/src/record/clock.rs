//! The clocks of a recording.

use rustix::time::{ClockId, Timespec, clock_gettime};

use crate::units::{Ktime, Nanos};

/// Now, on the clock that the kernel side reads.
pub fn now() -> Ktime {
    Ktime(nanos(clock_gettime(ClockId::Monotonic)) as u64)
}

/// Nanoseconds since the Unix epoch at the instant `at`.
pub fn unix_ns(at: Ktime) -> i64 {
    let ahead = at.0 as i64 - now().0 as i64;
    nanos(clock_gettime(ClockId::Realtime)) + ahead
}

/// How far `CLOCK_BOOTTIME` is ahead: the time this machine was suspended.
pub fn boot_minus_monotonic() -> Nanos {
    let monotonic = nanos(clock_gettime(ClockId::Monotonic));
    Nanos((nanos(clock_gettime(ClockId::Boottime)) - monotonic).max(0) as u64)
}

fn nanos(time: Timespec) -> i64 {
    time.tv_sec * 1_000_000_000 + time.tv_nsec
}
