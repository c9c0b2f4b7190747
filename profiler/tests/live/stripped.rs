//! A service without names is read like the same service with them, or said to be unknown.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{
    exact::percent_off,
    process::{Recorder, Workload, run, workload},
    report::{Report, list, number},
};

/// How far blocked time may be off what the workload measured, in parts of a hundred.
const WITHIN_PERCENT: f64 = 2.0;

const LENGTH: Duration = Duration::from_secs(4);

/// What is waited for in tasks on the workers of the two pools.
const ON_WORKERS: &[&str] = &["block_worker", "lock_contended", "sleep_holding"];

/// How a pool's time went, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Times {
    idle: u64,
    blocked: u64,
    /// The run-queue time that followed blocked waits: the workload measures it too.
    after_blocked: u64,
    allowed: u64,
    after_allowed: u64,
    unknown: u64,
}

/// The times of the two pools and of the runtime of one thread.
fn times(report: &Report) -> BTreeMap<&'static str, Times> {
    let mut times: BTreeMap<&'static str, Times> = BTreeMap::new();
    for pool in list(&report.0["pools"]).iter().filter(|pool| pool["runtime"] != "none") {
        let own = report.sites().iter().filter(|site| site["pool"] == pool["id"]);
        // Whether the two pools can be told apart is for others to test.
        let alone = list(&pool["threads"]).iter().any(|thread| thread["name"] == "alone");
        let times = times.entry(if alone { "alone" } else { "pools" }).or_default();
        // Those who start and end a pool from outside wait beside it.
        for site in own.filter(|site| site["role"] != "other") {
            let (total, after) = (number(&site["total_ns"]), number(&site["runnable_ns"]));
            match site["state"].as_str().unwrap() {
                "idle" => times.idle += total,
                "blocked" => {
                    times.blocked += total;
                    times.after_blocked += after;
                }
                "allowed" => {
                    times.allowed += total;
                    times.after_allowed += after;
                }
                "unknown" => times.unknown += total,
                _ => {}
            }
        }
    }
    times
}

/// What the workload measured in some of its functions.
fn measured(truth: &Value, functions: &[&str]) -> u64 {
    let sums = truth.as_object().unwrap().iter();
    let called = sums.filter(|(name, _)| functions.iter().any(|of| name.ends_with(of)));
    called.map(|(_, sum)| number(&sum["total_ns"])).sum()
}

fn check_percent(what: &str, reported: u64, measured: u64) {
    assert!(measured > 0, "{what}: nothing was measured");
    let percent = percent_off(reported, measured);
    println!("{what}: {percent:+.3} %");
    assert!(percent.abs() <= WITHIN_PERCENT, "{what}: {reported} ns, measured {measured} ns");
}

/// Records the workload after `strip` changed a copy of it, and returns the times in a report with
/// its own names, in one with the names of the whole file, and what it measured.
fn record(strip: &[&str]) -> (Report, Report, Value) {
    let out = tempdir().unwrap();
    let program = out.path().join("service");
    // Written by another process: a test beside this one would inherit the open file, and it is busy.
    let mut copy = match strip {
        [] => Command::new("cp"),
        options => {
            let mut command = Command::new("strip");
            command.args(options).arg("-o").arg(&program);
            command
        }
    };
    copy.arg(workload()).args(strip.is_empty().then_some(&program));
    let done = copy.status().unwrap();
    assert!(done.success(), "{copy:?}");
    let mut command = Command::new(&program);
    command.arg("runtimes");
    let mut workload = Workload::start_as(command);
    let (json, named) = (out.path().join("own.json"), out.path().join("named.json"));
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let pid = workload.pid().to_string();
    let recorder = Recorder::start(&["-p", &pid, "--min-block", "0", "-o", path(&json).as_str()]);
    workload.go();
    std::thread::sleep(LENGTH);
    let truth = workload.stop();
    recorder.interrupt().expect_success();
    let debug_dir = debug_dir(out.path(), &Report::read(&json));
    let recording = path(&json.with_extension("stall"));
    let debug_dir = path(&debug_dir);
    run(&["report", &recording, "--debug-dir", &debug_dir, "-o", &path(&named)]).expect_success();
    (Report::read(&json), Report::read(&named), truth)
}

/// A directory with the whole file where its build-id says.
fn debug_dir(out: &Path, report: &Report) -> std::path::PathBuf {
    let build_id = report.0["target"]["build_id"].as_str().expect("workloads have a build-id");
    let folder = out.join("debug").join(".build-id").join(&build_id[..2]);
    fs::create_dir_all(&folder).unwrap();
    fs::copy(workload(), folder.join(format!("{}.debug", &build_id[2..]))).unwrap();
    out.join("debug")
}

/// What each pool's threads were blocked and allowed to wait for, as the workload measured it.
fn check_truth(what: &str, report: &Report, truth: &Value, in_place_known: bool) {
    let times = times(report);
    let (pool, alone) = (times["pools"], times["alone"]);
    let blocked = pool.blocked + pool.after_blocked;
    check_percent(&format!("{what}: workers"), blocked, measured(truth, ON_WORKERS));
    let blocked = alone.blocked + alone.after_blocked;
    check_percent(&format!("{what}: alone"), blocked, measured(truth, &["block_alone"]));
    let in_place: &[&str] = if in_place_known { &["wait_in_place"] } else { &[] };
    let allowed = [&["wait_in_blocking_pool"], in_place].concat();
    let waited = pool.allowed + pool.after_allowed;
    check_percent(&format!("{what}: allowed"), waited, measured(truth, &allowed));
    assert!(alone.idle > 0 && pool.idle > 0 && alone.allowed == 0, "{what}: {times:?}");
}

fn inferred(values: &[Value]) -> usize {
    values.iter().filter(|value| value["inferred"] == true).count()
}

#[test]
fn with_all_names_and_without_line_tables() {
    for strip in [&[][..], &["-g"]] {
        let (report, _, truth) = record(strip);
        check_truth(&format!("strip {strip:?}"), &report, &truth, true);
        assert_eq!((inferred(list(&report.0["pools"])), inferred(report.sites())), (0, 0));
    }
}

#[test]
fn stripped_it_is_read_as_with_its_names_or_unknown() {
    let (report, named, truth) = record(&["-s"]);
    check_truth("named later", &named, &truth, true);
    check_truth("stripped", &report, &truth, false);
    let marked = list(&report.0["pools"]).iter().filter(|pool| pool["runtime"] == "tokio");
    assert!(marked.into_iter().all(|pool| pool["inferred"] == true));
    assert_eq!((inferred(list(&named.0["pools"])), inferred(named.sites())), (0, 0));

    // The same waits, once with names and once without: what is said of them is the same, but for
    // what names alone can tell.
    let (with, without) = (times(&named), times(&report));
    let (with_pool, without_pool) = (with["pools"], without["pools"]);
    assert_eq!(with["alone"], without["alone"]);
    assert_eq!(with_pool.idle, without_pool.idle);
    // A wait for the lock of the blocking pool may be part of a wait in place.
    assert!(without_pool.blocked <= with_pool.blocked);
    check_percent("with and without names", without_pool.blocked, with_pool.blocked);
    assert!(without_pool.allowed < with_pool.allowed, "waits in place are unknown: {without:?}");
    check_states(&named, &report);

    let nameless = &list(&report.0["quality"]["nameless"])[0];
    assert!(nameless["module"].as_str().unwrap().ends_with("/service"), "{nameless}");
    assert!(number(&nameless["inferred_ns"]) > 0, "{nameless}");
}

/// No wait has another state without names than with them, unless it is unknown.
fn check_states(named: &Report, report: &Report) {
    let key = |site: &Value| {
        let frames = list(&site["frames"]).iter().filter(|frame| frame["kind"] != "inlined");
        let places: Vec<_> = frames.map(|frame| frame["address"].to_string()).collect();
        (places, site["reason"].to_string())
    };
    let mut states: BTreeMap<_, Vec<&Value>> = BTreeMap::new();
    for site in named.sites() {
        states.entry(key(site)).or_default().push(&site["state"]);
    }
    for site in report.sites().iter().filter(|site| site["state"] != "unknown") {
        assert!(states[&key(site)].contains(&&site["state"]), "{site}");
    }
}
