//! The bytes of the ring buffer as records.
#![expect(unsafe_code, reason = "reads the wire structs out of bytes")]

use profiler_common::{
    event::{Header, IntervalEvent, Kind, ThreadEvent, WakeEvent},
    stack::USER_FRAMES,
};

/// One record of the ring buffer. What comes with every interval is not copied.
#[derive(Debug)]
pub enum Event<'bytes> {
    /// An interval that ended.
    Interval(&'bytes IntervalEvent, UserPart<'bytes>),
    /// The registers and stacks of a thread that is off-CPU; no times.
    Swept(&'bytes IntervalEvent, UserPart<'bytes>),
    /// The registers and stacks of a thread on a CPU, at the end of its span.
    Sample(&'bytes IntervalEvent, UserPart<'bytes>),
    /// The registers and stacks of a thread that ends a wait, at the end of its span.
    Waker(&'bytes IntervalEvent, UserPart<'bytes>),
    /// A wait was ended; the kernel stack where that says by what, leaf first.
    Wake(&'bytes WakeEvent, &'bytes [u64]),
    /// A thread ended; its totals are final.
    ThreadEnded(ThreadEvent),
    /// A process replaced its program.
    Exec(ThreadEvent),
    /// A process that is watched too was forked.
    ProcessBorn(ThreadEvent),
    /// A watched process is gone.
    ProcessGone(ThreadEvent),
    /// The roll-call found a thread.
    Present(ThreadEvent),
}

/// What an interval's record holds of the user stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UserPart<'bytes> {
    /// The frames that the kernel side walked to, leaf first; with
    /// [`INTERRUPTED`](profiler_common::stack::INTERRUPTED) where they are no return addresses.
    pub frames: &'bytes [u64],
    /// A copy of the stack from the stack pointer upwards; empty if the frames are the whole stack.
    pub slice: &'bytes [u8],
}

/// Reads one record, or `None` if the bytes are none. They begin at a multiple of 8 in memory, as
/// everything in a ring buffer does.
pub fn parse(bytes: &[u8]) -> Option<Event<'_>> {
    // SAFETY: `Header` is integers without padding.
    let header: &Header = unsafe { view(bytes) }?;
    let bytes = bytes.get(..header.bytes as usize)?;
    let interval = || -> Option<(&IntervalEvent, UserPart<'_>)> {
        // SAFETY: `IntervalEvent` is integers without padding.
        let event: &IntervalEvent = unsafe { view(bytes) }?;
        let behind = bytes.get(size_of::<IntervalEvent>()..)?;
        let (frames, slice_bytes) = (event.user_frames as usize, event.user_bytes as usize);
        let entries = if slice_bytes > 0 { USER_FRAMES } else { frames };
        let (words, slice) = behind.split_at_checked(entries * 8)?;
        // SAFETY: every bit pattern is a number.
        let (unaligned, words, _) = unsafe { words.align_to::<u64>() };
        let whole = unaligned.is_empty()
            && slice.len() == slice_bytes
            && event.kernel_frames as usize <= event.kernel.len();
        let frames = words.get(..frames).filter(|_| whole)?;
        Some((event, UserPart { frames, slice }))
    };
    let wake = || -> Option<(&WakeEvent, &[u64])> {
        // SAFETY: `WakeEvent` is integers without padding.
        let event: &WakeEvent = unsafe { view(bytes) }?;
        let behind = bytes.get(size_of::<WakeEvent>()..)?;
        // SAFETY: every bit pattern is a number.
        let (unaligned, frames, rest) = unsafe { behind.align_to::<u64>() };
        let whole =
            unaligned.is_empty() && rest.is_empty() && frames.len() == event.kernel_frames as usize;
        whole.then_some((event, frames))
    };
    // SAFETY: `ThreadEvent` is integers without padding.
    let thread = || -> Option<ThreadEvent> { unsafe { view(bytes) }.copied() };
    match header.kind {
        kind if kind == Kind::Interval as u32 => {
            interval().map(|(event, user)| Event::Interval(event, user))
        }
        kind if kind == Kind::Swept as u32 => {
            interval().map(|(event, user)| Event::Swept(event, user))
        }
        kind if kind == Kind::Sample as u32 => {
            interval().map(|(event, user)| Event::Sample(event, user))
        }
        kind if kind == Kind::Waker as u32 => {
            interval().map(|(event, user)| Event::Waker(event, user))
        }
        kind if kind == Kind::Wake as u32 => {
            wake().map(|(event, kernel)| Event::Wake(event, kernel))
        }
        kind if kind == Kind::ThreadEnded as u32 => thread().map(Event::ThreadEnded),
        kind if kind == Kind::Exec as u32 => thread().map(Event::Exec),
        kind if kind == Kind::ProcessBorn as u32 => thread().map(Event::ProcessBorn),
        kind if kind == Kind::ProcessGone as u32 => thread().map(Event::ProcessGone),
        kind if kind == Kind::Present as u32 => thread().map(Event::Present),
        _ => None,
    }
}

/// # Safety
/// Every bit pattern must be a valid `T`.
unsafe fn view<T>(bytes: &[u8]) -> Option<&T> {
    let bytes = bytes.get(..size_of::<T>())?;
    let place = bytes.as_ptr().cast::<T>();
    // SAFETY: the slice holds enough bytes, aligned, and is borrowed for as long.
    place.is_aligned().then(|| unsafe { &*place })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A record in a buffer that is aligned.
    fn check(kind: u32, said: usize, bytes: usize, expected: bool) {
        let mut words = vec![0_u64; bytes.div_ceil(8)];
        words[0] = u64::from(kind) | (said as u64) << 32;
        // SAFETY: every bit pattern is a number.
        let (_, record, _) = unsafe { words.align_to::<u8>() };
        assert_eq!(parse(&record[..bytes]).is_some(), expected, "{kind} {said} {bytes}");
    }

    #[test]
    fn a_record_is_read_only_if_it_is_whole() {
        let (interval, swept) = (Kind::Interval as u32, Kind::Swept as u32);
        let present = Kind::Present as u32;
        let whole = size_of::<IntervalEvent>();
        check(interval, whole, whole, true);
        check(interval, whole - 1, whole - 1, false);
        check(interval, whole, whole - 1, false);
        // More bytes behind the struct than it says there are.
        check(swept, whole + 8, whole + 8, false);
        check(present, size_of::<ThreadEvent>(), size_of::<ThreadEvent>(), true);
        check(present, 40, 40, false);
        let (wake, bytes) = (Kind::Wake as u32, size_of::<WakeEvent>());
        check(wake, bytes, bytes, true);
        check(wake, bytes + 8, bytes + 8, false);
        check(wake, bytes - 8, bytes - 8, false);
        check(99, whole, whole, false);
        check(interval, 3, 3, false);
    }

    #[test]
    fn the_frames_lie_before_the_copy() {
        const COPY: usize = 24;
        let check = |frames: u32, copy: usize, room: usize, expected: Option<(usize, usize)>| {
            let event = IntervalEvent {
                header: Header {
                    kind: Kind::Interval as u32,
                    bytes: (size_of::<IntervalEvent>() + room * 8 + copy) as u32,
                },
                span: profiler_common::state::Span { out_ns: 0, wake_ns: 0, in_ns: 0 },
                regs: profiler_common::event::UserRegs::default(),
                tid: 0,
                tgid: 0,
                task_state: 0,
                flags: 0,
                cpu_out: 0,
                cpu_in: 0,
                kernel_frames: 0,
                user_frames: frames,
                user_bytes: copy as u32,
                walk_end: 0,
                generation: 0,
                by_frame_pointer: 0,
                kernel_switches: 0,
                comm: [0; 16],
                kernel: [0; profiler_common::stack::KERNEL_FRAMES],
            };
            // SAFETY: integers without padding.
            let head: [u64; size_of::<IntervalEvent>() / 8] = unsafe { std::mem::transmute(event) };
            let mut words = head.to_vec();
            words.extend((0..room as u64).chain(std::iter::repeat_n(7, copy / 8)));
            // SAFETY: every bit pattern is a number.
            let (_, record, _) = unsafe { words.align_to::<u8>() };
            let found = match parse(record) {
                Some(Event::Interval(_, user)) => Some((user.frames.len(), user.slice.len())),
                _ => None,
            };
            assert_eq!(found, expected, "{frames} {copy} {room}");
        };
        check(3, 0, 3, Some((3, 0)));
        check(3, COPY, USER_FRAMES, Some((3, COPY)));
        check(3, COPY, 3, None);
        check(3, 0, 4, None);
        check(USER_FRAMES as u32 + 1, COPY, USER_FRAMES, None);
    }
}
