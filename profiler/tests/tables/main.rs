//! Unwind tables against two others who read the same unwind information: gimli, row by row, and
//! framehop, stack by stack.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod oracle;
mod rows;
mod stacks;
mod traced;
mod walk;
