//! Locks that are never given back, locks that threads queue for, and locks with which all is well.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread::sleep,
    time::Duration,
};

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{
    process::{Recorder, Workload, run},
    report::{Report, list, number},
};

/// How old a wait has to be before a deadlock is inferred, and some more.
const SETTLED: Duration = Duration::from_millis(1500);

/// How long work is recorded.
const LENGTH: Duration = Duration::from_secs(2);

/// What of the waiting the slow holder must be found to have held up, and what of that to its sleep
/// or its function, in parts of a hundred.
const HELD_PERCENT: f64 = 90.0;

/// Snapshots of threads that contend.
const SNAPSHOTS: usize = 10;

/// Takes a snapshot of a workload and records it; the texts and the reports of both.
fn look_at(workload: &Workload) -> [(String, Report); 2] {
    let dir = tempdir().unwrap();
    let pid = workload.pid().to_string();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (moment, window, text) = (path("moment.json"), path("window.json"), path("window.txt"));
    let seen = run(&["snapshot", "-p", &pid, "-o", &moment]).expect_success();
    run(&["record", "-p", &pid, "-d", "2", "-o", &window, "-o", &text]).expect_success();
    let text = std::fs::read_to_string(text).unwrap();
    println!("{}\n{text}", seen.stdout);
    [(seen.stdout, Report::read(Path::new(&moment))), (text, Report::read(Path::new(&window)))]
}

/// The one deadlock is that of these two threads, each in a function, by what is known.
fn check_deadlock(
    (text, report): &(String, Report),
    threads: [(&str, &str); 2],
    function: &str,
    how: &str,
) {
    let [deadlock] = list(&report.0["deadlocks"]) else { panic!("{}", report.0["deadlocks"]) };
    assert_eq!((&deadlock["how"], &deadlock["inferred"]), (&how.into(), &(how != "owner").into()));
    let found = list(&deadlock["threads"]);
    let names: Vec<&str> = found.iter().map(|thread| thread["name"].as_str().unwrap()).collect();
    assert_eq!(names, threads.map(|(name, _)| name));
    for (thread, (_, root)) in found.iter().zip(threads) {
        let site = &report.sites()[number(&thread["site"]) as usize];
        assert_eq!((&site["stack"], &site["label"]), (&"complete".into(), &"mutex".into()));
        let has = |wanted: &str| {
            let mut functions = list(&site["frames"]).iter().filter_map(|f| f["function"].as_str());
            functions.any(|function| function.contains(wanted))
        };
        assert!(has(function) && has(root), "{site}");
        let lock = lock_at(report, &thread["lock"]);
        assert_eq!(list(&lock["waiting"]), [thread["tid"].clone()]);
        let holder = found.iter().find(|other| other["tid"] != thread["tid"]).unwrap();
        assert_eq!(lock["held_at_end"]["tid"], holder["tid"]);
    }
    assert_ne!(found[0]["lock"], found[1]["lock"]);
    assert!(text.lines().take(4).any(|line| line.starts_with("SUSPECTED DEADLOCK")), "{text}");
    for lock in found.iter().map(|thread| thread["lock"].as_str().unwrap()) {
        assert!(text.contains(&format!("waits for the mutex at {lock}")), "{text}");
    }
}

fn lock_at<'report>(report: &'report Report, address: &Value) -> &'report Value {
    let mut locks = list(&report.0["locks"]).iter();
    locks.find(|lock| lock["address"] == *address).unwrap_or_else(|| panic!("no lock {address}"))
}

#[test]
fn threads_that_wait_for_each_others_guards_are_a_deadlock() {
    let workload = Workload::start(&["stuck"]);
    // The age of the waits.
    sleep(SETTLED);
    let threads = [("left-first", "stuck::"), ("right-first", "stuck::")];
    for seen in look_at(&workload) {
        check_deadlock(&seen, threads, "stuck::lock_other", "reference");
    }
}

#[test]
fn mutexes_of_the_c_library_name_their_owners() {
    let dir = tempdir().unwrap();
    for seen in look_at(&Workload::start_as(Command::new(deadlock(dir.path())))) {
        let threads = [("one-first", "one_first"), ("two-first", "two_first")];
        check_deadlock(&seen, threads, "take_other", "owner");
    }
}

/// The owner that such a mutex names is another number than the recorder's for the same thread.
#[test]
fn owners_are_found_in_a_pid_namespace_too() {
    let dir = tempdir().unwrap();
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc"]).arg(deadlock(dir.path()));
    let workload = Workload::start_as(command);
    let children = format!("/proc/{0}/task/{0}/children", workload.child_pid());
    let pid = std::fs::read_to_string(children).unwrap();
    let json = dir.path().join("out.json");
    let text = run(&["snapshot", "-p", pid.trim(), "-o", json.to_str().unwrap()]).expect_success();
    let threads = [("one-first", "one_first"), ("two-first", "two_first")];
    check_deadlock(&(text.stdout, Report::read(&json)), threads, "take_other", "owner");
}

/// Builds the program of two threads that wait for each other's `pthread_mutex_t`.
fn deadlock(dir: &Path) -> PathBuf {
    let cells = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workloads").join("cells");
    let program = dir.join("deadlock");
    let mut gcc = Command::new("gcc");
    gcc.args(["-O2", "-g", "-pthread", "-o"]).arg(&program).arg(cells.join("deadlock.c"));
    assert!(gcc.status().unwrap().success(), "{gcc:?}");
    program
}

#[test]
fn a_pool_whose_workers_all_hang_is_said_first() {
    let workload = Workload::start(&["hang"]);
    for (text, report) in look_at(&workload) {
        let pool = list(&report.0["pools"]).iter().find(|pool| pool["runtime"] == "tokio").unwrap();
        assert_eq!((&pool["hung"], &pool["workers"]), (&true.into(), &4.into()), "{pool}");
        let said = text.lines().take(3).any(|line| line.contains("HUNG: all 4 workers"));
        assert!(said, "{text}");
        assert_eq!(list(&report.0["deadlocks"]).len(), 0);
        let lock = list(&report.0["locks"]).iter().find(|lock| lock["kind"] == "mutex").unwrap();
        assert_eq!((&lock["waiters"], &lock["held_at_end"]["name"]), (&4.into(), &"keeper".into()));
        assert_eq!(lock["held_at_end"]["how"], "reference");
    }
}

/// Records the convoy at work; the lock, and what of the waiting for it its slow holder held up.
fn convoy(arguments: &[&str], options: &[&str]) -> (Report, Value, Value, String) {
    let mut workload = Workload::start(arguments);
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (json, text) = (path("out.json"), path("out.txt"));
    let pid = workload.pid().to_string();
    workload.go();
    let recorder =
        Recorder::start(&[&["-p", &pid, "-o", &json, "-o", &text][..], options].concat());
    sleep(LENGTH);
    recorder.interrupt().expect_success();
    workload.stop();
    let (report, text) = (Report::read(Path::new(&json)), std::fs::read_to_string(text).unwrap());
    println!("{text}");
    // Where a line breaks depends on the numbers in it.
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let lock = list(&report.0["locks"]).iter().find(|lock| lock["kind"] == "mutex").unwrap();
    assert_eq!(
        (&lock["convoy"], &lock["name"]),
        (&true.into(), &"workload::locks::take_a_turn".into())
    );
    let queuers = number(&lock["waiters"]);
    assert!((8..=9).contains(&queuers), "{lock}");
    let holder = list(&lock["holders"])[0].clone();
    assert_eq!(holder["name"], "slow");
    at_least(&holder["total_ns"], &lock["total_ns"], HELD_PERCENT);
    assert!(text.contains("a convoy: two or more waited at once"), "{text}");
    let lock = lock.clone();
    (report, lock, holder, text)
}

fn at_least(part: &Value, whole: &Value, percent: f64) {
    let share = 100.0 * number(part) as f64 / number(whole) as f64;
    println!("{share:.1} %");
    assert!(share >= percent, "{part} of {whole}");
}

#[test]
fn a_convoy_is_the_fault_of_who_sleeps_with_the_lock() {
    let (report, _, holder, text) = convoy(&["convoy"], &[]);
    let held = &list(&holder["sites"])[0];
    at_least(&held["total_ns"], &holder["total_ns"], HELD_PERCENT);
    let site = &report.sites()[number(&held["site"]) as usize];
    let cause = report.sites_in("locks::hold_and_sleep").any(|named| named == site);
    assert!(cause && site["reason"] == "sleep", "{site}");
    assert!(text.contains("sleeping in `locks::hold_and_sleep`"), "{text}");
}

#[test]
fn a_convoy_is_the_fault_of_who_computes_with_the_lock() {
    let (_, _, holder, text) = convoy(&["convoy", "--computes"], &["--wakers", "stack"]);
    let mut functions =
        list(&holder["frames"]).iter().filter_map(|frame| frame["function"].as_str());
    assert!(functions.any(|function| function.contains("locks::hold_and_compute")), "{holder}");
    assert!(text.contains("given back in `locks::hold_and_compute`"), "{text}");
}

/// Every one of them has the addresses of both locks on its stack.
#[test]
fn contention_is_no_deadlock() {
    let mut workload = Workload::start(&["contend"]);
    workload.go();
    let dir = tempdir().unwrap();
    let json = dir.path().join("out.json");
    let pid = workload.pid().to_string();
    let none = |json: &Path| {
        let report = Report::read(json);
        let waited_for = list(&report.0["locks"]).iter().filter(|lock| lock["kind"] == "mutex");
        assert_ne!(waited_for.count(), 0, "{}", report.0["locks"]);
        assert_eq!(list(&report.0["deadlocks"]).len(), 0, "{}", report.0["deadlocks"]);
    };
    run(&["record", "-p", &pid, "-d", "3", "-o", json.to_str().unwrap()]).expect_success();
    none(&json);
    for number in 0..SNAPSHOTS {
        let json = dir.path().join(format!("{number}.json"));
        run(&["snapshot", "-p", &pid, "-o", json.to_str().unwrap()]).expect_success();
        none(&json);
    }
    workload.stop();
}
