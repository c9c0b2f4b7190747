//! What live tests share.

pub mod attached;
pub mod proc;
pub mod process;
pub mod refusal;
pub mod report;
