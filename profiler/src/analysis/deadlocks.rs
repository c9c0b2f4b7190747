//! Who holds the locks that threads wait for at the end, and which of them wait for each other.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{
    locks::{Lock, Sources, is_open},
    report::{Deadlock, DeadlockThread, How},
};
use crate::{
    recording::{Interval, Recording},
    runtime,
    units::{Avma, Ktime, Nanos, Pid, Tid},
};

/// Waits this old, for locks for which no other wait ended meanwhile, are taken for ones that do not
/// end, where it is not known for certain who holds the locks.
const SETTLED: Nanos = Nanos(1_000_000_000);

/// Bytes before the second futex of a read-write lock: the guards are the address of the first.
const BEFORE_FUTEX: u64 = 4;

/// What was found in the target's memory at the end.
pub struct Owners {
    /// The value of a futex, and the owner that stands behind it.
    futexes: HashMap<(Pid, Avma), (u32, Option<Tid>)>,
    /// Whose stack holds which address.
    references: HashMap<(Pid, Avma), BTreeSet<Tid>>,
    /// Processes of which the stacks of all threads were searched.
    searched: HashSet<Pid>,
}

impl Owners {
    /// What a recording says.
    pub fn new(recording: &Recording) -> Self {
        let found = &recording.locks;
        let futexes = found.futexes.iter();
        let mut references: HashMap<_, BTreeSet<Tid>> = HashMap::new();
        for reference in &found.references {
            references.entry((reference.pid, reference.address)).or_default().insert(reference.tid);
        }
        let whole = found.searches.iter().filter(|search| search.missed == 0);
        Self {
            futexes: futexes
                .map(|futex| ((futex.pid, futex.address), (futex.value, futex.owner)))
                .collect(),
            references,
            searched: whole.map(|search| search.pid).collect(),
        }
    }

    /// Who holds a lock that threads still wait for.
    pub fn at_end(&self, sources: &Sources<'_>, lock: &Lock) -> Option<(Tid, How)> {
        let waiting: BTreeSet<Tid> = lock.open(sources.recording).map(|wait| wait.tid).collect();
        if waiting.is_empty() {
            return None;
        }
        let (value, owner) = self.futexes.get(&(lock.pid, lock.address)).copied()?;
        match lock.kind? {
            // The futex is a thread's, and who holds the lock is nowhere near it.
            runtime::Lock::Parked => return None,
            _ if value == 0 => return None,
            runtime::Lock::PthreadMutex => {
                if let Some(owner) = owner {
                    return Some((owner, How::Owner));
                }
            }
            runtime::Lock::Mutex | runtime::Lock::RwLock => {}
        }
        let mut addresses = vec![lock.address];
        if lock.kind == Some(runtime::Lock::RwLock) {
            addresses.push(Avma(lock.address.0.wrapping_sub(BEFORE_FUTEX)));
        }
        let found = addresses.iter().filter_map(|at| self.references.get(&(lock.pid, *at)));
        let holders: BTreeSet<Tid> = found.flatten().copied().collect();
        let mut holders = holders.difference(&waiting).copied();
        let searched = self.searched.contains(&lock.pid);
        match (holders.next(), holders.next()) {
            (Some(only), None) if searched => Some((only, How::Reference)),
            (None, _) => {
                let last = last_woken(sources.recording, lock)?;
                (!waiting.contains(&last)).then_some((last, How::WakeUp))
            }
            _ => None,
        }
    }
}

/// The last thread whose wait for a lock ended: it got it then, unless another was quicker.
fn last_woken(recording: &Recording, lock: &Lock) -> Option<Tid> {
    let waits = lock.waits.iter().map(|index| &recording.intervals[*index]);
    waits.filter(|wait| !is_open(wait)).max_by_key(|wait| wait.wake).map(|wait| wait.tid)
}

/// The cycles among threads that wait for locks, each told once; `held` says who holds each lock.
pub fn deadlocks(
    sources: &Sources<'_>,
    locks: &[Lock],
    held: &[Option<(Tid, How)>],
) -> Vec<Deadlock> {
    let recording = sources.recording;
    let mut waits: BTreeMap<(Pid, Tid), (usize, usize)> = BTreeMap::new();
    for (number, lock) in locks.iter().enumerate().filter(|(_, lock)| lock.kind.is_some()) {
        for index in lock.waits.iter().filter(|index| is_open(&recording.intervals[**index])) {
            waits.insert((lock.pid, recording.intervals[*index].tid), (number, *index));
        }
    }
    let next = |(pid, tid): (Pid, Tid)| {
        let (lock, _) = waits.get(&(pid, tid))?;
        held[*lock].map(|(holder, _)| (pid, holder))
    };
    let mut seen: HashSet<(Pid, Tid)> = HashSet::new();
    let mut found = Vec::new();
    for start in waits.keys() {
        let mut path = Vec::new();
        let mut at = Some(*start);
        while let Some(thread) = at.filter(|thread| seen.insert(*thread)) {
            path.push(thread);
            at = next(thread);
        }
        // The walk came back to a thread on its own way.
        let Some(first) = path.iter().position(|thread| at == Some(*thread)) else { continue };
        let mut cycle = path.split_off(first);
        let lowest = (0..cycle.len()).min_by_key(|place| cycle[*place]).unwrap_or(0);
        cycle.rotate_left(lowest);
        let cycle: Vec<_> = cycle.iter().map(|thread| waits[thread]).collect();
        found.extend(deadlock(sources, locks, held, &cycle));
    }
    found
}

/// A cycle of waits, each by its lock and its interval; `None` if it may come loose.
fn deadlock(
    sources: &Sources<'_>,
    locks: &[Lock],
    held: &[Option<(Tid, How)>],
    cycle: &[(usize, usize)],
) -> Option<Deadlock> {
    let recording = sources.recording;
    let how = |lock: usize| held[lock].map(|(_, how)| how);
    let least = cycle.iter().filter_map(|(lock, _)| how(*lock)).max()?;
    if least != How::Owner {
        let since = cycle.iter().map(|(_, index)| sources.since(&recording.intervals[*index]));
        let youngest = since.max()?;
        let moves = |lock: &Lock| {
            let mut waits = lock.waits.iter().map(|index| &recording.intervals[*index]);
            waits.any(|wait| !is_open(wait) && wait.wake > youngest)
        };
        let settled = super::end(recording).since(youngest) >= SETTLED;
        // That a thread has the address of what it waits for on its stack says nothing of it.
        if !settled || cycle.len() < 2 || cycle.iter().any(|(lock, _)| moves(&locks[*lock])) {
            return None;
        }
    }
    let since_start = |since: Ktime| since.0.wrapping_sub(recording.session.start.0).cast_signed();
    let thread = |(lock, index): &(usize, usize)| {
        let wait = &recording.intervals[*index];
        Some(DeadlockThread {
            pid: wait.pid.0,
            tid: wait.tid.0,
            name: sources.name(wait.pid, wait.tid),
            lock: format!("{:#x}", locks[*lock].address.0),
            kind: locks[*lock].kind_name().to_owned(),
            site: sources.by_interval[*index],
            since_ns: sources.known_since(wait).map(since_start),
            how: how(*lock)?,
        })
    };
    let threads = cycle.iter().map(thread).collect::<Option<_>>()?;
    Some(Deadlock { threads, how: least, inferred: least != How::Owner })
}

impl Sources<'_> {
    /// When a wait began, or when the window did where that was before and nobody knows when.
    fn since(&self, wait: &Interval) -> Ktime {
        self.known_since(wait).unwrap_or(wait.out)
    }

    fn known_since(&self, wait: &Interval) -> Option<Ktime> {
        if !wait.open_at_start {
            return Some(wait.out);
        }
        self.account(wait.pid, wait.tid)?.open_since
    }
}
