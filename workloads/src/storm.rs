//! Pairs of threads that wake each other as fast as they can.

use std::{
    fs, hint,
    io::{self, PipeReader, PipeWriter, Read, Write},
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::unistd::gettid;
use serde::Serialize;

use crate::{
    control::{self, Control},
    migrate,
};

/// One of the threads, both counters at rest: before the first switch and after the last.
#[derive(Serialize)]
struct Thread {
    tid: i32,
    before: Switches,
    after: Switches,
}

/// What `/proc/PID/task/TID/status` says.
#[derive(Clone, Copy, Serialize, PartialEq, Eq)]
struct Switches {
    voluntary: u64,
    nonvoluntary: u64,
}

/// What keeps the storm from being as fast and as long as it can.
#[derive(Clone, Copy)]
pub struct Limits {
    /// Rounds of two switches, after which it stops by itself.
    pub rounds: Option<u64>,
    /// Switches a second.
    pub rate: Option<u32>,
    /// Whether both threads of a pair stay on one CPU, where every wake-up is a switch. The pairs
    /// take the CPUs in turn.
    pub same_cpu: bool,
    /// How many pairs.
    pub pairs: usize,
}

/// All threads wait in a read before `go` and after `stop`, and live until stdin ends.
pub fn run(limits: Limits) -> Result<()> {
    let cpus = migrate::usable_cpus()?;
    let (started, tids) = mpsc::channel();
    let (rested, rest) = mpsc::channel();
    let mut first = Vec::new();
    for pair in 0..limits.pairs {
        if limits.same_cpu {
            // The threads inherit it.
            migrate::pin(gettid(), cpus[pair % cpus.len()])?;
        }
        let (there_reader, there_writer) = io::pipe().context("cannot make a pipe")?;
        let (back_reader, back_writer) = io::pipe().context("cannot make a pipe")?;
        first.push(there_writer.try_clone().context("cannot clone a pipe")?);
        for (from, to) in [(there_reader, back_writer), (back_reader, there_writer)] {
            let (started, rested) = (started.clone(), rested.clone());
            thread::spawn(move || echo(from, to, limits, &started, &rested));
        }
    }
    let tids: Vec<i32> = tids.into_iter().take(2 * limits.pairs).collect();
    let before = tids.iter().map(|tid| at_rest(*tid)).collect::<Result<Vec<_>>>()?;

    let mut control = Control::ready()?;
    for pipe in &mut first {
        pipe.write_all(&[0]).context("cannot write to a pipe")?;
    }
    if limits.rounds.is_none() {
        control.wait_for_stop()?;
    }
    for _ in 0..limits.pairs {
        rest.recv().context("a thread of the storm ended")?;
    }
    let after = tids.iter().map(|tid| at_rest(*tid)).collect::<Result<Vec<_>>>()?;
    let threads: Vec<Thread> = tids
        .into_iter()
        .zip(before.into_iter().zip(after))
        .map(|(tid, (before, after))| Thread { tid, before, after })
        .collect();
    control.finish(&threads)
}

/// Passes each byte on, until stopped or the rounds are over. The one that keeps the byte says so;
/// then both of the pair wait for one that never comes.
fn echo(
    mut from: PipeReader,
    mut to: PipeWriter,
    limits: Limits,
    started: &Sender<i32>,
    rested: &Sender<()>,
) {
    let main_waits = "the main thread waits for it";
    started.send(gettid().as_raw()).expect(main_waits);
    let pause = limits.rate.map_or(Duration::ZERO, |rate| Duration::from_secs(2) / rate);
    let mut done = 0;
    let mut due = Instant::now();
    while from.read_exact(&mut [0]).is_ok() {
        done += 1;
        if control::stopped() || limits.rounds == Some(done) {
            rested.send(()).expect(main_waits);
            continue;
        }
        // To sleep would be one more switch.
        while Instant::now() < due {
            hint::spin_loop();
        }
        due = Instant::now() + pause;
        if to.write_all(&[0]).is_err() {
            return;
        }
    }
}

/// The counters once the thread sleeps and they no longer change.
fn at_rest(tid: i32) -> Result<Switches> {
    let path = format!("/proc/self/task/{tid}/status");
    let mut last = None;
    loop {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::trim)
                .with_context(|| format!("{path} has no {key}"))
        };
        let switches = Switches {
            voluntary: value("voluntary_ctxt_switches:")?.parse()?,
            nonvoluntary: value("nonvoluntary_ctxt_switches:")?.parse()?,
        };
        let sleeps = value("State:")?.starts_with('S');
        if sleeps && last == Some(switches) {
            return Ok(switches);
        }
        last = sleeps.then_some(switches);
        thread::sleep(Duration::from_millis(1));
    }
}
