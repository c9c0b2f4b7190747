//! The doctor's judgement and words, from facts of machines that are not this one.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::PathBuf;

use profiler_common::config::HookPath;

use super::{
    facts::{BPF, Capabilities, Facts, PERFMON, SYS_PTRACE, in_brackets},
    findings::{Verdict, findings, version},
    print,
};
use crate::kernel::probe::Probe;

/// A Debian 12 on which everything works as root.
fn debian_12() -> Facts {
    Facts {
        probe: Ok(Probe {
            release: "6.1.0-18-amd64".to_owned(),
            btf: true,
            sched_exit: false,
            finish_task_switch: vec!["finish_task_switch.isra.0".to_owned()],
            chosen: HookPath::FinishTaskSwitch,
            ring_buffer: true,
            bpf_task_pt_regs: true,
            bpf_loop: true,
            sleepable_iter: true,
            missing_caps: vec![],
            kprobes: true,
            preempt_count_from_rq: Some(-8),
            ..Probe::default()
        }),
        capabilities: Capabilities(0x1ff_ffff_ffff),
        program: PathBuf::from("/usr/bin/stallscope"),
        lockdown: Some("none".to_owned()),
        memlock: Some(8 << 20),
        perf_event_paranoid: Some(3),
        kptr_restrict: Some(1),
        unprivileged_bpf_disabled: Some(2),
        kernel_names: true,
        tracefs: true,
        initial_pid_namespace: true,
    }
}

/// The same without root.
fn user() -> Facts {
    let mut facts = debian_12();
    facts.capabilities = Capabilities(0);
    facts.kernel_names = false;
    facts.probe.as_mut().unwrap().missing_caps = vec!["CAP_BPF", "CAP_PERFMON"];
    facts
}

fn probe(facts: &mut Facts) -> &mut Probe {
    facts.probe.as_mut().unwrap()
}

#[test]
fn a_machine_without_faults_is_told_so() {
    assert_eq!(
        print(&findings(&debian_12())),
        "\
ok     kernel                6.1.0-18-amd64
ok     type information      yes
ok     ring buffer           yes
ok     hook for stacks       kprobe on finish_task_switch.isra.0
ok     user registers        yes
ok     walk in the kernel    yes
ok     task iterator         yes
ok     wake-up context       yes
ok     capabilities          CAP_SYS_ADMIN, CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE
ok     locked memory         8388608 bytes; does not matter from Linux 5.11 on
ok     lockdown              none
ok     perf_event_paranoid   3
ok     unprivileged_bpf      2; does not matter with CAP_BPF
ok     kernel names          shown (kptr_restrict 1)
ok     deleted files         can be opened
ok     pid namespace         the machine's own

recording works
"
    );
}

#[test]
fn a_user_without_rights_is_told_the_command() {
    let text = print(&findings(&user()));
    let grant = "run with sudo, or: sudo setcap \
                 cap_bpf,cap_perfmon,cap_sys_ptrace,cap_syslog,cap_checkpoint_restore=ep \
                 /usr/bin/stallscope";
    let expected = format!(
        "\
fault  capabilities          none; missing CAP_BPF, CAP_PERFMON
         lost: no program can be loaded into the kernel
         mend: {grant}
"
    );
    assert!(text.contains(&expected), "{text}");
    assert!(
        text.ends_with("\nrecording will not work until the fault above is mended\n"),
        "{text}"
    );
}

#[test]
fn each_fault_and_limit_is_found_with_its_mending() {
    let check = |change: &dyn Fn(&mut Facts), topic: &str, fatal: bool, mend: &str| {
        let mut facts = debian_12();
        let sound = findings(&facts);
        change(&mut facts);
        let all = findings(&facts);
        let finding = all.iter().find(|finding| finding.topic == topic).unwrap();
        let (found, command) = match &finding.verdict {
            Verdict::Good => panic!("{topic}: {finding:?}"),
            Verdict::Limit { mend, .. } => (false, mend),
            Verdict::Fault { mend, .. } => (true, mend),
        };
        assert!(found == fatal && command.contains(mend), "{topic}: {finding:?}");
        // And no other finding is worse than it was.
        for (was, is) in sound.iter().zip(&all).filter(|(_, is)| is.topic != topic) {
            assert_eq!(was.verdict, is.verdict, "{topic}");
        }
    };
    let least = [&BPF, &PERFMON, &SYS_PTRACE].map(|capability| capability.bit);
    let least = Capabilities(least.iter().map(|bit| 1 << bit).sum());

    check(&|f| probe(f).btf = false, "type information", true, "CONFIG_DEBUG_INFO_BTF");
    check(&|f| probe(f).ring_buffer = false, "ring buffer", true, "5.8");
    check(&|f| probe(f).bpf_task_pt_regs = false, "user registers", false, "5.15");
    check(&|f| probe(f).bpf_loop = false, "walk in the kernel", false, "5.17");
    check(&|f| probe(f).sleepable_iter = false, "task iterator", false, "5.18");
    check(&|f| probe(f).missing_caps = vec!["CAP_BPF"], "capabilities", true, "setcap");
    let switch_out = |facts: &mut Facts| probe(facts).chosen = HookPath::SwitchOut;
    check(&switch_out, "hook for stacks", false, "boot a kernel with");
    let no_tracefs = |facts: &mut Facts| {
        switch_out(facts);
        facts.tracefs = false;
    };
    check(&no_tracefs, "hook for stacks", false, "mount -t tracefs");
    let no_kprobes = |facts: &mut Facts| {
        switch_out(facts);
        probe(facts).kprobes = false;
    };
    check(&no_kprobes, "hook for stacks", false, "CONFIG_KPROBES");
    let lockdown = |facts: &mut Facts| facts.lockdown = Some("confidentiality".to_owned());
    check(&lockdown, "lockdown", true, "lockdown=confidentiality");
    check(&|f| f.initial_pid_namespace = false, "pid namespace", true, "--pid=host");
    check(&|f| f.kernel_names = false, "kernel names", false, "setcap");
    let restricted = |facts: &mut Facts| {
        facts.kernel_names = false;
        facts.kptr_restrict = Some(2);
    };
    check(&restricted, "kernel names", false, "kptr_restrict=1");
    let old = |facts: &mut Facts| {
        probe(facts).release = "5.10.0-28-amd64".to_owned();
        facts.capabilities = Capabilities(facts.capabilities.0 & !(1 << 24));
    };
    check(&old, "locked memory", true, "prlimit --memlock");
    let paranoid = |facts: &mut Facts| facts.capabilities = Capabilities(least.0 | 1 << 40);
    check(&paranoid, "perf_event_paranoid", false, "perf_event_paranoid=2");
    let bare = |facts: &mut Facts| {
        facts.capabilities = least;
        facts.perf_event_paranoid = Some(2);
    };
    check(&bare, "deleted files", false, "cap_checkpoint_restore");
    let own_only = |facts: &mut Facts| {
        facts.capabilities = Capabilities(facts.capabilities.0 & !(1 << SYS_PTRACE.bit));
    };
    check(&own_only, "capabilities", false, "cap_sys_ptrace");
}

#[test]
fn limits_are_summed_up() {
    let mut facts = debian_12();
    let probe = facts.probe.as_mut().unwrap();
    (probe.bpf_task_pt_regs, probe.sleepable_iter) = (false, false);
    let text = print(&findings(&facts));
    assert!(
        text.ends_with(
            "\nrecording works, but waits have no user stacks; threads already blocked when the \
             recording starts have no user stacks\n"
        ),
        "{text}"
    );
}

#[test]
fn a_kernel_that_cannot_be_asked_is_a_fault_and_the_rest_is_still_told() {
    let facts = Facts { probe: Err(anyhow::anyhow!("no /proc/kallsyms")), ..debian_12() };
    let text = print(&findings(&facts));
    assert!(text.starts_with("fault  kernel                cannot be asked: no /proc/kallsyms\n"));
    assert!(text.contains("ok     pid namespace"), "{text}");
}

#[test]
fn what_the_system_states_is_understood() {
    let check = |release, expected| assert_eq!(version(release), expected, "{release}");
    check("6.1.0-18-amd64", Some((6, 1)));
    check("5.10.0", Some((5, 10)));
    check("7.2-rc1", Some((7, 2)));
    check("unknown", None);
    assert_eq!(in_brackets("none [integrity] confidentiality\n"), Some("integrity"));
    assert_eq!(in_brackets("none"), None);
    let status = "Name:\tx\nCapPrm:\t0\nCapEff:\t000000c000080000\nCapBnd:\t0\n";
    let own = Capabilities::parse(status).unwrap();
    assert!([&BPF, &PERFMON, &SYS_PTRACE].iter().all(|capability| own.have(capability)));
    assert_eq!(own.0.count_ones(), 3);
    assert_eq!(Capabilities::parse("Name:\tx\n"), None);
}

/// Of this machine only that it can be asked is certain.
#[test]
fn the_facts_of_this_machine_are_gathered() {
    let facts = Facts::gather().unwrap();
    let topics = |facts: &Facts| findings(facts).iter().map(|f| f.topic).collect::<Vec<_>>();
    assert_eq!(topics(&facts), topics(&debian_12()));
}
