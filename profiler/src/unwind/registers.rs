//! The registers of a frame, as far as their values are known.

use gimli::{Register, X86_64};
use profiler_common::event::UserRegs;

/// How many there are: the sixteen general ones and the instruction pointer.
const COUNT: usize = 17;

/// The registers of a frame, by DWARF's numbers; `None` for one whose value is lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers([Option<u64>; COUNT]);

impl Registers {
    /// Those of the code that the kernel was entered from.
    pub fn of(regs: &UserRegs) -> Self {
        let UserRegs { ip, sp, bp, orig_ax, args, others } = *regs;
        let [di, si, dx, r10, r8, r9] = args;
        let [bx, r12, r13, r14, r15, ax, cx, r11] = others;
        let mut all = Self(
            [ax, dx, cx, bx, si, di, bp, sp, r8, r9, r10, r11, r12, r13, r14, r15, ip].map(Some),
        );
        if orig_ax >= 0 {
            // The result of the system call is not there yet.
            all.0[usize::from(X86_64::RAX.0)] = None;
        }
        all
    }

    /// The value of a register; `None` if it is lost, or none that is followed.
    pub fn get(&self, register: Register) -> Option<u64> {
        self.0.get(usize::from(register.0)).copied().flatten()
    }

    /// Sets or loses the value of a register.
    ///
    /// # Panics
    /// If the register is none of those that are followed.
    pub fn set(&mut self, register: Register, value: Option<u64>) {
        self.0[usize::from(register.0)] = value;
    }
}

/// Whether functions give a register back to their callers as it was.
pub fn is_preserved(register: Register) -> bool {
    matches!(
        register,
        X86_64::RBX
            | X86_64::RBP
            | X86_64::RSP
            | X86_64::R12
            | X86_64::R13
            | X86_64::R14
            | X86_64::R15
    )
}

/// The general registers.
pub fn general() -> impl Iterator<Item = Register> {
    (0..COUNT as u16 - 1).map(Register)
}
