//! A recording under way: the order of operations, shutdown, time limit.
//!
//! - `waits` is what it waits for.
//! - `finish` is its end.

mod finish;
mod waits;

use std::{
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use aya::maps::{MapData, RingBuf};
use profiler_common::{config::HookPath, counter::Counter};
use tokio::{io::unix::AsyncFd, sync::watch, time::MissedTickBehavior};

use self::waits::{records, told, until};
use super::{
    Extent, Outcome, Plan,
    check::Checker,
    clock,
    collect::Collector,
    events::{self, Taken, tolerate},
    launch::Launched,
    objects::Objects,
    prepare,
    progress::Progress,
    request::request,
    session, window,
};
use crate::{
    kernel::{self, Probe, Programs, StackCopies},
    recording::{
        EndReason, Record, Sampling, Session,
        file::{WriteError, Writer},
    },
    target::{self, Process},
    terminal::say,
};

/// How often what was collected goes to disk: what a killed recorder loses at most.
const FLUSH_INTERVAL: Duration = Duration::from_millis(250);

/// How often mappings are read again without a reason: what shows a library that took the place of
/// another one.
const REFRESH_INTERVAL: Duration = Duration::from_secs(1);

/// How long the ring buffer is left alone after it was emptied, unless much of it fills up
/// meanwhile: waking up for every record is what taking it costs most.
const PAUSE: Duration = Duration::from_millis(20);

/// How long mappings that are made are left to add up.
const TOLD_PAUSE: Duration = Duration::from_millis(1);

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
pub async fn watch(
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
    let mut writer = Writer::create(&plan.recording, plan.max_size)?;
    if let Some(redaction) = plan.redaction.clone() {
        writer.redact(redaction);
    }
    let mut collector = Collector::new(writer);
    collector.checker = (plan.stack_copies == StackCopies::Always).then(Checker::default);
    collector.objects = Some(Objects::start().context("cannot start a thread")?);
    let told =
        prepare::prepare(probe, &mut programs, &mut collector, &processes, plan.extent).await?;

    let start = window::open(&mut programs).await?;
    collector.window_opened(start);
    let session = session::session(plan, hook, process, start)?;
    let mut run = Run { plan, programs, events, told, collector, session, begun: false };
    // A command is not itself yet: its session is written when it is, and what it waited for before
    // is left out. Of a process that is there nothing is, so its session is the first to be written.
    if launched.is_none() {
        run.begin()?;
    }
    if let Some(frequency) = plan.on_cpu {
        tolerate(run.collector.append(Record::Sampling(Sampling { frequency })))?;
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
    if plan.extent == Extent::Window {
        say(&format!("recording pid {pid} ..."));
    }
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
        let mut next_look = Instant::now();
        let mut told_rests = None;
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
                    let objects = self.collector.take_objects();
                    let dropped = dropped(&mut self.programs);
                    let writer = self.collector.writer();
                    let flushed = writer.flush();
                    let bytes = writer.bytes();
                    progress.show(self.collector.tally, dropped, bytes);
                    objects.and(flushed)
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
                looked = records(next_look, &mut self.events) => {
                    looked?;
                    let taken = events::take(self.events.get_mut(), &mut self.collector);
                    if let Ok(Taken::All) = taken {
                        next_look = Instant::now() + PAUSE;
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
}

fn dropped(programs: &mut Programs) -> u64 {
    let counters = programs.counters().unwrap_or_default();
    counters
        .into_iter()
        .filter(|(counter, _)| *counter == Counter::IntervalsDropped)
        .map(|(_, count)| count)
        .sum()
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
