//! Threads that are there before the work and after it.
//!
//! The kernel's counters of a thread can be compared with a recording only where they were read
//! twice, both times while the thread was at rest.

use std::sync::Barrier;

/// Where the threads of a workload, and its main thread, wait for each other.
pub struct Stage(Barrier);

impl Stage {
    /// For this many threads beside the main thread.
    pub fn new(threads: usize) -> Self {
        Self(Barrier::new(threads + 1))
    }

    /// A thread's part: waits for the beginning, works, and stays until the end.
    pub fn play(&self, work: impl FnOnce()) {
        self.0.wait();
        work();
        self.0.wait();
        self.0.wait();
    }

    /// The main thread lets all threads begin.
    pub fn begin(&self) {
        self.0.wait();
    }

    /// The main thread waits until the last one has done its work.
    pub fn rest(&self) {
        self.0.wait();
    }

    /// The main thread lets all threads end.
    pub fn end(&self) {
        self.0.wait();
    }
}
