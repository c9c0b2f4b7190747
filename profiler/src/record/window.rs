//! The edges of the window: instants that every CPU knows of before they come.

use std::time::Duration;

use anyhow::{Result, ensure};

use super::clock;
use crate::{
    kernel::{Programs, barrier},
    units::Ktime,
};

/// How long before it comes an edge is announced to the kernel side. A recorder that loses its CPU
/// for longer than this announces too late.
const NOTICE: Duration = Duration::from_millis(10);

/// How often the opening is tried on a machine that keeps the recorder from running.
const TRIES: usize = 20;

/// How long to wait for running programs where the kernel has no barrier for them (`nohz_full`,
/// seccomp): many times what the longest of them takes.
const INSTEAD_OF_BARRIER: Duration = Duration::from_millis(20);

/// Opens the window a moment from now and waits for it to begin.
///
/// An opening that was announced too late is taken back: events of its first instants are missing.
///
/// # Errors
/// If the kernel refuses, or the recorder does not get to run.
pub async fn open(programs: &mut Programs) -> Result<Ktime> {
    for _ in 0..TRIES {
        let start = Ktime(clock::now().0 + NOTICE.as_nanos() as u64);
        programs.set_window(Some(start..Ktime(u64::MAX)))?;
        if clock::now() < start {
            reach(start).await;
            return Ok(start);
        }
        programs.set_window(None)?;
        wait_for_programs().await;
        programs.forget_threads()?;
    }
    ensure!(false, "the recorder did not get a CPU for {NOTICE:?} in {TRIES} tries");
    unreachable!("the line above returns");
}

/// Closes the window a moment from now, and waits until no program can still be at work on an
/// instant inside it.
///
/// Announced too late it ends where the last event was taken: see `Collector::close`.
///
/// # Errors
/// If the kernel refuses.
pub async fn close(programs: &mut Programs, start: Ktime) -> Result<Ktime> {
    let end = Ktime(clock::now().0 + NOTICE.as_nanos() as u64);
    programs.set_window(Some(start..end))?;
    reach(end).await;
    wait_for_programs().await;
    Ok(end)
}

async fn wait_for_programs() {
    if barrier::wait_for_running_programs().is_err() {
        tokio::time::sleep(INSTEAD_OF_BARRIER).await;
    }
}

async fn reach(instant: Ktime) {
    while clock::now() < instant {
        tokio::time::sleep(Duration::from_nanos(instant.since(clock::now()).0)).await;
    }
}
