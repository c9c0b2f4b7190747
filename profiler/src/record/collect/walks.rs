//! The user stack of an event: by the kernel's walk where that was whole, else from the copy.

use std::collections::HashMap;

use profiler_common::{counter::Counter, event::IntervalEvent};

use super::{Collector, stacks::WalkedStack};
use crate::{
    kernel::events::UserPart,
    record::{
        code::{CopyWalk, Placed},
        ends,
    },
    recording::{FrameKind, Part, RawFrame, Record, StackEnd, UserStackId, Why, file::WriteError},
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

/// A walk in the kernel.
#[derive(Clone, Copy)]
struct KernelWalk<'event> {
    generation: u32,
    frames: &'event [u64],
    leaf: FrameKind,
    end: StackEnd,
    by_frame_pointer: u32,
}

impl<'event> KernelWalk<'event> {
    /// Whatever there is of it.
    fn of(event: &IntervalEvent, user: UserPart<'event>) -> Self {
        let in_syscall = event.regs.orig_ax >= 0;
        let leaf =
            if in_syscall { FrameKind::ReturnAddress } else { FrameKind::InstructionPointer };
        Self {
            generation: event.generation,
            frames: user.frames,
            leaf,
            end: ends::of_kernel(event.walk_end),
            by_frame_pointer: event.by_frame_pointer,
        }
    }

    /// Whether it can be taken as it is.
    fn is_final(&self) -> bool {
        matches!(self.end, StackEnd::Complete | StackEnd::Incomplete(Why::TooDeep))
    }

    fn stack(&self, frames: Vec<RawFrame>) -> WalkedStack {
        WalkedStack { frames, end: self.end, by_frame_pointer: self.by_frame_pointer }
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
        let walk = KernelWalk::of(event, user);
        if self.checker.is_some() {
            self.check(event, &walk, user.slice, at)?;
        }
        if walk.is_final() {
            let is_quiet = self.code.is_quiet(pid, walk.generation, at);
            if is_quiet && let Some(id) = self.walks.get(&walk) {
                self.count(walk.end);
                return Ok(id);
            }
            match self.code.place(pid, walk.generation, at, walk.frames, walk.leaf) {
                Placed::Sure(frames) => {
                    let id = self.number(walk.stack(frames))?;
                    if is_quiet {
                        self.walks.keep(&walk, id);
                    }
                    return Ok(id);
                }
                Placed::Doubtful(frames) if user.slice.is_empty() => {
                    return self.number_outdated(frames);
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
        let CopyWalk { placed, end, by_frame_pointer } = self.copy_walk(event, slice, at)?;
        match placed {
            Placed::Sure(frames) => self.number(WalkedStack { frames, end, by_frame_pointer }),
            Placed::Doubtful(frames) => self.number_outdated(frames),
        }
    }

    fn copy_walk(
        &mut self,
        event: &IntervalEvent,
        slice: &[u8],
        at: Ktime,
    ) -> Result<CopyWalk, WriteError> {
        let regs = WalkRegs::of(&event.regs);
        let mut facts = std::mem::take(&mut self.scratch);
        let walk = self.code.walk(Pid(event.tgid), &regs, slice, at, &mut facts);
        self.append_all(facts)?;
        Ok(walk)
    }

    /// Compares a walk in the kernel with that of the copy, where both were by mappings that were in
    /// place.
    fn check(
        &mut self,
        event: &IntervalEvent,
        walk: &KernelWalk<'_>,
        slice: &[u8],
        at: Ktime,
    ) -> Result<(), WriteError> {
        if slice.is_empty() || walk.end == StackEnd::Incomplete(Why::NotWalked) {
            return Ok(());
        }
        let pid = Pid(event.tgid);
        let copy = self.copy_walk(event, slice, at)?;
        let placed = self.code.place(pid, walk.generation, at, walk.frames, walk.leaf);
        if let (Placed::Sure(frames), Placed::Sure(copied)) = (placed, copy.placed)
            && let Some(checker) = &mut self.checker
        {
            let CopyWalk { end, by_frame_pointer, .. } = copy;
            let copy = WalkedStack { frames: copied, end, by_frame_pointer };
            checker.check(walk.stack(frames), &copy);
        }
        Ok(())
    }

    /// The number of a stack through mappings of which one had been replaced.
    fn number_outdated(&mut self, frames: Vec<RawFrame>) -> Result<UserStackId, WriteError> {
        self.lose(Counter::StacksOutdated);
        let end = StackEnd::Incomplete(Why::Outdated);
        self.number(WalkedStack { frames, end, by_frame_pointer: 0 })
    }

    /// The number of a stack, which is written if it is new.
    fn number(&mut self, stack: WalkedStack) -> Result<UserStackId, WriteError> {
        self.count(stack.end);
        let (id, new) = self.stacks.user(stack);
        let Some(stack) = new else { return Ok(id) };
        let appended = self.append(Record::UserStack(stack.clone()));
        appended.map(|()| self.stacks.keep_user(stack))
    }

    fn count(&mut self, end: StackEnd) {
        if let StackEnd::Incomplete(why) = end {
            self.lose(match why.part() {
                Part::Truncated => Counter::StacksTruncated,
                Part::Broken => Counter::StacksBroken,
            });
        }
    }
}
