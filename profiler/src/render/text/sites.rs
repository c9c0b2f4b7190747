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
    let total_ns = sites.iter().map(|site| folded::value_ns(site)).sum();
    let sites = spots(&sites);
    let names = states.iter().map(|state| state.name()).collect::<Vec<_>>();
    page.heading(&format!("Worst sites ({})", names.join(", ")));
    for (at, spot) in sites.iter().take(LISTED).enumerate() {
        entry(report, spot, at + 1, total_ns, states.len() > 1, page);
    }
    if let Some(rest) = sites.get(LISTED..).filter(|rest| !rest.is_empty()) {
        let ns = rest.iter().map(Spot::value_ns).sum();
        page.line(&format!("  and {} more sites with {}", count(rest.len() as u64), time(ns)));
    }
}

/// Sites that a reader would take for one: the same line of own code, waiting for the same thing,
/// reached by several ways through the runtime.
struct Spot<'report> {
    sites: Vec<&'report Site>,
    place: Option<&'report Frame>,
    outermost: Option<&'report Frame>,
}

impl Spot<'_> {
    fn value_ns(&self) -> u64 {
        self.sites.iter().map(|site| folded::value_ns(site)).sum()
    }

    fn shows_as(&self, other: &Self) -> bool {
        let shown = |frame: Option<&Frame>| {
            frame.map(|frame| (folded::name(frame), frame.file.clone(), frame.line))
        };
        let (a, b) = (self.sites[0], other.sites[0]);
        (a.pool, a.role, a.state, a.reason) == (b.pool, b.role, b.state, b.reason)
            && (&a.label, &a.task) == (&b.label, &b.task)
            && shown(self.place) == shown(other.place)
            && shown(self.outermost) == shown(other.outermost)
    }
}

/// The spots of the sites, largest first.
fn spots<'report>(sites: &[&'report Site]) -> Vec<Spot<'report>> {
    let mut spots: Vec<Spot<'report>> = Vec::new();
    for &site in sites {
        let (place, outermost) = places(site);
        let spot = Spot { sites: vec![site], place, outermost };
        match spots.iter_mut().find(|known| place.is_some() && known.shows_as(&spot)) {
            Some(known) => known.sites.push(site),
            None => spots.push(spot),
        }
    }
    spots.sort_by_key(|spot| std::cmp::Reverse(spot.value_ns()));
    spots
}

fn entry(
    report: &Report,
    spot: &Spot<'_>,
    rank: usize,
    total_ns: u64,
    tell_state: bool,
    page: &mut Page,
) {
    let value_ns = spot.value_ns();
    let Spot { sites, place, outermost } = spot;
    let (site, place, outermost) = (sites[0], *place, *outermost);
    let times = sites.iter().map(|site| site.count).sum();
    let max_ns = sites.iter().map(|site| site.max_ns).max().unwrap_or(0);
    let runnable_ns: u64 = sites.iter().map(|site| site.runnable_ns).sum();
    let name = place.map_or_else(|| "[no stack]".to_owned(), folded::name);
    let head = format!("{rank:>3}. {:>7}  {:>7}  ", time(value_ns), share(value_ns, total_ns));
    located(page, &head, &marked(Mark::Strong, &name), place);

    let state = if tell_state { format!("{}: ", site.state.name()) } else { String::new() };
    // Percentiles of several stacks do not add up; that of the largest one speaks for it alone.
    let lengths = match (site.state, sites.len()) {
        (State::Runnable, _) => String::new(),
        (_, 1) => format!(", p99 {}, max {}", time(site.p99_ns), time(max_ns)),
        (_, stacks) => format!(" in {stacks} stacks, max {}", time(max_ns)),
    };
    page.line(&format!("{INDENT}{state}{}, {} times{lengths}", awaited(site), count(times)));
    if site.state != State::Runnable && runnable_ns > 0 {
        let after = time(runnable_ns);
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
    // Where a task blocks on a future, the line that asks for it is the one to look at.
    let asks = |frame: &&Frame| !folded::name(frame).contains("block_on");
    let mut own = site.frames.iter().filter(|frame| own_code::is_own(frame)).filter(asks);
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
