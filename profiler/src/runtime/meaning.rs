//! The closed sets in which a wait is described: state, role, reason, and the pool it belongs to.

use serde::Serialize;

use crate::units::Tid;

/// What a waiting or run-queue interval means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Wanted a CPU all along.
    Runnable,
    /// Parked by its runtime for lack of work.
    Idle,
    /// Waiting inside a task on a thread that must not wait.
    Blocked,
    /// Waiting where waiting is right.
    Allowed,
    /// Nothing can be said.
    Unknown,
}

impl State {
    /// Every state.
    pub const ALL: &'static [Self] =
        &[Self::Runnable, Self::Idle, Self::Blocked, Self::Allowed, Self::Unknown];

    /// Its name in every output and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Runnable => "runnable",
            Self::Idle => "idle",
            Self::Blocked => "blocked",
            Self::Allowed => "allowed",
            Self::Unknown => "unknown",
        }
    }
}

/// A thread's part in its pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Runs tasks; must not wait.
    Worker,
    /// Runs what may wait.
    Blocking,
    /// Anything else.
    Other,
}

impl Role {
    /// Its name in every output.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Worker => "worker",
            Self::Blocking => "blocking",
            Self::Other => "other",
        }
    }
}

/// What the kernel was asked to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// A length of time.
    Sleep,
    /// A futex: a lock, a condition variable, a parked thread.
    Futex,
    /// A socket.
    Socket,
    /// A pipe.
    Pipe,
    /// A file or a terminal, not in disk wait.
    File,
    /// A disk.
    Disk,
    /// One of several file descriptors.
    Poll,
    /// A page of memory.
    PageFault,
    /// Another process.
    Process,
    /// System V or POSIX inter-process communication.
    Ipc,
    /// It was stopped or traced.
    Stopped,
    /// Anything else.
    Other,
}

impl Reason {
    /// Every reason.
    pub const ALL: &'static [Self] = &[
        Self::Sleep,
        Self::Futex,
        Self::Socket,
        Self::Pipe,
        Self::File,
        Self::Disk,
        Self::Poll,
        Self::PageFault,
        Self::Process,
        Self::Ipc,
        Self::Stopped,
        Self::Other,
    ];
}

/// What one wait means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meaning {
    /// Its state; never [`State::Runnable`], which needs no stack to be told.
    pub state: State,
    /// The thread's role at that moment, where the stack shows it. A thread can change its role.
    pub role: Option<Role>,
    /// What the stack means beyond the reason.
    pub label: Option<&'static str>,
    /// The future or closure that was running.
    pub task: Option<String>,
    /// Functions had no names: it follows from the structure of the process's stacks.
    pub inferred: bool,
}

/// Which threads share a pool, within one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// All that the runtime has in the process, as far as can be seen one instance.
    Process,
    /// The same, of several instances that cannot be told apart.
    Several,
    /// One instance of several; the number is no other one's.
    Instance(u64),
    /// A runtime that lives on this one thread.
    Thread(Tid),
}

impl Scope {
    /// Whether it is no runtime of one thread.
    pub fn has_many_threads(self) -> bool {
        !matches!(self, Self::Thread(_))
    }
}

/// Where a thread belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// The runtime's name, or [`super::NO_RUNTIME`].
    pub runtime: &'static str,
    /// Which of the runtime's pools.
    pub scope: Scope,
    /// Its role where a wait does not show one.
    pub role: Role,
    /// Functions had no names: it follows from the structure of the process's stacks.
    pub inferred: bool,
}
