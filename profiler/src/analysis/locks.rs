//! What threads waited for by futex, who held it meanwhile, and which locks have a queue.

#[cfg(test)]
mod tests;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
};

use super::{
    accounts::Account,
    deadlocks::{self, Owners},
    judge::Judged,
    queue::Queue,
    report::{self, Deadlock, Frame, HeldBy, HeldSite, How, LockHolder, Origin, State},
    stacks::Stacks,
    wakers::Wakers,
};
use crate::{
    recording::{Interval, Recording, UserStackId, WakerId},
    runtime::{self, Awaited, awaited::awaited},
    units::{Avma, Ktime, Pid, Tid},
};

/// Locks that a report names.
const LISTED: usize = 100;

/// Holders of a lock that are named.
const HOLDERS: usize = 8;

/// From so many waiters on a lock can have a convoy.
const CONVOY_WAITERS: usize = 3;

/// In a convoy threads queue for one part of this many of the window, or more.
const CONVOY_PART: u64 = 2;

/// Bytes between the two futexes of a read-write lock of the standard library.
const SECOND_FUTEX: u64 = 4;

/// What a report says of locks.
pub struct Found {
    pub locks: Vec<report::Lock>,
    pub deadlocks: Vec<Deadlock>,
}

/// All waits for one futex.
pub struct Lock {
    pub pid: Pid,
    pub address: Avma,
    /// `None` if it is no lock.
    pub kind: Option<runtime::Lock>,
    /// What its longest waits are called.
    label: Option<&'static str>,
    /// Indices of intervals, in order of their beginning.
    pub waits: Vec<usize>,
}

/// A lock while it is told who held it.
struct Contended<'a> {
    pid: Pid,
    waits: HashSet<usize>,
    queue: &'a Queue,
}

impl Lock {
    /// The waits for it that never ended.
    pub fn open<'a>(&'a self, recording: &'a Recording) -> impl Iterator<Item = &'a Interval> {
        self.waits.iter().map(|index| &recording.intervals[*index]).filter(|wait| is_open(wait))
    }

    pub fn kind_name(&self) -> &'static str {
        self.kind.map_or(self.label.unwrap_or("futex"), runtime::Lock::name)
    }
}

/// Whether a wait had not ended when the window did.
pub fn is_open(wait: &Interval) -> bool {
    wait.open_at_end && wait.wake == wait.in_
}

/// What everything is told from.
pub struct Sources<'a> {
    pub recording: &'a Recording,
    pub accounts: &'a [Account],
    stacks: &'a Stacks<'a>,
    wakers: Wakers<'a>,
    /// The index of the site of each interval, where it is at one.
    pub by_interval: &'a [Option<usize>],
    /// The accounts of each thread, in order of time.
    by_thread: HashMap<(Pid, Tid), Vec<usize>>,
}

impl Sources<'_> {
    /// The last life of a thread of this id.
    pub fn account(&self, pid: Pid, tid: Tid) -> Option<&Account> {
        self.by_thread.get(&(pid, tid)).and_then(|lives| Some(&self.accounts[*lives.last()?]))
    }

    pub fn name(&self, pid: Pid, tid: Tid) -> String {
        self.account(pid, tid).map(|account| account.name.clone()).unwrap_or_default()
    }
}

/// Sums up the waits for each futex, and finds the deadlocks among the locks.
pub fn locks(
    recording: &Recording,
    accounts: &[Account],
    stacks: &Stacks<'_>,
    judged: &Judged,
    by_interval: &[Option<usize>],
) -> Found {
    let mut by_thread: HashMap<(Pid, Tid), Vec<usize>> = HashMap::new();
    for (index, account) in accounts.iter().enumerate() {
        by_thread.entry((account.pid, account.tid)).or_default().push(index);
    }
    let wakers = Wakers::new(recording, stacks);
    let sources = Sources { recording, accounts, stacks, wakers, by_interval, by_thread };
    let locks = group(recording, stacks, judged);
    let owners = Owners::new(recording);
    let held: Vec<_> = locks.iter().map(|lock| owners.at_end(&sources, lock)).collect();
    let deadlocks = deadlocks::deadlocks(&sources, &locks, &held);
    let mut locks: Vec<_> = locks.iter().zip(held).collect();
    locks.sort_by_cached_key(|(lock, _)| {
        let waiting: u64 = lock.waits.iter().map(|index| length(recording, *index)).sum();
        (lock.kind.is_none(), Reverse(waiting), lock.pid, lock.address)
    });
    locks.truncate(LISTED);
    let locks = locks.into_iter().map(|(lock, held)| sources.describe(lock, held)).collect();
    Found { locks, deadlocks }
}

fn length(recording: &Recording, index: usize) -> u64 {
    let wait = &recording.intervals[index];
    wait.wake.since(wait.out).0
}

/// The waits for one futex, and how long was waited for each kind of lock and under each label.
#[derive(Default)]
struct Group {
    kinds: Times<Option<runtime::Lock>>,
    labels: Times<Option<&'static str>>,
    waits: Vec<usize>,
}

/// How long each of a few was waited for.
type Times<K> = Vec<(K, u64)>;

fn add<K: PartialEq>(times: &mut Times<K>, key: K, ns: u64) {
    match times.iter_mut().find(|(known, _)| *known == key) {
        Some((_, sum)) => *sum += ns,
        None => times.push((key, ns)),
    }
}

fn most<K: Copy>(times: &[(K, u64)]) -> Option<K> {
    times.iter().max_by_key(|(_, ns)| *ns).map(|(key, _)| *key)
}

/// The futex waits of a recording by what they were for; threads that were idle are left out.
fn group(recording: &Recording, stacks: &Stacks<'_>, judged: &Judged) -> Vec<Lock> {
    let mut kinds: HashMap<UserStackId, Option<runtime::Lock>> = HashMap::new();
    let mut kind = |id: UserStackId| {
        *kinds
            .entry(id)
            .or_insert_with(|| stacks.user(id).and_then(|stack| runtime::lock::lock(stack.frames)))
    };
    let mut groups: BTreeMap<(Pid, Avma), Group> = BTreeMap::new();
    for (index, wait) in recording.intervals.iter().enumerate() {
        let Some(judgement) = judged.intervals[index] else { continue };
        let Some(Awaited::Futex { address, .. }) = awaited(wait.regs) else { continue };
        let meaning = &judged.meanings[judgement.meaning];
        if meaning.state == State::Idle {
            continue;
        }
        let group = groups.entry((wait.pid, address)).or_default();
        add(&mut group.kinds, wait.user_stack.and_then(&mut kind), length(recording, index));
        add(&mut group.labels, meaning.label, length(recording, index));
        group.waits.push(index);
    }
    let mut locks: Vec<Lock> = Vec::new();
    for ((pid, address), Group { kinds, labels, waits }) in groups {
        let (kind, label) = (most(&kinds).flatten(), most(&labels).flatten());
        let first = locks.last_mut().filter(|first| {
            let is_near = (first.pid, first.address.0 + SECOND_FUTEX) == (pid, address.0);
            is_near && [first.kind, kind] == [Some(runtime::Lock::RwLock); 2]
        });
        match first {
            Some(first) => first.waits.extend(waits),
            None => locks.push(Lock { pid, address, kind, label, waits }),
        }
    }
    for lock in &mut locks {
        lock.waits.sort_by_key(|index| recording.intervals[*index].out);
    }
    locks
}

/// What is known so far of a thread that held a lock.
#[derive(Default)]
struct Holding {
    count: u64,
    total_ns: u64,
    sites: HashMap<usize, u64>,
    stacks: BTreeMap<UserStackId, u64>,
    inferred: bool,
}

impl Sources<'_> {
    fn describe(&self, lock: &Lock, held: Option<(Tid, How)>) -> report::Lock {
        let recording = self.recording;
        let waits = || lock.waits.iter().map(|index| &recording.intervals[*index]);
        let spans = waits().map(|wait| (wait.out, wait.wake));
        let queue = Queue::new(spans);
        let waiters = waits().map(|wait| wait.tid).collect::<BTreeSet<_>>().len();
        let queued_ns = queue.queued_ns();
        let window_ns = super::end(recording).since(recording.session.start).0;
        let convoy = lock.kind.is_some()
            && waiters >= CONVOY_WAITERS
            && waits().any(|wait| !is_open(wait))
            && queued_ns * CONVOY_PART >= window_ns;
        let mut sites: HashMap<usize, u64> = HashMap::new();
        for index in &lock.waits {
            if let Some(site) = self.by_interval[*index] {
                *sites.entry(site).or_default() += length(recording, *index);
            }
        }
        let lengths = || waits().map(|wait| wait.wake.since(wait.out).0);
        let waiting: BTreeSet<u32> = lock.open(recording).map(|wait| wait.tid.0).collect();
        let holders =
            if lock.kind.is_some() { self.holders(lock, &queue, held) } else { Vec::new() };
        report::Lock {
            pid: lock.pid.0,
            address: format!("{:#x}", lock.address.0),
            kind: lock.kind_name().to_owned(),
            name: self.call_site(lock),
            waiters: waiters as u32,
            waiting: waiting.into_iter().collect(),
            count: lock.waits.len() as u64,
            total_ns: lengths().sum(),
            max_ns: lengths().max().unwrap_or(0),
            queued_ns,
            convoy,
            sites: largest(sites).map(|(site, _)| site).collect(),
            holders,
            held_at_end: held.map(|(tid, how)| HeldBy {
                tid: tid.0,
                name: self.name(lock.pid, tid),
                how,
            }),
        }
    }

    /// The function that waits: the deepest of the program's own, or else the deepest that may be.
    fn call_site(&self, lock: &Lock) -> Option<String> {
        let mut stacks: BTreeMap<UserStackId, u64> = BTreeMap::new();
        for index in &lock.waits {
            if let Some(stack) = self.recording.intervals[*index].user_stack {
                *stacks.entry(stack).or_default() += length(self.recording, *index);
            }
        }
        let stack = stacks.into_iter().max_by_key(|(id, ns)| (*ns, Reverse(*id)))?.0;
        let frames = self.stacks.frames(Some(stack), None);
        let deepest = |origin| {
            frames.iter().rfind(|frame: &&Frame| frame.origin == origin && frame.function.is_some())
        };
        deepest(Origin::Own).or_else(|| deepest(Origin::Unknown))?.function.clone()
    }

    /// Who held the lock between its hand-overs, and from the last one on.
    fn holders(&self, lock: &Lock, queue: &Queue, held: Option<(Tid, How)>) -> Vec<LockHolder> {
        let recording = self.recording;
        let mut holding: HashMap<Tid, Holding> = HashMap::new();
        let waits = lock.waits.iter().map(|index| &recording.intervals[*index]);
        let mut ends: Vec<(Ktime, Tid, Option<WakerId>)> = waits
            .filter(|wait| !is_open(wait))
            .filter_map(|wait| {
                let thread = self.wakers.thread(wait)?;
                let is_other = (thread.pid, thread.tid != wait.tid) == (wait.pid, true);
                is_other.then_some((wait.wake, thread.tid, wait.waker))
            })
            .collect();
        ends.sort_by_key(|(at, tid, _)| (*at, *tid));
        let waits = lock.waits.iter().copied().collect();
        let contended = Contended { pid: lock.pid, waits, queue };
        let mut from = recording.session.start;
        for (at, tid, waker) in ends {
            let holder = holding.entry(tid).or_default();
            holder.count += 1;
            let ns = self.hold(holder, &contended, tid, (from, at));
            let waker = waker.and_then(|waker| recording.wakers.get(&waker));
            if let Some(stack) = waker.and_then(|waker| waker.user_stack) {
                *holder.stacks.entry(stack).or_default() += ns;
            }
            from = at;
        }
        if let Some((tid, how)) = held {
            let holder = holding.entry(tid).or_default();
            holder.inferred = how != How::Owner;
            self.hold(holder, &contended, tid, (from, super::end(recording)));
        }
        let mut holders: Vec<_> = holding.into_iter().collect();
        holders.sort_by_key(|(tid, holding)| (Reverse(holding.total_ns), *tid));
        holders.truncate(HOLDERS);
        holders.into_iter().map(|(tid, holding)| self.holder(lock.pid, tid, holding)).collect()
    }

    /// Adds what a thread held up in a span; the waiting time of that.
    fn hold(
        &self,
        holding: &mut Holding,
        lock: &Contended<'_>,
        tid: Tid,
        (from, to): (Ktime, Ktime),
    ) -> u64 {
        let held_up = lock.queue.waiting_ns(from, to);
        holding.total_ns += held_up;
        let intervals = &self.recording.intervals;
        let lives = self.by_thread.get(&(lock.pid, tid)).map_or(&[][..], Vec::as_slice);
        for life in lives.iter().map(|life| &self.accounts[*life].intervals) {
            let first = life.partition_point(|index| intervals[*index].in_ <= from);
            let own = life[first..].iter().take_while(|index| intervals[**index].out < to);
            for index in own {
                let wait = &intervals[*index];
                // What it waited for the lock itself, it waited before it had it.
                if lock.waits.contains(index) {
                    continue;
                }
                let Some(site) = self.by_interval[*index] else { continue };
                let ns = lock.queue.waiting_ns(wait.out.max(from), wait.in_.min(to));
                if ns > 0 {
                    *holding.sites.entry(site).or_default() += ns;
                }
            }
        }
        held_up
    }

    fn holder(&self, pid: Pid, tid: Tid, holding: Holding) -> LockHolder {
        let Holding { count, total_ns, sites, stacks, inferred } = holding;
        let stack = stacks.into_iter().max_by_key(|(id, ns)| (*ns, Reverse(*id)));
        LockHolder {
            tid: tid.0,
            name: self.name(pid, tid),
            count,
            total_ns,
            sites: largest(sites).map(|(site, total_ns)| HeldSite { site, total_ns }).collect(),
            frames: stack.map_or_else(Vec::new, |(id, _)| self.stacks.frames(Some(id), None)),
            inferred,
        }
    }
}

/// Sites by their time, the longest first.
fn largest(sites: HashMap<usize, u64>) -> impl Iterator<Item = (usize, u64)> {
    let mut sites: Vec<_> = sites.into_iter().collect();
    sites.sort_by_key(|(site, ns)| (Reverse(*ns), *site));
    sites.into_iter()
}
