//! Tests on real processes and the real kernel. They need the rights to record, and fail with the
//! reason where those are missing.

#![cfg(feature = "live")]
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod accounting;
mod accuracy;
mod children;
mod command;
mod demo;
mod kill;
mod limits;
mod locks;
mod many;
mod migration;
mod namespaces;
mod objects;
mod outputs;
mod pools;
mod rights;
mod snapshot;
mod stopping;
mod storm;
mod stripped;
mod support;
mod targets;
