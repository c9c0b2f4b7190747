//! How the walk of a user stack ended: the one list of reasons why a stack is not whole.

use serde::{Deserialize, Serialize};

/// How the walk of a user stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StackEnd {
    /// At a frame that is the outermost one by its unwind information.
    Complete,
    /// Before that; the leaf side is whole.
    Incomplete(Why),
}

/// Which part of an incomplete stack is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The walk could have gone on: the copied part of the stack, or the room for frames, ran out.
    Truncated,
    /// The walk came to a frame whose caller could not be found.
    Broken,
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $part:ident;)+) => {
        /// Why a stack is not whole. Encoded by position: append only.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum Why { $($(#[doc = $doc])+ $variant,)+ }

        impl Why {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name under which it stands in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What happened and what to do, for a person.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }

            /// What is missing.
            pub const fn part(self) -> Part {
                match self { $(Self::$variant => Part::$part,)+ }
            }
        }
    };
}

reasons! {
    /// An older stallscope cut the stack and recorded no reason; record again with this one.
    TruncatedUntold = "truncated_untold", Truncated;
    /// An older stallscope lost the way and recorded no reason; record again with this one.
    BrokenUntold = "broken_untold", Broken;
    /// More frames than one stack can have here; those nearest to the wait are kept.
    TooDeep = "too_deep", Truncated;
    /// The way led beyond the 16 KiB of stack that are copied where the kernel's walk does not
    /// reach the end; `stallscope inspect tables` shows which code it cannot leave.
    SliceTooShort = "slice_too_short", Truncated;
    /// Nothing was known of where the process's code lies, because it ended or changed at once;
    /// record for longer, or start it with `stallscope record -- COMMAND`.
    NotWalked = "not_walked", Broken;
    /// An address lies in no executable memory of the process: code that was just unmapped, or
    /// the frame below it misled the walk.
    NoMapping = "no_mapping", Broken;
    /// The unwind tables of a file were not in the kernel, and its stack could not be copied;
    /// record again, now that the file is known.
    NoTable = "no_table", Broken;
    /// The unwind information of a file is damaged or says what is not understood;
    /// `stallscope inspect tables FILE` counts it.
    Unsupported = "unsupported", Broken;
    /// Memory that the way leads through could not be read: it lies on another stack, or is not
    /// in memory now.
    Unreadable = "unreadable", Broken;
    /// The caller's stack would lie below its callee's: wrong unwind information, or code that
    /// changes to another stack without saying so.
    NotAdvancing = "not_advancing", Broken;
    /// The way on is in a register that was overwritten since.
    RegisterLost = "register_lost", Broken;
    /// Code without unwind information that keeps no frame pointer either; build it, or have it
    /// generated, with frame pointers (`-fno-omit-frame-pointer`, `-XX:+PreserveFramePointer`).
    BadFramePointer = "bad_frame_pointer", Broken;
    /// Memory that the stack leads through had been unmapped or mapped anew before the frames could
    /// be placed, as programs do that load and unload code.
    Outdated = "outdated", Broken;
}
