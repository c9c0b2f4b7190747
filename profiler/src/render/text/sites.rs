//! The worst places: function, line, what was waited for, how often and how long.

use super::page::{Mark, Page, marked};
use crate::{
    analysis::{
        Report, default_states,
        report::{Frame, FrameKind, Reason, Site, State},
    },
    render::{
        folded, own_code,
        quantity::{count, share, time},
    },
};

/// How many sites are listed; the picture has them all.
const LISTED: usize = 10;

/// A line longer than this puts the source line below the name.
const WIDTH: usize = 100;

/// What stands before the lines below the first of a site.
const INDENT: &str = "     ";

/// Writes the worst sites of the selected states, or of those that pictures show.
pub fn write(report: &Report, page: &mut Page) {
    // All states means that none were selected: idle threads would be the worst sites of all.
    let all = report.states.len() == State::ALL.len();
    let states = if all { default_states(report) } else { report.states.clone() };
    let mut sites =
        report.sites.iter().filter(|site| states.contains(&site.state)).collect::<Vec<_>>();
    sites.retain(|site| folded::value_ns(site) > 0);
    if sites.is_empty() {
        return;
    }
    sites.sort_by_key(|site| std::cmp::Reverse(folded::value_ns(site)));
    let total_ns = sites.iter().map(|site| folded::value_ns(site)).sum();
    let names = states.iter().map(|state| state.name()).collect::<Vec<_>>();
    page.heading(&format!("Worst sites ({})", names.join(", ")));
    for (at, site) in sites.iter().take(LISTED).enumerate() {
        entry(report, site, at + 1, total_ns, states.len() > 1, page);
    }
    if let Some(rest) = sites.get(LISTED..).filter(|rest| !rest.is_empty()) {
        let ns = rest.iter().map(|site| folded::value_ns(site)).sum();
        page.line(&format!("  and {} more sites with {}", count(rest.len() as u64), time(ns)));
    }
}

fn entry(
    report: &Report,
    site: &Site,
    rank: usize,
    total_ns: u64,
    tell_state: bool,
    page: &mut Page,
) {
    let value_ns = folded::value_ns(site);
    let (place, outermost) = places(site);
    let name = place.map_or_else(|| "[no stack]".to_owned(), folded::name);
    let head = format!("{rank:>3}. {:>7}  {:>7}  ", time(value_ns), share(value_ns, total_ns));
    located(page, &head, &marked(Mark::Strong, &name), place);

    let state = if tell_state { format!("{}: ", site.state.name()) } else { String::new() };
    let times = match site.state {
        State::Runnable => String::new(),
        _ => format!(", p99 {}, max {}", time(site.p99_ns), time(site.max_ns)),
    };
    page.line(&format!("{INDENT}{state}{}, {} times{times}", awaited(site), count(site.count)));
    if site.state != State::Runnable && site.runnable_ns > 0 {
        let after = time(site.runnable_ns);
        page.line(&format!("{INDENT}and {after} on the run queue after the wake-ups"));
    }
    if let Some(task) = &site.task {
        page.line(&format!("{INDENT}in task {task}"));
    }
    if let Some(frame) = outermost {
        located(page, &format!("{INDENT}from "), &folded::name(frame), Some(frame));
    }
    let pool = report.pools.iter().find(|pool| pool.id == site.pool);
    if report.pools.len() > 1
        && let Some(pool) = pool
    {
        page.line(&marked(
            Mark::Faint,
            &format!("{INDENT}on {} threads of {}", site.role.name(), pool.name),
        ));
    }
    if let Some(why) = place.and_then(|frame| frame.missing.as_deref()) {
        page.line(&marked(Mark::Faint, &format!("{INDENT}no name: {why}")));
    }
}

/// The deepest frame of own code, and the outermost one if it is another.
///
/// Without own code the deepest frame that may be own code stands in, then the deepest with a name.
fn places(site: &Site) -> (Option<&Frame>, Option<&Frame>) {
    let mut own = site.frames.iter().filter(|frame| own_code::is_own(frame));
    if let Some(outermost) = own.next() {
        return match own.next_back() {
            Some(deepest) => (Some(deepest), Some(outermost)),
            None => (Some(outermost), None),
        };
    }
    let user = || site.frames.iter().filter(|frame| frame.kind != FrameKind::Kernel);
    let place = user()
        .rfind(|frame| own_code::may_be_own(frame))
        .or_else(|| user().rfind(|frame| frame.function.is_some()))
        .or_else(|| user().next_back())
        .or_else(|| site.frames.last());
    (place, None)
}

/// One line with `name` and where its source is; two if one would be too long.
fn located(page: &mut Page, head: &str, name: &str, frame: Option<&Frame>) {
    let place = frame.and_then(|frame| {
        let file = frame.file.as_deref()?;
        Some(frame.line.map_or_else(|| file.to_owned(), |line| format!("{file}:{line}")))
    });
    let line = format!("{head}{name}");
    match place {
        None => page.line(&line),
        Some(place) if line.chars().count() + 2 + place.chars().count() <= WIDTH => {
            page.line(&format!("{line}  {place}"));
        }
        Some(place) => {
            page.line(&line);
            page.line(&format!("{INDENT}at {place}"));
        }
    }
}

/// What the thread waited for, with what the stack says beyond the system call.
fn awaited(site: &Site) -> String {
    if site.state == State::Runnable {
        return "waiting for a CPU".to_owned();
    }
    let reason = match site.reason {
        Reason::Sleep => "sleeping",
        Reason::Futex => "waiting on a futex",
        Reason::Socket => "waiting on a socket",
        Reason::Pipe => "waiting on a pipe",
        Reason::File => "waiting on a file or terminal",
        Reason::Disk => "waiting for the disk",
        Reason::Poll => "waiting on file descriptors",
        Reason::PageFault => "waiting for a page of memory",
        Reason::Process => "waiting for a process",
        Reason::Ipc => "waiting on IPC",
        Reason::Stopped => "stopped or traced",
        Reason::Other => "waiting in the kernel",
    };
    match &site.label {
        Some(label) => format!("{reason} ({label})"),
        None => reason.to_owned(),
    }
}
