//! Functions without a name: where they begin, and which source files their code mentions.
//!
//! A Rust function that can panic hands the place to the panic as a `core::panic::Location`: file,
//! line, column. Stripping leaves these where they are, whatever the function is called, and what
//! was inlined into a function brings its own along.

use std::{
    collections::{BTreeSet, HashMap},
    ops::Range,
};

use iced_x86::{Decoder, DecoderOptions, Instruction, OpKind};
use object::{Architecture, Object as _, ObjectSection as _, ObjectSegment as _, SegmentFlags};

use super::files::{Elf, ElfSource};
use crate::{
    recording::{ModuleId, NamelessFunction},
    units::Svma,
    unwind::CodeFile,
};

/// A function longer than this is not read.
const CODE_MAX: u64 = 1 << 20;

/// A segment larger than this is not read.
const SEGMENT_MAX: u64 = 512 << 20;

/// A path longer than this is none.
const PATH_MAX: u64 = 4096;

/// Lines and columns beyond this are none.
const LINES_MAX: u32 = 1 << 20;

/// The functions that `addresses` lie in, as the file's unwind information delimits them; in their
/// order, each once. An address that it does not describe has none. Never fails.
pub fn functions(
    file: &ElfSource,
    module: ModuleId,
    addresses: &BTreeSet<Svma>,
) -> Vec<NamelessFunction> {
    let Some(elf) = file.elf() else { return Vec::new() };
    let Ok(code) = CodeFile::parse(file.data()) else { return Vec::new() };
    let mut image = Image::of(&elf);
    let mut functions: Vec<NamelessFunction> = Vec::new();
    for &address in addresses {
        if functions.last().is_some_and(|last| address < last.end) {
            continue;
        }
        let Some(function) = code.info().function_at(address) else { continue };
        let (start, end) = (function.start(), Svma(function.entry.end_address()));
        let mentions = image.mentions(start..end);
        functions.push(NamelessFunction { module, start, end, mentions });
    }
    functions
}

/// What a file has in memory once it is loaded, wherever that is.
struct Image<'f> {
    segments: Vec<(u64, &'f [u8])>,
    /// Words that the dynamic linker writes, and what it writes there in a file loaded at 0; in
    /// order.
    written: Vec<(u64, u64)>,
    /// Every path once: many functions mention the same.
    paths: HashMap<(u64, u64), Option<String>>,
}

impl<'f> Image<'f> {
    fn of(elf: &Elf<'f>) -> Self {
        let mut image = Self { segments: Vec::new(), written: Vec::new(), paths: HashMap::new() };
        if elf.architecture() != Architecture::X86_64 {
            return image;
        }
        for segment in elf.segments() {
            let readable = matches!(segment.flags(), SegmentFlags::Elf { .. });
            if readable && segment.file_range().1 <= SEGMENT_MAX {
                image.segments.extend(segment.data().ok().map(|data| (segment.address(), data)));
            }
        }
        let relocations = elf.section_by_name(".rela.dyn");
        let relocations = relocations.and_then(|section| section.data().ok()).unwrap_or_default();
        for [at, info, value] in relocations.as_chunks::<8>().0.as_chunks::<3>().0 {
            if u64::from_le_bytes(*info) == u64::from(object::elf::R_X86_64_RELATIVE) {
                image.written.push((u64::from_le_bytes(*at), u64::from_le_bytes(*value)));
            }
        }
        image.written.sort_unstable();
        image
    }

    /// The source files that the code of a function mentions, each once, in order.
    fn mentions(&mut self, function: Range<Svma>) -> Vec<String> {
        let length = function.end.0.saturating_sub(function.start.0);
        let Some(code) = self.bytes(function.start.0, length).filter(|_| length <= CODE_MAX) else {
            return Vec::new();
        };
        let mut decoder = Decoder::with_ip(64, code, function.start.0, DecoderOptions::NONE);
        let mut instruction = Instruction::default();
        let mut mentions = BTreeSet::new();
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            mentions.extend(address(&instruction).and_then(|at| self.location(at)));
        }
        mentions.into_iter().collect()
    }

    /// The path in a `core::panic::Location`: a `str`, a line and a column.
    fn location(&mut self, at: u64) -> Option<String> {
        let line = u32::from_le_bytes(self.bytes(at.checked_add(16)?, 4)?.try_into().ok()?);
        let column = u32::from_le_bytes(self.bytes(at.checked_add(20)?, 4)?.try_into().ok()?);
        let length = self.word(at.checked_add(8)?)?;
        let counts = 1..LINES_MAX;
        if !(1..PATH_MAX).contains(&length) || !counts.contains(&line) || !counts.contains(&column)
        {
            return None;
        }
        let path = (self.word(at)?, length);
        if let Some(known) = self.paths.get(&path) {
            return known.clone();
        }
        let text = self.bytes(path.0, path.1).and_then(|bytes| str::from_utf8(bytes).ok());
        let text = text.filter(|text| {
            text.strip_suffix(".rs").is_some_and(|path| !path.contains(char::is_control))
        });
        let text = text.map(str::to_owned);
        self.paths.insert(path, text.clone());
        text
    }

    fn word(&self, at: u64) -> Option<u64> {
        match self.written.binary_search_by_key(&at, |(at, _)| *at) {
            Ok(found) => Some(self.written[found].1),
            Err(_) => Some(u64::from_le_bytes(self.bytes(at, 8)?.try_into().ok()?)),
        }
    }

    fn bytes(&self, at: u64, length: u64) -> Option<&'f [u8]> {
        self.segments.iter().find_map(|(start, data)| {
            let from = usize::try_from(at.checked_sub(*start)?).ok()?;
            data.get(from..from.checked_add(usize::try_from(length).ok()?)?)
        })
    }
}

/// The address that an instruction takes, relative to itself or, in code for a fixed place, as it is.
fn address(instruction: &Instruction) -> Option<u64> {
    if instruction.is_ip_rel_memory_operand() {
        return Some(instruction.ip_rel_memory_address());
    }
    let mut operands = (0..instruction.op_count()).map(|operand| instruction.op_kind(operand));
    let fixed = operands.any(|kind| matches!(kind, OpKind::Immediate32));
    fixed.then(|| instruction.immediate32().into())
}
