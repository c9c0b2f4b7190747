//! Which kind of lock a thread waits for: what the function nearest to the kernel belongs to.
//!
//! A label says what a wait is for; this says whose futex it is on. A thread that was notified and
//! waits for its mutex again is in a condition variable by its label, and waits for a lock.

use super::{
    labels::{c_function, label_of},
    names,
    stack::Frame,
};

/// What a thread waits for that only a holder can give.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lock {
    /// A `pthread_mutex_t`: its owner is written beside its futex.
    PthreadMutex,
    /// A mutex whose guard is its address.
    Mutex,
    /// A read-write lock; several threads can hold it.
    RwLock,
    /// A lock whose futex is not its own but one of the thread that waits.
    Parked,
}

impl Lock {
    /// What people call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PthreadMutex | Self::Mutex | Self::Parked => "mutex",
            Self::RwLock => "rwlock",
        }
    }
}

/// The lock that a stack waits for, its functions leaf first; `None` if it waits for something else.
pub fn lock<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Option<Lock> {
    // The C library's own way to wait for any of its locks: who calls it says for which.
    let mut low_level = None;
    for path in frames.into_iter().filter_map(|frame| frame.path.as_deref()) {
        if c_function(path).is_some_and(|function| function.starts_with("lll_lock_wait")) {
            low_level = Some(Lock::Mutex);
            continue;
        }
        let parks = names::crate_of(path) == Some("parking_lot");
        match label_of(path) {
            Some("mutex" | "rwlock") if parks => return Some(Lock::Parked),
            Some("mutex") if c_function(path).is_some() => return Some(Lock::PthreadMutex),
            Some("mutex") => return Some(Lock::Mutex),
            Some("rwlock") => return Some(Lock::RwLock),
            Some(_) => return low_level,
            None if names::is_user_code(path) => return low_level,
            None => {}
        }
    }
    low_level
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recording::CodeAddress, units::Avma};

    const RUST: &str = "std::sys::sync::mutex::futex::Mutex::lock_contended";

    #[test]
    fn the_function_nearest_to_the_kernel_says_whose_futex_it_is() {
        let check = |functions: &[&str], expected: Option<Lock>| {
            let frame = |name: &&str| {
                Frame::new(CodeAddress::Memory(Avma(0)), Some(name), None, Some("/usr/bin/orders"))
            };
            let frames: Vec<Frame> = functions.iter().map(frame).collect();
            assert_eq!(lock(&frames), expected, "{functions:?}");
        };
        check(&["syscall", RUST, "orders::pay"], Some(Lock::Mutex));
        let wait = "std::sys::sync::condvar::futex::Condvar::wait";
        check(&["syscall", wait, "std::sync::poison::condvar::Condvar::wait", "orders::pay"], None);
        check(&["syscall", RUST, wait, "orders::pay"], Some(Lock::Mutex));
        check(
            &["syscall", "std::sys::sync::rwlock::futex::RwLock::read_contended", "orders::pay"],
            Some(Lock::RwLock),
        );
        check(&["__lll_lock_wait", "___pthread_mutex_lock", "pay"], Some(Lock::PthreadMutex));
        check(&["__lll_lock_wait_private", "malloc", "pay"], Some(Lock::Mutex));
        check(&["__lll_lock_wait", "pthread_cond_wait", "pay"], Some(Lock::Mutex));
        check(&["__futex_abstimed_wait_common", "pthread_cond_wait", "pay"], None);
        check(
            &["syscall", "parking_lot::raw_mutex::RawMutex::lock_slow", "orders::pay"],
            Some(Lock::Parked),
        );
        // What the caller holds is nothing that is waited for.
        check(&["syscall", "orders::park", "std::sync::poison::mutex::Mutex::lock"], None);
        check(&["syscall", "std::thread::park", "orders::pay"], None);
    }
}
