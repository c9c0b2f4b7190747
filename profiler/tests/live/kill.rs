//! Recorders that die.

use std::{path::Path, time::Duration};

use nix::sys::signal::Signal;
use tempfile::tempdir;

use crate::support::{
    attached,
    proc::Untouched,
    process::{Ended, Recorder, Workload, run},
    report::Report,
};

const SEED: u64 = 0x5747_4c4c;

/// Moments of a recording at which it is killed, and the span they are in.
const MOMENTS: usize = 20;
const WITHIN_MS: u64 = 700;

/// Moments before and after it: while programs are loaded, and while results are written.
const AT_THE_EDGES: usize = 8;
const EDGE_MS: u64 = 300;

#[test]
fn a_killed_recorder_leaves_a_readable_file_and_nothing_attached() {
    let (mut workload, untouched) = busy();
    let mut random = Random(SEED);
    for round in 0..MOMENTS {
        let dir = tempdir().unwrap();
        let stall = dir.path().join("out.stall");
        let recorder = record(&workload, &stall);
        let after = random.below(WITHIN_MS);
        std::thread::sleep(Duration::from_millis(after));
        attached::expect_all_known(recorder.pid());
        // A panic that nobody catches ends the same way as an abort.
        let signal = if round % 5 == 4 { Signal::SIGABRT } else { Signal::SIGKILL };
        recorder.signal(signal);
        let Ended { status, .. } = recorder.wait();
        assert_eq!(status.code(), None, "{signal} after {after} ms: {status}");

        let json = dir.path().join("out.json");
        run(&["report", stall.to_str().unwrap(), "-o", json.to_str().unwrap()])
            .expect(0, &["wrote"]);
        let report = Report::read(&json);
        assert_eq!(report.0["quality"]["unfinished"], true, "{signal} after {after} ms");
        // What is lost at most is the time since the last flush.
        if after > 400 {
            assert!(report.0["quality"]["intervals"].as_u64() > Some(0), "after {after} ms");
        }
        untouched.check();
    }
    attached::expect_nothing_left();
    workload.stop();
}

/// A file that holds nothing yet says so; one that does can be read; reports are whole or absent.
#[test]
fn a_recorder_killed_while_it_begins_or_ends_leaves_no_half_report() {
    let (mut workload, untouched) = busy();
    let mut random = Random(SEED + 1);
    for round in 0..AT_THE_EDGES {
        let dir = tempdir().unwrap();
        let (stall, json) = (dir.path().join("out.stall"), dir.path().join("out.json"));
        let (stall, pid) = (stall.to_str().unwrap(), workload.pid().to_string());
        let arguments = ["-p", &pid, "-o", stall, "-o", json.to_str().unwrap()];
        let begins = round % 2 == 0;
        let recorder = if begins {
            Recorder::start_unready(&arguments)
        } else {
            let recorder = Recorder::start(&arguments);
            recorder.signal(Signal::SIGINT);
            recorder
        };
        std::thread::sleep(Duration::from_millis(random.below(EDGE_MS)));
        recorder.signal(Signal::SIGKILL);
        recorder.wait();
        if json.exists() {
            Report::read(&json);
        }
        if Path::new(stall).exists() {
            let Ended { status, stderr, .. } = run(&["report", stall, "--format", "json"]);
            let empty = begins && stderr.contains("before its first record");
            assert!(status.success() || empty, "{stderr}");
        }
        untouched.check();
    }
    attached::expect_nothing_left();
    workload.stop();
}

fn record(workload: &Workload, stall: &Path) -> Recorder {
    Recorder::start(&["-p", &workload.pid().to_string(), "-o", stall.to_str().unwrap()])
}

fn busy() -> (Workload, Untouched) {
    let mut workload = Workload::start(&["churn"]);
    let untouched = Untouched::before(workload.pid());
    workload.go();
    (workload, untouched)
}

/// Marsaglia's xorshift64: the same moments in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}
