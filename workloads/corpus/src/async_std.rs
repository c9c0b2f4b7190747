//! async-std: its global executor and its blocking pool.

mod truth;
mod waits;

use std::{future::Future, pin::Pin};

use async_std::task;
use truth::{muster, thread_named, Truth};
use waits::{Wait, LENGTH, SLEEP};

const POOL: &str = "async-std/only";
const WORKER: Truth = Truth::idle(POOL, "worker");
const BLOCKING: Truth = Truth::idle(POOL, "blocking");
const CALLER: Truth = Truth::idle(POOL, "other");

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

fn main() {
    std::env::set_var("ASYNC_STD_THREAD_COUNT", "3");
    waits::start_name_server();
    match std::env::args().nth(1).as_deref() {
        Some("global") => global(),
        other => panic!("no flavour {other:?}"),
    }
    truth::finish();
}

async fn handle(wait: &'static Wait) {
    WORKER.in_task("async fn corpus_async_std::handle").waits("blocked", wait).declare();
    (wait.wait)();
    WORKER.declare();
}

#[inline(never)]
fn job() {
    BLOCKING.in_task("corpus_async_std::job").waits("allowed", &SLEEP).declare();
    (SLEEP.wait)();
    BLOCKING.declare();
}

/// The reactor's own thread runs nothing else.
fn start_reactor() {
    task::block_on(task::sleep(LENGTH));
    CALLER.declare_of(thread_named("async-io"));
}

#[inline(never)]
fn global() {
    muster(3, WORKER, |say| drop(task::spawn(Box::pin(async move { say() }) as Boxed)));
    start_reactor();
    truth::ready();
    CALLER.declare();
    task::block_on(async {
        for wait in waits::ALL {
            task::spawn(Box::pin(handle(wait)) as Boxed).await;
        }
        task::spawn_blocking(job).await;
        task::sleep(LENGTH).await;
    });
}
