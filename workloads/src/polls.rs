//! Tasks that hold a worker for long at a time: on the CPU, waiting, and both.

use std::{
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use serde::Serialize;

use crate::{
    control::{self, Control},
    starve::compute,
    workers,
};

/// What a long poll takes.
const LONG: Duration = Duration::from_millis(30);

/// How long a task that does both does one of them.
const PART: Duration = Duration::from_millis(3);

/// Between two polls of a task.
const REST: Duration = Duration::from_millis(50);

/// What a poll takes that is none of the long ones.
const SHORT: Duration = Duration::from_millis(1);

/// The polls of one task.
#[derive(Debug, Default)]
struct Polls {
    count: AtomicU64,
    total_ns: AtomicU64,
}

static CRUNCH: Polls = Polls { count: AtomicU64::new(0), total_ns: AtomicU64::new(0) };
static DOZE: Polls = Polls { count: AtomicU64::new(0), total_ns: AtomicU64::new(0) };
static STUTTER: Polls = Polls { count: AtomicU64::new(0), total_ns: AtomicU64::new(0) };

#[derive(Serialize)]
struct Truth {
    crunch: Sum,
    doze: Sum,
    stutter: Sum,
}

#[derive(Serialize)]
struct Sum {
    count: u64,
    total_ns: u64,
}

impl Polls {
    fn time(&self, poll: impl FnOnce()) {
        let begun = Instant::now();
        poll();
        self.count.fetch_add(1, Ordering::Relaxed);
        self.total_ns.fetch_add(begun.elapsed().as_nanos() as u64, Ordering::Relaxed);
    }

    fn sum(&self) -> Sum {
        Sum {
            count: self.count.load(Ordering::Relaxed),
            total_ns: self.total_ns.load(Ordering::Relaxed),
        }
    }
}

/// One task of each kind on one worker, so that none is preempted for another.
pub fn run() -> Result<()> {
    let runtime = workers::named_runtime(1, "held-worker")?;
    let mut control = Control::ready()?;
    let tasks = [
        runtime.spawn(crunch()),
        runtime.spawn(doze()),
        runtime.spawn(stutter()),
        runtime.spawn(brief()),
    ];
    let stopped = control.wait_for_stop();
    control::stop();
    for task in tasks {
        runtime.block_on(task).context("a task panicked")?;
    }
    stopped?;
    control.finish(&Truth { crunch: CRUNCH.sum(), doze: DOZE.sum(), stutter: STUTTER.sum() })
}

async fn crunch() {
    workers::repeat(REST, || async { CRUNCH.time(|| compute(LONG)) }).await;
    black_box(());
}

async fn doze() {
    workers::repeat(REST, || async { DOZE.time(|| thread::sleep(LONG)) }).await;
    black_box(());
}

async fn stutter() {
    workers::repeat(REST, || async {
        STUTTER.time(|| {
            for _ in 0..5 {
                thread::sleep(PART);
                compute(PART);
            }
        });
    })
    .await;
    black_box(());
}

async fn brief() {
    workers::repeat(REST, || async { compute(SHORT) }).await;
    black_box(());
}
