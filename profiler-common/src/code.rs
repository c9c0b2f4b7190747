//! Where the code of the watched processes is, and the tables that unwind it, as the kernel side
//! finds them: what the maps `PROCESSES`, `MAPPINGS`, `PAGES`, `ROWS` and `RULES` hold.
//!
//! From an address to its rule: the process names a run of [`Mapping`]s, sorted by address; the mapping
//! names the [`TablePage`]s of its file; the page names a run of rows in one [`Chunk`], sorted by where
//! in the page they begin; the row names a [`Rule`](crate::table::Rule) of the one list of all files.
//!
//! The user side writes from the bottom up, and a process last: whatever a program finds is whole.

use crate::table::Row;

/// The executable mappings of one process: a value of `PROCESSES`, by process id in the initial PID
/// namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ProcessCode {
    /// Index in `MAPPINGS` of its first one.
    pub first: u32,
    /// How many it has; at most [`PROCESS_MAPPINGS_MAX`].
    pub mappings: u32,
    /// Tells which reading of the process's mappings this is; goes into
    /// [`IntervalEvent::generation`](crate::event::IntervalEvent::generation).
    pub generation: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// Where the addresses of mappings that the kernel side knows end: it compares them as numbers with a
/// sign.
pub const ADDRESSES_END: u64 = 1 << 63;

/// One executable mapping: a value of `MAPPINGS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Mapping {
    /// Its first address.
    pub start: u64,
    /// The first address after it.
    pub end: u64,
    /// What an address of the file lies lower than the same byte in memory, wrapping.
    pub bias: u64,
    /// Index in `PAGES` of the entry for the file's address 0, wrapping: that of the text page `p` is
    /// `page_base + p`. Every text page that the mapping touches has an entry.
    pub page_base: u32,
    /// A [`MappingCode`].
    pub code: u32,
}

/// How frames in a mapping are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum MappingCode {
    /// By the tables of its file.
    Table = 1,
    /// By frame pointer: memory that is no file, or a file without any unwind information.
    FramePointer = 2,
    /// Not in the kernel: the tables are not there (yet), or found no room.
    Absent = 3,
}

/// The rows of one text page: a value of `PAGES`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct TablePage {
    /// Which [`Chunk`] they are in.
    pub chunk: u32,
    /// Index of the first one in the chunk.
    pub first: u16,
    /// How many there are; 0 for a page without code.
    pub rows: u16,
}

/// Rows in one chunk.
pub const CHUNK_ROWS: usize = 16 * 1024;

/// The value of one of the one-element arrays in `ROWS`. The rows of a page never straddle two.
///
/// A row's rule is its index in `RULES`.
pub type Chunk = [u32; CHUNK_ROWS];

/// Chunks there can be at once: 256 MiB, the tables of 4 GiB of code.
pub const CHUNKS_MAX: usize = 4096;
/// Text pages there can be at once, of all files together.
pub const PAGES_MAX: usize = 64 * 1024;
/// Distinct rules there can be at once, of all files together. A whole Linux system has 5,000.
pub const RULES_MAX: usize = 32 * 1024;
/// Executable mappings there can be at once, of all processes together.
pub const MAPPINGS_MAX: usize = 32 * 1024;
/// Executable mappings that a process can have and still be unwound in the kernel.
pub const PROCESS_MAPPINGS_MAX: u32 = 8 * 1024;

const _: () = assert!(size_of::<ProcessCode>() == 16);
const _: () = assert!(size_of::<Mapping>() == 32);
const _: () = assert!(size_of::<TablePage>() == 8);
const _: () = assert!(size_of::<Row>() == 4 && size_of::<Chunk>() == 64 * 1024);

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "Pod is an unsafe trait; the layouts are asserted above")]
mod pod {
    use super::{Mapping, ProcessCode, TablePage};

    // SAFETY: integers without padding, every bit pattern is valid.
    unsafe impl aya::Pod for ProcessCode {}
    // SAFETY: as above.
    unsafe impl aya::Pod for Mapping {}
    // SAFETY: as above.
    unsafe impl aya::Pod for TablePage {}
}
