//! The end of a recording: the accounting of every thread, closed, and the waits still open.

use std::collections::HashSet;

use profiler_common::{
    counter::Counter,
    event::ThreadEvent,
    state::{ENDED, Ended, OFF_AT_START, Phase, Span, ThreadId, ThreadState},
};

use super::{Collector, bare};
use crate::{
    recording::{Interval, Record, file::WriteError},
    units::{Ktime, Nanos, Pid, Tid},
};

/// The phase of a thread of which nothing is known: no [`Phase`], so that its time goes into no
/// interval and is reported as unknown.
const UNKNOWN: u32 = 0;

impl Collector {
    /// Closes the accounting of every thread: `states` is what the kernel kept, and the roll-call
    /// and the sweep have been taken after `end`. Returns the end of the window: later than `end`
    /// if the kernel side heard of it late.
    ///
    /// # Errors
    /// If the recording cannot be written.
    pub fn close(
        &mut self,
        mut states: Vec<ThreadState>,
        end: Ktime,
        min_block: Nanos,
    ) -> Result<Ktime, WriteError> {
        let end_ns = states.iter().map(|state| state.since_ns).max().unwrap_or(0).max(end.0);
        let accounted: HashSet<u32> = states.iter().map(|state| state.tid).collect();
        let untracked = self
            .present
            .values()
            .filter(|event| event.state.from_ns < end_ns && !accounted.contains(&event.state.tid));
        states.extend(untracked.map(|event| self.untracked(event)));
        states.sort_unstable_by_key(|state| (state.tid, state.from_ns));
        let open: Vec<_> = self.open.before(self.start).collect();
        let mut refused =
            open.into_iter().try_for_each(|open| self.append(Record::OpenSince(open)));
        for state in states {
            refused = refused.and(self.close_thread(state, end_ns, min_block));
        }
        refused.map(|()| Ktime(end_ns))
    }

    fn close_thread(
        &mut self,
        mut state: ThreadState,
        end_ns: u64,
        min_block: Nanos,
    ) -> Result<(), WriteError> {
        let (pid, tid) = (Pid(state.tgid), Tid(state.tid));
        if state.flags & ENDED != 0 {
            // Its end found no room in the ring buffer; one of no length was sent after all.
            if state.from_ns == state.since_ns {
                return Ok(());
            }
            let name = self.name(&[0; 16], pid, tid);
            return self.totals(&state, name, false);
        }
        let phase = state.phase;
        let ended = state.close(end_ns, min_block.0);
        let mut written = Ok(());
        if phase == UNKNOWN {
            state.intervals = 0;
        } else if let Ended::Interval(span) = ended {
            written = self.open_interval(pid, tid, &state, span);
        }
        let comm = self.present.get(&tid).map(|event| event.comm);
        let name = self.name(&comm.unwrap_or_default(), pid, tid);
        written.and(self.totals(&state, name, !matches!(ended, Ended::Nothing)))
    }

    /// The accounting of a thread for which the kernel side had no room: nothing is known.
    fn untracked(&self, event: &ThreadEvent) -> ThreadState {
        let ThreadState { tid, tgid, from_ns, kernel_switches_last, .. } = event.state;
        let from_ns = from_ns.max(self.start.0);
        let id = ThreadId { tid, tgid };
        let mut state = ThreadState::born(from_ns, Phase::Waiting, id, kernel_switches_last);
        state.phase = UNKNOWN;
        state
    }

    /// An interval that had not ended when the window did, with the stacks of the sweep if the
    /// thread has not moved since.
    fn open_interval(
        &mut self,
        pid: Pid,
        tid: Tid,
        state: &ThreadState,
        span: Span,
    ) -> Result<(), WriteError> {
        let preempted = state.phase == Phase::Runnable as u32;
        let mut interval = Interval {
            task_state: state.task_state,
            preempted,
            open_at_start: span.out_ns == state.from_ns && state.flags & OFF_AT_START != 0,
            open_at_end: true,
            cpu_out: state.cpu_out,
            cpu_in: state.cpu_out,
            ..bare(pid, tid, span)
        };
        if let Some(swept) = self.swept.remove(&(tid, state.kernel_switches_last)) {
            interval.regs = swept.regs;
            interval.user_stack = swept.user_stack;
            interval.kernel_stack = swept.kernel_stack;
        } else if !preempted {
            self.lose(Counter::OpenWithoutStack);
        }
        self.record(interval)
    }
}
