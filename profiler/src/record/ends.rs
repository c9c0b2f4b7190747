//! How walks end, in the words of the recording.

use profiler_common::stack;

use crate::{
    recording::{StackEnd, Why},
    unwind::space::WalkEnd,
};

/// The end of a walk of a copied stack.
pub fn of_copy(end: WalkEnd) -> StackEnd {
    StackEnd::Incomplete(match end {
        WalkEnd::Complete => return StackEnd::Complete,
        WalkEnd::TooDeep => Why::TooDeep,
        WalkEnd::SliceTooShort => Why::SliceTooShort,
        WalkEnd::NoMapping(_) => Why::NoMapping,
        WalkEnd::Unsupported => Why::Unsupported,
        WalkEnd::Unreadable => Why::Unreadable,
        WalkEnd::NotAdvancing => Why::NotAdvancing,
        WalkEnd::RegisterLost => Why::RegisterLost,
        WalkEnd::BadFramePointer => Why::BadFramePointer,
    })
}

/// The end of a walk in the kernel, from
/// [`walk_end`](profiler_common::event::IntervalEvent::walk_end). One that is none counts as no
/// walk.
pub fn of_kernel(end: u32) -> StackEnd {
    const REASONS: [(stack::WalkEnd, Why); 8] = [
        (stack::WalkEnd::TooDeep, Why::TooDeep),
        (stack::WalkEnd::NoMapping, Why::NoMapping),
        (stack::WalkEnd::NoTable, Why::NoTable),
        (stack::WalkEnd::Unsupported, Why::Unsupported),
        (stack::WalkEnd::Unreadable, Why::Unreadable),
        (stack::WalkEnd::NotAdvancing, Why::NotAdvancing),
        (stack::WalkEnd::RegisterLost, Why::RegisterLost),
        (stack::WalkEnd::BadFramePointer, Why::BadFramePointer),
    ];
    if end == stack::WalkEnd::Complete as u32 {
        return StackEnd::Complete;
    }
    let why = REASONS.iter().find(|(kernel, _)| *kernel as u32 == end);
    StackEnd::Incomplete(why.map_or(Why::NotWalked, |(_, why)| *why))
}
