//! The Tokio runtime of a workload.

use anyhow::{Context, Result};
use tokio::runtime::{Builder, Runtime};

/// A runtime with timers and that many workers.
pub fn runtime(workers: usize) -> Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(workers)
        .enable_time()
        .build()
        .context("cannot start a Tokio runtime")
}
