//! The Tokio runtime of a workload.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// A runtime with timers and that many workers.
pub fn runtime(workers: usize) -> Result<Runtime> {
    build(&mut Builder::new_multi_thread(), workers)
}

/// The same with a name for its threads.
pub fn named_runtime(workers: usize, name: &str) -> Result<Runtime> {
    build(Builder::new_multi_thread().thread_name(name), workers)
}

fn build(builder: &mut Builder, workers: usize) -> Result<Runtime> {
    builder.worker_threads(workers).enable_time().build().context("cannot start a Tokio runtime")
}
