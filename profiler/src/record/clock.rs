//! The present instant.

use rustix::time::{ClockId, clock_gettime};

use crate::units::Ktime;

/// Now, on the clock that the kernel side reads.
pub fn now() -> Ktime {
    let now = clock_gettime(ClockId::Monotonic);
    Ktime(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}
