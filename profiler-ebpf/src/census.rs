//! Which threads exist, and what those that sleep are doing.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_ktime_get_ns,
    generated::{bpf_copy_from_user_task, bpf_get_task_stack},
};
use profiler_common::{
    event::{HAS_REGS, Kind},
    stack::KERNEL_FRAMES,
    state::{Phase, TASK_DEAD, ThreadState},
};

use crate::{
    capture, emit,
    maps::{Draft, SLICE_ROOM, SWEEP_DRAFT, TARGETS, When, when},
    offcpu,
    task::{self, Task},
    threads,
};

/// What an iterator program says of the thread it was shown.
#[derive(Clone, Copy)]
#[repr(i32)]
pub enum Visited {
    /// The next one, please.
    Done = 0,
    /// There was no room in the ring buffer: this one again, later. The kernel ends the `read` that
    /// drives the iterator with `EAGAIN`, and the next one begins with the same thread.
    Again = 1,
}

impl Visited {
    #[inline(always)]
    fn if_sent(sent: bool) -> Self {
        if sent { Self::Done } else { Self::Again }
    }
}

/// The task of one step of a task iterator (`struct bpf_iter__task`), null at the end.
#[inline(always)]
fn visited(ctx: *mut c_void) -> Option<Task> {
    // SAFETY: the context of a task iterator is two pointers: its own bookkeeping, and the task.
    let task = unsafe { *ctx.cast::<*const c_void>().add(1) };
    if task.is_null() { None } else { Some(Task::new(task)) }
}

/// Reports a thread of a watched process, and begins its accounting if it had no event since the
/// window began: then it does what it did all along.
///
/// Before the window nobody needs to be told; that roll-call learns which process is meant: the
/// user side enters ids with a start time of 0.
#[inline(always)]
pub fn roll_call(ctx: *mut c_void) -> Visited {
    let Some(task) = visited(ctx).filter(|task| is_meant(*task)) else { return Visited::Done };
    let phase = if task.on_cpu() {
        Phase::Running
    } else if task.state() == 0 {
        Phase::Runnable
    } else {
        Phase::Waiting
    };
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    let start_ns = match when(now_ns) {
        When::Before => return Visited::Done,
        When::Within { start_ns } | When::After { start_ns } => start_ns,
    };
    if threads::find(task).is_none()
        && let Some(state) = offcpu::account(task, phase, start_ns, task.switches())
        && state.switches == 0
    {
        state.task_state = task.state();
    }
    let mut state = ThreadState::first_seen(task.start_time(), phase, task.id(), task.switches());
    state.task_state = task.state();
    state.wake_ns = Task::current().map_or(0, Task::got_cpu_at);
    if !matches!(phase, Phase::Running) {
        state.since_ns = task.left_cpu_at();
    }
    Visited::if_sent(emit::thread(Kind::Present, now_ns, task.comm(), &state))
}

/// Whether the thread lives and belongs to the watched process that is meant, which the first
/// roll-call settles.
#[inline(always)]
fn is_meant(task: Task) -> bool {
    let Some(start_time) = TARGETS.get_ptr_mut(&task.tgid()) else { return false };
    // SAFETY: a value of a preallocated hash map, a single word that only roll-calls write.
    unsafe {
        if *start_time == 0 {
            *start_time = task.process_start_time();
        }
        // A thread that ended but was not waited for is still there to be visited.
        *start_time == task.process_start_time() && task.state() & TASK_DEAD == 0
    }
}

/// Reports the registers and stacks of a thread of a watched process that is off-CPU. The reader
/// decides by the switch counter whether they belong to the wait it knows of.
#[inline(always)]
pub fn sweep(ctx: *mut c_void) -> Visited {
    match visited(ctx).filter(|task| sleeps(*task)).and_then(look_at) {
        Some(draft) => Visited::if_sent(emit::interval(draft, Kind::Swept as u32, ctx)),
        None => Visited::Done,
    }
}

/// Whether the thread is one of ours, lives, and is off-CPU of its own will.
#[inline(always)]
fn sleeps(task: Task) -> bool {
    task.is_watched()
        && task.is_of_target()
        && !task.on_cpu()
        && task.state() != 0
        && task.state() & TASK_DEAD == 0
}

/// The registers and stacks of a thread that sleeps; none if it moved on meanwhile.
#[inline(always)]
fn look_at(task: Task) -> Option<&'static mut Draft<SLICE_ROOM>> {
    // SAFETY: only the sweep uses it, and the reader runs one sweep at a time.
    let draft = unsafe { &mut *SWEEP_DRAFT.get_ptr_mut(0)? };
    capture::without_stacks(draft);
    draft.event.tid = task.tid();
    draft.event.tgid = task.tgid();
    draft.event.task_state = task.state();
    draft.event.flags = 0;
    draft.event.kernel_switches = task.switches();
    draft.event.comm = task.comm();
    let room = (8 * KERNEL_FRAMES) as u32;
    // SAFETY: the buffer has `room` bytes; the task is a typed pointer.
    let bytes = unsafe {
        bpf_get_task_stack(task.as_ptr(), draft.event.kernel.as_mut_ptr().cast(), room, 0)
    };
    if bytes > 0 {
        draft.event.kernel_frames = bytes as u32 / 8;
    }
    if task::user_regs(task.as_ptr(), &mut draft.event.regs) {
        draft.event.flags |= HAS_REGS;
        draft.event.user_bytes = capture::copy_slice(draft, |to, bytes, from| {
            // SAFETY: `to` has room for a page, `bytes` is at most that; the helper checks `from`.
            unsafe { bpf_copy_from_user_task(to, bytes as u32, from, task.as_ptr(), 0) == 0 }
        }) as u32;
    }
    let still_there = task.switches() == draft.event.kernel_switches && !task.on_cpu();
    still_there.then_some(draft)
}
