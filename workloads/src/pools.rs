//! Two Tokio runtimes whose workers time every blocking call.

use std::{
    io::{self, PipeReader, Write},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use tokio::{runtime::Runtime, task};

use crate::{
    control::{self, Control},
    sites::{self, Site, Sums},
    workers,
};

/// How long a task holds what others wait for.
const HOLD: Duration = Duration::from_millis(3);

/// What a task waits for between two calls, without holding a worker.
const REST: Duration = Duration::from_millis(4);

/// The calls that block workers of the one and of the other runtime.
static BLOCKED: [Site; 2] = [Site::new("api"), Site::new("db")];

/// Workers of the one are named `api-worker`, those of the other `db-worker`.
pub fn run() -> Result<()> {
    let api = workers::named_runtime(4, "api-worker")?;
    let db = workers::named_runtime(2, "db-worker")?;
    let mut control = Control::ready()?;
    let works = [(&api, begin(&api, &BLOCKED[0])?), (&db, begin(&db, &BLOCKED[1])?)];
    let stopped = control.wait_for_stop();
    control::stop();
    for (runtime, tasks) in works {
        for task in tasks {
            runtime.block_on(task).context("a task panicked")?;
        }
    }
    stopped?;
    control.finish(&BLOCKED.iter().map(Site::sum).collect::<Sums>())
}

fn begin(runtime: &Runtime, blocked: &'static Site) -> Result<Vec<task::JoinHandle<()>>> {
    let (reader, mut writer) = io::pipe().context("cannot make a pipe")?;
    let asked = Arc::new(AtomicU64::new(0));
    let answered = Arc::clone(&asked);
    // Answers each reader some time after it asked.
    thread::Builder::new()
        .name("answers".to_owned())
        .spawn(move || {
            let mut seen = 0;
            loop {
                let now = answered.load(Ordering::Acquire);
                thread::sleep(HOLD);
                for _ in seen..now {
                    if writer.write_all(&[1]).is_err() {
                        return;
                    }
                }
                seen = now;
            }
        })
        .context("cannot start a thread")?;
    let shared = Arc::new(Mutex::new(0));
    let (held, wanted) = (Arc::clone(&shared), shared);
    let reader = Arc::new(Mutex::new(reader));
    Ok(vec![
        runtime.spawn(workers::repeat(REST, move || {
            let held = Arc::clone(&held);
            async move {
                let _guard = held.lock().expect("no thread panics with it");
                blocked.time(|| sites::block_worker(HOLD));
            }
        })),
        runtime.spawn(workers::repeat(REST, move || {
            let wanted = Arc::clone(&wanted);
            async move { drop(blocked.time(|| sites::lock_contended(&wanted))) }
        })),
        runtime.spawn(workers::repeat(REST, move || {
            let (reader, asked) = (Arc::clone(&reader), Arc::clone(&asked));
            async move { read_answer(blocked, &reader, &asked) }
        })),
        runtime.spawn(workers::repeat(REST, || async {
            let call = || sites::wait_in_blocking_pool(HOLD);
            task::spawn_blocking(call).await.expect("a thread that sleeps does not panic");
        })),
        runtime.spawn(workers::repeat(REST, || async {
            task::block_in_place(|| sites::wait_in_place(HOLD));
        })),
    ])
}

fn read_answer(site: &Site, reader: &Mutex<PipeReader>, asked: &AtomicU64) {
    let mut reader = reader.lock().expect("no thread panics with it");
    asked.fetch_add(1, Ordering::Release);
    site.time(|| sites::read_pipe(&mut *reader));
}
