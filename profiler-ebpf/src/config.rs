//! What the loader says before the programs are verified: one read-only global each.
//!
//! The verifier knows their values and removes branches that the running kernel cannot take.

use core::ptr::read_volatile;

use profiler_common::config::HookPath;

macro_rules! globals {
    ($($(#[$doc:meta])+ $static:ident: $type:ty, $get:ident;)+) => {
        $(
            $(#[$doc])+
            #[unsafe(no_mangle)]
            static $static: $type = 0;

            $(#[$doc])+
            #[inline(always)]
            pub fn $get() -> $type {
                // SAFETY: a static is always readable; volatile because the loader replaces its
                // value in the object, behind the compiler's back.
                unsafe { read_volatile(&raw const $static) }
            }
        )+
    };
}

globals! {
    /// A [`HookPath`].
    HOOK_PATH: u32, hook_path;
    /// Intervals shorter than this, in nanoseconds, are counted and not recorded.
    MIN_BLOCK_NS: u64, min_block_ns;
    /// What ended waits at least this long, in nanoseconds, is told; never 0.
    WAKER_MIN_NS: u64, waker_min_ns;
    /// Whether the stacks of threads that end waits are taken.
    WAKER_STACKS: u32, waker_stacks;
    /// From the run queue of a CPU to its preemption counter, in bytes, wrapping; 0 if that is not
    /// known.
    PREEMPT_COUNT_FROM_RQ: u64, preempt_count_from_rq;
    /// Address of the kernel function by which timers wake threads; 0 if it is not shown.
    TIMER_WAKES_AT: u64, timer_wakes_at;
    /// Its length in bytes.
    TIMER_WAKES_BYTES: u64, timer_wakes_bytes;
    /// Offset of `task_struct.se.cfs_rq`.
    TASK_CFS_RQ: u32, task_cfs_rq;
    /// Offset of `cfs_rq.rq`.
    CFS_RQ_RQ: u32, cfs_rq_rq;
    /// Whether a thread that replaces its program is accounted as another one from there on.
    SPLIT_AT_EXEC: u32, split_at_exec;
    /// The only watched process, or 0 if children are watched too.
    ONLY_TGID: u32, only_tgid;
    /// Whether `sched_switch` passes `prev_state` as its fourth argument.
    HAS_PREV_STATE: u32, has_prev_state;
    /// Whether `bpf_task_pt_regs` and `bpf_get_current_task_btf` exist.
    HAS_TASK_PT_REGS: u32, has_task_pt_regs;
    /// Bytes of a kernel stack below its `pt_regs`, where those must be found by hand.
    PT_REGS_OFFSET: u32, pt_regs_offset;
    /// Entries that `bpf_get_stack` puts before the frame that called the scheduler.
    KERNEL_STACK_SKIP: u32, kernel_stack_skip;
    /// The reader is woken each time that so much of the ring buffer fills up: two to this power.
    RING_MARK_BITS: u32, ring_mark_bits;
    /// Whether user stacks are copied even where the walk went to the end.
    COPY_ALWAYS: u32, copy_always;
    /// Offset of `task_struct.pid`.
    TASK_PID: u32, task_pid;
    /// Offset of `task_struct.tgid`.
    TASK_TGID: u32, task_tgid;
    /// Offset of `task_struct.__state` (`state` before 5.14).
    TASK_STATE: u32, task_state;
    /// Offset of `task_struct.on_cpu`.
    TASK_ON_CPU: u32, task_on_cpu;
    /// Length of `task_struct.on_cpu` in bytes: 1 or 4.
    TASK_ON_CPU_BYTES: u32, task_on_cpu_bytes;
    /// Offset of `task_struct.nvcsw`.
    TASK_NVCSW: u32, task_nvcsw;
    /// Offset of `task_struct.nivcsw`.
    TASK_NIVCSW: u32, task_nivcsw;
    /// Offset of `task_struct.start_time`.
    TASK_START_TIME: u32, task_start_time;
    /// Offset of `task_struct.group_leader`.
    TASK_GROUP_LEADER: u32, task_group_leader;
    /// Offset of `task_struct.comm`.
    TASK_COMM: u32, task_comm;
    /// Offset of `task_struct.stack`.
    TASK_STACK: u32, task_stack;
    /// Offset of `task_struct.prio`.
    TASK_PRIO: u32, task_prio;
    /// Offset of `task_struct.sched_info.last_arrival`; 0 if the kernel does not keep it.
    TASK_LAST_ARRIVAL: u32, task_last_arrival;
    /// Offset of `task_struct.se.sum_exec_runtime`.
    TASK_RUN: u32, task_run;
    /// Offset of `task_struct.se.prev_sum_exec_runtime`.
    TASK_RUN_BEFORE: u32, task_run_before;
}

/// Whether stacks are taken at switch-out, before the length of the wait is known.
#[inline(always)]
pub fn captures_at_switch_out() -> bool {
    hook_path() == HookPath::SwitchOut as u32
}
