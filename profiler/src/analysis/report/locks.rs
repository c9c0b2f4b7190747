//! What a report says of locks, and of threads that wait for each other's.

use serde::Serialize;

use super::Frame;

/// A futex that threads waited for, other than to be given work by their runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lock {
    /// The process.
    pub pid: u32,
    /// Where it is, hex.
    pub address: String,
    /// `mutex` or `rwlock`; else it is no lock: what the stacks of the waits mean (`condvar`,
    /// `channel`, `join`, ...), or `futex`. Who ends the wait for what is no lock did not hold it.
    pub kind: String,
    /// The function that waits for it, of several the one with the most waiting; null if none has a
    /// name.
    pub name: Option<String>,
    /// How many threads waited for it.
    pub waiters: u32,
    /// Those that still did when the window ended.
    pub waiting: Vec<u32>,
    /// Intervals.
    pub count: u64,
    /// Waiting time, all of them.
    pub total_ns: u64,
    /// Waiting time, the longest.
    pub max_ns: u64,
    /// For how long two or more threads waited for it at once.
    pub queued_ns: u64,
    /// It is a lock; three threads or more waited for it, some wait for it ended, and for at least
    /// half of the window two or more threads waited for it at once.
    pub convoy: bool,
    /// Indices into [`super::Report::sites`], the one with the most waiting for it first.
    pub sites: Vec<usize>,
    /// Who held it while others waited, the one that held up the most waiting first; the few that
    /// matter. Empty if it is no lock.
    pub holders: Vec<LockHolder>,
    /// Who held it when the window ended, where others waited for it then and that is known.
    pub held_at_end: Option<HeldBy>,
}

/// A thread that held a lock while others waited for it.
///
/// Whoever ends a wait had the lock, and had it since the wake-up before: waiting time between two
/// such moments is what the second one's thread held up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockHolder {
    /// The thread.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Waits that it ended.
    pub count: u64,
    /// Waiting time of the others while it held the lock.
    pub total_ns: u64,
    /// What it waited for itself meanwhile, the longest first. What is left of `total_ns` it was on
    /// a CPU, wanted one, or was in waits below the minimum block.
    pub sites: Vec<HeldSite>,
    /// Its stack when it gave the lock back, root to leaf, of several the one with the most waiting;
    /// empty where none was taken.
    pub frames: Vec<Frame>,
    /// Part of `total_ns` is here only because it held the lock at the end as far as can be told:
    /// [`HeldBy::how`] is not `owner`.
    pub inferred: bool,
}

/// Where the holder of a lock waited itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct HeldSite {
    /// Index into [`super::Report::sites`].
    pub site: usize,
    /// Waiting time of the others meanwhile.
    pub total_ns: u64,
}

/// Who holds a lock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HeldBy {
    /// The thread.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// How that is known.
    pub how: How,
}

/// How it is known who holds a lock, the surest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The lock names its owner.
    Owner,
    /// Of all threads that do not wait for it, this one has its address on its stack.
    Reference,
    /// No such thread has, and it was the last one whose wait for it was ended.
    WakeUp,
}

/// Threads each of which waits for a lock that the next one holds, and the last one for one of the
/// first's.
///
/// Where that is not known from the locks themselves it is said only of waits that have lasted for
/// a second, and of locks for which no wait ended meanwhile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deadlock {
    /// The threads, the one of the lowest id first.
    pub threads: Vec<DeadlockThread>,
    /// The least sure of how it is known who holds the locks.
    pub how: How,
    /// It is anything but [`How::Owner`].
    pub inferred: bool,
}

/// A thread in a deadlock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeadlockThread {
    /// The process.
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// The address of the lock that it waits for, hex: [`Lock::address`].
    pub lock: String,
    /// [`Lock::kind`].
    pub kind: String,
    /// Index into [`super::Report::sites`]; null if the site is not in this report.
    pub site: Option<usize>,
    /// When its wait began, as [`super::AtEnd::since_ns`].
    pub since_ns: Option<i64>,
    /// How it is known that the next thread holds that lock.
    pub how: How,
}
