//! What live tests share.

pub mod attached;
pub mod exact;
pub mod kernel;
pub mod proc;
pub mod process;
pub mod refusal;
pub mod report;
