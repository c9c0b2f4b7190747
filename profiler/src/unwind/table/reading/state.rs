//! What one instruction does to a frame, as far as the rule for leaving it goes.

use iced_x86::{
    FlowControl, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind, Register,
};
use profiler_common::table::{BpKind, CfaKind, Rule};

/// A frame before an instruction. Places on the stack are told by their distance from the CFA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// The CFA less the stack pointer, where it is known.
    pub sp: Option<i32>,
    pub bp: Bp,
    /// Where the caller's `rbp` was saved, and is still.
    pub saved_bp: Option<i32>,
    /// Nothing will ever be returned to.
    pub is_outermost: bool,
}

/// What is in `rbp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bp {
    /// What the caller had in it.
    Callers,
    /// The CFA less this.
    BelowCfa(i32),
    Unknown,
}

/// Bytes of a saved register.
const WORD: i32 = 8;

impl State {
    /// Where a function begins: nothing on the stack but the return address.
    pub const CALLED: Self =
        Self { sp: Some(WORD), bp: Bp::Callers, saved_bp: None, is_outermost: false };

    /// Where a program begins.
    pub const STARTED: Self = Self { is_outermost: true, ..Self::CALLED };

    /// The rule that says this; `None` if it is not known how to leave the frame.
    pub fn rule(self) -> Option<Rule> {
        if self.is_outermost {
            return Some(Rule::of(CfaKind::Stop));
        }
        let (cfa, cfa_offset) = match (self.sp, self.bp) {
            // Below, there is no return address of this frame.
            (Some(sp), _) if sp < WORD => return None,
            // Behind a callee that was left by frame pointer the stack pointer need not be right: it
            // can have realigned the stack.
            (_, Bp::BelowCfa(offset)) => (CfaKind::Bp, offset),
            (Some(sp), _) => (CfaKind::Sp, sp),
            (None, _) => return None,
        };
        let (bp, bp_offset) = match (self.bp, self.saved_bp) {
            (Bp::Callers, _) => (BpKind::Same, 0),
            (_, Some(place)) => (BpKind::AtCfa, i16::try_from(place).ok()?),
            (_, None) => return None,
        };
        Some(Rule { cfa, bp, bp_offset, cfa_offset })
    }

    /// Whether a function may return here: everything is as it was when it was called.
    pub fn may_return(self) -> bool {
        !self.is_outermost && self.sp == Some(WORD) && self.bp == Bp::Callers
    }

    /// What holds however this place was reached; `None` if both cannot be right.
    pub fn meet(self, other: Self) -> Option<Self> {
        let is_other_place = self.sp.zip(other.sp).is_some_and(|(one, other)| one != other);
        if is_other_place || self.is_outermost != other.is_outermost {
            return None;
        }
        Some(Self {
            sp: self.sp.filter(|_| self.sp == other.sp),
            bp: if self.bp == other.bp { self.bp } else { Bp::Unknown },
            saved_bp: self.saved_bp.filter(|_| self.saved_bp == other.saved_bp),
            is_outermost: self.is_outermost,
        })
    }

    /// The frame after an instruction that goes on with the next.
    pub fn after(mut self, instruction: &Instruction, facts: &mut InstructionInfoFactory) -> Self {
        if self.is_outermost {
            return self;
        }
        match instruction.mnemonic() {
            Mnemonic::Push => self.push(instruction),
            Mnemonic::Pop if instruction.op0_kind() == OpKind::Register => self.pop(instruction),
            Mnemonic::Leave => {
                self.sp = self.frame_base();
                self.take_bp();
            }
            // What a call puts on the stack is gone when it returns.
            Mnemonic::Call => self.lose_above_sp(),
            // The deepest frame is marked so, says the psABI; who still means to return has saved it.
            Mnemonic::Xor if is_zeroing_bp(instruction) && self.is_untouched() => {
                self.is_outermost = true;
            }
            _ => self.other(instruction, facts),
        }
        self
    }

    fn is_untouched(self) -> bool {
        self.bp == Bp::Callers && self.saved_bp.is_none() && self.sp == Some(WORD)
    }

    /// `rbp` as a stack pointer.
    fn frame_base(self) -> Option<i32> {
        match self.bp {
            Bp::BelowCfa(offset) => Some(offset),
            Bp::Callers | Bp::Unknown => None,
        }
    }

    fn push(&mut self, instruction: &Instruction) {
        let bytes = -instruction.stack_pointer_increment();
        self.sp = self.sp.and_then(|sp| sp.checked_add(bytes));
        let pushed = self.sp.map(|sp| -sp);
        let is_bp = instruction.op0_kind() == OpKind::Register
            && instruction.op0_register() == Register::RBP;
        if is_bp && self.bp == Bp::Callers && pushed.is_some() {
            self.saved_bp = pushed;
        } else {
            self.overwrite(pushed, bytes);
        }
    }

    fn pop(&mut self, instruction: &Instruction) {
        let to = instruction.op0_register();
        if to == Register::RBP {
            self.take_bp();
            return;
        }
        let bytes = instruction.stack_pointer_increment();
        self.sp = self.sp.and_then(|sp| sp.checked_sub(bytes));
        if to.full_register() == Register::RSP {
            self.sp = None;
        }
        if to.full_register() == Register::RBP {
            self.bp = Bp::Unknown;
        }
    }

    fn take_bp(&mut self) {
        let place = self.sp.map(|sp| -sp);
        self.load_bp(place);
        self.sp = self.sp.and_then(|sp| sp.checked_sub(WORD));
    }

    fn load_bp(&mut self, place: Option<i32>) {
        let is_saved = place.is_some() && place == self.saved_bp;
        self.bp = if is_saved { Bp::Callers } else { Bp::Unknown };
    }

    /// Whatever lies below the stack pointer is anybody's.
    fn lose_above_sp(&mut self) {
        if let (Some(sp), Some(saved)) = (self.sp, self.saved_bp)
            && saved < -sp
        {
            self.saved_bp = None;
        }
    }

    /// Something else is written there; an unknown place is none of the compiler's saved registers.
    fn overwrite(&mut self, place: Option<i32>, bytes: i32) {
        if let (Some(place), Some(saved)) = (place, self.saved_bp)
            && place < saved + WORD
            && saved < place.saturating_add(bytes)
        {
            self.saved_bp = None;
        }
    }

    /// Where a memory operand lies, from the CFA.
    fn place(self, instruction: &Instruction) -> Option<i32> {
        if instruction.memory_index() != Register::None {
            return None;
        }
        let base = match instruction.memory_base() {
            Register::RSP => self.sp?,
            Register::RBP => self.frame_base()?,
            _ => return None,
        };
        let displacement = i32::try_from(instruction.memory_displacement64().cast_signed()).ok()?;
        displacement.checked_sub(base)
    }

    fn other(&mut self, instruction: &Instruction, facts: &mut InstructionInfoFactory) {
        let before = *self;
        let constant = || match instruction.op1_kind() {
            OpKind::Immediate8to64 | OpKind::Immediate32to64 => {
                i32::try_from(instruction.immediate(1).cast_signed()).ok()
            }
            _ => None,
        };
        let register = |op| match instruction.op_kind(op) {
            OpKind::Register => instruction.op_register(op),
            _ => Register::None,
        };
        let is_memory = |op| instruction.op_kind(op) == OpKind::Memory;
        let to = if instruction.op_count() > 0 { register(0) } else { Register::None };
        let moved = match (instruction.mnemonic(), to) {
            (Mnemonic::Sub, Register::RSP) => {
                Some(before.sp.zip(constant()).and_then(|(sp, n)| sp.checked_add(n)))
            }
            (Mnemonic::Add, Register::RSP) => {
                Some(before.sp.zip(constant()).and_then(|(sp, n)| sp.checked_sub(n)))
            }
            (Mnemonic::Lea, Register::RSP) => Some(before.place(instruction).map(|place| -place)),
            (Mnemonic::Mov, Register::RSP) if register(1) == Register::RBP => {
                Some(before.frame_base())
            }
            _ => None,
        };
        if let Some(sp) = moved {
            self.sp = sp;
            return;
        }
        let based = |place: Option<i32>| place.map_or(Bp::Unknown, |place| Bp::BelowCfa(-place));
        match (instruction.mnemonic(), to) {
            (Mnemonic::Mov, Register::RBP) if register(1) == Register::RSP => {
                self.bp = based(before.sp.map(|sp| -sp));
            }
            (Mnemonic::Lea, Register::RBP) => self.bp = based(before.place(instruction)),
            (Mnemonic::Mov, Register::RBP) if is_memory(1) => {
                self.load_bp(before.place(instruction));
            }
            (Mnemonic::Mov, _)
                if is_memory(0) && register(1) == Register::RBP && before.bp == Bp::Callers =>
            {
                self.saved_bp = before.place(instruction).or(self.saved_bp);
            }
            _ => self.clobber(instruction, facts),
        }
    }

    fn clobber(&mut self, instruction: &Instruction, facts: &mut InstructionInfoFactory) {
        let writes = |access| {
            !matches!(access, OpAccess::None | OpAccess::Read | OpAccess::CondRead)
                && access != OpAccess::NoMemAccess
        };
        let pushed = instruction.stack_pointer_increment();
        let is_system_call = instruction.flow_control() == FlowControl::Call;
        let info = facts.info(instruction);
        for memory in info.used_memory().iter().filter(|memory| writes(memory.access())) {
            let base = match memory.base() {
                _ if memory.index() != Register::None => None,
                Register::RSP => self.sp,
                Register::RBP => self.frame_base(),
                _ => None,
            };
            let displacement = i32::try_from(memory.displacement().cast_signed()).ok();
            let place = base.zip(displacement).and_then(|(base, n)| n.checked_sub(base));
            let bytes = i32::try_from(memory.memory_size().size()).unwrap_or(WORD);
            self.overwrite(place, bytes.max(1));
        }
        for used in info.used_registers().iter().filter(|used| writes(used.access())) {
            match used.register().full_register() {
                Register::RBP => self.bp = Bp::Unknown,
                // `pushfq` and the like say by how much.
                Register::RSP if pushed != 0 => {
                    self.sp = self.sp.and_then(|sp| sp.checked_sub(pushed));
                }
                Register::RSP if !is_system_call => self.sp = None,
                _ => {}
            }
        }
    }
}

fn is_zeroing_bp(instruction: &Instruction) -> bool {
    let is_bp = |op| {
        instruction.op_kind(op) == OpKind::Register
            && matches!(instruction.op_register(op), Register::RBP | Register::EBP)
    };
    is_bp(0) && is_bp(1)
}
