//! The unwind information of one ELF file: which addresses are code, and how to leave them.

use std::{ops::Range, sync::Arc};

use anyhow::{Context as _, Result};
use object::{
    Object as _, ObjectSection as _, ObjectSegment as _, ReadRef, SegmentFlags, elf::PF_X,
};

use super::{
    elf,
    info::{Section, UnwindInfo},
    known::{self, Known},
    table::{Sources, Table, reading},
};
use crate::units::{Avma, FileOffset, Svma};

/// Bytes that a section may have to be read: some ten times those of the largest programs. A sparse or
/// compressed section of a small file can claim to have any number.
const SECTION_MAX: u64 = 256 << 20;

/// An executable segment of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    offset: u64,
    bytes: u64,
    svma: u64,
}

/// The unwind information of one ELF file, shared by every process that maps the file.
#[derive(Clone, Debug)]
pub struct CodeFile {
    segments: Vec<Segment>,
    info: Arc<UnwindInfo>,
}

impl CodeFile {
    /// Reads segments, unwind sections, and the first instructions of the program; nothing else of
    /// the file is touched.
    ///
    /// # Errors
    /// If the bytes are not an ELF file.
    pub fn parse<'data>(data: impl ReadRef<'data>) -> Result<Self> {
        let file = object::File::parse(data).context("not an ELF file")?;
        let segments: Vec<Segment> = file
            .segments()
            .filter(|segment| {
                matches!(segment.flags(), SegmentFlags::Elf { p_flags } if p_flags & PF_X != 0)
            })
            .map(|segment| {
                let (offset, bytes) = segment.file_range();
                Segment { offset, bytes, svma: segment.address() }
            })
            .collect();
        let at = |name: &str| Some(Svma(file.section_by_name(name)?.address()));
        let section = |name: &str| -> Option<Section> {
            let section = file.section_by_name(name)?;
            let range = section.compressed_file_range().ok()?;
            if range.compressed_size.max(range.uncompressed_size) > SECTION_MAX {
                return None;
            }
            let bytes = section.uncompressed_data().ok()?.into_owned().into_boxed_slice();
            (!bytes.is_empty()).then(|| Section { at: Svma(section.address()), bytes })
        };
        let known = known(&segments, Svma(file.entry()), data);
        let debug_frame = match section(".debug_frame") {
            None if known.is_empty() => None,
            described => {
                let mut bytes = described.map_or(Vec::new(), |section| section.bytes.into_vec());
                known::describe(&known, &mut bytes);
                Some(Section { at: Svma(0), bytes: bytes.into_boxed_slice() })
            }
        };
        let info = UnwindInfo {
            text: segments.iter().map(Segment::range).collect(),
            eh_frame: section(".eh_frame"),
            eh_frame_hdr: section(".eh_frame_hdr"),
            debug_frame,
            text_at: at(".text"),
            got_at: at(".got"),
            ..UnwindInfo::default()
        };
        Ok(Self { segments, info: Arc::new(info) })
    }

    /// What must be added to an address of the file to get the address in memory, for a mapping
    /// that begins at `start` with the byte at `offset`.
    ///
    /// Only executable segments count: with lld two segments can share a page of the file, and the
    /// other one's address is off by a page.
    pub fn bias(&self, start: Avma, offset: FileOffset) -> Option<u64> {
        let segment = self
            .segments
            .iter()
            .find(|segment| {
                // A mapping begins at the page that holds the segment's first byte.
                let first_page = segment.offset & !0xfff;
                first_page <= offset.0 && offset.0 < segment.offset + segment.bytes
            })
            .or(self.segments.first())?;
        let svma = segment.svma.wrapping_sub(segment.offset).wrapping_add(offset.0);
        Some(start.0.wrapping_sub(svma))
    }

    /// The compact table: what the sections say, and, where they say nothing, what the code itself shows.
    /// `data` is what this was parsed from.
    pub fn complete_table<'data>(&self, data: impl ReadRef<'data>) -> Table {
        let mut table = self.table();
        let segment = |segment: &Segment| {
            let bytes = data.read_bytes_at(segment.offset, segment.bytes).ok()?;
            Some((Svma(segment.svma), bytes))
        };
        table.complete(&reading::Code {
            segments: self.segments.iter().filter_map(segment).collect(),
            entry: elf::entry(data),
        });
        table
    }

    /// From now on walks of copied stacks leave the code that no section describes as this table
    /// does, which is the file's [complete](Self::complete_table) one. Until then they end there.
    pub fn learn(&self, table: &mut Table) {
        // It was learned before: of one file all tables are the same.
        let _ = self.info.undescribed.set(std::mem::take(&mut table.undescribed));
    }

    /// The compact table that says what the sections say.
    pub fn table(&self) -> Table {
        let UnwindInfo { text, eh_frame, debug_frame, text_at, got_at, .. } = &*self.info;
        Table::build(&Sources {
            text: text.clone(),
            eh_frame: eh_frame.as_ref().map(|section| &*section.bytes),
            debug_frame: debug_frame.as_ref().map(|section| &*section.bytes),
            eh_frame_at: eh_frame.as_ref().map(|section| section.at),
            text_at: *text_at,
            got_at: *got_at,
        })
    }

    /// The addresses of the executable segments.
    pub fn text(&self) -> Vec<Range<Svma>> {
        self.info.text.clone()
    }

    /// What its sections say.
    pub fn info(&self) -> &Arc<UnwindInfo> {
        &self.info
    }
}

/// What of a program's start is known by its instructions.
fn known<'data>(segments: &[Segment], entry: Svma, data: impl ReadRef<'data>) -> Vec<Known> {
    let code = |at: Svma| {
        let segment = segments.iter().find(|segment| segment.range().contains(&at))?;
        let into = at.0 - segment.svma;
        let bytes = segment.bytes.checked_sub(into)?.min(known::CODE_BYTES as u64);
        data.read_bytes_at(segment.offset.checked_add(into)?, bytes).ok()
    };
    let Some(start) = code(entry) else { return Vec::new() };
    let main = known::main_by(entry, start).and_then(|at| known::main(at, code(at)?));
    known::entry(entry, start).into_iter().chain(main).collect()
}

impl Segment {
    fn range(&self) -> Range<Svma> {
        Svma(self.svma)..Svma(self.svma.saturating_add(self.bytes))
    }
}

/// An address of the file, from one in memory and the mapping's [`CodeFile::bias`].
pub fn svma(address: Avma, bias: u64) -> Svma {
    Svma(address.0.wrapping_sub(bias))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;

    fn code(segments: &[(u64, u64, u64)]) -> CodeFile {
        let segments =
            segments.iter().map(|&(offset, bytes, svma)| Segment { offset, bytes, svma }).collect();
        CodeFile { segments, info: Arc::default() }
    }

    #[test]
    fn the_bias_comes_from_the_executable_segment() {
        let check = |segments: &[(u64, u64, u64)], start, offset, expected: u64| {
            let bias = code(segments).bias(Avma(start), FileOffset(offset)).unwrap();
            assert_eq!(bias, expected);
        };
        // A position-independent file as GNU ld lays it out.
        check(&[(0x1000, 0x500, 0x1000)], 0x5555_0000_1000, 0x1000, 0x5555_0000_0000);
        // lld: the segment begins inside a page of the file and lies one page higher in memory.
        check(&[(0x1640, 0x500, 0x2640)], 0x5555_0000_2000, 0x1000, 0x5555_0000_0000);
        // Not position-independent.
        check(&[(0x1000, 0x500, 0x40_1000)], 0x40_1000, 0x1000, 0);
        // Two executable segments.
        check(&[(0, 0x800, 0), (0x3000, 0x800, 0x9000)], 0x7000_9000, 0x3000, 0x7000_0000);
    }

    /// A sparse file with an `.eh_frame` of so many bytes.
    fn with_eh_frame(claimed: u64) -> std::fs::File {
        const NAMES: &[u8] = b"\0.eh_frame\0.names\0";
        let section = |name: u32, kind: u32, at: u64, bytes: u64| {
            let mut header = [name.to_le_bytes(), kind.to_le_bytes()].concat();
            header.extend([0, 0, at, bytes, 0, 1, 0].iter().flat_map(|n: &u64| n.to_le_bytes()));
            header
        };
        let mut bytes = vec![0; 64];
        bytes[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        bytes[16..24].copy_from_slice(&[3, 0, 62, 0, 1, 0, 0, 0]);
        bytes[0x28] = 64; // e_shoff
        bytes[0x34] = 64; // e_ehsize
        bytes[0x36] = 56; // e_phentsize
        bytes[0x3a] = 64; // e_shentsize
        bytes[0x3c] = 3; // e_shnum
        bytes[0x3e] = 2; // e_shstrndx
        bytes.extend([0; 64]);
        bytes.extend(section(1, 1, 0x1000, claimed));
        bytes.extend(section(11, 3, 256, NAMES.len() as u64));
        bytes.extend(NAMES);
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &bytes).unwrap();
        file.set_len(0x1000 + claimed).unwrap();
        file
    }

    #[test]
    fn sections_of_any_size_are_not_read() {
        let check = |claimed, expected: Option<usize>| {
            let file = with_eh_frame(claimed);
            let code = CodeFile::parse(&object::read::ReadCache::new(&file)).unwrap();
            let read = code.info.eh_frame.as_ref().map(|section| section.bytes.len());
            assert_eq!(read, expected);
        };
        check(4096, Some(4096));
        check(SECTION_MAX + 1, None);
        check(1 << 40, None);
    }

    #[test]
    fn our_own_program_has_unwind_information() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        let code = CodeFile::parse(bytes.as_slice()).unwrap();
        assert!(code.info.eh_frame.is_some() && !code.segments.is_empty());
        assert!(CodeFile::parse([0_u8; 64].as_slice()).is_err());
    }
}
