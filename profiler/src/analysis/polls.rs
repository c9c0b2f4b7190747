//! Long polls: how long a worker stayed in a task without a sign that it came out of it.
//!
//! Waits and samples show a worker in a task at some instants. Between two of them that show the same
//! task it stayed in it, unless it was seen elsewhere, or ran for too long unseen: such a *stretch*
//! is one poll, or several of one task in a row. A wait that is long enough by itself is surely
//! within one.

use std::collections::HashMap;

use super::{
    judge::Judged,
    report::{LongPolls, Role, State},
};
use crate::{
    recording::{Interval, Recording, Sample},
    units::{Ktime, Nanos, Pid, Tid},
};

/// A worker that ran for longer than this between two waits in one task may have come out of it.
const UNSEEN_NS: u64 = 1_000_000;

/// The time that a poll may take by default.
const LONG_POLL: Nanos = Nanos(10_000_000);

/// From which length on a poll is long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPoll(pub Nanos);

impl Default for LongPoll {
    fn default() -> Self {
        Self(LONG_POLL)
    }
}

/// What a thread was seen doing, at an instant or through a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen<'a> {
    from: u64,
    /// When it waited no longer.
    wake: u64,
    to: u64,
    what: What<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What<'a> {
    /// In a task, as a worker.
    Task(Option<&'a str>),
    /// It wanted a CPU; where it was is not known.
    Preempted,
    /// Anything else.
    Elsewhere,
}

/// A span in which a worker was in one task whenever it was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stretch<'a> {
    task: Option<&'a str>,
    from: u64,
    to: u64,
    waiting: u64,
    runnable: u64,
    /// The longest wait, with the run queue after it.
    longest: u64,
    samples: u64,
}

/// The long polls of a pool while they are added up.
#[derive(Debug, Default)]
pub struct Polls<'a> {
    by_task: HashMap<Option<&'a str>, LongPolls>,
}

/// The samples of a recording by thread, in order of time, as indices.
pub fn samples_by_thread(recording: &Recording) -> HashMap<(Pid, Tid), Vec<usize>> {
    let mut by_thread: HashMap<_, Vec<usize>> = HashMap::new();
    for (index, sample) in recording.samples.iter().enumerate() {
        by_thread.entry((sample.pid, sample.tid)).or_default().push(index);
    }
    by_thread
}

impl<'a> Polls<'a> {
    /// Adds the long polls of one thread: its intervals with the role it had in each, and its samples.
    pub fn add(
        &mut self,
        recording: &'a Recording,
        judged: &'a Judged,
        intervals: &[(usize, Role)],
        samples: &[usize],
        long: LongPoll,
    ) {
        let mut seen: Vec<Seen<'_>> = intervals
            .iter()
            .map(|(index, role)| of_interval(judged, *index, *role, &recording.intervals[*index]))
            .chain(
                samples.iter().map(|index| of_sample(judged, *index, &recording.samples[*index])),
            )
            .collect();
        seen.sort_by_key(|seen| seen.from);
        let unseen = recording.sampling.map_or(UNSEEN_NS, |sampling| {
            // Two that were missed in a row are a sign.
            UNSEEN_NS.max(2_000_000_000 / u64::from(sampling.frequency.max(1)))
        });
        for stretch in stretches(&seen, unseen) {
            if stretch.to - stretch.from >= long.0.0 {
                self.count(&stretch, long);
            }
        }
    }

    fn count(&mut self, stretch: &Stretch<'a>, long: LongPoll) {
        let polls = self.by_task.entry(stretch.task).or_insert_with(|| LongPolls {
            pool: 0,
            task: stretch.task.map(str::to_owned),
            count: 0,
            certain: 0,
            total_ns: 0,
            max_ns: 0,
            running_ns: 0,
            runnable_ns: 0,
            waiting_ns: 0,
            samples: 0,
        });
        let length = stretch.to - stretch.from;
        polls.count += 1;
        polls.certain += u64::from(stretch.longest >= long.0.0);
        polls.total_ns += length;
        polls.max_ns = polls.max_ns.max(length);
        polls.runnable_ns += stretch.runnable;
        polls.waiting_ns += stretch.waiting;
        polls.running_ns += length - stretch.runnable - stretch.waiting;
        polls.samples += stretch.samples;
    }

    /// All of them, those of the pool with this number, the longest in all first.
    pub fn finish(self, pool: u32) -> Vec<LongPolls> {
        let mut all: Vec<_> =
            self.by_task.into_values().map(|polls| LongPolls { pool, ..polls }).collect();
        all.sort_by(|a, b| b.total_ns.cmp(&a.total_ns).then_with(|| a.task.cmp(&b.task)));
        all
    }
}

fn of_interval<'a>(judged: &'a Judged, index: usize, role: Role, interval: &Interval) -> Seen<'a> {
    let Interval { out, wake, in_, .. } = *interval;
    let what = match judged.intervals[index] {
        None => What::Preempted,
        Some(judgement) => in_task(judged, judgement.meaning, role),
    };
    Seen { from: out.0, wake: wake.0, to: in_.0, what }
}

fn of_sample<'a>(judged: &'a Judged, index: usize, sample: &Sample) -> Seen<'a> {
    let Ktime(at) = sample.at;
    let meaning = judged.samples[index];
    // Where a stack shows a task it shows the role.
    let role = judged.meanings[meaning].role.unwrap_or(Role::Other);
    Seen { from: at, wake: at, to: at, what: in_task(judged, meaning, role) }
}

fn in_task(judged: &Judged, meaning: usize, role: Role) -> What<'_> {
    let meaning = &judged.meanings[meaning];
    if meaning.state == State::Blocked && role == Role::Worker {
        What::Task(meaning.task.as_deref())
    } else {
        What::Elsewhere
    }
}

fn stretches<'a>(seen: &[Seen<'a>], unseen_ns: u64) -> Vec<Stretch<'a>> {
    let mut done = Vec::new();
    let mut current: Option<Stretch<'a>> = None;
    // Wanting a CPU since the current stretch was last seen.
    let mut preempted = 0;
    for seen in seen {
        let task = match seen.what {
            What::Preempted => {
                preempted += seen.to - seen.from;
                continue;
            }
            What::Elsewhere => {
                done.extend(current.take());
                continue;
            }
            What::Task(task) => task,
        };
        let goes_on = |stretch: &&mut Stretch<'_>| {
            let ran = seen.from.saturating_sub(stretch.to).saturating_sub(preempted);
            stretch.task == task && ran <= unseen_ns
        };
        if let Some(stretch) = current.as_mut().filter(goes_on) {
            stretch.runnable += preempted;
        } else {
            done.extend(current.take());
        }
        preempted = 0;
        let stretch = current.get_or_insert(Stretch {
            task,
            from: seen.from,
            to: seen.from,
            waiting: 0,
            runnable: 0,
            longest: 0,
            samples: 0,
        });
        // Time that two clocks disagree about is not counted twice.
        let from = seen.from.max(stretch.to);
        let wake = seen.wake.max(from);
        stretch.waiting += wake - from;
        stretch.runnable += seen.to.max(wake) - wake;
        stretch.longest = stretch.longest.max(seen.to - seen.from);
        stretch.samples += u64::from(seen.from == seen.to);
        stretch.to = stretch.to.max(seen.to);
    }
    done.extend(current);
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `(task, from, wake, to)` in ms; a task of `!` is a preemption, one of `-` is elsewhere.
    fn seen(all: &[(&'static str, u64, u64, u64)]) -> Vec<Seen<'static>> {
        let ns = |ms: u64| ms * 1_000_000;
        all.iter()
            .map(|&(task, from, wake, to)| Seen {
                from: ns(from),
                wake: ns(wake),
                to: ns(to),
                what: match task {
                    "!" => What::Preempted,
                    "-" => What::Elsewhere,
                    task => What::Task(Some(task)),
                },
            })
            .collect()
    }

    /// Stretches as `(task, from, to, waiting, runnable)` in ms.
    fn check(
        all: &[(&'static str, u64, u64, u64)],
        unseen_ms: u64,
        expected: &[(&str, u64, u64, u64, u64)],
    ) {
        let ms = |ns: u64| ns / 1_000_000;
        let found: Vec<_> = stretches(&seen(all), unseen_ms * 1_000_000)
            .into_iter()
            .map(|found| {
                let Stretch { task, from, to, waiting, runnable, .. } = found;
                (task.unwrap_or_default(), ms(from), ms(to), ms(waiting), ms(runnable))
            })
            .collect();
        assert_eq!(found, expected, "{all:?}");
    }

    #[test]
    fn waits_of_one_task_in_a_row_are_a_stretch() {
        check(
            &[("a", 0, 4, 5), ("a", 6, 9, 10), ("-", 11, 20, 20), ("a", 21, 22, 22)],
            1,
            &[("a", 0, 10, 7, 2), ("a", 21, 22, 1, 0)],
        );
    }

    #[test]
    fn another_task_or_an_unseen_run_ends_it() {
        check(
            &[("a", 0, 4, 4), ("b", 5, 9, 9), ("b", 11, 12, 12)],
            1,
            &[("a", 0, 4, 4, 0), ("b", 5, 9, 4, 0), ("b", 11, 12, 1, 0)],
        );
    }

    #[test]
    fn wanting_a_cpu_in_between_is_no_run() {
        check(
            &[("a", 0, 4, 4), ("!", 4, 4, 9), ("a", 10, 12, 12), ("!", 12, 12, 14)],
            1,
            &[("a", 0, 12, 6, 5)],
        );
    }

    #[test]
    fn samples_show_what_runs() {
        check(&[("a", 0, 0, 0), ("a", 10, 10, 10), ("a", 20, 20, 20)], 15, &[("a", 0, 20, 0, 0)]);
        check(
            &[("a", 0, 0, 0), ("-", 10, 10, 10), ("a", 20, 20, 20)],
            15,
            &[("a", 0, 0, 0, 0), ("a", 20, 20, 0, 0)],
        );
    }
}
