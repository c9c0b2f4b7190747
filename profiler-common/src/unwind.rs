//! From one frame to its caller, by a rule of a [table](crate::table).
//!
//! One step, pure and without a loop: finding the rule, asking whether the caller lies in code, and
//! going on are the business of whoever loops, in the kernel or on the host.

use crate::table::{BpKind, CfaKind, Rule};

/// The registers of a frame, as far as a walk follows them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Instruction pointer; what it points at, [`Frame::position`] says.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer register, whatever the code uses it for.
    pub bp: u64,
    /// `rdi`; meaningless in a [`Position::Caller`].
    pub di: u64,
    /// Where in its code the frame is.
    pub position: Position,
}

/// Where in its code a frame is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum Position {
    /// Interrupted before the instruction at `ip`.
    #[default]
    Interrupted = 1,
    /// In a system call by the instruction before `ip`.
    Syscall = 2,
    /// In a call by the instruction before `ip`: registers that a callee may change are lost.
    Caller = 3,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The calling, or interrupted, frame.
    To(Frame),
    /// There is none: this was the outermost one.
    Outermost,
    /// It cannot be found.
    Failed(Failure),
}

/// Why a caller cannot be found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The rule is [`CfaKind::Unsupported`].
    Unsupported,
    /// Memory at this address is needed and cannot be read.
    Unreadable(u64),
    /// The caller's stack pointer would not be above this frame's.
    NotAdvancing,
    /// The rule needs a register whose value in this frame is lost.
    RegisterLost,
}

/// Offsets in the kernel's signal frame from where the stack pointer is in the restorer:
/// `struct ucontext` has 40 bytes before its `struct sigcontext` (`asm/sigcontext.h`).
mod signal_frame {
    pub const REGISTERS: u64 = 40;
    pub const DI: u64 = REGISTERS + 64;
    pub const BP: u64 = REGISTERS + 80;
    pub const SP: u64 = REGISTERS + 120;
    pub const IP: u64 = REGISTERS + 128;
}

/// Where the stack pointer of the interrupted code lies in a signal frame, from the stack pointer
/// of the restorer; unwind information that says so describes this frame.
pub const SIGNAL_FRAME_SP: u64 = signal_frame::SP;

impl Frame {
    /// An address inside the instruction that the frame is in: what to look its rule up with.
    #[inline(always)]
    pub const fn lookup(&self) -> u64 {
        match self.position {
            Position::Interrupted => self.ip,
            Position::Syscall | Position::Caller => self.ip.wrapping_sub(1),
        }
    }

    /// Whether it is the innermost frame, or one that a signal interrupted: all its registers are
    /// known.
    #[inline(always)]
    const fn is_leaf(&self) -> bool {
        !matches!(self.position, Position::Caller)
    }
}

/// The caller of `frame`, whose code is left by `rule`. `read` reads 8 bytes of the target's memory.
#[inline(always)]
pub fn step(rule: Rule, frame: Frame, mut read: impl FnMut(u64) -> Option<u64>) -> Step {
    match rule.cfa {
        CfaKind::Stop => Step::Outermost,
        CfaKind::Signal => by_signal_frame(frame, read),
        _ => match by_rule(rule, frame, &mut read) {
            // What is supposed and not known proves no end.
            Ok(Frame { ip: 0, .. }) if rule.cfa as u8 != CfaKind::Uncovered as u8 => {
                Step::Outermost
            }
            Ok(caller) => Step::To(caller),
            Err(failure) => Step::Failed(failure),
        },
    }
}

#[inline(always)]
fn by_rule(
    rule: Rule,
    frame: Frame,
    read: &mut impl FnMut(u64) -> Option<u64>,
) -> Result<Frame, Failure> {
    let Frame { ip, sp, bp, di, .. } = frame;
    let offset = i64::from(rule.cfa_offset);
    let (a, b) = rule.halves();
    let mut at = |address: u64| read(address).ok_or(Failure::Unreadable(address));
    let cfa = match rule.cfa {
        CfaKind::Sp | CfaKind::ReturnInDi => sp.wrapping_add_signed(offset),
        CfaKind::Bp => bp.wrapping_add_signed(offset),
        CfaKind::Plt => {
            let pushed = u64::from((ip & 15).cast_signed() >= offset);
            sp.wrapping_add(8 + 8 * pushed)
        }
        CfaKind::AtSp => at(sp.wrapping_add_signed(i64::from(a)))?.wrapping_add_signed(b.into()),
        CfaKind::AtBp => at(bp.wrapping_add_signed(i64::from(a)))?.wrapping_add_signed(b.into()),
        CfaKind::Uncovered if frame.is_leaf() => sp.wrapping_add(8),
        CfaKind::Uncovered => bp.wrapping_add(16),
        CfaKind::Unsupported | CfaKind::Stop | CfaKind::Signal => {
            return Err(Failure::Unsupported);
        }
    };
    let return_in_di = rule.cfa == CfaKind::ReturnInDi;
    if return_in_di && !frame.is_leaf() {
        return Err(Failure::RegisterLost);
    }
    // A return address in a register leaves the stack as the caller had it.
    if cfa < sp || (cfa == sp && !return_in_di) {
        return Err(Failure::NotAdvancing);
    }
    let by_frame_pointer = rule.cfa == CfaKind::Uncovered && !frame.is_leaf();
    let saved = match rule.bp {
        _ if by_frame_pointer => Some(bp),
        BpKind::Same => None,
        BpKind::AtCfa => Some(cfa.wrapping_add_signed(rule.bp_offset.into())),
        BpKind::AtBp => Some(bp.wrapping_add_signed(rule.bp_offset.into())),
    };
    let bp = match saved {
        None => bp,
        Some(address) => match at(address) {
            Ok(bp) => bp,
            // Epilogues go on saying that it is saved after they have taken it back. Memory below
            // the stack pointer need not be there.
            Err(_) if frame.is_leaf() && address < sp => bp,
            Err(failure) => return Err(failure),
        },
    };
    let ip = if return_in_di { di } else { at(cfa.wrapping_sub(8))? };
    Ok(Frame { ip, sp: cfa, bp, di: 0, position: Position::Caller })
}

/// The stack pointer need not advance: a handler can have a stack of its own, anywhere.
#[inline(always)]
fn by_signal_frame(frame: Frame, mut read: impl FnMut(u64) -> Option<u64>) -> Step {
    let mut at = |offset: u64| {
        let address = frame.sp.wrapping_add(offset);
        read(address).ok_or(Failure::Unreadable(address))
    };
    let mut registers = || {
        Ok(Frame {
            ip: at(signal_frame::IP)?,
            sp: at(signal_frame::SP)?,
            bp: at(signal_frame::BP)?,
            di: at(signal_frame::DI)?,
            position: Position::Interrupted,
        })
    };
    match registers() {
        Ok(interrupted) => Step::To(interrupted),
        Err(failure) => Step::Failed(failure),
    }
}

/// Where the registers lie in a signal frame, in the order of `struct sigcontext`, from the stack
/// pointer of the restorer.
pub const SIGNAL_FRAME_REGISTERS: u64 = signal_frame::REGISTERS;

#[cfg(test)]
mod tests {
    use super::*;

    const SP: u64 = 0x7000;
    const BP: u64 = 0x7040;

    fn rule(cfa: CfaKind, cfa_offset: i32, bp: BpKind, bp_offset: i16) -> Rule {
        Rule { cfa, bp, bp_offset, cfa_offset }
    }

    fn frame(position: Position) -> Frame {
        Frame { ip: 0x40_100b, sp: SP, bp: BP, di: 0x5555, position }
    }

    fn to(ip: u64, sp: u64, bp: u64) -> Step {
        Step::To(Frame { ip, sp, bp, di: 0, position: Position::Caller })
    }

    /// Every word of the stack holds `0x10_0000` more than its address, but for these.
    fn check_in(memory: &[(u64, u64)], rule: Rule, position: Position, expected: Step) {
        let read = |address: u64| {
            let known = memory.iter().find(|(at, _)| *at == address).map(|(_, word)| *word);
            known.or((SP..SP + 0x1000).contains(&address).then_some(address + 0x10_0000))
        };
        assert_eq!(step(rule, frame(position), read), expected, "{rule:?} {position:?}");
    }

    fn check(rule: Rule, expected: Step) {
        for position in [Position::Interrupted, Position::Syscall, Position::Caller] {
            check_in(&[], rule, position, expected);
        }
    }

    #[test]
    fn every_kind_of_rule_leads_to_its_caller() {
        let same = BpKind::Same;
        check(rule(CfaKind::Sp, 32, same, 0), to(0x10_7018, 0x7020, BP));
        check(rule(CfaKind::Sp, 32, BpKind::AtCfa, -16), to(0x10_7018, 0x7020, 0x10_7010));
        check(rule(CfaKind::Bp, 16, BpKind::AtCfa, -16), to(0x10_7048, 0x7050, 0x10_7040));
        // Byte 11 of an entry is where the push of its number is done.
        check(rule(CfaKind::Plt, 11, same, 0), to(0x10_7008, 0x7010, BP));
        check(rule(CfaKind::Plt, 12, same, 0), to(0x10_7000, 0x7008, BP));
        check(Rule::of(CfaKind::Stop), Step::Outermost);
        check(Rule::default(), Step::Failed(Failure::Unsupported));
    }

    #[test]
    fn a_caller_can_be_pointed_at() {
        let saved = |a, b| Rule::join(a, b);
        let memory = [(BP - 8, 0x7100), (SP + 24, 0x7200)];
        let at = |rule, expected| check_in(&memory, rule, Position::Caller, expected);
        at(rule(CfaKind::AtBp, saved(-8, 0), BpKind::AtBp, 0), to(0x10_70f8, 0x7100, 0x10_7040));
        at(rule(CfaKind::AtSp, saved(24, 8), BpKind::AtCfa, -16), to(0x10_7200, 0x7208, 0x10_71f8));
        at(
            rule(CfaKind::AtSp, saved(-8, 8), BpKind::Same, 0),
            Step::Failed(Failure::Unreadable(SP - 8)),
        );
    }

    #[test]
    fn registers_are_known_only_where_execution_was_interrupted() {
        let vfork = rule(CfaKind::ReturnInDi, 0, BpKind::Same, 0);
        check_in(&[], vfork, Position::Syscall, to(0x5555, SP, BP));
        check_in(&[], vfork, Position::Caller, Step::Failed(Failure::RegisterLost));
        // Already taken back, from memory that is not there any more.
        let popped = rule(CfaKind::Sp, 8, BpKind::AtCfa, -16);
        check_in(&[], popped, Position::Interrupted, to(0x10_7000, 0x7008, BP));
        check_in(&[], popped, Position::Caller, Step::Failed(Failure::Unreadable(SP - 8)));
    }

    #[test]
    fn without_unwind_information_a_leaf_returns_and_others_have_a_frame_pointer() {
        let uncovered = Rule::of(CfaKind::Uncovered);
        check_in(&[], uncovered, Position::Syscall, to(0x10_7000, 0x7008, BP));
        check_in(&[], uncovered, Position::Caller, to(0x10_7048, 0x7050, 0x10_7040));
    }

    #[test]
    fn the_stack_pointer_advances() {
        let not_advancing = Step::Failed(Failure::NotAdvancing);
        check(rule(CfaKind::Sp, 0, BpKind::Same, 0), not_advancing);
        check(rule(CfaKind::Bp, -0x80, BpKind::Same, 0), not_advancing);
        let below = rule(CfaKind::ReturnInDi, -8, BpKind::Same, 0);
        check_in(&[], below, Position::Interrupted, not_advancing);
    }

    #[test]
    fn a_return_address_of_zero_is_nobodys() {
        let rule = rule(CfaKind::Sp, 8, BpKind::Same, 0);
        check_in(&[(SP, 0)], rule, Position::Caller, Step::Outermost);
    }

    #[test]
    fn a_signal_frame_has_all_registers_and_may_lie_on_another_stack() {
        let memory =
            [(SP + 104, 0x77), (SP + 120, 0x1234), (SP + 160, 0x100), (SP + 168, 0x40_2000)];
        let interrupted = Frame {
            ip: 0x40_2000,
            sp: 0x100,
            bp: 0x1234,
            di: 0x77,
            position: Position::Interrupted,
        };
        let signal = Rule::of(CfaKind::Signal);
        check_in(&memory, signal, Position::Caller, Step::To(interrupted));
    }

    #[test]
    fn a_call_is_looked_up_before_its_return_address() {
        for (position, expected) in [
            (Position::Interrupted, 0x40_100b),
            (Position::Syscall, 0x40_100a),
            (Position::Caller, 0x40_100a),
        ] {
            assert_eq!(frame(position).lookup(), expected);
        }
    }
}
