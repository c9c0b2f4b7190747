//! unwind: being written.
