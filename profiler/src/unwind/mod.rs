//! Registers and stack bytes to frames. Pure: no `/proc`, no maps, no aya.
//!
//! - [`elf`]: what identifies an ELF file.
//! - [`code`]: the code of one ELF file, and what unwinds it.
//! - [`table`]: that as a compact table.
//! - [`info`]: that as the file has it, and the search in it.
//! - [`registers`], [`frame`]: from one frame to its caller by all that the file says.
//! - [`space`]: the code mapped in one process, and the walk of a stack through it.

pub mod code;
pub mod elf;
pub mod frame;
pub mod info;
pub mod registers;
pub mod space;
pub mod table;

pub use code::CodeFile;
pub use elf::CodeIdentity;
pub use registers::Registers;
pub use space::{AddressSpace, Walk, WalkRegs, WalkedFrame};
pub use table::Table;
