//! Recording without root, without rights, and without the kernel's type information.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::{TempDir, tempdir};

use crate::support::{
    attached,
    process::{Ended, Workload, run_as, stallscope},
    refusal::expect_empty,
    report::{Report, list},
};

/// The user and group `nobody` of every distribution, and of none of our files.
const NOBODY: &str = "65534";

/// A copy of the program that everybody may run, and a directory that everybody may write.
struct Public {
    dir: TempDir,
    program: PathBuf,
}

#[test]
fn without_rights_the_missing_capabilities_are_named() {
    let mut workload = Workload::start(&["truth"]);
    workload.go();
    let public = public();
    let check = |capabilities: &[&str], missing: &str| {
        let ended = record_as_nobody(&public, capabilities, workload.pid());
        let said = format!("not permitted to record: {missing} missing");
        ended.expect(4, &[&said, "sudo", "setcap cap_bpf,cap_perfmon,cap_sys_ptrace"]);
        expect_empty(&public.out());
    };
    check(&[], "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE");
    check(&["bpf", "perfmon"], "CAP_SYS_PTRACE");
    check(&["bpf", "sys_ptrace"], "CAP_PERFMON");
    attached::expect_nothing_left();
}

#[test]
fn three_capabilities_are_enough_and_what_they_do_not_show_is_said() {
    let mut workload = Workload::start(&["truth"]);
    workload.go();
    let public = public();
    let three = ["bpf", "perfmon", "sys_ptrace"];
    let ended = record_as_nobody(&public, &three, workload.pid()).expect_success();
    let report = Report::read(&public.out().join("out.json"));
    for function in ["sleep_mix", "lock_contended", "read_pipe", "read_socket"] {
        assert!(report.time_in(function) > 200_000_000, "{function}");
    }
    for (counter, lost) in report.0["quality"]["counters"].as_object().unwrap() {
        // Programs do not run while certain threads of this machine are current.
        let unseen = ["switches_missed", "wakeups_missed"].contains(&counter.as_str());
        assert!(unseen || *counter == "stacks_broken" || lost == 0, "{counter}: {lost}");
    }
    // Kernel names are for CAP_SYSLOG.
    let hidden = |report: &Report| {
        let frames = report.sites().iter().flat_map(|site| list(&site["frames"]));
        let kernel: Vec<_> = frames.filter(|frame| frame["kind"] == "kernel").collect();
        assert!(!kernel.is_empty());
        kernel.iter().filter(|frame| frame["missing"] == "kernel-hidden").count()
    };
    assert!(hidden(&report) > 0);
    assert!(ended.stdout.contains("kernel's functions, hidden"), "{}", ended.stdout);
    assert!(ended.stdout.contains("CAP_SYSLOG"), "{}", ended.stdout);

    fs::remove_file(public.out().join("out.json")).unwrap();
    fs::remove_file(public.out().join("out.stall")).unwrap();
    let four = ["bpf", "perfmon", "sys_ptrace", "syslog"];
    let ended = record_as_nobody(&public, &four, workload.pid()).expect_success();
    assert_eq!(hidden(&Report::read(&public.out().join("out.json"))), 0);
    assert!(!ended.stdout.contains("hidden"), "{}", ended.stdout);
}

/// The recorder sees an empty directory where the kernel publishes its types.
#[test]
fn without_type_information_the_message_says_what_to_boot() {
    let workload = Workload::start(&["crowd", "1"]);
    let dir = tempdir().unwrap();
    let svg = dir.path().join("out.svg");
    let mut command = Command::new("unshare");
    let script = r#"mount -t tmpfs none /sys/kernel/btf && exec "$@""#;
    command.args(["--mount", "sh", "-c", script, "sh"]).arg(stallscope().get_program());
    command.args(["record", "-p", &workload.pid().to_string(), "-d", "1", "-o"]).arg(svg);
    run_as(command).expect(4, &["no BTF", "CONFIG_DEBUG_INFO_BTF", "stallscope doctor"]);
    expect_empty(dir.path());
}

fn record_as_nobody(public: &Public, capabilities: &[&str], pid: u32) -> Ended {
    let set = ["-all"].into_iter().chain(capabilities.iter().copied()).collect::<Vec<_>>();
    let set = set.join(",+");
    let mut command = Command::new("setpriv");
    command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
    command.args(["--inh-caps", &set, "--ambient-caps", &set, "--bounding-set", &set]);
    command.arg(&public.program).args(["record", "-p", &pid.to_string(), "-d", "0.7", "-o"]);
    command.arg(public.out().join("out.json"));
    run_as(command)
}

fn public() -> Public {
    let dir = tempdir().unwrap();
    let program = dir.path().join("stallscope");
    fs::copy(stallscope().get_program(), &program).unwrap();
    fs::create_dir(dir.path().join("out")).unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    open(dir.path());
    open(&dir.path().join("out"));
    Public { dir, program }
}

impl Public {
    fn out(&self) -> PathBuf {
        self.dir.path().join("out")
    }
}
