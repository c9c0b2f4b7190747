//! Ctrl-C, once and twice, and SIGTERM.

use nix::sys::signal::Signal;
use tempfile::tempdir;

use crate::support::{
    attached,
    proc::{Untouched, until},
    process::{Ended, Recorder, Workload, run},
    refusal::names_in,
    report::Report,
};

#[test]
fn one_signal_finishes_the_recording_and_reports_it() {
    let (workload, untouched) = busy();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let dir = tempdir().unwrap();
        let json = dir.path().join("out.json");
        let recorder = record(&workload, &json);
        attached::expect_all_known(recorder.pid());
        untouched.check();
        std::thread::sleep(std::time::Duration::from_millis(300));
        recorder.signal(signal);
        let ended = recorder.wait().expect(0, &["wrote"]);
        assert!(ended.stdout.contains("Where the time went"), "{}", ended.stdout);
        let report = Report::read(&json);
        assert_eq!(report.0["quality"]["end"], "interrupt");
        assert!(report.time_in("sleep_mix") > 100_000_000, "{signal}");
        untouched.check();
        attached::expect_nothing_left();
    }
}

/// A signal that comes while the same one is still pending is not a second one, so it is sent
/// until the recorder has ended.
#[test]
fn a_second_signal_stops_at_once() {
    let (workload, untouched) = busy();
    let dir = tempdir().unwrap();
    let json = dir.path().join("out.json");
    let recorder = record(&workload, &json);
    std::thread::sleep(std::time::Duration::from_millis(600));
    let mut sent = 0;
    until("the recorder ended", || {
        recorder.signal(Signal::SIGINT);
        sent += 1;
        recorder.is_over()
    });
    assert!(sent >= 2);
    let Ended { stdout, .. } = recorder.wait().expect(130, &["error: stopped"]);
    assert_eq!(stdout, "");
    assert_eq!(names_in(dir.path()), ["out.stall"], "no half report");
    let stall = dir.path().join("out.stall");
    let ended = run(&["report", stall.to_str().unwrap(), "--format", "json"]).expect(0, &[]);
    assert!(ended.stdout.contains("sleep_mix"), "what was flushed is there");
    untouched.check();
    attached::expect_nothing_left();
}

fn record(workload: &Workload, json: &std::path::Path) -> Recorder {
    Recorder::start(&["-p", &workload.pid().to_string(), "-o", json.to_str().unwrap()])
}

fn busy() -> (Workload, Untouched) {
    let mut workload = Workload::start(&["truth"]);
    let untouched = Untouched::before(workload.pid());
    workload.go();
    (workload, untouched)
}
