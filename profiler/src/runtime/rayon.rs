//! Rayon: a worker that waits in a job is blocked; one that waits for other workers' jobs is idle,
//! since it takes up whatever comes meanwhile.

use super::{
    Description, Reading, View,
    instances::Sign,
    marks::{Mark, Marks},
    meaning::State,
    plumbing,
    task::Job,
};

/// The description.
pub const RAYON: Description = Description { name: "rayon", read, plumbing: PLUMBING };

const MARKS: Marks = Marks {
    rows: &[
        // `join`, `scope` and `install` of a worker wait in it as well, below the job that called
        // them: a worker sleeps there only after it looked for jobs everywhere, and any new job
        // wakes it.
        (Mark::Idle, &["rayon_core::sleep::Sleep"], &["sleep"]),
        (Mark::Task, &["rayon_core::job"], &["execute", "run_inline"]),
        (Mark::Worker, &["rayon_core::registry::WorkerThread"], &["wait_until", "wait_until_cold"]),
        (Mark::Worker, &["rayon_core::registry"], &["main_loop"]),
        (Mark::Worker, &["rayon_core::registry::ThreadBuilder"], &["run"]),
    ],
    job: Job::Closure,
    carriers: &[(&["rayon_core::job::HeapJob"], &["execute"])],
};

/// The way to a job. `join` and `scope` are called by the user.
const PLUMBING: &[plumbing::Row] = &[
    (
        &["rayon_core::registry"],
        &["catch_unwind", "main_loop", "run", "wait_until", "wait_until_cold"],
    ),
    (&["rayon_core::job"], &["execute", "run_inline"]),
    (&["rayon_core::spawn"], &["spawn_job"]),
];

fn read(views: &[View<'_>]) -> Vec<Option<Reading>> {
    let mut readings = MARKS.read(views);
    for (view, reading) in views.iter().zip(&mut readings) {
        if let Some(reading) = reading.as_mut().filter(|reading| reading.state == State::Idle) {
            // What the workers of one pool sleep on is in one array.
            reading.instance = view.object.map(Sign::Near);
        }
    }
    readings
}
