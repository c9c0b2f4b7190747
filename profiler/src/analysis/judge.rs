//! Which meaning each interval has, and which pool each thread is in.

use std::collections::{BTreeMap, HashMap};

use super::{
    accounts::Account,
    report::{StackQuality, UserStacks},
    stacks::Stacks,
};
use crate::{
    recording::{Interval, Recording, StackEnd, UserStackId},
    runtime::{
        self, Awaited, Meaning, Place, Reason, Stack, View, awaited::awaited, reason::Entry,
    },
    units::{Pid, Tid},
};

/// The meanings of a recording.
pub struct Judged {
    /// What each interval of the recording means, in its order; `None` if it was preempted.
    pub intervals: Vec<Option<Judgement>>,
    /// What each sample of the recording shows, in its order: an index into `meanings`.
    pub samples: Vec<usize>,
    /// Each distinct meaning.
    pub meanings: Vec<Meaning>,
    /// Where each thread belongs.
    pub places: HashMap<(Pid, Tid), Place>,
    /// How many waits have which kind of user stack.
    pub user_stacks: UserStacks,
}

/// What one wait means.
#[derive(Clone, Copy, Debug)]
pub struct Judgement {
    pub reason: Reason,
    /// Index into [`Judged::meanings`].
    pub meaning: usize,
}

/// Asks the runtime room about every distinct wait, one process at a time.
pub fn judge(recording: &Recording, accounts: &[Account], stacks: &Stacks<'_>) -> Judged {
    let mut processes: BTreeMap<Pid, Vec<usize>> = BTreeMap::new();
    for (index, interval) in recording.intervals.iter().enumerate() {
        processes.entry(interval.pid).or_default().push(index);
    }
    let mut samples: HashMap<Pid, Vec<usize>> = HashMap::new();
    for (index, sample) in recording.samples.iter().enumerate() {
        samples.entry(sample.pid).or_default().push(index);
    }
    for pid in accounts.iter().map(|account| account.pid).chain(samples.keys().copied()) {
        processes.entry(pid).or_default();
    }
    let mut judged = Judged {
        intervals: vec![None; recording.intervals.len()],
        samples: vec![0; recording.samples.len()],
        meanings: Vec::new(),
        places: HashMap::new(),
        user_stacks: UserStacks::default(),
    };
    let mut reasons = Reasons { stacks, known: HashMap::new() };
    for (pid, intervals) in processes {
        let waits = intervals.into_iter().filter(|index| !recording.intervals[*index].preempted);
        let samples = samples.remove(&pid).unwrap_or_default();
        judge_process(
            pid,
            waits.collect(),
            samples,
            recording,
            accounts,
            &mut reasons,
            &mut judged,
        );
    }
    judged
}

fn judge_process(
    pid: Pid,
    waits: Vec<usize>,
    samples: Vec<usize>,
    recording: &Recording,
    accounts: &[Account],
    reasons: &mut Reasons<'_>,
    judged: &mut Judged,
) {
    type Wait = (Tid, Reason, Option<UserStackId>);
    let mut numbers: HashMap<Wait, usize> = HashMap::new();
    let mut distinct: Vec<(Wait, Option<u64>)> = Vec::new();
    let offset = judged.meanings.len();
    let mut number = |wait: Wait, object: Option<u64>| {
        let number = numbers.entry(wait).or_insert_with(|| {
            // The first one's object: where it counts, it is the same for all.
            distinct.push((wait, object));
            distinct.len() - 1
        });
        offset + *number
    };
    for index in waits {
        let interval = &recording.intervals[index];
        let reason = reasons.of(interval);
        let wait = (interval.tid, reason, interval.user_stack);
        let meaning = number(wait, awaited(interval.regs).and_then(Awaited::instance));
        judged.intervals[index] = Some(Judgement { reason, meaning });
        judged.user_stacks.add(reasons.stacks, interval.user_stack);
    }
    for index in samples {
        let sample = &recording.samples[index];
        judged.samples[index] = number((sample.tid, Reason::Other, sample.user_stack), None);
    }
    let mut user: HashMap<UserStackId, Stack<'_>> = HashMap::new();
    for id in distinct.iter().filter_map(|(wait, _)| wait.2) {
        if let Some(stack) = reasons.stacks.user(id) {
            user.insert(id, stack);
        }
    }
    let views: Vec<View<'_>> = distinct
        .iter()
        .map(|((tid, reason, id), object)| View {
            tid: *tid,
            reason: *reason,
            object: *object,
            stack: id.and_then(|id| user.get(&id)),
        })
        .collect();
    let threads: Vec<_> = accounts
        .iter()
        .filter(|account| account.pid == pid)
        .map(|account| runtime::Thread { tid: account.tid, name: &account.name })
        .collect();
    let verdict = runtime::classify(&threads, &views);
    judged.meanings.extend(verdict.meanings);
    judged.places.extend(verdict.places.into_iter().map(|(tid, place)| ((pid, tid), place)));
}

impl UserStacks {
    fn add(&mut self, stacks: &Stacks<'_>, user: Option<UserStackId>) {
        *match stacks.quality(user) {
            StackQuality::Complete => &mut self.complete,
            StackQuality::Truncated => &mut self.truncated,
            StackQuality::Broken => &mut self.broken,
            StackQuality::Missing => &mut self.missing,
        } += 1;
        let Some(walk) = stacks.walk(user) else { return };
        self.by_frame_pointer += u64::from(walk.by_frame_pointer > 0);
        if let StackEnd::Incomplete(why) = walk.end {
            match self.why.get_mut(why.name()) {
                Some(count) => *count += 1,
                None => drop(self.why.insert(why.name().to_owned(), 1)),
            }
        }
    }
}

/// Reasons of waits, each distinct way into the kernel looked at once.
struct Reasons<'a> {
    stacks: &'a Stacks<'a>,
    known: HashMap<WayIn, Reason>,
}

type WayIn = (Option<u32>, bool, u32, Option<crate::recording::KernelStackId>);

impl Reasons<'_> {
    fn of(&mut self, interval: &Interval) -> Reason {
        let syscall = interval.regs.and_then(|regs| regs.syscall);
        let fault = interval.regs.is_some_and(|regs| regs.syscall.is_none());
        let entry = Entry { syscall, fault, task_state: interval.task_state };
        let way_in = (syscall, fault, interval.task_state, interval.kernel_stack);
        *self.known.entry(way_in).or_insert_with(|| {
            let kernel = interval.kernel_stack;
            let names = kernel.into_iter().flat_map(|id| self.stacks.kernel_names(id));
            runtime::reason::reason(entry, names)
        })
    }
}
