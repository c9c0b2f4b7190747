//! The Tokio runtimes of workloads, and what their tasks have in common.

use std::{future::Future, time::Duration};

use anyhow::{Context, Result};
use tokio::{
    runtime::{Builder, Runtime},
    time,
};

use crate::control;

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

/// Makes a call again and again until the work is to end, with a rest after each that holds no worker.
pub async fn repeat<F: Future<Output = ()>>(rest: Duration, call: impl Fn() -> F) {
    while !control::stopped() {
        call().await;
        time::sleep(rest).await;
    }
}
