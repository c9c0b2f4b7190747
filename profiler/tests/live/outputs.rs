//! Files that cannot be written, are there already, or are no recordings.

use std::{fs, path::Path};

use tempfile::tempdir;

use crate::support::{
    attached,
    process::{Workload, run},
    refusal::{expect_empty, names_in},
};

#[test]
fn outputs_are_checked_before_recording_begins() {
    let workload = Workload::start(&["crowd", "1"]);
    let pid = workload.pid().to_string();
    let check = |output: &str, said: &[&str]| {
        let ended = run(&["record", "-p", &pid, "-d", "1", "-o", output]).expect(2, said);
        assert!(!ended.stderr.contains("recording pid"), "{}", ended.stderr);
    };
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    check(&path("out.pdf"), &["out.pdf: the extension", ".svg", ".stall"]);
    check(&path("out"), &["out: the extension"]);
    check(&path("no/out.svg"), &["there is no directory", "mkdir -p"]);
    // Not even root can make a file there.
    check("/proc/out.svg", &["/proc/out.svg: cannot write in /proc", "choose another path"]);
    check("/dev/null.svg/out.svg", &["there is no directory"]);
    expect_empty(dir.path());

    fs::create_dir(path("dir.svg")).unwrap();
    check(&path("dir.svg"), &["is a directory"]);
    fs::write(path("there.svg"), "old").unwrap();
    check(&path("there.svg"), &["there.svg: exists", "--force"]);
    // The recording beside it counts as well.
    fs::write(path("beside.stall"), "old").unwrap();
    check(&path("beside.svg"), &["beside.stall: exists", "--force"]);
    assert_eq!(names_in(dir.path()), ["beside.stall", "dir.svg", "there.svg"]);
    assert_eq!(fs::read_to_string(path("there.svg")).unwrap(), "old");

    let beside = path("beside.svg");
    run(&["record", "-p", &pid, "-d", "0.1", "-o", &beside, "--force"]).expect_success();
    assert!(fs::metadata(path("beside.stall")).unwrap().len() > 100);
    attached::expect_nothing_left();
}

#[test]
fn a_file_that_is_no_whole_recording_is_refused_at_an_offset() {
    let dir = tempdir().unwrap();
    let whole = recording(dir.path());
    let damaged = dir.path().join("damaged.stall");
    let report = |bytes: &[u8]| {
        fs::write(&damaged, bytes).unwrap();
        run(&["report", damaged.to_str().unwrap(), "--format", "json"])
    };
    report(&whole).expect(0, &[]);

    report(b"PK\x03\x04 something else").expect(1, &["is not a stallscope recording: byte 0"]);
    report(b"").expect(1, &["ends at byte 0", "record again"]);
    report(&whole[..40]).expect(1, &["ends at byte 12", "record again"]);
    let mut newer = whole.clone();
    newer[8] = 99;
    report(&newer).expect(1, &["format version 99 at byte 8"]);

    // Cut anywhere after its first block it is an unfinished recording.
    let first_block = 12 + 16 + u32::from_le_bytes(whole[12..16].try_into().unwrap()) as usize;
    for cut in (first_block..whole.len()).step_by(whole.len() / 7) {
        let ended = report(&whole[..cut]).expect(0, &[]);
        assert!(ended.stdout.contains(r#""unfinished":true"#), "cut at {cut}");
    }
    // A byte that is another: the offset is that of its block.
    for at in (12..whole.len()).step_by(whole.len() / 9) {
        let mut other = whole.clone();
        other[at] ^= 0x55;
        report(&other).expect(1, &["is corrupt at byte ", "truncate -s "]);
    }
    report(&[&whole[..], b"more"].concat()).expect(1, &["is corrupt at byte "]);

    let missing = dir.path().join("missing.stall");
    run(&["report", missing.to_str().unwrap()]).expect(1, &["missing.stall", "No such file"]);
    run(&["report", dir.path().to_str().unwrap()]).expect(1, &["directory"]);
}

/// The bytes of a short recording.
fn recording(dir: &Path) -> Vec<u8> {
    let mut workload = Workload::start(&["truth"]);
    workload.go();
    let path = dir.join("whole.stall");
    let pid = workload.pid().to_string();
    run(&["record", "-p", &pid, "-d", "0.6", "-o", path.to_str().unwrap()]).expect_success();
    fs::read(path).unwrap()
}
