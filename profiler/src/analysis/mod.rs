//! Sums, orderings and windows: a recording with names and meanings becomes a [`Report`].
//!
//! Never makes display strings and never knows a file format.

mod accounts;
mod deadlocks;
mod judge;
mod locks;
mod nameless;
mod objects;
mod polls;
mod pools;
mod queue;
pub mod report;
mod select;
mod sites;
mod stacks;
mod starvation;
mod wakers;

#[cfg(test)]
pub mod sample;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use anyhow::Result;
use profiler_common::counter::Counter;

pub use polls::LongPoll;
pub use report::Report;
pub use select::{Selection, default_states, select_states, without_plumbing};

use crate::{
    recording::{EndReason, Ending, RawFrame, Recording, StackCheck},
    symbols::SymbolTable,
    units::Ktime,
};

/// The report of a recording, all states, pools and threads.
///
/// # Errors
/// A recording that contradicts itself: totals that do not add up, or intervals that are longer
/// than the totals they are part of.
pub fn analyze(recording: &Recording, names: &SymbolTable) -> Result<Report> {
    analyze_selected(recording, names, &Selection::default())
}

/// The report of a recording, with the selected states, pools and threads only.
///
/// Curves and windows of starvation are always those of the whole pool.
///
/// # Errors
/// As [`analyze`]; and [`crate::failure::Failure::Usage`] for a pool or thread that is not in the
/// recording.
pub fn analyze_selected(
    recording: &Recording,
    names: &SymbolTable,
    selection: &Selection,
) -> Result<Report> {
    let accounts = accounts::accounts(recording)?;
    let stacks = stacks::Stacks::resolve(recording, names);
    let judged = judge::judge(recording, &accounts, &stacks);
    let quality = quality(recording, &stacks, &judged);
    let shown = selection.threads_of(&accounts)?;
    let pools::Numbers { pools, sites, starvation, long_polls, by_interval } =
        pools::numbers(recording, &accounts, &stacks, &judged, &shown, selection.long_poll)?;
    let locks::Found { locks, deadlocks } =
        locks::locks(recording, &accounts, &stacks, &judged, &by_interval);
    let report = Report {
        schema: report::SCHEMA,
        states: report::State::ALL.to_vec(),
        target: target(recording),
        host: host(recording),
        window: window(recording),
        quality,
        pools,
        sites,
        starvation,
        deadlocks,
        locks,
        long_polls,
        long_poll_ns: selection.long_poll.0.0,
        on_cpu: recording.sampling.map(|sampling| report::OnCpu {
            frequency: sampling.frequency,
            samples: recording.samples.len() as u64,
        }),
    };
    selection.apply(report)
}

/// The last instant that the recording knows of.
fn end(recording: &Recording) -> Ktime {
    match &recording.ending {
        Ending::Finished(end) => end.end,
        Ending::Unfinished { .. } => {
            let intervals = recording.intervals.iter().map(|interval| interval.in_);
            let totals = recording.totals.iter().map(|totals| totals.to);
            intervals.chain(totals).max().unwrap_or_default().max(recording.session.start)
        }
    }
}

fn target(recording: &Recording) -> report::Target {
    let target = &recording.session.target;
    report::Target {
        pid: target.pid.0,
        exe: target.exe.to_string_lossy().into_owned(),
        command: target.command.clone(),
        build_id: hex(&target.build_id),
        container: target.container.clone(),
    }
}

fn hex(bytes: &[u8]) -> Option<String> {
    let mut hex = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        write!(hex, "{byte:02x}").expect("a string takes whatever is written to it");
    }
    (!hex.is_empty()).then_some(hex)
}

fn host(recording: &Recording) -> report::Host {
    let host = &recording.session.host;
    report::Host { kernel: host.kernel.clone(), arch: host.arch.clone(), cpus: host.cpus }
}

fn window(recording: &Recording) -> report::Window {
    let session = &recording.session;
    let start = jiff::Timestamp::from_nanosecond(i128::from(session.start_unix_ns))
        .expect("an i64 of nanoseconds lies within the years that a timestamp can have");
    report::Window {
        start: format!("{start:.9}"),
        start_unix_ns: session.start_unix_ns,
        duration_ns: end(recording).since(session.start).0,
    }
}

fn end_reason(reason: EndReason) -> report::EndReason {
    match reason {
        EndReason::Duration => report::EndReason::Duration,
        EndReason::Interrupt => report::EndReason::Interrupt,
        EndReason::TargetEnded => report::EndReason::TargetEnded,
        EndReason::MaxSize => report::EndReason::MaxSize,
        EndReason::WriteFailed => report::EndReason::WriteFailed,
    }
}

fn quality(
    recording: &Recording,
    stacks: &stacks::Stacks<'_>,
    judged: &judge::Judged,
) -> report::Quality {
    let mut counters = recording.counters.0.clone();
    for counter in Counter::ALL {
        counters.entry(counter.name().to_owned()).or_insert(0);
    }
    let observer = match &recording.ending {
        Ending::Finished(end) => report::Observer {
            cpu_ns: end.observer.cpu.0,
            max_rss_bytes: end.observer.max_rss_bytes,
            kernel_map_bytes: end.observer.kernel_map_bytes,
            bpf_ns: end.observer.bpf.map(|bpf| bpf.0),
        },
        Ending::Unfinished { .. } => report::Observer::default(),
    };
    let options = &recording.session.options;
    report::Quality {
        intervals: recording.intervals.len() as u64,
        counters,
        user_stacks: judged.user_stacks.clone(),
        observer,
        unfinished: matches!(recording.ending, Ending::Unfinished { .. }),
        end: match &recording.ending {
            Ending::Finished(end) => Some(end_reason(end.reason)),
            Ending::Unfinished { .. } => None,
        },
        min_block_ns: options.min_block.0,
        hook: options.hook.clone(),
        throttled_ns: match &recording.ending {
            Ending::Finished(end) => end.throttled.map(|throttled| throttled.0),
            Ending::Unfinished { .. } => None,
        },
        nameless: nameless::modules(recording, stacks, judged),
        stack_check: recording.stack_check.as_ref().map(|check| stack_check(recording, check)),
    }
}

fn stack_check(recording: &Recording, check: &StackCheck) -> report::StackCheck {
    let frames = |frames: &[RawFrame]| {
        frames.iter().map(|frame| stacks::bare_place(recording, frame.address)).collect()
    };
    let differences = check.differences.iter().map(|difference| report::StackDifference {
        why: difference.why.clone(),
        count: difference.count,
        kernel: frames(&difference.kernel),
        check: frames(&difference.check),
    });
    report::StackCheck {
        compared: check.compared,
        equal: check.equal,
        prefix_equal: check.prefix_equal,
        different: check.different,
        why: check.why.clone(),
        differences: differences.collect(),
    }
}
