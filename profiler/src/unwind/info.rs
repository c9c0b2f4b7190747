//! The sections of a file that say how its functions are left, and the search in them.

use std::{ops::Range, sync::OnceLock};

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EndianSlice, FrameDescriptionEntry, LittleEndian,
    UnwindOffset, UnwindSection,
};

use profiler_common::table::{CfaKind, Rule};

use crate::units::Svma;

/// The reader of a section's bytes.
pub type Bytes<'data> = EndianSlice<'data, LittleEndian>;

/// The unwind information of one file. Nothing in it is trusted.
#[derive(Debug, Default)]
pub struct UnwindInfo {
    /// The executable segments.
    pub text: Vec<Range<Svma>>,
    /// `.eh_frame`: addresses in it are relative to themselves.
    pub eh_frame: Option<Section>,
    /// `.eh_frame_hdr`: a sorted list of the functions in `.eh_frame`.
    pub eh_frame_hdr: Option<Section>,
    /// `.debug_frame`; used for code that `.eh_frame` does not describe.
    pub debug_frame: Option<Section>,
    /// Where `.text` lies; addresses can be relative to it.
    pub text_at: Option<Svma>,
    /// Where `.got` lies; addresses can be relative to it.
    pub got_at: Option<Svma>,
    /// The rules for code that no section describes, or none rightly, once they are known.
    pub(super) undescribed: OnceLock<Vec<(Range<Svma>, Rule)>>,
    /// Made when a function is first looked for.
    pub(super) eh_frame_index: OnceLock<Index>,
    /// As the other one.
    pub(super) debug_frame_index: OnceLock<Index>,
}

/// A section and where it lies.
#[derive(Debug)]
pub struct Section {
    /// Address of its first byte.
    pub at: Svma,
    /// What it holds.
    pub bytes: Box<[u8]>,
}

/// What describes a function, or a part of one.
pub struct Function<'data> {
    /// Its entry.
    pub entry: FrameDescriptionEntry<Bytes<'data>>,
    /// Which section that is in.
    pub origin: Origin,
}

/// The section that an entry is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// `.eh_frame`.
    EhFrame,
    /// `.debug_frame`.
    DebugFrame,
}

/// Where in a section the entry of each function is, by where the functions begin.
type Index = Vec<(Svma, usize)>;

impl UnwindInfo {
    /// What describes the function that an address lies in.
    pub fn function_at(&self, address: Svma) -> Option<Function<'_>> {
        self.in_eh_frame(address).or_else(|| self.in_debug_frame(address))
    }

    /// The rule for an address that no section describes, or none rightly, once it is known.
    pub fn rule_at(&self, address: Svma) -> Option<Rule> {
        let rules = self.undescribed.get()?;
        let behind = rules.partition_point(|(range, _)| range.start <= address);
        let found = behind.checked_sub(1).map(|index| &rules[index]);
        let found = found.filter(|(range, _)| range.contains(&address));
        Some(found.map_or(Rule::of(CfaKind::Uncovered), |(_, rule)| *rule))
    }

    /// What addresses in the sections are relative to.
    pub fn bases(&self) -> BaseAddresses {
        let mut bases = BaseAddresses::default();
        if let Some(section) = &self.eh_frame {
            bases = bases.set_eh_frame(section.at.0);
        }
        if let Some(at) = self.text_at {
            bases = bases.set_text(at.0);
        }
        if let Some(at) = self.got_at {
            bases = bases.set_got(at.0);
        }
        bases
    }

    /// `.eh_frame`, empty if there is none.
    pub fn eh_frame_reader(&self) -> EhFrame<Bytes<'_>> {
        let bytes = self.eh_frame.as_ref().map_or(&[][..], |section| &section.bytes);
        let mut section = EhFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        section
    }

    /// `.debug_frame`, empty if there is none.
    pub fn debug_frame_reader(&self) -> DebugFrame<Bytes<'_>> {
        let bytes = self.debug_frame.as_ref().map_or(&[][..], |section| &section.bytes);
        let mut section = DebugFrame::new(bytes, LittleEndian);
        section.set_address_size(8);
        section
    }

    fn in_eh_frame(&self, address: Svma) -> Option<Function<'_>> {
        let section = self.eh_frame.as_ref()?;
        let list = self.eh_frame_hdr.as_ref().and_then(SortedList::of);
        let offset = if let Some(list) = list {
            usize::try_from(list.entry_for(address)?.0.checked_sub(section.at.0)?).ok()?
        } else {
            let reader = self.eh_frame_reader();
            at(self.eh_frame_index.get_or_init(|| self.index(&reader)), address)?
        };
        self.entry(&self.eh_frame_reader(), offset, address, Origin::EhFrame)
    }

    fn in_debug_frame(&self, address: Svma) -> Option<Function<'_>> {
        self.debug_frame.as_ref()?;
        let reader = self.debug_frame_reader();
        let offset = at(self.debug_frame_index.get_or_init(|| self.index(&reader)), address)?;
        self.entry(&reader, offset, address, Origin::DebugFrame)
    }

    fn entry<'data, S>(
        &self,
        section: &S,
        offset: usize,
        address: Svma,
        origin: Origin,
    ) -> Option<Function<'data>>
    where
        S: UnwindSection<Bytes<'data>>,
        S::Offset: UnwindOffset<usize>,
    {
        let bases = self.bases();
        let entry = section.fde_from_offset(&bases, offset.into(), S::cie_from_offset).ok()?;
        entry.contains(address.0).then_some(Function { entry, origin })
    }

    /// Reads the whole section but not the instructions in it. Functions that the linker left out
    /// lie at addresses where there is no code.
    fn index<'data, S: UnwindSection<Bytes<'data>>>(&self, section: &S) -> Index {
        let bases = self.bases();
        let mut index = Index::new();
        let mut entries = section.entries(&bases);
        while let Ok(Some(entry)) = entries.next() {
            let CieOrFde::Fde(entry) = entry else { continue };
            let Ok(entry) = entry.parse(S::cie_from_offset) else { continue };
            let start = Svma(entry.initial_address());
            if self.text.iter().any(|segment| segment.contains(&start)) {
                index.push((start, entry.offset()));
            }
        }
        index.sort_unstable();
        index
    }
}

impl Function<'_> {
    /// Its first address.
    pub fn start(&self) -> Svma {
        Svma(self.entry.initial_address())
    }
}

/// The last one that does not begin behind an address.
fn at(index: &Index, address: Svma) -> Option<usize> {
    let behind = index.partition_point(|(start, _)| *start <= address);
    Some(index[behind.checked_sub(1)?].1)
}

/// `.eh_frame_hdr` in the one form that linkers write: pairs of where a function begins and where
/// its entry is, sorted, each 4 bytes and relative to the section's beginning.
struct SortedList<'data> {
    base: Svma,
    pairs: &'data [[[u8; 4]; 2]],
}

impl<'data> SortedList<'data> {
    /// Version 1; where `.eh_frame` is, as 4 relative bytes; a count of 4 bytes; the pairs.
    const FORM: [u8; 4] = [1, 0x1b, 0x03, 0x3b];

    fn of(section: &'data Section) -> Option<Self> {
        let (words, _) = section.bytes.as_chunks::<4>();
        let [form, _eh_frame, count, words @ ..] = words else { return None };
        let (pairs, _) = words.as_chunks::<2>();
        let pairs = pairs.get(..u32::from_le_bytes(*count) as usize)?;
        (*form == Self::FORM && !pairs.is_empty()).then_some(Self { base: section.at, pairs })
    }

    /// Where the entry of the last function is that does not begin behind an address.
    fn entry_for(&self, address: Svma) -> Option<Svma> {
        let behind = self.pairs.partition_point(|[start, _]| self.address(*start) <= address);
        let [_, entry] = self.pairs[behind.checked_sub(1)?];
        Some(self.address(entry))
    }

    fn address(&self, relative: [u8; 4]) -> Svma {
        Svma(self.base.0.wrapping_add_signed(i32::from_le_bytes(relative).into()))
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use std::{fs, sync::Arc};

    use gimli::X86_64;
    use profiler_common::unwind::Position;

    use super::*;
    use crate::unwind::{
        CodeFile, Registers,
        frame::{Frame, Leaver},
    };

    fn info() -> UnwindInfo {
        let bytes = fs::read("/lib64/ld-linux-x86-64.so.2").unwrap();
        let shared = CodeFile::parse(bytes.as_slice()).unwrap().info().clone();
        Arc::into_inner(shared).unwrap()
    }

    /// The first, a middle and the last address of every function, and the one behind it.
    fn addresses(info: &UnwindInfo) -> Vec<Svma> {
        let mut addresses = Vec::new();
        let (section, bases) = (info.eh_frame_reader(), info.bases());
        let mut entries = section.entries(&bases);
        while let Some(entry) = entries.next().unwrap() {
            let CieOrFde::Fde(entry) = entry else { continue };
            let entry = entry.parse(EhFrame::cie_from_offset).unwrap();
            let (start, end) = (entry.initial_address(), entry.end_address());
            addresses.extend([start, u64::midpoint(start, end), end - 1, end].map(Svma));
        }
        addresses
    }

    #[test]
    fn the_list_of_the_linker_and_one_that_is_made_find_the_same() {
        let (linked, mut made) = (info(), info());
        assert!(linked.eh_frame_hdr.as_ref().and_then(SortedList::of).is_some());
        made.eh_frame_hdr = None;
        let addresses = addresses(&linked);
        assert!(addresses.len() > 1_000);
        let found = |info: &UnwindInfo, address| {
            info.function_at(address).map(|function| function.entry.offset())
        };
        for address in addresses {
            assert_eq!(found(&linked, address), found(&made, address), "{address}");
        }
        assert!(made.eh_frame_index.get().is_some() && linked.eh_frame_index.get().is_none());
    }

    #[test]
    fn no_bytes_break_it() {
        let addresses = addresses(&info());
        let mut leaver = Leaver::default();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random as usize
        };
        for round in 0..40 {
            let mut info = info();
            for section in [&mut info.eh_frame, &mut info.eh_frame_hdr].into_iter().flatten() {
                for _ in 0..section.bytes.len() / 64 {
                    section.bytes[next() % section.bytes.len()] = next() as u8;
                }
            }
            if round % 2 == 0 {
                // The form is the right one, whatever else is not.
                let header = info.eh_frame_hdr.as_mut().unwrap();
                header.bytes[..4].copy_from_slice(&SortedList::FORM);
            } else {
                info.eh_frame_hdr = None;
            }
            for address in addresses.iter().step_by(7) {
                let mut registers = Registers::default();
                for number in 0..16 {
                    registers.set(gimli::Register(number), Some(next() as u64));
                }
                registers.set(X86_64::RA, Some(address.0));
                let frame = Frame { registers, position: Position::Interrupted };
                leaver.leave(Some(&info), 0, &frame, &|address| Some(address ^ 0x5a5a));
            }
        }
    }
}
