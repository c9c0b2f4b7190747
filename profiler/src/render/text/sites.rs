//! The worst places: function, line, what was waited for, how often and how long, what to use instead.

use std::cmp::Reverse;

use super::{
    page::{Mark, Page, marked},
    spots::{Spot, spots},
    wakers,
};
use crate::{
    analysis::{
        Report, default_states,
        report::{Frame, Object, Origin, Reason, State},
    },
    render::{
        folded, names,
        quantity::{count, share, shares, time},
    },
    runtime::{
        advice,
        names::{normalise, outside_closures},
    },
};

/// How many places are listed; the picture has them all.
const LISTED: usize = 10;

/// Run-queue time after the waits is told from this part of their time on: a hundredth.
const NOTABLE: u64 = 100;

/// Objects of a place that are named.
const OBJECTS: usize = 3;

/// What took less than this part of a place's waiting time is not named: a twentieth.
const MINOR: u64 = 20;

/// A line longer than this puts the source line below the name.
const WIDTH: usize = 100;

/// Said where no function of the program's own is on a stack with names.
const INLINED: &str =
    "no function of the program's own: if it is inlined, `debug = \"line-tables-only\"` names it";

/// What stands before the lines below the first of a place.
const INDENT: &str = "     ";

/// Writes the worst places of the selected states, or of those that pictures show.
pub fn write(report: &Report, page: &mut Page) {
    // All states means that none were selected: idle threads would be the worst of all.
    let all = report.states.len() == State::ALL.len();
    let states = if all { default_states(report) } else { report.states.clone() };
    let sites = report.sites.iter().enumerate();
    let timed = sites.filter(|(_, site)| states.contains(&site.state));
    let spots = spots(report, timed.map(|(at, site)| (at, folded::value_ns(site))));
    if spots.is_empty() {
        return;
    }
    let names = states.iter().map(|state| state.name()).collect::<Vec<_>>();
    page.heading(&format!("Worst places ({})", names.join(", ")));
    let shares = shares(&spots.iter().map(|spot| spot.ns).collect::<Vec<_>>());
    let group = |spot: &Spot<'_>| (spot.sites[0].pool, spot.sites[0].role);
    let listed = &spots[..spots.len().min(LISTED)];
    let told = Told {
        state: states.len() > 1,
        group: listed.iter().any(|spot| group(spot) != group(&spots[0])),
    };
    for (at, (spot, share)) in listed.iter().zip(shares).enumerate() {
        let head = format!("{:>3}. {:>7}  {share:>7}  ", at + 1, time(spot.ns));
        entry(report, spot, &head, told, page);
    }
    if let Some(rest) = spots.get(LISTED..).filter(|rest| !rest.is_empty()) {
        let ns = rest.iter().map(|spot| spot.ns).sum();
        page.line(&format!("  and {} more places with {}", count(rest.len() as u64), time(ns)));
    }
}

/// What the places of a list differ in.
#[derive(Clone, Copy)]
struct Told {
    state: bool,
    /// Pool and role.
    group: bool,
}

fn entry(report: &Report, spot: &Spot<'_>, head: &str, told: Told, page: &mut Page) {
    let site = spot.sites[0];
    let name = spot.place.map_or_else(|| "[no stack]".to_owned(), names::name);
    located(page, head, &marked(Mark::Strong, &name), spot.place);
    page.prose(INDENT, &waits(spot, told));
    if let Some(objects) = objects(spot) {
        page.line(&format!("{INDENT}on {objects}"));
    }
    if let Some(wakers) = wakers::of(report, spot) {
        page.prose(INDENT, &wakers);
    }
    match (&site.task, spot.outermost) {
        (Some(task), Some(frame)) if is_of(task, frame) => {
            located(page, INDENT, &format!("in {task}"), Some(frame));
        }
        (task, outermost) => {
            if let Some(task) = task {
                page.line(&format!("{INDENT}in {task}"));
            }
            if let Some(frame) = outermost {
                located(page, &format!("{INDENT}from "), &names::name(frame), Some(frame));
            }
        }
    }
    let pool = report.pools.iter().find(|pool| pool.id == site.pool);
    if let Some(pool) = pool.filter(|_| told.group) {
        let whose = format!("{INDENT}on {} threads of {}", site.role.name(), pool.name);
        page.line(&marked(Mark::Faint, &whose));
    }
    if let Some(why) = spot.place.and_then(|frame| frame.missing.as_deref()) {
        page.line(&marked(Mark::Faint, &format!("{INDENT}no name: {why}")));
    }
    if let (State::Blocked, Some(pool)) = (site.state, pool) {
        if spot.place.is_some_and(|frame| frame.origin == Origin::Library) {
            page.prose(INDENT, INLINED);
        }
        let use_ = advice::instead(&pool.runtime, site.reason, site.label.as_deref());
        page.prose(&format!("{INDENT}instead: "), &use_);
    }
}

/// `tcp 10.0.0.5:5432, 92.0 %; file /srv/a, 8.0 %`: what was waited on, where that says something.
fn objects(spot: &Spot<'_>) -> Option<String> {
    let waiting: u64 = spot.sites.iter().map(|site| site.total_ns).sum();
    let mut all: Vec<(&Object, u64)> = Vec::new();
    for object in spot.sites.iter().flat_map(|site| &site.objects).filter(|object| tells(object)) {
        let is_same = |(known, _): &&mut (&Object, u64)| {
            (&known.kind, &known.name, &known.peers) == (&object.kind, &object.name, &object.peers)
        };
        match all.iter_mut().find(is_same) {
            Some((_, ns)) => *ns += object.total_ns,
            None => all.push((object, object.total_ns)),
        }
    }
    all.retain(|(_, ns)| ns * MINOR >= waiting && *ns > 0);
    all.sort_by_key(|(object, ns)| (Reverse(*ns), *object));
    let words = all
        .iter()
        .take(OBJECTS)
        .map(|(object, ns)| format!("{}, {}", described(object), share(*ns, waiting)));
    let words = words.collect::<Vec<_>>().join("; ");
    (!words.is_empty()).then_some(words)
}

/// Whether it says more than the reason does. An address in memory tells locks apart, which the
/// section of locks does.
fn tells(object: &Object) -> bool {
    let silent = ["clock", "descriptor", "epoll", "futex"];
    !object.name.is_empty() && !silent.contains(&object.kind.as_str())
}

fn described(object: &Object) -> String {
    let peers = object.peers.iter().map(|peer| format!("{} ({})", peer.name, peer.pid));
    let peers = peers.collect::<Vec<_>>().join(", ");
    let peers = if peers.is_empty() { peers } else { format!(" of {peers}") };
    let doubt = if object.reused { " (or what had its descriptor before)" } else { "" };
    // The kernel's own name for a thing without one says its kind: `pipe:[4711]`.
    let kind = if object.name.ends_with(']') && object.name.starts_with(&object.kind) {
        String::new()
    } else {
        format!("{} ", object.kind)
    };
    format!("{kind}{}{peers}{doubt}", object.name)
}

/// `sleeping, 867 times in 2 stacks, max 4.13 ms, then 14.3 ms on the run queue`.
fn waits(spot: &Spot<'_>, told: Told) -> String {
    let site = spot.sites[0];
    let times: u64 = spot.sites.iter().map(|site| site.count).sum();
    let max_ns = spot.sites.iter().map(|site| site.max_ns).max().unwrap_or(0);
    let runnable_ns: u64 = spot.sites.iter().map(|site| site.runnable_ns).sum();
    let state = if told.state { format!("{}: ", site.state.name()) } else { String::new() };
    // Whoever selects by reason needs to know it where the words do not say it.
    let reason = match (&site.label, site.reason) {
        (Some(_), Reason::Futex) => " (futex)",
        _ => "",
    };
    // Percentiles of several stacks do not add up; that of the largest one speaks for it alone.
    let lengths = match (site.state, spot.sites.len()) {
        (State::Runnable, _) => String::new(),
        (_, 1) => format!(", p99 {}, max {}", time(site.p99_ns), time(max_ns)),
        (_, stacks) => format!(" in {stacks} stacks, max {}", time(max_ns)),
    };
    let notable = runnable_ns * NOTABLE > spot.ns && site.state != State::Runnable;
    let after = || format!("; then {} on the run queue", time(runnable_ns));
    let then = if notable { after() } else { String::new() };
    let times = if times == 1 { "once".to_owned() } else { format!("{} times", count(times)) };
    format!("{state}{}{reason}, {times}{lengths}{then}", spot.awaited())
}

/// Whether the function is the task's own.
fn is_of(task: &str, frame: &Frame) -> bool {
    let path = normalise(frame.function.as_deref().unwrap_or_default());
    task.ends_with(outside_closures(&path)) && path.contains("::")
}

/// One line with `name` and where its source is; two if one would be too long.
fn located(page: &mut Page, head: &str, name: &str, frame: Option<&Frame>) {
    let line = format!("{head}{name}");
    match frame.and_then(names::source) {
        None => page.line(&line),
        Some(source) if line.chars().count() + 2 + source.chars().count() <= WIDTH => {
            page.line(&format!("{line}  {source}"));
        }
        Some(source) => {
            page.line(&line);
            page.line(&format!("{INDENT}at {source}"));
        }
    }
}
