//! What each thread says of itself before it waits: the labels of the corpus.

use std::{
    io::{BufRead, Write},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc, Mutex,
    },
};

/// What a thread's waits are from now on.
#[derive(Clone, Copy)]
pub struct Truth {
    /// The runtime, `/`, and a name for the instance; `none` for no runtime.
    pub pool: &'static str,
    pub role: &'static str,
    pub state: &'static str,
    /// What the kernel is asked to wait for; `None` where the runtime chooses.
    pub reason: Option<&'static str>,
    pub label: Option<&'static str>,
    pub task: Option<&'static str>,
}

impl Truth {
    /// A thread with nothing to do.
    pub const fn idle(pool: &'static str, role: &'static str) -> Self {
        Self { pool, role, state: "idle", reason: None, label: None, task: None }
    }

    /// A thread of no runtime.
    pub const fn plain(reason: &'static str, label: Option<&'static str>) -> Self {
        let reason = Some(reason);
        Self { pool: "none", role: "other", state: "allowed", reason, label, task: None }
    }

    /// The same with what the wait is.
    pub const fn waits(self, state: &'static str, wait: &crate::waits::Wait) -> Self {
        Self { state, reason: Some(wait.reason), label: wait.label, ..self }
    }

    pub const fn in_task(self, task: &'static str) -> Self {
        Self { task: Some(task), ..self }
    }

    /// Says it of the calling thread.
    pub fn declare(self) {
        // SAFETY: takes nothing.
        self.declare_of(unsafe { libc::gettid() });
    }

    /// Says it of a thread of a library's own, on which nothing else can run.
    pub fn declare_of(self, tid: i32) {
        loop {
            // What is said must not be a wait itself.
            let Ok(mut said) = SAID.try_lock() else {
                std::thread::yield_now();
                continue;
            };
            return said.push((now(), tid, self));
        }
    }
}

const STDIN: Truth = Truth::plain("pipe", None);

static SAID: Mutex<Vec<(u64, i32, Truth)>> = Mutex::new(Vec::new());

/// Nanoseconds of the clock that recordings go by.
fn now() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a timespec of this frame.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Says that this process can be recorded, and waits to be told to go on.
pub fn ready() {
    STDIN.declare();
    println!("ready {}", std::process::id());
    hear();
}

/// Once it is asked for, prints everything that was said, and ends when the test hangs up.
pub fn finish() -> ! {
    STDIN.declare();
    hear();
    let said = SAID.lock().unwrap();
    let lines: Vec<String> = said.iter().map(|(at, tid, truth)| json(*at, *tid, truth)).collect();
    println!("[{}]", lines.join(","));
    std::io::stdout().flush().unwrap();
    hear();
    std::process::exit(0);
}

fn hear() {
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

fn json(at: u64, tid: i32, truth: &Truth) -> String {
    let text = |text: Option<&str>| text.map_or("null".to_owned(), |text| format!("{text:?}"));
    let Truth { pool, role, state, reason, label, task } = truth;
    format!(
        "[{at},{tid},{pool:?},{role:?},{state:?},{},{},{}]",
        text(*reason),
        text(*label),
        text(*task)
    )
}

/// Lets every one of `workers` threads that take up what `spawn` is given say that it is idle.
///
/// They do not wait for one another: that would be a wait.
pub fn muster(workers: usize, truth: Truth, mut spawn: impl FnMut(Box<dyn FnOnce() + Send>)) {
    let arrived = Arc::new(AtomicUsize::new(0));
    let all = move |arrived: &AtomicUsize| {
        while arrived.load(Ordering::Acquire) < workers {
            std::thread::yield_now();
        }
    };
    for _ in 0..workers {
        let arrived = arrived.clone();
        spawn(Box::new(move || {
            truth.declare();
            arrived.fetch_add(1, Ordering::AcqRel);
            all(&arrived);
        }));
    }
    all(&arrived);
}

/// The thread of this process by this name, once there is one.
#[allow(dead_code, reason = "not every runtime has threads of its own that run nothing of others")]
pub fn thread_named(name: &str) -> i32 {
    loop {
        let mut entries = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let named = entries.find(|entry| {
            let comm = std::fs::read_to_string(entry.path().join("comm"));
            comm.is_ok_and(|comm| comm.trim() == name)
        });
        if let Some(entry) = named {
            return entry.file_name().to_str().unwrap().parse().unwrap();
        }
        std::thread::yield_now();
    }
}
