//! What runs, looked at from time to time.

use core::ffi::c_void;

use aya_ebpf::helpers::{bpf_ktime_get_ns, generated::bpf_get_current_task_btf};
use profiler_common::event::Kind;

use crate::{
    capture, emit,
    maps::{SAMPLE_DRAFT, When, when},
    task::Task,
    walk::ForSample,
};

/// Sends the stacks of the thread that the clock of this CPU interrupted, if it is ours.
#[inline(always)]
pub fn take(ctx: *mut c_void) {
    // SAFETY: the helper always returns the current task.
    let task = Task::new(unsafe { bpf_get_current_task_btf() }.cast());
    if !task.is_watched() || !task.is_of_target() {
        return;
    }
    // SAFETY: the helper has no preconditions.
    let now_ns = unsafe { bpf_ktime_get_ns() };
    if !matches!(when(now_ns), When::Within { .. }) {
        return;
    }
    let Some(draft) = SAMPLE_DRAFT.get_ptr_mut(0) else { return };
    // SAFETY: a per-CPU value that only this program uses; the clock does not interrupt itself.
    let draft = unsafe { &mut *draft };
    capture::take_moment::<ForSample, _>(draft, task, now_ns, ctx);
    emit::interval(draft, Kind::Sample as u32, ctx);
}
