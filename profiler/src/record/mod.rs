//! The pipeline from a target to a recording: the order of operations, shutdown, time limit.
//!
//! - [`command`]: `stallscope record`: the recording, and what is asked of it.
//! - [`launch`]: a command that is started to be recorded.
//! - [`code`]: which files' code a process has mapped.
//! - [`collect`]: ring buffer records to facts.
//! - [`stop`]: Ctrl-C.
//! - [`progress`]: the line on a terminal.
//! - [`clock`]: the present instant.

pub mod clock;
mod code;
mod collect;
mod command;
pub mod launch;
mod progress;
mod stop;

use std::{
    collections::HashMap,
    io::Write as _,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use nix::sys::resource::{Resource, UsageWho, getrlimit, getrusage, setrlimit};
use profiler_common::{config::HookPath, counter::Counter};
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::{sync::watch, time::MissedTickBehavior};

pub use command::run;

use self::{
    collect::{Collector, hook_name},
    launch::Launched,
    progress::Progress,
};
use crate::{
    failure::Failure,
    kernel::{self, Probe, Programs, Request},
    recording::{
        Counters, End, EndReason, Ending, Host, Observer, Options, Record, Recording, Session,
        Target,
        file::{WriteError, Writer},
    },
    symbols::{self, SymbolOptions},
    target::{self, Process},
    units::{Ktime, Nanos, Pid},
};

/// How long before it begins or ends a window is announced to the kernel side, so that every CPU
/// knows before the instant comes.
const NOTICE: Duration = Duration::from_millis(1);

/// How often what was collected goes to disk: what a killed recorder loses at most.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// Records taken from the ring buffer before timers and signals are looked at again.
const BATCH: usize = 4096;

/// Threads that can be measured at once, at least.
const THREADS_MIN: u32 = 16_384;

/// Stacks that can be kept, beyond one for each thread that exists at the start, where they are
/// taken at switch-out. Each takes 21 KiB of kernel memory.
const KEPT_STACKS_MIN: u32 = 1024;

/// Room for each thread that exists at the start, for those yet to come.
const THREADS_FACTOR: u32 = 4;

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How long; `None` until interrupted or until the target ends.
    pub duration: Option<Duration>,
    /// Where the recording goes.
    pub recording: PathBuf,
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
    /// Whether the run time of the kernel programs is measured.
    pub bpf_stats: bool,
    /// Whether the debug log of the kernel side is printed.
    pub bpf_log: bool,
    /// Where names are looked for.
    pub symbols: SymbolOptions,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Why.
    pub reason: EndReason,
    /// Whether there was a target: a launched command may never have become itself.
    pub target_ran: bool,
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
    let command = launched.map(|launched| open_pidfd(launched.pid())).transpose()?;
    let stopped = stop::listen(command)?;
    raise_file_limit();
    let probe = kernel::probe::probe()?;
    let hook = probe.hook(plan.hook)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(plan, &probe, hook, process, launched, stopped))
}

/// Attaches, records, and finishes the file.
async fn watch(
    plan: &Plan,
    probe: &Probe,
    hook: HookPath,
    process: &Process,
    launched: Option<&Launched>,
    mut stopped: watch::Receiver<bool>,
) -> Result<Outcome> {
    let pid = process.pid;
    // Opened before anything else: an id that is used again from here on is not the target.
    let alive = kernel::readiness::of_descriptor(open_pidfd(pid)?)
        .context("cannot watch for the target's end")?;
    let throttled_before = target::throttled(pid);
    let _stats = plan.bpf_stats.then(kernel::stats::enable).transpose()?;
    let mut programs = Programs::load(probe, &request(plan, hook, pid))?;
    let mut log = plan.bpf_log.then(|| programs.take_log(StderrLog)).transpose()?;
    let mut events = kernel::readiness::of_ring(programs.take_events()?)?;
    let mut collector = Collector::new(Writer::create(&plan.recording, plan.max_size)?);

    let start = open_window(&mut programs).await?;
    if let Some(launched) = launched {
        launched.release()?;
    }
    let mut session = session(plan, hook, process, start)?;
    if let Some(launched) = launched {
        session.target.exe = launched.command[0].clone().into();
        session.target.command =
            launched.command.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    }
    // A command is not itself yet: its session is written when it is.
    let mut begun = launched.is_none();
    if begun {
        collector.begin(&session)?;
    }
    say_ready(pid);

    let progress = Progress::start();
    let deadline = plan.duration.map(|duration| Instant::now() + duration);
    let mut flush = tokio::time::interval(FLUSH_INTERVAL);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut refused = None;
    let reason = loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|&stop| stop) => break EndReason::Interrupt,
            () = until(deadline) => break EndReason::Duration,
            _ = alive.readable() => break EndReason::TargetEnded,
            _ = flush.tick() => {
                if let Some(log) = &mut log { log.flush(); }
                let dropped = dropped(&mut programs);
                progress.show(collector.tally, dropped, collector.writer().bytes());
                if let Err(error) = collector.writer().flush() { refused = Some(error); }
            }
            ready = events.readable_mut() => {
                let mut ready = ready?;
                match drain(ready.get_inner_mut(), &mut collector, BATCH) {
                    Ok(taken) if taken < BATCH => ready.clear_ready(),
                    Ok(_) => {}
                    Err(error) => refused = Some(error),
                }
                if !begun && became(&mut collector, &mut session) {
                    collector.begin(&session)?;
                    begun = true;
                }
            }
        }
        if let Some(error) = refused.take() {
            eprintln!("warning: {error}; the recording ends here");
            break match error {
                WriteError::LimitReached { .. } => EndReason::MaxSize,
                WriteError::Full { .. } | WriteError::Io { .. } => EndReason::WriteFailed,
            };
        }
    };
    progress.finish();
    if !begun {
        // It was over, or interrupted, before it was seen to be itself.
        tolerate(drain(events.get_mut(), &mut collector, usize::MAX))?;
        begun = became(&mut collector, &mut session);
        tolerate(collector.begin(&session))?;
    }

    let end = close_window(&mut programs, start).await?;
    collector.expect_roll_call();
    programs.sweep()?;
    tolerate(drain(events.get_mut(), &mut collector, usize::MAX))?;
    programs.roll_call()?;
    tolerate(drain(events.get_mut(), &mut collector, usize::MAX))?;
    let states = programs.threads()?;
    let usage = kernel::usage::usage()?;
    for (counter, count) in programs.counters()? {
        collector.add(counter, count);
    }
    collector.add(Counter::ProgramMisses, usage.misses);
    drop(events);
    drop(programs);

    tolerate(collector.close(states, start, end, plan.min_block))?;
    tolerate(append_names(&mut collector, session, &plan.symbols))?;
    let counters = Counter::ALL
        .iter()
        .map(|&counter| (counter.name().to_owned(), collector.lost(counter)))
        .collect();
    tolerate(collector.append(&Record::Counters(Counters(counters))))?;
    let throttled = target::throttled(pid)
        .zip(throttled_before)
        .map(|(after, before)| Nanos(after.0.saturating_sub(before.0)));
    let observer = observer(plan, &usage)?;
    let (writer, _files) = collector.into_parts();
    writer.finish(End { end, reason, observer, throttled })?;
    Ok(Outcome { reason, target_ran: begun })
}

/// Whether a launched command was seen to become itself; then the session says what it is.
fn became(collector: &mut Collector, session: &mut Session) -> bool {
    let pid = session.target.pid;
    let became = collector.take_exec() == Some(pid);
    if became && let Ok(process) = target::by_pid(pid.0) {
        session.target = facts_of(&process);
    }
    became
}

/// Takes up to `most` records; returns how many there were.
fn drain(
    events: &mut RingBuf<MapData>,
    collector: &mut Collector,
    most: usize,
) -> Result<usize, WriteError> {
    let mut taken = 0;
    while taken < most {
        let Some(item) = events.next() else { break };
        taken += 1;
        collector.take(&item)?;
    }
    Ok(taken)
}

/// A full recording still takes what finishes it: refusals are not failures any more.
fn tolerate<T>(result: Result<T, WriteError>) -> Result<()> {
    match result {
        Ok(_) | Err(WriteError::LimitReached { .. } | WriteError::Full { .. }) => Ok(()),
        Err(error @ WriteError::Io { .. }) => Err(error.into()),
    }
}

fn request(plan: &Plan, hook: HookPath, pid: Pid) -> Request {
    let mut targets = vec![pid];
    if plan.children {
        targets.extend(target::children(pid));
    }
    let threads: usize =
        targets.iter().map(|&pid| target::threads(pid).map_or(0, |all| all.len())).sum();
    Request {
        targets,
        children: plan.children,
        min_block: plan.min_block,
        hook,
        ring_bytes: plan.ring_bytes,
        threads_max: THREADS_MIN.max(threads as u32 * THREADS_FACTOR),
        kept_stacks_max: KEPT_STACKS_MIN + threads as u32,
        log: plan.bpf_log,
    }
}

/// Opens the window a moment from now and waits for it to begin.
async fn open_window(programs: &mut Programs) -> Result<Ktime> {
    let start = Ktime(clock::now().0 + NOTICE.as_nanos() as u64);
    programs.set_window(start, Ktime(u64::MAX))?;
    reach(start).await;
    Ok(start)
}

/// Closes the window a moment from now, and waits until no program can still be at work on an
/// instant inside it.
async fn close_window(programs: &mut Programs, start: Ktime) -> Result<Ktime> {
    let end = Ktime(clock::now().0 + NOTICE.as_nanos() as u64);
    programs.set_window(start, end)?;
    reach(end).await;
    kernel::barrier::wait_for_running_programs().context("cannot wait for the kernel side")?;
    Ok(end)
}

async fn reach(instant: Ktime) {
    while clock::now() < instant {
        tokio::time::sleep(Duration::from_nanos(instant.since(clock::now()).0)).await;
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

fn say_ready(pid: Pid) {
    // A closed standard error is no reason not to record.
    let _ = writeln!(std::io::stderr(), "recording pid {pid} ...");
}

fn open_pidfd(pid: Pid) -> Result<OwnedFd> {
    let gone = || Failure::NoTarget(format!("process {pid} ended before it could be recorded"));
    let raw = rustix::process::Pid::from_raw(pid.0 as i32).ok_or_else(gone)?;
    Ok(pidfd_open(raw, PidfdFlags::empty()).map_err(|_| gone())?)
}

fn session(plan: &Plan, hook: HookPath, process: &Process, start: Ktime) -> Result<Session> {
    let host = target::host()?;
    let clocks = target::clocks()?;
    Ok(Session {
        recorder: env!("CARGO_PKG_VERSION").to_owned(),
        target: facts_of(process),
        host: Host { kernel: host.kernel, arch: host.arch, cpus: host.cpus, boot_id: host.boot_id },
        options: Options {
            min_block: plan.min_block,
            children: plan.children,
            hook: hook_name(hook).to_owned(),
        },
        start,
        start_unix_ns: clocks.unix_ns - clocks.monotonic.since(start).0 as i64,
        boot_minus_monotonic: clocks.boot_minus_monotonic,
    })
}

fn facts_of(process: &Process) -> Target {
    let exe = Path::new("/proc").join(process.pid.to_string()).join("exe");
    let build_id = std::fs::File::open(exe)
        .ok()
        .and_then(|file| crate::unwind::elf::build_id(&object::read::ReadCache::new(file)));
    Target {
        pid: process.pid,
        exe: process.exe.clone(),
        command: process.command.clone(),
        build_id: build_id.unwrap_or_default(),
        container: process.container.clone(),
    }
}

/// Looks up every name while the target may still live.
fn append_names(
    collector: &mut Collector,
    session: Session,
    symbols: &SymbolOptions,
) -> Result<(), WriteError> {
    let (user_stacks, kernel_stacks) = collector.interned();
    let stacks = Recording {
        session,
        threads: Vec::new(),
        modules: collector.code.modules().map(|module| (module.id, module.clone())).collect(),
        mappings: Vec::new(),
        user_stacks,
        kernel_stacks,
        intervals: Vec::new(),
        totals: Vec::new(),
        counters: Counters::default(),
        names: HashMap::new(),
        ending: Ending::Unfinished { offset: 0 },
    };
    let names = symbols::resolve(&stacks, &collector.code.live_files(), symbols);
    collector.append(&Record::Names(symbols::names(&names)))
}

fn dropped(programs: &mut Programs) -> u64 {
    let counters = programs.counters().unwrap_or_default();
    counters
        .into_iter()
        .filter(|(counter, _)| *counter == Counter::IntervalsDropped)
        .map(|(_, count)| count)
        .sum()
}

fn observer(plan: &Plan, usage: &kernel::usage::Usage) -> Result<Observer> {
    let own = getrusage(UsageWho::RUSAGE_SELF).context("cannot measure the recorder itself")?;
    let micros =
        |time: nix::sys::time::TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    Ok(Observer {
        cpu: Nanos((micros(own.user_time()) + micros(own.system_time())) * 1000),
        max_rss_bytes: own.max_rss() as u64 * 1024,
        kernel_map_bytes: usage.map_bytes,
        bpf: plan.bpf_stats.then_some(usage.run_time),
    })
}

/// Every module is held open; a process can map more files than the usual limit of descriptors.
fn raise_file_limit() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // What cannot be raised will do for most targets.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}

/// Prints the kernel side's debug log.
struct StderrLog;

impl log::Log for StderrLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        eprintln!("[kernel side] {}", record.args());
    }

    fn flush(&self) {}
}
