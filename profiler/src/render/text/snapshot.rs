//! What every thread was doing at the end of the window, those with the same stack together.

use std::{cmp::Reverse, io::Write};

use super::{
    Style, locks, losses,
    page::{Mark, Page, marked},
    spots::awaited,
    start, target,
};
use crate::{
    analysis::{
        Report,
        report::{FrameKind, Pool, Role, Site, StackQuality, State, Thread},
    },
    render::{
        names,
        quantity::{count, time},
    },
};

/// Up to so many threads of a group are told with the length of each one's wait.
const TIMED: usize = 8;

/// How many threads of a group are named.
const NAMED: usize = 24;

/// How many kernel functions are named; those above lead there from any system call.
const KERNEL_SHOWN: usize = 3;

/// Threads of one pool and role that do the same.
struct Group<'report> {
    pool: &'report Pool,
    role: Role,
    doing: Doing<'report>,
    threads: Vec<&'report Thread>,
}

/// What threads were doing, in the order in which it is told.
#[derive(Clone, Copy)]
enum Doing<'report> {
    /// They were off-CPU; the index of the site.
    Off(usize, &'report Site),
    /// They were on a CPU.
    Running,
    /// They were off-CPU, and what for was lost.
    Lost,
}

impl Doing<'_> {
    /// Groups that say the most come first, and those that are as they should be last.
    fn rank(self) -> usize {
        match self {
            Self::Off(_, site) => match site.state {
                State::Blocked => 0,
                State::Unknown => 1,
                State::Allowed => 2,
                State::Runnable => 3,
                State::Idle => 6,
            },
            Self::Running => 4,
            Self::Lost => 5,
        }
    }

    fn site(self) -> Option<usize> {
        match self {
            Self::Off(index, _) => Some(index),
            Self::Running | Self::Lost => None,
        }
    }
}

/// Writes what every thread was doing.
pub fn snapshot(report: &Report, out: &mut dyn Write, style: Style) -> anyhow::Result<()> {
    let mut page = Page::default();
    page.line(&marked(Mark::Strong, &headline(report)));
    let about = format!(
        "{}, {} CPUs, kernel {}",
        start(report),
        count(report.host.cpus.into()),
        report.host.kernel
    );
    page.prose("", &about);
    for hung in report.pools.iter().filter(|pool| pool.hung) {
        page.warning(&hang(report, hung));
    }
    locks::deadlocks(report, &mut page);
    for group in groups(report) {
        write_group(report, &group, &mut page);
    }
    locks::waited_for(report, &mut page);
    if report.quality.counters.values().any(|lost| *lost > 0) {
        losses::write(report, &mut page);
    }
    out.write_all(page.finish(style).as_bytes())?;
    Ok(())
}

/// `orders-api (pid 4242): 17 threads, 2 of them on a CPU`.
fn headline(report: &Report) -> String {
    let threads = || report.pools.iter().flat_map(|pool| &pool.threads);
    let running = threads().filter(|thread| !thread.open_at_end).count() as u64;
    let threads = threads().count() as u64;
    let plural = if threads == 1 { "" } else { "s" };
    let threads = format!("{}: {} thread{plural}", target(report), count(threads));
    match running {
        0 => format!("{threads}, none on a CPU"),
        running => format!("{threads}, {} on a CPU", count(running)),
    }
}

/// `HUNG: all 4 workers of tokio are blocked, the last one for about 12.3 s`.
fn hang(report: &Report, pool: &Pool) -> String {
    let workers = pool.threads.iter().filter(|thread| thread.role == Role::Worker);
    let since = workers.map(|thread| thread.at_end.and_then(|open| open.since_ns));
    let since: Option<Vec<i64>> = since.collect();
    let age = since.and_then(|since| since.into_iter().max());
    let age = age.map_or(String::new(), |last| format!(", for about {}", length(report, last)));
    match pool.workers {
        1 => format!("HUNG: the worker of {} is blocked{age}", pool.name),
        all => format!(
            "HUNG: all {} workers of {} are blocked{}",
            count(all.into()),
            pool.name,
            age.replace("for", "the last one for")
        ),
    }
}

fn groups(report: &Report) -> Vec<Group<'_>> {
    let mut groups: Vec<Group<'_>> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for pool in &report.pools {
        for thread in &pool.threads {
            let site =
                thread.at_end.and_then(|open| Some((open.site, report.sites.get(open.site)?)));
            let doing = match site {
                Some((index, site)) => Doing::Off(index, site),
                None if thread.open_at_end => Doing::Lost,
                None => Doing::Running,
            };
            let role = site.map_or(thread.role, |(_, site)| site.role);
            let place =
                *places.entry((pool.id, role, doing.rank(), doing.site())).or_insert_with(|| {
                    groups.push(Group { pool, role, doing, threads: Vec::new() });
                    groups.len() - 1
                });
            groups[place].threads.push(thread);
        }
    }
    groups.sort_by_key(|group| (group.role, group.doing.rank(), Reverse(group.threads.len())));
    groups
}

fn write_group(report: &Report, group: &Group<'_>, page: &mut Page) {
    let (all, what) = (who(group), what(report, group));
    page.heading(&format!("{all} {what}"));
    page.prose("  ", &thread_names(report, &group.threads));
    if let Doing::Off(_, site) = group.doing {
        if let Some(task) = &site.task {
            page.line(&format!("  in {task}"));
        }
        write_stack(site, page);
    }
}

/// `4 workers of tokio-runtime-worker`.
fn who(group: &Group<'_>) -> String {
    let threads = group.threads.len() as u64;
    let noun = match (group.role, group.pool.runtime.as_str()) {
        (Role::Worker, _) => "worker",
        (Role::Blocking, _) => "blocking thread",
        (Role::Other, "none") => "thread",
        (Role::Other, _) => "other thread",
    };
    let plural = if threads == 1 { "" } else { "s" };
    let of = match group.pool.runtime.as_str() {
        "none" => String::new(),
        _ => format!(" of {}", group.pool.name),
    };
    format!("{} {noun}{plural}{of}", count(threads))
}

/// `blocked: waiting for a mutex, for about 12.3 s`.
fn what(report: &Report, group: &Group<'_>) -> String {
    let site = match group.doing {
        Doing::Off(_, site) => site,
        Doing::Running => return "on a CPU".to_owned(),
        Doing::Lost => return "off-CPU, and what for was lost".to_owned(),
    };
    let state = match site.state {
        State::Blocked => "blocked: ",
        State::Idle => "idle: ",
        State::Unknown => "not understood: ",
        State::Allowed | State::Runnable => "",
    };
    let queued = group.threads.iter().filter(|thread| {
        site.state != State::Runnable && thread.at_end.is_some_and(|open| open.in_run_queue)
    });
    let woken = match queued.count() {
        0 => String::new(),
        all if all == group.threads.len() => "; woken, and waiting for a CPU".to_owned(),
        some => format!("; {some} of them woken, and waiting for a CPU"),
    };
    format!("{state}{}{}{woken}", awaited(site), how_long(report, &group.threads))
}

/// `, for about 1.20 s to 12.3 s`. About, where that is longer than the window.
fn how_long(report: &Report, threads: &[&Thread]) -> String {
    let since = || threads.iter().filter_map(|thread| thread.at_end?.since_ns);
    let unknown = threads.len() - since().count();
    let (Some(first), Some(last)) = (since().min(), since().max()) else {
        return ", and it is not known since when".to_owned();
    };
    let about = if first < 0 { "about " } else { "" };
    let (longest, shortest) = (length(report, first), length(report, last));
    let range = if longest == shortest { longest } else { format!("{shortest} to {longest}") };
    match unknown {
        0 => format!(", for {about}{range}"),
        some => format!(", for {about}{range}; of {some} it is not known since when"),
    }
}

/// From a beginning to the end of the window.
fn length(report: &Report, since_ns: i64) -> String {
    let end_ns = report.window.duration_ns.cast_signed();
    time(u64::try_from(end_ns - since_ns).unwrap_or_default())
}

/// `api-worker 17, 18, 19; main 4`; where they differ in it, with how long each has waited.
fn thread_names(report: &Report, threads: &[&Thread]) -> String {
    let since = |thread: &Thread| thread.at_end.and_then(|open| open.since_ns);
    let differ = threads.iter().any(|thread| since(thread) != since(threads[0]));
    let timed = differ && threads.len() <= TIMED;
    let age = |thread: &Thread| match since(thread).filter(|_| timed) {
        Some(since_ns) => format!(" ({})", length(report, since_ns)),
        None => String::new(),
    };
    let named = &threads[..threads.len().min(NAMED)];
    let runs = named.chunk_by(|a, b| a.name == b.name).map(|run| {
        let tids = run.iter().map(|thread| format!("{}{}", thread.tid, age(thread)));
        format!("{} {}", run[0].name, tids.collect::<Vec<_>>().join(", "))
    });
    let text = runs.collect::<Vec<_>>().join("; ");
    match threads.len().saturating_sub(NAMED) {
        0 => text,
        more => format!("{text} and {} more", count(more as u64)),
    }
}

/// The frames, leaf first.
fn write_stack(site: &Site, page: &mut Page) {
    let kernel = site.frames.iter().rev().filter(|frame| frame.kind == FrameKind::Kernel);
    let kernel: Vec<_> = kernel.take(KERNEL_SHOWN).map(names::name).collect();
    if !kernel.is_empty() {
        page.line(&marked(Mark::Faint, &format!("    kernel: {}", kernel.join(", "))));
    }
    for frame in site.frames.iter().rev().filter(|frame| frame.kind != FrameKind::Kernel) {
        let source = names::source(frame).map_or(String::new(), |source| format!("  {source}"));
        page.line(&format!("    {}{source}", names::name(frame)));
    }
    match site.stack {
        StackQuality::Complete => {}
        StackQuality::Truncated => page.line("    [truncated]"),
        StackQuality::Broken => page.line("    [broken]"),
        StackQuality::Missing if site.state == State::Runnable => {}
        StackQuality::Missing => page.line("    [no user stack]"),
    }
}
