//! The pipeline from a target to a recording: the order of operations, shutdown, time limit.
//!
//! - `command` is `stallscope record`: the recording, and what is asked of it.
//! - [`launch`] is a command that is started to be recorded.
//! - `session` is what a recording begins with.
//! - `window` opens and closes the measured window.
//! - `prepare` brings the target's tables and mappings into the kernel.
//! - `events` takes what the ring buffer holds.
//! - `collect` turns ring buffer records into facts.
//! - `check` compares the kernel side's stacks with the recorder's own.
//! - `ends` says how walks ended.
//! - `code` knows which files' code a process has mapped.
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
mod prepare;
mod progress;
mod session;
mod stop;
mod window;

use std::{
    collections::HashMap,
    ffi::OsString,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use profiler_common::{config::HookPath, counter::Counter};
use tokio::{
    io::unix::{AsyncFd, AsyncFdReadyMutGuard},
    sync::watch,
    time::MissedTickBehavior,
};

pub use command::run;
pub(crate) use session::hook_name;

use self::{
    check::Checker,
    collect::Collector,
    events::{Taken, tolerate},
    launch::Launched,
    progress::Progress,
};
use crate::{
    failure::Failure,
    kernel::{self, Probe, Programs, Request, StackCopies},
    recording::{
        Counters, End, EndReason, Ending, Record, Recording, Session,
        file::{WriteError, Writer},
    },
    symbols::{self, SymbolOptions},
    target::{self, Process},
    terminal::say,
    units::{Nanos, Pid},
};

/// How often what was collected goes to disk: what a killed recorder loses at most.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// How often mappings are read again without a reason: what shows a library that took the place of
/// another one.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// How long the ring buffer is left alone after it was emptied: waking up for every record is what
/// taking it costs most.
const PAUSE: Duration = Duration::from_millis(5);

/// The part of the ring buffer that may fill up during such a pause.
const PAUSE_FILLS: u32 = 16;

/// How long mappings that are made are left to add up.
const TOLD_PAUSE: Duration = Duration::from_millis(1);

/// Size of the ring buffer, at least, where it carries whole stacks.
const CHECK_RING_BYTES: u32 = 64 << 20;

/// Threads that can be measured at once, at least.
const THREADS_MIN: u32 = 16_384;

/// Room for each thread that exists at the start, for those yet to come.
const THREADS_FACTOR: u32 = 4;

/// Stacks that can be kept, beyond one for each thread that exists at the start, where they are
/// taken at switch-out. Each takes 21 KiB of kernel memory.
const KEPT_STACKS_MIN: u32 = 1024;

/// What to record, and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The command that is launched, empty where a process is recorded that was there before.
    pub command: Vec<OsString>,
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
    /// When user stacks are copied; always means that every stack is walked by both sides and
    /// compared.
    pub stack_copies: StackCopies,
    /// Where names are looked for.
    pub symbols: SymbolOptions,
}

/// How a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    let command = launched.map(|_| session::open_pidfd(process)).transpose()?;
    let stopped = stop::listen(command)?;
    raise_file_limit();
    let probe = kernel::probe::probe()?;
    let hook = probe.hook(plan.hook)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome = runtime.block_on(watch(plan, &probe, hook, process, launched, stopped));
    // A table that is being made is of no use any more.
    runtime.shutdown_background();
    outcome
}

/// A recording under way.
struct Run<'plan> {
    plan: &'plan Plan,
    programs: Programs,
    events: AsyncFd<RingBuf<MapData>>,
    /// Readable when mappings were made.
    told: Option<AsyncFd<OwnedFd>>,
    collector: Collector,
    session: Session,
    /// The session is written: the target is what it is going to be.
    begun: bool,
}

/// Attaches, records, and finishes the file.
async fn watch(
    plan: &Plan,
    probe: &Probe,
    hook: HookPath,
    process: &Process,
    launched: Option<&Launched>,
    stopped: watch::Receiver<bool>,
) -> Result<Outcome> {
    let pid = process.pid;
    let alive = kernel::readiness::of_descriptor(session::open_pidfd(process)?)
        .context("cannot watch for the target's end")?;
    let throttle = target::Throttle::of(pid);
    let throttled_before = throttle.as_ref().and_then(target::Throttle::read);
    let _stats = plan.bpf_stats.then(kernel::stats::enable).transpose()?;
    let mut programs = Programs::load(probe, &request(plan, hook, pid))?;
    // A command is not itself yet, and has no code to speak of.
    let mut processes = if launched.is_none() { vec![pid] } else { Vec::new() };
    if plan.children {
        // After the attachment: a child that is forked from here on is seen being born.
        let children = target::children(pid);
        programs.adopt(&children)?;
        processes.extend(children);
    }
    let log = plan.bpf_log.then(|| programs.take_log(StderrLog)).transpose()?;
    let events = kernel::readiness::of_ring(programs.take_events()?)?;
    let mut collector = Collector::new(Writer::create(&plan.recording, plan.max_size)?);
    collector.checker = (plan.stack_copies == StackCopies::Always).then(Checker::default);
    let told = prepare::prepare(probe, &mut programs, &mut collector, &processes).await?;

    let start = window::open(&mut programs).await?;
    collector.window_opened(start);
    let session = session::session(plan, hook, process, start)?;
    let mut run = Run { plan, programs, events, told, collector, session, begun: false };
    // A command is not itself yet: its session is written when it is, and what it waited for before
    // is left out. Of a process that is there nothing is, so its session is the first to be written.
    if launched.is_none() {
        run.begin()?;
    }
    events::take_during(run.programs.roll_call()?, run.events.get_mut(), &mut run.collector)?;
    if hook == HookPath::SwitchOut
        && let Some(sweep) = run.programs.sweep()?
    {
        events::take_during(sweep, run.events.get_mut(), &mut run.collector)?;
    }
    if let Some(launched) = launched {
        launched.release()?;
    }
    say(&format!("recording pid {pid} ..."));
    let reason = run.until_stopped(&alive, log, stopped).await?;
    run.finish(reason, throttle.zip(throttled_before)).await
}

impl Run<'_> {
    /// Takes events until something ends the recording.
    async fn until_stopped(
        &mut self,
        alive: &AsyncFd<OwnedFd>,
        mut log: Option<aya_log::EbpfLogger<StderrLog>>,
        mut stopped: watch::Receiver<bool>,
    ) -> Result<EndReason> {
        let progress = Progress::start();
        let deadline = self.plan.duration.map(|duration| Instant::now() + duration);
        let mut flush = tokio::time::interval(FLUSH_INTERVAL);
        flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut refresh = tokio::time::interval(REFRESH_INTERVAL);
        refresh.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ring_rests, mut told_rests) = (None, None);
        let reason = loop {
            // Timers are looked after only when nothing is ready, which a busy target can put off.
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                break EndReason::Duration;
            }
            tokio::task::yield_now().await;
            let taken = tokio::select! {
                biased;
                _ = stopped.wait_for(|&stop| stop) => break EndReason::Interrupt,
                () = until(deadline) => break EndReason::Duration,
                _ = alive.readable() => break EndReason::TargetEnded,
                _ = flush.tick() => {
                    if let Some(log) = &mut log { log.flush(); }
                    let dropped = dropped(&mut self.programs);
                    let writer = self.collector.writer();
                    let flushed = writer.flush();
                    let bytes = writer.bytes();
                    progress.show(self.collector.tally, dropped, bytes);
                    flushed
                }
                _ = refresh.tick() => self.collector.refresh_all(),
                () = until(self.collector.code.due()) => self.collector.refresh_due(),
                () = told(told_rests, self.told.as_mut()) => {
                    told_rests = Some(Instant::now() + TOLD_PAUSE);
                    self.collector.code.hear(clock::now());
                    Ok(())
                }
                Some(module) = self.collector.code.built() => {
                    self.collector.code.republish(&[module]);
                    Ok(())
                }
                ready = readable(ring_rests, &mut self.events) => {
                    let mut ready = ready?;
                    let taken = events::take(ready.get_inner_mut(), &mut self.collector);
                    ring_rests = None;
                    if let Ok(Taken { all: true, bytes }) = taken {
                        ready.clear_ready();
                        let calm = bytes < (self.plan.ring_bytes / PAUSE_FILLS) as usize;
                        ring_rests = calm.then(|| Instant::now() + PAUSE);
                    }
                    taken.map(|_| ()).and_then(|()| self.begin_if_execed())
                }
            };
            if let Err(error) = taken {
                say(&format!("warning: {error}; the recording ends here"));
                break match error {
                    WriteError::LimitReached { .. } => EndReason::MaxSize,
                    WriteError::Full { .. } | WriteError::Io { .. } => EndReason::WriteFailed,
                };
            }
        };
        progress.finish();
        Ok(reason)
    }

    /// Writes the session of a command that has become itself.
    fn begin_if_execed(&mut self) -> Result<(), WriteError> {
        let pid = self.session.target.pid;
        if self.begun || !self.collector.has_execed(pid) {
            return Ok(());
        }
        if let Ok(process) = target::by_pid(pid.0) {
            self.session.target = session::facts_of(&process);
        }
        self.begin()
    }

    /// Writes what the recording begins with.
    fn begin(&mut self) -> Result<(), WriteError> {
        self.begun = true;
        self.collector.begin(self.session.clone())?;
        self.collector.refresh(self.session.target.pid, self.session.start)
    }

    /// Closes the window, takes what is left, detaches, and finishes the file.
    async fn finish(
        mut self,
        reason: EndReason,
        throttle: Option<(target::Throttle, Nanos)>,
    ) -> Result<Outcome> {
        let end = window::close(&mut self.programs, self.session.start).await?;
        let ring_bytes = ring_bytes(self.plan);
        let ring = self.events.get_mut();
        events::take_all(ring, &mut self.collector, ring_bytes)?;
        self.collector.forget_roll_call();
        let visited = self.programs.roll_call().and_then(|roll_call| {
            events::take_during(roll_call, ring, &mut self.collector)?;
            events::take_all(ring, &mut self.collector, ring_bytes)?;
            match self.programs.sweep()? {
                Some(sweep) => {
                    events::take_during(sweep, ring, &mut self.collector)?;
                    events::take_all(ring, &mut self.collector, ring_bytes)
                }
                None => Ok(()),
            }
        });
        if let Err(error) = visited {
            say(&format!("warning: {error:#}; waits open at the end may lack their stacks"));
        }
        let states = self.programs.threads()?;
        let mut usage = kernel::usage::usage().unwrap_or_default();
        usage.map_bytes += self.collector.code.kernel_bytes();
        for (counter, count) in self.programs.counters()? {
            self.collector.add(counter, count);
        }
        self.collector.add(Counter::ProgramMisses, usage.misses);
        let Self { plan, programs, events, told: _, mut collector, mut session, begun } = self;
        drop(events);
        drop(programs);

        let command_began = begun || collector.has_execed(session.target.pid);
        if !begun {
            if let Some(program) = plan.command.first().filter(|_| command_began) {
                // It ended before it could be looked at.
                session.target.exe = PathBuf::from(program);
                session.target.command =
                    plan.command.iter().map(|part| part.to_string_lossy().into_owned()).collect();
                session.target.build_id.clear();
            }
            tolerate(collector.begin(session.clone()))?;
        }
        let end = collector
            .close(states, end, plan.min_block)
            .or_else(|refused| tolerate(Err::<(), _>(refused)).map(|()| end))?;
        tolerate(append_names(&mut collector, session, &plan.symbols))?;
        if let Some(checker) = collector.checker.take() {
            tolerate(collector.append(Record::StackCheck(checker.finish())))?;
        }
        let counters = Counter::ALL
            .iter()
            .map(|&counter| (counter.name().to_owned(), collector.lost(counter)))
            .collect();
        tolerate(collector.append(Record::Counters(Counters(counters))))?;
        let throttled = throttle.and_then(|(throttle, before)| {
            Some(Nanos(throttle.read()?.0.saturating_sub(before.0)))
        });
        let observer = cost::observer(&usage, plan.bpf_stats)?;
        let (writer, _files) = collector.into_parts();
        writer.finish(End { end, reason, observer, throttled })?;
        Ok(Outcome { reason, target_ran: command_began })
    }
}

fn request(plan: &Plan, hook: HookPath, pid: Pid) -> Request {
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
        log: plan.bpf_log,
    }
}

fn ring_bytes(plan: &Plan) -> u32 {
    match plan.stack_copies {
        StackCopies::WhereNeeded => plan.ring_bytes,
        StackCopies::Always => plan.ring_bytes.max(CHECK_RING_BYTES),
    }
}

/// Waits until there are records, and at least until an instant.
async fn readable(
    rests: Option<Instant>,
    events: &mut AsyncFd<RingBuf<MapData>>,
) -> io::Result<AsyncFdReadyMutGuard<'_, RingBuf<MapData>>> {
    if let Some(rests) = rests {
        tokio::time::sleep_until(rests.into()).await;
    }
    events.readable_mut().await
}

/// Waits until mappings were made, and at least until an instant.
async fn told(rests: Option<Instant>, told: Option<&mut AsyncFd<OwnedFd>>) {
    if let Some(rests) = rests {
        tokio::time::sleep_until(rests.into()).await;
    }
    match told {
        Some(told) => match told.readable_mut().await {
            Ok(mut ready) => ready.clear_ready(),
            Err(_) => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
        None => std::future::pending().await,
    }
}

/// Looks up every name while the target may still live.
fn append_names(
    collector: &mut Collector,
    session: Session,
    symbols: &SymbolOptions,
) -> Result<(), WriteError> {
    let (user_stacks, kernel_stacks) = (collector.stacks.all_user(), collector.stacks.all_kernel());
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
        stack_check: None,
        ending: Ending::Unfinished { offset: 0 },
    };
    let names = symbols::resolve(&stacks, &collector.code.live_files(), symbols);
    collector.append(Record::Names(symbols::names(&names)))
}

fn dropped(programs: &mut Programs) -> u64 {
    let counters = programs.counters().unwrap_or_default();
    counters
        .into_iter()
        .filter(|(counter, _)| *counter == Counter::IntervalsDropped)
        .map(|(_, count)| count)
        .sum()
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
        say(&format!("[kernel side] {}", record.args()));
    }

    fn flush(&self) {}
}
