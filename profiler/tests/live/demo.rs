//! The demo shows what its service measured.

use std::{collections::BTreeMap, fs};

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{
    exact,
    process::run,
    report::{list, number},
};

/// How many points in a hundred a function's share of the blocked time may be off. The service
/// measures from the first order to the last, the recording its window, which is shorter at both
/// ends by some of the 800 or so orders: at 160 calls a function, ten more of one kind are a point.
const WITHIN_POINTS: f64 = 2.0;

#[test]
fn each_blocking_function_of_the_demo_has_its_true_share() {
    let out = tempdir().unwrap();
    let folder = out.path().to_str().unwrap();
    run(&["demo", "-d", "3", "-o", folder]).expect_success();
    let svg = fs::read_to_string(out.path().join("demo.svg")).unwrap();
    let json = out.path().join("demo.json");
    let recording = out.path().join("demo.stall");
    run(&["report", recording.to_str().unwrap(), "-o", json.to_str().unwrap()]).expect_success();
    let (report, _) = exact::read(&json);
    let truth = fs::read_to_string(out.path().join("demo.truth.json")).unwrap();
    let truth: BTreeMap<String, Value> = serde_json::from_str(&truth).unwrap();

    let sum_of = |state: &str, function: &str, times: &[&str]| -> u64 {
        report
            .sites_in(function)
            .filter(|site| site["state"] == state)
            .map(|site| times.iter().map(|time| number(&site[time])).sum::<u64>())
            .sum()
    };
    let time_of = |state: &str, function: &str| sum_of(state, function, &["total_ns"]);
    // What the service measures ends when it has a CPU again.
    let measurable = |function: &str| sum_of("blocked", function, &["total_ns", "runnable_ns"]);
    let (allowed, blocking): (Vec<_>, Vec<_>) =
        truth.iter().partition(|(_, sum)| sum["allowed"] == true);
    assert_eq!((allowed.len(), blocking.len()), (1, 4));
    let measured_all: u64 = blocking.iter().map(|(_, sum)| number(&sum["total_ns"])).sum();
    let reported_all: u64 = blocking.iter().map(|(function, _)| measurable(function)).sum();
    let waited_all: u64 = blocking.iter().map(|(name, _)| time_of("blocked", name)).sum();
    for (function, sum) in blocking {
        let measured = number(&sum["total_ns"]) as f64 / measured_all as f64 * 100.0;
        let reported = measurable(function) as f64 / reported_all as f64 * 100.0;
        println!("{function}: {reported:.2} % of what is blocked, measured {measured:.2} %");
        assert!((reported - measured).abs() <= WITHIN_POINTS, "{function}: {reported:.2} %");
        for state in ["idle", "allowed", "unknown"] {
            assert_eq!(time_of(state, function), 0, "{function} is {state}");
        }
        let name = function.rsplit("::").next().unwrap();
        assert!(svg.contains(name), "{name} is not in the picture");
    }
    for (function, _) in allowed {
        assert!(time_of("allowed", function) > 0);
        for state in ["idle", "blocked", "unknown"] {
            assert_eq!(time_of(state, function), 0, "{function} is {state}");
        }
    }
    // Nothing else is blocked, and the pool has its four workers.
    let blocked: u64 = report
        .sites()
        .iter()
        .filter(|site| site["state"] == "blocked")
        .map(|site| number(&site["total_ns"]))
        .sum();
    assert_eq!(blocked, waited_all);
    let pools = list(&report.0["pools"]);
    assert!(pools.iter().any(|pool| pool["runtime"] == "tokio" && pool["workers"] == 4));
}
