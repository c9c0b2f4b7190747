//! When a pool could run nothing, and what held its workers then.

use std::cmp::Reverse;

use super::{
    page::Page,
    spots::spots,
    verdict::{blocked_pools, windows},
};
use crate::{
    analysis::{
        Report,
        report::{Pool, Starvation, State},
    },
    render::quantity::{count, shares, time},
};

/// How many windows of a pool are listed; the JSON has them all.
const LISTED: usize = 5;

/// How many functions are named that held the workers in a window.
const HOLDERS: usize = 2;

/// Width of a column of times.
const COLUMN: usize = 10;

/// Writes the longest windows of each pool.
pub fn write(report: &Report, page: &mut Page) {
    if !report.states.contains(&State::Blocked) {
        return;
    }
    for pool in blocked_pools(report) {
        let windows = windows(report, pool);
        if !windows.is_empty() {
            of_pool(report, pool, &windows, page);
        }
    }
}

fn of_pool(report: &Report, pool: &Pool, windows: &[&Starvation], page: &mut Page) {
    page.heading(&format!("When no worker of {} was free, the longest first", pool.name));
    page.line(&format!("{:>COLUMN$}{:>COLUMN$}{:>COLUMN$}  held by", "onset", "end", "length"));
    for window in windows.iter().take(LISTED) {
        let held = window.sites.iter().copied().zip(window.held_ns.iter().copied());
        let mut functions: Vec<(String, u64)> = Vec::new();
        for spot in spots(report, held) {
            let name = spot.short_name();
            match functions.iter_mut().find(|(known, _)| *known == name) {
                Some((_, ns)) => *ns += spot.ns,
                None => functions.push((name, spot.ns)),
            }
        }
        functions.sort_by_key(|(_, ns)| Reverse(*ns));
        let shares = shares(&functions.iter().map(|(_, ns)| *ns).collect::<Vec<_>>());
        let named = functions.iter().zip(shares).take(HOLDERS);
        let mut holders: Vec<_> =
            named.map(|((name, _), share)| format!("{} {share}", without_module(name))).collect();
        if let Some(rest) = functions.len().checked_sub(HOLDERS).filter(|rest| *rest > 0) {
            holders.push(format!("{rest} more"));
        }
        let [onset, end] = [window.start_ns, window.end_ns].map(offset);
        let length = time(window.end_ns - window.start_ns);
        let times = format!("{onset:>COLUMN$}{end:>COLUMN$}{length:>COLUMN$}");
        page.prose(&format!("{times}  "), &holders.join(", "));
    }
    if let Some(rest) = windows.get(LISTED..).filter(|rest| !rest.is_empty()) {
        let ns = rest.iter().map(|window| window.end_ns - window.start_ns).sum();
        page.line(&format!("  and {} more windows with {}", count(rest.len() as u64), time(ns)));
    }
}

/// `load` for `db::load`, which the places above have whole; `Cart::total` without its type would say
/// too little.
fn without_module(name: &str) -> &str {
    match name.split_once("::") {
        Some((module, function)) if module.starts_with(char::is_lowercase) => function,
        _ => name,
    }
}

/// An instant to the millisecond: what a window has in three significant digits is not enough to
/// tell its end from its onset.
fn offset(ns: u64) -> String {
    format!("+{}.{:03} s", ns / 1_000_000_000, ns / 1_000_000 % 1_000)
}
