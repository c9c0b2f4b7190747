//! A thread that changes CPU in every sleep, beside a pinned one with the same sleeps.

use std::{
    sync::mpsc::{self, Receiver, Sender},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::{Pid, gettid},
};

use crate::{
    control::{self, Control},
    sites,
};

/// One sleep; the move comes in the middle of it.
const SLEEP: Duration = Duration::from_millis(4);

/// Fails where only one CPU may be used.
pub fn run() -> Result<()> {
    let cpus = usable_cpus()?;
    let [one, other] = cpus[..] else { bail!("needs two CPUs, may use {}", cpus.len()) };
    let mut control = Control::ready()?;
    let (sleeps, begun) = mpsc::channel();
    thread::scope(|scope| {
        let pinned = scope.spawn(move || sleep_pinned(one));
        let migrating = scope.spawn(move || sleep_migrating(&sleeps));
        let mover = scope.spawn(move || move_each(&begun, [one, other]));
        let stopped = control.wait_for_stop();
        control::stop();
        migrating.join().expect("a thread that sleeps does not panic");
        pinned.join().expect("a thread that sleeps does not panic")?;
        mover.join().expect("the mover does not panic")?;
        stopped
    })?;
    control.finish(&sites::sums())
}

fn sleep_pinned(cpu: usize) -> Result<()> {
    pin(gettid(), cpu)?;
    while !control::stopped() {
        sites::SLEEP_PINNED.time(|| sites::sleep_pinned(SLEEP));
    }
    Ok(())
}

fn sleep_migrating(sleeps: &Sender<Pid>) {
    while !control::stopped() && sleeps.send(gettid()).is_ok() {
        sites::SLEEP_MIGRATING.time(|| sites::sleep_migrating(SLEEP));
    }
}

/// Moves each thread that says it is about to sleep, from one CPU to the other in turn.
fn move_each(begun: &Receiver<Pid>, cpus: [usize; 2]) -> Result<()> {
    for (tid, cpu) in begun.iter().zip(cpus.into_iter().cycle()) {
        thread::sleep(SLEEP / 4);
        pin(tid, cpu)?;
    }
    Ok(())
}

/// Keeps a thread, which may have ended meanwhile, on one CPU.
pub fn pin(tid: Pid, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu).context("no such CPU")?;
    match sched_setaffinity(tid, &set) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot move thread {tid} to CPU {cpu}")),
    }
}

/// The first two CPUs that may be used.
pub fn usable_cpus() -> Result<Vec<usize>> {
    let set = sched_getaffinity(gettid()).context("cannot tell which CPUs may be used")?;
    Ok((0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).take(2).collect())
}
