//! smol: its global executor, an executor on threads of the program's own, and its blocking pool.

mod truth;
mod waits;

use std::{future::Future, pin::Pin, thread};

use truth::{muster, thread_named, Truth};
use waits::{Wait, LENGTH, SLEEP};

const POOL: &str = "smol/only";
const WORKER: Truth = Truth::idle(POOL, "worker");
const BLOCKING: Truth = Truth::idle(POOL, "blocking");
const CALLER: Truth = Truth::idle(POOL, "other");

type Boxed = Pin<Box<dyn Future<Output = ()> + Send>>;

fn main() {
    std::env::set_var("SMOL_THREADS", "3");
    waits::start_name_server();
    match std::env::args().nth(1).as_deref() {
        Some("global") => global(),
        Some("own-threads") => own_threads(),
        other => panic!("no flavour {other:?}"),
    }
    truth::finish();
}

async fn handle(wait: &'static Wait) {
    WORKER.in_task("async fn corpus_smol::handle").waits("blocked", wait).declare();
    (wait.wait)();
    WORKER.declare();
}

#[inline(never)]
fn job() {
    BLOCKING.in_task("corpus_smol::job").waits("allowed", &SLEEP).declare();
    (SLEEP.wait)();
    BLOCKING.declare();
}

/// The reactor's own thread runs nothing else.
fn start_reactor() {
    smol::block_on(smol::Timer::after(LENGTH));
    CALLER.declare_of(thread_named("async-io"));
}

#[inline(never)]
fn global() {
    muster(3, WORKER, |say| smol::spawn(Box::pin(async move { say() }) as Boxed).detach());
    start_reactor();
    truth::ready();
    CALLER.declare();
    smol::block_on(async {
        for wait in waits::ALL {
            smol::spawn(Box::pin(handle(wait)) as Boxed).await;
        }
        smol::unblock(job).await;
        smol::Timer::after(LENGTH).await;
        Truth { state: "allowed", ..CALLER }.waits("allowed", &SLEEP).declare();
        (SLEEP.wait)();
        CALLER.declare();
    });
}

#[inline(never)]
fn own_threads() {
    let executor: &'static smol::Executor<'static> = Box::leak(Box::new(smol::Executor::new()));
    for number in 0..3 {
        let body = move || smol::block_on(executor.run(std::future::pending::<()>()));
        thread::Builder::new().name(format!("own-{number}")).spawn(body).unwrap();
    }
    muster(3, WORKER, |say| executor.spawn(Box::pin(async move { say() }) as Boxed).detach());
    start_reactor();
    truth::ready();
    for wait in waits::ALL {
        let (sender, receiver) = std::sync::mpsc::channel();
        Truth::plain("futex", Some("channel")).declare();
        let task: Boxed = Box::pin(handle_and_tell(wait, sender));
        executor.spawn(task).detach();
        receiver.recv().unwrap();
    }
}

async fn handle_and_tell(wait: &'static Wait, done: std::sync::mpsc::Sender<()>) {
    WORKER.in_task("async fn corpus_smol::handle_and_tell").waits("blocked", wait).declare();
    (wait.wait)();
    WORKER.declare();
    done.send(()).unwrap();
}
