//! The bytes of the ring buffer as records.
#![expect(unsafe_code, reason = "reads the wire structs out of bytes")]

use profiler_common::{
    event::{Header, IntervalEvent, Kind, ThreadEvent},
    stack::USER_FRAMES,
};

/// One record of the ring buffer.
#[derive(Debug)]
pub enum Event<'bytes> {
    /// An interval that ended.
    Interval(Box<IntervalEvent>, UserPart<'bytes>),
    /// The registers and stacks of a thread that is off-CPU; no times.
    Swept(Box<IntervalEvent>, UserPart<'bytes>),
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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserPart<'bytes> {
    /// The frames that the kernel side walked to, leaf first; with
    /// [`INTERRUPTED`](profiler_common::stack::INTERRUPTED) where they are no return addresses.
    pub frames: Vec<u64>,
    /// A copy of the stack from the stack pointer upwards; empty if the frames are the whole stack.
    pub slice: &'bytes [u8],
}

/// Reads one record, or `None` if the bytes are none.
pub fn parse(bytes: &[u8]) -> Option<Event<'_>> {
    // SAFETY: `Header` is integers without padding.
    let header: Header = unsafe { read(bytes) }?;
    let bytes = bytes.get(..header.bytes as usize)?;
    let interval = || -> Option<(Box<IntervalEvent>, UserPart<'_>)> {
        // SAFETY: `IntervalEvent` is integers without padding.
        let event: IntervalEvent = unsafe { read(bytes) }?;
        let behind = bytes.get(size_of::<IntervalEvent>()..)?;
        let (frames, slice_bytes) = (event.user_frames as usize, event.user_bytes as usize);
        let entries = if slice_bytes > 0 { USER_FRAMES } else { frames };
        let (words, slice) = behind.split_at_checked(entries * 8)?;
        let whole = slice.len() == slice_bytes
            && frames <= entries
            && event.kernel_frames as usize <= event.kernel.len();
        let (words, _) = words.as_chunks();
        let frames = words.iter().take(frames).map(|word| u64::from_le_bytes(*word)).collect();
        whole.then(|| (Box::new(event), UserPart { frames, slice }))
    };
    // SAFETY: `ThreadEvent` is integers without padding.
    let thread = || -> Option<ThreadEvent> { unsafe { read(bytes) } };
    match header.kind {
        kind if kind == Kind::Interval as u32 => {
            interval().map(|(event, user)| Event::Interval(event, user))
        }
        kind if kind == Kind::Swept as u32 => {
            interval().map(|(event, user)| Event::Swept(event, user))
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
unsafe fn read<T: Copy>(bytes: &[u8]) -> Option<T> {
    let bytes = bytes.get(..size_of::<T>())?;
    // SAFETY: the slice holds enough bytes; unaligned reads are meant.
    Some(unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: u32, bytes: usize) -> Vec<u8> {
        let mut record = vec![0; bytes];
        record[..4].copy_from_slice(&kind.to_le_bytes());
        record[4..8].copy_from_slice(&(bytes as u32).to_le_bytes());
        record
    }

    #[test]
    fn a_record_is_read_only_if_it_is_whole() {
        let interval = size_of::<IntervalEvent>();
        let check = |bytes: &[u8], expected: bool| assert_eq!(parse(bytes).is_some(), expected);
        check(&record(Kind::Interval as u32, interval), true);
        check(&record(Kind::Interval as u32, interval - 1), false);
        // More bytes behind the struct than it says there are.
        check(&record(Kind::Swept as u32, interval + 8), false);
        check(&record(Kind::Present as u32, size_of::<ThreadEvent>()), true);
        check(&record(Kind::Present as u32, size_of::<ThreadEvent>())[..40], false);
        check(&record(99, interval), false);
        check(&[1, 0, 0], false);
    }
}
