//! Threads in their pools, with every sum that a report gives of them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
};

use anyhow::{Context as _, Result};

use super::{
    accounts::Account,
    judge::Judged,
    polls::{self, LongPoll, Polls},
    report::{AtEnd, LongPolls, Pool, Role, Site, Starvation, State, Thread},
    sites::{Finished, Sites},
    stacks::Stacks,
    starvation::{self, WorkerLine},
};
use crate::{
    recording::{Interval, Recording},
    runtime::{NO_RUNTIME, Place, Scope, instances},
    units::{Ktime, Pid},
};

/// What a report counts.
pub struct Numbers {
    pub pools: Vec<Pool>,
    pub sites: Vec<Site>,
    pub starvation: Vec<Starvation>,
    pub long_polls: Vec<LongPolls>,
    /// The index of the site of each interval, where it is at one.
    pub by_interval: Vec<Option<usize>>,
}

/// One pool while it is being put together.
struct Draft<'a> {
    name: String,
    runtime: &'static str,
    inferred: bool,
    threads: Vec<Thread>,
    lines: Vec<WorkerLine>,
    polls: Polls<'a>,
}

/// Sums up everything; `shown` says for each account whether its thread and sites are wanted.
///
/// # Errors
/// Intervals that are longer than the thread's waiting time.
pub fn numbers(
    recording: &Recording,
    accounts: &[Account],
    stacks: &Stacks<'_>,
    judged: &Judged,
    shown: &[bool],
    long_poll: LongPoll,
) -> Result<Numbers> {
    let samples = polls::samples_by_thread(recording);
    let mut grouped: BTreeMap<(&str, Pid, Scope), Vec<usize>> = BTreeMap::new();
    for (index, account) in accounts.iter().enumerate() {
        let place = place(judged, account);
        grouped.entry((place.runtime, account.pid, place.scope)).or_default().push(index);
    }
    let names = pool_names(recording, accounts, &grouped);
    let mut sites = Sites::new(recording, stacks, judged);
    let mut drafts: Vec<Draft<'_>> = Vec::new();
    for ((key, members), name) in grouped.iter().zip(names) {
        let runtime = place(judged, &accounts[members[0]]).runtime;
        debug_assert_eq!(runtime, key.0);
        let inferred = members.iter().any(|member| place(judged, &accounts[*member]).inferred);
        let mut draft = Draft {
            name,
            runtime,
            inferred,
            threads: Vec::new(),
            lines: Vec::new(),
            polls: Polls::default(),
        };
        for index in members {
            let account = &accounts[*index];
            let summed = Summing { recording, judged, account };
            let wanted = shown[*index].then_some((&mut sites, drafts.len()));
            let (roles, thread, line) = summed.sum(wanted)?;
            draft.lines.push(line);
            if shown[*index] {
                draft.threads.push(thread);
                let intervals: Vec<_> = account.intervals.iter().copied().zip(roles).collect();
                let samples = samples.get(&(account.pid, account.tid));
                let samples = samples.map_or(&[][..], Vec::as_slice);
                draft.polls.add(recording, judged, &intervals, samples, long_poll);
            }
        }
        drafts.push(draft);
    }
    Ok(finish(drafts, sites))
}

fn finish(drafts: Vec<Draft<'_>>, sites: Sites<'_>) -> Numbers {
    let mut order: Vec<usize> = (0..drafts.len()).collect();
    order.sort_by_key(|index| {
        let draft = &drafts[*index];
        let blocked: u64 = draft.threads.iter().map(|thread| thread.blocked_ns).sum();
        (Reverse(blocked), draft.runtime == NO_RUNTIME, Reverse(draft.threads.len()), *index)
    });
    let mut ids = vec![0; drafts.len()];
    for (id, index) in order.iter().enumerate() {
        ids[*index] = id as u32;
    }
    let Finished { sites, order: places, by_interval } = sites.finish(&ids);
    let mut pools = Vec::new();
    let mut starvation = Vec::new();
    let mut long_polls = Vec::new();
    let mut drafts: Vec<Option<Draft<'_>>> = drafts.into_iter().map(Some).collect();
    for index in order {
        let Some(draft) = drafts[index].take() else { continue };
        if draft.threads.is_empty() {
            continue;
        }
        let curve = starvation::curve(&draft.lines);
        for window in starvation::windows(&draft.lines, &curve) {
            starvation.push(Starvation {
                pool: ids[index],
                start_ns: window.start_ns,
                end_ns: window.end_ns,
                workers: window.workers,
                sites: window.sites.iter().map(|(site, _)| places[*site]).collect(),
                held_ns: window.sites.iter().map(|(_, held)| *held).collect(),
            });
        }
        long_polls.extend(draft.polls.finish(ids[index]));
        let mut threads = draft.threads;
        let workers = starvation::usual_workers(&curve);
        for at_end in threads.iter_mut().filter_map(|thread| thread.at_end.as_mut()) {
            at_end.site = places[at_end.site];
        }
        pools.push(Pool {
            id: ids[index],
            name: draft.name,
            runtime: draft.runtime.to_owned(),
            workers,
            blocked_curve: curve,
            hung: is_hung(&threads, workers),
            threads,
            inferred: draft.inferred,
        });
    }
    long_polls.sort_by_key(|polls| Reverse(polls.total_ns));
    Numbers { pools, sites, starvation, long_polls, by_interval }
}

/// Whether each of so many workers was blocked in one wait for as long as it was watched.
fn is_hung(threads: &[Thread], workers: u32) -> bool {
    let never_moved = |thread: &Thread| {
        let whole = thread.blocked_ns == thread.wall_ns && thread.wall_ns > 0;
        whole && thread.open_at_start && thread.open_at_end && thread.intervals == 1
    };
    let shown = || threads.iter().filter(|thread| thread.role == Role::Worker);
    shown().count() == workers as usize && workers > 0 && shown().all(never_moved)
}

fn place(judged: &Judged, account: &Account) -> Place {
    let nowhere =
        Place { runtime: NO_RUNTIME, scope: Scope::Process, role: Role::Other, inferred: false };
    judged.places.get(&(account.pid, account.tid)).copied().unwrap_or(nowhere)
}

/// A name for each pool, no two the same: the runtime's, its threads' where it is one of several or
/// lives on one, and as much more as is needed to tell it from the others.
fn pool_names(
    recording: &Recording,
    accounts: &[Account],
    grouped: &BTreeMap<(&str, Pid, Scope), Vec<usize>>,
) -> Vec<String> {
    let target = recording.session.target.pid;
    let in_process = |name: &str, pid: Pid| {
        if pid == target { name.to_owned() } else { format!("{name}@{pid}") }
    };
    let mut taken: HashMap<String, u32> = HashMap::new();
    let mut name = |(&(runtime, pid, scope), members): (&(&str, Pid, Scope), &Vec<usize>)| {
        let mut name = runtime.to_owned();
        if let Scope::Instance(_) = scope {
            let threads = members.first().map_or("", |index| accounts[*index].name.as_str());
            name = format!("{name}:{}", instances::stem(threads));
        }
        if scope == Scope::Several {
            name.push_str(":several");
        }
        if let Scope::Thread(tid) = scope {
            let account = accounts.iter().find(|account| (account.pid, account.tid) == (pid, tid));
            let thread = account.map_or("", |account| account.name.as_str());
            name = format!("{name}:{thread}");
            if taken.contains_key(&in_process(&name, pid)) {
                name = format!("{name}:{tid}");
            }
        }
        let name = in_process(&name, pid);
        *taken.entry(name.clone()).or_default() += 1;
        name
    };
    grouped.iter().map(&mut name).collect()
}

/// The sums of one thread.
struct Summing<'a> {
    recording: &'a Recording,
    judged: &'a Judged,
    account: &'a Account,
}

impl Summing<'_> {
    fn sum(
        &self,
        mut sites: Option<(&mut Sites<'_>, usize)>,
    ) -> Result<(Vec<Role>, Thread, WorkerLine)> {
        let account = self.account;
        let (roles, role, mut line) = self.roles();
        let mut at_end = None;
        let (mut idle, mut blocked, mut allowed, mut recorded_unknown) = (0, 0, 0, 0);
        for (index, role) in account.intervals.iter().zip(roles.iter().copied()) {
            let interval = &self.recording.intervals[*index];
            let site = sites.as_mut().map(|(sites, pool)| sites.add(*pool, role, *index, interval));
            if interval.open_at_end {
                at_end = site.map(|site| self.at_end(site, interval));
            }
            let Some(state) = self.state(*index) else { continue };
            let waiting = interval.wake.since(interval.out).0;
            match state {
                State::Idle => idle += waiting,
                State::Blocked => blocked += waiting,
                State::Allowed => allowed += waiting,
                State::Unknown | State::Runnable => recorded_unknown += waiting,
            }
            if state == State::Blocked && role == Role::Worker {
                let from = self.offset(interval.out);
                let from = from.max(line.blocked.last().map_or(0, |last| last.1));
                line.blocked.push((from, self.offset(interval.in_).max(from), site));
            }
        }
        let explained = idle + blocked + allowed + recorded_unknown;
        let unexplained = account.waiting.0.checked_sub(explained).with_context(|| {
            format!("the intervals of thread {} are longer than its waiting time", account.tid)
        })?;
        if let (Some((sites, pool)), true) = (sites, unexplained > 0) {
            let lost = account.measured.saturating_sub(account.intervals.len() as u64);
            sites.add_unexplained(pool, role, unexplained, lost);
        }
        let thread = Thread {
            tid: account.tid.0,
            name: account.name.clone(),
            role,
            wall_ns: account.to.since(account.from).0,
            running_ns: account.running.0,
            runnable_ns: account.runnable.0,
            idle_ns: idle,
            blocked_ns: blocked,
            allowed_ns: allowed,
            short_ns: account.short.0,
            unknown_ns: recorded_unknown + unexplained,
            open_at_start: account.open_at_start,
            open_at_end: account.open_at_end,
            switches: account.switches,
            kernel_switches: account.kernel_switches,
            intervals: account.measured,
            shorts: account.shorts,
            open_since_ns: account.open_since.map(|since| self.signed_offset(since)),
            at_end,
        };
        Ok((roles, thread, line))
    }

    /// The thread's role in each interval, the one it had for most of its time, and when it was a
    /// worker.
    ///
    /// What a stack shows holds until another shows something else. Between two intervals in which
    /// the role changed, the thread counts as a worker if it was one in either: so a pool never
    /// looks smaller, and starved sooner, than it was.
    fn roles(&self) -> (Vec<Role>, Role, WorkerLine) {
        let account = self.account;
        let shown: Vec<_> = account.intervals.iter().map(|index| self.shown_role(*index)).collect();
        let fallback = place(self.judged, account).role;
        let mut current = shown.iter().find_map(|role| *role).unwrap_or(fallback);
        let mut roles = Vec::with_capacity(shown.len());
        let mut line = WorkerLine::default();
        let mut time: BTreeMap<Role, u64> = BTreeMap::new();
        let mut at = self.offset(account.from);
        let mut until = |to: u64, role: Role| {
            let to = to.max(at);
            *time.entry(role).or_default() += to - at;
            if role == Role::Worker && to > at {
                match line.worker.last_mut() {
                    Some(last) if last.1 == at => last.1 = to,
                    _ => line.worker.push((at, to)),
                }
            }
            at = to;
        };
        for (index, shown) in account.intervals.iter().zip(shown) {
            let interval = &self.recording.intervals[*index];
            let role = shown.unwrap_or(current);
            // `Role` lists the worker first.
            until(self.offset(interval.out), role.min(current));
            until(self.offset(interval.in_), role);
            roles.push(role);
            current = role;
        }
        until(self.offset(account.to), current);
        let most = time.into_iter().max_by_key(|(role, time)| (*time, Reverse(*role)));
        (roles, most.map_or(fallback, |(role, _)| role), line)
    }

    fn shown_role(&self, index: usize) -> Option<Role> {
        self.judged.intervals[index]
            .and_then(|judgement| self.judged.meanings[judgement.meaning].role)
    }

    /// The state of a wait; `None` if it was preempted.
    fn state(&self, index: usize) -> Option<State> {
        self.judged.intervals[index].map(|judgement| self.judged.meanings[judgement.meaning].state)
    }

    /// An interval that is open at the end of the window; `site` is its number so far.
    fn at_end(&self, site: usize, interval: &Interval) -> AtEnd {
        let since =
            if interval.open_at_start { self.account.open_since } else { Some(interval.out) };
        AtEnd {
            site,
            since_ns: since.map(|since| self.signed_offset(since)),
            in_run_queue: interval.wake < interval.in_,
        }
    }

    fn signed_offset(&self, at: Ktime) -> i64 {
        at.0.wrapping_sub(self.recording.session.start.0).cast_signed()
    }

    fn offset(&self, at: Ktime) -> u64 {
        at.since(self.recording.session.start).0
    }
}
