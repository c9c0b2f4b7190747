//! Which pool was blocked and how badly, or that none was.

use super::{
    instead,
    page::{Mark, Page, marked},
};
use crate::{
    analysis::{
        Report,
        report::{Pool, Role, State, Thread},
    },
    render::quantity::{count, share, time},
};

/// Writes the answer.
pub fn write(report: &Report, page: &mut Page) {
    let blocked = report.pools.iter().filter(|pool| blocked_ns(pool) > 0).collect::<Vec<_>>();
    if blocked.is_empty() {
        page.line("");
        for line in instead::lines(report) {
            page.line(&line);
        }
        return;
    }
    for pool in blocked {
        page.line("");
        page.line(&format!("pool {}: workers {}", super::pool(pool), extent(report, pool)));
        page.prose("  ", &starvation(report, pool));
    }
    if !report.states.contains(&State::Blocked) {
        let names = report.states.iter().map(|state| state.name()).collect::<Vec<_>>();
        page.prose("", &format!("Only these states were selected: {}.", names.join(", ")));
    }
}

/// `blocked 61.3 % of their time, 24.5 s of 40.0 s`.
fn extent(report: &Report, pool: &Pool) -> String {
    let part = blocked_ns(pool);
    if report.quality.unfinished {
        // Where nobody closed the accounts, what the workers did otherwise is not known.
        return marked(Mark::Bad, &format!("blocked for at least {}", time(part)));
    }
    let whole = workers(pool).map(|thread| thread.wall_ns).sum();
    let share = marked(Mark::Bad, &format!("blocked {}", share(part, whole)));
    format!("{share} of their time, {} of {}", time(part), time(whole))
}

/// The time that the workers of `pool` were blocked.
fn blocked_ns(pool: &Pool) -> u64 {
    workers(pool).map(|thread| thread.blocked_ns).sum()
}

fn workers(pool: &Pool) -> impl Iterator<Item = &Thread> {
    pool.threads.iter().filter(|thread| thread.role == Role::Worker)
}

/// How long the pool could run nothing.
fn starvation(report: &Report, pool: &Pool) -> String {
    let windows = report.starvation.iter().filter(|window| window.pool == pool.id);
    let mut windows = windows.collect::<Vec<_>>();
    windows.sort_by_key(|window| std::cmp::Reverse(window.end_ns - window.start_ns));
    let Some(longest) = windows.first() else {
        let most = pool.blocked_curve.iter().map(|(_, blocked, _)| *blocked).max().unwrap_or(0);
        return match pool.workers {
            0 | 1 => "It never starved for a millisecond or longer.".to_owned(),
            workers => {
                format!("It never starved: at most {most} of {workers} workers blocked at once.")
            }
        };
    };
    let total = windows.iter().map(|window| window.end_ns - window.start_ns).sum();
    let length = time(longest.end_ns - longest.start_ns);
    let all = longest.workers;
    let tail = if windows.len() == 1 {
        format!("in 1 window at +{}", time(longest.start_ns))
    } else {
        let windows = count(windows.len() as u64);
        format!("in {windows} windows, the longest {length} at +{}", time(longest.start_ns))
    };
    format!(
        "Starved: {all} of {all} workers blocked for {} {tail}. Nothing could run.",
        time(total)
    )
}
