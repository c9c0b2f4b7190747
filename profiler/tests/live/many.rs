//! Very many threads, and threads that come and go.

use std::{collections::HashMap, time::Duration};

use stallscope::{
    recording::{Interval, ThreadTotals},
    units::Nanos,
};

use crate::support::{
    exact::{Observed, observe},
    process::Workload,
    report::{list, number},
};

const THREADS: usize = 5000;

/// How long a thread that comes and goes sleeps.
const SLEEP: Nanos = Nanos(2_000_000);

/// The parked ones sleep from before the window until after it, as in a deadlock. The ring buffer
/// holds four of their stacks at once: the kernel's visit waits for the recorder.
#[test]
fn five_thousand_sleeping_threads_are_all_there() {
    let mut workload = Workload::start(&["crowd", &THREADS.to_string()]);
    let observed = observe(&mut workload, &["--ring-size", "64K"], Duration::from_secs(2));
    let report = &observed.report;
    assert_eq!(observed.kernel.len(), THREADS + 1);
    let wall = number(&report.0["window"]["duration_ns"]);
    let through: Vec<_> = observed.kernel.iter().filter(|done| done.switches == 0).collect();
    assert_eq!(through.len(), THREADS);
    for done in through {
        let thread = report.thread(done.tid);
        assert_eq!(thread["open_at_start"], true, "{thread}");
        assert_eq!(thread["open_at_end"], true, "{thread}");
        assert_eq!(number(&thread["wall_ns"]), wall, "{thread}");
        let waiting: u64 = ["idle", "blocked", "allowed", "unknown"]
            .iter()
            .map(|state| number(&thread[format!("{state}_ns")]))
            .sum();
        assert_eq!(waiting, wall, "{thread}");
    }
    // Every one of them with a whole stack, down to the function in which it sleeps.
    let parked: Vec<_> = report
        .sites_in("std::thread::functions::park")
        .filter(|site| number(&site["max_ns"]) == wall)
        .collect();
    let count: u64 = parked.iter().map(|site| number(&site["count"])).sum();
    assert_eq!(count, THREADS as u64);
    for site in parked {
        assert_eq!(site["reason"], "futex", "{site}");
        let frames = list(&site["frames"]);
        assert!(frames.iter().all(|frame| frame["missing"].is_null()), "{site}");
        assert_eq!(frames[0]["function"], "clone3", "{site}");
    }
    for counter in ["open_without_stack", "threads_untracked", "stacks_broken", "intervals_dropped"]
    {
        assert_eq!(report.counter(counter), 0, "{counter}");
    }
}

#[test]
fn hundreds_of_threads_a_second_come_and_go() {
    let length = Duration::from_secs(4);
    let mut workload = Workload::start(&["churn"]);
    let observed = observe(&mut workload, &[], length);
    let truth = &observed.truth["workload::sites::sleep_once"];
    let (count, waits) = (number(&truth["count"]), number(&truth["waits"]));
    println!("{count} threads in {length:?}, {waits} slept");
    assert!(waits > 200 * length.as_secs(), "{count} threads were started");

    let start = observed.recording.session.start;
    let born = observed.recording.totals.iter().filter(|totals| totals.from > start).count();
    // One more than slept: the one that starts them.
    assert_eq!(born as u64, count + 1);
    let mut sites: HashMap<&str, u64> = HashMap::new();
    for site in observed.report.sites_in("sleep_once") {
        *sites.entry(site["state"].as_str().unwrap()).or_default() += number(&site["count"]);
    }
    let named: u64 = sites.values().sum();
    let missed = observed.report.counter("switches_missed");
    assert!(
        named + missed >= waits,
        "{named} of {waits} sleeps are named, {sites:?}; without: {:#?}",
        without_a_sleep(&observed)
    );
    for counter in ["events_dropped", "threads_untracked", "intervals_dropped"] {
        assert_eq!(observed.report.counter(counter), 0, "{counter}");
    }
}

/// What was recorded of the threads that came and of whose waits none is long enough for the sleep.
fn without_a_sleep(observed: &Observed) -> Vec<(&ThreadTotals, Vec<&Interval>)> {
    let recording = &observed.recording;
    let born = recording.totals.iter().filter(|totals| totals.from > recording.session.start);
    born.map(|totals| {
        let intervals = recording.intervals.iter().filter(|interval| interval.tid == totals.tid);
        (totals, intervals.collect::<Vec<_>>())
    })
    .filter(|(_, intervals)| intervals.iter().all(|wait| wait.wake.since(wait.out) < SLEEP))
    .collect()
}
