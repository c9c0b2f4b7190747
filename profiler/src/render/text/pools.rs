//! Where all the time of each pool went: the states, which add up.

use super::page::{Mark, Page, marked};
use crate::{
    analysis::{
        Report,
        report::{Pool, Role, Thread},
    },
    render::quantity::{count, share, time},
};

/// Waiting too short to be named is worth a second look above this share of a pool's time.
const SHORT_PERCENT: u64 = 10;

/// Width of the column of labels.
const LABEL: usize = 30;

/// Width of a column of shares.
const COLUMN: usize = 9;

/// The states in the order of the table, with their time.
type StateTimes = [(&'static str, u64); 7];

/// Writes the table: for each pool one line a role that it has.
pub fn write(report: &Report, page: &mut Page) {
    if report.pools.is_empty() {
        return;
    }
    page.heading("Where the time went");
    let names =
        state_times(std::iter::empty::<&Thread>()).map(|(name, _)| format!("{name:>COLUMN$}"));
    page.line(&marked(Mark::Faint, &format!("{:LABEL$}{}", "", names.concat())));
    for pool in &report.pools {
        page.line(&super::pool(pool));
        for role in [Role::Worker, Role::Blocking, Role::Other] {
            let threads =
                pool.threads.iter().filter(|thread| thread.role == role).collect::<Vec<_>>();
            if !threads.is_empty() {
                row(role, &threads, page);
            }
        }
        if let Some(short) = notable_short(pool) {
            page.prose("  ", &short_advice(report, &short));
        }
    }
}

fn row(role: Role, threads: &[&Thread], page: &mut Page) {
    let wall_ns = threads.iter().map(|thread| thread.wall_ns).sum();
    let plural = if threads.len() == 1 { "" } else { "s" };
    let noun = match role {
        Role::Worker => format!("worker{plural}"),
        Role::Blocking => format!("blocking thread{plural}"),
        Role::Other => format!("other thread{plural}"),
    };
    let label = format!("  {} {noun}, {}", count(threads.len() as u64), time(wall_ns));
    let shares = state_times(threads.iter().copied()).map(|(_, ns)| match ns {
        0 => format!("{:>COLUMN$}", "-"),
        _ => format!("{:>COLUMN$}", share(ns, wall_ns)),
    });
    page.line(&format!("{label:LABEL$}{}", shares.concat()));
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
/// none: idle threads would hide it), if it is worth a second look.
fn notable_short(pool: &Pool) -> Option<String> {
    let has_workers = pool.threads.iter().any(|thread| thread.role == Role::Worker);
    let threads = pool.threads.iter().filter(|thread| !has_workers || thread.role == Role::Worker);
    let (short, wall) =
        threads.fold((0, 0), |(short, wall), t| (short + t.short_ns, wall + t.wall_ns));
    let notable = u128::from(short) * 100 > u128::from(wall) * u128::from(SHORT_PERCENT);
    notable.then(|| share(short, wall))
}

fn short_advice(report: &Report, short: &str) -> String {
    format!(
        "{short} is in waits shorter than {}, which are counted and not named. To name them: \
         `sudo stallscope record -p {} -d 10 --min-block 0`",
        time(report.quality.min_block_ns),
        report.target.pid,
    )
}
