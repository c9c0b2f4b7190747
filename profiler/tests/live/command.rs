//! A command that the recorder starts itself.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Command,
};

use nix::sys::signal::Signal;
use tempfile::tempdir;

use crate::support::{
    attached,
    proc::until,
    process::{Recorder, run, run_as, stallscope, workload},
    refusal::{expect_empty, names_in},
    report::Report,
};

#[test]
fn a_command_that_cannot_be_run_is_named() {
    let dir = tempdir().unwrap();
    let json = dir.path().join("out.json");
    let check = |program: &str, said: &[&str]| {
        run(&["record", "-o", json.to_str().unwrap(), "--", program]).expect(3, said);
        expect_empty(dir.path());
    };
    check("no-such-program", &["cannot run no-such-program", "No such file", "did not start"]);
    check("/etc/passwd", &["cannot run /etc/passwd", "Permission denied", "did not start"]);
    attached::expect_nothing_left();
}

/// The recorder sees no type information of the kernel; the command must not have run by then.
#[test]
fn a_command_is_not_started_where_it_cannot_be_recorded() {
    let dir = tempdir().unwrap();
    let script = r#"mount -t tmpfs none /sys/kernel/btf && exec "$0" "$@""#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(stallscope().get_program());
    command.args(["record", "-o"]).arg(dir.path().join("out.svg"));
    command.args(["--", "touch"]).arg(dir.path().join("ran"));
    run_as(command).expect(4, &["no BTF"]);
    expect_empty(dir.path());
}

#[test]
fn the_exit_status_is_reported_and_not_returned() {
    let dir = tempdir().unwrap();
    let check = |script: &str, said: &str| {
        let json = dir.path().join("out.json");
        let json = json.to_str().unwrap();
        run(&["record", "-o", json, "--force", "--", "sh", "-c", script]).expect(0, &[said]);
    };
    check("exit 7", "the command ended: exit status: 7");
    check("exit 127", "the command ended: exit status: 127");
    check("kill -9 $$", "the command ended: signal: 9");
}

/// ```text
/// recorder   records | Ctrl-C: finishes the recording, then SIGTERM
/// command    runs ------------------------------------------| traps it, exits 3
/// ```
#[test]
fn ctrl_c_ends_the_recording_and_then_the_command() {
    let dir = tempdir().unwrap();
    let (recorder, heard) = record_listener(dir.path());
    recorder.interrupt().expect(0, &["the command ended: exit status: 3"]);
    assert_eq!(fs::read_to_string(heard).unwrap(), "TERM\n");
    let json = dir.path().join("out.json");
    let report = Report::read(&json);
    assert_eq!(report.0["quality"]["end"], "interrupt");
    assert_eq!(report.0["target"]["command"][0], "sh");
}

#[test]
fn a_second_ctrl_c_ends_the_command_too() {
    let dir = tempdir().unwrap();
    let (recorder, heard) = record_listener(dir.path());
    until("the recorder ended", || {
        recorder.signal(Signal::SIGINT);
        recorder.is_over()
    });
    recorder.wait().expect(130, &["error: stopped"]);
    until("the command heard of it", || heard.exists());
    attached::expect_nothing_left();
}

/// Records a command that writes down which signals it hears; returns where.
fn record_listener(dir: &Path) -> (Recorder, PathBuf) {
    let script = r#"trap "echo TERM >> $0.heard; exit 3" TERM
        trap "echo INT >> $0.heard" INT; echo > $0.ready; while :; do sleep 0.05; done"#;
    let base = dir.join("command");
    let mut command = stallscope();
    command.args(["record", "-o"]).arg(dir.join("out.json"));
    command.args(["--", "sh", "-c", script]).arg(&base);
    let recorder = Recorder::start_as(command);
    until("the command runs", || base.with_extension("ready").exists());
    (recorder, base.with_extension("heard"))
}

/// A workload that is recorded from its first instruction, as the user who called sudo.
#[test]
fn under_sudo_the_command_and_the_files_are_the_users() {
    const USER: u32 = 65534;
    let dir = tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let program = dir.path().join("workload");
    fs::copy(workload(), &program).unwrap();
    let json = dir.path().join("out.json");
    let mut command = stallscope();
    command.args(["record", "-o"]).arg(&json).arg("-o").arg(dir.path().join("out.svg"));
    command.args(["--", "sh", "-c", r#"id -u > "$0"; id -G >> "$0"; exec "$1" truth --for 1"#]);
    command.arg(dir.path().join("id")).arg(&program);
    command.env("SUDO_UID", USER.to_string()).env("SUDO_GID", USER.to_string());
    run_as(command).expect(0, &["the command ended: exit status: 0"]);

    let ids = fs::read_to_string(dir.path().join("id")).unwrap();
    assert_eq!(ids, format!("{USER}\n{USER}\n"));
    assert_eq!(names_in(dir.path()), ["id", "out.json", "out.stall", "out.svg", "workload"]);
    for name in ["out.json", "out.stall", "out.svg"] {
        let metadata = fs::metadata(dir.path().join(name)).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (USER, USER), "{name}");
    }
    let report = Report::read(&json);
    assert!(report.time_in("sleep_mix") > 500_000_000, "{}", report.time_in("sleep_mix"));
}
