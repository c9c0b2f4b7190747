//! The functions that `.eh_frame` and `.debug_frame` describe, each with its rows.

use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, DebugFrame, EhFrame, EndianSlice, LittleEndian,
    PartialFrameDescriptionEntry, UnwindOffset, UnwindSection,
};
use profiler_common::table::Rule;

use super::{
    Census, Sources, Unsupported,
    entries::{Function, Section, Shared},
    layout::Text,
    machine::{Effect, Machine, Misplaced, State},
    rules::{Bytes, Context, Rules},
};

/// All that the sections describe.
pub struct Functions {
    /// In the order in which they are described; of two that describe the same code, the later is
    /// right.
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
    pub rows: Range<u32>,
}

/// Reads both sections, the less trusted first.
pub fn read(sources: &Sources<'_>, text: &Text) -> Functions {
    /// Bytes of a section for each function and each row of it, or fewer: room that is reserved and
    /// not used costs nothing, growing does.
    const BYTES_PER_FUNCTION: usize = 24;
    const BYTES_PER_ROW: usize = 8;
    let bytes = |section: Option<&[u8]>| section.map_or(0, <[u8]>::len);
    let bytes = bytes(sources.debug_frame) + bytes(sources.eh_frame);
    let mut reader = Reader {
        text,
        rules: Rules::new(),
        spans: Vec::with_capacity(bytes / BYTES_PER_FUNCTION),
        rows: Vec::with_capacity(bytes / BYTES_PER_ROW),
        remembered: Vec::new(),
        unsupported: Census::default(),
    };
    let bases = &bases(sources);
    if let Some(bytes) = sources.debug_frame {
        let mut section = DebugFrame::from(EndianSlice::new(bytes, LittleEndian));
        section.set_address_size(8);
        reader.section(&Section { as_gimli: &section, bytes, bases });
    }
    if let Some(bytes) = sources.eh_frame {
        let mut section = EhFrame::from(EndianSlice::new(bytes, LittleEndian));
        section.set_address_size(8);
        reader.section(&Section { as_gimli: &section, bytes, bases });
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
    rules: Rules,
    spans: Vec<Span>,
    rows: Vec<(u32, u16)>,
    /// Empty between two functions; kept for its memory.
    remembered: Vec<State>,
    unsupported: Census,
}

impl Reader<'_> {
    fn section<'data, S>(&mut self, section: &Section<'_, 'data, S>)
    where
        S: UnwindSection<Bytes<'data>>,
    {
        let mut entries = section.as_gimli.entries(section.bases);
        let mut shared: Option<Shared<'data>> = None;
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
            let at = partial.cie_offset();
            if shared.as_ref().is_none_or(|known| known.entry.offset() != UnwindOffset::into(at)) {
                shared = section.shared(at).ok();
            }
            let known = shared.as_ref().and_then(|shared| {
                let function = section.function(&partial, shared).ok()?;
                Some((shared, function))
            });
            match known {
                Some((shared, mut function)) => {
                    self.function(section, &partial, shared, &mut function);
                }
                None => self.unsupported.add(Unsupported::Malformed, 0),
            }
        }
    }

    fn function<'a, 'data, S>(
        &mut self,
        section: &Section<'a, 'data, S>,
        partial: &PartialFrameDescriptionEntry<'_, S, Bytes<'data>>,
        shared: &Shared<'data>,
        function: &mut Function<'a, 'data>,
    ) where
        S: UnwindSection<Bytes<'data>>,
    {
        let Some(code) = self.text.clip(function.start, function.end) else { return };
        let first_row = self.rows.len() as u32;
        // What the rows do not reach is not described.
        let described = self.rows_of(section, partial, shared, function, &code);
        if described < code.end {
            self.unsupported.add(Unsupported::Malformed, u64::from(code.end - described));
            self.rows.push((described, Rules::UNSUPPORTED));
        }
        self.spans.push(Span { code, rows: first_row..self.rows.len() as u32 });
    }

    /// Adds the rows of a function and returns up to where in its code they reach.
    ///
    /// What is wrong in the instructions ends them; what holds there has no end and is left out.
    #[inline(always)]
    fn rows_of<'a, 'data, S>(
        &mut self,
        section: &Section<'a, 'data, S>,
        partial: &PartialFrameDescriptionEntry<'_, S, Bytes<'data>>,
        shared: &Shared<'data>,
        function: &mut Function<'a, 'data>,
        code: &Range<u32>,
    ) -> u32
    where
        S: UnwindSection<Bytes<'data>>,
    {
        let mut described = code.start;
        let Some(initial) = &shared.state else { return described };
        let meaning = Context {
            section: section.as_gimli,
            encoding: shared.entry.encoding(),
            is_signal_frame: shared.entry.is_signal_trampoline(),
        };
        self.remembered.clear();
        let mut machine = Machine::function(&shared.entry, initial, &mut self.remembered);
        let mut here = function.start;
        let mut changed = true;
        let (mut rule, mut last) = (Ok(Rules::UNSUPPORTED), None);
        loop {
            let then = match section.next(&mut function.instructions, partial, shared) {
                Ok(Some(instruction)) => match machine.execute(&instruction, here) {
                    Ok(Effect::From(then)) => Some(then),
                    Ok(Effect::Changed) => {
                        changed = true;
                        continue;
                    }
                    Ok(Effect::Nothing) => continue,
                    Err(Misplaced) => return described,
                },
                Ok(None) => None,
                Err(_) => return described,
            };
            let end = self.text.offset_in(code, then.unwrap_or(function.end));
            if end > described {
                if changed {
                    changed = false;
                    rule = meaning.rule(&machine.state).and_then(|rule| self.rules.number(rule));
                    let number = rule.unwrap_or(Rules::UNSUPPORTED);
                    if last != Some(number) {
                        last = Some(number);
                        self.rows.push((described, number));
                    }
                }
                if let Err(kind) = rule {
                    self.unsupported.add(kind, u64::from(end - described));
                }
                described = end;
            }
            match then {
                Some(then) => here = then,
                None => return described,
            }
        }
    }
}
