//! What the kernel side and the user side of stallscope must agree on, and nothing else.
//!
//! - [`event`]: the records that go through the ring buffer.
//! - [`state`]: the per-thread accounting that lives in a map.
//! - [`config`]: what the loader tells the programs before they are verified.
//! - [`counter`]: the closed list of everything that can be lost or refused.
//! - [`stack`]: how much of a stack is taken.
//! - [`table`]: how a file's unwind information is laid out for a walk.
//! - [`code`]: where a process's code is, and which tables unwind it.
//! - [`search`]: one step of the search in it.
//! - [`unwind`]: from one frame to its caller.
//!
//! Every type is `#[repr(C)]` with fixed-width fields and no implicit padding; sizes are pinned.

#![no_std]

pub mod code;
pub mod config;
pub mod counter;
pub mod event;
pub mod search;
pub mod stack;
pub mod state;
pub mod table;
pub mod unwind;
