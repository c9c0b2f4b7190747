//! How much of a stack one capture takes.

/// Bytes of the user stack, from the stack pointer upwards, that one capture holds at most.
pub const USER_SLICE_BYTES: usize = 16 * 1024;

/// The same where every stack is copied to check the walk in the kernel.
pub const CHECK_SLICE_BYTES: usize = 512 * 1024;

/// Kernel return addresses one capture holds at most; deeper kernel stacks keep their leaf side.
pub const KERNEL_FRAMES: usize = 48;

/// Bytes in a page of user memory, the granularity in which the slice is read.
pub const PAGE_BYTES: u64 = 4096;

/// User frames that the walk in the kernel yields at most; deeper stacks keep their leaf side.
pub const USER_FRAMES: usize = 512;

/// Set in an entry of the user frames that is where a signal interrupted its code, and not a return
/// address. User addresses end far below it.
pub const INTERRUPTED: u64 = 1 << 63;

/// How the walk of a user stack in the kernel went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum WalkEnd {
    /// There was none: no registers, or nothing is known of the process's code.
    #[default]
    NotWalked = 0,
    /// To a frame that is the outermost one by its unwind information.
    Complete = 1,
    /// There are more than [`USER_FRAMES`] frames.
    TooDeep = 2,
    /// An address lies in no known executable mapping: the mappings changed, or it is none.
    NoMapping = 3,
    /// The tables of a file are not in the kernel: [`crate::code::MappingCode::Absent`].
    NoTable = 4,
    /// The unwind information says what no rule can say.
    Unsupported = 5,
    /// Stack memory that is needed cannot be read.
    Unreadable = 6,
    /// The caller's stack pointer would not be above this frame's.
    NotAdvancing = 7,
    /// The rule needs a register whose value is lost.
    RegisterLost = 8,
    /// A frame pointer is none: not aligned, or below the stack pointer.
    BadFramePointer = 9,
}
