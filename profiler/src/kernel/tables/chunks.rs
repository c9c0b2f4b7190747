//! The rows of all files in arrays of their own, and those in the map `ROWS`.
#![expect(unsafe_code, reason = "aya has no batch update")]

use std::{
    io,
    os::fd::{AsFd as _, AsRawFd as _, OwnedFd},
};

use aya::maps::{Array, ArrayOfMaps, IterableMap as _, Map, MapData, MapError};
use profiler_common::{code::Chunk, table::Rule};

use super::packing::Store;
use crate::kernel::usage;

/// `BPF_MAP_UPDATE_BATCH` of `linux/bpf.h`.
const UPDATE_BATCH: libc::c_int = 26;

/// The chunks and rules of all files.
pub struct Chunks {
    all: ArrayOfMaps<MapData, Array<MapData, Chunk>>,
    /// The same map, to enter many at once.
    map: OwnedFd,
    /// The one that may get more rows, by its number.
    open: Option<(u32, Array<MapData, Chunk>)>,
    /// Those that are not in `ROWS` yet.
    added: Vec<(u32, Array<MapData, Chunk>)>,
    /// Memory of the others: nothing but `ROWS` holds them.
    closed_bytes: u64,
    rules: Array<MapData, u64>,
}

impl Chunks {
    /// No chunks in the map `ROWS`, no rules in `RULES`.
    ///
    /// # Errors
    /// If these are other maps, or there are no descriptors left.
    pub fn new(rows: Map, rules: Map) -> anyhow::Result<Self> {
        let map = match &rows {
            Map::ArrayOfMaps(data) => data.fd().as_fd().try_clone_to_owned()?,
            _ => anyhow::bail!("ROWS is no array of maps"),
        };
        Ok(Self {
            all: rows.try_into()?,
            map,
            open: None,
            added: Vec::new(),
            closed_bytes: 0,
            rules: rules.try_into()?,
        })
    }

    /// Enters what was added: from then on programs find it.
    ///
    /// All at once: after each update of such a map the kernel waits until every program that may see the
    /// map as it was has ended, some 20 ms.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn enter(&mut self) -> Result<(), MapError> {
        let added = std::mem::take(&mut self.added);
        if added.len() > 1 && self.enter_at_once(&added).is_ok() {
            self.keep_open(added);
            return Ok(());
        }
        // One by one where the kernel knows no batches for such maps.
        for (number, chunk) in &added {
            self.all.set(*number, chunk, 0)?;
        }
        self.keep_open(added);
        Ok(())
    }

    /// Memory of the maps that this process holds no descriptor of.
    pub fn closed_bytes(&self) -> u64 {
        self.closed_bytes
    }

    fn enter_at_once(&self, added: &[(u32, Array<MapData, Chunk>)]) -> io::Result<()> {
        /// `union bpf_attr`, the part for batches.
        #[repr(C)]
        struct Batch {
            first: u64,
            next: u64,
            keys: u64,
            values: u64,
            count: u32,
            map: u32,
            element_flags: u64,
            flags: u64,
        }
        let numbers: Vec<u32> = added.iter().map(|(number, _)| *number).collect();
        let chunks: Vec<libc::c_int> =
            added.iter().map(|(_, chunk)| chunk.map().fd().as_fd().as_raw_fd()).collect();
        let mut batch = Batch {
            first: 0,
            next: 0,
            keys: numbers.as_ptr() as u64,
            values: chunks.as_ptr() as u64,
            count: added.len() as u32,
            map: self.map.as_raw_fd() as u32,
            element_flags: 0,
            flags: 0,
        };
        // SAFETY: keys and values are as many numbers and descriptors as it says; the kernel writes
        // nothing but the count.
        let done = unsafe {
            libc::syscall(libc::SYS_bpf, UPDATE_BATCH, &raw mut batch, size_of::<Batch>())
        };
        if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Keeps the last one, which may get more rows; `ROWS` holds the others.
    fn keep_open(&mut self, mut added: Vec<(u32, Array<MapData, Chunk>)>) {
        let Some(last) = added.pop() else { return };
        let closed = self.open.replace(last).into_iter().chain(added);
        self.closed_bytes += closed
            .map(|(_, chunk)| usage::map_bytes(chunk.map().fd().as_fd()).unwrap_or(0))
            .sum::<u64>();
    }
}

impl Store for Chunks {
    type Error = MapError;

    fn chunk(&mut self, number: u32, rows: &Chunk) -> Result<(), MapError> {
        let known = self.added.last_mut().or(self.open.as_mut());
        if let Some((known, chunk)) = known
            && *known == number
        {
            return chunk.set(0, rows, 0);
        }
        let mut chunk = Array::create(1, 0)?;
        chunk.set(0, rows, 0)?;
        self.added.push((number, chunk));
        Ok(())
    }

    fn rule(&mut self, number: u16, rule: Rule) -> Result<(), MapError> {
        self.rules.set(number.into(), u64::from_le_bytes(rule.to_bytes()), 0)
    }
}
