//! A Tokio pool that runs dry at known times, and one that is busy and well.

use std::{
    hint,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde::Serialize;
use tokio::task;

use crate::{
    control::{self, Control},
    workers,
};

const WORKERS: usize = 2;

/// How long the workers are held in turn.
const HOLDS: [Duration; 4] = [
    Duration::from_millis(15),
    Duration::from_millis(40),
    Duration::from_millis(90),
    Duration::from_millis(6),
];

/// Between two holds.
const REST: Duration = Duration::from_millis(60);

/// What a task of a busy pool computes before it lets others run.
const SLICE: Duration = Duration::from_micros(400);

/// A span in which every worker was held, in nanoseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, Serialize)]
struct Span {
    start_unix_ns: u64,
    end_unix_ns: u64,
}

/// Holds every worker at once, again and again, and every other time all but one.
pub fn run() -> Result<()> {
    let runtime = workers::named_runtime(WORKERS, "dry-worker")?;
    let mut control = Control::ready()?;
    let holding = thread::spawn(move || -> Result<Vec<Span>> {
        let mut spans = Vec::new();
        for (round, length) in HOLDS.iter().cycle().enumerate() {
            if control::stopped() {
                break;
            }
            let held = if round % 2 == 0 { WORKERS } else { WORKERS - 1 };
            let task = |length| async move { hold(length) };
            let tasks: Vec<_> = (0..held).map(|_| runtime.spawn(task(*length))).collect();
            let mut all = Vec::new();
            for task in tasks {
                all.push(runtime.block_on(task).context("a task panicked")?);
            }
            if held == WORKERS {
                spans.extend(overlap(&all));
            }
            thread::sleep(REST);
        }
        Ok(spans)
    });
    control.wait_for_stop()?;
    control::stop();
    let spans = holding.join().expect("the thread returns its errors")?;
    control.finish(&spans)
}

#[inline(never)]
fn hold(length: Duration) -> (u64, u64) {
    let start = unix_ns();
    thread::sleep(length);
    (start, unix_ns())
}

/// The span in which all of them were held.
fn overlap(held: &[(u64, u64)]) -> Option<Span> {
    let start_unix_ns = held.iter().map(|(start, _)| *start).max()?;
    let end_unix_ns = held.iter().map(|(_, end)| *end).min()?;
    (start_unix_ns < end_unix_ns).then_some(Span { start_unix_ns, end_unix_ns })
}

fn unix_ns() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is later than 1970");
    now.as_nanos() as u64
}

/// As many tasks as there are workers compute all the time, in short polls; prints how many.
pub fn busy() -> Result<()> {
    let runtime = workers::named_runtime(WORKERS, "busy-worker")?;
    let mut control = Control::ready()?;
    let polls = Arc::new(Mutex::new(0_u64));
    let tasks: Vec<_> = (0..WORKERS).map(|_| runtime.spawn(slices(Arc::clone(&polls)))).collect();
    let stopped = control.wait_for_stop();
    control::stop();
    for task in tasks {
        runtime.block_on(task).context("a task panicked")?;
    }
    stopped?;
    let polls = *polls.lock().expect("no thread panics with it");
    control.finish(&polls)
}

async fn slices(polls: Arc<Mutex<u64>>) {
    while !control::stopped() {
        compute(SLICE);
        *polls.lock().expect("no thread panics with it") += 1;
        task::yield_now().await;
    }
}

/// Computes for that long.
#[inline(never)]
pub fn compute(length: Duration) {
    let begun = Instant::now();
    while begun.elapsed() < length {
        hint::spin_loop();
    }
}
