//! Sums, orderings and windows: a recording with names and meanings becomes a [`Report`].
//!
//! Never makes display strings and never knows a file format.

pub mod report;

pub use report::Report;
