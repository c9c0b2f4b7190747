//! Registers and stack bytes to frames. Pure: no `/proc`, no maps, no aya.
//!
//! - [`elf`]: what identifies an ELF file.
//! - [`code`]: the unwind information of one ELF file.
//! - [`table`]: the same as a compact table.
//! - [`space`]: the code mapped in one process, and the walk of a stack through it.

pub mod code;
pub mod elf;
pub mod space;
pub mod table;

pub use code::CodeFile;
pub use elf::CodeIdentity;
pub use space::{AddressSpace, Walk, WalkRegs, WalkedFrame};
pub use table::Table;
