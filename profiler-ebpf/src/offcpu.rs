//! The accounting at switch-out, wake-up and switch-in; [`ThreadState`] is the state machine.
//!
//! `sched_switch` alone moves the clock for both sides of a switch, so that what one thread loses
//! the next one gains and the sums agree with the kernel's own, whatever hook takes the stacks.

use core::ffi::c_void;

use aya_ebpf::{
    EbpfContext as _,
    bindings::BPF_NOEXIST,
    helpers::{bpf_get_current_comm, bpf_get_smp_processor_id, bpf_ktime_get_ns},
    programs::BtfTracePointContext,
};
use profiler_common::{
    counter::Counter,
    event::{Kind, OPEN_AT_START, PREEMPTED},
    state::{Ended, OFF_AT_START, Phase, REPLACED, SWEPT, Span, TASK_DEAD, ThreadState},
};

use crate::{
    capture, config, emit,
    maps::{DUE, PENDING, TARGETS, THREADS, When, count, when, window_start},
    task::Task,
};

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, prev_state)`.
#[inline(always)]
pub fn switch(ctx: &BtfTracePointContext) {
    let prev = Task::new(ctx.arg(1));
    let next = Task::new(ctx.arg(2));
    let (prev_is_ours, next_is_ours) = (prev.is_watched(), next.is_watched());
    if !prev_is_ours && !next_is_ours {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let start_ns = match when(now_ns) {
        When::Within { start_ns } => start_ns,
        When::Before => return,
        When::After => {
            if next_is_ours {
                resume_late(next, ctx.as_ptr());
            }
            return;
        }
    };
    if prev_is_ours {
        let preempted = ctx.arg::<u64>(0) as u8 != 0;
        let state = if preempted {
            0
        } else if config::has_prev_state() != 0 {
            ctx.arg::<u64>(3) as u32
        } else {
            prev.state()
        };
        switch_out(prev, state, start_ns, now_ns, ctx.as_ptr());
    }
    if next_is_ours {
        switch_in(next, start_ns, now_ns, ctx.as_ptr());
    }
}

#[inline(always)]
fn switch_out(prev: Task, task_state: u32, start_ns: u64, now_ns: u64, ctx: *mut c_void) {
    let tid = prev.tid();
    let switches = prev.switches();
    let Some(state) = account(prev, tid, Phase::Running, start_ns, switches - 1) else { return };
    if task_state & TASK_DEAD != 0 {
        end_thread(state, tid, now_ns, switches);
        return;
    }
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    state.switch_out(now_ns, task_state, cpu, switches);
    if config::captures_at_switch_out() && task_state != 0 {
        capture::keep_at_switch_out(tid, ctx);
    }
}

/// The last switch-out of a thread: `current` is still that thread.
#[inline(always)]
fn end_thread(state: &mut ThreadState, tid: u32, now_ns: u64, switches: u64) {
    if state.flags & REPLACED == 0 {
        state.switch_out(now_ns, TASK_DEAD, 0, switches);
        state.comm = bpf_get_current_comm().unwrap_or([0; 16]);
        emit::thread(Kind::ThreadEnded, now_ns, tid, state);
    }
    forget(tid);
}

#[inline(always)]
fn forget(tid: u32) {
    // A failure means that it was gone already.
    let _ = THREADS.remove(&tid);
    if config::captures_at_switch_out() {
        let _ = PENDING.remove(&tid);
    }
}

#[inline(always)]
fn switch_in(next: Task, start_ns: u64, now_ns: u64, ctx: *mut c_void) {
    let tid = next.tid();
    let Some(due) = DUE.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value; the switch-in program of this context switch reads it, later.
    let due = unsafe { &mut *due };
    due.tid = 0;
    let switches = next.switches();
    let Some(state) = account(next, tid, Phase::Runnable, start_ns, switches) else { return };
    let task_state = state.task_state;
    let was_waiting = state.phase == Phase::Waiting as u32;
    let from_start = state.since_ns == state.from_ns && state.flags & OFF_AT_START != 0;
    let Ended::Interval(span) = state.switch_in(now_ns, config::min_block_ns()) else { return };
    due.span = span;
    due.tid = tid;
    due.task_state = task_state;
    due.flags =
        if was_waiting { 0 } else { PREEMPTED } | if from_start { OPEN_AT_START } else { 0 };
    due.cpu_out = u32::from(state.cpu_out);
    due.kernel_switches = switches;
    due.kind = Kind::Interval as u32;
    if config::captures_at_switch_out() {
        capture::send_kept(due, state.tgid, ctx);
        due.tid = 0;
    }
}

/// The first switch-in after the window of a thread that was off-CPU at its end: the stacks of the
/// interval that was open then can still be had, even if the sweep comes too late for it.
#[inline(always)]
fn resume_late(next: Task, ctx: *mut c_void) {
    let tid = next.tid();
    let Some(due) = DUE.get_ptr_mut(0) else { return };
    // SAFETY: as in `switch_in`.
    let due = unsafe { &mut *due };
    due.tid = 0;
    let Some(state) = THREADS.get_ptr_mut(&tid) else { return };
    // SAFETY: as in `account`.
    let state = unsafe { &mut *state };
    if state.phase == Phase::Running as u32
        || state.flags & SWEPT != 0
        || state.kernel_switches_last != next.switches()
    {
        return;
    }
    state.flags |= SWEPT;
    due.span = Span::default();
    due.tid = tid;
    due.task_state = state.task_state;
    due.flags = if state.phase == Phase::Waiting as u32 { 0 } else { PREEMPTED };
    due.cpu_out = u32::from(state.cpu_out);
    due.kernel_switches = state.kernel_switches_last;
    due.kind = Kind::Swept as u32;
    if config::captures_at_switch_out() {
        capture::send_kept(due, state.tgid, ctx);
        due.tid = 0;
    }
}

/// `sched_waking(struct task_struct *p)`.
#[inline(always)]
pub fn waking(ctx: &BtfTracePointContext) {
    let woken = Task::new(ctx.arg(0));
    if !woken.is_watched() {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let Some(start_ns) = window_start(now_ns) else { return };
    let tid = woken.tid();
    if let Some(state) = THREADS.get_ptr_mut(&tid) {
        // SAFETY: a value of a preallocated hash map. The thread's own switches are the other
        // writers; the scheduler orders them against its wake-up.
        unsafe { (*state).wake(now_ns) };
        return;
    }
    // A thread on its way off a CPU was running: its switch-out, yet to come, is its first event.
    if woken.on_cpu() {
        return;
    }
    let switches = woken.switches();
    if let Some(state) = account(woken, tid, Phase::Waiting, start_ns, switches) {
        state.task_state = woken.state();
        state.wake(now_ns);
    }
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
#[inline(always)]
pub fn fork(ctx: &BtfTracePointContext) {
    let parent = Task::new(ctx.arg(0));
    if !parent.is_watched() || !parent.is_of_target() {
        return;
    }
    let child = Task::new(ctx.arg(1));
    let (tid, tgid) = (child.tid(), child.tgid());
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let state = ThreadState::born(now_ns, tgid);
    if tid == tgid {
        if config::only_tgid() != 0 {
            return;
        }
        if TARGETS.insert(&tgid, &child.start_time(), 0).is_err() {
            count(Counter::ThreadsUntracked);
            return;
        }
        emit::thread(Kind::ProcessBorn, now_ns, tid, &state);
    }
    if window_start(now_ns).is_some() && THREADS.insert(&tid, &state, 0).is_err() {
        count(Counter::ThreadsUntracked);
    }
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
///
/// The thread that calls `exec` becomes the process's only one and takes the leader's id; the
/// others, the leader too, have ended.
#[inline(always)]
pub fn exec(ctx: &BtfTracePointContext) {
    let task = Task::new(ctx.arg(0));
    if !task.is_watched() || !task.is_of_target() {
        return;
    }
    let (tid, tgid) = (task.tid(), task.tgid());
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let mut state = ThreadState::first_seen(now_ns, Phase::Running, tgid, task.switches());
    emit::thread(Kind::Exec, now_ns, tid, &state);
    let old_tid = ctx.arg::<u64>(1) as u32;
    let Some(start_ns) = window_start(now_ns) else { return };
    if old_tid == tid {
        return;
    }
    let leader_gone = THREADS.get_ptr(&tid).is_none();
    if let Some(leader) = THREADS.get_ptr_mut(&tid) {
        // SAFETY: a value of a preallocated hash map; its thread is a zombie.
        let leader = unsafe { &mut *leader };
        leader.switch_out(now_ns, TASK_DEAD, 0, leader.kernel_switches_last);
        emit::thread(Kind::ThreadEnded, now_ns, tid, leader);
    }
    if let Some(old) = account(task, old_tid, Phase::Running, start_ns, task.switches()) {
        old.switch_out(now_ns, TASK_DEAD, 0, old.kernel_switches_last);
        old.switches -= 1;
        emit::thread(Kind::ThreadEnded, now_ns, old_tid, old);
        old.flags |= REPLACED;
    }
    if leader_gone {
        forget(old_tid);
    }
    state.kernel_switches_last = state.kernel_switches_first;
    if THREADS.insert(&tid, &state, 0).is_err() {
        count(Counter::ThreadsUntracked);
    }
}

/// The accounting of a thread; at its first event in the window, a fresh one that says it was in
/// `phase` since the window's start.
#[inline(always)]
fn account(
    task: Task,
    tid: u32,
    phase: Phase,
    start_ns: u64,
    switches_before: u64,
) -> Option<&'static mut ThreadState> {
    let found = match THREADS.get_ptr_mut(&tid) {
        Some(state) => Some(state),
        None => {
            if !task.is_of_target() {
                return None;
            }
            let state = ThreadState::first_seen(start_ns, phase, task.tgid(), switches_before);
            // Another CPU may have been first; then its entry is the one to go on with.
            let _ = THREADS.insert(&tid, &state, u64::from(BPF_NOEXIST));
            THREADS.get_ptr_mut(&tid)
        }
    };
    if found.is_none() {
        count(Counter::ThreadsUntracked);
    }
    // SAFETY: a value of a preallocated hash map. Only events of one thread touch it, and the
    // scheduler orders those; a wake-up that races is described in `ThreadState::wake`.
    found.map(|state| unsafe { &mut *state })
}
