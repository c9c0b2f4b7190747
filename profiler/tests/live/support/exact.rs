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
    /// What the hypervisor took from this machine's CPUs meanwhile, at most.
    pub stolen_ns: u64,
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
    let stolen_ns = before.stolen_until(&after);
    check_times(&report, &kernel, stolen_ns);
    check_switches(&recording, &kernel);
    Observed { report, recording, truth, kernel, stolen_ns }
}

/// A report in JSON and the recording it was made from, with all sums that must hold checked.
pub fn read(json: &Path) -> (Report, Recording) {
    let report = Report::read(json);
    let recording = recording::file::read(&json.with_extension("stall")).unwrap();
    check_switch_counts(&report, &recording);
    let unexplained = unexplained(&report, &recording);
    let dropped: u64 = unexplained.values().map(|(count, _)| count).sum();
    assert_eq!(dropped, report.counter("intervals_dropped"), "{unexplained:?}");
    (report, recording)
}

/// How far two times of a thread may be apart, in parts of a hundred.
const WITHIN_PERCENT: f64 = 1.0;

/// What the two clocks may differ by at a switch, on average.
///
/// The kernel's `running` begins when its run queue's clock was last read. A wake-up that makes
/// an idle CPU reschedule reads it, and the switch that follows does not read it again
/// (`rq_clock_skip_update`): from the wake-up to the switch the thread is running by the kernel's
/// account and runnable by ours. And the kernel's `run_delay` begins when the thread is put on the
/// run queue, ours at `sched_waking`, before a CPU was chosen and had its interrupt. Measured on
/// a loaded virtual machine with 2 CPUs: 5 to 6 us and 1 to 3 us a switch; 24 us together where
/// each wait ends on another CPU, which sleeps and is woken by an interrupt.
const CLOCKS_APART_NS: u64 = 50_000;

/// What the two clocks may differ by however few switches there were. A CPU that sleeps is woken by
/// an interrupt, and an idle virtual one has to be given a real one first; the kernel's `run_delay`
/// begins when that CPU enqueues the thread. Measured: 65 us a switch over three switches.
const FEW_SWITCHES_NS: u64 = 1_000_000;

/// What one wait can have been in the run queue that is taken for waiting since its wake-up was not
/// seen: a few ticks of the scheduler.
const MISSED_WAKEUP_NS: u64 = 10_000_000;

/// How much the run queue's clock is read before the tracepoints are reached, at a switch, on
/// average.
pub const CLOCK_READ_NS: u64 = 10_000;

/// `running` and `runnable` of each thread are those of `/proc/PID/task/TID/schedstat`.
fn check_times(report: &Report, kernel: &[Done], stolen_ns: u64) {
    let unseen_ns = report.counter("wakeups_missed") * MISSED_WAKEUP_NS;
    for done in kernel {
        let thread = report.thread(done.tid);
        let apart = (done.switches * CLOCKS_APART_NS).max(FEW_SWITCHES_NS) as f64;
        let read = (done.switches * CLOCK_READ_NS) as f64;
        // Where a switch-in was not seen, the run after it and the queue before are unknown.
        let lost = number(&thread["unknown_ns"]) as f64;
        let check = |state: &str, kernel_ns: u64, less: f64, more: f64| {
            let ours = number(&thread[format!("{state}_ns")]);
            let off = off_by(ours, kernel_ns);
            let percent = kernel_ns as f64 * WITHIN_PERCENT / 100.0;
            assert!(
                -less - percent <= off && off <= more + percent,
                "{state} is {ours} ns, {kernel_ns} ns by the kernel: {done:?}, {thread}, {}",
                report.0["quality"]["counters"]
            );
        };
        // The kernel leaves out of `running` what the hypervisor took. And the interrupt of a wake-up
        // waits for a CPU that it took: until then the thread is runnable only by our account.
        let stolen = stolen_ns as f64;
        check("running", done.running_ns, apart + lost, read + stolen);
        check("runnable", done.run_queue_ns, read + lost + unseen_ns as f64, apart + stolen);
    }
}

/// How far a time is off, in nanoseconds.
pub fn off_by(reported_ns: u64, measured_ns: u64) -> f64 {
    reported_ns as f64 - measured_ns as f64
}

/// How far a time is off, in parts of a hundred.
pub fn percent_off(reported_ns: u64, measured_ns: u64) -> f64 {
    off_by(reported_ns, measured_ns) / measured_ns as f64 * 100.0
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

/// Each switch-out that the kernel counted began an interval that was measured, or counted as
/// short or missed.
fn check_switch_counts(report: &Report, recording: &Recording) {
    let Ending::Finished(end) = &recording.ending else { panic!("it is not finished") };
    let mut missed = 0;
    for totals in &recording.totals {
        // A thread that is born waits for a CPU first; a command is recorded from an instant at
        // which it runs. The last switch-out of a thread leads nowhere.
        let born =
            totals.from > recording.session.start && totals.tid.0 != recording.session.target.pid.0;
        let begun_off = totals.open_at_start || born;
        let ended = totals.to < end.end;
        let begun = totals.kernel_switches + u64::from(begun_off) - u64::from(ended);
        missed += begun - totals.intervals - totals.shorts;
    }
    assert_eq!(missed, report.counter("switches_missed"));
}

/// How many intervals of each thread were measured and not recorded, and the waiting time that no
/// interval explains, which must be in `unknown`.
fn unexplained(report: &Report, recording: &Recording) -> HashMap<Tid, (u64, Nanos)> {
    let mut recorded: HashMap<Tid, (u64, Nanos)> = HashMap::new();
    for interval in &recording.intervals {
        let (count, waiting) = recorded.entry(interval.tid).or_default();
        *count += 1;
        *waiting += interval.wake.since(interval.out);
    }
    // A thread id can be used twice within a recording: sums are those of all its lives.
    let mut measured: HashMap<Tid, (u64, Nanos)> = HashMap::new();
    for totals in &recording.totals {
        let (count, waiting) = measured.entry(totals.tid).or_default();
        *count += totals.intervals;
        *waiting += totals.waiting;
    }
    for (tid, (count, waiting)) in &mut measured {
        let (count_recorded, waiting_recorded) = recorded.remove(tid).unwrap_or_default();
        *count -= count_recorded;
        waiting.0 -= waiting_recorded.0;
        let lives = report.threads().filter(|thread| thread["tid"] == u64::from(tid.0));
        let unknown: u64 = lives.map(|thread| number(&thread["unknown_ns"])).sum();
        assert!(unknown >= waiting.0, "{waiting:?} of thread {tid} are not in unknown");
    }
    assert!(recorded.is_empty(), "intervals of threads that have no totals: {recorded:?}");
    measured
}
