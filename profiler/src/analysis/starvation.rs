//! How many workers of a pool were blocked when, and the windows in which all of them were.

use std::collections::HashMap;

/// Gaps below this between two windows are no recovery, and windows below it no starvation.
const MERGE_NS: u64 = 1_000_000;

/// One thread of a pool as far as it was a worker; times are offsets from the window's start.
#[derive(Clone, Debug, Default)]
pub struct WorkerLine {
    /// Spans in which it was a worker, in order, none overlapping.
    pub worker: Vec<(u64, u64)>,
    /// Spans in which it was blocked as a worker, in order, none overlapping, each with its site;
    /// a thread that is not shown has none.
    pub blocked: Vec<(u64, u64, Option<usize>)>,
}

/// A maximal span in which every worker was blocked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    pub start_ns: u64,
    pub end_ns: u64,
    /// How many workers there were when it began.
    pub workers: u32,
    /// The sites that held workers in it and the worker time that each held, the most first.
    pub sites: Vec<(usize, u64)>,
}

/// `(t, k, n)`: from `t` on, `k` of `n` workers were blocked. Empty if there never was a worker.
pub fn curve(lines: &[WorkerLine]) -> Vec<(u64, u32, u32)> {
    let mut steps: Vec<(u64, i64, i64)> = Vec::new();
    for line in lines {
        for (start, end) in line.worker.iter().filter(|(start, end)| start < end) {
            steps.extend([(*start, 0, 1), (*end, 0, -1)]);
        }
        for (start, end, _) in line.blocked.iter().filter(|(start, end, _)| start < end) {
            steps.extend([(*start, 1, 0), (*end, -1, 0)]);
        }
    }
    steps.sort_unstable();
    if steps.is_empty() {
        return Vec::new();
    }
    let mut curve = vec![(0, 0, 0)];
    let (mut blocked, mut workers) = (0_i64, 0_i64);
    for same_time in steps.chunk_by(|a, b| a.0 == b.0) {
        blocked += same_time.iter().map(|step| step.1).sum::<i64>();
        workers += same_time.iter().map(|step| step.2).sum::<i64>();
        let point = (same_time[0].0, count(blocked), count(workers));
        match curve.last_mut() {
            Some(last) if last.0 == point.0 => *last = point,
            Some(last) if (last.1, last.2) == (point.1, point.2) => {}
            _ => curve.push(point),
        }
    }
    curve
}

/// How many workers there were for most of the time that there were any.
pub fn usual_workers(curve: &[(u64, u32, u32)]) -> u32 {
    let mut held: HashMap<u32, u64> = HashMap::new();
    for pair in curve.windows(2) {
        *held.entry(pair[0].2).or_default() += pair[1].0 - pair[0].0;
    }
    held.remove(&0);
    held.into_iter()
        .max_by_key(|(workers, time)| (*time, *workers))
        .map_or(0, |(workers, _)| workers)
}

/// The windows in which every worker was blocked.
pub fn windows(lines: &[WorkerLine], curve: &[(u64, u32, u32)]) -> Vec<Window> {
    let mut windows: Vec<Window> = Vec::new();
    for pair in curve.windows(2) {
        let (start_ns, blocked, workers) = pair[0];
        let end_ns = pair[1].0;
        if workers == 0 || blocked < workers {
            continue;
        }
        match windows.last_mut() {
            Some(last) if start_ns - last.end_ns < MERGE_NS => last.end_ns = end_ns,
            _ => windows.push(Window { start_ns, end_ns, workers, sites: Vec::new() }),
        }
    }
    windows.retain(|window| window.end_ns - window.start_ns >= MERGE_NS);
    for window in &mut windows {
        window.sites = holders(lines, window.start_ns, window.end_ns);
    }
    windows
}

fn holders(lines: &[WorkerLine], start_ns: u64, end_ns: u64) -> Vec<(usize, u64)> {
    let mut held: HashMap<usize, u64> = HashMap::new();
    for line in lines {
        // In order and not overlapping: those before the window can be skipped at once.
        let first = line.blocked.partition_point(|span| span.1 <= start_ns);
        for (from, to, site) in line.blocked[first..].iter().take_while(|span| span.0 < end_ns) {
            let Some(site) = *site else { continue };
            *held.entry(site).or_default() += (*to).min(end_ns) - (*from).max(start_ns);
        }
    }
    let mut sites: Vec<_> = held.into_iter().collect();
    sites.sort_unstable_by_key(|(site, time)| (std::cmp::Reverse(*time), *site));
    sites
}

fn count(steps: i64) -> u32 {
    u32::try_from(steps).expect("every span of a line ends after it begins")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One character is 500 us: `.` no worker, `-` a worker, a letter a worker blocked in that site.
    fn line(drawing: &str) -> WorkerLine {
        let mut line = WorkerLine::default();
        for (at, c) in drawing.chars().filter(|c| *c != ' ').enumerate() {
            let (from, to) = (at as u64 * 500_000, (at as u64 + 1) * 500_000);
            if c != '.' {
                match line.worker.last_mut() {
                    Some(last) if last.1 == from => last.1 = to,
                    _ => line.worker.push((from, to)),
                }
            }
            if c.is_ascii_lowercase() {
                let site = Some(c as usize - 'a' as usize);
                match line.blocked.last_mut() {
                    Some(last) if last.1 == from && last.2 == site => last.1 = to,
                    _ => line.blocked.push((from, to, site)),
                }
            }
        }
        line
    }

    /// `(start, end, workers, [(site, held)])`, in characters of the drawing.
    type Drawn<'a> = (u64, u64, u32, &'a [(usize, u64)]);

    fn check(drawing: &[&str], expected: &[Drawn<'_>]) {
        let lines: Vec<_> = drawing.iter().map(|drawing| line(drawing)).collect();
        let found: Vec<_> = windows(&lines, &curve(&lines))
            .into_iter()
            .map(|window| {
                let sites = window.sites.iter().map(|(site, held)| (*site, held / 500_000));
                let (start, end) = (window.start_ns / 500_000, window.end_ns / 500_000);
                (start, end, window.workers, sites.collect::<Vec<_>>())
            })
            .collect();
        let expected: Vec<_> = expected
            .iter()
            .map(|(start, end, workers, sites)| (*start, *end, *workers, sites.to_vec()))
            .collect();
        assert_eq!(found, expected, "{drawing:#?}");
    }

    #[test]
    fn a_window_is_where_every_worker_is_blocked() {
        check(
            &[
                "----aaaaaaaaaa------", //
                "--bbbbbbbbbbbbbbbb--",
                "------aaaaaaaa------",
            ],
            &[(6, 14, 3, &[(0, 16), (1, 8)])],
        );
    }

    #[test]
    fn one_free_worker_is_enough() {
        check(&["aaaaaaaaaaaa", "------------"], &[]);
        check(&["aaaa--------", "------bbbbbb"], &[]);
    }

    #[test]
    fn gaps_below_a_millisecond_are_merged_and_windows_below_one_dropped() {
        check(
            &["aaaa-aaaa--aaaa", "bbbbbbbbbbbbbbb"],
            &[(0, 9, 2, &[(1, 9), (0, 8)]), (11, 15, 2, &[(0, 4), (1, 4)])],
        );
        check(&["--a----aa--", "bbbbbbbbbbb"], &[(7, 9, 2, &[(0, 2), (1, 2)])]);
        // Two halves of a millisecond with a short gap are one window of three halves.
        check(&["--a-a------", "bbbbbbbbbbb"], &[(2, 5, 2, &[(1, 3), (0, 2)])]);
    }

    #[test]
    fn workers_that_do_not_exist_do_not_count() {
        check(
            &[
                "aaaaaaaaaa", //
                "....bbbb..",
                "......----",
            ],
            &[(0, 6, 1, &[(0, 6), (1, 2)])],
        );
        check(&["..........", ".........."], &[]);
    }

    #[test]
    fn the_site_that_held_the_most_worker_time_comes_first() {
        check(
            &[
                "aaaaaaaabb", //
                "ccbbbbbbbb",
            ],
            &[(0, 10, 2, &[(1, 10), (0, 8), (2, 2)])],
        );
    }

    #[test]
    fn the_curve_has_a_point_where_it_changes() {
        let lines = [line("--aa--"), line("...bb-")];
        let found: Vec<_> = curve(&lines).iter().map(|(t, k, n)| (t / 500_000, *k, *n)).collect();
        assert_eq!(found, [(0, 0, 1), (2, 1, 1), (3, 2, 2), (4, 1, 2), (5, 0, 2), (6, 0, 0)]);
        assert_eq!(usual_workers(&curve(&lines)), 2);
        assert_eq!(curve(&[line("....")]), []);
    }
}
