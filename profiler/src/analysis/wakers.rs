//! Who ended waits, and what they waited for themselves meanwhile.

use std::{cmp::Reverse, collections::HashMap};

use super::{
    report::{self, Chain, Frame},
    stacks::Stacks,
};
use crate::{
    recording::{Interval, Recording, UserStackId, WakerId, WakerThread},
    runtime::{WakerKind, waker_kind},
    units::{Pid, Tid},
};

/// Wakers that are named at a site.
const WAKERS: usize = 5;

/// Chains that are told of a waker at a site.
const CHAINS: usize = 3;

/// How far a chain is followed.
const DEPTH: usize = 4;

/// Who ended waits.
pub struct Wakers<'a> {
    recording: &'a Recording,
    stacks: &'a Stacks<'a>,
    kinds: HashMap<WakerId, WakerKind>,
    /// The waits of each thread, in order of their end.
    waits: HashMap<(Pid, Tid), Vec<usize>>,
}

/// Whoever is told of as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Who<'a> {
    kind: WakerKind,
    thread: Option<&'a WakerThread>,
    user_stack: Option<UserStackId>,
}

/// The waits of a site that one ended.
#[derive(Debug, Default)]
struct Ended {
    count: u64,
    waiting: u64,
    /// By the sites of a chain: how often, and how long the first of them lasted meanwhile.
    chains: HashMap<Vec<usize>, (u64, u64)>,
}

impl<'a> Wakers<'a> {
    /// The wakers of a recording.
    pub fn new(recording: &'a Recording, stacks: &'a Stacks<'a>) -> Self {
        let kinds = recording.wakers.iter().map(|(id, waker)| {
            let names = waker.kernel_stack.map(|id| stacks.waker_names(id));
            let names: Vec<_> = names.into_iter().flatten().collect();
            (*id, waker_kind(waker.context, &names))
        });
        let mut waits: HashMap<_, Vec<usize>> = HashMap::new();
        for (index, interval) in recording.intervals.iter().enumerate() {
            if interval.wake > interval.out {
                waits.entry((interval.pid, interval.tid)).or_default().push(index);
            }
        }
        Self { recording, stacks, kinds: kinds.collect(), waits }
    }

    /// The thread that ended a wait by what it did.
    pub fn thread(&self, interval: &Interval) -> Option<&'a WakerThread> {
        let who = self.who(interval)?;
        who.thread.filter(|_| who.kind == WakerKind::Thread)
    }

    /// The latest wait of a thread that lasted into `during` and was over when that ended: what the
    /// thread that ended `during` waited for first.
    pub fn before(&self, pid: Pid, tid: Tid, during: &Interval) -> Option<usize> {
        let waits = self.waits.get(&(pid, tid))?;
        let ended = |index: &usize| self.recording.intervals[*index].in_ <= during.wake;
        let last = *waits.get(waits.partition_point(ended).checked_sub(1)?)?;
        (self.recording.intervals[last].wake > during.out).then_some(last)
    }

    /// The waits that led to the end of this one, each ended by the thread of the next: at most four.
    fn chain(&self, interval: &'a Interval) -> Vec<usize> {
        let mut chain = Vec::new();
        let mut at = interval;
        while chain.len() < DEPTH
            && let Some(thread) = self.thread(at)
            && let Some(before) = self.before(thread.pid, thread.tid, at)
        {
            chain.push(before);
            at = &self.recording.intervals[before];
        }
        chain
    }

    fn who(&self, interval: &Interval) -> Option<Who<'a>> {
        let id = interval.waker?;
        let (waker, kind) = (self.recording.wakers.get(&id)?, *self.kinds.get(&id)?);
        // Whom an interrupt comes upon has nothing to do with it.
        let thread = waker
            .thread
            .as_ref()
            .filter(|_| matches!(kind, WakerKind::Thread | WakerKind::Unknown));
        Some(Who { kind, thread, user_stack: waker.user_stack.filter(|_| thread.is_some()) })
    }

    /// Who ended the waits of a site, the few that most time went to; `site_of` says to which site
    /// each interval belongs.
    pub fn of_site(
        &self,
        waits: &[usize],
        site_of: impl Fn(usize) -> Option<usize>,
    ) -> Vec<report::Waker> {
        let mut all: HashMap<Who<'a>, Ended> = HashMap::new();
        for index in waits {
            let interval = &self.recording.intervals[*index];
            let Some(who) = self.who(interval) else { continue };
            let ended = all.entry(who).or_default();
            ended.count += 1;
            ended.waiting += interval.wake.since(interval.out).0;
            let chain = self.chain(interval);
            let sites: Vec<usize> = chain.iter().map_while(|index| site_of(*index)).collect();
            if let (Some(first), false) = (chain.first(), sites.is_empty()) {
                let first = &self.recording.intervals[*first];
                let (count, waiting) = ended.chains.entry(sites).or_default();
                *count += 1;
                *waiting += first.wake.since(first.out.max(interval.out)).0;
            }
        }
        let mut found: Vec<_> =
            all.into_iter().map(|(who, ended)| self.describe(who, ended)).collect();
        found.sort_by(|a, b| {
            let who = |waker: &report::Waker| (waker.kind, waker.pid, waker.tid);
            Reverse(a.total_ns)
                .cmp(&Reverse(b.total_ns))
                .then_with(|| who(a).cmp(&who(b)))
                .then_with(|| (&a.name, &a.frames).cmp(&(&b.name, &b.frames)))
        });
        found.truncate(WAKERS);
        found
    }

    fn describe(&self, who: Who<'_>, ended: Ended) -> report::Waker {
        let chains = ended.chains.into_iter();
        let mut chains: Vec<_> =
            chains.map(|(sites, (count, total_ns))| Chain { sites, count, total_ns }).collect();
        chains.sort_by(|a, b| {
            Reverse(a.total_ns).cmp(&Reverse(b.total_ns)).then_with(|| a.sites.cmp(&b.sites))
        });
        chains.truncate(CHAINS);
        let frames: Vec<Frame> = match who.user_stack {
            Some(stack) => self.stacks.frames(Some(stack), None),
            None => Vec::new(),
        };
        report::Waker {
            kind: who.kind.name(),
            pid: who.thread.map(|thread| thread.pid.0),
            tid: who.thread.map(|thread| thread.tid.0),
            name: who.thread.map(|thread| thread.name.clone()),
            process: who.thread.and_then(|thread| thread.process.clone()),
            count: ended.count,
            total_ns: ended.waiting,
            chains,
            frames,
        }
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::super::{
        analyze,
        report::{Chain, Report, Waker},
        sample::{Sample, Wait},
    };

    const MS: u64 = 1_000_000;

    fn wait<'a>(tid: u32, out: u64, in_: u64, stack: &'a [&'a str]) -> Wait<'a> {
        Wait { tid, span: (out * MS, in_ * MS, in_ * MS), syscall: Some(libc::SYS_futex), stack }
    }

    fn site(report: &Report, function: &str) -> usize {
        let is = |frame: &super::Frame| frame.function.as_deref() == Some(function);
        report.sites.iter().position(|site| site.frames.iter().any(is)).unwrap()
    }

    fn report(sample: &mut Sample, threads: u32) -> Report {
        for tid in 1..=threads {
            sample.totals(tid, "thread", 0, 0);
        }
        analyze(&sample.recording, &sample.names()).unwrap()
    }

    //  ms  0         10        20        30        40
    //  1   |    front: 10 to 40, ended by 2        |
    //  2   |    middle: 5 to 35, ended by 3    |
    //  3   |    back: 12 to 30, ended by 4  |
    //  4   |    before: 0 to 9 |
    #[test]
    fn a_chain_goes_back_to_the_one_that_waited_for_nobody() {
        let mut sample = Sample::new(50 * MS);
        sample.wait(wait(4, 0, 9, &["before", "clone3"]));
        sample.wait(wait(3, 12, 30, &["back", "clone3"])).ended_by(4);
        sample.wait(wait(2, 5, 35, &["middle", "clone3"])).ended_by(3);
        sample.wait(wait(1, 10, 40, &["front", "clone3"])).ended_by(2);
        let report = report(&mut sample, 4);
        let chain = |names: &[&str], ms| Chain {
            sites: names.iter().map(|name| site(&report, name)).collect(),
            count: 1,
            total_ns: ms * MS,
        };
        let check = |function: &str, tid: u32, ms: u64, chains: Vec<Chain>| {
            let wakers = &report.sites[site(&report, function)].wakers;
            let expected = Waker {
                kind: "thread",
                pid: Some(super::super::sample::PID.0),
                tid: Some(tid),
                name: Some(format!("thread-{tid}")),
                process: None,
                count: 1,
                total_ns: ms * MS,
                chains,
                frames: vec![],
            };
            assert_eq!(*wakers, [expected], "{function}");
        };
        // Of the 30 ms that the second waited, 25 were while the first waited for it.
        check("front", 2, 30, vec![chain(&["middle", "back"], 25)]);
        check("middle", 3, 30, vec![chain(&["back"], 18)]);
        // What the fourth waited for was over before.
        check("back", 4, 18, vec![]);
        assert!(report.sites[site(&report, "before")].wakers.is_empty());
    }

    /// Two threads that hand each other work are a chain of their own.
    #[test]
    fn a_chain_has_an_end() {
        let mut sample = Sample::new(100 * MS);
        for turn in 0..8 {
            let (tid, other) = if turn % 2 == 0 { (1, 2) } else { (2, 1) };
            sample.wait(wait(tid, 10 * turn, 10 * turn + 15, &["turn", "clone3"])).ended_by(other);
        }
        let report = report(&mut sample, 2);
        let chains = report.sites.iter().flat_map(|site| &site.wakers).flat_map(|w| &w.chains);
        assert_eq!(chains.map(|chain| chain.sites.len()).max(), Some(super::DEPTH));
    }
}
