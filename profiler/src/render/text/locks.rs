//! Locks: which threads wait for each other's, where threads queue, and who held them up.

use std::cmp::Reverse;

use super::{
    page::{Mark, Page, marked},
    spots::{awaited, places},
};
use crate::{
    analysis::{
        Report,
        report::{
            Deadlock, DeadlockThread, Frame, FrameKind, HeldSite, How, Lock, LockHolder, Origin,
            Site, State, Thread,
        },
    },
    render::{
        names,
        quantity::{count, share, time},
    },
};

/// How many locks are listed.
const LISTED: usize = 5;

/// How many are listed of those that are waited for at a moment.
const WAITED_FOR: usize = 20;

/// A lock is listed whose waiting is this part of the window, or more: a hundredth.
const NOTABLE: u64 = 100;

/// How many holders of a lock are told of.
const HOLDERS: usize = 2;

/// What held up less than this part of a lock's waiting is not told of: a twentieth.
const MINOR: u64 = 20;

/// How many waiting threads are named.
const NAMED: usize = 8;

/// What stands before the lines below the first of a lock.
const INDENT: &str = "     ";

/// Writes the deadlocks: before everything else.
pub fn deadlocks(report: &Report, page: &mut Page) {
    for deadlock in &report.deadlocks {
        page.warning(&said(deadlock));
        let next = deadlock.threads.iter().cycle().skip(1);
        for (thread, holder) in deadlock.threads.iter().zip(next) {
            let age = thread.since_ns.map_or(String::new(), |since_ns| {
                let end_ns = report.window.duration_ns.cast_signed();
                let age = u64::try_from(end_ns - since_ns).unwrap_or_default();
                format!(", for {}{}", if since_ns < 0 { "about " } else { "" }, time(age))
            });
            let (own, lock) = (named(&thread.name, thread.tid), lock_of(thread));
            let holder = named(&holder.name, holder.tid);
            let held = format!("held by {holder}: {}", known_by(thread.how));
            page.prose("  ", &format!("{own} waits for {lock}{age}, {held}"));
            if let Some(site) = thread.site.and_then(|site| report.sites.get(site)) {
                key_frames(site, page);
            }
        }
    }
}

/// `SUSPECTED DEADLOCK: 2 threads wait for each other's locks and cannot go on`.
fn said(deadlock: &Deadlock) -> String {
    let inferred = if deadlock.inferred { " (inferred)" } else { "" };
    match deadlock.threads.len() {
        1 => {
            format!("SUSPECTED DEADLOCK{inferred}: a thread waits for a lock that it holds itself")
        }
        all => format!(
            "SUSPECTED DEADLOCK{inferred}: {} threads wait for each other's locks",
            count(all as u64)
        ),
    }
}

fn known_by(how: How) -> &'static str {
    match how {
        How::Owner => "the lock names it as its owner",
        How::Reference => "it alone has the lock's address on its stack",
        How::WakeUp => "it was the last one seen to get it",
    }
}

fn lock_of(thread: &DeadlockThread) -> String {
    format!("the {} at {}", thread.kind, thread.lock)
}

/// The function that waits, and the one where the program's own code begins.
fn key_frames(site: &Site, page: &mut Page) {
    let (place, outermost) = places(site);
    for (word, frame) in [("in", place), ("from", outermost)] {
        if let Some(frame) = frame {
            page.line(&format!("{INDENT}{word} {}{}", names::name(frame), source(frame)));
        }
    }
}

/// Writes the locks that threads waited for.
pub fn write(report: &Report, page: &mut Page) {
    let notable = |lock: &&Lock| {
        is_lock(lock) && lock.total_ns > 0 && lock.total_ns * NOTABLE >= report.window.duration_ns
    };
    let notable: Vec<&Lock> = report.locks.iter().filter(notable).collect();
    if notable.is_empty() {
        return;
    }
    page.heading("Locks");
    for (at, lock) in (1..).zip(notable.iter().take(LISTED)) {
        let name = marked(Mark::Strong, lock.name.as_deref().unwrap_or("[no name]"));
        page.line(&format!("{at:>3}. {:>7}  {} in {name}", time(lock.total_ns), lock.kind));
        let threads = if lock.waiters == 1 { "thread" } else { "threads" };
        let times = if lock.count == 1 {
            "once".to_owned()
        } else {
            format!("{} times", count(lock.count))
        };
        let waited = format!(
            "{} {threads} waited {times}, max {}, at {}",
            count(lock.waiters.into()),
            time(lock.max_ns),
            lock.address
        );
        page.prose(INDENT, &waited);
        if lock.convoy {
            let queued = share(lock.queued_ns, report.window.duration_ns);
            let convoy = marked(Mark::Bad, "a convoy");
            page.prose(
                INDENT,
                &format!("{convoy}: two or more waited at once for {queued} of the time"),
            );
        }
        let major = |holder: &&LockHolder| holder.total_ns * MINOR >= lock.total_ns;
        for holder in lock.holders.iter().filter(major).take(HOLDERS) {
            page.prose(INDENT, &held_up(report, lock, holder));
        }
    }
    if let Some(rest) = notable.get(LISTED..).filter(|rest| !rest.is_empty()) {
        let ns = rest.iter().map(|lock| lock.total_ns).sum();
        page.line(&format!("  and {} more locks with {}", count(rest.len() as u64), time(ns)));
    }
}

/// `held by flusher 4711 for 97.0 % of that: 99.0 % sleeping in `flush` (src/log.rs:12)`.
fn held_up(report: &Report, lock: &Lock, holder: &LockHolder) -> String {
    let part = share(holder.total_ns, lock.total_ns);
    let inferred = if holder.inferred { ", as far as can be told," } else { "" };
    let who = named(&holder.name, holder.tid);
    // One place can be reached by several ways.
    let mut waits: Vec<(String, u64)> = Vec::new();
    for held in &holder.sites {
        let Some(site) = report.sites.get(held.site) else { continue };
        let place = places(site).0.map_or(String::new(), place);
        let what = format!("{}{place}", awaited(site));
        match waits.iter_mut().find(|(known, _)| *known == what) {
            Some((_, ns)) => *ns += held.total_ns,
            None => waits.push((what, held.total_ns)),
        }
    }
    waits.sort_by_key(|(_, ns)| Reverse(*ns));
    let major = waits.iter().filter(|(_, ns)| ns * MINOR >= holder.total_ns);
    let doing = major.map(|(what, ns)| format!("{} {what}", share(*ns, holder.total_ns)));
    let mut doing: Vec<String> = doing.collect();
    let waiting: u64 = holder.sites.iter().map(|held| held.total_ns).sum();
    let rest = holder.total_ns.saturating_sub(waiting);
    if rest > 0 && rest * MINOR >= holder.total_ns {
        doing.push(format!("{} on a CPU or in short waits", share(rest, holder.total_ns)));
    }
    let own = |frame: &&Frame| frame.origin == Origin::Own && frame.kind != FrameKind::Kernel;
    let gives = holder.frames.iter().rfind(own);
    let waits = |held: &HeldSite| {
        report.sites.get(held.site).is_some_and(|site| site.state != State::Runnable)
    };
    let gives = match gives {
        Some(frame) => format!("; given back{}", place(frame)),
        None if holder.frames.is_empty() && !holder.sites.iter().any(waits) => {
            "; `--wakers stack` tells in which function".to_owned()
        }
        None => String::new(),
    };
    format!("held by {who}{inferred} for {part} of that: {}{gives}", doing.join(", "))
}

/// Writes who waits for which lock at the moment, and who holds it.
pub fn waited_for(report: &Report, page: &mut Page) {
    let waited_for = |lock: &&Lock| is_lock(lock) && !lock.waiting.is_empty();
    let locks: Vec<&Lock> = report.locks.iter().filter(waited_for).collect();
    if locks.is_empty() {
        return;
    }
    page.heading("Locks");
    for lock in locks.iter().take(WAITED_FOR) {
        let threads = lock.waiting.iter().take(NAMED).map(|tid| name_of(report, *tid));
        let threads = threads.collect::<Vec<_>>().join(", ");
        let more = match lock.waiting.len().saturating_sub(NAMED) {
            0 => String::new(),
            more => format!(" and {} more", count(more as u64)),
        };
        let holder = match &lock.held_at_end {
            Some(held) => {
                format!("held by {}: {}", named(&held.name, held.tid), known_by(held.how))
            }
            None => "by whom it is held is not known".to_owned(),
        };
        page.prose("  ", &format!("{} at {}: {threads}{more}; {holder}", lock.kind, lock.address));
    }
    if let Some(more) = locks.len().checked_sub(WAITED_FOR).filter(|more| *more > 0) {
        page.line(&format!("  and {} more", count(more as u64)));
    }
}

fn is_lock(lock: &Lock) -> bool {
    ["mutex", "rwlock"].contains(&lock.kind.as_str())
}

fn name_of(report: &Report, tid: u32) -> String {
    let mut threads = report.pools.iter().flat_map(|pool| &pool.threads);
    let found: Option<&Thread> = threads.find(|thread| thread.tid == tid);
    named(found.map_or("", |thread| &thread.name), tid)
}

fn named(name: &str, tid: u32) -> String {
    format!("{name} {tid}").trim_start().to_owned()
}

/// ` in `flush` (src/log.rs:12)`.
fn place(frame: &Frame) -> String {
    let source = names::source(frame).map_or(String::new(), |source| format!(" ({source})"));
    format!(" in `{}`{source}", names::short_name(frame))
}

fn source(frame: &Frame) -> String {
    names::source(frame).map_or(String::new(), |source| format!("  {source}"))
}
