//! Every place that waits, each a function that is found by its name, with the sum of its waits.
//!
//! `black_box` after the wait keeps it from being a tail call, which would leave no frame.

use std::{
    collections::BTreeMap,
    hint::black_box,
    io::Read,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::resource::{UsageWho, getrusage},
    time::{ClockId, clock_gettime},
};
use serde::{Deserialize, Serialize};

/// How often a site was called and how long the calls took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Sum {
    /// Calls that returned.
    pub count: u64,
    /// Calls in which the thread gave up its CPU, by the kernel's count of its voluntary switches.
    /// Seldom a sleep is not one: the thread is preempted on its way off the CPU until its time is
    /// up.
    pub waits: u64,
    /// What the calls took by `CLOCK_MONOTONIC`, less the CPU time that the thread had meanwhile: the
    /// time off the CPU, waiting or in the run queue.
    pub total_ns: u64,
}

/// Sums by the name of the site's function.
pub type Sums = BTreeMap<String, Sum>;

/// One function that waits.
pub struct Site {
    name: &'static str,
    count: AtomicU64,
    waits: AtomicU64,
    total_ns: AtomicU64,
}

impl Site {
    /// One that was not called yet.
    pub const fn new(name: &'static str) -> Self {
        Self {
            name,
            count: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            total_ns: AtomicU64::new(0),
        }
    }

    /// What it measured so far, by its name.
    pub fn sum(&self) -> (String, Sum) {
        let count = self.count.load(Ordering::Relaxed);
        let waits = self.waits.load(Ordering::Relaxed);
        let total_ns = self.total_ns.load(Ordering::Relaxed);
        (self.name.to_owned(), Sum { count, waits, total_ns })
    }

    /// Calls the function and adds how long it was off the CPU.
    pub fn time<T>(&self, call: impl FnOnce() -> T) -> T {
        let switches = voluntary_switches();
        let (start, start_cpu) = (Instant::now(), cpu_time());
        let value = call();
        let off = (start.elapsed() + start_cpu).saturating_sub(cpu_time());
        self.count.fetch_add(1, Ordering::Relaxed);
        let waited = voluntary_switches() > switches;
        self.waits.fetch_add(u64::from(waited), Ordering::Relaxed);
        self.total_ns.fetch_add(off.as_nanos() as u64, Ordering::Relaxed);
        value
    }
}

/// The CPU time of the calling thread so far.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock");
    time.into()
}

/// How often the calling thread gave up its CPU so far.
fn voluntary_switches() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_THREAD).expect("Linux counts each thread");
    usage.voluntary_context_switches()
}

macro_rules! sites {
    ($($site:ident = $function:ident),+ $(,)?) => {
        $(
            #[doc = concat!("The calls of [`", stringify!($function), "`].")]
            pub static $site: Site =
                Site::new(concat!(module_path!(), "::", stringify!($function)));
        )+

        static ALL: &[&Site] = &[$(&$site),+];
    };
}

sites! {
    SLEEP_MIX = sleep_mix,
    SLEEP_LATE = sleep_late,
    SLEEP_PINNED = sleep_pinned,
    SLEEP_MIGRATING = sleep_migrating,
    SLEEP_ONCE = sleep_once,
    SLEEP_HOLDING = sleep_holding,
    LOCK_CONTENDED = lock_contended,
    READ_PIPE = read_pipe,
    READ_SOCKET = read_socket,
    BLOCK_WORKER = block_worker,
    BLOCK_ALONE = block_alone,
    WAIT_IN_BLOCKING_POOL = wait_in_blocking_pool,
    WAIT_IN_PLACE = wait_in_place,
}

/// The sums of the sites that were called.
pub fn sums() -> Sums {
    ALL.iter().map(|site| site.sum()).filter(|(_, sum)| sum.count > 0).collect()
}

macro_rules! sleeps {
    ($($(#[$doc:meta])+ $function:ident),+ $(,)?) => {
        $(
            $(#[$doc])+
            #[inline(never)]
            pub fn $function(length: Duration) {
                thread::sleep(length);
                black_box(());
            }
        )+
    };
}

sleeps! {
    /// Sleeps on a thread that was there from the beginning.
    sleep_mix,
    /// Sleeps on a thread that started during the run.
    sleep_late,
    /// Sleeps on a thread that stays on its CPU.
    sleep_pinned,
    /// Sleeps on a thread that is moved meanwhile.
    sleep_migrating,
    /// Sleeps on a thread that ends then.
    sleep_once,
    /// Sleeps with a lock held.
    sleep_holding,
    /// Sleeps in a task on a worker of a pool.
    block_worker,
    /// Sleeps in a task on a runtime of one thread.
    block_alone,
    /// Sleeps on a thread of a blocking pool.
    wait_in_blocking_pool,
    /// Sleeps on a worker that told the pool so.
    wait_in_place,
}

/// Waits for a lock that others hold.
#[inline(never)]
pub fn lock_contended(lock: &Mutex<u64>) -> MutexGuard<'_, u64> {
    let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
    black_box(guard)
}

/// Waits for one byte of a pipe; false at its end.
#[inline(never)]
pub fn read_pipe(pipe: &mut impl Read) -> bool {
    black_box(pipe.read(&mut [0]).is_ok_and(|bytes| bytes > 0))
}

/// Waits for one byte of a socket; false at its end.
#[inline(never)]
pub fn read_socket(socket: &mut impl Read) -> bool {
    black_box(socket.read(&mut [0]).is_ok_and(|bytes| bytes > 0))
}
