//! A thread that changes CPU in every sleep, beside a pinned one with the same sleeps.

use std::{
    mem,
    sync::{
        Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
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
    stage::Stage,
};

/// One sleep; the move comes in the middle of it.
const SLEEP: Duration = Duration::from_millis(4);

/// Fails where only one CPU may be used.
pub fn run() -> Result<()> {
    let cpus = usable_cpus()?;
    let [one, other] = cpus[..] else { bail!("needs two CPUs, may use {}", cpus.len()) };
    let stage = &Stage::new(3);
    let (sleeps, begun) = mpsc::channel();
    let moved = &Mutex::new(Ok(()));
    thread::scope(|scope| {
        scope.spawn(move || stage.play(|| keep_error(moved, sleep_pinned(one))));
        scope.spawn(move || stage.play(move || sleep_migrating(&sleeps)));
        scope.spawn(move || stage.play(|| keep_error(moved, move_each(&begun, [one, other]))));
        let control = Control::ready();
        stage.begin();
        let stopped = control.and_then(|mut control| control.wait_for_stop().map(|()| control));
        control::stop();
        stage.rest();
        let finished = stopped.and_then(|control| {
            kept_error(moved)?;
            control.finish(&sites::sums())
        });
        stage.end();
        finished
    })
}

fn keep_error(kept: &Mutex<Result<()>>, result: Result<()>) {
    if result.is_err() {
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = result;
    }
}

fn kept_error(kept: &Mutex<Result<()>>) -> Result<()> {
    mem::replace(&mut *kept.lock().unwrap_or_else(PoisonError::into_inner), Ok(()))
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
