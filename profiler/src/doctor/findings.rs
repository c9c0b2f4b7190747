//! What the facts mean for a recording. Reads nothing.

use profiler_common::config::HookPath;

use super::facts::{
    BPF, CHECKPOINT_RESTORE, Facts, PERFMON, SYS_ADMIN, SYS_PTRACE, SYS_RESOURCE, SYSLOG,
};
use crate::kernel::probe::Probe;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    pub topic: &'static str,
    pub found: String,
    pub verdict: Verdict,
}

/// What a finding means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing is lost by it.
    Good,
    /// Recording works and lacks something.
    Limit { loss: String, mend: String },
    /// Recording does not work.
    Fault { loss: String, mend: String },
}

fn limit(loss: &str, mend: impl Into<String>) -> Verdict {
    Verdict::Limit { loss: loss.to_owned(), mend: mend.into() }
}

fn fault(loss: &str, mend: impl Into<String>) -> Verdict {
    Verdict::Fault { loss: loss.to_owned(), mend: mend.into() }
}

/// Everything that was looked at, the kernel first, then the rights.
pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = match &facts.probe {
        Ok(probe) => kernel(probe, facts),
        Err(error) => vec![Finding {
            topic: "kernel",
            found: format!("cannot be asked: {error:#}"),
            verdict: fault("nothing can be recorded", "see whether /proc and /sys are mounted"),
        }],
    };
    all.extend([
        capabilities(facts),
        memlock(facts),
        lockdown(facts),
        perf_event_paranoid(facts),
        unprivileged_bpf(facts),
        kernel_names(facts),
        mapped_files(facts),
        pid_namespace(facts),
    ]);
    all
}

fn kernel(probe: &Probe, facts: &Facts) -> Vec<Finding> {
    let Probe {
        release,
        btf,
        sched_exit: _,
        finish_task_switch: _,
        chosen: _,
        ring_buffer,
        bpf_task_pt_regs,
        bpf_loop,
        sleepable_iter,
        missing_caps: _,
        kprobes: _,
        prev_state: _,
        offsets: _,
        preempt_count_from_rq,
        timer_wakes: _,
        on_cpu_bytes: _,
        missing_members: _,
    } = probe;
    let has = |topic, has: bool, without| Finding {
        topic,
        found: if has { "yes" } else { "no" }.to_owned(),
        verdict: if has { Verdict::Good } else { without },
    };
    vec![
        Finding { topic: "kernel", found: release.clone(), verdict: Verdict::Good },
        has(
            "type information",
            *btf,
            fault(
                "there is no /sys/kernel/btf/vmlinux, and no program can be fitted to this kernel",
                "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y; distributions' own are",
            ),
        ),
        has(
            "ring buffer",
            *ring_buffer,
            fault("intervals cannot reach the recorder", "boot Linux 5.8 or newer"),
        ),
        hook(probe, facts),
        has(
            "user registers",
            *bpf_task_pt_regs,
            limit("waits have no user stacks", "boot Linux 5.15 or newer"),
        ),
        has(
            "walk in the kernel",
            *bpf_loop,
            limit(
                "user stacks are copied, which costs more, and cut after 16 KiB",
                "boot Linux 5.17 or newer",
            ),
        ),
        has(
            "task iterator",
            *sleepable_iter,
            limit(
                "threads already blocked when the recording starts have no user stacks",
                "boot Linux 5.18 or newer",
            ),
        ),
        has(
            "wake-up context",
            preempt_count_from_rq.is_some(),
            limit(
                "a thread that wakes another cannot be told from one that an interrupt came upon",
                "boot a kernel whose type information has the variables of each CPU",
            ),
        ),
    ]
}

/// Where stacks are captured.
fn hook(probe: &Probe, facts: &Facts) -> Finding {
    let switch_out = || {
        let loss = "every wait's stack is taken before its length is known, which costs the target \
                    more";
        let mend = if !probe.kprobes {
            "boot a kernel built with CONFIG_KPROBES=y"
        } else if probe.finish_task_switch.is_empty() && !facts.kernel_names {
            "let kernel names be seen: finish_task_switch is looked for there"
        } else if !facts.tracefs {
            "sudo mount -t tracefs tracefs /sys/kernel/tracing"
        } else {
            "boot a kernel with sched_exit_tp or a finish_task_switch that can be probed"
        };
        limit(loss, mend)
    };
    let (found, verdict) = match probe.chosen {
        HookPath::SchedExit => ("sched_exit_tp".to_owned(), Verdict::Good),
        HookPath::FinishTaskSwitch => {
            (format!("kprobe on {}", probe.finish_task_switch.join(", ")), Verdict::Good)
        }
        HookPath::SwitchOut => ("switch-out".to_owned(), switch_out()),
    };
    Finding { topic: "hook for stacks", found, verdict }
}

fn capabilities(facts: &Facts) -> Finding {
    let own = facts.capabilities;
    let missing = facts.probe.as_ref().map(|probe| &probe.missing_caps[..]).unwrap_or_default();
    let list = [&SYS_ADMIN, &BPF, &PERFMON, &SYS_PTRACE].map(|c| own.have(c).then_some(c.name));
    let list: Vec<_> = list.into_iter().flatten().collect();
    let mut found = if list.is_empty() { "none".to_owned() } else { list.join(", ") };
    let verdict = if !missing.is_empty() {
        found = format!("{found}; missing {}", missing.join(", "));
        fault("no program can be loaded into the kernel", grant(facts))
    } else if own.have(&SYS_PTRACE) {
        Verdict::Good
    } else {
        limit("only your own processes can be recorded", grant(facts))
    };
    Finding { topic: "capabilities", found, verdict }
}

/// Kernels up to 5.10 count the memory of maps against the limit on locked memory.
fn memlock(facts: &Facts) -> Finding {
    let counts = facts
        .probe
        .as_ref()
        .ok()
        .and_then(|probe| version(&probe.release))
        .is_some_and(|version| version < (5, 11));
    let limit_bytes =
        facts.memlock.map_or("unlimited".to_owned(), |bytes| format!("{bytes} bytes"));
    let raised = facts.memlock.is_none() || facts.capabilities.have(&SYS_RESOURCE);
    let (found, verdict) = match (counts, raised) {
        (false, _) => (format!("{limit_bytes}; does not matter from Linux 5.11 on"), Verdict::Good),
        (true, true) => (limit_bytes, Verdict::Good),
        (true, false) => (
            limit_bytes,
            fault(
                "the kernel refuses maps larger than that",
                "sudo prlimit --memlock=unlimited --pid $$",
            ),
        ),
    };
    Finding { topic: "locked memory", found, verdict }
}

fn lockdown(facts: &Facts) -> Finding {
    let (found, verdict) = match facts.lockdown.as_deref() {
        None => ("not known (no /sys/kernel/security/lockdown)", Verdict::Good),
        Some("confidentiality") => (
            "confidentiality",
            fault(
                "programs may not read kernel memory",
                "boot without lockdown=confidentiality; it cannot be lowered while running",
            ),
        ),
        Some(mode) => (mode, Verdict::Good),
    };
    Finding { topic: "lockdown", found: found.to_owned(), verdict }
}

/// Above 2 is a distribution's own: some of these let nobody but `CAP_SYS_ADMIN` set a kprobe.
fn perf_event_paranoid(facts: &Facts) -> Finding {
    let by_kprobe =
        facts.probe.as_ref().is_ok_and(|probe| probe.chosen == HookPath::FinishTaskSwitch);
    let verdict = match facts.perf_event_paranoid {
        Some(level) if level > 2 && by_kprobe && !facts.capabilities.have(&SYS_ADMIN) => limit(
            "this kernel may refuse the kprobe to all but root",
            "sudo sysctl kernel.perf_event_paranoid=2",
        ),
        _ => Verdict::Good,
    };
    Finding { topic: "perf_event_paranoid", found: setting(facts.perf_event_paranoid), verdict }
}

fn unprivileged_bpf(facts: &Facts) -> Finding {
    let found =
        format!("{}; does not matter with CAP_BPF", setting(facts.unprivileged_bpf_disabled));
    Finding { topic: "unprivileged_bpf", found, verdict: Verdict::Good }
}

fn kernel_names(facts: &Facts) -> Finding {
    let restrict = setting(facts.kptr_restrict);
    let (found, verdict) = if facts.kernel_names {
        (format!("shown (kptr_restrict {restrict})"), Verdict::Good)
    } else {
        let mend = if facts.kptr_restrict.is_some_and(|level| level > 1) {
            "sudo sysctl kernel.kptr_restrict=1".to_owned()
        } else {
            grant(facts)
        };
        let verdict = limit("kernel functions have addresses instead of names", mend);
        (format!("hidden (kptr_restrict {restrict})"), verdict)
    };
    Finding { topic: "kernel names", found, verdict }
}

/// What `/proc/PID/map_files` asks for.
fn mapped_files(facts: &Facts) -> Finding {
    let own = facts.capabilities;
    let (found, verdict) = if own.have(&SYS_ADMIN) || own.have(&CHECKPOINT_RESTORE) {
        ("can be opened", Verdict::Good)
    } else {
        let loss = "code of libraries that were deleted or updated while in use has no names";
        ("cannot be opened", limit(loss, grant(facts)))
    };
    Finding { topic: "deleted files", found: found.to_owned(), verdict }
}

fn pid_namespace(facts: &Facts) -> Finding {
    let (found, verdict) = if facts.initial_pid_namespace {
        ("the machine's own", Verdict::Good)
    } else {
        let mend = "run it on the host (`docker run --pid=host ...`, `nsenter -t 1 -a stallscope`)";
        ("a container's", fault("the kernel numbers processes as the host does", mend))
    };
    Finding { topic: "pid namespace", found: found.to_owned(), verdict }
}

/// The command that gives the program all that it can use, and no more.
fn grant(facts: &Facts) -> String {
    let wanted = [&BPF, &PERFMON, &SYS_PTRACE, &SYSLOG, &CHECKPOINT_RESTORE];
    let names = wanted.map(|capability| capability.name.to_ascii_lowercase()).join(",");
    format!("run with sudo, or: sudo setcap {names}=ep {}", facts.program.display())
}

fn setting(value: Option<i32>) -> String {
    value.map_or("not known".to_owned(), |value| value.to_string())
}

/// The first two numbers of a kernel release.
pub(super) fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}
