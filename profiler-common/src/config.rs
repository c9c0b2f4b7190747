//! What the loader tells the kernel programs before they are verified.
//!
//! Each constant is one read-only global; the verifier sees its value and removes the branches
//! that the running kernel cannot take.

/// Where stacks are captured. Chosen by what the kernel offers, never by its version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum HookPath {
    /// `tp_btf/sched_exit_tp`: in the resumed thread, after the switch.
    SchedExit = 1,
    /// kprobes on `finish_task_switch*`: in the resumed thread, after the switch.
    FinishTaskSwitch = 2,
    /// In `sched_switch` itself, for every wait, before its length is known.
    #[default]
    SwitchOut = 3,
}

/// The boundaries of the measured window, the one thing that changes while the programs run.
///
/// An event belongs to the window if `start_ns <= t < end_ns`; both are `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Window {
    /// First nanosecond of the window.
    pub start_ns: u64,
    /// First nanosecond after the window.
    pub end_ns: u64,
}

impl Window {
    /// A window that nothing falls into.
    pub const CLOSED: Self = Self { start_ns: u64::MAX, end_ns: u64::MAX };
}

const _: () = assert!(size_of::<Window>() == 16);

#[cfg(feature = "user")]
// SAFETY: two u64, no padding, every bit pattern is valid.
#[expect(unsafe_code, reason = "Pod is an unsafe trait; the layout is asserted above")]
unsafe impl aya::Pod for Window {}
