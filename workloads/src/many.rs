//! Many threads: one after the other, or all at once.

use std::{thread, time::Duration};

use anyhow::{Context, Result};

use crate::{
    control::{self, Control},
    sites, truth,
};

/// Threads born together, and the pause before the next: 400 a second.
const LITTER: usize = 4;
const PAUSE: Duration = Duration::from_millis(10);

/// Enough for a thread that only parks.
const SMALL_STACK: usize = 64 * 1024;

/// Threads that come, sleep once and go.
pub fn churn() -> Result<()> {
    let mut control = Control::ready()?;
    thread::scope(|scope| {
        scope.spawn(|| {
            while !control::stopped() {
                for _ in 0..LITTER {
                    scope.spawn(|| {
                        let length = Duration::from_millis(2);
                        sites::SLEEP_ONCE.time(|| sites::sleep_once(length));
                    });
                }
                thread::sleep(PAUSE);
            }
        });
        let stopped = control.wait_for_stop();
        control::stop();
        stopped
    })?;
    control.finish(&sites::sums())
}

/// `threads` parked ones, all started before `ready`, and one that sleeps.
pub fn crowd(threads: usize) -> Result<()> {
    for number in 0..threads {
        thread::Builder::new()
            .stack_size(SMALL_STACK)
            .spawn(|| {
                loop {
                    thread::park();
                }
            })
            .with_context(|| format!("cannot start thread {number} of {threads}"))?;
    }
    let mut control = Control::ready()?;
    thread::scope(|scope| {
        scope.spawn(|| {
            truth::sleep_in_turn(|length| sites::SLEEP_MIX.time(|| sites::sleep_mix(length)));
        });
        let stopped = control.wait_for_stop();
        control::stop();
        stopped
    })?;
    control.finish(&sites::sums())
}
