//! Not one switch is lost in a storm of them.

use std::time::Duration;

use crate::support::{
    exact::{Observed, observe},
    process::Workload,
};

/// One pair of threads on each of two CPUs.
const STORM: &[&str] = &["storm", "--same-cpu", "--pairs", "2"];

/// What [`STORM`] must reach for the test to be one.
const SWITCHES_A_SECOND: u64 = 200_000;

#[test]
fn every_switch_of_a_storm_is_counted() {
    let length = Duration::from_secs(10);
    let mut workload = Workload::start(STORM);
    let observed = observe(&mut workload, &[], length);
    let rate = rate(&observed, length);
    let losses = losses(&observed);
    println!("{rate} switches a second, {losses}");
    assert!(rate >= SWITCHES_A_SECOND, "a storm of {rate} switches a second is none; {losses}");
}

/// More than the recorder can take: what finds no room is counted, and its time is unknown.
#[test]
fn what_is_dropped_in_a_storm_is_counted() {
    let length = Duration::from_secs(3);
    let mut workload = Workload::start(STORM);
    let observed = observe(&mut workload, &["--min-block", "0"], length);
    let recorded = observed.recording.intervals.len();
    println!(
        "{} switches a second, {recorded} intervals recorded, {}",
        rate(&observed, length),
        losses(&observed)
    );
    assert!(recorded > 0);
    assert!(observed.recording.totals.iter().all(|totals| totals.shorts == 0));
}

fn rate(observed: &Observed, length: Duration) -> u64 {
    let switches: u64 = observed.kernel.iter().map(|done| done.switches).sum();
    switches / length.as_secs()
}

fn losses(observed: &Observed) -> String {
    ["intervals_dropped", "switches_missed", "wakeups_missed"]
        .map(|counter| format!("{counter} {}", observed.report.counter(counter)))
        .join(", ")
}
