//! What blocks the workers of each pool, held against what the workers measured.

use std::{process::Command, time::Duration};

use serde_json::Value;

use crate::support::{
    exact::{observe, percent_off},
    process::{Workload, workload},
    report::{Report, list, number},
};

/// How far a sum may be off, in parts of a hundred.
const WITHIN_PERCENT: f64 = 2.0;

/// How far the ends of a window may be off.
const WITHIN_NS: u64 = 2_000_000;

/// How far the length of the polls of a task may be off, in parts of a hundred: of one that only
/// computes the first and the last sample are known, and what preempts it before and after is not;
/// and a machine that the hypervisor takes a CPU from takes no samples on it.
const POLLS_WITHIN_PERCENT: f64 = 15.0;

/// Functions of the workload whose waits are right.
const ALLOWED: [&str; 2] = ["sites::wait_in_blocking_pool", "sites::wait_in_place"];

/// Those that block a worker.
const BLOCKING: [&str; 3] = ["sites::block_worker", "sites::lock_contended", "sites::read_pipe"];

#[test]
fn what_blocks_the_workers_of_each_pool_is_what_they_measured() {
    let mut workload = Workload::start(&["pools"]);
    let observed = observe(&mut workload, &[], Duration::from_secs(5));
    let report = &observed.report;
    for (worker, truth) in [("api-worker", "api"), ("db-worker", "db")] {
        let pool = pool_of(report, worker);
        let blocked: u64 = sites_of(report, pool, "blocked")
            .map(|site| number(&site["total_ns"]) + number(&site["runnable_ns"]))
            .sum();
        let percent = percent_off(blocked, number(&observed.truth[truth]["total_ns"]));
        println!("{worker}: {percent:+.3} % in {} calls", observed.truth[truth]["count"]);
        assert!(percent.abs() <= WITHIN_PERCENT, "{worker} is off by {percent:.2} %");
        check_states(report, pool);
    }
}

/// No wait of a function is in a state that it cannot be in.
fn check_states(report: &Report, pool: &Value) {
    let check = |state: &str, functions: &[&str], expected: bool| {
        for site in sites_of(report, pool, state) {
            let found = functions.iter().any(|function| has_function(site, function));
            assert_eq!(found, expected, "{state}: {site}");
        }
    };
    check("blocked", &BLOCKING, true);
    check("blocked", &ALLOWED, false);
    check("idle", &BLOCKING, false);
    check("idle", &ALLOWED, false);
    check("allowed", &BLOCKING, false);
    assert_eq!(sites_of(report, pool, "unknown").count(), 0, "{pool}");
}

#[test]
fn a_pool_runs_dry_when_it_did() {
    let mut workload = Workload::start(&["starve"]);
    let observed = observe(&mut workload, &[], Duration::from_secs(4));
    let report = &observed.report;
    let begun = number(&report.0["window"]["start_unix_ns"]);
    let expected: Vec<(u64, u64)> = list(&observed.truth)
        .iter()
        .map(|span| (number(&span["start_unix_ns"]), number(&span["end_unix_ns"])))
        .map(|(start, end)| (start - begun, end - begun))
        .collect();
    let found: Vec<(u64, u64)> = list(&report.0["starvation"])
        .iter()
        .map(|window| (number(&window["start_ns"]), number(&window["end_ns"])))
        .collect();
    assert!(expected.len() > 8, "the pool ran dry {} times", expected.len());
    assert_eq!(found.len(), expected.len(), "{found:?}, {expected:?}");
    for (found, expected) in found.iter().zip(&expected) {
        let apart = found.0.abs_diff(expected.0).max(found.1.abs_diff(expected.1));
        assert!(apart <= WITHIN_NS, "{found:?} is not {expected:?}");
    }
}

#[test]
fn a_pool_that_is_busy_and_well_does_not_run_dry() {
    let mut workload = Workload::start(&["busy"]);
    let observed = observe(&mut workload, &["--on-cpu", "99"], Duration::from_secs(3));
    let report = &observed.report;
    assert!(number(&observed.truth) > 1_000, "{} polls", observed.truth);
    let pool = pool_of(report, "busy-worker");
    assert_eq!(list(&report.0["starvation"]), &[] as &[Value]);
    assert_eq!(sites_of(report, pool, "blocked").count(), 0);
}

#[test]
fn polls_that_hold_a_worker_are_as_long_as_they_were() {
    // Whoever wants the CPUs beside it would have the samples: a poll is seen only while it runs.
    let mut command = Command::new("nice");
    command.args(["-n", "-20"]).arg(workload()).arg("polls");
    let mut workload = Workload::start_as(command);
    let observed = observe(&mut workload, &["--on-cpu", "999"], Duration::from_secs(5));
    let polls = list(&observed.report.0["long_polls"]);
    for (task, waits) in [("crunch", 0.0), ("doze", 1.0), ("stutter", 0.5)] {
        let truth = &observed.truth[task];
        let found = polls
            .iter()
            .find(|polls| polls["task"].as_str().is_some_and(|name| name.contains(task)))
            .unwrap_or_else(|| panic!("no {task} in {polls:#?}"));
        let percent = percent_off(number(&found["total_ns"]), number(&truth["total_ns"]));
        println!("{task}: {percent:+.2} %, {found}, truly {truth}");
        let times = percent_off(number(&found["count"]), number(&truth["count"]));
        assert!(times.abs() <= POLLS_WITHIN_PERCENT, "{task} is counted {times:.2} % off");
        assert!(percent.abs() <= POLLS_WITHIN_PERCENT, "{task} is off by {percent:.2} %");
        let waiting = number(&found["waiting_ns"]) as f64 / number(&found["total_ns"]) as f64;
        assert!((waiting - waits).abs() < 0.1, "{task} waits for {waiting:.2} of it");
    }
    let brief =
        polls.iter().any(|polls| polls["task"].as_str().is_some_and(|name| name.contains("brief")));
    assert!(!brief, "{polls:#?}");
}

/// The pool with a thread of this name.
fn pool_of<'report>(report: &'report Report, worker: &str) -> &'report Value {
    let is_it = |pool: &&Value| {
        let threads = list(&pool["threads"]);
        threads.iter().any(|thread| thread["name"] == worker && thread["role"] == "worker")
    };
    let mut pools = list(&report.0["pools"]).iter().filter(is_it);
    let pool =
        pools.next().unwrap_or_else(|| panic!("no worker {worker} in {}", report.0["pools"]));
    assert!(pools.next().is_none(), "{worker} is in two pools");
    pool
}

fn sites_of<'report>(
    report: &'report Report,
    pool: &'report Value,
    state: &'report str,
) -> impl Iterator<Item = &'report Value> {
    report.sites().iter().filter(move |site| site["pool"] == pool["id"] && site["state"] == state)
}

fn has_function(site: &Value, function: &str) -> bool {
    list(&site["frames"])
        .iter()
        .any(|frame| frame["function"].as_str().is_some_and(|name| name.contains(function)))
}
