//! A recording of a workload between two moments of rest, held against the kernel's own counters.

use std::{collections::HashMap, path::Path, time::Duration};

use serde_json::Value;
use stallscope::{
    recording::{self, Ending, Recording},
    units::{Nanos, Tid},
};
use tempfile::tempdir;

use super::{
    kernel::{Done, Reading},
    process::{Recorder, Workload},
    report::{Report, number},
};

/// What became of a workload that was recorded from rest to rest.
pub struct Observed {
    /// What the recorder reported.
    pub report: Report,
    /// What it recorded.
    pub recording: Recording,
    /// What the workload measured.
    pub truth: Value,
    /// The threads that lived throughout, by the kernel's counters.
    pub kernel: Vec<Done>,
}

/// Records a workload that is ready: lets it work for `length`, waits until it is at rest again,
/// and checks every sum that must hold of any recording.
pub fn observe(workload: &mut Workload, options: &[&str], length: Duration) -> Observed {
    observe_work(workload, options, |workload| {
        workload.go();
        std::thread::sleep(length);
        workload.stop()
    })
}

/// The same for a workload that works in its own way.
pub fn observe_work(
    workload: &mut Workload,
    options: &[&str],
    work: impl FnOnce(&mut Workload) -> Value,
) -> Observed {
    let out = tempdir().unwrap();
    let json = out.path().join("out.json");
    let pid = workload.pid().to_string();
    let output = ["-p", &pid, "-o", json.to_str().unwrap()];
    let recorder = Recorder::start(&[&output, options].concat());
    let before = Reading::at_rest(workload.pid());
    let truth = work(workload);
    let after = Reading::at_rest(workload.pid());
    recorder.interrupt().expect_success();
    let (report, recording) = read(&json);
    let kernel: Vec<Done> = before.until(&after).collect();
    assert!(!kernel.is_empty(), "no thread lived throughout");
    check_times(&report, &kernel, before.stolen_until(&after));
    check_switches(&recording, &kernel);
    Observed { report, recording, truth, kernel }
}

/// A report in JSON and the recording it was made from, with all sums that must hold checked.
pub fn read(json: &Path) -> (Report, Recording) {
    let report = Report::read(json);
    let recording = recording::file::read(&json.with_extension("stall")).unwrap();
    check_counts(&report, &recording);
    (report, recording)
}

fn check_times(report: &Report, kernel: &[Done], stolen_ns: u64) {
    println!(
        "missed {} switches, {} wakes",
        report.counter("switches_missed"),
        report.counter("wakeups_missed")
    );
    for done in kernel {
        let thread = report.thread(done.tid);
        let running = number(&thread["running_ns"]);
        let runnable = number(&thread["runnable_ns"]);
        println!(
            "{} {}: running {running} kernel {} ({:+.3} %), runnable {runnable} kernel {} ({:+.3} %, {:+.0} ns a switch), {} switches, stolen {stolen_ns}",
            done.tid,
            thread["name"],
            done.running_ns,
            (running as f64 / done.running_ns as f64 - 1.0) * 100.0,
            done.run_queue_ns,
            (runnable as f64 / done.run_queue_ns as f64 - 1.0) * 100.0,
            (runnable as f64 - done.run_queue_ns as f64) / done.switches as f64,
            done.switches,
        );
    }
}

/// The recorder saw each switch that the kernel counted of a thread that lived throughout.
fn check_switches(recording: &Recording, kernel: &[Done]) {
    for done in kernel {
        let tid = Tid(done.tid as u32);
        let totals = recording.totals.iter().find(|totals| totals.tid == tid).unwrap();
        assert!(totals.open_at_start && totals.open_at_end, "{totals:?}");
        assert_eq!(totals.kernel_switches, done.switches, "{totals:?}");
    }
}

/// Each switch-out that the kernel counted began an interval that was recorded, or counted as short,
/// dropped or missed; and the waiting time of what was dropped or missed is in `unknown`.
fn check_counts(report: &Report, recording: &Recording) {
    let Ending::Finished(end) = &recording.ending else { panic!("it is not finished") };
    let mut recorded: HashMap<Tid, (u64, Nanos)> = HashMap::new();
    for interval in &recording.intervals {
        let (count, waiting) = recorded.entry(interval.tid).or_default();
        *count += 1;
        *waiting += interval.wake.since(interval.out);
    }
    // A thread id can be used twice within a recording: sums are those of all its lives.
    let mut measured: HashMap<Tid, (u64, Nanos)> = HashMap::new();
    let mut missed = 0;
    for totals in &recording.totals {
        let (count, waiting) = measured.entry(totals.tid).or_default();
        *count += totals.intervals;
        *waiting += totals.waiting;
        // A thread begins off-CPU unless it ran when the window began, and its last switch-out
        // leads nowhere.
        let begun_off = totals.open_at_start || totals.from > recording.session.start;
        let ended = totals.to < end.end;
        let begun = totals.kernel_switches + u64::from(begun_off) - u64::from(ended);
        missed += begun - totals.intervals - totals.shorts;
    }
    assert_eq!(missed, report.counter("switches_missed"));
    let mut dropped = 0;
    for (tid, (count, waiting)) in measured {
        let (count_recorded, waiting_recorded) = recorded.remove(&tid).unwrap_or_default();
        dropped += count - count_recorded;
        let lost_ns = waiting.0 - waiting_recorded.0;
        let lives = report.threads().filter(|thread| thread["tid"] == u64::from(tid.0));
        let unknown: u64 = lives.map(|thread| number(&thread["unknown_ns"])).sum();
        assert!(unknown >= lost_ns, "{lost_ns} ns of thread {tid} are not in unknown");
    }
    assert_eq!(dropped, report.counter("intervals_dropped"));
    assert!(recorded.is_empty(), "intervals of threads that have no totals: {recorded:?}");
}
