//! The kernel side of stallscope: captures and accounts; names nothing; decides nothing that
//! [`config`] does not say.
//!
//! - [`config`]: the read-only globals.
//! - [`maps`]: every map.
//! - [`task`]: every read of a kernel structure.
//! - [`threads`]: where the accounting of a thread is.
//! - [`offcpu`]: the accounting at switch-out, wake-up and switch-in.
//! - [`waker`]: what ends a wait.
//! - [`capture`]: registers and stacks of a wait.
//! - [`walk`]: user stacks, by the tables of their files.
//! - [`chain`]: kernel stacks that were unwound before.
//! - [`sample`]: what runs, looked at from time to time.
//! - [`census`]: which threads exist, and what those that sleep are doing.
//! - [`emit`]: records into the ring buffer.
//! - [`bounds`]: what the verifier has to be shown.

#![no_std]
#![no_main]
#![feature(asm_experimental_arch)]

mod bounds;
mod capture;
mod census;
mod chain;
mod config;
mod emit;
mod maps;
mod offcpu;
mod sample;
mod task;
mod threads;
mod waker;
mod walk;

use aya_ebpf::{
    EbpfContext as _,
    macros::{btf_tracepoint, kprobe, perf_event},
    programs::{BtfTracePointContext, PerfEventContext, ProbeContext},
};
use walk::{AtSwitchOut, ByHelper, ForWaker, Never};

/// A thread leaves a CPU and another gets it. Stacks are taken elsewhere, or are copied here on
/// kernels without `bpf_loop`.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch(ctx: BtfTracePointContext) -> i32 {
    offcpu::switch::<Never>(&ctx);
    0
}

/// The same, where stacks are walked at switch-out.
#[btf_tracepoint(function = "sched_switch")]
pub fn sched_switch_walk(ctx: BtfTracePointContext) -> i32 {
    offcpu::switch::<AtSwitchOut>(&ctx);
    0
}

/// Somebody wakes a thread.
#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking(ctx: BtfTracePointContext) -> i32 {
    offcpu::waking::<Never>(&ctx);
    0
}

/// The same, where the stacks of who does so are walked.
#[btf_tracepoint(function = "sched_waking")]
pub fn sched_waking_walk(ctx: BtfTracePointContext) -> i32 {
    offcpu::waking::<ForWaker>(&ctx);
    0
}

/// A thread or process is created.
#[btf_tracepoint(function = "sched_process_fork")]
pub fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    offcpu::fork(&ctx);
    0
}

/// A process replaces its program.
#[btf_tracepoint(function = "sched_process_exec")]
pub fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    offcpu::exec(&ctx);
    0
}

/// A thread that was waited for is freed.
#[btf_tracepoint(function = "sched_process_free")]
pub fn sched_process_free(ctx: BtfTracePointContext) -> i32 {
    offcpu::free(&ctx);
    0
}

/// The resumed thread, right after the switch.
///
/// `sched_exit_tp(bool is_switch)`, before 6.17 with a second argument.
#[btf_tracepoint(function = "sched_exit_tp")]
pub fn sched_exit(ctx: BtfTracePointContext) -> i32 {
    let is_switch = ctx.arg::<u64>(0) as u8 != 0;
    if is_switch {
        capture::resumed::<ByHelper>(ctx.as_ptr(), true);
    }
    0
}

/// The resumed thread, right after the switch, on kernels without `sched_exit_tp`.
#[kprobe]
pub fn finish_task_switch(ctx: ProbeContext) -> u32 {
    capture::resumed::<ByHelper>(ctx.as_ptr(), false);
    0
}

/// The same on kernels without `bpf_loop`.
#[kprobe]
pub fn finish_task_switch_copy(ctx: ProbeContext) -> u32 {
    capture::resumed::<Never>(ctx.as_ptr(), false);
    0
}

/// The clock of a CPU, at the rate that was asked for.
#[perf_event]
pub fn on_cpu(ctx: PerfEventContext) -> u32 {
    sample::take(ctx.as_ptr());
    0
}

/// Every thread of the watched processes: that it exists.
///
/// aya-ebpf has no macro for iterators; the section name is what makes it one.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
pub extern "C" fn roll_call(ctx: *mut core::ffi::c_void) -> i32 {
    census::roll_call(ctx) as i32
}

/// Every thread of the watched processes that is off-CPU: its registers and stacks.
#[unsafe(no_mangle)]
#[unsafe(link_section = "iter.s/task")]
pub extern "C" fn sweep(ctx: *mut core::ffi::c_void) -> i32 {
    census::sweep(ctx) as i32
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // The verifier rejects a program that can get here.
    loop {}
}

/// Helpers such as `bpf_get_stack` are for GPL-compatible programs only.
#[unsafe(no_mangle)]
#[unsafe(link_section = "license")]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
