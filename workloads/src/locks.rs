//! Threads that want the same locks: a convoy, a pool that hangs, and much contention without harm.

use std::{
    hint::black_box,
    sync::{Arc, Barrier, Mutex, PoisonError},
    thread::{self, Builder},
    time::{Duration, Instant},
};

use anyhow::Result;
use serde::Serialize;

use crate::{
    control::{self, Control},
    workers,
};

/// Threads that queue.
const CONVOY: usize = 8;

/// How long the slow one holds the lock, and how long it leaves it alone: long enough for the others
/// to get it.
const HOLD: Duration = Duration::from_millis(20);
const LEAVE: Duration = Duration::from_millis(5);

/// What the others do between two turns.
const REST: Duration = Duration::from_millis(1);

/// Threads that contend for two locks.
const CONTENDERS: usize = 64;

const WORKERS: usize = 4;

/// Nothing is measured.
#[derive(Serialize)]
struct Nothing {}

/// Eight threads that take a lock for a moment, and one that keeps it: in a sleep, or computing.
pub fn convoy(computes: bool) -> Result<()> {
    let lock = Mutex::new(0_u64);
    let mut control = Control::ready()?;
    thread::scope(|scope| {
        for number in 0..CONVOY {
            Builder::new().name(format!("queuer-{number}")).spawn_scoped(scope, || {
                while !control::stopped() {
                    take_a_turn(&lock);
                    thread::sleep(REST);
                }
            })?;
        }
        Builder::new().name("slow".to_owned()).spawn_scoped(scope, || {
            while !control::stopped() {
                if computes {
                    hold_and_compute(&lock);
                } else {
                    hold_and_sleep(&lock);
                }
                thread::sleep(LEAVE);
            }
        })?;
        let stopped = control.wait_for_stop();
        control::stop();
        stopped
    })?;
    control.finish(&Nothing {})
}

#[inline(never)]
fn take_a_turn(lock: &Mutex<u64>) {
    *lock.lock().unwrap_or_else(PoisonError::into_inner) += 1;
}

#[inline(never)]
fn hold_and_sleep(lock: &Mutex<u64>) {
    let mut held = lock.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(HOLD);
    *held += 1;
}

#[inline(never)]
fn hold_and_compute(lock: &Mutex<u64>) {
    let mut held = lock.lock().unwrap_or_else(PoisonError::into_inner);
    let until = Instant::now() + HOLD;
    while Instant::now() < until {
        *held = black_box(*held).wrapping_mul(31);
    }
}

/// Threads that take two locks in the same order, and as many that take the second alone; every one
/// of them has both locks' addresses on its stack.
pub fn contend() -> Result<()> {
    let (first, second) = (Mutex::new(0), Mutex::new(0));
    let mut control = Control::ready()?;
    thread::scope(|scope| {
        for number in 0..CONTENDERS {
            let (first, second) = (&first, &second);
            scope.spawn(move || {
                while !control::stopped() {
                    if number % 2 == 0 {
                        take_both(first, second);
                    } else {
                        take_second(first, second);
                    }
                }
            });
        }
        let stopped = control.wait_for_stop();
        control::stop();
        stopped
    })?;
    control.finish(&Nothing {})
}

#[inline(never)]
fn take_both(first: &Mutex<u64>, second: &Mutex<u64>) {
    let mut held = first.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(Duration::from_micros(100));
    *second.lock().unwrap_or_else(PoisonError::into_inner) += *held;
    *held += 1;
    black_box((first, second));
}

#[inline(never)]
fn take_second(first: &Mutex<u64>, second: &Mutex<u64>) {
    let mut held = second.lock().unwrap_or_else(PoisonError::into_inner);
    thread::sleep(Duration::from_micros(50));
    *held += 1;
    black_box((first, second));
}

/// A pool all of whose workers wait for a lock that a sleeper keeps, from before `ready`.
pub fn hang() -> Result<()> {
    let lock = Arc::new(Mutex::new(0));
    let (kept, all_run) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(WORKERS + 1)));
    let keeper = (Arc::clone(&lock), Arc::clone(&kept));
    Builder::new().name("keeper".to_owned()).spawn(move || keep(&keeper.0, &keeper.1))?;
    kept.wait();
    let runtime = workers::runtime(WORKERS)?;
    for _ in 0..WORKERS {
        let (lock, all_run) = (Arc::clone(&lock), Arc::clone(&all_run));
        runtime.spawn(async move {
            all_run.wait();
            take_a_turn(&lock);
        });
    }
    all_run.wait();
    let mut control = Control::ready()?;
    control.wait_for_stop()?;
    control.finish(&Nothing {})?;
    // Its workers never end.
    runtime.shutdown_background();
    Ok(())
}

#[inline(never)]
fn keep(lock: &Mutex<u64>, kept: &Barrier) {
    let held = lock.lock().unwrap_or_else(PoisonError::into_inner);
    kept.wait();
    thread::sleep(Duration::from_secs(3600));
    drop(held);
}
