//! From one frame to its caller, by the whole of the unwind information and with all registers.

use gimli::{
    CfaRule, Encoding, EvaluationResult, Expression, Location, Register, RegisterRule,
    UnwindContext, UnwindSection, UnwindTableRow, Value, X86_64,
};
use profiler_common::{
    table::{BpKind, CfaKind, Rule},
    unwind::{self, Failure, Position},
};

use super::{
    info::{Bytes, Function, Origin, UnwindInfo},
    registers::{Registers, general, is_preserved},
};
use crate::units::{Avma, Svma};

/// Bytes of instructions that an entry may have, and operations that an expression may take. Real
/// ones have a thousandth of this; a file that was made to keep a recorder busy has more.
const ENTRY_BYTES_MAX: usize = 1 << 20;
const OPERATIONS_MAX: u32 = 1 << 12;

/// A frame of which every register may be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Its registers.
    pub registers: Registers,
    /// Where in its code it is.
    pub position: Position,
}

/// What one step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The calling, or interrupted, frame.
    To(Frame),
    /// A caller that no unwind information tells of: what lies where it would be in code that
    /// keeps to the conventions. Whether it is one, only its address can say.
    Supposed(Frame),
    /// There is none: this was the outermost one.
    Outermost,
    /// A frame pointer is needed, and the register holds none.
    BadFramePointer,
    /// It cannot be found.
    Failed(Failure),
}

/// Leaves frames; keeps nothing between two of them but memory.
#[derive(Debug, Default)]
pub struct Leaver {
    context: UnwindContext<usize>,
}

impl Frame {
    /// The instruction pointer, 0 if it is lost.
    pub fn ip(&self) -> u64 {
        self.registers.get(X86_64::RA).unwrap_or_default()
    }

    /// The stack pointer, 0 if it is lost.
    pub fn sp(&self) -> u64 {
        self.registers.get(X86_64::RSP).unwrap_or_default()
    }

    /// An address inside the instruction that the frame is in.
    pub fn lookup(&self) -> Avma {
        Avma(match self.position {
            Position::Interrupted => self.ip(),
            Position::Syscall | Position::Caller => self.ip().wrapping_sub(1),
        })
    }

    fn is_leaf(&self) -> bool {
        self.position != Position::Caller
    }

    fn register(&self, register: Register) -> Result<u64, Failure> {
        self.registers.get(register).ok_or(Failure::RegisterLost)
    }
}

impl Leaver {
    /// The caller of `frame`, whose code lies in a file that has `info` and is loaded `bias` higher
    /// than it says. `read` reads 8 bytes of the target's memory.
    ///
    /// Code that no section describes is left by its rule, as [`profiler_common::unwind::step`] leaves
    /// it; what is no file by the conventions alone.
    pub fn leave(
        &mut self,
        info: Option<&UnwindInfo>,
        bias: u64,
        frame: &Frame,
        read: &dyn Fn(u64) -> Option<u64>,
    ) -> Step {
        let read = |address| read(address).ok_or(Failure::Unreadable(address));
        let Some(info) = info else { return by_convention(frame, &read) };
        let rule = info.rule_at(Svma(frame.lookup().0.wrapping_sub(bias)));
        if rule.is_some_and(|rule| rule.cfa == CfaKind::Signal) {
            return by_signal_frame(frame, &read).unwrap_or_else(Step::Failed);
        }
        let Some((function, address)) = function_of(info, bias, frame) else {
            let unknown = Step::Failed(Failure::Unsupported);
            return rule.map_or(unknown, |rule| by_rule(rule, frame, &read));
        };
        let leaving = Leaving { info, function: &function, frame, read: &read };
        let left = match function.origin {
            Origin::EhFrame => leaving.by(&info.eh_frame_reader(), address, &mut self.context),
            Origin::DebugFrame => {
                leaving.by(&info.debug_frame_reader(), address, &mut self.context)
            }
        };
        match left {
            Ok(Some(caller)) if caller.ip() != 0 => Step::To(caller),
            Ok(_) => Step::Outermost,
            Err(failure) => Step::Failed(failure),
        }
    }
}

/// What describes the code that a frame is in, and the address in it.
///
/// The first byte of some functions is a return address (that of a signal handler, or of a
/// coroutine's first function), before which nothing is described.
fn function_of<'info>(
    info: &'info UnwindInfo,
    bias: u64,
    frame: &Frame,
) -> Option<(Function<'info>, Svma)> {
    let lookup = Svma(frame.lookup().0.wrapping_sub(bias));
    if let Some(function) = info.function_at(lookup) {
        return Some((function, lookup));
    }
    let address = Svma(frame.ip().wrapping_sub(bias));
    let function = info.function_at(address).filter(|_| frame.position == Position::Caller)?;
    (function.start() == address).then_some((function, address))
}

/// By a rule, which follows no more than two registers and the return address.
fn by_rule(rule: Rule, frame: &Frame, read: &impl Fn(u64) -> Result<u64, Failure>) -> Step {
    if rule.cfa == CfaKind::Uncovered {
        return by_convention(frame, read);
    }
    let bp = frame.registers.get(X86_64::RBP);
    let needs_bp = matches!(rule.cfa, CfaKind::Bp | CfaKind::AtBp) || rule.bp == BpKind::AtBp;
    if needs_bp && bp.is_none() {
        return Step::Failed(Failure::RegisterLost);
    }
    let followed = unwind::Frame {
        ip: frame.ip(),
        sp: frame.sp(),
        bp: bp.unwrap_or_default(),
        di: frame.registers.get(X86_64::RDI).unwrap_or_default(),
        position: frame.position,
    };
    match unwind::step(rule, followed, |address| read(address).ok()) {
        unwind::Step::Outermost => Step::Outermost,
        unwind::Step::Failed(failure) => Step::Failed(failure),
        unwind::Step::To(caller) => {
            let mut registers = Registers::default();
            let is_lost = rule.bp == BpKind::Same && bp.is_none();
            registers.set(X86_64::RBP, (!is_lost).then_some(caller.bp));
            registers.set(X86_64::RSP, Some(caller.sp));
            registers.set(X86_64::RA, Some(caller.ip));
            Step::To(Frame { registers, position: caller.position })
        }
    }
}

/// All registers are in the kernel's signal frame, which lies at the stack pointer.
fn by_signal_frame(
    frame: &Frame,
    read: &impl Fn(u64) -> Result<u64, Failure>,
) -> Result<Step, Failure> {
    /// In the order of `struct sigcontext`.
    const SAVED: [Register; 17] = [
        X86_64::R8,
        X86_64::R9,
        X86_64::R10,
        X86_64::R11,
        X86_64::R12,
        X86_64::R13,
        X86_64::R14,
        X86_64::R15,
        X86_64::RDI,
        X86_64::RSI,
        X86_64::RBP,
        X86_64::RBX,
        X86_64::RDX,
        X86_64::RAX,
        X86_64::RCX,
        X86_64::RSP,
        X86_64::RA,
    ];
    let mut registers = Registers::default();
    let first = frame.register(X86_64::RSP)?.wrapping_add(unwind::SIGNAL_FRAME_REGISTERS);
    for (register, at) in SAVED.into_iter().zip((first..).step_by(8)) {
        registers.set(register, Some(read(at)?));
    }
    Ok(Step::To(Frame { registers, position: Position::Interrupted }))
}

/// A leaf has nothing on the stack but its return address, any other frame has a frame pointer.
fn by_convention(frame: &Frame, read: &impl Fn(u64) -> Result<u64, Failure>) -> Step {
    let supposed = || {
        let mut registers = Registers::default();
        let sp = if frame.is_leaf() {
            registers = frame.registers;
            frame.register(X86_64::RSP)?
        } else {
            let bp = frame.register(X86_64::RBP)?;
            if bp & 7 != 0 || bp < frame.sp() {
                return Ok(Step::BadFramePointer);
            }
            registers.set(X86_64::RBP, Some(read(bp)?));
            bp.wrapping_add(8)
        };
        for register in general().filter(|register| !is_preserved(*register)) {
            registers.set(register, None);
        }
        let ip = read(sp)?;
        registers.set(X86_64::RSP, Some(sp.wrapping_add(8)));
        registers.set(X86_64::RA, Some(ip));
        let caller = Frame { registers, position: Position::Caller };
        Ok(Step::Supposed(caller))
    };
    supposed().unwrap_or_else(Step::Failed)
}

/// A frame and what describes its function.
struct Leaving<'a, 'data, R> {
    info: &'a UnwindInfo,
    function: &'a Function<'data>,
    frame: &'a Frame,
    read: &'a R,
}

impl<'data, R: Fn(u64) -> Result<u64, Failure>> Leaving<'_, 'data, R> {
    /// The caller, `None` if there is none.
    fn by<S>(
        &self,
        section: &S,
        address: Svma,
        context: &mut UnwindContext<usize>,
    ) -> Result<Option<Frame>, Failure>
    where
        S: UnwindSection<Bytes<'data>>,
    {
        let entry = &self.function.entry;
        if entry.entry_len().max(entry.cie().entry_len()) > ENTRY_BYTES_MAX {
            return Err(Failure::Unsupported);
        }
        let row = entry
            .unwind_info_for_address(section, &self.info.bases(), context, address.0)
            .map_err(|_| Failure::Unsupported)?;
        self.by_row(section, row)
    }

    fn by_row<S>(&self, section: &S, row: &UnwindTableRow<usize>) -> Result<Option<Frame>, Failure>
    where
        S: UnwindSection<Bytes<'data>>,
    {
        let is_signal_frame = self.function.entry.is_signal_trampoline();
        let return_address = match row.register(X86_64::RA) {
            // This is how outermost functions are marked.
            None | Some(RegisterRule::Undefined) if !is_signal_frame => return Ok(None),
            None => return Err(Failure::Unsupported),
            Some(rule) => rule,
        };
        let cfa = match row.cfa() {
            // The return address was taken off the stack and will not be needed: this is how musl's
            // `clone` begins a thread.
            CfaRule::RegisterAndOffset { register: X86_64::RSP, offset: ..8 }
                if return_address == RegisterRule::Offset(-8) =>
            {
                return Ok(None);
            }
            CfaRule::RegisterAndOffset { register, offset } => {
                self.frame.register(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => {
                let expression = expression.get(section).map_err(|_| Failure::Unsupported)?;
                self.value_of(expression, None)?
            }
        };
        let mut registers = Registers::default();
        for register in general() {
            let value = match row.register(register) {
                None | Some(RegisterRule::Undefined) if register == X86_64::RSP => Some(cfa),
                None if is_preserved(register) && !is_signal_frame => {
                    self.frame.registers.get(register)
                }
                None => None,
                Some(rule) => self.saved(section, register, &rule, cfa),
            };
            registers.set(register, value);
        }
        let (sp, above) = (self.frame.sp(), registers.get(X86_64::RSP));
        let above = above.ok_or(Failure::RegisterLost)?;
        // A handler can have a stack of its own, anywhere. A return address in a register leaves
        // the stack as the caller had it.
        let in_register = matches!(return_address, RegisterRule::Register(_));
        if !is_signal_frame && (above < sp || (above == sp && !in_register)) {
            return Err(Failure::NotAdvancing);
        }
        let ip = self.rule(section, &return_address, cfa)?;
        registers.set(X86_64::RA, Some(ip));
        let position = if is_signal_frame { Position::Interrupted } else { Position::Caller };
        Ok(Some(Frame { registers, position }))
    }

    /// The caller's value of a register; one that cannot be had is lost.
    fn saved<S>(
        &self,
        section: &S,
        register: Register,
        rule: &RegisterRule<usize>,
        cfa: u64,
    ) -> Option<u64>
    where
        S: UnwindSection<Bytes<'data>>,
    {
        if *rule == RegisterRule::SameValue {
            return self.frame.registers.get(register);
        }
        match self.rule(section, rule, cfa) {
            Ok(value) => Some(value),
            // Epilogues go on saying that it is saved after they have taken it back. Memory below
            // the stack pointer need not be there.
            Err(Failure::Unreadable(address))
                if self.frame.is_leaf() && address < self.frame.sp() && is_preserved(register) =>
            {
                self.frame.registers.get(register)
            }
            Err(_) => None,
        }
    }

    fn rule<S>(&self, section: &S, rule: &RegisterRule<usize>, cfa: u64) -> Result<u64, Failure>
    where
        S: UnwindSection<Bytes<'data>>,
    {
        match rule {
            RegisterRule::Offset(offset) => (self.read)(cfa.wrapping_add_signed(*offset)),
            RegisterRule::ValOffset(offset) => Ok(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(register) => self.frame.register(*register),
            RegisterRule::Expression(address) => {
                let address = address.get(section).map_err(|_| Failure::Unsupported)?;
                (self.read)(self.value_of(address, Some(cfa))?)
            }
            RegisterRule::ValExpression(value) => {
                let value = value.get(section).map_err(|_| Failure::Unsupported)?;
                self.value_of(value, Some(cfa))
            }
            RegisterRule::Constant(value) => Ok(*value),
            RegisterRule::Undefined | RegisterRule::SameValue | RegisterRule::Architectural => {
                Err(Failure::RegisterLost)
            }
        }
    }

    /// What an expression comes to; `initial` lies on its stack at the beginning.
    fn value_of(
        &self,
        expression: Expression<Bytes<'data>>,
        initial: Option<u64>,
    ) -> Result<u64, Failure> {
        let encoding: Encoding = self.function.entry.cie().encoding();
        let unsupported = |_| Failure::Unsupported;
        let mut evaluation = expression.evaluation(encoding);
        evaluation.set_max_iterations(OPERATIONS_MAX);
        if let Some(initial) = initial {
            evaluation.set_initial_value(initial);
        }
        let mut result = evaluation.evaluate().map_err(unsupported)?;
        loop {
            let value = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = Value::Generic(self.frame.register(register)?);
                    evaluation.resume_with_register(value)
                }
                EvaluationResult::RequiresMemory { address, size, space: None, .. } => {
                    let unread = 64_u32.saturating_sub(8 * u32::from(size));
                    let mask = u64::MAX.checked_shr(unread).unwrap_or(0);
                    evaluation.resume_with_memory(Value::Generic((self.read)(address)? & mask))
                }
                _ => return Err(Failure::Unsupported),
            };
            result = value.map_err(unsupported)?;
        }
        match evaluation.as_result() {
            [piece] => match piece.location {
                Location::Address { address } => Ok(address),
                _ => Err(Failure::Unsupported),
            },
            _ => Err(Failure::Unsupported),
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;
    use crate::unwind::{
        CodeFile,
        table::tests::{TEXT, program},
    };

    /// Every word of the stack holds `0x10_0000` more than its address.
    fn memory(address: u64) -> Option<u64> {
        (0x7000..0x8000).contains(&address).then_some(address + 0x10_0000)
    }

    fn leave(assembly: &str, offset: u64, position: Position) -> Step {
        let mut registers = Registers::default();
        for (register, value) in [
            (X86_64::RA, TEXT + offset),
            (X86_64::RSP, 0x7000),
            (X86_64::RBP, 0x7100),
            (X86_64::R8, 0x7800),
            (X86_64::R10, 0x7200),
            (X86_64::RDX, 0x4444),
        ] {
            registers.set(register, Some(value));
        }
        let file = program(assembly);
        let code = CodeFile::parse(file.as_slice()).unwrap();
        // All of it keeps frame pointers.
        code.learn(&mut code.table());
        let frame = Frame { registers, position };
        Leaver::default().leave(Some(code.info()), 0, &frame, &memory)
    }

    #[test]
    fn what_unwind_information_says_is_done_as_it_says() {
        let check = |directives: &str, expected: Result<(u64, u64, Option<u64>), Failure>| {
            let assembly = format!(".cfi_startproc\n{directives}\nnop\nnop\n.cfi_endproc\n");
            let found = match leave(&assembly, 1, Position::Interrupted) {
                Step::To(caller) => {
                    Ok((caller.ip(), caller.sp(), caller.registers.get(X86_64::RBP)))
                }
                Step::Failed(failure) => Err(failure),
                other => panic!("{directives}: {other:?}"),
            };
            assert_eq!(found, expected, "{directives}");
        };
        let bp = Some(0x7100);
        check("", Ok((0x10_7000, 0x7008, bp)));
        check(".cfi_def_cfa r10, 8", Ok((0x10_7200, 0x7208, bp)));
        check(".cfi_def_cfa r12, 8", Err(Failure::RegisterLost));
        check(".cfi_def_cfa rbp, -0x200", Err(Failure::NotAdvancing));
        check(".cfi_def_cfa rsp, 0x2000", Err(Failure::Unreadable(0x8ff8)));
        // As `longjmp` does.
        check(".cfi_register rip, rdx; .cfi_register rsp, r8", Ok((0x4444, 0x7800, bp)));
        check(".cfi_register rip, r12", Err(Failure::RegisterLost));
        check(".cfi_undefined rbp", Ok((0x10_7000, 0x7008, None)));
        check(".cfi_offset rbp, 8", Ok((0x10_7000, 0x7008, Some(0x10_7010))));
        check(".cfi_val_offset rbp, -16", Ok((0x10_7000, 0x7008, Some(0x6ff8))));
        // Taken back already, from memory that is not there any more.
        check(".cfi_offset rbp, -16", Ok((0x10_7000, 0x7008, bp)));
        // The value is *(rsp + 16); the address is the CFA, which lies on the stack, and 8.
        check(".cfi_escape 0x16, 6, 3, 0x77, 16, 6", Ok((0x10_7000, 0x7008, Some(0x10_7010))));
        check(".cfi_escape 0x10, 6, 2, 0x38, 0x22", Ok((0x10_7000, 0x7008, Some(0x10_7010))));
        // An expression that never ends, and one that wants what there is none of.
        check(".cfi_escape 0x0f, 3, 0x2f, 0xfd, 0xff", Err(Failure::Unsupported));
        check(".cfi_escape 0x0f, 1, 0x97", Err(Failure::Unsupported));
    }

    #[test]
    fn what_a_signal_interrupted_is_where_it_says() {
        let assembly = ".cfi_startproc\n.cfi_signal_frame\nnop\nnop\n.cfi_endproc\n";
        let Step::To(frame) = leave(assembly, 1, Position::Caller) else { panic!("no caller") };
        assert_eq!((frame.position, frame.lookup()), (Position::Interrupted, Avma(0x10_7000)));
    }

    #[test]
    fn the_first_byte_of_a_function_can_be_a_return_address() {
        let outermost = ".cfi_startproc\n.cfi_undefined rip\nnop\n.cfi_endproc\n";
        let alone = format!(".skip 32, 0x90\n{outermost}");
        let behind_another = format!(".cfi_startproc\nnop\n.cfi_endproc\n{outermost}");
        assert_eq!(leave(&alone, 32, Position::Caller), Step::Outermost);
        // Where nothing describes the code it has to be the first byte, and a return address.
        assert!(matches!(leave(&alone, 31, Position::Caller), Step::Supposed(_)));
        assert!(matches!(leave(&alone, 31, Position::Interrupted), Step::Supposed(_)));
        assert!(matches!(leave(&behind_another, 1, Position::Caller), Step::To(_)));
    }
}
