//! What unwind information says at one place, as the rule that says the same.

use std::collections::HashMap;

use gimli::{
    CfaRule, Encoding, EndianSlice, LittleEndian, Operation, Register, RegisterRule,
    UnwindExpression, UnwindSection, X86_64,
};
use profiler_common::{
    table::{BpKind, CfaKind, Rule},
    unwind::SIGNAL_FRAME_SP,
};

use super::{Unsupported, machine::State};
pub use crate::unwind::info::Bytes;

/// The distinct rules of a table, by their number in it.
pub struct Rules {
    pub list: Vec<Rule>,
    numbers: HashMap<Rule, u16>,
    /// The rule that was last asked for of those that share a place, and its number. Hashing for the
    /// map took longer than all else about a row.
    recent: Vec<(u64, u16)>,
}

/// Rules that are remembered as [`Rules::recent`]; a large file has some thousand.
const RECENT_BITS: u32 = 10;

impl Rules {
    /// Number of the rule for what is described but not supported.
    pub const UNSUPPORTED: u16 = 0;
    /// Number of the rule for what is not described.
    pub const UNCOVERED: u16 = 1;

    pub fn new() -> Self {
        let list = vec![Rule::of(CfaKind::Unsupported), Rule::of(CfaKind::Uncovered)];
        let recent = vec![(packed(list[0]), Self::UNSUPPORTED); 1 << RECENT_BITS];
        Self { list, numbers: HashMap::new(), recent }
    }

    /// The rule's number, a new one if it is new.
    #[inline]
    pub fn number(&mut self, rule: Rule) -> Result<u16, Unsupported> {
        /// Spreads numbers that differ anywhere over the upper bits: 2^64 by the golden ratio.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let packed = packed(rule);
        let place = (packed.wrapping_mul(SPREAD) >> (u64::BITS - RECENT_BITS)) as usize;
        let (known, number) = self.recent[place];
        if known == packed {
            return Ok(number);
        }
        let number = self.looked_up(rule)?;
        self.recent[place] = (packed, number);
        Ok(number)
    }

    #[cold]
    fn looked_up(&mut self, rule: Rule) -> Result<u16, Unsupported> {
        if let Some(&number) = self.numbers.get(&rule) {
            return Ok(number);
        }
        let number = u16::try_from(self.list.len()).map_err(|_| Unsupported::TooManyRules)?;
        self.list.push(rule);
        self.numbers.insert(rule, number);
        Ok(number)
    }
}

#[inline(always)]
fn packed(rule: Rule) -> u64 {
    let Rule { cfa, bp, bp_offset, cfa_offset } = rule;
    let kinds = u64::from(cfa as u8) | u64::from(bp as u8) << 8;
    kinds | u64::from(bp_offset as u16) << 16 | u64::from(cfa_offset as u32) << 32
}

/// What surrounds a state and decides what it means.
pub struct Context<'a, S> {
    /// The section that expressions lie in.
    pub section: &'a S,
    /// How they are encoded.
    pub encoding: Encoding,
    /// Whether the function is what a signal handler returns to.
    pub is_signal_frame: bool,
}

impl<'data, S: UnwindSection<Bytes<'data>>> Context<'_, S> {
    /// The rule that says what a state says.
    #[inline]
    pub fn rule(&self, state: &State) -> Result<Rule, Unsupported> {
        let State { cfa, bp, return_address } = state;
        if self.is_signal_frame {
            return self.signal_frame(cfa);
        }
        let return_in_di = match return_address {
            // This is how outermost functions are marked.
            None | Some(RegisterRule::Undefined) => return Ok(Rule::of(CfaKind::Stop)),
            Some(RegisterRule::Offset(-8)) => false,
            Some(RegisterRule::Register(X86_64::RDI)) => true,
            Some(_) => return Err(Unsupported::ReturnAddress),
        };
        let (cfa, cfa_offset) = match cfa {
            CfaRule::RegisterAndOffset { register, offset } => {
                (in_register(*register)?, narrow(*offset)?)
            }
            CfaRule::Expression(expression) => self.cfa_expression(expression)?,
        };
        let cfa = match (cfa, return_in_di) {
            (CfaKind::Sp, true) => CfaKind::ReturnInDi,
            (_, true) => return Err(Unsupported::ReturnAddress),
            (kind, false) => kind,
        };
        let (bp, bp_offset) = match bp {
            None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => (BpKind::Same, 0),
            Some(RegisterRule::Offset(offset)) => (BpKind::AtCfa, narrow(*offset)?),
            Some(RegisterRule::Expression(expression)) => self.bp_expression(expression)?,
            Some(_) => return Err(Unsupported::SavedBp),
        };
        Ok(Rule { cfa, bp, bp_offset, cfa_offset })
    }

    fn cfa_expression(
        &self,
        expression: &UnwindExpression<usize>,
    ) -> Result<(CfaKind, i32), Unsupported> {
        let bytes = expression.get(self.section).map_err(|_| Unsupported::Malformed)?.0.slice();
        if let Some(pushed_from) = plt(bytes) {
            return Ok((CfaKind::Plt, pushed_from.into()));
        }
        let (register, a, b) = self.pointed_at(bytes).ok_or(Unsupported::CfaExpression)?;
        let kind = match register {
            X86_64::RSP => CfaKind::AtSp,
            X86_64::RBP => CfaKind::AtBp,
            _ => return Err(Unsupported::CfaExpression),
        };
        Ok((kind, Rule::join(narrow(a)?, narrow(b)?)))
    }

    fn signal_frame(&self, cfa: &CfaRule<usize>) -> Result<Rule, Unsupported> {
        let CfaRule::Expression(expression) = cfa else { return Err(Unsupported::SignalFrame) };
        let bytes = expression.get(self.section).map_err(|_| Unsupported::Malformed)?.0.slice();
        match self.pointed_at(bytes) {
            Some((X86_64::RSP, at, 0)) if at == SIGNAL_FRAME_SP.cast_signed() => {
                Ok(Rule::of(CfaKind::Signal))
            }
            _ => Err(Unsupported::SignalFrame),
        }
    }

    /// `*(register + a) + b`.
    fn pointed_at(&self, bytes: &[u8]) -> Option<(Register, i64, i64)> {
        let mut operations = self.operations(bytes);
        let Some(Operation::RegisterOffset { register, offset, .. }) = operations()? else {
            return None;
        };
        let Some(Operation::Deref { size: 8, space: false, .. }) = operations()? else {
            return None;
        };
        let added = match operations()? {
            None => return Some((register, offset, 0)),
            Some(Operation::PlusConstant { value }) => i64::try_from(value).ok()?,
            Some(_) => return None,
        };
        operations()?.is_none().then_some((register, offset, added))
    }

    /// The caller's `rbp` lies at `rbp + n`.
    fn bp_expression(
        &self,
        expression: &UnwindExpression<usize>,
    ) -> Result<(BpKind, i16), Unsupported> {
        let bytes = expression.get(self.section).map_err(|_| Unsupported::Malformed)?.0.slice();
        let mut operations = self.operations(bytes);
        let Some(Some(Operation::RegisterOffset { register: X86_64::RBP, offset, .. })) =
            operations()
        else {
            return Err(Unsupported::SavedBp);
        };
        match operations() {
            Some(None) => Ok((BpKind::AtBp, narrow(offset)?)),
            _ => Err(Unsupported::SavedBp),
        }
    }

    /// One operation after the other; `None` for one that cannot be read, `Some(None)` at the end.
    fn operations<'b>(
        &self,
        bytes: &'b [u8],
    ) -> impl FnMut() -> Option<Option<Operation<Bytes<'b>>>> {
        let expression = gimli::Expression(EndianSlice::new(bytes, LittleEndian));
        let mut operations = expression.operations(self.encoding);
        move || operations.next().ok()
    }
}

fn in_register(register: Register) -> Result<CfaKind, Unsupported> {
    match register {
        X86_64::RSP => Ok(CfaKind::Sp),
        X86_64::RBP => Ok(CfaKind::Bp),
        _ => Err(Unsupported::CfaRegister),
    }
}

fn narrow<T: TryFrom<i64>>(offset: i64) -> Result<T, Unsupported> {
    T::try_from(offset).map_err(|_| Unsupported::Offset)
}

/// The expression by which linkers describe all entries of a procedure linkage table at once:
/// `rsp + 8 + ((rip & 15) >= n) * 8`, where `n` is the byte of an entry at which its push is done.
fn plt(bytes: &[u8]) -> Option<u8> {
    const LIT0: u8 = gimli::DW_OP_lit0.0;
    match bytes {
        // breg7 8, breg16 0, lit15, and, lit N, ge, lit3, shl, plus
        [0x77, 8, 0x80, 0, 0x3f, 0x1a, lit @ LIT0..=0x3f, 0x2a, 0x33, 0x24, 0x22] => {
            Some(lit - LIT0)
        }
        _ => None,
    }
}
