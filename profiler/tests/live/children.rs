//! Processes that the target starts, and a target that becomes another program.

use std::{collections::BTreeSet, time::Duration};

use crate::support::{
    exact::{observe, observe_work, percent_off},
    process::Workload,
    report::{list, number},
};

const WITHIN_PERCENT: f64 = 2.0;

const LENGTH: Duration = Duration::from_secs(3);

#[test]
fn children_are_watched_when_asked_for() {
    let mut workload = Workload::start(&["fork"]);
    let observed = observe(&mut workload, &["--children"], LENGTH);
    for (function, truth) in observed.truth.as_object().unwrap() {
        let percent = percent_off(observed.report.time_in(function), number(&truth["total_ns"]));
        println!("{function}: {percent:+.3} %");
        assert!(percent.abs() <= WITHIN_PERCENT, "{function} is off by {percent:+.2} %");
    }
    let recorded: BTreeSet<u32> =
        observed.recording.totals.iter().map(|totals| totals.pid.0).collect();
    assert_eq!(recorded.len(), 3, "the parent and two children: {recorded:?}");
    let pools = list(&observed.report.0["pools"]);
    for pid in recorded {
        let theirs: BTreeSet<u64> = observed
            .recording
            .totals
            .iter()
            .filter(|totals| totals.pid.0 == pid)
            .map(|totals| u64::from(totals.tid.0))
            .collect();
        let own = pools.iter().any(|pool| {
            let tids: BTreeSet<u64> =
                list(&pool["threads"]).iter().map(|thread| number(&thread["tid"])).collect();
            tids == theirs
        });
        assert!(own, "process {pid} has no pool of its own: {pools:?}");
    }
}

#[test]
fn children_are_not_watched_unless_asked_for() {
    let mut workload = Workload::start(&["fork"]);
    let observed = observe(&mut workload, &[], Duration::from_secs(1));
    let pid = workload.pid();
    assert!(observed.recording.totals.iter().all(|totals| totals.pid.0 == pid));
    assert!(observed.recording.intervals.iter().all(|interval| interval.pid.0 == pid));
    let function = "sleep_mix";
    assert!(number(&observed.truth[format!("workload::sites::{function}")]["total_ns"]) > 0);
    assert_eq!(observed.report.time_in(function), 0);
}

#[test]
fn after_an_exec_the_new_program_is_named() {
    let mut workload = Workload::start(&["exec"]);
    let pid = workload.pid();
    let observed = observe_work(&mut workload, &[], |workload| {
        workload.go();
        workload.wait_ready();
        workload.go();
        std::thread::sleep(LENGTH);
        workload.stop()
    });
    assert_eq!(workload.pid(), pid);
    for (function, truth) in observed.truth.as_object().unwrap() {
        let percent = percent_off(observed.report.time_in(function), number(&truth["total_ns"]));
        println!("{function}: {percent:+.3} %");
        assert!(percent.abs() <= WITHIN_PERCENT, "{function} is off by {percent:+.2} %");
    }
}
