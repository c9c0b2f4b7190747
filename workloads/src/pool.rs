//! A Tokio pool whose workers are blocked, allowed to wait, and idle.

use std::time::Duration;

use anyhow::{Context, Result};
use tokio::task;

use crate::{
    control::{self, Control},
    sites, workers,
};

const WORKERS: usize = 4;
const BLOCK: Duration = Duration::from_millis(3);

/// What a task waits for between two blocks, without holding a worker.
const REST: Duration = Duration::from_millis(5);

/// One task each: blocks its worker, waits on the blocking pool, waits in place.
pub fn run() -> Result<()> {
    let runtime = workers::runtime(WORKERS)?;
    let mut control = Control::ready()?;
    let tasks = [
        runtime.spawn(workers::repeat(REST, || async {
            sites::BLOCK_WORKER.time(|| sites::block_worker(BLOCK));
        })),
        runtime.spawn(workers::repeat(REST, || async {
            let call = || sites::WAIT_IN_BLOCKING_POOL.time(|| sites::wait_in_blocking_pool(BLOCK));
            task::spawn_blocking(call).await.expect("a thread that sleeps does not panic");
        })),
        runtime.spawn(workers::repeat(REST, || async {
            task::block_in_place(|| sites::WAIT_IN_PLACE.time(|| sites::wait_in_place(BLOCK)));
        })),
    ];
    let stopped = control.wait_for_stop();
    control::stop();
    for task in tasks {
        runtime.block_on(task).context("a task panicked")?;
    }
    stopped?;
    control.finish(&sites::sums())
}
