//! Unwind tables against the walk with all registers, which reads the same unwind information by
//! other code: row by row, and stack by stack.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod rows;
mod stacks;
mod traced;
mod walk;
