//! Where all the time of each pool went: the states, which add up.

use super::page::{Mark, Page, marked};
use crate::{
    analysis::{
        Report,
        report::{Pool, Role, Thread},
    },
    render::quantity::{count, shares, time},
};

/// Waiting too short to be named is worth a second look above this share of a pool's time.
const SHORT_PERCENT: u64 = 10;

/// Width of a column of shares.
const COLUMN: usize = 9;

/// The states in the order of the table, with their time.
type StateTimes = [(&'static str, u64); 7];

/// Writes the table: a line a pool that adds up to its threads' time, below it one a role where it
/// has several, and at the end one for all threads.
pub fn write(report: &Report, page: &mut Page) {
    if report.pools.is_empty() {
        return;
    }
    page.heading("Where the time went");
    let mut rows: Vec<_> = report.pools.iter().flat_map(|pool| rows_of(report, pool)).collect();
    if report.pools.len() > 1 {
        let threads: Vec<_> = report.pools.iter().flat_map(|pool| &pool.threads).collect();
        let label = format!("all {} threads", count(threads.len() as u64));
        rows.push(Row { label, threads, below: None });
    }
    let width = rows.iter().map(|row| row.label.chars().count()).max().unwrap_or(0);
    let names = state_times(std::iter::empty()).map(|(name, _)| format!("{name:>COLUMN$}"));
    let header = format!("  {:width$}{}{:>11}", "", names.concat(), "wall");
    page.line(&marked(Mark::Faint, &header));
    for row in rows {
        page.line(&format!("  {:width$}{}", row.label, cells(&row.threads)));
        if let Some(text) = row.below {
            page.prose("    ", &text);
        }
    }
}

/// A line of the table.
struct Row<'report> {
    label: String,
    threads: Vec<&'report Thread>,
    below: Option<String>,
}

/// All threads of a pool, and those of each role where it has several.
fn rows_of<'report>(report: &Report, pool: &'report Pool) -> Vec<Row<'report>> {
    let name = if pool.runtime == "none" { "no runtime" } else { &pool.name };
    let of_role = |role| {
        let threads: Vec<_> = pool.threads.iter().filter(|thread| thread.role == role).collect();
        Row { label: noun(role, threads.len()), threads, below: None }
    };
    let mut rows: Vec<_> = [Role::Worker, Role::Blocking, Role::Other].map(of_role).into();
    rows.retain(|row| !row.threads.is_empty());
    if let [only] = rows.as_mut_slice() {
        only.label = format!("{name}, {}", only.label);
    } else {
        for row in &mut rows {
            row.label.insert_str(0, "  ");
        }
        let label = format!("{name}, {} threads", count(pool.threads.len() as u64));
        rows.insert(0, Row { label, threads: pool.threads.iter().collect(), below: None });
    }
    if let Some(last) = rows.last_mut() {
        last.below = notable_short(pool).map(|short| short_advice(report, &short));
    }
    rows
}

/// The shares, which add up, and what they are shares of.
fn cells(threads: &[&Thread]) -> String {
    let wall_ns = threads.iter().map(|thread| thread.wall_ns).sum();
    let times = state_times(threads.iter().copied()).map(|(_, ns)| ns);
    let shares = times.iter().zip(shares(&times)).map(|(ns, share)| match ns {
        0 => format!("{:>COLUMN$}", "-"),
        _ => format!("{share:>COLUMN$}"),
    });
    format!("{} = {:>8}", shares.collect::<String>(), time(wall_ns))
}

fn noun(role: Role, threads: usize) -> String {
    let plural = if threads == 1 { "" } else { "s" };
    let number = count(threads as u64);
    match role {
        Role::Worker => format!("{number} worker{plural}"),
        Role::Blocking => format!("{number} blocking thread{plural}"),
        Role::Other => format!("{number} other thread{plural}"),
    }
}

/// The share of a state in the time of `threads`, as the table has it.
pub fn share_of(state: &str, threads: &[&Thread]) -> String {
    let times = state_times(threads.iter().copied());
    let shares = shares(&times.map(|(_, ns)| ns));
    let named = times.iter().zip(shares).find(|((name, _), _)| *name == state);
    named.map(|(_, share)| share).unwrap_or_default()
}

/// The time of `threads` in each state.
pub fn state_times<'a>(threads: impl Iterator<Item = &'a Thread>) -> StateTimes {
    let mut times = [
        ("running", 0),
        ("runnable", 0),
        ("idle", 0),
        ("blocked", 0),
        ("allowed", 0),
        ("short", 0),
        ("unknown", 0),
    ];
    for thread in threads {
        let spent = [
            thread.running_ns,
            thread.runnable_ns,
            thread.idle_ns,
            thread.blocked_ns,
            thread.allowed_ns,
            thread.short_ns,
            thread.unknown_ns,
        ];
        for (time, ns) in times.iter_mut().zip(spent) {
            time.1 += ns;
        }
    }
    times
}

/// The share of short waits in the time of the pool's workers (of all its threads where it has
/// none: idle threads would hide it) with whose it is, if it is worth a second look.
fn notable_short(pool: &Pool) -> Option<String> {
    let has_workers = pool.threads.iter().any(|thread| thread.role == Role::Worker);
    let of_interest = |thread: &&Thread| !has_workers || thread.role == Role::Worker;
    let threads: Vec<_> = pool.threads.iter().filter(of_interest).collect();
    let short = threads.iter().map(|thread| u128::from(thread.short_ns)).sum::<u128>();
    let wall = threads.iter().map(|thread| u128::from(thread.wall_ns)).sum::<u128>();
    let notable = short * 100 > wall * u128::from(SHORT_PERCENT);
    let whose = if has_workers { "workers" } else { "threads" };
    notable.then(|| format!("{} of its {whose}' time", share_of("short", &threads)))
}

fn short_advice(report: &Report, short: &str) -> String {
    format!(
        "{short} is in waits shorter than {}, which are counted and not named. To name them: \
         `sudo stallscope record -p {} -d 10 --min-block 0`",
        time(report.quality.min_block_ns),
        report.target.pid,
    )
}
