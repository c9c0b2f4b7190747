//! Rules for code that nothing describes, found by reading it.
//!
//! From where a function begins, every way through its code is followed, with what it does to the stack.
//! A rule is found where all ways agree. It is a proof as far as the code goes, never a guess at what code
//! usually looks like: a function is believed only if each of its ways that returns has put everything
//! back, and what cannot be reached so has no rule. Known beginnings are the program's own, and what
//! described code or a function already believed calls directly, or the latter takes the address of. Where another function ends one is only
//! supposed to begin, and must prove it by a return that finds the stack as supposed. What lies behind a
//! call is only believed if it leads to a return: the call itself might not.

mod function;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use iced_x86::{Code as Opcode, Decoder, DecoderOptions, FlowControl, Instruction};
use profiler_common::table::Rule;

use crate::units::Svma;
use function::{Beginning, Reader, Step};
use state::State;

/// The code of a file.
#[derive(Clone, Debug, Default)]
pub struct Code<'data> {
    /// The executable segments and where they lie.
    pub segments: Vec<(Svma, &'data [u8])>,
    /// Where the program begins.
    pub entry: Option<Svma>,
}

/// Where a rule holds that was found.
pub type Found = (Range<u64>, Rule);

/// Instructions that are followed for one file; what is beyond has no rule.
const INSTRUCTIONS_MAX: usize = 1 << 22;

/// The rules in `uncovered`, which are ranges of code without any; in order, and apart from each other.
pub fn read(code: &Code<'_>, uncovered: &[Range<Svma>]) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    for (at, Told { end, state }) in instructions(code, uncovered) {
        let Some(rule) = state.and_then(State::rule) else { continue };
        match found.last_mut() {
            // An instruction that begins inside another one, behind its prefix.
            Some((last, same)) if at < last.end && *same == rule => last.end = last.end.max(end),
            Some((last, _)) if at < last.end => last.end = at,
            Some((last, same)) if at == last.end && *same == rule => last.end = end,
            _ => found.push((at..end, rule)),
        }
    }
    found.retain(|(range, _)| range.start < range.end);
    found
}

/// Adds more rules to some, which hold where both speak. All are in order, and apart from each other.
pub fn join(found: &mut Vec<Found>, more: Vec<Found>) {
    let mut known = std::mem::take(found).into_iter().peekable();
    for (range, rule) in more {
        let mut at = range.start;
        while let Some((next, known_rule)) = known.next_if(|(next, _)| next.start < range.end) {
            if at < next.start {
                found.push((at..next.start, rule));
            }
            at = at.max(next.end);
            found.push((next, known_rule));
        }
        if at < range.end {
            found.push((at..range.end, rule));
        }
    }
    found.extend(known);
}

/// What is left of `uncovered`, padding aside.
pub fn rest(code: &Code<'_>, uncovered: &[Range<Svma>], found: &[Found]) -> Vec<Range<Svma>> {
    let reader = Reader::new(code, uncovered, 0);
    let mut rest = Vec::new();
    let mut left = |start: u64, end: u64| {
        if reader.behind_padding(start, end).is_some() {
            rest.push(Svma(start)..Svma(end));
        }
    };
    let mut found = found.iter().peekable();
    for range in uncovered {
        let mut at = range.start.0;
        while let Some((next, _)) = found.next_if(|(next, _)| next.start < range.end.0) {
            left(at, next.start);
            at = at.max(next.end);
        }
        left(at, range.end.0);
    }
    rest
}

/// Whether reading code is worth what it costs: there is enough that nothing describes to be more than what every
/// program begins with, and not so much that it has frame pointers instead, as code generators see to.
pub fn is_worth(code: &Code<'_>, uncovered: &[Range<Svma>]) -> bool {
    const UNCOVERED: Range<u64> = 1 << 10..1 << 20;
    const TEXT_MAX: u64 = 32 << 20;
    let bytes = |ranges: &[Range<Svma>]| {
        ranges.iter().map(|range| range.end.0.saturating_sub(range.start.0)).sum::<u64>()
    };
    let text = code.segments.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>();
    UNCOVERED.contains(&bytes(uncovered)) && text <= TEXT_MAX
}

/// What is known of an instruction.
#[derive(Clone, Copy, Debug)]
struct Told {
    end: u64,
    /// `None` if two functions have it and do not agree.
    state: Option<State>,
}

/// What believed functions tell of their instructions, by where these begin.
fn instructions(code: &Code<'_>, uncovered: &[Range<Svma>]) -> BTreeMap<u64, Told> {
    let mut reader = Reader::new(code, uncovered, INSTRUCTIONS_MAX);
    let mut believed = Believed::default();
    if let Some(entry) = code.entry.filter(|entry| reader.contains(entry.0)) {
        believed.extend(&mut reader, vec![entry.0], Beginning::Program);
    }
    let called = calls_from_described(code, uncovered);
    believed.extend(&mut reader, called, Beginning::Called);
    for range in uncovered {
        let (mut at, end) = (range.start.0, range.end.0);
        while let Some(start) = reader.behind_padding(at, end) {
            if let Some(told) = believed.told.get(&start) {
                at = told.end;
            } else if believed.extend(&mut reader, vec![start], Beginning::Supposed) {
                at = start;
            } else {
                at = reader.behind_last(start, end);
            }
        }
    }
    believed.told
}

#[derive(Default)]
struct Believed {
    told: BTreeMap<u64, Told>,
    /// Where functions were looked for that are called.
    seen: HashSet<u64>,
    /// The same of those whose address is taken.
    taken: HashSet<u64>,
}

impl Code<'_> {
    /// The bytes of a range that lies in one segment.
    pub fn bytes(&self, range: &Range<Svma>) -> Option<&[u8]> {
        self.segments.iter().find_map(|(start, bytes)| {
            let from = usize::try_from(range.start.0.checked_sub(start.0)?).ok()?;
            let to = usize::try_from(range.end.0.checked_sub(start.0)?).ok()?;
            bytes.get(from..to)
        })
    }
}

impl Believed {
    /// Adds the functions that begin in these places and what they call in turn; whether there is any.
    fn extend(&mut self, reader: &mut Reader<'_>, starts: Vec<u64>, beginning: Beginning) -> bool {
        let mut any = false;
        let mut waiting = starts.into_iter().map(|start| (start, beginning)).collect::<Vec<_>>();
        while let Some((start, beginning)) = waiting.pop() {
            let is_known = match beginning {
                Beginning::Called => !self.seen.insert(start),
                Beginning::Taken => self.seen.contains(&start) || !self.taken.insert(start),
                Beginning::Program | Beginning::Supposed => false,
            };
            if is_known {
                continue;
            }
            let Some(function) = reader.function(start, beginning) else { continue };
            any = true;
            waiting.extend(function.taken.into_iter().map(|at| (at, Beginning::Taken)));
            waiting.extend(function.calls.into_iter().map(|call| (call, Beginning::Called)));
            for (at, Step { end, state, .. }) in function.steps {
                let told = self.told.entry(at).or_insert(Told { end, state: Some(state) });
                told.state = told.state.and_then(|told| told.meet(state));
            }
        }
        any
    }
}

/// What described code calls in code that is not.
fn calls_from_described(code: &Code<'_>, uncovered: &[Range<Svma>]) -> Vec<u64> {
    let is_uncovered = |address: u64| {
        let after = uncovered.partition_point(|range| range.end.0 <= address);
        uncovered.get(after).is_some_and(|range| range.start.0 <= address)
    };
    let mut calls = HashSet::new();
    let mut instruction = Instruction::default();
    for (start, bytes) in &code.segments {
        let mut decoder = Decoder::with_ip(64, bytes, start.0, DecoderOptions::NONE);
        while decoder.can_decode() {
            decoder.decode_out(&mut instruction);
            let is_call = instruction.flow_control() == FlowControl::Call
                && instruction.code() == Opcode::Call_rel32_64;
            if is_call && !is_uncovered(instruction.ip()) {
                let target = instruction.near_branch_target();
                if is_uncovered(target) {
                    calls.insert(target);
                }
            }
        }
    }
    let mut calls = calls.into_iter().collect::<Vec<_>>();
    calls.sort_unstable();
    calls
}
