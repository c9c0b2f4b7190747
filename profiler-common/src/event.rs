//! The records that go through the ring buffer.
//!
//! Each begins with a [`Header`]; [`Kind`] says which of the structs of this module it is. An
//! [`IntervalEvent`] is followed by its user frames, and where they are not the whole stack by a copied
//! part of it. With a copy there are always [`USER_FRAMES`](crate::stack::USER_FRAMES) entries
//! between, valid or not.

use crate::{
    stack::KERNEL_FRAMES,
    state::{Span, ThreadState},
};

/// Which struct a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// [`IntervalEvent`].
    Interval = 1,
    /// [`ThreadEvent`]: a thread was switched out for the last time; its totals are final.
    ThreadEnded = 2,
    /// [`ThreadEvent`]: a watched process replaced its program.
    Exec = 3,
    /// [`ThreadEvent`]: a watched process forked a process that is watched too.
    ProcessBorn = 4,
    /// [`ThreadEvent`]: the roll-call found the thread. `state` holds its phase and the kernel's
    /// switch counter, and in `from_ns` when it was created.
    ///
    /// Two of its times are on the scheduler's clock, which is not the one of all other times, and
    /// 0 where the kernel does not tell them: in `since_ns`, of a thread that is off-CPU, when it
    /// left its CPU; in `wake_ns` when the thread that pays the visit last got one, which is at most
    /// as long ago as the two clocks seem to be apart.
    Present = 5,
    /// [`IntervalEvent`]: the stack of a thread that is off-CPU, without times.
    Swept = 6,
    /// [`ThreadEvent`]: a watched process is gone.
    ProcessGone = 7,
    /// [`IntervalEvent`]: what a thread did on a CPU; all of `span` is that instant.
    Sample = 8,
    /// [`WakeEvent`]: a wait was ended. It comes before the interval that ended so.
    Wake = 9,
    /// [`IntervalEvent`]: the stacks of the thread that ended waits; all of `span` is that instant.
    /// The [`WakeEvent`] of that instant and thread follows it.
    Waker = 10,
}

/// The start of every record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Header {
    /// A [`Kind`].
    pub kind: u32,
    /// Length of the whole record in bytes, this header included.
    pub bytes: u32,
}

/// User registers at the wait, as the kernel saved them on entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct UserRegs {
    /// Instruction pointer: after the `syscall` instruction, or at the faulting one.
    pub ip: u64,
    /// Stack pointer.
    pub sp: u64,
    /// Frame pointer register.
    pub bp: u64,
    /// `orig_ax`: the syscall number, or negative for a fault or an interrupt.
    pub orig_ax: i64,
    /// The six syscall arguments: `di si dx r10 r8 r9`.
    pub args: [u64; 6],
    /// The other registers: `bx r12 r13 r14 r15 ax cx r11`.
    pub others: [u64; 8],
}

/// The interval was a preemption, or the thread was runnable all along.
pub const PREEMPTED: u32 = 1;
/// `regs` holds the user registers of the wait.
pub const HAS_REGS: u32 = 2;
/// The interval was open when the window began; `span.out_ns` is the window's start.
pub const OPEN_AT_START: u32 = 4;

/// One off-CPU interval of at least the minimum block, without the user frames and the copy of the
/// user stack that follow it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct IntervalEvent {
    /// `kind` is [`Kind::Interval`].
    pub header: Header,
    /// When it began, was woken and ended.
    pub span: Span,
    /// The user registers, valid with [`HAS_REGS`].
    pub regs: UserRegs,
    /// Thread, in the initial PID namespace.
    pub tid: u32,
    /// Process, in the initial PID namespace.
    pub tgid: u32,
    /// Scheduler state bits it slept in; 0 with [`PREEMPTED`].
    pub task_state: u32,
    /// [`PREEMPTED`], [`HAS_REGS`], [`OPEN_AT_START`].
    pub flags: u32,
    /// CPU it left.
    pub cpu_out: u32,
    /// CPU it came back on.
    pub cpu_in: u32,
    /// Valid entries of `kernel`.
    pub kernel_frames: u32,
    /// Valid entries of the user frames that follow this struct, leaf first.
    pub user_frames: u32,
    /// Bytes of user stack, from `regs.sp` upwards, that follow the user frames.
    pub user_bytes: u32,
    /// How the walk that gave the user frames went: a [`WalkEnd`](crate::stack::WalkEnd).
    pub walk_end: u32,
    /// The [`ProcessCode::generation`](crate::code::ProcessCode::generation) that the walk went by.
    pub generation: u32,
    /// How many of the user frames were found by frame pointer, without unwind information.
    pub by_frame_pointer: u32,
    /// Switch counter (`nvcsw + nivcsw`) of the thread at the capture.
    pub kernel_switches: u64,
    /// Name of the thread.
    pub comm: [u8; 16],
    /// Kernel return addresses, leaf first.
    pub kernel: [u64; KERNEL_FRAMES],
}

const _: () = assert!(size_of::<UserRegs>() == 144);
const _: () = assert!(size_of::<IntervalEvent>() == 248 + 8 * KERNEL_FRAMES);

/// In what context of the kernel a wake-up was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum WakeContext {
    /// By the current thread.
    Thread = 0,
    /// In a softirq: behind an interrupt, or at the end of what the current thread did.
    Softirq = 1,
    /// In an interrupt, or a non-maskable one.
    Interrupt = 2,
    /// The kernel does not let itself be asked.
    Unknown = 3,
}

impl WakeContext {
    /// By the preemption counter of a CPU (`linux/preempt.h`): above 8 bits for itself it holds 8
    /// for softirqs, of which the lowest says that one is being served, then 4 for interrupts and 4
    /// for non-maskable ones.
    #[inline(always)]
    pub const fn of_preempt_count(count: u32) -> Self {
        if count & 0x00ff_0000 != 0 {
            Self::Interrupt
        } else if count & 0x0000_0100 != 0 {
            Self::Softirq
        } else {
            Self::Thread
        }
    }
}

/// A wait was ended. Kernel return addresses, leaf first, may follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct WakeEvent {
    /// `kind` is [`Kind::Wake`].
    pub header: Header,
    /// When: the `wake_ns` of the interval.
    pub at_ns: u64,
    /// The thread that waited.
    pub woken_tid: u32,
    /// Its process.
    pub woken_tgid: u32,
    /// The thread that was current, 0 if it was the idle one.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Its name.
    pub comm: [u8; 16],
    /// A [`WakeContext`].
    pub context: u32,
    /// Return addresses that follow.
    pub kernel_frames: u32,
}

const _: () = assert!(size_of::<WakeEvent>() == 56);

/// A thread or process came, went or changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct ThreadEvent {
    /// `kind` is one of the kinds that name this struct.
    pub header: Header,
    /// When.
    pub at_ns: u64,
    /// Name of the thread.
    pub comm: [u8; 16],
    /// Its ids, and its accounting so far; final for [`Kind::ThreadEnded`].
    pub state: ThreadState,
}

const _: () = assert!(size_of::<ThreadEvent>() == 32 + size_of::<ThreadState>());

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preemption_counter_tells_the_context() {
        let check = |count: u32, expected: WakeContext| {
            assert_eq!(WakeContext::of_preempt_count(count), expected, "{count:#x}");
        };
        check(0, WakeContext::Thread);
        check(2, WakeContext::Thread);
        // Softirqs are held back, not served; and the bit that says whether to reschedule.
        check(0x8000_0201, WakeContext::Thread);
        check(0x101, WakeContext::Softirq);
        check(0x1_0001, WakeContext::Interrupt);
        // An interrupt in the middle of a softirq.
        check(0x1_0101, WakeContext::Interrupt);
        check(0x11_0000, WakeContext::Interrupt);
    }
}
