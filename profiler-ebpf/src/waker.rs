//! What ends a wait, told from where it happens.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_comm, bpf_get_current_pid_tgid, bpf_get_current_task, bpf_probe_read_kernel,
    generated::bpf_get_stack,
};
use profiler_common::{
    event::{Kind, WakeContext},
    stack::KERNEL_FRAMES,
};

use crate::{
    capture, config, emit,
    maps::{WAKE, WAKER_DRAFT, Wake},
    task::Task,
    walk::Looping,
};

/// Tells that the present wake-up ends the wait of a thread.
///
/// The kernel stack of an interrupt says what kind it is. That of a thread says little, and comes
/// with the user stack where both are asked for.
#[inline(always)]
pub fn tell<L: Looping>(woken: Task, at_ns: u64, ctx: *mut c_void) {
    let Some(wake) = WAKE.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value; wake-ups are made with interrupts disabled, so that none is made in
    // the middle of another.
    let wake = unsafe { &mut *wake };
    let context = context(wake);
    let ids = bpf_get_current_pid_tgid();
    let event = &mut wake.event;
    event.at_ns = at_ns;
    event.woken_tid = woken.tid();
    event.woken_tgid = woken.tgid();
    event.tid = ids as u32;
    event.tgid = (ids >> 32) as u32;
    event.comm = bpf_get_current_comm().unwrap_or([0; 16]);
    event.context = context as u32;
    event.kernel_frames = 0;
    let by_thread = context as u32 == WakeContext::Thread as u32;
    let with_stacks = config::waker_stacks() != 0;
    let is_sent = with_stacks
        && context as u32 != WakeContext::Interrupt as u32
        && send_stacks::<L>(at_ns, ctx);
    if !is_sent && (with_stacks || !by_thread) {
        take_kernel_stack(wake, ctx);
    }
    emit::wake(wake);
}

/// The kernel stack of an interrupt, or of a thread. Most are those of timers, of which the first
/// function says all: unwinding the rest takes longer than everything else here.
#[inline(always)]
fn take_kernel_stack(wake: &mut Wake, ctx: *mut c_void) {
    let (timer, bytes) = (config::timer_wakes_at(), config::timer_wakes_bytes());
    if timer != 0 {
        wake.event.kernel_frames = unwind::<1>(wake, ctx);
        if wake.event.kernel_frames == 1 && wake.kernel[0].wrapping_sub(timer) <= bytes {
            return;
        }
    }
    wake.event.kernel_frames = unwind::<KERNEL_FRAMES>(wake, ctx);
}

/// The first return addresses behind the wake-up; how many there are.
#[inline(always)]
fn unwind<const FRAMES: usize>(wake: &mut Wake, ctx: *mut c_void) -> u32 {
    let frames = wake.kernel.as_mut_ptr().cast();
    // SAFETY: `kernel` has room for as many.
    let bytes = unsafe { bpf_get_stack(ctx, frames, (8 * FRAMES) as u32, SKIP) };
    if bytes > 0 { bytes as u32 / 8 } else { 0 }
}

/// What stands before the caller of the wake-up: the program, its trampoline, and
/// `try_to_wake_up`.
const SKIP: u64 = 3;

/// Sends the stacks of the current thread, if it is one of ours.
#[inline(always)]
fn send_stacks<L: Looping>(at_ns: u64, ctx: *mut c_void) -> bool {
    let Some(task) = Task::current() else { return false };
    if !task.is_watched() || !task.is_of_target() {
        return false;
    }
    let Some(draft) = WAKER_DRAFT.get_ptr_mut(0) else { return false };
    // SAFETY: as in `tell`.
    let draft = unsafe { &mut *draft };
    capture::take_moment::<L, _>(draft, task, at_ns, ctx);
    emit::interval(draft, Kind::Waker as u32, ctx)
}

/// In what context the program runs, by the preemption counter of this CPU.
#[inline(always)]
fn context(wake: &mut Wake) -> WakeContext {
    match preempt_count(wake) {
        Some(count) => WakeContext::of_preempt_count(count),
        None => WakeContext::Unknown,
    }
}

/// The counter lies in the CPU's own area of memory. So does its run queue, which each thread
/// leads to, and how far the two are apart is known.
#[inline(always)]
fn preempt_count(wake: &mut Wake) -> Option<u32> {
    let from_rq = config::preempt_count_from_rq();
    if from_rq == 0 {
        return None;
    }
    if wake.preempt_count_at == 0 {
        // SAFETY: the helper returns an address that is only read through a checked helper.
        let task = unsafe { bpf_get_current_task() };
        let cfs_rq = read_word(task, config::task_cfs_rq())?;
        wake.preempt_count_at = read_word(cfs_rq, config::cfs_rq_rq())?.wrapping_add(from_rq);
    }
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(wake.preempt_count_at as *const u32) }.ok()
}

#[inline(always)]
fn read_word(address: u64, offset: u32) -> Option<u64> {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(address.wrapping_add(u64::from(offset)) as *const u64) }.ok()
}
