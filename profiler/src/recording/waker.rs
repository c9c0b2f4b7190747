//! Who ended waits.
//!
//! Encoded as the rest of [`super::facts`]: append only.

use serde::{Deserialize, Serialize};

use super::facts::{KernelStackId, UserStackId};
use crate::units::{Ktime, Pid, Tid};

/// Number of a waker within a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct WakerId(pub u32);

/// What ended waits, given a number the first time it is seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Waker {
    /// In what context of the kernel the wake-up was made.
    pub context: WakeContext,
    /// The thread that was current: the one that made the wake-up, or one that an interrupt
    /// interrupted. `None` where it was surely interrupted.
    pub thread: Option<WakerThread>,
    /// Its user stack, where one was taken.
    pub user_stack: Option<UserStackId>,
    /// The kernel stack, where one was taken.
    pub kernel_stack: Option<KernelStackId>,
}

/// In what context of the kernel a wake-up was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum WakeContext {
    /// By the current thread, in a system call or a fault.
    Thread,
    /// In a softirq: behind an interrupt, or at the end of what the current thread did.
    Softirq,
    /// In an interrupt.
    Interrupt,
    /// The kernel does not let itself be asked.
    Unknown,
}

/// A thread that wakes others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct WakerThread {
    /// Its process; that of a kernel thread is itself.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// Its name, up to 15 bytes.
    pub name: String,
    /// The name of its process, where it is not watched and could be asked in time.
    pub process: Option<String>,
}

/// A wait was ended: the next interval of the thread in the file whose wake-up was at that instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Woken {
    /// When.
    pub at: Ktime,
    /// The process of the thread that waited.
    pub pid: Pid,
    /// The thread that waited.
    pub tid: Tid,
    /// By what.
    pub waker: WakerId,
}
