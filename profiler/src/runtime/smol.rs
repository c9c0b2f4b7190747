//! smol and async-std, which are the same executor, reactor and blocking pool under two names.

use super::{
    Description, Reading, View,
    marks::{Mark, Marks},
    names::crate_of,
    plumbing,
    task::Job,
};

/// smol.
pub const SMOL: Description = Description { name: "smol", read: read_smol, plumbing: PLUMBING };

/// async-std.
pub const ASYNC_STD: Description = Description {
    name: "async-std",
    read: read_async_std,
    plumbing: &[(&["async_std::task::builder"], &["poll"])],
};

const MARKS: Marks = Marks {
    rows: &[
        (Mark::Task, &["async_task::raw::RawTask"], &["run"]),
        (Mark::Park, &["async_io::reactor::ReactorLock"], &["react"]),
        (Mark::Park, &["parking"], &["park", "park_deadline", "park_timeout"]),
        (Mark::Driver, &["async_io::driver"], &["main_loop"]),
        (Mark::Blocking, &["blocking::Executor"], &["main_loop"]),
        (Mark::Worker, &["async_global_executor::threading"], &["thread_main_loop"]),
        (
            Mark::BlockOn,
            &["async_io::driver", "async_std::task", "futures_lite::future"],
            &["block_on"],
        ),
        (Mark::BlockOn, &["async_std::task::builder::Builder"], &["blocking"]),
    ],
    job: Job::Future,
    carriers: &[(&["async_task::raw::RawTask"], &["run"])],
};

/// The way to a task, of either name.
const PLUMBING: &[plumbing::Row] = &[
    (
        &["async_task::raw::RawTask", "async_executor", "blocking::Executor"],
        &["main_loop", "run", "tick"],
    ),
    (&["async_global_executor::threading"], &[]),
    (&["futures_lite::future"], &["poll"]),
];

/// Whoever waits for an event on a thread that may wait parks it in the same way.
const EVENTS: &str = "event_listener";

fn read_smol(views: &[View<'_>]) -> Vec<Option<Reading>> {
    if is_async_std(views) { vec![None; views.len()] } else { read(views) }
}

fn read_async_std(views: &[View<'_>]) -> Vec<Option<Reading>> {
    if is_async_std(views) { read(views) } else { vec![None; views.len()] }
}

fn read(views: &[View<'_>]) -> Vec<Option<Reading>> {
    let mut readings = MARKS.read(views);
    for (view, reading) in views.iter().zip(&mut readings) {
        let outside =
            reading.as_ref().is_some_and(|reading| !reading.under_task && reading.task.is_none());
        if outside && calls(view, &[EVENTS]) {
            *reading = None;
        }
    }
    readings
}

fn is_async_std(views: &[View<'_>]) -> bool {
    views.iter().any(|view| calls(view, &["async_std", "async_global_executor"]))
}

/// Whether a function of one of these crates is on the stack.
fn calls(view: &View<'_>, crates: &[&str]) -> bool {
    let Some(stack) = view.stack else { return false };
    let mut paths = stack.frames.iter().filter_map(|frame| frame.path.as_deref());
    paths.any(|path| crate_of(path).is_some_and(|name| crates.contains(&name)))
}
