//! The maps that the walk of user stacks goes by: tables of files, and the mappings of processes.

mod chunks;
mod packing;
mod runs;

pub use chunks::Chunks;

use std::{collections, ops::Range};

use anyhow::{Context as _, Result};
use aya::maps::{Array, HashMap, MapData, MapError};
use profiler_common::code::{
    MAPPINGS_MAX, Mapping, PAGES_MAX, PROCESS_MAPPINGS_MAX, ProcessCode, TablePage,
};

use self::{packing::Packing, runs::Runs};
use super::barrier;
use crate::{units::Pid, unwind::Table};

/// Mappings of replaced runs that are kept until it is sure that no program uses them any more:
/// waiting for that takes milliseconds, so many are freed at once.
const RETIRED_MAX: u32 = MAPPINGS_MAX as u32 / 4;

/// The tables and mappings in the kernel.
///
/// Whatever a program finds is whole: rows and rules are written before the pages that name them,
/// pages before mappings, and a process's entry last.
pub struct KernelTables {
    store: Chunks,
    packing: Packing,
    pages: Array<MapData, TablePage>,
    free_pages: Runs,
    mappings: Array<MapData, Mapping>,
    free_mappings: Runs,
    processes: HashMap<MapData, u32, ProcessCode>,
    /// The run of each process.
    published: collections::HashMap<Pid, Range<u32>>,
    /// Runs that were replaced; programs may be using them still.
    retired: Vec<Range<u32>>,
}

/// The maps as `aya` gives them.
pub struct Maps {
    /// `ROWS` and `RULES`.
    pub chunks: Chunks,
    /// `PAGES`.
    pub pages: Array<MapData, TablePage>,
    /// `MAPPINGS`.
    pub mappings: Array<MapData, Mapping>,
    /// `PROCESSES`.
    pub processes: HashMap<MapData, u32, ProcessCode>,
}

/// A file's table in the kernel, where it stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlacedFile {
    /// The first text page that it says something of.
    pub first_page: u64,
    /// Indices in `PAGES` of that page and of those behind it.
    pub pages: Range<u32>,
}

impl KernelTables {
    /// No table and no process.
    pub fn new(maps: Maps) -> Self {
        let Maps { chunks, pages, mappings, processes } = maps;
        Self {
            store: chunks,
            packing: Packing::new(),
            pages,
            free_pages: Runs::new(PAGES_MAX as u32),
            mappings,
            free_mappings: Runs::new(MAPPINGS_MAX as u32),
            processes,
            published: collections::HashMap::new(),
            retired: Vec::new(),
        }
    }

    /// Places a file's table; `None` if there is no room for it.
    ///
    /// # Errors
    /// If the kernel refuses, for want of memory for instance.
    pub fn add_file(&mut self, table: &Table) -> Result<Option<PlacedFile>> {
        let length = u32::try_from(table.pages.len()).unwrap_or(u32::MAX);
        let Some(run) = self.free_pages.take(length) else { return Ok(None) };
        let placed = self.place(table, run.clone());
        if !matches!(placed, Ok(true)) {
            self.free_pages.give_back(run.clone());
        }
        let placed = placed.context("cannot place an unwind table")?;
        Ok(placed.then_some(PlacedFile { first_page: table.first_page, pages: run }))
    }

    fn place(&mut self, table: &Table, run: Range<u32>) -> Result<bool, MapError> {
        let Some(pages) = self.packing.add(table, &mut self.store)? else { return Ok(false) };
        self.store.enter()?;
        for (index, page) in run.zip(pages) {
            self.pages.set(index, page, 0)?;
        }
        Ok(true)
    }

    /// Makes these, sorted by address, the mappings of a process, under a number that no other
    /// reading of mappings has. False if there is no room for them: then it has none.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn publish(&mut self, pid: Pid, generation: u32, mappings: &[Mapping]) -> Result<bool> {
        let length = u32::try_from(mappings.len()).unwrap_or(u32::MAX);
        let fits = length <= PROCESS_MAPPINGS_MAX;
        let Some(run) = fits.then(|| self.take_mappings(length)).flatten() else {
            self.remove(pid);
            return Ok(false);
        };
        let code = ProcessCode { first: run.start, mappings: length, generation, reserved: 0 };
        let written = run
            .clone()
            .zip(mappings)
            .try_for_each(|(index, mapping)| self.mappings.set(index, mapping, 0))
            .and_then(|()| self.processes.insert(pid.0, code, 0));
        if let Err(error) = written {
            self.free_mappings.give_back(run);
            self.remove(pid);
            return Err(error).context("cannot publish the mappings of a process");
        }
        let replaced = self.published.insert(pid, run);
        self.retire(replaced);
        Ok(true)
    }

    /// Forgets a process.
    pub fn remove(&mut self, pid: Pid) {
        // The kernel side may have removed it already.
        let _ = self.processes.remove(&pid.0);
        let run = self.published.remove(&pid);
        self.retire(run);
    }

    /// Memory of the maps that this process holds no descriptor of.
    pub fn bytes(&self) -> u64 {
        self.store.closed_bytes()
    }

    fn take_mappings(&mut self, length: u32) -> Option<Range<u32>> {
        let taken = self.free_mappings.take(length);
        if taken.is_some() || self.retired.is_empty() {
            return taken;
        }
        self.free_retired();
        self.free_mappings.take(length)
    }

    fn retire(&mut self, run: Option<Range<u32>>) {
        self.retired.extend(run);
        if self.retired.iter().map(|run| run.len() as u32).sum::<u32>() > RETIRED_MAX {
            self.free_retired();
        }
    }

    /// Frees the runs that were replaced, once no program can be using them.
    fn free_retired(&mut self) {
        // Without the barrier they stay taken, and what finds no room is walked from copies.
        if barrier::wait_for_running_programs().is_ok() {
            for run in self.retired.drain(..) {
                self.free_mappings.give_back(run);
            }
        }
    }
}

impl PlacedFile {
    /// Index in `PAGES` of the entry for the file's address 0, wrapping.
    pub fn page_base(&self) -> u32 {
        self.pages.start.wrapping_sub(self.first_page as u32)
    }
}
