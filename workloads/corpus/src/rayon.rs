//! Rayon: jobs that wait, workers with nothing to do, and workers that wait for others' jobs.

mod truth;
mod waits;

use std::sync::mpsc;

use rayon::{ThreadPool, ThreadPoolBuilder};
use truth::{muster, Truth};
use waits::{Wait, LENGTH, SLEEP};

const WORKERS: usize = 3;
const WORKER: Truth = Truth::idle("rayon/only", "worker");
/// A thread of no pool may wait for one.
const CALLER: Truth = Truth::plain("futex", Some("condvar"));

fn main() {
    waits::start_name_server();
    match std::env::args().nth(1).as_deref() {
        Some("pool") => own_pool(),
        Some("global") => global(),
        Some("two") => two(),
        other => panic!("no flavour {other:?}"),
    }
    truth::finish();
}

fn pool(name: &'static str, workers: usize, truth: Truth) -> ThreadPool {
    let builder = ThreadPoolBuilder::new().num_threads(workers);
    let pool = builder.thread_name(move |index| format!("{name}-{index}")).build().unwrap();
    muster(workers, truth, |say| pool.spawn(say));
    pool
}

#[inline(never)]
fn job(idle: Truth, wait: &Wait) {
    idle.in_task("corpus_rayon::job").waits("blocked", wait).declare();
    (wait.wait)();
    idle.declare();
}

#[inline(never)]
fn own_pool() {
    let pool = pool("crunch", WORKERS, WORKER);
    truth::ready();
    let (sender, receiver) = mpsc::channel();
    for wait in waits::ALL {
        let sender = sender.clone();
        Truth::plain("futex", Some("channel")).declare();
        pool.spawn(move || {
            job(WORKER, wait);
            sender.send(()).unwrap();
        });
        receiver.recv().unwrap();
    }
    // The caller waits for all of it.
    CALLER.declare();
    pool.install(|| {
        // The first half ends at once; its worker looks for other work until the second one ends.
        rayon::join(|| WORKER.declare(), || job(WORKER, &SLEEP));
        // The worker that opened the scope looks for other work as well.
        rayon::scope(|scope| {
            scope.spawn(|_| job(WORKER, &SLEEP));
            scope.spawn(|_| job(WORKER, &SLEEP));
            WORKER.declare();
        });
    });
    std::mem::forget(pool);
}

#[inline(never)]
fn global() {
    muster(rayon::current_num_threads(), WORKER, |say| rayon::spawn(say));
    truth::ready();
    CALLER.declare();
    rayon::broadcast(|_| job(WORKER, &SLEEP));
    SLEEP_OUTSIDE.declare();
    std::thread::sleep(LENGTH);
}

const SLEEP_OUTSIDE: Truth = Truth::plain("sleep", None);

#[inline(never)]
fn two() {
    const ALPHA: Truth = Truth::idle("rayon/alpha", "worker");
    const BETA: Truth = Truth::idle("rayon/beta", "worker");
    let pools = [(pool("alpha", 2, ALPHA), ALPHA), (pool("beta", 2, BETA), BETA)];
    truth::ready();
    CALLER.declare();
    for wait in waits::ALL.iter().take(2) {
        for (pool, truth) in &pools {
            pool.install(|| job(*truth, wait));
        }
    }
    std::mem::forget(pools);
}
