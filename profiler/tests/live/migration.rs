//! A wait is as long as it is, whichever CPU it ends on.

use std::time::Duration;

use crate::support::{
    exact::{observe, percent_off},
    process::Workload,
    report::number,
};

const WITHIN_PERCENT: f64 = 2.0;

#[test]
fn a_thread_that_migrates_in_every_wait_has_the_durations_of_a_pinned_one() {
    let mut workload = Workload::start(&["migrate"]);
    let observed = observe(&mut workload, &[], Duration::from_secs(4));
    let [pinned, migrating] = ["sleep_pinned", "sleep_migrating"].map(|function| {
        let truth = &observed.truth[format!("workload::sites::{function}")];
        let (count, measured) = (number(&truth["count"]), number(&truth["total_ns"]));
        assert!(count > 20, "{function} was called {count} times");
        let reported = observed.report.time_in(function);
        let percent = percent_off(reported, measured);
        println!("{function}: {percent:+.3} % of {measured} ns in {count} calls");
        assert!(percent.abs() <= WITHIN_PERCENT, "{function} is off by {percent:+.2} %");
        // The run queue's part differs with what else runs on each CPU.
        let waited: u64 =
            observed.report.sites_in(function).map(|site| number(&site["total_ns"])).sum();
        waited as f64 / count as f64
    });
    let apart = (migrating - pinned) / pinned * 100.0;
    println!("pinned {pinned:.0} ns a call, migrating {migrating:.0} ns: {apart:+.3} %");
    assert!(apart.abs() <= WITHIN_PERCENT, "{apart:+.2} %");
    let moved = observed
        .recording
        .intervals
        .iter()
        .filter(|interval| interval.cpu_out != interval.cpu_in && !interval.preempted)
        .count() as u64;
    let calls = number(&observed.truth["workload::sites::sleep_migrating"]["count"]);
    assert!(moved > calls / 2, "{moved} of {calls} waits ended on another CPU");
}
