//! Records as version 1 of the format had them.

use serde::Deserialize;

use crate::recording::facts::{
    Counters, End, Interval, KernelStack, Mapping, Module, Names, RawFrame, Record, Session,
    StackEnd, ThreadName, ThreadTotals, UserStack, UserStackId, Why,
};

/// A record; only [`UserStack`] was another.
#[derive(Deserialize)]
pub enum Record1 {
    Session(Session),
    Thread(ThreadName),
    Module(Module),
    Mapping(Mapping),
    UserStack(UserStack1),
    KernelStack(KernelStack),
    Interval(Interval),
    Totals(ThreadTotals),
    Counters(Counters),
    Names(Names),
    End(End),
}

/// A user stack that does not say why it is not whole.
#[derive(Deserialize)]
pub struct UserStack1 {
    id: UserStackId,
    frames: Vec<RawFrame>,
    end: StackEnd1,
}

#[derive(Deserialize)]
enum StackEnd1 {
    Complete,
    Truncated,
    Broken,
}

impl From<Record1> for Record {
    fn from(record: Record1) -> Self {
        match record {
            Record1::Session(session) => Self::Session(session),
            Record1::Thread(thread) => Self::Thread(thread),
            Record1::Module(module) => Self::Module(module),
            Record1::Mapping(mapping) => Self::Mapping(mapping),
            Record1::UserStack(stack) => Self::UserStack(stack.into()),
            Record1::KernelStack(stack) => Self::KernelStack(stack),
            Record1::Interval(interval) => Self::Interval(interval),
            Record1::Totals(totals) => Self::Totals(totals),
            Record1::Counters(counters) => Self::Counters(counters),
            Record1::Names(names) => Self::Names(names),
            Record1::End(end) => Self::End(end),
        }
    }
}

impl From<UserStack1> for UserStack {
    fn from(UserStack1 { id, frames, end }: UserStack1) -> Self {
        let end = match end {
            StackEnd1::Complete => StackEnd::Complete,
            StackEnd1::Truncated => StackEnd::Incomplete(Why::TruncatedUntold),
            StackEnd1::Broken => StackEnd::Incomplete(Why::BrokenUntold),
        };
        Self { id, frames, end, by_frame_pointer: 0 }
    }
}
