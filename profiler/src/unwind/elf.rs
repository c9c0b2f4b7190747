//! What an ELF file says of itself as a whole.

use object::{
    FileKind, ReadRef,
    elf::{ELF_NOTE_GNU, FileHeader32, FileHeader64, NT_GNU_BUILD_ID},
    endian::Endianness,
    read::elf::{FileHeader, NoteIterator, ProgramHeader, SectionHeader},
};

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
