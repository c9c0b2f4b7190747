//! Timestamped facts as the kernel gave them: the border between capturing and judging.
//!
//! No names guessed, no classes, no floats. [`facts`] says what is kept, [`file`](mod@file) how it lies on
//! disk, [`model`] what a whole recording looks like once read.

pub mod facts;
pub mod file;
pub mod lock;
pub mod model;
pub mod object;
mod path_bytes;
pub mod redact;
pub mod stack_end;
pub mod waker;

pub use facts::{
    CodeAddress, Counters, End, EndReason, FrameKind, Host, Interval, KernelStack, KernelStackId,
    Mapping, Missing, Module, ModuleId, NamedFrame, NamelessFunction, Names, Observer, OpenSince,
    Options, Part, RawFrame, Record, Regs, ResolvedName, Sample, Sampling, Session, StackCheck,
    StackDifference, StackEnd, Target, ThreadName, ThreadTotals, UserStack, UserStackId, Why,
};
pub use lock::{Futex, LockFacts, Reference, Search};
pub use model::{Ending, Recording};
pub use object::{Handle, Holder, Look, Object, ObjectId, PathBytes, Thing};
pub use waker::{WakeContext, Waker, WakerId, WakerThread, Woken};
