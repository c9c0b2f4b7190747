//! How much of a stack one capture takes.

/// Bytes of the user stack, from the stack pointer upwards, that one capture holds at most.
pub const USER_SLICE_BYTES: usize = 16 * 1024;

/// Kernel return addresses one capture holds at most; deeper kernel stacks keep their leaf side.
pub const KERNEL_FRAMES: usize = 48;

/// Bytes in a page of user memory, the granularity in which the slice is read.
pub const PAGE_BYTES: u64 = 4096;
