//! The accounting of one thread, kept in the kernel for every interval however short.
//!
//! [`ThreadState::switch_out`], [`ThreadState::wake`] and [`ThreadState::switch_in`] are the whole
//! state machine. They are pure, so the same code runs in the kernel and in host tests. At every
//! instant each nanosecond since `from_ns` is in exactly one of the totals or in the open phase
//! that began at `since_ns`:
//!
//! `running + runnable + waiting + short == since_ns - from_ns`

/// What a thread is doing between two events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Phase {
    /// On a CPU.
    Running = 1,
    /// Wants a CPU: preempted, new, or (once woken) not yet scheduled.
    Runnable = 2,
    /// Off-CPU in a sleep that began at `since_ns`; `wake_ns` says whether it was woken.
    Waiting = 3,
}

/// The thread was off-CPU when the window began.
pub const OFF_AT_START: u32 = 1;
/// The thread ended at `since_ns`; the ring buffer had no room to say so.
pub const ENDED: u32 = 2;
/// The stacks of the interval that was open at the end of the window were sent.
pub const SWEPT: u32 = 4;

/// Bit of `prev_state` that a thread has at its last switch-out (`TASK_DEAD`, `linux/sched.h`).
pub const TASK_DEAD: u32 = 0x80;

/// The ids of a thread in the initial PID namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadId {
    /// Of the thread.
    pub tid: u32,
    /// Of its process.
    pub tgid: u32,
}

/// The accounting of one thread. Times are nanoseconds of `CLOCK_MONOTONIC`.
///
/// What a wake-up and a switch-out need comes first: with the key of a [`Slot`] it is one cache
/// line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct ThreadState {
    /// When the present phase began.
    pub since_ns: u64,
    /// First wake-up of the present wait; one before `since_ns` came while the thread was still on
    /// its way off the CPU. 0 if there was none yet.
    pub wake_ns: u64,
    /// A [`Phase`].
    pub phase: u32,
    /// Scheduler state bits at the last switch-out (`prev_state`), 0 if it was preempted.
    pub task_state: u32,
    /// CPU it was last switched out of.
    pub cpu_out: u32,
    /// [`OFF_AT_START`], [`ENDED`] and [`SWEPT`].
    pub flags: u32,
    /// Total on a CPU.
    pub running_ns: u64,
    /// Switch-outs seen.
    pub switches: u64,
    /// The kernel's own switch counter (`nvcsw + nivcsw`) at the last switch-out.
    pub kernel_switches_last: u64,
    /// Total wanting a CPU.
    pub runnable_ns: u64,
    /// Total waiting, in intervals of at least the minimum block.
    pub waiting_ns: u64,
    /// Total waiting, in shorter intervals.
    pub short_ns: u64,
    /// Intervals that ended and were at least the minimum block long, preempted ones too.
    pub intervals: u64,
    /// Intervals that ended and were shorter.
    pub shorts: u64,
    /// Where its accounting begins: the window's start, or its birth.
    pub from_ns: u64,
    /// The kernel's switch counter before the first switch-out seen.
    pub kernel_switches_first: u64,
    /// Switch-outs that found the thread off-CPU: its switch-in was not seen. The wait and the run
    /// that followed are in `waiting_ns`, and no interval accounts for them.
    pub ins_missed: u64,
    /// Waits that ended without a wake-up that was seen. They are in `waiting_ns` whole.
    pub wakes_missed: u64,
    /// Thread id when its accounting began; an `exec` by another thread can change it later.
    pub tid: u32,
    /// The process the thread belongs to.
    pub tgid: u32,
}

const _: () = assert!(size_of::<ThreadState>() == 136);

#[cfg(feature = "user")]
// SAFETY: integers only, no padding (112 + 24 = 136), every bit pattern is valid.
#[expect(unsafe_code, reason = "Pod is an unsafe trait; the layout is asserted above")]
unsafe impl aya::Pod for ThreadState {}

/// The place of one thread's accounting: three cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C)]
pub struct Slot {
    /// The thread it belongs to, by the address of its `task_struct`; 0 if it is free.
    pub key: u64,
    /// Its accounting.
    pub state: ThreadState,
    /// Fills the last cache line.
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<Slot>() == 192);

#[cfg(feature = "user")]
// SAFETY: integers only, no padding (8 + 136 + 48 = 192), every bit pattern is valid.
#[expect(unsafe_code, reason = "Pod is an unsafe trait; the layout is asserted above")]
unsafe impl aya::Pod for Slot {}

/// One ended off-CPU interval: `out_ns <= wake_ns <= in_ns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Span {
    /// Switch-out.
    pub out_ns: u64,
    /// First wake-up; equals `out_ns` where all of the interval was runnable.
    pub wake_ns: u64,
    /// Switch-in.
    pub in_ns: u64,
}

/// What a switch-in ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// An interval shorter than the minimum block; it is in the totals.
    Short,
    /// An interval to be recorded.
    Interval(Span),
    /// Nothing that was seen to begin.
    Nothing,
}

impl ThreadState {
    /// The accounting of a thread that was in `phase` since the window's start, at its first event.
    ///
    /// The first event tells the past: a thread that is switched out was running, one that is
    /// woken was waiting, one that is switched in was runnable.
    #[inline(always)]
    pub const fn first_seen(
        from_ns: u64,
        phase: Phase,
        id: ThreadId,
        kernel_switches: u64,
    ) -> Self {
        let off = !matches!(phase, Phase::Running);
        Self {
            since_ns: from_ns,
            wake_ns: 0,
            phase: phase as u32,
            task_state: 0,
            cpu_out: 0,
            flags: if off { OFF_AT_START } else { 0 },
            running_ns: 0,
            switches: 0,
            kernel_switches_last: kernel_switches,
            runnable_ns: 0,
            waiting_ns: 0,
            short_ns: 0,
            intervals: 0,
            shorts: 0,
            from_ns,
            kernel_switches_first: kernel_switches,
            ins_missed: 0,
            wakes_missed: 0,
            tid: id.tid,
            tgid: id.tgid,
        }
    }

    /// The accounting of a thread that is created at `now_ns`, inside the window.
    #[inline(always)]
    pub const fn born(now_ns: u64, phase: Phase, id: ThreadId, kernel_switches: u64) -> Self {
        let mut state = Self::first_seen(now_ns, phase, id, kernel_switches);
        state.flags = 0;
        state
    }

    /// The thread leaves its CPU at `now_ns`. `task_state` is 0 where it was preempted or is still
    /// runnable, else the state bits it sleeps in.
    #[inline(always)]
    pub fn switch_out(&mut self, now_ns: u64, task_state: u32, cpu: u32, kernel_switches: u64) {
        let now_ns = self.not_before_since(now_ns);
        let elapsed_ns = now_ns - self.since_ns;
        if self.phase == Phase::Running as u32 {
            self.running_ns += elapsed_ns;
        } else {
            // Its switch-in was missed: what the time went into is not known. Waiting time that
            // no interval accounts for is reported as unknown.
            self.waiting_ns += elapsed_ns;
            self.ins_missed += 1;
            self.wake_ns = 0;
        }
        self.since_ns = now_ns;
        self.phase = if task_state == 0 { Phase::Runnable } else { Phase::Waiting } as u32;
        self.task_state = task_state;
        self.cpu_out = cpu;
        self.switches += 1;
        self.kernel_switches_last = kernel_switches;
    }

    /// Somebody wakes the thread at `now_ns`. Only the first wake-up of a wait counts. One that
    /// reaches a thread still on its way off the CPU is kept as well: [`Self::switch_in`] clamps it
    /// to the interval unless another follows.
    ///
    /// Returns how long the thread had waited; 0 if it is not this that ends its wait.
    #[inline(always)]
    pub fn wake(&mut self, now_ns: u64) -> u64 {
        let first = self.phase == Phase::Waiting as u32 && self.wake_ns < self.since_ns;
        if first || self.phase == Phase::Running as u32 {
            self.wake_ns = now_ns;
        }
        if first { now_ns.saturating_sub(self.since_ns) } else { 0 }
    }

    /// The thread gets a CPU at `now_ns`.
    #[inline(always)]
    pub fn switch_in(&mut self, now_ns: u64, min_block_ns: u64) -> Ended {
        let now_ns = self.not_before_since(now_ns);
        let ended = if self.phase == Phase::Running as u32 {
            // Its switch-out was missed; see `switch_out`.
            self.waiting_ns += now_ns - self.since_ns;
            Ended::Nothing
        } else {
            self.end_off_cpu(now_ns, false, min_block_ns)
        };
        self.since_ns = now_ns;
        self.wake_ns = 0;
        self.phase = Phase::Running as u32;
        ended
    }

    /// Ends the accounting of a thread that is on a CPU, without a switch.
    #[inline(always)]
    pub fn leave(&mut self, now_ns: u64) {
        let now_ns = self.not_before_since(now_ns);
        self.running_ns += now_ns - self.since_ns;
        self.since_ns = now_ns;
    }

    /// Closes the accounting at the end of the window. `Ended::Interval` is an interval still open.
    pub fn close(&mut self, end_ns: u64, min_block_ns: u64) -> Ended {
        let end_ns = self.not_before_since(end_ns);
        let ended = if self.phase == Phase::Running as u32 {
            self.running_ns += end_ns - self.since_ns;
            Ended::Nothing
        } else {
            self.end_off_cpu(end_ns, true, min_block_ns)
        };
        self.since_ns = end_ns;
        ended
    }

    /// The clocks of two CPUs can differ by a few nanoseconds: time never runs backwards here, so
    /// that no nanosecond is counted twice.
    #[inline(always)]
    const fn not_before_since(&self, now_ns: u64) -> u64 {
        if now_ns > self.since_ns { now_ns } else { self.since_ns }
    }

    /// Splits the off-CPU time since `since_ns` into waiting and runnable. A sleep that was woken
    /// before its switch-out is all runnable if it is over. One that was never woken is all
    /// waiting: it is still open, or its wake-up was missed.
    #[inline(always)]
    fn end_off_cpu(&mut self, now_ns: u64, open: bool, min_block_ns: u64) -> Ended {
        let (out_ns, in_ns) = (self.since_ns, now_ns);
        let wake_ns = if self.phase == Phase::Runnable as u32 {
            out_ns
        } else if self.wake_ns == 0 {
            self.wakes_missed += u64::from(!open);
            in_ns
        } else if self.wake_ns < out_ns {
            if open { in_ns } else { out_ns }
        } else if self.wake_ns > in_ns {
            in_ns
        } else {
            self.wake_ns
        };
        self.runnable_ns += in_ns - wake_ns;
        if in_ns - out_ns < min_block_ns {
            self.short_ns += wake_ns - out_ns;
            self.shorts += 1;
            return Ended::Short;
        }
        self.waiting_ns += wake_ns - out_ns;
        self.intervals += 1;
        Ended::Interval(Span { out_ns, wake_ns, in_ns })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLEEPS: u32 = 1;
    const MIN_BLOCK_NS: u64 = 100;

    fn seen(phase: Phase) -> ThreadState {
        ThreadState::first_seen(1000, phase, ThreadId { tid: 8, tgid: 7 }, 0)
    }

    fn total(state: &ThreadState) -> u64 {
        state.running_ns + state.runnable_ns + state.waiting_ns + state.short_ns
    }

    //  1000      1300        1700       1750     2000
    //   | running | waiting   | runnable | running |
    #[test]
    fn every_nanosecond_is_in_one_state() {
        let mut state = seen(Phase::Running);
        state.switch_out(1300, SLEEPS, 0, 1);
        assert_eq!(state.wake(1700), 400);
        assert_eq!(state.wake(1720), 0);
        let ended = state.switch_in(1750, MIN_BLOCK_NS);
        assert_eq!(ended, Ended::Interval(Span { out_ns: 1300, wake_ns: 1700, in_ns: 1750 }));
        assert_eq!(state.close(2000, MIN_BLOCK_NS), Ended::Nothing);
        assert_eq!((state.running_ns, state.waiting_ns, state.runnable_ns), (550, 400, 50));
        assert_eq!(total(&state), 1000);
    }

    //  1000        1400 (woken)   1500
    //   | waiting    | runnable    | running
    #[test]
    fn a_first_wake_says_that_the_thread_was_waiting() {
        let mut state = seen(Phase::Waiting);
        state.wake(1400);
        let ended = state.switch_in(1500, MIN_BLOCK_NS);
        assert_eq!(ended, Ended::Interval(Span { out_ns: 1000, wake_ns: 1400, in_ns: 1500 }));
        assert_eq!(state.flags, OFF_AT_START);
    }

    //  1000      1300 (preempted)  1500
    //   | running | runnable        | running
    #[test]
    fn a_preempted_interval_is_all_runnable() {
        let mut state = seen(Phase::Running);
        state.switch_out(1300, 0, 0, 1);
        state.wake(1350);
        let ended = state.switch_in(1500, MIN_BLOCK_NS);
        assert_eq!(ended, Ended::Interval(Span { out_ns: 1300, wake_ns: 1300, in_ns: 1500 }));
        assert_eq!((state.runnable_ns, state.waiting_ns), (200, 0));
    }

    #[test]
    fn a_wake_up_before_the_switch_out_is_clamped_to_it() {
        let mut state = seen(Phase::Running);
        assert_eq!(state.wake(1299), 0);
        state.switch_out(1300, SLEEPS, 0, 1);
        let ended = state.switch_in(1500, MIN_BLOCK_NS);
        assert_eq!(ended, Ended::Interval(Span { out_ns: 1300, wake_ns: 1300, in_ns: 1500 }));
    }

    // A wake-up that reaches a thread before it sleeps lets it run on; the sleep has its own.
    //  1100 (woken)  1300      1450 (woken)  1500
    //   | running     | waiting | runnable     | running
    #[test]
    fn a_wake_up_of_an_earlier_moment_gives_way_to_that_of_the_wait() {
        let mut state = seen(Phase::Running);
        state.wake(1100);
        state.switch_out(1300, SLEEPS, 0, 1);
        state.wake(1450);
        state.wake(1470);
        let ended = state.switch_in(1500, MIN_BLOCK_NS);
        assert_eq!(ended, Ended::Interval(Span { out_ns: 1300, wake_ns: 1450, in_ns: 1500 }));
        assert_eq!(state.wakes_missed, 0);
    }

    //  1000      1300 (wake-up not seen)   1500
    //   | running | waiting                 | running
    #[test]
    fn a_wait_whose_wake_up_was_missed_is_not_run_queue_time() {
        let mut state = seen(Phase::Running);
        state.switch_out(1300, SLEEPS, 0, 1);
        let ended = state.switch_in(1500, MIN_BLOCK_NS);
        assert_eq!(ended, Ended::Interval(Span { out_ns: 1300, wake_ns: 1500, in_ns: 1500 }));
        assert_eq!((state.waiting_ns, state.runnable_ns, state.wakes_missed), (200, 0, 1));
    }

    //  1000      1300      (switch-in not seen)  1800      1900
    //   | running | not known                     | waiting | running
    #[test]
    fn a_missed_switch_in_is_counted_and_its_time_is_in_no_interval() {
        let mut state = seen(Phase::Running);
        state.switch_out(1300, SLEEPS, 0, 1);
        state.wake(1500);
        state.switch_out(1800, SLEEPS, 0, 2);
        let ended = state.switch_in(1900, MIN_BLOCK_NS);
        assert_eq!(ended, Ended::Interval(Span { out_ns: 1800, wake_ns: 1900, in_ns: 1900 }));
        assert_eq!((state.running_ns, state.waiting_ns, state.ins_missed), (300, 600, 1));
        assert_eq!(state.intervals + state.shorts + state.ins_missed, state.switches);
        assert_eq!(total(&state), 900);
    }

    #[test]
    fn the_minimum_block_is_compared_with_the_whole_interval() {
        let mut state = seen(Phase::Running);
        state.switch_out(1300, SLEEPS, 0, 1);
        state.wake(1310);
        assert_eq!(state.switch_in(1399, MIN_BLOCK_NS), Ended::Short);
        assert_eq!((state.short_ns, state.runnable_ns, state.shorts), (10, 89, 1));
        state.switch_out(1400, SLEEPS, 0, 2);
        state.wake(1410);
        assert!(matches!(state.switch_in(1500, MIN_BLOCK_NS), Ended::Interval(_)));
        assert_eq!(total(&state), 500);
    }

    #[test]
    fn a_sleep_still_open_at_the_end_is_waiting() {
        let mut state = seen(Phase::Running);
        state.switch_out(1300, SLEEPS, 0, 1);
        let ended = state.close(2000, MIN_BLOCK_NS);
        assert_eq!(ended, Ended::Interval(Span { out_ns: 1300, wake_ns: 2000, in_ns: 2000 }));
        assert_eq!(total(&state), 1000);
    }

    #[test]
    fn a_clock_that_steps_back_loses_no_time() {
        let mut state = seen(Phase::Running);
        state.switch_out(1300, SLEEPS, 0, 1);
        state.switch_in(1290, MIN_BLOCK_NS);
        state.switch_out(1280, SLEEPS, 0, 2);
        state.close(1270, MIN_BLOCK_NS);
        assert_eq!((state.since_ns, total(&state)), (1300, 300));
    }

    #[test]
    fn a_missed_switch_is_unnamed_waiting_and_loses_no_time() {
        let mut state = seen(Phase::Running);
        state.switch_out(1300, SLEEPS, 0, 1);
        state.switch_out(1800, SLEEPS, 0, 3);
        state.close(2000, MIN_BLOCK_NS);
        assert_eq!(total(&state), 1000);
        assert_eq!(state.kernel_switches_last - state.kernel_switches_first - state.switches, 1);
    }
}
