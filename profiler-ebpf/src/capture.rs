//! Registers and stacks of a wait.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_smp_processor_id,
    generated::{bpf_get_stack, bpf_probe_read_user},
};
use profiler_common::{
    counter::Counter,
    event::{HAS_REGS, IntervalEvent, PREEMPTED, UserRegs},
    stack::{CHECK_SLICE_BYTES, KERNEL_FRAMES, PAGE_BYTES, USER_SLICE_BYTES, WalkEnd},
    state::Span,
};

use crate::{
    bounds::bounded,
    chain::Place,
    config, emit,
    maps::{CHECK_DRAFT, CHECK_ROOM, DRAFT, DUE, Draft, Due, PENDING, count},
    offcpu,
    task::{self, Task},
    walk::{self, Looping},
};

/// The switch-in program: sends the interval that `sched_switch` just ended for this thread. If
/// `sched_switch` did not see it, and it `recovers` that, it has the switch-in accounted first.
#[inline(always)]
pub fn resumed<L: Looping>(ctx: *mut c_void, recovers: bool) {
    let Some(due) = DUE.get_ptr_mut(0) else { return };
    let tid = bpf_get_current_pid_tgid() as u32;
    // SAFETY: a per-CPU value, written by `sched_switch` on this CPU within this context switch.
    if recovers && unsafe { (*due).seen_tid } != tid {
        offcpu::resumed_unseen(ctx);
    }
    // SAFETY: as above; nothing else refers to it any more.
    let due = unsafe { &mut *due };
    if due.tid == 0 || due.tid != tid {
        return;
    }
    if config::copy_always() != 0 {
        // SAFETY: the helper has no preconditions.
        let cpu = unsafe { bpf_get_smp_processor_id() };
        let Some(draft) = CHECK_DRAFT.get_ptr_mut(cpu) else { return };
        // SAFETY: as below.
        send::<L, _>(unsafe { &mut *draft }, due, ctx);
    } else {
        let Some(draft) = DRAFT.get_ptr_mut(0) else { return };
        // SAFETY: a value of this CPU; the hooks that use it run with preemption disabled.
        send::<L, _>(unsafe { &mut *draft }, due, ctx);
    }
}

#[inline(always)]
fn send<L: Looping, const BYTES: usize>(draft: &mut Draft<BYTES>, due: &mut Due, ctx: *mut c_void) {
    describe(draft, due);
    due.tid = 0;
    draft.event.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    if due.flags & PREEMPTED == 0 {
        take_stacks::<L, _>(draft, ctx);
    } else {
        without_stacks(draft);
    }
    emit::interval(draft, due.kind, ctx);
}

/// At switch-out, where that is the only place: keeps the stacks of a wait of unknown length.
#[inline(always)]
pub fn keep_at_switch_out<L: Looping>(key: u64, ctx: *mut c_void) {
    let draft = match PENDING.get_ptr_mut(&key) {
        Some(draft) => draft,
        None => {
            let Some(blank) = DRAFT.get_ptr_mut(0) else { return };
            // SAFETY: a per-CPU value, only copied from.
            let inserted = PENDING.insert(&key, unsafe { &*blank }, 0);
            match (inserted, PENDING.get_ptr_mut(&key)) {
                (Ok(()), Some(draft)) => draft,
                _ => {
                    count(Counter::CapturesRefused);
                    return;
                }
            }
        }
    };
    // SAFETY: a value of a preallocated hash map that only events of this thread touch.
    let draft = unsafe { &mut *draft };
    draft.event.flags = 0;
    draft.event.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    take_stacks::<L, _>(draft, ctx);
}

/// At the switch-in of a thread whose stacks were kept at switch-out: sends its interval.
#[inline(always)]
pub fn send_kept(due: &Due, key: u64, ctx: *mut c_void) {
    if due.flags & PREEMPTED == 0 {
        if let Some(draft) = PENDING.get_ptr_mut(&key) {
            // SAFETY: as in `keep_at_switch_out`.
            let draft = unsafe { &mut *draft };
            let kept = draft.event.flags & HAS_REGS;
            describe(draft, due);
            draft.event.flags |= kept;
            emit::interval(draft, due.kind, ctx);
            return;
        }
    }
    let Some(draft) = DRAFT.get_ptr_mut(0) else { return };
    // SAFETY: as in `resumed`.
    let draft = unsafe { &mut *draft };
    describe(draft, due);
    draft.event.comm = [0; 16];
    without_stacks(draft);
    emit::interval(draft, due.kind, ctx);
}

/// Everything about the interval but its stacks and the thread's name.
#[inline(always)]
fn describe<const BYTES: usize>(draft: &mut Draft<BYTES>, due: &Due) {
    draft.event.span = due.span;
    draft.event.tid = due.tid;
    draft.event.tgid = due.tgid;
    draft.event.task_state = due.task_state;
    draft.event.flags = due.flags;
    draft.event.cpu_out = due.cpu_out;
    // SAFETY: the helper has no preconditions.
    draft.event.cpu_in = unsafe { bpf_get_smp_processor_id() };
    draft.event.kernel_switches = due.kernel_switches;
}

/// What the current thread does at an instant: everything, its stacks too.
#[inline(always)]
pub fn take_moment<L: Looping, const BYTES: usize>(
    draft: &mut Draft<BYTES>,
    task: Task,
    at_ns: u64,
    ctx: *mut c_void,
) {
    draft.event.span = Span { out_ns: at_ns, wake_ns: at_ns, in_ns: at_ns };
    draft.event.tid = task.tid();
    draft.event.tgid = task.tgid();
    draft.event.task_state = 0;
    draft.event.flags = 0;
    // SAFETY: the helper has no preconditions.
    draft.event.cpu_in = unsafe { bpf_get_smp_processor_id() };
    draft.event.cpu_out = draft.event.cpu_in;
    draft.event.kernel_switches = task.switches();
    draft.event.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    take_stacks::<L, _>(draft, ctx);
}

#[inline(always)]
pub fn without_stacks<const BYTES: usize>(draft: &mut Draft<BYTES>) {
    draft.event.kernel_frames = 0;
    draft.event.user_frames = 0;
    draft.event.user_bytes = 0;
    draft.event.walk_end = WalkEnd::NotWalked as u32;
    draft.event.generation = 0;
    draft.event.by_frame_pointer = 0;
    draft.event.regs = UserRegs::default();
}

/// Registers, kernel stack and user frames of the current thread; a copy of its user stack where
/// the frames are not all that can be had.
#[inline(always)]
pub fn take_stacks<L: Looping, const BYTES: usize>(draft: &mut Draft<BYTES>, ctx: *mut c_void) {
    without_stacks(draft);
    let has_regs = task::current_user_regs(&mut draft.event.regs);
    take_kernel_stack::<L>(&mut draft.event, ctx);
    if !has_regs {
        count(Counter::RegistersMissing);
        return;
    }
    draft.event.flags |= HAS_REGS;
    walk::walk::<L, _>(draft);
    let is_whole = draft.event.walk_end == WalkEnd::Complete as u32
        || draft.event.walk_end == WalkEnd::TooDeep as u32;
    if !is_whole || config::copy_always() != 0 {
        take_user_slice(draft);
    }
}

#[inline(always)]
fn take_kernel_stack<L: Looping>(event: &mut IntervalEvent, ctx: *mut c_void) {
    if L::RECALLS {
        recall_kernel_stack::<L>(event, ctx);
    } else {
        unwind_kernel_stack::<L>(event, ctx);
    }
}

/// The kernel stack, if it can be from those that are known. A function of its own: the verifier goes
/// on in one state, however it went.
#[inline(never)]
extern "C" fn recall_kernel_stack<L: Looping>(event: *mut IntervalEvent, ctx: *mut c_void) -> u64 {
    // SAFETY: the one that `take_kernel_stack` has.
    let event = unsafe { &mut *event };
    let Some(mut place) = Place::look(event, ctx) else {
        unwind_kernel_stack::<L>(event, ctx);
        return 0;
    };
    let known = place.recall(event);
    if known && config::copy_always() != 0 {
        place.keep(event);
        unwind_kernel_stack::<L>(event, ctx);
        if !place.kept(event) {
            count(Counter::KernelStacksMistaken);
        }
    } else if !known {
        unwind_kernel_stack::<L>(event, ctx);
        place.learn(event);
    }
    0
}

#[inline(always)]
fn unwind_kernel_stack<L: Looping>(event: &mut IntervalEvent, ctx: *mut c_void) {
    let room = (8 * KERNEL_FRAMES) as u32;
    let frames = event.kernel.as_mut_ptr().cast();
    let skip = u64::from(config::kernel_stack_skip());
    // SAFETY: `frames` has room for `room` bytes.
    let bytes = unsafe { bpf_get_stack(ctx, frames, room, skip) };
    if bytes > 0 {
        event.kernel_frames = bytes as u32 / 8;
    } else if L::IN_KERNEL {
        count(Counter::KernelStackMissing);
    }
}

#[inline(always)]
fn take_user_slice<const BYTES: usize>(draft: &mut Draft<BYTES>) {
    let copied = copy_slice(draft, |to, bytes, from| {
        // SAFETY: `to` has room for a page, `bytes` is at most that; the helper checks `from`.
        unsafe { bpf_probe_read_user(to, bytes as u32, from) == 0 }
    });
    if copied == 0 {
        count(Counter::UserStackUnreadable);
    }
    draft.event.user_bytes = copied as u32;
}

/// Copies the user stack from the stack pointer upwards, page by page so that the end of the stack
/// costs only what lies beyond it. Returns the number of bytes copied.
#[inline(always)]
pub fn copy_slice<const BYTES: usize>(
    draft: &mut Draft<BYTES>,
    read: impl Fn(*mut c_void, u64, *const c_void) -> bool,
) -> u64 {
    let sp = draft.event.regs.sp;
    let user = draft.user.as_mut_ptr();
    let most = BYTES as u64 - PAGE_BYTES;
    let mut copied = 0_u64;
    // It can begin and end inside a page.
    for _ in 0..BYTES as u64 / PAGE_BYTES {
        if copied >= most {
            break;
        }
        let from = sp + copied;
        let to_page_end = PAGE_BYTES - (from & (PAGE_BYTES - 1));
        let room = most - copied;
        let bytes = bounded::<{ PAGE_BYTES as i32 * 2 - 1 }>(if to_page_end < room {
            to_page_end
        } else {
            room
        });
        let at = within::<BYTES>(copied);
        // SAFETY: `at` is inside the slice, behind which lies a spare page.
        let to = unsafe { user.add(at as usize) };
        if bytes > PAGE_BYTES || !read(to.cast(), bytes, from as *const c_void) {
            break;
        }
        copied += bytes;
    }
    copied
}

/// An offset inside a slice that has `BYTES` with its spare page.
#[inline(always)]
fn within<const BYTES: usize>(offset: u64) -> u64 {
    if BYTES == CHECK_ROOM {
        bounded::<{ CHECK_SLICE_BYTES as i32 - 1 }>(offset)
    } else {
        bounded::<{ USER_SLICE_BYTES as i32 - 1 }>(offset)
    }
}
