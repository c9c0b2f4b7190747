//! What is asked of the kernel side, by the plan and by the size of the target.

use profiler_common::config::HookPath;

use super::Plan;
use crate::{
    kernel::{Request, StackCopies},
    target,
    units::Pid,
};

/// Size of the ring buffer, at least, where it carries whole stacks.
const CHECK_RING_BYTES: u32 = 64 << 20;

/// Threads that can be measured at once, at least.
const THREADS_MIN: u32 = 16_384;

/// Room for each thread that exists at the start, for those yet to come.
const THREADS_FACTOR: u32 = 4;

/// Stacks that can be kept, beyond one for each thread that exists at the start, where they are
/// taken at switch-out. Each takes 25 KiB of kernel memory.
const KEPT_STACKS_MIN: u32 = 1024;

/// What a recording of a process by `plan` needs.
pub fn request(plan: &Plan, hook: HookPath, pid: Pid) -> Request {
    let threads: u32 = std::iter::once(pid)
        .chain(plan.children.then(|| target::children(pid)).into_iter().flatten())
        .map(|pid| target::threads(pid).map_or(0, |all| all.len() as u32))
        .sum();
    Request {
        target: pid,
        children: plan.children,
        // What a command did before it was itself is told apart, and left out.
        split_at_exec: !plan.command.is_empty(),
        min_block: plan.min_block,
        hook,
        ring_bytes: ring_bytes(plan),
        threads_max: THREADS_MIN.max(threads * THREADS_FACTOR),
        kept_stacks_max: KEPT_STACKS_MIN + threads,
        stack_copies: plan.stack_copies,
        wakers: plan.wakers,
        on_cpu: plan.on_cpu,
        log: plan.bpf_log,
    }
}

/// Size of the ring buffer.
pub fn ring_bytes(plan: &Plan) -> u32 {
    match plan.stack_copies {
        StackCopies::WhereNeeded => plan.ring_bytes,
        StackCopies::Always => plan.ring_bytes.max(CHECK_RING_BYTES),
    }
}
