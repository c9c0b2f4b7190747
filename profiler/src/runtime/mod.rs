//! runtime: being written.
