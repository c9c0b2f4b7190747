//! What a process had mapped, reading by reading: the frames of a stack are placed by the reading
//! that its walk went by.

use std::{collections::VecDeque, path::PathBuf, sync::Arc};

use profiler_common::stack::INTERRUPTED;

use crate::{
    kernel::Made,
    recording::{CodeAddress, FrameKind, ModuleId, RawFrame},
    target::ExecMapping,
    units::{Avma, FileOffset, Ktime, Pid},
    unwind::code,
};

/// Generations of a process that are kept, however long ago they were replaced: where stacks are
/// taken at switch-out, a record comes only when its thread goes on.
const KEPT: usize = 16;

/// One executable mapping, and what it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The mapping.
    pub mapping: ExecMapping,
    /// What must be added to an address of the file to get the one in memory.
    pub bias: u64,
    /// The file; `None` for memory that is none.
    pub module: Option<ModuleId>,
}

/// A process's mappings under the number by which records name them.
#[derive(Clone, Debug)]
pub struct Generation {
    /// The number; no other generation of any process has it.
    pub number: u32,
    /// When they began to be read.
    pub read_at: Ktime,
    /// The mappings, by address.
    pub mapped: Arc<[Mapped]>,
}

/// The generations of one process that records may still name, and the mappings made since they
/// were read.
#[derive(Debug, Default)]
pub struct History {
    /// With the instant at which each was replaced, the oldest first.
    replaced: VecDeque<(Generation, Ktime)>,
    current: Option<Generation>,
    /// Those that the generation of their time did not know.
    made: Vec<Made>,
}

/// What a mapping that was made is to a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Known.
    None,
    /// Unknown, where nothing was.
    Addition,
    /// Something else where the generation has another mapping: stacks through it are in doubt.
    Replacement,
}

impl Generation {
    /// An entry of a record's frames, free of where its file was loaded.
    pub fn place(&self, address: Avma, kind: FrameKind) -> RawFrame {
        let address = match self.at(lookup(address, kind)) {
            Some(&Mapped { bias, module: Some(module), .. }) => {
                CodeAddress::Module(module, code::svma(address, bias))
            }
            _ => CodeAddress::Memory(address),
        };
        RawFrame { address, kind }
    }

    /// The mapping that an address lies in.
    fn at(&self, address: Avma) -> Option<&Mapped> {
        let behind = self.mapped.partition_point(|mapped| mapped.mapping.start <= address);
        let mapped = &self.mapped[behind.checked_sub(1)?];
        (address < mapped.mapping.end).then_some(mapped)
    }

    /// Whether a mapping that was made is one of these, or a part of one.
    fn knows(&self, made: &Made) -> bool {
        self.at(made.start).is_some_and(|Mapped { mapping, .. }| {
            made.end <= mapping.end && shows_the_same(made, mapping)
        })
    }
}

impl History {
    /// The latest generation.
    pub fn current(&self) -> Option<&Generation> {
        self.current.as_ref()
    }

    /// The generation of that number.
    pub fn get(&self, number: u32) -> Option<&Generation> {
        let replaced = || self.replaced.iter().rev().map(|(generation, _)| generation);
        self.current.iter().chain(replaced()).find(|generation| generation.number == number)
    }

    /// Whether mappings were made that the current generation lacks.
    pub fn is_outdated(&self) -> bool {
        self.current
            .as_ref()
            .is_none_or(|current| self.made.iter().any(|made| current.read_at <= made.at))
    }

    /// Begins a generation. Those that no record can name any more go, and their numbers are
    /// returned: `taken_until` is an instant before which every record was taken.
    pub fn begin(&mut self, generation: Generation, now: Ktime, taken_until: Ktime) -> Vec<u32> {
        self.replaced.extend(self.current.replace(generation).map(|before| (before, now)));
        let mut gone = Vec::new();
        while self.replaced.len() > KEPT
            && let Some(oldest) = self.replaced.front()
            && oldest.1 < taken_until
        {
            gone.push(oldest.0.number);
            self.replaced.pop_front();
        }
        let oldest = self.replaced.front().map(|(oldest, _)| oldest).or(self.current.as_ref());
        if let Some(oldest) = oldest {
            self.made.retain(|made| oldest.read_at <= made.at);
        }
        gone
    }

    /// Every number that is known.
    pub fn numbers(&self) -> impl Iterator<Item = u32> {
        let replaced = self.replaced.iter().map(|(generation, _)| generation);
        replaced.chain(&self.current).map(|generation| generation.number)
    }

    /// Notes a mapping that was made, and says what it is to the current generation.
    pub fn note(&mut self, made: Made) -> News {
        let Some(current) = &self.current else { return News::Addition };
        if current.knows(&made) {
            return News::None;
        }
        let replaces = current.mapped.iter().any(|mapped| is_replaced(&mapped.mapping, &made));
        self.made.push(made);
        if replaces { News::Replacement } else { News::Addition }
    }

    /// Notes that any mapping may have been replaced since an instant: what was made then was not
    /// heard of.
    pub fn doubt_everything(&mut self, since: Ktime) {
        let Some(current) = &self.current else { return };
        self.made.push(Made {
            at: since.max(current.read_at),
            pid: Pid(0),
            start: Avma(0),
            end: Avma(u64::MAX),
            offset: FileOffset(0),
            dev: (0, 0),
            // No file has it.
            inode: u64::MAX,
            path: PathBuf::new(),
        });
    }

    /// Whether nothing was made between a generation's reading and the capture of a stack.
    pub fn is_quiet(&self, generation: &Generation, captured: Ktime) -> bool {
        self.made_between(generation, captured).next().is_none()
    }

    /// The first frame of a stack, leaf first, that lies where another mapping had taken the place
    /// of the generation's before the stack was captured: from there on it tells nothing.
    pub fn first_in_doubt(
        &self,
        generation: &Generation,
        frames: impl IntoIterator<Item = (Avma, FrameKind)>,
        captured: Ktime,
    ) -> Option<usize> {
        frames.into_iter().position(|(address, kind)| {
            let Some(Mapped { mapping, .. }) = generation.at(lookup(address, kind)) else {
                return false;
            };
            self.made_between(generation, captured).any(|made| is_replaced(mapping, made))
        })
    }

    /// The first frame of a stack, leaf first, that lies where the current generation has another
    /// file than the one that was in place when the stack was captured.
    pub fn first_replaced(
        &self,
        frames: impl IntoIterator<Item = (Avma, FrameKind)>,
        captured: Ktime,
    ) -> Option<usize> {
        let current = self.current.as_ref()?;
        let in_force = self.replaced.iter().rev().map(|(generation, _)| generation);
        let then = in_force.chain([current]).find(|then| then.read_at <= captured);
        let then = then.filter(|_| captured < current.read_at)?;
        frames.into_iter().position(|(address, kind)| {
            let address = lookup(address, kind);
            let files = [then, current].map(|generation| {
                let mapped = generation.at(address)?;
                Some((mapped.module, mapped.module.map(|_| mapped.bias)))
            });
            matches!(files, [Some(then), Some(now)] if then != now)
        })
    }

    fn made_between(&self, generation: &Generation, end: Ktime) -> impl Iterator<Item = &Made> {
        let start = generation.read_at;
        self.made.iter().filter(move |made| start <= made.at && made.at < end)
    }
}

/// An entry of a record's frames, the `index`th from the leaf, and what kind of address it is.
pub fn frame(entry: u64, index: usize, leaf: FrameKind) -> (Avma, FrameKind) {
    let kind = match index {
        0 => leaf,
        _ if entry & INTERRUPTED != 0 => FrameKind::InstructionPointer,
        _ => FrameKind::ReturnAddress,
    };
    (Avma(entry & !INTERRUPTED), kind)
}

/// An address inside the instruction that a frame is in.
fn lookup(address: Avma, kind: FrameKind) -> Avma {
    match kind {
        FrameKind::InstructionPointer => address,
        FrameKind::ReturnAddress => Avma(address.0.saturating_sub(1)),
    }
}

/// Whether a mapping that was made took the place of this one, or of a part of it.
fn is_replaced(mapping: &ExecMapping, made: &Made) -> bool {
    let overlap = made.start < mapping.end && mapping.start < made.end;
    overlap && !shows_the_same(made, mapping)
}

/// Whether an address in both lies at the same place of the same file, or in memory that is none.
fn shows_the_same(made: &Made, mapping: &ExecMapping) -> bool {
    if made.inode == 0 || mapping.inode == 0 {
        return made.inode == mapping.inode;
    }
    let at_zero = |start: Avma, offset: u64| start.0.wrapping_sub(offset);
    // Some file systems state one device here and another there.
    let same_file = made.inode == mapping.inode && made.dev == mapping.dev
        || made.dev != mapping.dev && made.path == mapping.path;
    same_file && at_zero(made.start, made.offset.0) == at_zero(mapping.start, mapping.offset.0)
}

#[cfg(test)]
mod tests;
