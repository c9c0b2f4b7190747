//! Records into the ring buffer; every one that does not fit is counted.

use core::ffi::c_void;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::generated::{bpf_ringbuf_output, bpf_ringbuf_query},
};
use aya_log_ebpf::debug;
use profiler_common::{
    counter::Counter,
    event::{Header, IntervalEvent, Kind, ThreadEvent, WakeEvent},
    stack::{KERNEL_FRAMES, PAGE_BYTES, USER_FRAMES},
    state::ThreadState,
};

use crate::{
    config,
    maps::{Draft, EVENTS, Wake, count},
};

/// Sends a drafted interval of the given [`Kind`] with as many user frames, and as much of the
/// user stack, as it holds; false if there was no room.
#[inline(always)]
pub fn interval<const BYTES: usize>(draft: &mut Draft<BYTES>, kind: u32, ctx: *mut c_void) -> bool {
    let user_bytes = at_most(draft.event.user_bytes, BYTES - PAGE_BYTES as usize);
    let frames = if user_bytes > 0 {
        USER_FRAMES as u64
    } else {
        at_most(draft.event.user_frames, USER_FRAMES)
    };
    let bytes = size_of::<IntervalEvent>() as u64 + 8 * frames + user_bytes;
    draft.event.header = Header { kind, bytes: bytes as u32 };
    let sent = send((&raw mut *draft).cast(), bytes, wake_at_next_mark(bytes));
    if !sent {
        // The visit comes again for a swept stack.
        if kind == Kind::Interval as u32 {
            count(Counter::IntervalsDropped);
        } else if kind == Kind::Sample as u32 {
            count(Counter::SamplesDropped);
        }
        debug!(&Ctx(ctx), "ring buffer full: event of thread {} dropped", draft.event.tid);
    }
    sent
}

#[inline(always)]
fn at_most(count: u32, most: usize) -> u64 {
    let (count, most) = (u64::from(count), most as u64);
    if count > most { most } else { count }
}

/// Sends the end of a wait, or counts it.
#[inline(always)]
pub fn wake(wake: &mut Wake) {
    let frames = at_most(wake.event.kernel_frames, KERNEL_FRAMES);
    let bytes = size_of::<WakeEvent>() as u64 + 8 * frames;
    wake.event.header = Header { kind: Kind::Wake as u32, bytes: bytes as u32 };
    if !send((&raw mut *wake).cast(), bytes, wake_at_next_mark(bytes)) {
        count(Counter::WakersDropped);
    }
}

/// Sends a thread's accounting; false if there was no room.
#[inline(always)]
pub fn thread(kind: Kind, at_ns: u64, comm: [u8; 16], state: &ThreadState) -> bool {
    let bytes = size_of::<ThreadEvent>() as u32;
    let header = Header { kind: kind as u32, bytes };
    let event = ThreadEvent { header, at_ns, comm, state: *state };
    // The reader has to look at a process at once.
    let at_once = matches!(kind, Kind::ProcessBorn | Kind::Exec);
    let wakes = u64::from(if at_once { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP });
    send((&raw const event).cast_mut().cast(), u64::from(bytes), wakes)
}

/// Sends that something happened to a process; counts it if there was no room.
#[inline(always)]
pub fn process(kind: Kind, at_ns: u64, state: &ThreadState) {
    if !thread(kind, at_ns, [0; 16], state) {
        count(Counter::EventsDropped);
    }
}

/// Whether the reader is woken for a record. It looks by itself from time to time, and a wake-up is
/// an interrupt: some 10 us, as much as several stacks. So it is woken only each time that a part
/// of the ring buffer has filled up meanwhile.
#[inline(always)]
fn wake_at_next_mark(bytes: u64) -> u64 {
    // SAFETY: the map is a ring buffer.
    let filled = unsafe { bpf_ringbuf_query((&raw const EVENTS).cast_mut().cast(), AVAIL_DATA) };
    let marks_passed = (filled ^ (filled + bytes)) >> config::ring_mark_bits();
    u64::from(if marks_passed != 0 { BPF_RB_FORCE_WAKEUP } else { BPF_RB_NO_WAKEUP })
}

const AVAIL_DATA: u64 = BPF_RB_AVAIL_DATA as u64;

#[inline(always)]
fn send(data: *mut c_void, bytes: u64, wakes: u64) -> bool {
    // SAFETY: `data` points to `bytes` initialized bytes of a map value or of the program's stack,
    // which the verifier checks again.
    unsafe { bpf_ringbuf_output((&raw const EVENTS).cast_mut().cast(), data, bytes, wakes) == 0 }
}

/// The log macros want an [`aya_ebpf::EbpfContext`].
struct Ctx(*mut c_void);

impl aya_ebpf::EbpfContext for Ctx {
    fn as_ptr(&self) -> *mut c_void {
        self.0
    }
}
