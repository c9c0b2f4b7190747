//! The user stack of an event: by the kernel's walk where that was whole, else from the copy.

use std::collections::HashMap;

use profiler_common::{counter::Counter, event::IntervalEvent, stack::WalkEnd};

use super::Collector;
use crate::{
    kernel::events::UserPart,
    record::code::Placed,
    recording::{FrameKind, RawFrame, Record, StackEnd, UserStackId, file::WriteError},
    units::{Ktime, Pid},
    unwind::WalkRegs,
};

/// The stacks that the kernel side walked, by what it sent: the same stacks come again and again.
#[derive(Debug, Default)]
pub struct KernelWalks {
    /// By generation, then by [`KernelWalk::write_key`].
    known: HashMap<u32, HashMap<Box<[u64]>, UserStackId>>,
    key: Vec<u64>,
}

/// A walk in the kernel that was whole, or ended for want of room.
#[derive(Clone, Copy)]
struct KernelWalk<'event> {
    generation: u32,
    frames: &'event [u64],
    leaf: FrameKind,
    end: StackEnd,
}

impl<'event> KernelWalk<'event> {
    /// `None` if there is none that can be taken as it is.
    fn of(event: &IntervalEvent, user: UserPart<'event>) -> Option<Self> {
        let end = match event.walk_end {
            end if end == WalkEnd::Complete as u32 => StackEnd::Complete,
            end if end == WalkEnd::TooDeep as u32 => StackEnd::Truncated,
            _ => return None,
        };
        let in_syscall = event.regs.orig_ax >= 0;
        let leaf =
            if in_syscall { FrameKind::ReturnAddress } else { FrameKind::InstructionPointer };
        Some(Self { generation: event.generation, frames: user.frames, leaf, end })
    }

    fn write_key(&self, key: &mut Vec<u64>) {
        key.clear();
        key.push(
            u64::from(self.leaf == FrameKind::ReturnAddress) << 1
                | u64::from(self.end == StackEnd::Complete),
        );
        key.extend_from_slice(self.frames);
    }
}

impl KernelWalks {
    fn get(&mut self, walk: &KernelWalk<'_>) -> Option<UserStackId> {
        walk.write_key(&mut self.key);
        self.known.get(&walk.generation)?.get(self.key.as_slice()).copied()
    }

    fn keep(&mut self, walk: &KernelWalk<'_>, id: UserStackId) {
        walk.write_key(&mut self.key);
        self.known.entry(walk.generation).or_default().insert(self.key.as_slice().into(), id);
    }

    /// Forgets what was walked by generations that no record can name any more.
    pub fn forget(&mut self, generations: &[u32]) {
        for generation in generations {
            self.known.remove(generation);
        }
    }
}

impl Collector {
    /// The number of an event's user stack.
    pub(super) fn user_stack(
        &mut self,
        event: &IntervalEvent,
        user: UserPart<'_>,
        at: Ktime,
    ) -> Result<UserStackId, WriteError> {
        // Before the frames are believed: what they were walked through may have been replaced.
        self.code.hear(at);
        let pid = Pid(event.tgid);
        if let Some(walk) = KernelWalk::of(event, user) {
            let is_quiet = self.code.is_quiet(pid, walk.generation, at);
            if is_quiet && let Some(id) = self.walks.get(&walk) {
                self.count(walk.end);
                return Ok(id);
            }
            match self.code.place(pid, walk.generation, at, walk.frames, walk.leaf) {
                Placed::Sure(frames) => {
                    let id = self.number(frames, walk.end)?;
                    if is_quiet {
                        self.walks.keep(&walk, id);
                    }
                    return Ok(id);
                }
                Placed::Doubtful(frames) if user.slice.is_empty() => {
                    self.lose(Counter::StacksOutdated);
                    return self.number(frames, StackEnd::Broken);
                }
                Placed::Doubtful(_) => {}
            }
        }
        self.walk_copy(event, user.slice, at)
    }

    fn walk_copy(
        &mut self,
        event: &IntervalEvent,
        slice: &[u8],
        at: Ktime,
    ) -> Result<UserStackId, WriteError> {
        let regs = WalkRegs::of(&event.regs);
        let mut facts = std::mem::take(&mut self.scratch);
        let (placed, end) = self.code.walk(Pid(event.tgid), &regs, slice, at, &mut facts);
        self.append_all(facts)?;
        match placed {
            Placed::Sure(frames) => self.number(frames, end),
            Placed::Doubtful(frames) => {
                self.lose(Counter::StacksOutdated);
                self.number(frames, StackEnd::Broken)
            }
        }
    }

    /// The number of a stack, which is written if it is new.
    fn number(&mut self, frames: Vec<RawFrame>, end: StackEnd) -> Result<UserStackId, WriteError> {
        self.count(end);
        let (id, new) = self.stacks.user(frames, end);
        let Some(stack) = new else { return Ok(id) };
        let appended = self.append(Record::UserStack(stack.clone()));
        appended.map(|()| self.stacks.keep_user(stack))
    }

    fn count(&mut self, end: StackEnd) {
        match end {
            StackEnd::Complete => {}
            StackEnd::Truncated => self.lose(Counter::StacksTruncated),
            StackEnd::Broken => self.lose(Counter::StacksBroken),
        }
    }
}
