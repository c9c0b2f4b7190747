//! The pipeline from a target to a recording.
//!
//! - `command` is `stallscope record`: the recording, and what is asked of it.
//! - [`launch`] is a command that is started to be recorded.
//! - `request` is what is asked of the kernel side.
//! - `watch` is a recording under way: the order of operations, shutdown, time limit.
//! - `session` is what a recording begins with.
//! - `window` opens and closes the measured window.
//! - `prepare` brings the target's tables and mappings into the kernel.
//! - `events` takes what the ring buffer holds.
//! - `collect` turns ring buffer records into facts.
//! - `check` compares the kernel side's stacks with the recorder's own.
//! - `ends` says how walks ended.
//! - `code` knows which files' code a process has mapped.
//! - `objects` looks up what is waited on.
//! - `locks` looks at the futexes that are still waited for at the end.
//! - `cost` is what the recorder itself cost.
//! - `stop` hears Ctrl-C.
//! - `progress` is the line on a terminal.
//! - [`clock`] tells the present instant.

mod check;
pub mod clock;
mod code;
mod collect;
mod command;
mod cost;
mod ends;
mod events;
pub mod launch;
mod locks;
mod objects;
mod prepare;
mod progress;
mod request;
mod session;
mod stop;
mod watch;
mod window;

use std::{ffi::OsString, path::PathBuf, time::Duration};

use anyhow::Result;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use profiler_common::config::HookPath;

pub(crate) use command::default_stem;
pub use command::run;
pub(crate) use session::hook_name;

use self::launch::Launched;
use crate::{
    failure::Failure,
    kernel::{self, StackCopies, Wakers},
    recording::{EndReason, redact::Redaction},
    symbols::SymbolOptions,
    target::{self, Process},
    units::Nanos,
};

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command that is launched, empty where a process is recorded that was there before.
    pub command: Vec<OsString>,
    /// How long; `None` until interrupted or until the target ends.
    pub duration: Option<Duration>,
    /// Where the recording goes.
    pub recording: PathBuf,
    /// What takes out of it what a stranger must not read, where that was asked for.
    pub redaction: Option<Redaction>,
    /// Its largest size in bytes.
    pub max_size: Option<u64>,
    /// Intervals shorter than this are counted and not recorded.
    pub min_block: Nanos,
    /// Whether child processes are watched too.
    pub children: bool,
    /// Where stacks are captured; `None` for the best that the kernel offers.
    pub hook: Option<HookPath>,
    /// Size of the ring buffer in bytes.
    pub ring_bytes: u32,
    /// What is told of who ends waits.
    pub wakers: Wakers,
    /// How many times a second it is looked what each CPU runs; `None` for not at all.
    pub on_cpu: Option<u32>,
    /// Whether the run time of the kernel programs is measured.
    pub bpf_stats: bool,
    /// Whether the debug log of the kernel side is printed.
    pub bpf_log: bool,
    /// When user stacks are copied; always means that every stack is walked by both sides and
    /// compared.
    pub stack_copies: StackCopies,
    /// Where names are looked for.
    pub symbols: SymbolOptions,
    /// Of which length of time something is wanted.
    pub extent: Extent,
}

/// What a recording is to tell of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// A length of time.
    Window,
    /// What every thread does at one moment. Nothing is said meanwhile, and the kernel side gets no
    /// tables: making them takes longer than walking every stack here once.
    Moment,
}

/// Threads that make tables at once.
const TABLE_THREADS: usize = 2;

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Why.
    pub reason: EndReason,
    /// Whether there was a target: a launched command may never have become itself.
    pub target_ran: bool,
    /// How long it took to visit every thread at the end, and to take the stacks of those off-CPU.
    pub swept_in: Duration,
}

/// Records a process, up to the finished file at [`Plan::recording`]. `launched` is the command
/// that the process is about to become.
///
/// # Errors
/// [`Failure`] where it cannot begin; other errors where the file cannot be written. A target
/// that ends, a full disk and a size limit end the recording in good order.
pub fn record(plan: &Plan, process: &Process, launched: Option<&Launched>) -> Result<Outcome> {
    if !target::is_initial_pid_namespace() {
        return Err(Failure::NotPermitted(
            "this is a PID namespace of its own, in which the kernel's process ids mean nothing; \
             run stallscope on the host, or in a container started with --pid=host"
                .to_owned(),
        )
        .into());
    }
    let command = launched.map(|_| session::open_pidfd(process)).transpose()?;
    let stopped = stop::listen(command)?;
    raise_file_limit();
    let probe = kernel::probe::probe()?;
    let hook = probe.hook(plan.hook)?;
    if plan.on_cpu.is_some() && !probe.bpf_loop {
        return Err(Failure::NotPermitted(format!(
            "--on-cpu needs the helper bpf_loop, which Linux {} lacks (it came with 5.17); record \
             without it",
            probe.release
        ))
        .into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(TABLE_THREADS)
        .build()?;
    let outcome = runtime.block_on(watch::watch(plan, &probe, hook, process, launched, stopped));
    // A table that is being made is of no use any more.
    runtime.shutdown_background();
    outcome
}

/// Every module is held open; a process can map more files than the usual limit of descriptors.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // What cannot be raised will do for most targets.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
