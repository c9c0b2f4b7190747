//! A disk that fills up, and `--max-size`.

use std::{fs, path::Path, process::Command};

use stallscope::recording;
use tempfile::tempdir;

use crate::support::{
    attached,
    proc::Untouched,
    process::{Workload, run, run_as, stallscope},
    refusal::expect_empty,
    report::Report,
};

/// Enough switches a second to fill a megabyte in seconds.
const BUSY: &[&str] = &["storm", "--same-cpu"];

#[test]
fn a_size_limit_ends_the_recording_in_good_order() {
    let (workload, untouched) = busy();
    let dir = tempdir().unwrap();
    let json = dir.path().join("out.json");
    let pid = workload.pid().to_string();
    let record = |limit: &str| {
        let json = json.to_str().unwrap();
        run(&[
            "record",
            "-p",
            &pid,
            "-d",
            "30",
            "--min-block",
            "0",
            "--max-size",
            limit,
            "-o",
            json,
        ])
    };
    record("20KB").expect(2, &["--max-size of 20000 bytes is too small", "at least 1048576"]);
    assert!(!json.exists());
    record("2MB").expect(0, &["limit of 2000000 bytes", "raise --max-size"]);
    untouched.check();
    let stall = json.with_extension("stall");
    let length = fs::metadata(&stall).unwrap().len();
    assert!((1_000_000..=2_000_000).contains(&length), "{length} bytes");
    expect_cut_short(&json, "max-size");
    let text = run(&["report", stall.to_str().unwrap()]).expect_success().stdout;
    assert!(text.contains("ended early: its file reached --max-size"), "{text}");
    attached::expect_nothing_left();
}

/// The disk is a small file system that only this recorder sees.
#[test]
fn a_full_disk_ends_the_recording_in_good_order() {
    let (workload, untouched) = busy();
    let dir = tempdir().unwrap();
    let (disk, kept) = (dir.path().join("disk"), dir.path().join("kept"));
    fs::create_dir(&disk).unwrap();
    fs::create_dir(&kept).unwrap();
    let record = |size: &str| {
        let mut command = Command::new("unshare");
        let script = r#"mount -t tmpfs -o "size=$3" none "$1" || exit 99
            "$4" record -p "$5" -d 30 --min-block 0 -o "$1/out.stall" -o "$1/out.json"
            code=$?; cp "$1"/* "$2"; ls -A "$1" >&2; exit $code"#;
        command.args(["--mount", "sh", "-c", script, "sh"]).args([&disk, &kept]).arg(size);
        command.arg(stallscope().get_program()).arg(workload.pid().to_string());
        run_as(command)
    };
    record("3m").expect(1, &["no space left for", "the recording ends here", "make room"]);
    untouched.check();
    let json = kept.join("out.json");
    expect_cut_short(&json, "write-failed");
    let stall = kept.join("out.stall");
    let text = run(&["report", stall.to_str().unwrap()]).expect_success().stdout;
    assert!(text.contains("ended early: its disk was full"), "{text}");

    // Not even room to begin.
    fs::remove_file(json).unwrap();
    fs::remove_file(stall).unwrap();
    let ended = record("300k").expect(1, &["no space left for", "write to another disk with -o"]);
    assert!(!ended.stderr.contains("recording pid"), "{}", ended.stderr);
    expect_empty(&kept);
    attached::expect_nothing_left();
}

/// A finished recording of a part of what was asked for, whose sums hold.
fn expect_cut_short(json: &Path, end: &str) {
    let report = Report::read(json);
    assert_eq!(report.0["quality"]["unfinished"], false);
    assert_eq!(report.0["quality"]["end"], end);
    let seconds = report.0["window"]["duration_ns"].as_u64().unwrap() / 1_000_000_000;
    assert!(seconds < 25, "{seconds} s of 30");
    assert!(report.time_in("echo") > 0, "the workload's stacks are named");
    let recording = recording::file::read(&json.with_extension("stall")).unwrap();
    let measured: u64 = recording.totals.iter().map(|totals| totals.intervals).sum();
    let lost = measured - recording.intervals.len() as u64;
    let (dropped, refused) = ("intervals_dropped", "intervals_refused");
    assert_eq!(lost, report.counter(dropped) + report.counter(refused), "of {measured}");
}

fn busy() -> (Workload, Untouched) {
    let mut workload = Workload::start(BUSY);
    let untouched = Untouched::before(workload.pid());
    workload.go();
    (workload, untouched)
}
