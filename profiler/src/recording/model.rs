//! A whole recording in memory.

use std::collections::HashMap;

use super::facts::{
    CodeAddress, Counters, End, Interval, KernelStack, KernelStackId, Mapping, Module, ModuleId,
    NamelessFunction, OpenSince, ResolvedName, Sample, Sampling, Session, StackCheck, ThreadName,
    ThreadTotals, UserStack, UserStackId,
};
use super::lock::LockFacts;
use super::object::{Look, Object, ObjectId};
use super::waker::{Waker, WakerId};

/// A whole recording, as far as the file could be read.
#[derive(Clone, Debug)]
pub struct Recording {
    /// What was recorded, how and where.
    pub session: Session,
    /// Threads and their names, in order of time.
    pub threads: Vec<ThreadName>,
    /// Modules by number.
    pub modules: HashMap<ModuleId, Module>,
    /// Mappings, in order of time.
    pub mappings: Vec<Mapping>,
    /// User stacks by number.
    pub user_stacks: HashMap<UserStackId, UserStack>,
    /// Kernel stacks by number.
    pub kernel_stacks: HashMap<KernelStackId, KernelStack>,
    /// Intervals, in order of their end.
    pub intervals: Vec<Interval>,
    /// Since when threads were off-CPU that were so when the window began, where that is known.
    pub open_since: Vec<OpenSince>,
    /// How often it was looked what ran; `None` for not at all.
    pub sampling: Option<Sampling>,
    /// What ran then, in order of time.
    pub samples: Vec<Sample>,
    /// Final accounting, one a thread; empty if the recording is unfinished.
    pub totals: Vec<ThreadTotals>,
    /// What was lost.
    pub counters: Counters,
    /// Names resolved while the target lived.
    pub names: HashMap<CodeAddress, ResolvedName>,
    /// Functions without a name, as they were looked up while the target lived.
    pub nameless: Vec<NamelessFunction>,
    /// How the kernel's stacks compare to the recorder's own, where that was asked for.
    pub stack_check: Option<StackCheck>,
    /// What threads waited on, by number.
    pub objects: HashMap<ObjectId, Object>,
    /// Which of them a process meant when, in order of time.
    pub looks: Vec<Look>,
    /// What ended waits, by number.
    pub wakers: HashMap<WakerId, Waker>,
    /// The futexes that were still waited for at the end, and who may hold them.
    pub locks: LockFacts,
    /// How the file ends.
    pub ending: Ending,
}

/// How the file ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// In good order.
    Finished(End),
    /// The recorder was killed: everything up to this file offset is there.
    Unfinished {
        /// Offset of the first byte that is not part of a whole block.
        offset: u64,
    },
}
