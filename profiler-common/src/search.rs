//! One step of a binary search, without a branch.

/// Where a binary search goes on: at `at + half` if `entry`, the key there, is not above `wanted`.
///
/// The search for the last of `count` sorted entries that is not above `wanted`, given that the
/// first is not, is
///
/// ```
/// # use profiler_common::search::halve;
/// # let (entries, wanted) = ([0, 3, 5, 9_u16], 6);
/// let (mut at, mut count) = (0, entries.len() as u32);
/// while count > 1 {
///     let half = count / 2;
///     at = halve(at, half, entries[(at + half) as usize], wanted);
///     count -= half;
/// }
/// assert_eq!(at, 2);
/// ```
///
/// A verifier that follows both sides of a branch would follow 2^16 ways through a search in 65,536
/// entries. Arithmetic has one way.
#[inline(always)]
pub const fn halve(at: u32, half: u32, entry: u16, wanted: u16) -> u32 {
    let not_above = (entry as u32).wrapping_sub(wanted as u32 + 1) >> 31;
    at + half * not_above
}
