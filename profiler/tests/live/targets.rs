//! Targets that are not there, not processes, not one, or do not stay.

use std::{fs, path::Path, process::Command, time::Duration};

use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::tempdir;

use crate::support::{
    attached,
    proc::{Untouched, field, free_number, threads, until},
    process::{Recorder, Workload, run, workload},
    refusal::expect_empty,
    report::{Report, number},
};

/// Tries to have a process number given out again; another process can come between.
const REUSE_TRIES: usize = 50;

#[test]
fn a_target_that_cannot_be_recorded_is_named_with_what_to_do() {
    let mut workload = Workload::start(&["crowd", "1"]);
    let pid = workload.pid();
    let thread = threads(pid).into_iter().find(|&tid| tid != pid).unwrap();
    let check = |target: &str, code: i32, message: &[&str]| {
        let dir = tempdir().unwrap();
        let svg = dir.path().join("out.svg");
        let ended = run(&["record", "-p", target, "-d", "1", "-o", svg.to_str().unwrap()]);
        ended.expect(code, message);
        expect_empty(dir.path());
    };
    let free = free_number().to_string();
    check(&free, 3, &[&format!("no process {free}"), "pgrep"]);
    check("2", 3, &["kernel thread \"kthreadd\"", "pgrep"]);
    let process = format!("of process {pid}; try -p {pid}");
    check(&thread.to_string(), 3, &[&format!("{thread} is thread"), &process]);
    check("0", 2, &["0 is not in 1.."]);
    workload.kill();
    check(&pid.to_string(), 3, &["pgrep"]);
    attached::expect_nothing_left();
}

#[test]
fn a_name_means_one_process_or_the_message_lists_them() {
    let dir = tempdir().unwrap();
    let name = format!("wl-{}", std::process::id());
    let program = dir.path().join(&name);
    fs::copy(workload(), &program).unwrap();
    let json = dir.path().join("out.json");
    let record = |name: &str| {
        run(&["record", "-n", name, "-d", "0.2", "-o", json.to_str().unwrap(), "--force"])
    };

    let start = |kind| {
        let mut command = Command::new(&program);
        command.arg(kind);
        Workload::start_as(command)
    };
    let one = start("truth");
    let near = &name[..name.len() - 1];
    record(near).expect(3, &[&format!("no process is called {near:?}"), &name]);
    record(&name).expect_success();
    assert_eq!(Report::read(&json).0["target"]["pid"], one.pid());

    let two = start("storm");
    let (first, second) = (one.pid().to_string(), two.pid().to_string());
    let several = format!("2 processes are called {name:?}");
    record(&name).expect(2, &[&several, "-p", &first, &second, "truth", "storm"]);
}

#[test]
fn a_target_that_ends_is_reported_up_to_its_end() {
    // A target that exits by itself, and one with hundreds of threads a second that is killed.
    let check = |arguments: &[&str], function: &str, end: &dyn Fn(&mut Workload)| {
        let dir = tempdir().unwrap();
        let json = dir.path().join("out.json");
        let mut workload = Workload::start(arguments);
        let recorder = record(&workload.pid().to_string(), &json);
        workload.go();
        until("the workload waited often", || {
            // What it waits for is of no use before it did.
            threads(workload.pid()).len() > 2
        });
        std::thread::sleep(Duration::from_millis(700));
        end(&mut workload);
        let ended = recorder.wait().expect_success();
        assert!(ended.stderr.contains("wrote"), "{}", ended.stderr);
        let report = Report::read(&json);
        assert_eq!(report.0["quality"]["unfinished"], false);
        let seen = report.time_in(function);
        assert!(seen > 300_000_000, "{function}: {seen} ns");
        assert_eq!(report.0["quality"]["end"], "target-ended");
        report
    };
    check(&["truth"], "sleep_mix", &|workload| {
        workload.stop();
        workload.hang_up();
        workload.wait();
    });
    // Its parent, which is this process, does not notice its end before the recorder does.
    check(&["truth"], "sleep_mix", &|workload| {
        workload.stop();
        workload.hang_up();
    });
    let report = check(&["churn"], "sleep_once", &|workload| workload.kill());
    let threads = report.threads().count();
    assert!(threads > 100, "{threads} threads in 0.7 s");
    attached::expect_nothing_left();
}

/// The recorder is stopped meanwhile, so that it cannot notice the end before the number is used
/// again:
///
/// ```text
/// recorder    attach ----- stopped ------------------------ on: notices the end
/// number P    storm ------------| killed   truth -----------------------------
/// ```
#[test]
fn a_number_that_is_used_again_is_another_process() {
    for _ in 0..REUSE_TRIES {
        let dir = tempdir().unwrap();
        let json = dir.path().join("out.json");
        let mut old = Workload::start(&["storm", "--rate", "2000"]);
        let pid = old.pid();
        let recorder = record(&pid.to_string(), &json);
        old.go();
        std::thread::sleep(Duration::from_millis(200));
        recorder.signal(Signal::SIGSTOP);
        until("the recorder is stopped", || field(recorder.pid(), "State").contains('T'));
        let tids: Vec<u64> = threads(pid).into_iter().map(u64::from).collect();
        old.kill();
        let Some(mut new) = again(pid) else { continue };
        new.go();
        std::thread::sleep(Duration::from_millis(300));
        recorder.signal(Signal::SIGCONT);
        recorder.wait().expect_success();

        let report = Report::read(&json);
        assert!(report.time_in("echo") > 0, "the old process is there");
        assert_eq!(report.time_in("sleep_mix"), 0, "the new process is not");
        let mut reported: Vec<u64> =
            report.threads().map(|thread| number(&thread["tid"])).collect();
        reported.sort_unstable();
        assert_eq!(reported, tids);
        new.stop();
        return;
    }
    panic!("no process got the number of one that ended in {REUSE_TRIES} tries");
}

#[test]
fn a_target_that_becomes_another_program_is_followed() {
    let dir = tempdir().unwrap();
    let json = dir.path().join("out.json");
    let mut workload = Workload::start(&["exec"]);
    let pid = workload.pid();
    let recorder = record(&pid.to_string(), &json);
    workload.go();
    workload.wait_ready();
    assert_eq!(workload.pid(), pid);
    workload.go();
    std::thread::sleep(Duration::from_millis(800));
    let truth = workload.stop();
    recorder.interrupt().expect_success();
    let report = Report::read(&json);
    expect_measured(&report, &truth, 5.0);
}

#[test]
fn two_recorders_of_one_target_are_both_right() {
    let dir = tempdir().unwrap();
    let jsons = ["one.json", "two.json"].map(|name| dir.path().join(name));
    let mut workload = Workload::start(&["truth"]);
    let pid = workload.pid();
    let untouched = Untouched::before(pid);
    let recorders = jsons.each_ref().map(|json| record(&pid.to_string(), json));
    workload.go();
    std::thread::sleep(Duration::from_millis(1500));
    let truth = workload.stop();
    untouched.check();
    for recorder in recorders {
        recorder.interrupt().expect_success();
    }
    untouched.check();
    for json in &jsons {
        let report = Report::read(json);
        expect_measured(&report, &truth, 5.0);
    }
    attached::expect_nothing_left();
}

/// Starts to record a process.
fn record(pid: &str, json: &Path) -> Recorder {
    Recorder::start(&["-p", pid, "-o", json.to_str().unwrap()])
}

/// A workload that runs under the number of a process that has ended; `None` if another process
/// got it first.
fn again(pid: u32) -> Option<Workload> {
    until("the number is free", || !Path::new(&format!("/proc/{pid}")).exists());
    fs::write("/proc/sys/kernel/ns_last_pid", (pid - 1).to_string()).unwrap();
    let workload = Workload::start(&["truth"]);
    (workload.pid() == pid).then_some(workload)
}

/// Each site within so many percent of what the workload measured.
fn expect_measured(report: &Report, truth: &Value, within_percent: f64) {
    let mut off = false;
    for (function, sum) in truth.as_object().unwrap() {
        let measured = number(&sum["total_ns"]) as f64;
        let reported = report.time_in(function) as f64;
        let percent = (reported - measured) / measured * 100.0;
        println!("{function} {percent:.2} % of {measured}");
        off |= percent.abs() > within_percent;
    }
    assert!(!off, "more than {within_percent} %");
}
