//! Threads that wait forever before anybody looks: two for each other's lock, one in a sleep.

use std::{
    hint::black_box,
    sync::{
        Arc, Barrier, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::Builder,
    time::Duration,
};

use anyhow::Result;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use crate::control::Control;

/// When the sleeper fell asleep, on `CLOCK_MONOTONIC`.
static SLEPT_AT_NS: AtomicU64 = AtomicU64::new(0);

/// What is known of them.
#[derive(Serialize)]
struct Known {
    slept_at_ns: u64,
}

/// All are started before `ready`; none of them ever ends.
pub fn run() -> Result<()> {
    let (left, right) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(())));
    let both_hold = Arc::new(Barrier::new(3));
    let pair = [
        ("left-first", Arc::clone(&left), Arc::clone(&right)),
        ("right-first", Arc::clone(&right), Arc::clone(&left)),
    ];
    for (name, first, second) in pair {
        let both_hold = Arc::clone(&both_hold);
        Builder::new().name(name.to_owned()).spawn(move || {
            let held = first.lock().unwrap_or_else(PoisonError::into_inner);
            both_hold.wait();
            lock_other(&second);
            drop(held);
        })?;
    }
    Builder::new().name("sleeper".to_owned()).spawn(sleep_long)?;
    both_hold.wait();
    let mut control = Control::ready()?;
    control.wait_for_stop()?;
    control.finish(&Known { slept_at_ns: SLEPT_AT_NS.load(Ordering::Relaxed) })
}

#[inline(never)]
fn lock_other(other: &Mutex<()>) {
    drop(other.lock().unwrap_or_else(PoisonError::into_inner));
    black_box(());
}

#[inline(never)]
fn sleep_long() {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from);
    SLEPT_AT_NS.store(now.as_nanos() as u64, Ordering::Relaxed);
    std::thread::sleep(Duration::from_secs(3600));
    black_box(());
}
