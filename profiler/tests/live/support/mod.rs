//! What live tests share.

pub mod process;
pub mod report;
