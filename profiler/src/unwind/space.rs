//! The code mapped in one process, and the walk of a stack through it.

use std::{collections::BTreeMap, fmt, ops::Range};

use framehop::{
    Error, FrameAddress, Module, Unwinder as _,
    x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64},
};

use super::code::{CodeFile, SectionBytes};
use crate::units::Avma;

/// Frames that one walk yields at most.
const FRAMES_MAX: usize = 1024;

/// The executable mappings of one process.
pub struct AddressSpace {
    unwinder: UnwinderX86_64<SectionBytes>,
    cache: CacheX86_64,
    /// First address after each executable mapping, by its first address.
    mapped: BTreeMap<u64, u64>,
}

impl fmt::Debug for AddressSpace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AddressSpace").field("mapped", &self.mapped).finish_non_exhaustive()
    }
}

/// The registers that a walk starts from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WalkRegs {
    /// Instruction pointer.
    pub ip: Avma,
    /// Stack pointer.
    pub sp: Avma,
    /// Frame pointer register.
    pub bp: Avma,
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
}

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkEnd {
    /// At a rule that says the outermost frame was reached.
    Complete,
    /// It needed stack bytes beyond those that were copied, or more frames than one walk yields.
    Truncated,
    /// At a frame whose caller could not be found.
    Broken,
    /// At an address in none of the mappings that are known here.
    Unmapped(Avma),
}

impl Default for AddressSpace {
    fn default() -> Self {
        Self { unwinder: UnwinderX86_64::new(), cache: CacheX86_64::new(), mapped: BTreeMap::new() }
    }
}

impl AddressSpace {
    /// Forgets every mapping.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Adds an executable mapping of a file. `bias` is that of [`CodeFile::bias`].
    pub fn map_file(&mut self, range: Range<Avma>, bias: u64, code: &CodeFile) {
        let range = range.start.0..range.end.0;
        self.mapped.insert(range.start, range.end);
        let module = Module::new(String::new(), range, bias, code.sections());
        self.unwinder.add_module(module);
    }

    /// Adds an executable mapping without unwind information: its frames are left by frame
    /// pointer.
    pub fn map_memory(&mut self, range: Range<Avma>) {
        self.mapped.insert(range.start.0, range.end.0);
    }

    /// Walks a stack of which `stack` are the bytes from `regs.sp` upwards.
    ///
    /// Every address after the first must lie in a known executable mapping: where there is no
    /// unwind information the walk follows frame pointers, and this is what tells a frame from a
    /// number that happens to lie on the stack.
    pub fn walk(&mut self, regs: WalkRegs, stack: &[u8]) -> Walk {
        let Self { unwinder, cache, mapped } = self;
        let base = regs.sp.0;
        let mut beyond = false;
        let mut read = |address: u64| {
            let at = address.checked_sub(base).and_then(|at| usize::try_from(at).ok());
            let word = at.and_then(|at| stack.get(at..at.checked_add(8)?)?.try_into().ok());
            beyond |= word.is_none() && address >= base;
            word.map(u64::from_le_bytes).ok_or(())
        };
        // Behind a `syscall` that ends its function another function may begin.
        let ip = regs.ip.0.wrapping_sub(u64::from(regs.in_syscall));
        let start = UnwindRegsX86_64::new(ip, regs.sp.0, regs.bp.0);
        let mut frames = Vec::with_capacity(32);
        let mut steps = unwinder.iter_frames(ip, start, cache, &mut read);
        let end = loop {
            match steps.next() {
                Ok(Some(_)) if frames.len() == FRAMES_MAX => break WalkEnd::Truncated,
                Ok(Some(address)) => {
                    let (address, is_return_address) = match address {
                        FrameAddress::InstructionPointer(_) => (regs.ip, regs.in_syscall),
                        FrameAddress::ReturnAddress(address) => (Avma(address.get()), true),
                    };
                    let frame = WalkedFrame { address, is_return_address };
                    if !is_mapped(mapped, frame.lookup()) {
                        break WalkEnd::Unmapped(frame.address);
                    }
                    frames.push(frame);
                }
                Ok(None) => break WalkEnd::Complete,
                Err(Error::CouldNotReadStack(_)) if beyond => break WalkEnd::Truncated,
                Err(_) => break WalkEnd::Broken,
            }
        };
        Walk { frames, end }
    }
}

impl WalkedFrame {
    /// An address inside the instruction that the frame is in.
    pub fn lookup(self) -> Avma {
        Avma(self.address.0.saturating_sub(u64::from(self.is_return_address)))
    }
}

fn is_mapped(mapped: &BTreeMap<u64, u64>, address: Avma) -> bool {
    mapped.range(..=address.0).next_back().is_some_and(|(_, &end)| address.0 < end)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Frame-pointer frames in memory without unwind information:
    //
    //   sp=0x1000: [saved bp 0x1010][return 0x5001] | 0x1010: [saved bp 0][return 0x9001]
    fn stack() -> Vec<u8> {
        ending_with(0)
    }

    fn ending_with(bp: u64) -> Vec<u8> {
        [0x1010_u64, 0x5001, bp, 0x9001].iter().flat_map(|word| word.to_le_bytes()).collect()
    }

    fn walk(space: &mut AddressSpace, stack: &[u8]) -> (Vec<u64>, WalkEnd) {
        let regs =
            WalkRegs { ip: Avma(0x4000), sp: Avma(0x1000), bp: Avma(0x1000), in_syscall: true };
        let walk = space.walk(regs, stack);
        (walk.frames.iter().map(|frame| frame.address.0).collect(), walk.end)
    }

    #[test]
    fn a_frame_outside_of_every_mapping_ends_the_walk() {
        let mut space = AddressSpace::default();
        space.map_memory(Avma(0x3f00)..Avma(0x6000));
        let (frames, end) = walk(&mut space, &stack());
        assert_eq!((frames, end), (vec![0x4000, 0x5001], WalkEnd::Unmapped(Avma(0x9001))));
    }

    #[test]
    fn a_walk_that_needs_more_stack_than_was_copied_is_truncated() {
        let mut space = AddressSpace::default();
        space.map_memory(Avma(0x3f00)..Avma(0x6000));
        let (frames, end) = walk(&mut space, &stack()[..16]);
        assert_eq!((frames, end), (vec![0x4000, 0x5001], WalkEnd::Truncated));
    }

    #[test]
    fn a_frame_pointer_that_leads_down_breaks_the_walk_and_a_null_one_ends_it() {
        let mut space = AddressSpace::default();
        space.map_memory(Avma(0x3f00)..Avma(0x6000));
        space.map_memory(Avma(0x9000)..Avma(0xa000));
        let (frames, end) = walk(&mut space, &ending_with(0xff0));
        assert_eq!((frames, end), (vec![0x4000, 0x5001, 0x9001], WalkEnd::Broken));
        let (frames, end) = walk(&mut space, &ending_with(0));
        assert_eq!((frames, end), (vec![0x4000, 0x5001, 0x9001], WalkEnd::Complete));
    }
}
