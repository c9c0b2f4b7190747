//! What an ELF file says of itself as a whole.

use std::ops::Range;

use object::{
    FileKind, ReadRef,
    elf::{ELF_NOTE_GNU, FileHeader32, FileHeader64, NT_GNU_BUILD_ID, PF_X, PT_LOAD},
    endian::Endianness,
    read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader},
};

use crate::units::Svma;

/// All that the unwind table of a file depends on, without reading what it is made of.
///
/// A stripped file has the build-id of the whole one, but not all its unwind information.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CodeIdentity {
    /// The build-id, not empty.
    pub build_id: Vec<u8>,
    /// The addresses of the executable segments.
    pub text: Vec<Range<Svma>>,
    /// Bytes of `.eh_frame` in the file.
    pub eh_frame_bytes: u64,
    /// Bytes of `.debug_frame` in the file.
    pub debug_frame_bytes: u64,
}

/// What identifies the code of a 64-bit ELF file; `None` if it has no build-id or is not a readable one.
/// Only headers are read.
pub fn code_identity<'d>(file: impl ReadRef<'d>) -> Option<CodeIdentity> {
    type Header = FileHeader64<Endianness>;
    let header = Header::parse(file).ok()?;
    let endian = header.endian().ok()?;
    let build_id = header_build_id::<Header>(file).filter(|id| !id.is_empty())?;
    let segments = header.program_headers(endian, file).ok()?.iter();
    let code = segments
        .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_flags(endian) & PF_X != 0);
    let text = code.map(|segment| {
        let start = segment.p_vaddr(endian);
        Svma(start)..Svma(start.saturating_add(segment.p_filesz(endian)))
    });
    let sections = header.sections(endian, file).ok()?;
    let bytes = |name: &[u8]| {
        sections.section_by_name(endian, name).map_or(0, |(_, section)| section.sh_size(endian))
    };
    Some(CodeIdentity {
        build_id,
        text: text.collect(),
        eh_frame_bytes: bytes(b".eh_frame"),
        debug_frame_bytes: bytes(b".debug_frame"),
    })
}

/// The build-id of an ELF file (normally 20 bytes), read from as little of it as possible.
///
/// `None` if it has none or is not a readable ELF file. Never fails on a corrupt one.
pub fn build_id<'d>(file: impl ReadRef<'d>) -> Option<Vec<u8>> {
    match FileKind::parse(file).ok()? {
        FileKind::Elf32 => header_build_id::<FileHeader32<Endianness>>(file),
        FileKind::Elf64 => header_build_id::<FileHeader64<Endianness>>(file),
        _ => None,
    }
}

/// Sections come first: in a file of debug information alone, the program headers still speak of
/// the file it was split from. A file without sections has only its program headers.
fn header_build_id<'d, Elf>(data: impl ReadRef<'d>) -> Option<Vec<u8>>
where
    Elf: FileHeader<Endian = Endianness>,
{
    let header = Elf::parse(data).ok()?;
    let endian = header.endian().ok()?;
    let sections = header.section_headers(endian, data).unwrap_or_default();
    let segments = header.program_headers(endian, data).unwrap_or_default();
    sections
        .iter()
        .filter_map(|section| section.notes(endian, data).ok().flatten())
        .chain(segments.iter().filter_map(|segment| segment.notes(endian, data).ok().flatten()))
        .find_map(|notes| noted_build_id(endian, notes))
}

fn noted_build_id<Elf>(endian: Endianness, mut notes: NoteIterator<'_, Elf>) -> Option<Vec<u8>>
where
    Elf: FileHeader<Endian = Endianness>,
{
    while let Ok(Some(note)) = notes.next() {
        if note.name() == ELF_NOTE_GNU && note.n_type(endian) == NT_GNU_BUILD_ID {
            return Some(note.desc().to_vec());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use std::{fs, process::Command};

    use super::build_id;

    /// A program that does nothing, linked with an option for its build-id.
    fn program(option: &str, bits: &str) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("nothing.s"), ".section .note.GNU-stack, \"\", @progbits\n")
            .unwrap();
        let status = Command::new("gcc")
            .args(["-shared", "-nostdlib", bits, option, "nothing.s", "-o", "nothing"])
            .current_dir(dir.path())
            .status()
            .unwrap();
        assert!(status.success());
        fs::read(dir.path().join("nothing")).unwrap()
    }

    fn check(file: &[u8], expected: Option<&[u8]>) {
        assert_eq!(build_id(file).as_deref(), expected);
    }

    #[test]
    fn build_ids_are_read_from_any_kind_of_file() {
        let id = [0x01, 0x23, 0x45, 0x67, 0x89, 0xab, 0xcd, 0xef];
        let with_id = program("-Wl,--build-id=0x0123456789abcdef", "-m64");
        check(&with_id, Some(&id));
        check(&program("-Wl,--build-id=0x0123456789abcdef", "-m32"), Some(&id));
        check(&program("-Wl,--build-id=none", "-m64"), None);

        // A file without section headers, as an image dumped from memory may be.
        let mut sectionless = with_id.clone();
        sectionless[0x28..0x30].fill(0); // e_shoff
        sectionless[0x3c..0x40].fill(0); // e_shnum, e_shstrndx
        check(&sectionless, Some(&id));
        // Section headers beyond the end.
        let mut cut = with_id.clone();
        cut[0x28..0x30].fill(0xee);
        check(&cut, Some(&id));

        check(&with_id[..0x40], None);
        check(b"\x7fELF", None);
        check(b"#!/bin/sh\n", None);
        check(b"", None);
    }
}
