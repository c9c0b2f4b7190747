//! Taking what the ring buffer holds, also while the kernel visits every thread.

use std::{
    io, thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::maps::{MapData, RingBuf};

use super::collect::Collector;
use crate::{
    kernel::load::{Progress, Visit},
    recording::file::WriteError,
    units::{Ktime, Nanos},
};

/// Records taken before timers and signals are looked at again.
const BATCH: usize = 4096;

/// How long a record can be on its way from its capture into the ring buffer; far more than it is.
const ON_THE_WAY: Nanos = Nanos(1_000_000_000);

/// How long a visit may take: it can block on a process whose memory cannot be read, on a file
/// system that hangs.
const VISIT_LIMIT: Duration = Duration::from_secs(5);

/// How often the ring buffer is looked at during a visit.
const VISIT_STEP: Duration = Duration::from_millis(1);

/// What was taken at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All that there was.
    All,
    /// As much as is taken at once.
    Some,
}

/// Takes up to [`BATCH`] records.
///
/// # Errors
/// At the first fact that the recording refuses.
pub fn take(events: &mut RingBuf<MapData>, collector: &mut Collector) -> Result<Taken, WriteError> {
    let begun = super::clock::now();
    for _ in 0..BATCH {
        let Some(item) = events.next() else {
            collector.taken_until(Ktime(begun.0.saturating_sub(ON_THE_WAY.0)));
            return Ok(Taken::All);
        };
        collector.take(&item)?;
    }
    Ok(Taken::Some)
}

/// Takes every record that is there, after the end of the window.
///
/// No more than a ring buffer of `ring_bytes` can hold at once: processes that are born go on being
/// told, and a target that forks all the time would tell of more forever.
///
/// # Errors
/// If the recording cannot be written at all.
pub fn take_all(
    events: &mut RingBuf<MapData>,
    collector: &mut Collector,
    ring_bytes: u32,
) -> Result<()> {
    /// What the ring buffer puts before each record.
    const HEADER_BYTES: usize = 8;
    let mut taken = 0;
    while taken < ring_bytes as usize
        && let Some(item) = events.next()
    {
        taken += item.len().next_multiple_of(8) + HEADER_BYTES;
        tolerate(collector.take(&item))?;
    }
    Ok(())
}

/// Takes up to [`BATCH`] records and tells whether there may be more. A full recording refuses some
/// and still takes those that finish it: refusals for want of room are not failures here.
fn take_batch(events: &mut RingBuf<MapData>, collector: &mut Collector) -> Result<bool> {
    for _ in 0..BATCH {
        let Some(item) = events.next() else { return Ok(false) };
        tolerate(collector.take(&item))?;
    }
    Ok(true)
}

/// Pays a visit while taking what it sends: it can be more than the ring buffer holds, and then
/// waits until there is room.
///
/// # Errors
/// If the visit fails or takes too long, or the recording cannot be written at all.
pub fn take_during(
    mut visit: Visit,
    events: &mut RingBuf<MapData>,
    collector: &mut Collector,
) -> Result<()> {
    // A visit that hangs cannot be broken off; its thread is left behind.
    let visitor = thread::Builder::new()
        .name("visit".to_owned())
        .spawn(move || {
            while visit.go_on()? == Progress::NoRoom {
                thread::sleep(VISIT_STEP);
            }
            io::Result::Ok(())
        })
        .context("cannot start a thread")?;
    let begun = Instant::now();
    // While the window is open a target can send faster than this takes: never until it is empty.
    while !visitor.is_finished() {
        let more = take_batch(events, collector)?;
        if begun.elapsed() > VISIT_LIMIT {
            bail!("the kernel could not visit every thread within {VISIT_LIMIT:?}");
        }
        if !more {
            thread::sleep(VISIT_STEP);
        }
    }
    match visitor.join() {
        Ok(visited) => visited.context("the kernel broke off its visit of every thread"),
        Err(_) => bail!("the thread that visits every thread panicked"),
    }
}

/// Lets pass that a recording has no room.
///
/// # Errors
/// Those that are no want of room.
pub fn tolerate<T>(result: Result<T, WriteError>) -> Result<()> {
    match result {
        Ok(_) | Err(WriteError::LimitReached { .. } | WriteError::Full { .. }) => Ok(()),
        Err(error @ WriteError::Io { .. }) => Err(error.into()),
    }
}
