//! How many threads waited for one thing at any time.

use crate::units::Ktime;

/// The threads that waited, over time.
pub struct Queue {
    steps: Vec<Step>,
}

/// From an instant on so many waited.
struct Step {
    at: Ktime,
    depth: u64,
    /// Waiting time up to that instant.
    before_ns: u64,
}

impl Queue {
    /// The queue of these waits.
    pub fn new(waits: impl Iterator<Item = (Ktime, Ktime)>) -> Self {
        let mut turns: Vec<(Ktime, i64)> =
            waits.flat_map(|(from, to)| [(from, 1), (to, -1)]).collect();
        turns.sort_unstable();
        let mut steps: Vec<Step> = Vec::new();
        for (at, turn) in turns {
            let last = steps.last();
            let depth = last.map_or(0, |last| last.depth).saturating_add_signed(turn);
            match steps.last_mut() {
                Some(last) if last.at == at => last.depth = depth,
                last => {
                    let before_ns = last.map_or(0, |last| last.waiting_until(at));
                    steps.push(Step { at, depth, before_ns });
                }
            }
        }
        Self { steps }
    }

    /// Waiting time of all threads within a span.
    pub fn waiting_ns(&self, from: Ktime, to: Ktime) -> u64 {
        self.until(to).saturating_sub(self.until(from))
    }

    /// For how long two or more waited at once.
    pub fn queued_ns(&self) -> u64 {
        let spans = self.steps.windows(2).filter(|pair| pair[0].depth >= 2);
        spans.map(|pair| pair[1].at.since(pair[0].at).0).sum()
    }

    fn until(&self, at: Ktime) -> u64 {
        let after = self.steps.partition_point(|step| step.at <= at);
        after.checked_sub(1).map_or(0, |last| self.steps[last].waiting_until(at))
    }
}

impl Step {
    fn waiting_until(&self, at: Ktime) -> u64 {
        self.before_ns + self.depth * at.since(self.at).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```text
    ///     0    10   20   30   40
    /// a   |---------------|
    /// b        |----|              c begins as b ends
    /// c             |---------|
    /// ```
    #[test]
    fn waiting_time_is_that_of_all_threads() {
        let waits = [(0, 30), (10, 20), (20, 40)];
        let queue = Queue::new(waits.into_iter().map(|(from, to)| (Ktime(from), Ktime(to))));
        let check = |from, to, expected| {
            assert_eq!(queue.waiting_ns(Ktime(from), Ktime(to)), expected, "{from}..{to}");
        };
        check(0, 40, 60);
        check(5, 15, 15);
        check(35, 100, 5);
        check(40, 100, 0);
        check(15, 15, 0);
        assert_eq!(queue.queued_ns(), 20);
        assert_eq!(Queue::new(std::iter::empty()).queued_ns(), 0);
    }
}
