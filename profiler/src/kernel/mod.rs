//! Everything aya: what the kernel offers, the programs, their maps, their records.
//!
//! The only room with unsafe code. Never symbolizes, formats or decides policy.
//!
//! - [`barrier`]: the end of every program run that is under way.
//! - [`btf`]: layouts and functions of the running kernel.
//! - [`probe`]: what it offers and these rights allow.
//! - [`load`]: the programs, loaded and attached.
//! - [`readiness`]: descriptors that tokio watches.
//! - [`stats`]: whether the kernel measures run times.
//! - [`usage`]: what the programs and maps cost.
//! - [`tables`]: the maps that the walk of user stacks goes by.
//! - [`mmaps`]: executable mappings as they are made.
//! - [`verifier`]: what the kernel's verifier makes of each program.
//! - [`events`]: the bytes of the ring buffer as records.

pub mod barrier;
pub mod btf;
pub mod events;
pub mod load;
pub mod mmaps;
pub mod probe;
pub mod readiness;
pub mod stats;
pub mod tables;
pub mod usage;
pub mod verifier;

pub use events::Event;
pub use load::{Programs, Request, StackCopies, Wakers};
pub use mmaps::{Made, MadeMappings};
pub use probe::Probe;
pub use tables::{KernelTables, PlacedFile};
