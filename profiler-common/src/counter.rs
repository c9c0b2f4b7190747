//! The one list of everything that can be lost, refused or cut short.

macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal,)+) => {
        /// A count of one way in which a fact did not reach the recording whole.
        ///
        /// The numbers are persisted by name, never by position.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum Counter { $($(#[doc = $doc])+ $variant,)+ }

        impl Counter {
            /// Every counter, in the order they are printed.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name under which the counter stands in recordings and reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// What the counter counts, as a sentence for a person.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc,)+).trim_ascii(),)+ }
            }
        }
    };
}

counters! {
    /// Intervals that found the ring buffer full; their time is kept, as unknown.
    IntervalsDropped = "intervals_dropped",
    /// Intervals that the recording had no room for; their time is kept, as unknown.
    IntervalsRefused = "intervals_refused",
    /// Samples of what ran that found the ring buffer full.
    SamplesDropped = "samples_dropped",
    /// Process events that found the ring buffer full.
    EventsDropped = "events_dropped",
    /// Threads that found the state map full and were not measured.
    ThreadsUntracked = "threads_untracked",
    /// Switches of measured threads, out or in, that the programs did not see; the time since the
    /// one before is kept, as unknown.
    SwitchesMissed = "switches_missed",
    /// Waits whose wake-up the programs did not see; they count as waiting up to the switch-in.
    WakeupsMissed = "wakeups_missed",
    /// Waits of which it is not known what ended them, since the ring buffer was full.
    WakersDropped = "wakers_dropped",
    /// Times the kernel refused to run a program because it was already running on that CPU.
    ProgramMisses = "program_misses",
    /// Waits whose user registers could not be read.
    RegistersMissing = "registers_missing",
    /// Waits whose user stack memory could not be read at all.
    UserStackUnreadable = "user_stack_unreadable",
    /// Waits whose kernel stack could not be taken.
    KernelStackMissing = "kernel_stack_missing",
    /// Kernel stacks that were taken for one known from before and were another; looked for only where
    /// stacks are checked.
    KernelStacksMistaken = "kernel_stacks_mistaken",
    /// Waits that had no room for their stack when stacks are taken at switch-out.
    CapturesRefused = "captures_refused",
    /// Waits that were open at the end of the window and whose stacks could not be taken.
    OpenWithoutStack = "open_without_stack",
    /// User stacks that were cut before their root.
    StacksTruncated = "stacks_truncated",
    /// User stacks whose walk stopped at a frame it could not leave.
    StacksBroken = "stacks_broken",
    /// User stacks that the kernel walked through mappings which others had taken the place of; they
    /// end where that is so.
    StacksOutdated = "stacks_outdated",
    /// Ring buffer records that the reader did not understand.
    EventsMalformed = "events_malformed",
    /// Times a process's mappings could not be read again when they had changed.
    MappingsUnread = "mappings_unread",
    /// Executable mappings that were made and not heard of, of any process on the machine.
    MappingsUnheard = "mappings_unheard",
    /// Files and processes whose unwind tables found no room in the kernel; stacks through them are
    /// walked from copies.
    TablesRefused = "tables_refused",
    /// Executable files that could not be opened, so that stacks through them break.
    ModulesUnreadable = "modules_unreadable",
}

/// How many counters there are: the length of the kernel's counter array.
pub const COUNT: usize = Counter::ALL.len();
