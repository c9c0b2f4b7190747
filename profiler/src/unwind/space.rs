//! The code mapped in one process, and the walk of a stack through it.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use profiler_common::{
    event::UserRegs,
    stack::USER_FRAMES,
    unwind::{Failure, Position},
};

use super::{
    code::CodeFile,
    frame::{Frame, Leaver, Step},
    info::UnwindInfo,
    registers::Registers,
};
use crate::units::Avma;

/// The executable mappings of one process.
#[derive(Debug, Default)]
pub struct AddressSpace {
    /// By their first address.
    mapped: BTreeMap<u64, Mapped>,
    leaver: Leaver,
}

#[derive(Clone, Debug)]
struct Mapped {
    /// The first address after it.
    end: u64,
    /// That of [`CodeFile::bias`].
    bias: u64,
    /// `None` for memory that is no file.
    info: Option<Arc<UnwindInfo>>,
}

/// The registers that a walk starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkRegs {
    /// All of them.
    pub registers: Registers,
    /// The instruction pointer is that of a syscall, which lies behind its instruction.
    pub in_syscall: bool,
}

/// One frame of a walk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkedFrame {
    /// The address.
    pub address: Avma,
    /// Whether execution goes on there, so that the frame's own code lies before it.
    pub is_return_address: bool,
}

/// How a walk went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Walk {
    /// The frames, leaf first.
    pub frames: Vec<WalkedFrame>,
    /// How it ended.
    pub end: WalkEnd,
    /// How many of the frames were found by the conventions that code without unwind information
    /// is taken to keep to.
    pub by_frame_pointer: u32,
}

/// How a walk ended: as [`profiler_common::stack::WalkEnd`] says it of the walk in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// At a frame that is the outermost one by its unwind information.
    Complete,
    /// There are more than [`USER_FRAMES`] frames.
    TooDeep,
    /// It needed stack bytes beyond those that were copied.
    SliceTooShort,
    /// At an address in none of the mappings that are known here.
    NoMapping(Avma),
    /// The unwind information is damaged, or says what is not understood.
    Unsupported,
    /// It needed memory that is not part of the stack from the stack pointer upwards.
    Unreadable,
    /// The caller's stack pointer would not be above its frame's.
    NotAdvancing,
    /// It needed a register whose value is lost.
    RegisterLost,
    /// A frame pointer is none: not aligned, or below the stack pointer.
    BadFramePointer,
}

impl WalkRegs {
    /// Those of an event.
    pub fn of(regs: &UserRegs) -> Self {
        Self { registers: Registers::of(regs), in_syscall: regs.orig_ax >= 0 }
    }
}

impl AddressSpace {
    /// Forgets every mapping.
    pub fn clear(&mut self) {
        self.mapped.clear();
    }

    /// Adds an executable mapping of a file. `bias` is that of [`CodeFile::bias`].
    pub fn map_file(&mut self, range: Range<Avma>, bias: u64, code: &CodeFile) {
        let info = Some(code.info().clone());
        self.mapped.insert(range.start.0, Mapped { end: range.end.0, bias, info });
    }

    /// Adds an executable mapping without unwind information: its frames are left by frame
    /// pointer.
    pub fn map_memory(&mut self, range: Range<Avma>) {
        self.mapped.insert(range.start.0, Mapped { end: range.end.0, bias: 0, info: None });
    }

    /// Walks a stack of which `stack` are the bytes from the stack pointer upwards.
    pub fn walk(&mut self, regs: &WalkRegs, stack: &[u8]) -> Walk {
        let sp = Frame { registers: regs.registers, position: Position::Interrupted }.sp();
        let read = |address: u64| {
            let at = usize::try_from(address.checked_sub(sp)?).ok()?;
            stack.get(at..at.checked_add(8)?)?.try_into().ok().map(u64::from_le_bytes)
        };
        self.walk_in(regs, sp, &read)
    }

    /// Walks a stack in memory of which `read` reads 8 bytes. What it cannot read from `copied_from`
    /// upwards was not copied.
    ///
    /// Every address must lie in a known executable mapping: where there is no unwind information
    /// the walk follows frame pointers, and this is what tells a frame from a number that happens
    /// to lie on the stack.
    pub fn walk_in(
        &mut self,
        regs: &WalkRegs,
        copied_from: u64,
        read: &dyn Fn(u64) -> Option<u64>,
    ) -> Walk {
        let Self { mapped, leaver } = self;
        let position = if regs.in_syscall { Position::Syscall } else { Position::Interrupted };
        let mut frame = Frame { registers: regs.registers, position };
        let mut walk =
            Walk { frames: Vec::with_capacity(32), end: WalkEnd::TooDeep, by_frame_pointer: 0 };
        let mut supposed = false;
        while walk.frames.len() < USER_FRAMES {
            let address = Avma(frame.ip());
            let Some(Mapped { bias, info, .. }) = mapping_of(mapped, frame.lookup()) else {
                walk.end = WalkEnd::NoMapping(address);
                break;
            };
            let is_return_address = frame.position != Position::Interrupted;
            walk.frames.push(WalkedFrame { address, is_return_address });
            walk.by_frame_pointer += u32::from(supposed);
            let step = leaver.leave(info.as_deref(), *bias, &frame, read);
            supposed = matches!(step, Step::Supposed(_));
            frame = match step {
                Step::To(caller) | Step::Supposed(caller) => caller,
                Step::Outermost => {
                    walk.end = WalkEnd::Complete;
                    break;
                }
                Step::BadFramePointer => {
                    walk.end = WalkEnd::BadFramePointer;
                    break;
                }
                Step::Failed(failure) => {
                    walk.end = WalkEnd::of(failure, copied_from);
                    break;
                }
            };
        }
        walk
    }
}

impl WalkEnd {
    fn of(failure: Failure, copied_from: u64) -> Self {
        match failure {
            Failure::Unreadable(address) if address >= copied_from => Self::SliceTooShort,
            Failure::Unreadable(_) => Self::Unreadable,
            Failure::Unsupported => Self::Unsupported,
            Failure::NotAdvancing => Self::NotAdvancing,
            Failure::RegisterLost => Self::RegisterLost,
        }
    }
}

impl WalkedFrame {
    /// An address inside the instruction that the frame is in.
    pub fn lookup(self) -> Avma {
        Avma(self.address.0.saturating_sub(u64::from(self.is_return_address)))
    }
}

fn mapping_of(mapped: &BTreeMap<u64, Mapped>, address: Avma) -> Option<&Mapped> {
    let (_, mapping) = mapped.range(..=address.0).next_back()?;
    (address.0 < mapping.end).then_some(mapping)
}

#[cfg(test)]
mod tests {
    use profiler_common::event::UserRegs;

    use super::*;

    // Frame-pointer frames in memory without unwind information, in a leaf that has returned an
    // address and keeps nothing else on the stack:
    //
    //   sp=0x1000: [return 0x5001] | bp=0x1008: [saved bp 0x1018][return 0x5101]
    //   0x1018: [saved bp][return 0x9001]
    fn ending_with(bp: u64) -> Vec<u8> {
        let words = [0x5001_u64, 0x1018, 0x5101, bp, 0x9001];
        words.iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn check(mapped: &[Range<u64>], stack: &[u8], expected: &[u64], end: WalkEnd) {
        let mut space = AddressSpace::default();
        for range in mapped {
            space.map_memory(Avma(range.start)..Avma(range.end));
        }
        let regs = UserRegs { ip: 0x4000, sp: 0x1000, bp: 0x1008, ..UserRegs::default() };
        let walk = space.walk(&WalkRegs::of(&regs), stack);
        let frames: Vec<u64> = walk.frames.iter().map(|frame| frame.address.0).collect();
        assert_eq!((frames.as_slice(), walk.end), (expected, end));
        assert_eq!(walk.by_frame_pointer as usize, frames.len().saturating_sub(1));
    }

    const CODE: Range<u64> = 0x3f00..0x6000;
    const MORE: Range<u64> = 0x9000..0xa000;

    #[test]
    fn a_frame_outside_of_every_mapping_ends_the_walk() {
        let end = WalkEnd::NoMapping(Avma(0x9001));
        check(&[CODE], &ending_with(0x1028), &[0x4000, 0x5001, 0x5101], end);
        check(&[], &ending_with(0x1028), &[], WalkEnd::NoMapping(Avma(0x4000)));
    }

    #[test]
    fn a_walk_that_needs_more_stack_than_was_copied_says_so() {
        let stack = ending_with(0x1028);
        check(&[CODE], &stack[..24], &[0x4000, 0x5001, 0x5101], WalkEnd::SliceTooShort);
        check(&[CODE, MORE], &stack, &[0x4000, 0x5001, 0x5101, 0x9001], WalkEnd::SliceTooShort);
    }

    #[test]
    fn a_frame_pointer_that_is_none_ends_the_walk() {
        for bp in [0, 0xff0, 0x1029] {
            let frames = [0x4000, 0x5001, 0x5101, 0x9001];
            check(&[CODE, MORE], &ending_with(bp), &frames, WalkEnd::BadFramePointer);
        }
    }
}
