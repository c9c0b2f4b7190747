//! Names of native code, from symbol tables joined with debug information.

use std::{borrow::Cow, collections::BTreeSet, convert::Infallible};

use addr2line::{
    Context,
    gimli::{DwarfSections, EndianSlice, RunTimeEndian, SectionId},
};
use object::{Object, ObjectSection};

use super::{
    demangle::demangle,
    files::{Elf, ElfSource, ModuleFiles, has_debug_info},
    ranges::{Ranges, TableKind},
};
use crate::{
    recording::{Missing, NamedFrame, ResolvedName},
    units::Svma,
};

/// A compressed section that claims to be larger than this is taken for corrupt.
const MAX_SECTION_BYTES: u64 = 4 << 30;

/// Sections of debug information that names and lines need; variables' locations, types and macros
/// are most of the rest, and are left on the disk.
const NEEDED_SECTIONS: [SectionId; 11] = [
    SectionId::DebugAbbrev,
    SectionId::DebugAddr,
    SectionId::DebugAranges,
    SectionId::DebugInfo,
    SectionId::DebugLine,
    SectionId::DebugLineStr,
    SectionId::DebugRanges,
    SectionId::DebugRngLists,
    SectionId::DebugStr,
    SectionId::DebugStrOffsets,
    SectionId::DebugTypes,
];

/// A function of a chain whose name is in a file that was not found; its place is kept.
const UNNAMED: &str = "?";

type Reader<'s> = EndianSlice<'s, RunTimeEndian>;
type Sections<'f> = DwarfSections<Cow<'f, [u8]>>;

/// Names addresses of one module, one result for each in their order. Reads the module's files;
/// never fails, however corrupt they are.
pub fn names(files: &ModuleFiles, addresses: &BTreeSet<Svma>) -> Vec<ResolvedName> {
    let elves: Vec<Elf<'_>> =
        [&files.debug, &files.binary].into_iter().flatten().filter_map(ElfSource::elf).collect();
    let tables: Vec<_> = [TableKind::Static, TableKind::Dynamic]
        .iter()
        .flat_map(|kind| elves.iter().map(|elf| Ranges::new(elf, *kind)))
        .filter(|ranges| !ranges.is_empty())
        .collect();

    let supplement = files.supplement.as_ref().and_then(ElfSource::elf);
    let sections = elves.iter().find(|elf| has_debug_info(elf)).map(dwarf_sections);
    let supplement_sections = supplement.as_ref().map(dwarf_sections);
    let endian = match elves.first() {
        Some(elf) if !elf.is_little_endian() => RunTimeEndian::Big,
        _ => RunTimeEndian::Little,
    };
    let context = sections.as_ref().and_then(|sections| {
        let dwarf = sections.borrow_with_sup(supplement_sections.as_ref(), |section| {
            EndianSlice::new(section, endian)
        });
        Context::from_dwarf(dwarf).ok()
    });

    if tables.is_empty() && context.is_none() {
        return vec![ResolvedName::Missing(Missing::NoSymbols); addresses.len()];
    }
    let symbol_at = |address: u64| {
        let mut sized = tables.iter().filter_map(|table| table.sized(address));
        let mut sizeless = tables.iter().filter_map(|table| table.sizeless(address));
        sized.next().or_else(|| sizeless.next())
    };
    addresses
        .iter()
        .map(|address| {
            let chain = context.as_ref().map_or_else(Vec::new, |it| debugged(it, address.0));
            joined(symbol_at(address.0), chain)
        })
        .collect()
}

/// A function as debug information states it.
struct Debugged {
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

/// What the debug information says of an address, outermost first; empty if nothing or if it is
/// corrupt. The name may be missing where only the line is known.
fn debugged(context: &Context<Reader<'_>>, address: u64) -> Vec<Debugged> {
    // The search adds one to the address.
    if address == u64::MAX {
        return Vec::new();
    }
    let Ok(mut frames) = context.find_frames(address).skip_all_loads() else { return Vec::new() };
    let mut chain = Vec::new();
    loop {
        match frames.next() {
            Ok(Some(frame)) => {
                let function = frame.function.as_ref().and_then(|name| name.raw_name().ok());
                let location = frame.location.as_ref();
                chain.push(Debugged {
                    function: function.filter(|name| !name.is_empty()).map(|name| demangle(&name)),
                    file: location.and_then(|at| at.file).map(str::to_owned),
                    line: location.and_then(|at| at.line).filter(|line| *line > 0),
                });
            }
            Ok(None) => break,
            // Without its outer part the chain would name the wrong function as the real one.
            Err(_) => return Vec::new(),
        }
    }
    chain.reverse();
    chain
}

/// The outermost function is named by the symbol table where that covers the address: debug
/// information of lines alone knows `run_task` where the symbol has the whole path.
fn joined(symbol: Option<&str>, mut chain: Vec<Debugged>) -> ResolvedName {
    if chain.is_empty() {
        chain.push(Debugged { function: None, file: None, line: None });
    }
    if let (Some(symbol), Some(outermost)) = (symbol, chain.first_mut()) {
        outermost.function = Some(demangle(symbol));
    }
    if chain.iter().all(|frame| frame.function.is_none()) {
        return ResolvedName::Missing(Missing::NoSymbolHere);
    }
    let named = chain.into_iter().map(|Debugged { function, file, line }| NamedFrame {
        function: function.unwrap_or_else(|| UNNAMED.to_owned()),
        file,
        line,
    });
    ResolvedName::Frames(named.collect())
}

/// The needed sections of a file's debug information, unpacked; those it lacks are empty.
fn dwarf_sections<'f>(elf: &Elf<'f>) -> Sections<'f> {
    let load = |id: SectionId| -> Result<Cow<'f, [u8]>, Infallible> {
        let needed = NEEDED_SECTIONS.contains(&id);
        let section = needed.then(|| elf.section_by_name(id.name())).flatten();
        Ok(section.and_then(|section| section_bytes(&section)).unwrap_or_default())
    };
    let Ok(sections) = Sections::load(load);
    sections
}

fn section_bytes<'f>(section: &impl ObjectSection<'f>) -> Option<Cow<'f, [u8]>> {
    let data = section.compressed_data().ok()?;
    (data.uncompressed_size <= MAX_SECTION_BYTES).then(|| data.decompress().ok()).flatten()
}
