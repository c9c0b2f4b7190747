//! Tests on real processes and the real kernel. They need the rights to record, and fail with the
//! reason where those are missing.

#![cfg(feature = "live")]
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod accuracy;
mod command;
mod kill;
mod limits;
mod namespaces;
mod outputs;
mod rights;
mod stopping;
mod support;
mod targets;
