//! unwind: being written.

pub mod elf;
