//! doctor: being written.
