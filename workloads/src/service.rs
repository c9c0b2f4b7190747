//! A Tokio service whose handlers hold their worker for short waits, and that is idle in between.

use std::{
    hint,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use nix::sys::prctl;
use serde::Serialize;
use tokio::time;

use crate::{
    control::{self, Control},
    workers,
};

const WORKERS: usize = 4;

/// A request's waits, each of this length. Shorter than what a recording names by default.
const WAITS: usize = 16;
const WAIT: Duration = Duration::from_micros(50);

/// Between two requests.
const REST: Duration = Duration::from_millis(1);

/// What was done.
#[derive(Serialize)]
struct Done {
    requests: u64,
    waits: u64,
}

/// Handles requests until stopped. `depth` calls lie between the handler and the wait.
pub fn run(depth: u32) -> Result<()> {
    // The kernel rounds a sleep up by 50 us otherwise. Threads inherit it.
    prctl::set_timerslack(1).context("cannot set the timer slack")?;
    let runtime = workers::runtime(WORKERS)?;
    let mut control = Control::ready()?;
    let requests = &*Box::leak(Box::new(AtomicU64::new(0)));
    let tasks: Vec<_> = (0..WORKERS).map(|_| runtime.spawn(serve(depth, requests))).collect();
    let stopped = control.wait_for_stop();
    control::stop();
    for task in tasks {
        runtime.block_on(task).context("a task panicked")?;
    }
    stopped?;
    let requests = requests.load(Ordering::Relaxed);
    control.finish(&Done { requests, waits: requests * WAITS as u64 })
}

async fn serve(depth: u32, requests: &AtomicU64) {
    while !control::stopped() {
        for _ in 0..WAITS {
            descend(depth, &|| thread::sleep(WAIT));
        }
        requests.fetch_add(1, Ordering::Relaxed);
        time::sleep(REST).await;
    }
}

/// Calls `leaf` with `depth` more frames on the stack.
#[inline(never)]
pub fn descend(depth: u32, leaf: &dyn Fn()) -> u32 {
    if depth == 0 {
        leaf();
        return 0;
    }
    // Something is left to do after the call: it is no jump.
    hint::black_box(descend(depth - 1, leaf)) + 1
}
