//! What the running kernel offers and the present rights allow. Looks; loads nothing.

use std::{fs, ops::Range};

use anyhow::Result;
use profiler_common::config::HookPath;

use super::btf::KernelBtf;
use crate::failure::Failure;

/// The layouts that the programs need: `(global, member of task_struct)`. A member with two names
/// was renamed; the first that exists is taken.
const TASK_MEMBERS: &[(&str, &[&str])] = &[
    ("TASK_PID", &["pid"]),
    ("TASK_TGID", &["tgid"]),
    ("TASK_STATE", &["__state", "state"]),
    ("TASK_ON_CPU", &["on_cpu"]),
    ("TASK_NVCSW", &["nvcsw"]),
    ("TASK_NIVCSW", &["nivcsw"]),
    ("TASK_START_TIME", &["start_time"]),
    ("TASK_GROUP_LEADER", &["group_leader"]),
    ("TASK_COMM", &["comm"]),
    ("TASK_STACK", &["stack"]),
];

/// The layouts that tell since when a thread is off-CPU: `(global, members that lead there)`. All of
/// them or none; not every kernel keeps the first.
const SINCE_MEMBERS: &[(&str, &[(&str, &str)])] = &[
    ("TASK_LAST_ARRIVAL", &[("task_struct", "sched_info"), ("sched_info", "last_arrival")]),
    ("TASK_RUN", &[("task_struct", "se"), ("sched_entity", "sum_exec_runtime")]),
    ("TASK_RUN_BEFORE", &[("task_struct", "se"), ("sched_entity", "prev_sum_exec_runtime")]),
    ("TASK_PRIO", &[("task_struct", "prio")]),
];

/// The layouts that lead from a thread to the run queue of its CPU, in the same way.
const RUN_QUEUE_MEMBERS: &[(&str, &[(&str, &str)])] = &[
    ("TASK_CFS_RQ", &[("task_struct", "se"), ("sched_entity", "cfs_rq")]),
    ("CFS_RQ_RQ", &[("cfs_rq", "rq")]),
];

/// Capabilities that recording needs, by number (`linux/capability.h`). `CAP_SYS_ADMIN` stands in
/// for the first two.
const NEEDED_CAPS: &[(u32, &str)] = &[(39, "CAP_BPF"), (38, "CAP_PERFMON"), (19, "CAP_SYS_PTRACE")];
const CAP_SYS_ADMIN: u32 = 21;
const CAP_SYS_PTRACE: u32 = 19;

/// What the running kernel offers and the present rights allow.
#[derive(Clone, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one thing that a kernel has or lacks")]
pub struct Probe {
    /// Kernel release.
    pub release: String,
    /// Whether the kernel publishes BTF.
    pub btf: bool,
    /// Whether it has the tracepoint `sched_exit_tp`.
    pub sched_exit: bool,
    /// Its `finish_task_switch*` functions.
    pub finish_task_switch: Vec<String>,
    /// Whether it has kprobes.
    pub kprobes: bool,
    /// Where stacks are captured unless the user asks for another place.
    pub chosen: HookPath,
    /// Whether it has BPF ring buffers (5.8).
    pub ring_buffer: bool,
    /// Whether it has the helper `bpf_task_pt_regs` (5.15).
    pub bpf_task_pt_regs: bool,
    /// Whether it has the helper `bpf_loop` (5.17).
    pub bpf_loop: bool,
    /// Whether a BPF program may read the memory of another process (5.18).
    pub sleepable_iter: bool,
    /// Whether `sched_switch` passes the state of the thread that leaves (5.18).
    pub prev_state: bool,
    /// Capabilities that recording needs and the process does not have.
    pub missing_caps: Vec<&'static str>,
    /// Offsets in `task_struct` by the name of the global that holds them; empty without BTF.
    pub offsets: Vec<(&'static str, u32)>,
    /// From the run queue of a CPU to its preemption counter, in bytes; `None` where the BTF does not
    /// tell.
    pub preempt_count_from_rq: Option<i64>,
    /// The kernel function by which timers wake threads; `None` where addresses are hidden.
    pub timer_wakes: Option<Range<u64>>,
    /// Length of `task_struct.on_cpu` in bytes; newer kernels have one, older ones four.
    pub on_cpu_bytes: u32,
    /// Members of `task_struct` that were not found.
    pub missing_members: Vec<&'static str>,
}

/// Looks at the kernel and at the process's own rights.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn probe() -> Result<Probe> {
    let btf = KernelBtf::of_running_kernel().ok();
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    let finish_task_switch = matching_functions(&symbols, "finish_task_switch");
    let kprobes = fs::exists("/sys/bus/event_source/devices/kprobe/type").unwrap_or(false);
    let has = |helper: &str| btf.as_ref().is_some_and(|btf| btf.has_helper(helper));
    let arguments =
        |name: &str| btf.as_ref().and_then(|btf| btf.tracepoint_arguments(name)).unwrap_or(0);
    let sched_exit = arguments("sched_exit_tp") > 0;
    let chosen = if sched_exit {
        HookPath::SchedExit
    } else if kprobes && !finish_task_switch.is_empty() {
        HookPath::FinishTaskSwitch
    } else {
        HookPath::SwitchOut
    };
    let mut offsets = Vec::new();
    let mut missing_members = Vec::new();
    for &(global, names) in TASK_MEMBERS {
        let found = btf.as_ref().and_then(|btf| {
            names.iter().find_map(|member| btf.member_offset("task_struct", member))
        });
        match found {
            Some(offset) => offsets.push((global, offset)),
            None => missing_members.push(names[0]),
        }
    }
    let all_of = |members: &[(&'static str, &[(&str, &str)])]| -> Option<Vec<_>> {
        let offset = |(of, member): &(&str, &str)| btf.as_ref()?.member_offset(of, member);
        let found = members
            .iter()
            .map(|&(global, path)| Some((global, path.iter().map(offset).sum::<Option<u32>>()?)));
        found.collect()
    };
    offsets.extend(all_of(SINCE_MEMBERS).unwrap_or_default());
    let run_queue = all_of(RUN_QUEUE_MEMBERS);
    let preempt_count_from_rq =
        run_queue.as_ref().and_then(|_| preempt_count_from_rq(btf.as_ref()?));
    offsets.extend(run_queue.unwrap_or_default());
    Ok(Probe {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        btf: btf.is_some(),
        sched_exit,
        finish_task_switch,
        kprobes,
        chosen,
        ring_buffer: has("ringbuf_output"),
        bpf_task_pt_regs: has("task_pt_regs"),
        bpf_loop: has("loop"),
        sleepable_iter: has("copy_from_user_task"),
        prev_state: arguments("sched_switch") >= 4,
        missing_caps: missing_caps(&fs::read_to_string("/proc/self/status")?),
        offsets,
        preempt_count_from_rq,
        timer_wakes: addresses(&symbols, "hrtimer_wakeup"),
        on_cpu_bytes: btf
            .as_ref()
            .and_then(|btf| btf.member_bytes("task_struct", "on_cpu"))
            .unwrap_or(4),
        missing_members,
    })
}

/// The counter is a variable of its own, or from 6.2 to 6.14 a member of one.
fn preempt_count_from_rq(btf: &KernelBtf) -> Option<i64> {
    let counter = btf.per_cpu_offset("__preempt_count").or_else(|| {
        Some(btf.per_cpu_offset("pcpu_hot")? + btf.member_offset("pcpu_hot", "preempt_count")?)
    })?;
    Some(i64::from(counter) - i64::from(btf.per_cpu_offset("runqueues")?))
}

impl Probe {
    /// The place to capture stacks at: the one asked for if the kernel has it, else the best.
    ///
    /// # Errors
    /// [`Failure::NotPermitted`] if the kernel cannot record at all, if rights are missing, or if
    /// it lacks the place that was asked for.
    pub fn hook(&self, asked: Option<HookPath>) -> Result<HookPath> {
        let refuse = |why: String| -> Result<HookPath> { Err(Failure::NotPermitted(why).into()) };
        refuse_missing(&self.missing_caps)?;
        if !self.btf {
            return refuse(format!(
                "kernel {} publishes no BTF ({} cannot be read), so its layouts are unknown; boot \
                 a kernel with CONFIG_DEBUG_INFO_BTF=y, then: stallscope doctor",
                self.release,
                super::btf::VMLINUX,
            ));
        }
        if !self.ring_buffer || !self.missing_members.is_empty() {
            return refuse(format!(
                "kernel {} is too old or built without what recording needs (BPF ring buffers: \
                 5.8); for details: stallscope doctor",
                self.release,
            ));
        }
        let Some(asked) = asked else { return Ok(self.chosen) };
        let offered = match asked {
            HookPath::SchedExit => self.sched_exit,
            HookPath::FinishTaskSwitch => self.kprobes && !self.finish_task_switch.is_empty(),
            HookPath::SwitchOut => true,
        };
        if offered {
            return Ok(asked);
        }
        refuse(format!(
            "kernel {} does not offer the hook that was asked for; for what it has: stallscope \
             doctor",
            self.release,
        ))
    }
}

/// Whether this process may record at all.
///
/// # Errors
/// [`Failure::NotPermitted`] with the capabilities that are missing.
pub fn check_rights() -> Result<()> {
    refuse_missing(&missing_caps(&fs::read_to_string("/proc/self/status")?))
}

fn refuse_missing(caps: &[&str]) -> Result<()> {
    if caps.is_empty() {
        return Ok(());
    }
    Err(Failure::NotPermitted(format!(
        "not permitted to record: {} missing; run with sudo, or give the program the \
         capabilities: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep stallscope",
        caps.join(", "),
    ))
    .into())
}

/// The addresses of a kernel function, up to the next symbol.
fn addresses(symbols: &str, name: &str) -> Option<Range<u64>> {
    let address = |line: &str| u64::from_str_radix(line.split_ascii_whitespace().next()?, 16).ok();
    let is_it = |line: &&str| line.split_ascii_whitespace().nth(2) == Some(name);
    let start = symbols.lines().find(is_it).and_then(address).filter(|start| *start != 0)?;
    let end = symbols.lines().filter_map(address).filter(|other| *other > start).min()?;
    Some(start..end)
}

/// Kernel functions whose name is `name`, or `name` and a suffix that the compiler gave it; never
/// the unlikely part split off as `.cold`.
fn matching_functions(symbols: &str, name: &str) -> Vec<String> {
    symbols
        .lines()
        .filter_map(|line| {
            let mut fields = line.split_ascii_whitespace().skip(1);
            let (kind, symbol) = (fields.next()?, fields.next()?);
            let suffix = symbol.strip_prefix(name)?;
            let is_text = kind.eq_ignore_ascii_case("t");
            let is_it = suffix.is_empty() || suffix.starts_with('.');
            (is_text && is_it && !suffix.contains(".cold")).then(|| symbol.to_owned())
        })
        .collect()
}

fn missing_caps(status: &str) -> Vec<&'static str> {
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    let has = |cap: u32| effective >> cap & 1 != 0;
    NEEDED_CAPS
        .iter()
        .filter(|&&(cap, _)| !has(cap) && (cap == CAP_SYS_PTRACE || !has(CAP_SYS_ADMIN)))
        .map(|&(_, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;

    #[test]
    fn split_and_suffixed_functions_are_told_apart() {
        let check = |symbols: &str, expected: &[&str]| {
            assert_eq!(matching_functions(symbols, "finish_task_switch"), expected);
        };
        check("ffffffff810d0 t finish_task_switch\n", &["finish_task_switch"]);
        check("0000000000000000 t finish_task_switch.isra.0\n", &["finish_task_switch.isra.0"]);
        check(
            "0 t finish_task_switch.isra.0.cold\n0 T finish_task_switches\n0 d finish_task_switch",
            &[],
        );
    }

    #[test]
    fn a_function_ends_where_the_next_begins() {
        let check = |symbols: &str, expected: Option<Range<u64>>| {
            assert_eq!(addresses(symbols, "hrtimer_wakeup"), expected);
        };
        let sorted = "f0 T before\n100 t hrtimer_wakeup\n130 T after\n200 T later\n";
        check(sorted, Some(0x100..0x130));
        check("130 T after\n100 t hrtimer_wakeup\n200 T later\t[module]\n", Some(0x100..0x130));
        check("0 T before\n0 t hrtimer_wakeup\n", None);
        check("100 t hrtimer_wakeup_other\n130 T after\n", None);
    }

    #[test]
    fn missing_capabilities_are_named() {
        let check = |effective: &str, expected: &[&str]| {
            assert_eq!(missing_caps(&format!("Name:\tx\nCapEff:\t{effective}\n")), expected);
        };
        check("000001ffffffffff", &[]);
        check("0000000000000000", &["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"]);
        check("000000c000080000", &[]);
        check("0000000000200000", &["CAP_SYS_PTRACE"]);
    }

    #[test]
    fn rights_and_hooks_that_are_missing_are_refused() {
        let mut probe = probe().unwrap();
        probe.missing_caps.clear();
        probe.sched_exit = false;
        assert!(probe.hook(Some(HookPath::SchedExit)).is_err());
        assert_eq!(probe.hook(Some(HookPath::SwitchOut)).unwrap(), HookPath::SwitchOut);
        probe.missing_caps.push("CAP_BPF");
        let error = probe.hook(None).unwrap_err();
        assert_eq!(Failure::exit_code(&error), 4);
        probe.missing_caps.clear();
        probe.btf = false;
        assert_eq!(Failure::exit_code(&probe.hook(None).unwrap_err()), 4);
    }
}
