//! Two Tokio pools with names of their own and a runtime of one thread, blocked, allowed to wait, and idle.

use std::{
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{
    runtime::{Builder, Runtime},
    task, time,
};

use crate::{
    control::{self, Control},
    sites, workers,
};

const BLOCK: Duration = Duration::from_millis(3);
const HOLD: Duration = Duration::from_millis(2);

/// What a task waits for between two blocks, without holding a worker.
const REST: Duration = Duration::from_millis(7);

/// What is waited for on the workers of both pools is in `block_worker`, `lock_contended` and
/// `sleep_holding`, on the runtime of one thread in `block_alone`.
pub fn run() -> Result<()> {
    // One has a driver for sockets, the other only timers: they park in different ways.
    let orders = pool(Builder::new_multi_thread().enable_all().worker_threads(3), "orders-io")?;
    let reports = pool(Builder::new_multi_thread().enable_time().worker_threads(2), "reports")?;
    let mut control = Control::ready()?;
    let lock = Arc::new(Mutex::new(0));
    let block = || {
        workers::repeat(REST, || async { sites::BLOCK_WORKER.time(|| sites::block_worker(BLOCK)) })
    };
    let hand_over = || {
        workers::repeat(REST, || async {
            let call = || sites::WAIT_IN_BLOCKING_POOL.time(|| sites::wait_in_blocking_pool(BLOCK));
            task::spawn_blocking(call).await.expect("a thread that sleeps does not panic");
        })
    };
    let alone = thread::Builder::new().name("alone".to_owned()).spawn(alone);
    let alone = alone.context("cannot start a thread")?;
    let tasks = [
        orders.spawn(block()),
        orders.spawn(contend(Arc::clone(&lock))),
        orders.spawn(contend(lock)),
        orders.spawn(hand_over()),
        orders.spawn(workers::repeat(REST, || async {
            task::block_in_place(|| sites::WAIT_IN_PLACE.time(|| sites::wait_in_place(BLOCK)));
        })),
        reports.spawn(block()),
        reports.spawn(hand_over()),
    ];
    let stopped = control.wait_for_stop();
    control::stop();
    for task in tasks {
        orders.block_on(task).context("a task panicked")?;
    }
    alone.join().ok().context("a thread panicked")??;
    stopped?;
    control.finish(&sites::sums())
}

fn pool(builder: &mut Builder, name: &str) -> Result<Runtime> {
    builder.thread_name(name).build().context("cannot start a Tokio runtime")
}

/// A runtime of one thread, whose tasks block it.
fn alone() -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("cannot start a Tokio runtime")?;
    let block =
        workers::repeat(REST, || async { sites::BLOCK_ALONE.time(|| sites::block_alone(BLOCK)) });
    runtime.block_on(runtime.spawn(block)).context("a task panicked")
}

async fn contend(lock: Arc<Mutex<u64>>) {
    while !control::stopped() {
        {
            let mut held = sites::LOCK_CONTENDED.time(|| sites::lock_contended(&lock));
            *held += 1;
            sites::SLEEP_HOLDING.time(|| sites::sleep_holding(HOLD));
        }
        time::sleep(REST).await;
    }
}
