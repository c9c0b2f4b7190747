//! kernel: being written.

pub mod probe;
