//! The functions that `.eh_frame` and `.debug_frame` describe, each with its rows.

use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EndianSlice,
    FrameDescriptionEntry, LittleEndian, UnwindContext, UnwindOffset, UnwindSection,
};
use profiler_common::table::Rule;

use super::{
    Census, Sources, Unsupported,
    layout::Text,
    rules::{Bytes, Context, Rules},
};

/// Bytes that the entry which many functions share may have. Real ones have some 20, and every
/// function that names one costs its evaluation.
const SHARED_ENTRY_MAX: usize = 4096;

/// All that the sections describe, in the order in which they do.
pub struct Functions {
    pub spans: Vec<Span>,
    /// Where in the text a rule begins, and its number; those of one function lie together.
    pub rows: Vec<(u32, u16)>,
    pub rules: Vec<Rule>,
    pub unsupported: Census,
}

/// A function, or a part of one: offsets in the text, and which rows are its.
#[derive(Clone, Debug)]
pub struct Span {
    pub code: Range<u32>,
    pub origin: Origin,
    pub rows: Range<u32>,
}

/// Where a description comes from, the less trusted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    DebugFrame,
    EhFrame,
}

/// Reads both sections.
pub fn read(sources: &Sources<'_>, text: &Text) -> Functions {
    let mut reader = Reader {
        text,
        bases: bases(sources),
        rules: Rules::new(),
        spans: Vec::new(),
        rows: Vec::new(),
        unsupported: Census::default(),
    };
    if let Some(bytes) = sources.eh_frame {
        let mut section = EhFrame::from(EndianSlice::new(bytes, LittleEndian));
        section.set_address_size(8);
        reader.section(&section, Origin::EhFrame);
    }
    if let Some(bytes) = sources.debug_frame {
        let mut section = DebugFrame::from(EndianSlice::new(bytes, LittleEndian));
        section.set_address_size(8);
        reader.section(&section, Origin::DebugFrame);
    }
    let Reader { rules, spans, rows, unsupported, .. } = reader;
    Functions { spans, rows, rules: rules.list, unsupported }
}

fn bases(sources: &Sources<'_>) -> BaseAddresses {
    let mut bases = BaseAddresses::default();
    if let Some(at) = sources.eh_frame_at {
        bases = bases.set_eh_frame(at.0);
    }
    if let Some(at) = sources.text_at {
        bases = bases.set_text(at.0);
    }
    if let Some(at) = sources.got_at {
        bases = bases.set_got(at.0);
    }
    bases
}

struct Reader<'a> {
    text: &'a Text,
    bases: BaseAddresses,
    rules: Rules,
    spans: Vec<Span>,
    rows: Vec<(u32, u16)>,
    unsupported: Census,
}

impl Reader<'_> {
    fn section<'data, S>(&mut self, section: &S, origin: Origin)
    where
        S: UnwindSection<Bytes<'data>>,
    {
        let bases = self.bases.clone();
        let mut entries = section.entries(&bases);
        let mut context = UnwindContext::new();
        let mut shared: Option<CommonInformationEntry<Bytes<'data>>> = None;
        loop {
            let partial = match entries.next() {
                Ok(Some(CieOrFde::Cie(_))) => continue,
                Ok(Some(CieOrFde::Fde(partial))) => partial,
                Ok(None) => break,
                Err(_) => {
                    self.unsupported.add(Unsupported::Malformed, 0);
                    break;
                }
            };
            let function = partial.parse(|section, bases, offset| {
                let at = UnwindOffset::<usize>::into(offset);
                if let Some(known) = shared.as_ref().filter(|known| known.offset() == at) {
                    return Ok(known.clone());
                }
                let entry = section.cie_from_offset(bases, offset)?;
                shared = Some(entry.clone());
                Ok(entry)
            });
            match function {
                Ok(function) => self.function(section, &function, &mut context, origin),
                Err(_) => self.unsupported.add(Unsupported::Malformed, 0),
            }
        }
    }

    fn function<'data, S>(
        &mut self,
        section: &S,
        function: &FrameDescriptionEntry<Bytes<'data>>,
        context: &mut UnwindContext<usize>,
        origin: Origin,
    ) where
        S: UnwindSection<Bytes<'data>>,
    {
        let Some(code) = self.text.clip(function.initial_address(), function.end_address()) else {
            return;
        };
        let first_row = self.rows.len() as u32;
        // What the rows do not reach is not described.
        let mut described = code.start;
        if function.cie().entry_len() <= SHARED_ENTRY_MAX {
            described = self.rows_of(section, function, context, &code);
        }
        if described < code.end {
            self.unsupported.add(Unsupported::Malformed, u64::from(code.end - described));
            self.rows.push((described, Rules::UNSUPPORTED));
        }
        self.spans.push(Span { code, origin, rows: first_row..self.rows.len() as u32 });
    }

    /// Adds the rows of a function and returns up to where in its code they reach.
    fn rows_of<'data, S>(
        &mut self,
        section: &S,
        function: &FrameDescriptionEntry<Bytes<'data>>,
        context: &mut UnwindContext<usize>,
        code: &Range<u32>,
    ) -> u32
    where
        S: UnwindSection<Bytes<'data>>,
    {
        let meaning = Context {
            section,
            encoding: function.cie().encoding(),
            is_signal_frame: function.is_signal_trampoline(),
        };
        let mut described = code.start;
        let Ok(mut table) = function.rows(section, &self.bases, context) else { return described };
        let mut last = None;
        while let Ok(Some(row)) = table.next_row() {
            let start = self.text.offset_in(code, row.start_address());
            let end = self.text.offset_in(code, row.end_address());
            if end <= start {
                continue;
            }
            described = end;
            let number = meaning.rule(row).and_then(|rule| self.rules.number(rule));
            let number = number.unwrap_or_else(|kind| {
                self.unsupported.add(kind, u64::from(end - start));
                Rules::UNSUPPORTED
            });
            if last != Some(number) {
                self.rows.push((start, number));
                last = Some(number);
            }
        }
        described
    }
}
