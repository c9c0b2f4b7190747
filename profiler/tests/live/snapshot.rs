//! What threads wait for, and since when, where they began before anybody looked.

use std::{path::Path, thread::sleep, time::Duration};

use serde_json::Value;
use stallscope::recording::file;
use tempfile::tempdir;

use crate::support::{
    process::{Workload, run},
    report::{Report, list, number},
};

/// How far the beginning of a wait may be off that is two seconds old.
const SINCE_WITHIN_NS: u64 = 5_000_000;

const THREADS: u64 = 1000;

/// What a sweep of so many threads may take.
const SWEPT_WITHIN_MS: f64 = 100.0;

/// The one site with this function in its stack, and its threads at the end.
fn waiting_in<'report>(report: &'report Report, function: &'report str) -> (&'report Value, usize) {
    let sites = report.sites().iter().enumerate();
    let mut own = sites.filter(|(_, site)| {
        let named =
            |frame: &Value| frame["function"].as_str().is_some_and(|f| f.contains(function));
        list(&site["frames"]).iter().any(named)
    });
    let (index, site) = own.next().unwrap_or_else(|| panic!("nobody waits in {function}"));
    assert!(own.next().is_none(), "several sites in {function}");
    let threads = report.threads().filter(|thread| thread["at_end"]["site"] == index);
    (site, threads.count())
}

/// The deadlock is seen whole, and the sleep as old as it is.
fn check_stuck(json: &Path, slept_at_ns: u64) {
    let report = Report::read(json);
    let recording = file::read(&json.with_extension("stall")).unwrap();
    let (mutex, threads) = waiting_in(&report, "stuck::lock_other");
    assert_eq!((&mutex["label"], &mutex["stack"]), (&"mutex".into(), &"complete".into()));
    assert_eq!(threads, 2, "{mutex}");
    let (slept, threads) = waiting_in(&report, "stuck::sleep_long");
    assert_eq!((&slept["reason"], threads), (&"sleep".into(), 1));
    let sleeper = report.threads().find(|thread| thread["name"] == "sleeper").unwrap();
    let since_ns = sleeper["open_since_ns"].as_i64().unwrap();
    assert_eq!(sleeper["at_end"]["since_ns"], since_ns, "{sleeper}");
    let since_ns = recording.session.start.0.checked_add_signed(since_ns).unwrap();
    println!("off by {} us", (since_ns as f64 - slept_at_ns as f64) / 1e3);
    assert!(since_ns.abs_diff(slept_at_ns) < SINCE_WITHIN_NS, "{since_ns} {slept_at_ns}");
}

#[test]
fn a_deadlock_and_a_sleep_that_began_before_are_whole() {
    let mut workload = Workload::start(&["stuck"]);
    // The age of the waits.
    sleep(Duration::from_secs(2));
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    let pid = workload.pid().to_string();
    let moment = path("moment.json");
    let ended = run(&["snapshot", "-p", &pid, "-o", moment.to_str().unwrap()]).expect_success();
    let window = path("window.json");
    run(&["record", "-p", &pid, "-d", "1", "-o", window.to_str().unwrap()]).expect_success();
    workload.go();
    let slept_at_ns = number(&workload.stop()["slept_at_ns"]);
    check_stuck(&moment, slept_at_ns);
    check_stuck(&window, slept_at_ns);
    println!("{}", ended.stdout);
    for words in [
        "4 threads, none on a CPU",
        "2 threads waiting for a mutex, for about ",
        "left-first ",
        "right-first ",
        "workload::stuck::lock_other",
        "1 thread sleeping, for about ",
    ] {
        assert!(ended.stdout.contains(words), "{words}");
    }
}

#[test]
fn a_thousand_blocked_threads_are_all_there_at_once() {
    let workload = Workload::start(&["crowd", &THREADS.to_string()]);
    let dir = tempdir().unwrap();
    let json = dir.path().join("out.json");
    let pid = workload.pid().to_string();
    let ended = run(&["snapshot", "-p", &pid, "-o", json.to_str().unwrap()]).expect_success();
    let report = Report::read(&json);
    let (parked, threads) = waiting_in(&report, "std::thread::functions::park");
    assert_eq!(threads as u64, THREADS);
    assert_eq!((&parked["reason"], &parked["stack"]), (&"futex".into(), &"complete".into()));
    for counter in ["open_without_stack", "threads_untracked", "stacks_broken"] {
        assert_eq!(report.counter(counter), 0, "{counter}");
    }
    for thread in report.threads() {
        assert!(thread["at_end"]["since_ns"].as_i64().is_some_and(|since| since < 0), "{thread}");
    }
    println!("{}", ended.stderr);
    let (_, took) = ended.stderr.split_once(&format!("{} threads in ", THREADS + 1)).unwrap();
    let (ms, _) = took.split_once(" ms").unwrap();
    assert!(ms.parse::<f64>().unwrap() < SWEPT_WITHIN_MS, "{took}");
}
