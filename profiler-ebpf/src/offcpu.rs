//! The accounting at switch-out, wake-up and switch-in; [`ThreadState`] is the state machine.
//!
//! `sched_switch` alone moves the clock for both sides of a switch, so that what one thread loses
//! the next one gains and the sums agree with the kernel's own, whatever hook takes the stacks.

use core::{ffi::c_void, ptr};

use aya_ebpf::{
    EbpfContext as _,
    helpers::{
        bpf_get_current_comm, bpf_get_smp_processor_id, bpf_ktime_get_ns,
        generated::bpf_get_current_task_btf,
    },
    programs::BtfTracePointContext,
};
use profiler_common::{
    counter::Counter,
    event::{Kind, OPEN_AT_START},
    state::{ENDED, Ended, OFF_AT_START, Phase, SWEPT, Span, TASK_DEAD, ThreadId, ThreadState},
};

use crate::{
    capture, config, emit,
    maps::{DUE, Due, PENDING, PROCESSES, TARGETS, When, count, when},
    task::Task,
    threads, waker,
    walk::Looping,
};

/// `sched_switch(bool preempt, struct task_struct *prev, struct task_struct *next, prev_state)`.
#[inline(always)]
pub fn switch<L: Looping>(ctx: &BtfTracePointContext) {
    let prev = Task::new(ctx.arg(1));
    let next = Task::new(ctx.arg(2));
    let (prev_is_ours, next_is_ours) = (prev.is_watched(), next.is_watched());
    if !prev_is_ours && !next_is_ours {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    match when(now_ns) {
        When::Before => {}
        When::Within { start_ns } => {
            if prev_is_ours {
                forget_seen();
                switch_out::<L>(prev, task_state(prev, ctx), start_ns, now_ns, ctx.as_ptr());
            }
            if next_is_ours {
                switch_in(next, start_ns, now_ns, ctx.as_ptr());
            }
        }
        When::After { start_ns } => {
            if prev_is_ours {
                let _ = account(prev, Phase::Running, start_ns, prev.switches() - 1);
            }
            if next_is_ours {
                resume_late(next, start_ns, ctx.as_ptr());
            }
        }
    }
}

/// The state bits that the thread sleeps in, 0 if it was preempted or is still runnable.
#[inline(always)]
fn task_state(prev: Task, ctx: &BtfTracePointContext) -> u32 {
    let preempted = ctx.arg::<u64>(0) as u8 != 0;
    if preempted {
        0
    } else if config::has_prev_state() != 0 {
        ctx.arg::<u64>(3) as u32
    } else {
        prev.state()
    }
}

#[inline(always)]
fn switch_out<L: Looping>(
    prev: Task,
    task_state: u32,
    start_ns: u64,
    now_ns: u64,
    ctx: *mut c_void,
) {
    let switches = prev.switches();
    let Some(state) = account(prev, Phase::Running, start_ns, switches - 1) else { return };
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    state.switch_out(now_ns, task_state, cpu, switches);
    if task_state & TASK_DEAD != 0 {
        end_thread(state, prev, now_ns);
    } else if config::captures_at_switch_out() && task_state != 0 {
        capture::keep_at_switch_out::<L>(prev.key(), ctx);
    }
}

/// The last switch-out of a thread: `current` is still that thread. Its accounting stays in the
/// map, marked, where it could not be sent.
#[inline(always)]
fn end_thread(state: &mut ThreadState, task: Task, now_ns: u64) {
    state.flags |= ENDED;
    let comm = bpf_get_current_comm().unwrap_or([0; 16]);
    if config::captures_at_switch_out() {
        let _ = PENDING.remove(&task.key());
    }
    if emit::thread(Kind::ThreadEnded, now_ns, comm, state) && !threads::end(task) {
        // An accounting of no length is no accounting.
        state.from_ns = state.since_ns;
    }
}

#[inline(always)]
fn switch_in(next: Task, start_ns: u64, now_ns: u64, ctx: *mut c_void) {
    let tid = next.tid();
    let Some(due) = due(tid) else { return };
    let switches = next.switches();
    let Some(state) = account(next, Phase::Runnable, start_ns, switches) else { return };
    let from_start = state.flags & OFF_AT_START != 0 && state.since_ns == state.from_ns;
    let waits = state.phase == Phase::Waiting as u32;
    let Ended::Interval(span) = state.switch_in(now_ns, config::min_block_ns()) else { return };
    due.fill(Kind::Interval, state, waits, switches);
    due.span = span;
    if from_start {
        due.flags |= OPEN_AT_START;
    }
    hand_over(due, next.key(), ctx);
}

/// The first switch-in after the window of a thread that was off-CPU at its end: the stacks of the
/// interval that was open then can still be had, even if the sweep comes too late for it.
#[inline(always)]
fn resume_late(next: Task, start_ns: u64, ctx: *mut c_void) {
    let tid = next.tid();
    let Some(due) = due(tid) else { return };
    let switches = next.switches();
    let Some(state) = account(next, Phase::Runnable, start_ns, switches) else { return };
    if state.phase == Phase::Running as u32
        || state.flags & (SWEPT | ENDED) != 0
        || state.kernel_switches_last != switches
    {
        return;
    }
    state.flags |= SWEPT;
    let waits = state.phase == Phase::Waiting as u32;
    due.fill(Kind::Swept, state, waits, switches);
    due.span = Span::default();
    hand_over(due, next.key(), ctx);
}

/// The thread that was seen switched in on this CPU leaves it: should it come back unseen, it is not
/// to be taken for seen.
#[inline(always)]
fn forget_seen() {
    if let Some(due) = DUE.get_ptr_mut(0) {
        // SAFETY: a per-CPU value; see `due`.
        unsafe { (*due).seen_tid = 0 };
    }
}

/// In the resumed thread, whose switch-in `sched_switch` did not see: a kernel can keep programs
/// from running while certain threads are current, and it is the thread that leaves that is
/// current there.
#[inline(always)]
pub fn resumed_unseen(ctx: *mut c_void) {
    // SAFETY: the helper always returns the current task.
    let task = Task::new(unsafe { bpf_get_current_task_btf() }.cast());
    if !task.is_watched() {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    match when(now_ns) {
        When::Before => {}
        When::Within { start_ns } => switch_in(task, start_ns, now_ns, ctx),
        When::After { start_ns } => resume_late(task, start_ns, ctx),
    }
}

/// This CPU's hand-over, empty, for a switch to the thread `tid`. An interval that is still in it
/// was never taken: the kernel did not run the switch-in program.
#[inline(always)]
fn due(tid: u32) -> Option<&'static mut Due> {
    let due = DUE.get_ptr_mut(0)?;
    // SAFETY: a per-CPU value; the switch-in program of this context switch reads it, later.
    let due = unsafe { &mut *due };
    if due.tid != 0 && due.kind == Kind::Interval as u32 {
        count(Counter::IntervalsDropped);
    }
    due.tid = 0;
    due.seen_tid = tid;
    Some(due)
}

/// Leaves the interval to the switch-in program, or sends it with the stacks that were kept.
#[inline(always)]
fn hand_over(due: &mut Due, key: u64, ctx: *mut c_void) {
    if config::captures_at_switch_out() {
        capture::send_kept(due, key, ctx);
        due.tid = 0;
    }
}

/// `sched_waking(struct task_struct *p)`.
#[inline(always)]
pub fn waking<L: Looping>(ctx: &BtfTracePointContext) {
    let woken = Task::new(ctx.arg(0));
    if !woken.is_watched() {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let (start_ns, within) = match when(now_ns) {
        When::Before => return,
        When::Within { start_ns } => (start_ns, true),
        When::After { start_ns } => (start_ns, false),
    };
    let waited_ns = wake(woken, start_ns, now_ns, within);
    if waited_ns >= config::waker_min_ns() {
        waker::tell::<L>(woken, now_ns, ctx.as_ptr());
    }
}

/// Accounts for a wake-up; how long the thread had waited, 0 if it is not this that ends its wait.
#[inline(always)]
fn wake(woken: Task, start_ns: u64, now_ns: u64, within: bool) -> u64 {
    if let Some(state) = threads::find(woken) {
        if !within {
            return 0;
        }
        // SAFETY: a value of an array map. The thread's own switches are the other writers; the
        // scheduler orders them against its wake-up.
        return unsafe { (*state).wake(now_ns) };
    }
    // A thread on its way off a CPU was running: its switch-out, yet to come, is its first event.
    if woken.on_cpu() {
        return 0;
    }
    let Some(state) = account(woken, Phase::Waiting, start_ns, woken.switches()) else { return 0 };
    state.task_state = woken.state();
    if within { state.wake(now_ns) } else { 0 }
}

/// `sched_process_fork(struct task_struct *parent, struct task_struct *child)`.
#[inline(always)]
pub fn fork(ctx: &BtfTracePointContext) {
    let parent = Task::new(ctx.arg(0));
    if !parent.is_watched() || !parent.is_of_target() {
        return;
    }
    let child = Task::new(ctx.arg(1));
    let id = child.id();
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let state = ThreadState::born(now_ns, Phase::Runnable, id, 0);
    if id.tid == id.tgid {
        if config::only_tgid() != 0 {
            return;
        }
        if TARGETS.insert(&id.tgid, &child.start_time(), 0).is_err() {
            count(Counter::ThreadsUntracked);
            return;
        }
        emit::process(Kind::ProcessBorn, now_ns, &state);
    }
    if !matches!(when(now_ns), When::Within { .. }) {
        return;
    }
    if let Some(ended) = threads::find(child) {
        // A thread that ended, and had no room to say so, had the same place in memory.
        count(Counter::EventsDropped);
        // SAFETY: a value of an array map; nothing else happens to a thread that is being made.
        unsafe { *ended = state };
    } else if threads::begin(child, &state).is_none() {
        count(Counter::ThreadsUntracked);
    }
}

/// `sched_process_exec(struct task_struct *p, pid_t old_pid, struct linux_binprm *bprm)`.
///
/// The thread that calls `exec` becomes the process's only one and takes the leader's id. If that
/// is not its own, it is accounted as another thread from there on.
#[inline(always)]
pub fn exec(ctx: &BtfTracePointContext) {
    let task = Task::new(ctx.arg(0));
    if !task.is_watched() || !task.is_of_target() {
        return;
    }
    let id = task.id();
    // The mappings that are known are those of the program before.
    let _ = PROCESSES.remove(&id.tgid);
    let old_id = ThreadId { tid: ctx.arg::<u64>(1) as u32, tgid: id.tgid };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let switches = task.switches();
    let renewed = ThreadState::born(now_ns, Phase::Running, id, switches);
    emit::process(Kind::Exec, now_ns, &renewed);
    let When::Within { start_ns } = when(now_ns) else { return };
    if old_id.tid == id.tid && config::split_at_exec() == 0 {
        return;
    }
    let Some(state) = account(task, Phase::Running, start_ns, switches) else { return };
    state.tid = old_id.tid;
    let comm = bpf_get_current_comm().unwrap_or([0; 16]);
    let mut old = *state;
    old.leave(now_ns);
    if !emit::thread(Kind::ThreadEnded, now_ns, comm, &old) {
        count(Counter::EventsDropped);
    }
    *state = renewed;
}

/// `sched_process_free(struct task_struct *p)`: a process is gone when its leader is.
#[inline(always)]
pub fn free(ctx: &BtfTracePointContext) {
    let task = Task::new(ctx.arg(0));
    let id = task.id();
    if id.tid != id.tgid || !task.is_watched() {
        return;
    }
    let Some(start_time) = TARGETS.get_ptr(&id.tgid) else { return };
    // SAFETY: a value of a preallocated hash map, a single word.
    if unsafe { *start_time } != task.start_time() {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let _ = TARGETS.remove(&id.tgid);
    let _ = PROCESSES.remove(&id.tgid);
    emit::process(Kind::ProcessGone, now_ns, &ThreadState::born(now_ns, Phase::Running, id, 0));
}

/// The accounting of a thread; at its first event since the window began, a fresh one that says
/// it was in `phase` since then, or since its creation where no event told of that (threads that
/// the kernel makes for io_uring).
///
/// A first event after the end of the window tells the past just as well.
#[inline(always)]
pub fn account(
    task: Task,
    phase: Phase,
    start_ns: u64,
    switches_before: u64,
) -> Option<&'static mut ThreadState> {
    let known = threads::hinted(task);
    // SAFETY: a value of an array map. Only events of one thread touch it, and the scheduler orders
    // those; a wake-up that races is described in `ThreadState::wake`.
    if let Some(state) = known.map(|state| unsafe { &mut *state })
        && state.flags & ENDED == 0
    {
        return Some(state);
    }
    // SAFETY: as above, or null.
    unsafe { look_up(task.as_ptr(), phase, start_ns, switches_before).as_mut() }
}

/// [`account`] where there is no hint. A function of its own, so that what is rare does not lie in the
/// middle of what is not.
#[inline(never)]
extern "C" fn look_up(
    task: *mut c_void,
    phase: Phase,
    start_ns: u64,
    switches_before: u64,
) -> *mut ThreadState {
    let task = Task::new(task);
    let known = threads::find(task);
    if let Some(state) = known {
        // SAFETY: as in `account`.
        if unsafe { (*state).flags } & ENDED == 0 {
            return state;
        }
        // What ended had the same place in memory.
        count(Counter::EventsDropped);
    }
    if !task.is_of_target() {
        return ptr::null_mut();
    }
    let born_ns = task.start_time();
    let mut fresh = ThreadState::first_seen(start_ns, phase, task.id(), switches_before);
    if born_ns > start_ns {
        fresh = ThreadState::born(born_ns, phase, task.id(), switches_before);
    }
    let Some(state) = known.or_else(|| threads::begin(task, &fresh)) else {
        count(Counter::ThreadsUntracked);
        return ptr::null_mut();
    };
    if known.is_some() {
        // SAFETY: as in `account`.
        unsafe { *state = fresh };
    }
    state
}
