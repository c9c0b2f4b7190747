//! Which pool was blocked, how badly and by what, or that none was.

use super::{
    instead, locks,
    page::{Mark, Page, marked},
    pools::share_of,
    spots::spots,
};
use crate::{
    analysis::{
        Report,
        report::{Pool, Role, Starvation, State, Thread},
    },
    render::{
        folded, names,
        quantity::{count, shares, time},
    },
};

/// Windows count from this part of the recording on: a hundredth.
const STARVED: u64 = 100;

/// Writes the answer in a sentence a pool.
pub fn headline(report: &Report, page: &mut Page) {
    locks::deadlocks(report, page);
    let mut blocked: Vec<_> = blocked_pools(report).collect();
    if blocked.is_empty() && report.deadlocks.is_empty() {
        return page.prose("", &marked(Mark::Strong, &instead::reason(report)));
    }
    blocked.sort_by_key(|pool| !pool.hung);
    for pool in blocked {
        let extent = marked(Mark::Bad, &extent(report, pool));
        let by = by(report, pool).map_or(String::new(), |by| format!("; {by}"));
        page.prose("", &format!("pool {}: {extent}{by}", pool.name));
    }
}

/// Writes how much of the workers' time it was, or what there was instead.
pub fn details(report: &Report, page: &mut Page) {
    if blocked_pools(report).next().is_none() {
        for line in instead::details(report) {
            page.line(&line);
        }
        return;
    }
    for pool in blocked_pools(report).filter(|_| !report.quality.unfinished) {
        let (part, whole) = (blocked_ns(pool), workers(pool).map(|thread| thread.wall_ns).sum());
        let share = blocked_share(pool);
        let all = format!("{share} of their time, {} of {}", time(part), time(whole));
        page.prose("", &format!("pool {}: workers blocked {all}", super::pool(pool)));
        if let Some(stuck) = stuck(report, pool) {
            page.prose("", &stuck);
        }
    }
    if !report.states.contains(&State::Blocked) {
        let names = report.states.iter().map(|state| state.name()).collect::<Vec<_>>();
        page.prose("", &format!("Only these states were selected: {}.", names.join(", ")));
    }
}

/// Which of the workers were blocked already when the recording began, and still when it ended.
fn stuck(report: &Report, pool: &Pool) -> Option<String> {
    let since = workers(pool).filter_map(|thread| {
        let open =
            thread.at_end.filter(|open| open.since_ns.is_none_or(|since_ns| since_ns < 0))?;
        let site = report.sites.get(open.site)?;
        (site.state == State::Blocked).then_some(open.since_ns.unwrap_or(0))
    });
    let since: Vec<i64> = since.collect();
    let oldest = since.iter().min()?;
    let threads = match since.len() {
        1 => "1 worker was".to_owned(),
        some => format!("{} workers were", count(some as u64)),
    };
    let so_long = match oldest.unsigned_abs() {
        0 => String::new(),
        before => format!(", for about {} by then,", time(before)),
    };
    let advice = format!("`sudo stallscope snapshot -p {}`", report.target.pid);
    Some(format!(
        "{threads} blocked already when the recording began{so_long} and still when it ended; to see them: {advice}"
    ))
}

/// The windows of a pool, the longest first.
pub fn windows<'report>(report: &'report Report, pool: &Pool) -> Vec<&'report Starvation> {
    let mut windows: Vec<_> = report.starvation.iter().filter(|w| w.pool == pool.id).collect();
    windows.sort_by_key(|window| std::cmp::Reverse(window.end_ns - window.start_ns));
    windows
}

/// The pools whose workers were blocked.
pub fn blocked_pools(report: &Report) -> impl Iterator<Item = &Pool> {
    report.pools.iter().filter(|pool| blocked_ns(pool) > 0)
}

/// How long the pool could run nothing; where it nearly always could, how much it was blocked.
fn extent(report: &Report, pool: &Pool) -> String {
    let windows = windows(report, pool);
    let part = blocked_ns(pool);
    if windows.is_empty() && report.quality.unfinished {
        // Where nobody closed the accounts, what the workers did otherwise is not known.
        return format!("workers blocked for at least {}", time(part));
    }
    if pool.hung {
        let whole = time(report.window.duration_ns);
        return match pool.workers {
            1 => format!("HUNG: its worker was blocked in one wait for all of the {whole}"),
            all => format!(
                "HUNG: all {all} workers were blocked, each in one wait, for all of the {whole}"
            ),
        };
    }
    let share = blocked_share(pool);
    let Some(longest) = windows.first() else {
        let most = pool.blocked_curve.iter().map(|(_, blocked, _)| *blocked).max().unwrap_or(0);
        return match pool.workers {
            0 | 1 => format!("its worker blocked {share} of its time, never for a millisecond"),
            all => {
                format!("workers blocked {share} of their time, at most {most} of {all} at once")
            }
        };
    };
    let plural = if windows.len() == 1 { "" } else { "s" };
    let number = count(windows.len() as u64);
    let (all, total) = (longest.workers, time(length(&windows)));
    if is_starved(report, &windows) {
        return format!("{all} of {all} workers blocked for {total} in {number} window{plural}");
    }
    let at_once = format!("all {all} at once for {total} in {number} window{plural}");
    format!("workers blocked {share} of their time, {at_once}")
}

/// Whether windows are what a pool suffers from: shorter ones are an accident of its workers being
/// blocked one by one.
fn is_starved(report: &Report, windows: &[&Starvation]) -> bool {
    length(windows) * STARVED > report.window.duration_ns
}

fn length(windows: &[&Starvation]) -> u64 {
    windows.iter().map(|window| window.end_ns - window.start_ns).sum()
}

/// What held most of the workers: in the windows if these count, or else at any time.
fn by(report: &Report, pool: &Pool) -> Option<String> {
    let windows = windows(report, pool);
    let spots = if is_starved(report, &windows) {
        let held = windows.iter().flat_map(|window| window.sites.iter().zip(&window.held_ns));
        spots(report, sum_by_site(held.map(|(site, ns)| (*site, *ns))))
    } else {
        let of_pool = (pool.id, State::Blocked, Role::Worker);
        let sites = report.sites.iter().enumerate();
        let own = sites.filter(|(_, site)| (site.pool, site.state, site.role) == of_pool);
        spots(report, own.map(|(at, site)| (at, folded::value_ns(site))))
    };
    let shares = shares(&spots.iter().map(|spot| spot.ns).collect::<Vec<_>>());
    let (worst, share) = spots.first().zip(shares.first())?;
    let source = worst.place.and_then(names::source);
    let source = source.map_or(String::new(), |source| format!(" ({source})"));
    let (name, awaited) = (worst.short_name(), worst.awaited());
    Some(format!("{share} in `{name}` {awaited}{source}"))
}

/// The time of each site in several windows.
fn sum_by_site(held: impl Iterator<Item = (usize, u64)>) -> Vec<(usize, u64)> {
    let mut sums = std::collections::BTreeMap::new();
    for (site, ns) in held {
        *sums.entry(site).or_default() += ns;
    }
    sums.into_iter().collect()
}

/// The time that the workers of `pool` were blocked.
fn blocked_ns(pool: &Pool) -> u64 {
    workers(pool).map(|thread| thread.blocked_ns).sum()
}

fn blocked_share(pool: &Pool) -> String {
    share_of("blocked", &workers(pool).collect::<Vec<_>>())
}

fn workers(pool: &Pool) -> impl Iterator<Item = &Thread> {
    pool.threads.iter().filter(|thread| thread.role == Role::Worker)
}
