//! Threads that share one CPU and want it most of the time.

use std::{
    hint, thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use nix::unistd::gettid;

use crate::{
    control::{self, Control},
    migrate, sites,
    stage::Stage,
};

const THREADS: usize = 3;

/// What a thread computes between two sleeps, on the clock: others run in between.
const BURST: Duration = Duration::from_millis(20);
const SLEEP: Duration = Duration::from_millis(5);

/// Runs until told to stop.
pub fn run() -> Result<()> {
    // The threads inherit it.
    let cpu = migrate::usable_cpus()?.into_iter().next().context("no CPU may be used")?;
    migrate::pin(gettid(), cpu)?;
    let stage = &Stage::new(THREADS);
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(move || stage.play(burn));
        }
        let control = Control::ready();
        stage.begin();
        let stopped = control.and_then(|mut control| control.wait_for_stop().map(|()| control));
        control::stop();
        stage.rest();
        let finished = stopped.and_then(|control| control.finish(&sites::sums()));
        stage.end();
        finished
    })
}

fn burn() {
    while !control::stopped() {
        let end = Instant::now() + BURST;
        while Instant::now() < end {
            hint::spin_loop();
        }
        sites::SLEEP_MIX.time(|| sites::sleep_mix(SLEEP));
    }
}
