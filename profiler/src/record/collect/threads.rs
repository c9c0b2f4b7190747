//! The names and the totals of threads.

use profiler_common::{
    counter::Counter,
    event::ThreadEvent,
    state::{OFF_AT_START, ThreadState},
};

use super::Collector;
use crate::{
    recording::{Record, ThreadName, ThreadTotals, file::WriteError},
    units::{Ktime, Nanos, Pid, Tid},
};

impl Collector {
    /// Takes the account of a thread that ended.
    pub(super) fn thread_ended(&mut self, event: &ThreadEvent) -> Result<(), WriteError> {
        if event.at_ns < self.start.0 {
            return Ok(());
        }
        let (pid, tid) = (Pid(event.state.tgid), Tid(event.state.tid));
        let name = self.name(&event.comm, pid, tid);
        self.names.remove(&(pid, tid));
        self.totals(&event.state, name, false)
    }

    /// Notes the name of a thread if it is new.
    pub(super) fn rename(
        &mut self,
        at: Ktime,
        comm: &[u8; 16],
        pid: Pid,
        tid: Tid,
    ) -> Result<(), WriteError> {
        if comm[0] == 0 || self.names.get(&(pid, tid)) == Some(comm) {
            return Ok(());
        }
        self.names.insert((pid, tid), *comm);
        self.append(Record::Thread(ThreadName { at, pid, tid, name: text(comm) }))
    }

    /// The name that the kernel just gave, else the last one known.
    pub(super) fn name(&self, comm: &[u8; 16], pid: Pid, tid: Tid) -> String {
        let known = if comm[0] == 0 { self.names.get(&(pid, tid)) } else { Some(comm) };
        known.map(text).unwrap_or_default()
    }

    /// Appends the account of a thread.
    pub(super) fn totals(
        &mut self,
        state: &ThreadState,
        name: String,
        open_at_end: bool,
    ) -> Result<(), WriteError> {
        let kernel_switches =
            state.kernel_switches_last.saturating_sub(state.kernel_switches_first);
        let outs_missed = kernel_switches.saturating_sub(state.switches);
        self.add(Counter::SwitchesMissed, outs_missed + state.ins_missed);
        self.add(Counter::WakeupsMissed, state.wakes_missed);
        self.append(Record::Totals(ThreadTotals {
            pid: Pid(state.tgid),
            tid: Tid(state.tid),
            name,
            from: Ktime(state.from_ns),
            to: Ktime(state.since_ns),
            running: Nanos(state.running_ns),
            runnable: Nanos(state.runnable_ns),
            waiting: Nanos(state.waiting_ns),
            short: Nanos(state.short_ns),
            switches: state.switches,
            kernel_switches,
            intervals: state.intervals,
            shorts: state.shorts,
            open_at_start: state.flags & OFF_AT_START != 0,
            open_at_end,
        }))
    }
}

/// A thread's name as the kernel keeps it: up to 15 bytes, ended by a zero.
pub(super) fn text(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}
