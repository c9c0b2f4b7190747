//! Bounds that the verifier can see and the compiler cannot drop.

use core::arch::asm;

/// `value & MASK`, in a way that the compiler cannot prove needless and drop: the verifier needs
/// to see it.
#[inline(always)]
pub fn bounded<const MASK: i32>(mut value: u64) -> u64 {
    // SAFETY: an arithmetic instruction on a register.
    unsafe { asm!("{0} &= {1}", inout(reg) value, const MASK) };
    value
}
