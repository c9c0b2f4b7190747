//! Executes the instructions of unwind information, for the registers that a walk follows.
//!
//! gimli can execute them too, for all registers: with that, tables took 13 % (`librustc_driver`) to 70 %
//! (node) longer to make.

use gimli::{
    CallFrameInstruction, CfaRule, CommonInformationEntry, Register, RegisterRule, X86_64,
};

use super::rules::Bytes;

/// How many states can be remembered at once. Compilers remember one or two.
const REMEMBERED_MAX: usize = 64;

/// What holds at one place in a function.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// Where the CFA is.
    pub cfa: CfaRule<usize>,
    /// Where the caller's `rbp` is; `None` if nothing is said of it.
    pub bp: Option<RegisterRule<usize>>,
    /// Where the return address is; `None` if nothing is said of it.
    pub return_address: Option<RegisterRule<usize>>,
}

/// The execution of one function's instructions, or of those that many functions begin with.
#[derive(Debug)]
pub struct Machine<'a> {
    /// What holds where the instructions have come to.
    pub state: State,
    /// What held at the beginning; `None` before it is known.
    initial: Option<&'a State>,
    remembered: &'a mut Vec<State>,
    code_factor: u64,
    data_factor: i64,
}

/// What an instruction did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing that a walk follows.
    Nothing,
    /// The state is another now.
    Changed,
    /// What follows holds from this address on.
    From(u64),
}

/// An instruction that has no meaning where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Misplaced;

impl<'a> Machine<'a> {
    /// Ready to execute what functions begin with.
    pub fn shared(
        entry: &CommonInformationEntry<Bytes<'_>>,
        remembered: &'a mut Vec<State>,
    ) -> Self {
        let (code_factor, data_factor) =
            (entry.code_alignment_factor(), entry.data_alignment_factor());
        Self { state: State::default(), initial: None, remembered, code_factor, data_factor }
    }

    /// Ready to execute what a function goes on with.
    pub fn function(
        entry: &CommonInformationEntry<Bytes<'_>>,
        initial: &'a State,
        remembered: &'a mut Vec<State>,
    ) -> Self {
        let machine = Self::shared(entry, remembered);
        Self { state: initial.clone(), initial: Some(initial), ..machine }
    }

    /// Executes one instruction, `here` being where the state began to hold.
    #[inline(always)]
    pub fn execute(
        &mut self,
        instruction: &CallFrameInstruction<usize>,
        here: u64,
    ) -> Result<Effect, Misplaced> {
        use CallFrameInstruction as I;
        let signed = |factored: i64| factored.wrapping_mul(self.data_factor);
        let unsigned = |factored: u64| factored.cast_signed().wrapping_mul(self.data_factor);
        match *instruction {
            I::AdvanceLoc { delta } => {
                let bytes = u64::from(delta).wrapping_mul(self.code_factor);
                return here.checked_add(bytes).map(Effect::From).ok_or(Misplaced);
            }
            I::SetLoc { address } if address < here => return Err(Misplaced),
            I::SetLoc { address } => return Ok(Effect::From(address)),
            I::DefCfa { register, offset } => {
                let offset = offset.cast_signed();
                self.state.cfa = CfaRule::RegisterAndOffset { register, offset };
            }
            I::DefCfaSf { register, factored_offset } => {
                let offset = signed(factored_offset);
                self.state.cfa = CfaRule::RegisterAndOffset { register, offset };
            }
            I::DefCfaRegister { register } => *self.cfa()?.0 = register,
            I::DefCfaOffset { offset } => *self.cfa()?.1 = offset.cast_signed(),
            I::DefCfaOffsetSf { factored_offset } => {
                let offset = signed(factored_offset);
                *self.cfa()?.1 = offset;
            }
            I::DefCfaExpression { expression } => self.state.cfa = CfaRule::Expression(expression),
            I::Undefined { register } => return Ok(self.set(register, RegisterRule::Undefined)),
            I::SameValue { register } => return Ok(self.set(register, RegisterRule::SameValue)),
            I::Offset { register, factored_offset } => {
                let rule = RegisterRule::Offset(unsigned(factored_offset));
                return Ok(self.set(register, rule));
            }
            I::OffsetExtendedSf { register, factored_offset } => {
                let rule = RegisterRule::Offset(signed(factored_offset));
                return Ok(self.set(register, rule));
            }
            I::ValOffset { register, factored_offset } => {
                let rule = RegisterRule::ValOffset(unsigned(factored_offset));
                return Ok(self.set(register, rule));
            }
            I::ValOffsetSf { register, factored_offset } => {
                let rule = RegisterRule::ValOffset(signed(factored_offset));
                return Ok(self.set(register, rule));
            }
            I::Register { dest_register, src_register } => {
                return Ok(self.set(dest_register, RegisterRule::Register(src_register)));
            }
            I::Expression { register, expression } => {
                return Ok(self.set(register, RegisterRule::Expression(expression)));
            }
            I::ValExpression { register, expression } => {
                return Ok(self.set(register, RegisterRule::ValExpression(expression)));
            }
            I::Restore { register } => {
                let initial = self.initial.ok_or(Misplaced)?;
                match register {
                    X86_64::RBP => self.state.bp.clone_from(&initial.bp),
                    X86_64::RA => self.state.return_address.clone_from(&initial.return_address),
                    _ => return Ok(Effect::Nothing),
                }
            }
            I::RememberState if self.remembered.len() == REMEMBERED_MAX => return Err(Misplaced),
            I::RememberState => {
                self.remembered.push(self.state.clone());
                return Ok(Effect::Nothing);
            }
            I::RestoreState => self.state = self.remembered.pop().ok_or(Misplaced)?,
            I::ArgsSize { .. } | I::NegateRaState | I::Nop => return Ok(Effect::Nothing),
        }
        Ok(Effect::Changed)
    }

    /// Register and offset that the CFA is made of.
    fn cfa(&mut self) -> Result<(&mut Register, &mut i64), Misplaced> {
        match &mut self.state.cfa {
            CfaRule::RegisterAndOffset { register, offset } => Ok((register, offset)),
            CfaRule::Expression(_) => Err(Misplaced),
        }
    }

    fn set(&mut self, register: Register, rule: RegisterRule<usize>) -> Effect {
        match register {
            X86_64::RBP => self.state.bp = Some(rule),
            X86_64::RA => self.state.return_address = Some(rule),
            _ => return Effect::Nothing,
        }
        Effect::Changed
    }
}
