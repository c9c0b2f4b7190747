//! The functions that `.eh_frame` and `.debug_frame` describe, each with its rows.

use std::ops::Range;

use gimli::{
    BaseAddresses, CieOrFde, CommonInformationEntry, DebugFrame, EhFrame, EndianSlice,
    FrameDescriptionEntry, LittleEndian, UnwindOffset, UnwindSection,
};
use profiler_common::table::Rule;

use super::{
    Census, Sources, Unsupported,
    layout::Text,
    machine::{Effect, Machine, Misplaced, State},
    rules::{Bytes, Context, Rules},
};

/// Bytes that the entry which many functions share may have. Real ones have some 20, and it can be
/// that every other function needs it evaluated.
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
        let mut initial: Option<(usize, Option<State>)> = None;
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
            let Ok(function) = function else {
                self.unsupported.add(Unsupported::Malformed, 0);
                continue;
            };
            let entry = function.cie();
            if initial.as_ref().is_none_or(|(of, _)| *of != entry.offset()) {
                initial = Some((entry.offset(), self.initial(section, entry)));
            }
            let initial = initial.as_ref().and_then(|(_, state)| state.as_ref());
            self.function(section, &function, initial, origin);
        }
    }

    /// What holds at the beginning of all functions that share an entry; `None` if the entry makes
    /// no sense.
    fn initial<'data, S>(
        &self,
        section: &S,
        entry: &CommonInformationEntry<Bytes<'data>>,
    ) -> Option<State>
    where
        S: UnwindSection<Bytes<'data>>,
    {
        if entry.entry_len() > SHARED_ENTRY_MAX {
            return None;
        }
        let factors = (entry.code_alignment_factor(), entry.data_alignment_factor());
        let mut machine = Machine::shared(factors.0, factors.1);
        let mut instructions = entry.instructions(section, &self.bases);
        while let Some(instruction) = instructions.next().ok()? {
            machine.execute(&instruction, 0).ok()?;
        }
        Some(machine.state)
    }

    fn function<'data, S>(
        &mut self,
        section: &S,
        function: &FrameDescriptionEntry<Bytes<'data>>,
        initial: Option<&State>,
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
        if let Some(initial) = initial {
            described = self.rows_of(section, function, initial, &code);
        }
        if described < code.end {
            self.unsupported.add(Unsupported::Malformed, u64::from(code.end - described));
            self.rows.push((described, Rules::UNSUPPORTED));
        }
        self.spans.push(Span { code, origin, rows: first_row..self.rows.len() as u32 });
    }

    /// Adds the rows of a function and returns up to where in its code they reach.
    ///
    /// What is wrong in the instructions ends them; what holds there has no end and is left out.
    fn rows_of<'data, S>(
        &mut self,
        section: &S,
        function: &FrameDescriptionEntry<Bytes<'data>>,
        initial: &State,
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
        let entry = function.cie();
        let factors = (entry.code_alignment_factor(), entry.data_alignment_factor());
        let mut machine = Machine::function(initial, factors.0, factors.1);
        let mut instructions = function.instructions(section, &self.bases);
        let mut here = function.initial_address();
        let mut described = code.start;
        let mut changed = true;
        let (mut rule, mut last) = (Ok(Rules::UNSUPPORTED), None);
        loop {
            let next = match instructions.next() {
                Ok(Some(instruction)) => match machine.execute(&instruction, here) {
                    Ok(Effect::From(next)) => Some(next),
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
            let end = self.text.offset_in(code, next.unwrap_or(function.end_address()));
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
            match next {
                Some(next) => here = next,
                None => return described,
            }
        }
    }
}
