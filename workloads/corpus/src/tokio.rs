//! Tokio 1.x: every flavour, every wait, every way of having nothing to do.

mod truth;
mod waits;

use std::{future::Future, pin::Pin, sync::Mutex};

use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::{self, LocalSet},
};
use truth::{muster, Truth};
use waits::{Wait, LENGTH, SLEEP};

const WORKERS: usize = 3;
const POOL: &str = "tokio/only";
const WORKER: Truth = Truth::idle(POOL, "worker");
const BLOCKING: Truth = Truth::idle(POOL, "blocking");
/// The thread that called `block_on` of a runtime with workers.
const CALLER: Truth = Truth::idle(POOL, "other");

fn main() {
    waits::start_name_server();
    match std::env::args().nth(1).as_deref() {
        Some("multi-thread") => multi_thread(),
        Some("current-thread") => {
            truth::ready();
            current_thread(false);
        }
        // The future that is given to `block_on` is no better a place to wait.
        Some("given-future") => {
            truth::ready();
            current_thread(true);
        }
        Some("local-set") => {
            truth::ready();
            local_set();
        }
        Some("in-place") => in_place(),
        Some("two") => two(),
        Some("shutdown") => shutdown(),
        other => panic!("no flavour {other:?}"),
    }
    truth::finish();
}

async fn handle(wait: &'static Wait) {
    WORKER.in_task("async fn corpus_tokio::handle").waits("blocked", wait).declare();
    (wait.wait)();
    WORKER.declare();
}

/// As those are spawned that are stored with others: where a future's type is known, its poll is
/// inlined into Tokio's, and nothing on the stack tells its name.
fn spawned(wait: &'static Wait) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(handle(wait))
}

fn on_blocking_thread(wait: &'static Wait) -> impl Future<Output = ()> {
    *NEXT.lock().unwrap() = Some(wait);
    let done = task::spawn_blocking(job);
    async { done.await.unwrap() }
}

static NEXT: Mutex<Option<&'static Wait>> = Mutex::new(None);

/// No closure: that would be inlined, with all that tells its name.
#[inline(never)]
fn job() {
    let wait = NEXT.lock().unwrap().take().unwrap();
    // A thread that may wait may wait for a future.
    let label = wait.label.filter(|label| *label != "sync-over-async");
    let may = &Wait { label, ..*wait };
    BLOCKING.in_task("corpus_tokio::job").waits("allowed", may).declare();
    (wait.wait)();
    BLOCKING.declare();
}

#[inline(never)]
fn job_for_future() {
    const PARKED: Wait = Wait { reason: "futex", label: None, wait: || () };
    BLOCKING.in_task("corpus_tokio::job_for_future").waits("allowed", &PARKED).declare();
    wait_for_future(&Handle::current());
    BLOCKING.declare();
}

#[cfg(feature = "handle-block-on")]
fn wait_for_future(handle: &Handle) {
    handle.block_on(waits::Later::new());
}

#[cfg(not(feature = "handle-block-on"))]
fn wait_for_future(_: &Handle) {
    futures_executor::block_on(waits::Later::new());
}

fn workers(name: Option<&str>, workers: usize) -> Runtime {
    let mut builder = Builder::new_multi_thread();
    match name {
        Some(name) => builder.thread_name(name),
        // Workers say what they are as soon as they run a task; another thread may never run one.
        None => builder.on_thread_start(|| BLOCKING.declare()),
    };
    builder.worker_threads(workers).enable_all().build().unwrap()
}

fn muster_workers(runtime: &Handle, workers: usize, truth: Truth) {
    muster(workers, truth, |say| drop(runtime.spawn(async move { say() })));
}

#[inline(never)]
fn multi_thread() {
    let runtime = workers(None, WORKERS);
    muster_workers(runtime.handle(), WORKERS, WORKER);
    truth::ready();
    CALLER.declare();
    runtime.block_on(async {
        for wait in waits::ALL {
            task::spawn(spawned(wait)).await.unwrap();
        }
        for wait in waits::ALL {
            on_blocking_thread(wait).await;
        }
        task::spawn_blocking(job_for_future).await.unwrap();
        Truth { state: "allowed", ..CALLER }.waits("allowed", &SLEEP).declare();
        (SLEEP.wait)();
        CALLER.declare();
        tokio::time::sleep(LENGTH).await;
    });
}

#[inline(never)]
fn current_thread(itself: bool) {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    WORKER.declare();
    let given: Pin<Box<dyn Future<Output = ()>>> = Box::pin(on_this_thread(itself));
    runtime.block_on(given);
}

async fn on_this_thread(itself: bool) {
    for wait in waits::ALL {
        if itself {
            let truth = WORKER.in_task("async fn corpus_tokio::on_this_thread");
            truth.waits("blocked", wait).declare();
            (wait.wait)();
            WORKER.declare();
        } else {
            task::spawn(spawned(wait)).await.unwrap();
        }
    }
    on_blocking_thread(&SLEEP).await;
    tokio::time::sleep(LENGTH).await;
}

#[inline(never)]
fn local_set() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    WORKER.declare();
    LocalSet::new().block_on(&runtime, async {
        for wait in waits::ALL {
            task::spawn_local(spawned(wait)).await.unwrap();
        }
        on_blocking_thread(&SLEEP).await;
        tokio::time::sleep(LENGTH).await;
    });
}

/// Workers that give their core to another thread.
#[inline(never)]
fn in_place() {
    let runtime = workers(None, WORKERS);
    muster_workers(runtime.handle(), WORKERS, WORKER);
    truth::ready();
    CALLER.declare();
    runtime.block_on(async {
        for wait in waits::ALL {
            task::spawn(Box::pin(gives_way(wait)) as Pin<Box<dyn Future<Output = ()> + Send>>)
                .await
                .unwrap();
        }
        tokio::time::sleep(LENGTH).await;
    });
}

async fn gives_way(wait: &'static Wait) {
    const PARKED: Wait = Wait { reason: "futex", label: Some("sync-over-async"), wait: || () };
    let truth = BLOCKING.in_task("async fn corpus_tokio::gives_way");
    let handle = Handle::current();
    task::block_in_place(|| {
        // Another thread is a worker now.
        muster_workers(&handle, WORKERS, WORKER);
        truth.waits("allowed", wait).declare();
        (wait.wait)();
        truth.waits("allowed", &PARKED).declare();
        wait_for_future(&handle);
    });
    // Without its core it goes on as a thread of the blocking pool.
    BLOCKING.declare();
}

/// Two runtimes with workers in one process.
#[inline(never)]
fn two() {
    const ALPHA: Truth = Truth::idle("tokio/alpha", "worker");
    const BETA: Truth = Truth::idle("tokio/beta", "worker");
    let alpha = workers(Some("alpha"), 2);
    let beta = workers(Some("beta"), 2);
    muster_workers(alpha.handle(), 2, ALPHA);
    muster_workers(beta.handle(), 2, BETA);
    truth::ready();
    Truth::plain("futex", Some("channel")).declare();
    let (sender, receiver) = std::sync::mpsc::channel();
    for wait in waits::ALL.iter().take(3) {
        for (runtime, idle) in [(&alpha, ALPHA), (&beta, BETA)] {
            let sender = sender.clone();
            let task: Pin<Box<dyn Future<Output = ()> + Send>> =
                Box::pin(one_of_two(wait, idle, sender));
            runtime.spawn(task);
            receiver.recv().unwrap();
        }
    }
    // They do not end.
    std::mem::forget((alpha, beta));
}

async fn one_of_two(wait: &'static Wait, idle: Truth, done: std::sync::mpsc::Sender<()>) {
    idle.in_task("async fn corpus_tokio::one_of_two").waits("blocked", wait).declare();
    (wait.wait)();
    idle.declare();
    // Both the driver's thread and the other one have nothing to do for a while.
    tokio::time::sleep(LENGTH).await;
    done.send(()).unwrap();
}

/// A runtime that ends while one of its threads is still at work.
#[inline(never)]
fn shutdown() {
    let runtime = workers(None, WORKERS);
    muster_workers(runtime.handle(), WORKERS, WORKER);
    truth::ready();
    CALLER.declare();
    runtime.block_on(async {
        tokio::time::sleep(LENGTH).await;
        drop(on_blocking_thread(&SLEEP));
        task::spawn(spawned(&SLEEP));
    });
    drop(runtime);
}
