//! The entries of `.eh_frame` and `.debug_frame`, and the instructions in them.

use gimli::{
    BaseAddresses, CallFrameInstruction, CallFrameInstructionIter, CommonInformationEntry,
    PartialFrameDescriptionEntry, UnwindSection,
};

use super::{
    machine::{Machine, State},
    plain,
    rules::Bytes,
};

/// Bytes that the entry which many functions share may have. Real ones have some 20, and it can be
/// that every other function needs it evaluated.
const SHARED_ENTRY_MAX: usize = 4096;

/// One of the sections that describe code.
pub struct Section<'a, 'data, S> {
    pub as_gimli: &'a S,
    /// The same, as bytes.
    pub bytes: &'data [u8],
    pub bases: &'a BaseAddresses,
}

/// The entry that many functions share, and what holds at their beginning; `None` if that makes
/// no sense.
pub struct Shared<'data> {
    pub entry: CommonInformationEntry<Bytes<'data>>,
    pub state: Option<State>,
}

/// The description of one function.
pub struct Function<'a, 'data> {
    pub start: u64,
    pub end: u64,
    pub instructions: Instructions<'a, 'data>,
}

/// Instructions still to execute.
pub enum Instructions<'a, 'data> {
    /// Bytes of usual instructions so far, and how many were taken.
    Plain(&'data [u8], usize),
    Any(CallFrameInstructionIter<'a, Bytes<'data>>),
}

impl<'a, 'data, S: UnwindSection<Bytes<'data>>> Section<'a, 'data, S> {
    /// Reads the entry that lies there, and executes what is in it.
    pub fn shared(&self, at: S::Offset) -> gimli::Result<Shared<'data>> {
        let entry = self.as_gimli.cie_from_offset(self.bases, at)?;
        let state = self.initial(&entry);
        Ok(Shared { entry, state })
    }

    fn initial(&self, entry: &CommonInformationEntry<Bytes<'data>>) -> Option<State> {
        if entry.entry_len() > SHARED_ENTRY_MAX {
            return None;
        }
        let mut remembered = Vec::new();
        let mut machine = Machine::shared(entry, &mut remembered);
        let mut instructions = entry.instructions(self.as_gimli, self.bases);
        while let Some(instruction) = instructions.next().ok()? {
            machine.execute(&instruction, 0).ok()?;
        }
        Some(machine.state)
    }

    /// Reads the beginning of a description.
    pub fn function(
        &self,
        partial: &PartialFrameDescriptionEntry<'_, S, Bytes<'data>>,
        shared: &Shared<'data>,
    ) -> gimli::Result<Function<'a, 'data>> {
        let place = (partial.offset(), partial.entry_len());
        let section_at = self.bases.eh_frame.section;
        if let Some(plain) = plain::function(self.bytes, section_at, place, &shared.entry) {
            let plain::Function { start, end, instructions } = plain;
            let instructions = Instructions::Plain(instructions, 0);
            return Ok(Function { start, end, instructions });
        }
        let function = partial.parse(|_, _, _| Ok(shared.entry.clone()))?;
        let instructions = Instructions::Any(function.instructions(self.as_gimli, self.bases));
        let (start, end) = (function.initial_address(), function.end_address());
        Ok(Function { start, end, instructions })
    }

    /// Takes the next of a function's instructions.
    #[inline(always)]
    pub fn next(
        &self,
        instructions: &mut Instructions<'a, 'data>,
        partial: &PartialFrameDescriptionEntry<'_, S, Bytes<'data>>,
        shared: &Shared<'data>,
    ) -> gimli::Result<Option<CallFrameInstruction<usize>>> {
        if let Instructions::Plain(bytes, taken) = instructions {
            match plain::next(bytes) {
                plain::Next::Instruction(instruction) => {
                    *taken += 1;
                    return Ok(Some(instruction));
                }
                plain::Next::End => return Ok(None),
                plain::Next::Unusual => {}
            }
        }
        self.next_of_any(instructions, partial, shared)
    }

    #[cold]
    fn next_of_any(
        &self,
        instructions: &mut Instructions<'a, 'data>,
        partial: &PartialFrameDescriptionEntry<'_, S, Bytes<'data>>,
        shared: &Shared<'data>,
    ) -> gimli::Result<Option<CallFrameInstruction<usize>>> {
        loop {
            match instructions {
                Instructions::Any(any) => return any.next(),
                Instructions::Plain(_, taken) => {
                    let function = partial.parse(|_, _, _| Ok(shared.entry.clone()))?;
                    let mut any = function.instructions(self.as_gimli, self.bases);
                    for _ in 0..*taken {
                        any.next()?;
                    }
                    *instructions = Instructions::Any(any);
                }
            }
        }
    }
}
