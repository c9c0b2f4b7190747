//! Each thread's measured time, and which intervals are part of it.

use std::collections::HashMap;

use anyhow::{Context as _, Result, bail, ensure};

use crate::{
    recording::{Ending, Interval, Recording},
    units::{Ktime, Nanos, Pid, Tid},
};

/// One thread's measured time. Exactly: `running + runnable + waiting + short == to - from`.
#[derive(Clone, Debug)]
pub struct Account {
    pub pid: Pid,
    pub tid: Tid,
    pub name: String,
    pub from: Ktime,
    pub to: Ktime,
    pub running: Nanos,
    pub runnable: Nanos,
    /// Waiting that intervals account for, or should.
    pub waiting: Nanos,
    pub short: Nanos,
    pub switches: u64,
    pub kernel_switches: u64,
    /// Intervals measured, recorded or not.
    pub measured: u64,
    pub shorts: u64,
    pub open_at_start: bool,
    pub open_at_end: bool,
    /// When the interval that was open at the start had begun, where that is known.
    pub open_since: Option<Ktime>,
    /// Indices of its recorded intervals, in order of their beginning.
    pub intervals: Vec<usize>,
}

/// The accounts of all threads, in order of process, thread and time.
///
/// A thread whose totals were lost, or never written because the recorder was killed, gets an
/// account from its intervals; what they do not cover is waiting that nothing explains.
///
/// # Errors
/// Totals that do not add up, or less time in the totals than in the intervals.
pub fn accounts(recording: &Recording) -> Result<Vec<Account>> {
    let mut accounts = from_totals(recording)?;
    accounts.sort_by_key(|account| (account.pid, account.tid, account.from));
    let mut by_thread: HashMap<(Pid, Tid), Vec<usize>> = HashMap::new();
    for (index, account) in accounts.iter().enumerate() {
        by_thread.entry((account.pid, account.tid)).or_default().push(index);
    }
    let mut orphans: HashMap<(Pid, Tid), Vec<usize>> = HashMap::new();
    if matches!(recording.ending, Ending::Unfinished { .. }) {
        for thread in &recording.threads {
            let key = (thread.pid, thread.tid);
            if !by_thread.contains_key(&key) {
                orphans.entry(key).or_default();
            }
        }
    }
    for (index, interval) in recording.intervals.iter().enumerate() {
        ensure!(
            interval.out <= interval.wake && interval.wake <= interval.in_,
            "corrupt recording: interval {index} of thread {} ends before it begins",
            interval.tid
        );
        let key = (interval.pid, interval.tid);
        // A thread id can be used twice within a recording: the later life counts from its birth.
        let lives = by_thread.get(&key).map_or(&[][..], Vec::as_slice);
        let life = lives.iter().rev().find(|life| accounts[**life].from <= interval.out);
        match life.or(lives.first()) {
            Some(life) => accounts[*life].intervals.push(index),
            None => orphans.entry(key).or_default().push(index),
        }
    }
    for (key, intervals) in orphans {
        accounts.push(from_intervals(recording, key, intervals)?);
    }
    let open_since: HashMap<(Pid, Tid), Ktime> =
        recording.open_since.iter().map(|open| ((open.pid, open.tid), open.since)).collect();
    for account in &mut accounts {
        if account.open_at_start {
            account.open_since = open_since.get(&(account.pid, account.tid)).copied();
        }
        account.intervals.sort_by_key(|index| recording.intervals[*index].out);
        check(account, &recording.intervals)?;
    }
    accounts.sort_by_key(|account| (account.pid, account.tid, account.from));
    Ok(accounts)
}

fn from_totals(recording: &Recording) -> Result<Vec<Account>> {
    let account = |totals: &crate::recording::ThreadTotals| {
        let parts = totals.running + totals.runnable + totals.waiting + totals.short;
        ensure!(
            totals.from <= totals.to && parts == totals.to.since(totals.from),
            "corrupt recording: the totals of thread {} do not add up to its time",
            totals.tid
        );
        Ok(Account {
            pid: totals.pid,
            tid: totals.tid,
            name: totals.name.clone(),
            from: totals.from,
            to: totals.to,
            running: totals.running,
            runnable: totals.runnable,
            waiting: totals.waiting,
            short: totals.short,
            switches: totals.switches,
            kernel_switches: totals.kernel_switches,
            measured: totals.intervals,
            shorts: totals.shorts,
            open_at_start: totals.open_at_start,
            open_at_end: totals.open_at_end,
            open_since: None,
            intervals: Vec::new(),
        })
    };
    recording.totals.iter().map(account).collect()
}

fn from_intervals(
    recording: &Recording,
    (pid, tid): (Pid, Tid),
    intervals: Vec<usize>,
) -> Result<Account> {
    let own = || intervals.iter().map(|index| &recording.intervals[*index]);
    let named = || recording.threads.iter().filter(|thread| (thread.pid, thread.tid) == (pid, tid));
    let first = own().map(|interval| interval.out).min();
    let last = own().map(|interval| interval.in_).max();
    let unfinished = matches!(recording.ending, Ending::Unfinished { .. });
    let seen = named().map(|thread| thread.at).min().filter(|_| unfinished);
    let seen = seen.map(|at| at.max(recording.session.start));
    let end = super::end(recording);
    let from = first.into_iter().chain(seen).min().unwrap_or(end);
    let to = if unfinished { end.max(from) } else { last.unwrap_or(end) };
    let runnable: Nanos = own().map(|interval| interval.in_.since(interval.wake)).sum();
    let waiting = to.since(from).0.checked_sub(runnable.0).map(Nanos);
    Ok(Account {
        pid,
        tid,
        name: named().next_back().map(|thread| thread.name.clone()).unwrap_or_default(),
        from,
        to,
        running: Nanos(0),
        runnable,
        waiting: waiting.with_context(|| overlap(tid))?,
        short: Nanos(0),
        switches: own().count() as u64,
        kernel_switches: own().count() as u64,
        measured: own().count() as u64,
        shorts: 0,
        open_at_start: own().any(|interval| interval.open_at_start),
        open_at_end: own().any(|interval| interval.open_at_end),
        open_since: None,
        intervals,
    })
}

/// Intervals that are longer than the totals would make some state's sum wrong.
fn check(account: &Account, intervals: &[Interval]) -> Result<()> {
    let own = || account.intervals.iter().map(|index| &intervals[*index]);
    let waiting: Nanos = own().map(|interval| interval.wake.since(interval.out)).sum();
    let runnable: Nanos = own().map(|interval| interval.in_.since(interval.wake)).sum();
    if waiting > account.waiting || runnable > account.runnable {
        bail!(overlap(account.tid));
    }
    Ok(())
}

fn overlap(tid: Tid) -> String {
    format!("corrupt recording: the intervals of thread {tid} are longer than its time")
}
