//! Threads that block for 1 ms, one block after the other: so many a second, whatever else runs.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Result, bail};
use nix::{
    sys::time::TimeSpec,
    time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep},
};
use serde::Serialize;

use crate::{
    control::{self, Control},
    service::descend,
};

const BLOCK: Duration = Duration::from_millis(1);

/// Blocks a second of one thread that does nothing else.
const PER_THREAD: u32 = 1000;

/// Calls between a thread's first function and its block.
const DEPTH: u32 = 20;

/// What was done.
#[derive(Serialize)]
struct Done {
    threads: u32,
    blocks: u64,
    /// Deadlines that had passed when the thread came to wait for them.
    late: u64,
}

/// Blocks `rate` times a second, all threads together, until stopped.
pub fn run(rate: u32) -> Result<()> {
    let threads = rate / PER_THREAD;
    if threads == 0 || !rate.is_multiple_of(PER_THREAD) {
        bail!("--rate {rate}: must be a multiple of {PER_THREAD}");
    }
    let mut control = Control::ready()?;
    let (blocks, late) = (AtomicU64::new(0), AtomicU64::new(0));
    let start = TimeSpec::from(BLOCK) + clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    thread::scope(|scope| {
        for thread in 0..threads {
            // Not all at one instant.
            let first = start + TimeSpec::from(BLOCK * thread / threads);
            let (blocks, late) = (&blocks, &late);
            scope.spawn(move || block(first, blocks, late));
        }
        let stopped = control.wait_for_stop();
        control::stop();
        stopped
    })?;
    control.finish(&Done { threads, blocks: blocks.into_inner(), late: late.into_inner() })
}

/// Deadlines are absolute: a late wake-up makes the next block shorter, not later.
fn block(first: TimeSpec, blocks: &AtomicU64, late: &AtomicU64) {
    let clock = ClockId::CLOCK_MONOTONIC;
    let mut deadline = first;
    while !control::stopped() {
        if clock_gettime(clock).is_ok_and(|now| now >= deadline) {
            late.fetch_add(1, Ordering::Relaxed);
        } else {
            descend(DEPTH, &|| {
                // A signal ends the block early, and it counts as one all the same.
                let _ = clock_nanosleep(clock, ClockNanosleepFlags::TIMER_ABSTIME, &deadline);
            });
            blocks.fetch_add(1, Ordering::Relaxed);
        }
        deadline = deadline + TimeSpec::from(BLOCK);
    }
}
