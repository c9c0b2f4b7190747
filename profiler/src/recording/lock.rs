//! What stood in the memory of a process about the futexes that its threads still waited for when
//! the window had ended.
//!
//! Encoded as the rest of [`super::facts`]: append only.

use serde::{Deserialize, Serialize};

use crate::units::{Avma, Ktime, Pid, Tid};

/// A futex, looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Futex {
    /// When it was looked at.
    pub at: Ktime,
    /// The process.
    pub pid: Pid,
    /// Where it is.
    pub address: Avma,
    /// Its value.
    pub value: u32,
    /// The thread of the process whose id, in its own PID namespace, stands 8 bytes further: in a
    /// `pthread_mutex_t` of glibc that is its owner, anywhere else it is an accident. A thread that
    /// has moved since its last stack was taken is left out.
    pub owner: Option<Tid>,
}

/// A live part of a thread's stack held the address of a futex, or the one 4 bytes before it: that
/// of a lock which begins with another word. The thread has not moved since its last stack was
/// taken, or was not asleep then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reference {
    /// When its stack was read.
    pub at: Ktime,
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// The address that it held.
    pub address: Avma,
}

/// The stacks of a process were searched for such addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Search {
    /// When that was over.
    pub at: Ktime,
    /// The process.
    pub pid: Pid,
    /// How many threads' stacks were searched.
    pub searched: u32,
    /// How many were not: they ran all the time, moved meanwhile, or there was no time left.
    pub missed: u32,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockFacts {
    /// Futexes.
    pub futexes: Vec<Futex>,
    /// Who had their addresses on its stack.
    pub references: Vec<Reference>,
    /// In how many stacks that was looked for.
    pub searches: Vec<Search>,
}
