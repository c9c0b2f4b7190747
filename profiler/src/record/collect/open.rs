//! Since when threads are off-CPU that were so when the window began.

use std::collections::{HashMap, hash_map::Entry};

use profiler_common::event::ThreadEvent;

use crate::{
    recording::OpenSince,
    units::{Ktime, Pid, Tid},
};

/// What roll-calls told, on the scheduler's clock.
#[derive(Debug, Default)]
pub struct OpenWaits {
    /// When each thread left its CPU, and when it was created on the clock of the window.
    left: HashMap<(Pid, Tid), (u64, Ktime)>,
    /// How far the clock of the window is ahead of the scheduler's. Every thread that is told of
    /// gives a figure that is too large by how long the visitor had its CPU by then.
    ahead_ns: Option<i128>,
}

impl OpenWaits {
    /// Takes what a roll-call told of a thread.
    pub fn hear(&mut self, event: &ThreadEvent) {
        let ThreadEvent { at_ns, state, .. } = *event;
        if state.wake_ns == 0 {
            return;
        }
        let ahead_ns = i128::from(at_ns) - i128::from(state.wake_ns);
        self.ahead_ns = Some(self.ahead_ns.map_or(ahead_ns, |least| least.min(ahead_ns)));
        if state.since_ns == 0 {
            return;
        }
        // A later roll-call tells of a later wait, or the same.
        if let Entry::Vacant(entry) = self.left.entry((Pid(state.tgid), Tid(state.tid))) {
            entry.insert((state.since_ns, Ktime(state.from_ns)));
        }
    }

    /// The waits that had begun before `start`.
    pub fn before(&self, start: Ktime) -> impl Iterator<Item = OpenSince> {
        let ahead_ns = self.ahead_ns.unwrap_or_default();
        self.left.iter().filter_map(move |(&(pid, tid), &(left_ns, created))| {
            let since = u64::try_from(i128::from(left_ns) + ahead_ns).unwrap_or_default();
            let since = Ktime(since).max(created);
            (since < start).then_some(OpenSince { pid, tid, since })
        })
    }
}

#[cfg(test)]
mod tests {
    use profiler_common::{
        event::{Header, Kind},
        state::{Phase, ThreadId, ThreadState},
    };

    use super::*;

    /// What a roll-call tells of a thread created at 5: now, when it left its CPU, and when the
    /// visitor got one.
    fn present(tid: u32, at_ns: u64, left_ns: u64, visitor_ns: u64) -> ThreadEvent {
        let id = ThreadId { tid, tgid: 1 };
        let mut state = ThreadState::first_seen(5, Phase::Waiting, id, 0);
        (state.since_ns, state.wake_ns) = (left_ns, visitor_ns);
        let header = Header { kind: Kind::Present as u32, bytes: 0 };
        ThreadEvent { header, at_ns, comm: [0; 16], state }
    }

    #[test]
    fn the_least_distance_of_the_clocks_is_the_best() {
        let check = |events: &[ThreadEvent], expected: &[(u32, u64)]| {
            let mut open = OpenWaits::default();
            for event in events {
                open.hear(event);
            }
            let mut found: Vec<_> =
                open.before(Ktime(1000)).map(|open| (open.tid.0, open.since.0)).collect();
            found.sort_unstable();
            assert_eq!(found, expected);
        };
        // The scheduler's clock is 100 behind; the visitor had run for 7, then 30.
        let visited = [present(2, 1007, 400, 900), present(3, 1030, 890, 900)];
        check(&visited, &[(2, 507), (3, 997)]);
        // The scheduler's clock is ahead.
        check(&[present(2, 1001, 3400, 3000)], &[]);
        check(&[present(2, 1001, 2400, 3000)], &[(2, 401)]);
        // It was off-CPU within the window only.
        check(&[present(2, 1001, 950, 900)], &[]);
        // Nothing is older than the thread.
        check(&[present(2, 1000, 10, 1100)], &[(2, 5)]);
        // The kernel does not tell.
        check(&[present(2, 1000, 0, 900), present(3, 1000, 500, 0)], &[]);
        // Only the first wait of a thread can have been open at the start.
        check(&[present(2, 1000, 400, 900), present(2, 3000, 2890, 2900)], &[(2, 500)]);
    }
}
