//! Follows every way through one function.

use std::{
    collections::{BTreeMap, HashSet},
    ops::Range,
};

use iced_x86::{
    Code as Opcode, Decoder, DecoderOptions, FlowControl, Instruction, InstructionInfoFactory,
    Mnemonic,
};

use super::{Code, state::State};
use crate::units::Svma;

/// Instructions of the longest function that is read.
const FUNCTION_MAX: usize = 1 << 15;

/// How many calls of one function may turn out not to return before it is given up.
const NOT_RETURNING_MAX: usize = 64;

/// A function in which every way that returns has put everything back.
#[derive(Debug)]
pub struct Function {
    /// Its instructions, by where they begin.
    pub steps: BTreeMap<u64, Step>,
    /// What it calls in the code that is read.
    pub calls: Vec<u64>,
    /// What it takes the address of there.
    pub taken: Vec<u64>,
    /// Whether a way leads to a return.
    returns: bool,
}

/// Why a function is taken to begin somewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// It is called.
    Called,
    /// Its address is taken: it is a function, or data.
    Taken,
    /// The program begins there.
    Program,
    /// Another one ends before it.
    Supposed,
}

/// An instruction.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub end: u64,
    /// What holds before it.
    pub state: State,
    /// The call that was last returned from before it.
    after_call: Option<u64>,
}

/// Reads functions in the code that nothing describes.
pub struct Reader<'a> {
    code: &'a Code<'a>,
    uncovered: &'a [Range<Svma>],
    facts: InstructionInfoFactory,
    /// Instructions that may still be read.
    left: usize,
}

/// Why a function is not believed as it was read.
enum Doubt {
    /// Something does not add up behind that call, or, without one, at all.
    Contradiction(Option<u64>),
    TooLong,
}

impl<'a> Reader<'a> {
    pub fn new(code: &'a Code<'a>, uncovered: &'a [Range<Svma>], instructions: usize) -> Self {
        Self { code, uncovered, facts: InstructionInfoFactory::new(), left: instructions }
    }

    /// Whether an address lies in code that nothing describes.
    pub fn contains(&self, address: u64) -> bool {
        let after = self.uncovered.partition_point(|range| range.end.0 <= address);
        self.uncovered.get(after).is_some_and(|range| range.start.0 <= address)
    }

    /// The function that begins there; `None` if it cannot be believed.
    ///
    /// One that is only supposed to begin there has to prove it: some way must lead to a return, and all
    /// that do must find the stack as it was supposed to be. Had it been another, each of
    /// them would return to the wrong place.
    ///
    /// Behind a call that does not return lies other code. In a function that is known to begin there, what
    /// does not add up behind a call is taken for that and not followed.
    pub fn function(&mut self, start: u64, beginning: Beginning) -> Option<Function> {
        let state = match beginning {
            Beginning::Called | Beginning::Taken | Beginning::Supposed => State::CALLED,
            Beginning::Program => State::STARTED,
        };
        let mut not_returning = HashSet::new();
        loop {
            match self.follow(start, state, &not_returning) {
                Ok(function) if beginning == Beginning::Supposed => {
                    return function.returns.then_some(function);
                }
                Ok(mut function) => {
                    // Data calls nothing.
                    if beginning == Beginning::Taken && !function.returns {
                        (function.calls, function.taken) = (Vec::new(), Vec::new());
                    }
                    return Some(function);
                }
                Err(Doubt::Contradiction(Some(call)))
                    if beginning != Beginning::Supposed
                        && not_returning.len() < NOT_RETURNING_MAX =>
                {
                    if !not_returning.insert(call) {
                        return None;
                    }
                }
                Err(Doubt::Contradiction(_) | Doubt::TooLong) => return None,
            }
        }
    }

    /// The next place behind `at`, and before `end`, where a function may begin: behind padding.
    pub fn behind_padding(&self, mut at: u64, end: u64) -> Option<u64> {
        while at < end {
            match self.decode(at) {
                Some(padding) if is_padding(&padding) => at = padding.next_ip(),
                Some(_) => return Some(at),
                None => at += 1,
            }
        }
        None
    }

    /// The next place behind `at` that is reached from elsewhere, or not at all.
    pub fn behind_last(&mut self, mut at: u64, end: u64) -> u64 {
        while at < end {
            self.left = self.left.saturating_sub(1);
            let Some(instruction) = self.decode(at) else { return at + 1 };
            at = instruction.next_ip();
            let goes_on = match instruction.flow_control() {
                FlowControl::Next | FlowControl::Interrupt => !is_trap(&instruction),
                FlowControl::Call | FlowControl::IndirectCall | FlowControl::ConditionalBranch => {
                    true
                }
                _ => false,
            };
            if !goes_on {
                break;
            }
        }
        at
    }

    fn follow(
        &mut self,
        start: u64,
        state: State,
        not_returning: &HashSet<u64>,
    ) -> Result<Function, Doubt> {
        let (steps, calls, taken) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut function = Function { steps, calls, taken, returns: false };
        let (mut calls, mut taken) = (Vec::new(), Vec::new());
        let mut backwards = Vec::new();
        let mut forwards = Vec::new();
        let mut returning = Vec::new();
        let mut ways = vec![(start, state, None)];
        while let Some((at, state, after_call)) = ways.pop() {
            if !self.contains(at) {
                continue;
            }
            let mut state = state;
            if let Some(known) = function.steps.get(&at) {
                let after_call = after_call.or(known.after_call);
                let met = known.state.meet(state).ok_or(Doubt::Contradiction(after_call))?;
                if met == known.state {
                    continue;
                }
                // Less is known than was thought: what follows is gone through again.
                state = met;
            }
            self.left = self.left.checked_sub(1).ok_or(Doubt::TooLong)?;
            if function.steps.len() == FUNCTION_MAX {
                return Err(Doubt::TooLong);
            }
            let contradiction = Doubt::Contradiction(after_call);
            let Some(instruction) = self.decode(at) else { return Err(contradiction) };
            let end = instruction.next_ip();
            function.steps.insert(at, Step { end, state, after_call });
            let target = instruction.near_branch_target();
            if instruction.mnemonic() == Mnemonic::Lea && instruction.is_ip_rel_memory_operand() {
                let address = instruction.ip_rel_memory_address();
                if self.contains(address) {
                    taken.push((at, address));
                }
            }
            let first_new = ways.len();
            match instruction.flow_control() {
                FlowControl::Next | FlowControl::Interrupt if !is_trap(&instruction) => {
                    ways.push((end, state.after(&instruction, &mut self.facts), after_call));
                }
                FlowControl::Call if instruction.mnemonic() != Mnemonic::Call => {
                    // A system call.
                    ways.push((end, state.after(&instruction, &mut self.facts), after_call));
                }
                FlowControl::Call | FlowControl::IndirectCall => {
                    if instruction.code() == Opcode::Call_rel32_64 && self.contains(target) {
                        calls.push((at, target));
                    }
                    // What an outermost function calls last does not return.
                    if !state.is_outermost && !not_returning.contains(&at) {
                        let state = state.after(&instruction, &mut self.facts);
                        ways.push((end, state, Some(at)));
                    }
                }
                FlowControl::UnconditionalBranch => ways.push((target, state, after_call)),
                FlowControl::ConditionalBranch => {
                    ways.push((end, state, after_call));
                    ways.push((target, state, after_call));
                }
                FlowControl::Return if !state.may_return() => return Err(contradiction),
                FlowControl::Return => returning.push(at),
                _ => {}
            }
            backwards.extend(ways[first_new..].iter().map(|(next, ..)| (*next, at)));
            if instruction.mnemonic() != Mnemonic::Call {
                forwards.extend(ways[first_new..].iter().map(|(next, ..)| (at, *next)));
            }
        }
        function.returns = !returning.is_empty();
        // Whether a call returns is not known; that what lies only behind it is this function is proved
        // by a return that it leads to.
        let leading = reached(returning, backwards);
        let without_calls = reached(vec![start], forwards);
        function.steps.retain(|at, _| without_calls.contains(at) || leading.contains(at));
        let proved = |targets: Vec<(u64, u64)>| {
            let proved = targets.into_iter().filter(|(at, _)| function.steps.contains_key(at));
            proved.map(|(_, target)| target).collect()
        };
        (function.calls, function.taken) = (proved(calls), proved(taken));
        Ok(function)
    }

    fn decode(&self, at: u64) -> Option<Instruction> {
        let (start, bytes) = self.code.segments.iter().find(|(start, bytes)| {
            at.checked_sub(start.0).is_some_and(|offset| offset < bytes.len() as u64)
        })?;
        let bytes = &bytes[usize::try_from(at - start.0).ok()?..];
        let instruction = Decoder::with_ip(64, bytes, at, DecoderOptions::NONE).decode();
        (!instruction.is_invalid()).then_some(instruction)
    }
}

/// What is reached from some places by steps from one place to another.
fn reached(mut waiting: Vec<u64>, mut steps: Vec<(u64, u64)>) -> HashSet<u64> {
    steps.sort_unstable();
    let mut reached = HashSet::new();
    while let Some(at) = waiting.pop() {
        if reached.insert(at) {
            let first = steps.partition_point(|(from, _)| *from < at);
            let next = steps[first..].iter().take_while(|(from, _)| *from == at);
            waiting.extend(next.map(|(_, to)| *to));
        }
    }
    reached
}

/// Whether nothing goes on behind an instruction that decodes like any other.
fn is_trap(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Hlt | Mnemonic::Int3)
}

fn is_padding(instruction: &Instruction) -> bool {
    matches!(instruction.mnemonic(), Mnemonic::Nop | Mnemonic::Int3)
}
