//! Where the accounting of a thread is.
//!
//! A look-up in a hash map is the dearest step of the accounting after the clock, and nearly every
//! event is of a thread that was met before: a hint says which slot it had, and the slot says
//! whose it is. The hash map decides for those that have no hint, and between CPUs that meet a
//! thread at the same time.

use aya_ebpf::bindings::BPF_NOEXIST;
use profiler_common::state::ThreadState;

use crate::{
    bounds::bounded,
    maps::{FREE_SLOTS, SLOT_HINTS, SLOT_HINTS_MAX, SLOTS, THREADS},
    task::Task,
};

/// The accounting of a thread, if the hint leads to it.
#[inline(always)]
pub fn hinted(task: Task) -> Option<*mut ThreadState> {
    // SAFETY: a word of an array map. CPUs that write it at the same time leave one of their
    // values, and what it says is compared below.
    let slot = SLOTS.get_ptr_mut(unsafe { *hint(task.tid())? })?;
    // SAFETY: a value of an array map; the key is a single word.
    unsafe { ((*slot).key == task.key()).then_some(&raw mut (*slot).state) }
}

/// The accounting of a thread, if it has one.
#[inline(always)]
pub fn find(task: Task) -> Option<*mut ThreadState> {
    if let Some(state) = hinted(task) {
        return Some(state);
    }
    // SAFETY: a value of a preallocated hash map, a single word.
    let number = unsafe { *THREADS.get_ptr(&task.key())? };
    let slot = SLOTS.get_ptr_mut(number)?;
    // SAFETY: as in `hinted`.
    unsafe {
        *hint(task.tid())? = number;
        Some(&raw mut (*slot).state)
    }
}

/// Begins the accounting of a thread. None if there is no room; that of another CPU if it was
/// first.
#[inline(always)]
pub fn begin(task: Task, state: &ThreadState) -> Option<*mut ThreadState> {
    let key = task.key();
    let number = FREE_SLOTS.pop().ok()??;
    let slot = SLOTS.get_ptr_mut(number)?;
    // SAFETY: the slot is nobody's.
    unsafe { (*slot).state = *state };
    if THREADS.insert(&key, &number, u64::from(BPF_NOEXIST)).is_ok() {
        // SAFETY: it is this thread's now. Only from here on a hint leads to it.
        unsafe { (*slot).key = key };
    } else {
        let _ = FREE_SLOTS.push(number, 0);
    }
    find(task)
}

/// Ends the accounting of a thread; false if the hash map was busy, and it stays.
#[inline(always)]
pub fn end(task: Task) -> bool {
    let key = task.key();
    let Some(number) = THREADS.get_ptr(&key) else { return true };
    // SAFETY: a value of a preallocated hash map, a single word.
    let number = unsafe { *number };
    if THREADS.remove(&key).is_err() {
        return false;
    }
    if let Some(slot) = SLOTS.get_ptr_mut(number) {
        // SAFETY: the slot is this thread's, whose last event this is.
        unsafe { (*slot).key = 0 };
        let _ = FREE_SLOTS.push(number, 0);
    }
    true
}

/// Threads of a process mostly have ids in a row, and so hints of their own.
#[inline(always)]
fn hint(tid: u32) -> Option<*mut u32> {
    let hints = SLOT_HINTS.get_ptr_mut(0)?;
    let at = bounded::<{ SLOT_HINTS_MAX as i32 - 1 }>(u64::from(tid));
    // SAFETY: there are that many.
    Some(unsafe { hints.cast::<u32>().add(at as usize) })
}
