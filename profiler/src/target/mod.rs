//! target: being written.
