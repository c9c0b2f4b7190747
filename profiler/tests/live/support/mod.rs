//! What live tests share.

pub mod exact;
pub mod kernel;
pub mod process;
pub mod report;
