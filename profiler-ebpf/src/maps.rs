//! Every map of the kernel side.

use crate::bounds::bounded;
use aya_ebpf::{
    bindings::BPF_F_MMAPABLE,
    btf_maps::{Array as BtfArray, ArrayOfMaps},
    macros::{btf_map, map},
    maps::{Array, HashMap, PerCpuArray, RingBuf, Stack},
};

use profiler_common::{
    code::{
        CHUNKS_MAX, Chunk, MAPPINGS_MAX, Mapping, PAGES_MAX, ProcessCode, RULES_MAX, TablePage,
    },
    config::Window,
    counter::{COUNT, Counter},
    event::{IntervalEvent, Kind, PREEMPTED, WakeEvent},
    stack::{CHECK_SLICE_BYTES, KERNEL_FRAMES, PAGE_BYTES, USER_FRAMES, USER_SLICE_BYTES},
    state::{Slot, Span, ThreadState},
    table::Rule,
    unwind::Frame,
};

/// Threads that can be measured at once, unless the loader asks for more.
const THREADS_MAX: u32 = 16_384;
/// Processes that can be watched at once.
const TARGETS_MAX: u32 = 4_096;

/// A record under construction: the event, behind it the user frames, and behind them the copied
/// part of the user stack. One page more than the slice, so that a copy of at most a page that starts inside the slice is
/// always in bounds, which is what the verifier can follow.
#[repr(C)]
pub struct Draft<const BYTES: usize> {
    /// The event.
    pub event: IntervalEvent,
    /// User frames, leaf first.
    pub frames: [u64; USER_FRAMES],
    /// The user stack from the stack pointer upwards.
    pub user: [u8; BYTES],
}

/// The end of a wait with the kernel stack that ended it.
#[repr(C)]
pub struct Wake {
    /// The event.
    pub event: WakeEvent,
    /// Kernel return addresses, leaf first.
    pub kernel: [u64; KERNEL_FRAMES],
    /// Address of this CPU's preemption counter; 0 until it is asked for.
    pub preempt_count_at: u64,
}

/// Bytes of a copy, and a page to spare.
pub const SLICE_ROOM: usize = USER_SLICE_BYTES + PAGE_BYTES as usize;
/// The same where every stack is copied to check the walk.
pub const CHECK_ROOM: usize = CHECK_SLICE_BYTES + PAGE_BYTES as usize;

/// What `sched_switch` tells the program that runs next on the same CPU, in the resumed thread,
/// within the same context switch: that it saw the switch, and the interval that ended with it.
#[repr(C)]
pub struct Due {
    /// When it began, was woken and ended.
    pub span: Span,
    /// The resumed thread; 0 if none is due.
    pub tid: u32,
    /// Its process.
    pub tgid: u32,
    /// Scheduler state bits it slept in.
    pub task_state: u32,
    /// Flags of [`IntervalEvent::flags`].
    pub flags: u32,
    /// CPU it left.
    pub cpu_out: u32,
    /// The [`profiler_common::event::Kind`] of the record to send.
    pub kind: u32,
    /// The watched thread that `sched_switch` last saw switched in on this CPU.
    pub seen_tid: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
    /// The kernel's switch counter at the switch-out.
    pub kernel_switches: u64,
}

impl Due {
    /// Makes it due for the thread that was just seen, all but its times. `waits` says whether it
    /// was off-CPU of its own will.
    #[inline(always)]
    pub fn fill(&mut self, kind: Kind, state: &ThreadState, waits: bool, kernel_switches: u64) {
        self.tid = self.seen_tid;
        self.tgid = state.tgid;
        self.task_state = state.task_state;
        self.flags = if waits { 0 } else { PREEMPTED };
        self.cpu_out = state.cpu_out;
        self.kind = kind as u32;
        self.kernel_switches = kernel_switches;
    }
}

/// Bytes of user stack that a walk reads at once; a power of two.
pub const WINDOW_BYTES: usize = 512;

/// A walk under way.
#[repr(C)]
pub struct Walk {
    /// The code of its process.
    pub process: ProcessCode,
    /// The mapping that was looked at last.
    pub mapping: Mapping,
    /// Where it is.
    pub frame: Frame,
    /// Frames so far.
    pub count: u32,
    /// How many of them were left by frame pointer.
    pub by_frame_pointer: u32,
    /// A [`profiler_common::stack::WalkEnd`].
    pub end: u32,
    /// Keeps the fields aligned.
    pub reserved: u32,
    /// The rule of the frame that it is at.
    pub rule: Rule,
    /// The word that was read last.
    pub word: u64,
    /// Address of the first byte in `window`.
    pub window_at: u64,
    /// A part of the stack, and room for a word behind its last byte.
    pub window: [u8; WINDOW_BYTES + 8],
}

/// How many threads can have a hint at once; a power of two.
pub const SLOT_HINTS_MAX: usize = 16_384;

/// Bits that say which of [`FOUND`] an address belongs to.
pub const FOUND_BITS: u32 = 11;

/// What was found for an address, by one generation of a process's mappings.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Found {
    /// The address.
    pub lookup: u64,
    /// The generation; 0 is none.
    pub generation: u32,
    /// Keeps the rule aligned.
    pub reserved: u32,
    /// The rule.
    pub rule: Rule,
}

/// Words of a kernel stack that are looked at; a power of two.
pub const COPY_WORDS: usize = 128;
/// Kernel stacks that are known on each CPU; a power of two.
pub const KNOWN_CHAINS: usize = 128;
/// Frames that a known kernel stack has fewer than; a power of two.
pub const KNOWN_FRAMES: usize = 16;

/// A part of a kernel stack, from near its innermost frame on.
#[repr(C)]
pub struct StackCopy {
    /// Where the innermost frame is near.
    pub here: u64,
    /// Words before that.
    pub skip: u64,
    /// A word that was read alone: the outermost return address.
    pub word: u64,
    /// The words.
    pub words: [u64; COPY_WORDS],
}

impl StackCopy {
    /// A word of the copy, by an index below [`COPY_WORDS`].
    #[inline(always)]
    pub fn at(&self, index: u64) -> u64 {
        let index = bounded::<{ COPY_WORDS as i32 - 1 }>(index);
        // SAFETY: there are that many. Checked indexing would bring code that cannot end.
        unsafe { *self.words.as_ptr().add(index as usize) }
    }
}

/// A kernel stack that is known, or about to be.
#[repr(C)]
pub struct Chain {
    /// The kind of wait; 0 for none.
    pub key: u64,
    /// The outermost return address.
    pub outermost: u64,
    /// How many frames it has before the outermost one; 0 while they are not all known.
    pub frames: u32,
    /// How many it will have.
    pub inner: u32,
    /// How often a stack was another one since.
    pub misses: u32,
    /// Stacks that it was learned from.
    pub tries: u32,
    /// Stacks from which not to learn.
    pub patience: u32,
    /// Keeps the places aligned.
    pub reserved: u32,
    /// Its frames, leaf first.
    pub places: [Places; KNOWN_FRAMES],
}

/// Where a return address lies.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Places {
    /// The return address.
    pub address: u64,
    /// The words that had it in every stack so far, a bit each.
    pub left: [u64; 2],
    /// Those of them that have it in this stack.
    pub next: [u64; 2],
    /// How many these are.
    pub count: u32,
    /// The sum of where they are: of the one, if there is one.
    pub offset: u32,
    /// The word that has it, counted from the innermost frame, once it is known.
    pub place: u32,
    /// Keeps the size a multiple of eight.
    pub reserved: u32,
}

/// The boundaries of the window; the one thing that changes while the programs run.
#[map]
pub static WINDOW: Array<Window> = Array::with_max_entries(1, 0);

/// The watched processes by id, with the start time of the process that is meant: an id that is
/// used again does not match.
#[map]
pub static TARGETS: HashMap<u32, u64> = HashMap::with_max_entries(TARGETS_MAX, 0);

/// Which of [`SLOTS`] each thread has, by [`crate::task::Task::key`].
#[map]
pub static THREADS: HashMap<u64, u32> = HashMap::with_max_entries(THREADS_MAX, 0);

/// The accounting of the threads. Such an array begins with a page, so that a slot begins with a
/// cache line.
#[map]
pub static SLOTS: Array<Slot> = Array::with_max_entries(THREADS_MAX, BPF_F_MMAPABLE);

/// Slots that belong to no thread. The user side puts in all of them.
#[map]
pub static FREE_SLOTS: Stack<u32> = Stack::with_max_entries(THREADS_MAX, 0);

/// Which slot a thread had last, by the lower bits of its id.
#[map]
pub static SLOT_HINTS: Array<[u32; SLOT_HINTS_MAX]> = Array::with_max_entries(1, 0);

/// The hand-over from `sched_switch` to the switch-in program.
#[map]
pub static DUE: PerCpuArray<Due> = PerCpuArray::with_max_entries(1, 0);

/// Where the switch-in program builds its record. Its hooks run with preemption disabled.
#[map]
pub static DRAFT: PerCpuArray<Draft<SLICE_ROOM>> = PerCpuArray::with_max_entries(1, 0);

/// The same for samples.
#[map]
pub static SAMPLE_DRAFT: PerCpuArray<Draft<SLICE_ROOM>> = PerCpuArray::with_max_entries(1, 0);

/// The same for the stacks of threads that end waits.
#[map]
pub static WAKER_DRAFT: PerCpuArray<Draft<SLICE_ROOM>> = PerCpuArray::with_max_entries(1, 0);

/// The end of a wait, under construction. Wake-ups are made with interrupts disabled.
#[map]
pub static WAKE: PerCpuArray<Wake> = PerCpuArray::with_max_entries(1, 0);

/// The same, by CPU, where every stack is copied to check the walk. The loader makes room for
/// each CPU then.
#[map]
pub static CHECK_DRAFT: Array<Draft<CHECK_ROOM>> = Array::with_max_entries(1, 0);

/// Where the sweep builds its record: one sweep at a time, and it may sleep, so not per CPU.
#[map]
pub static SWEEP_DRAFT: Array<Draft<SLICE_ROOM>> = Array::with_max_entries(1, 0);

/// Stacks taken at switch-out, by [`crate::task::Task::key`]. The loader makes room only where that path is taken.
#[map]
pub static PENDING: HashMap<u64, Draft<SLICE_ROOM>> = HashMap::with_max_entries(1, 0);

/// The code of each watched process, by id.
#[map]
pub static PROCESSES: HashMap<u32, ProcessCode> = HashMap::with_max_entries(TARGETS_MAX, 0);

/// Runs of executable mappings, one for each process.
#[map]
pub static MAPPINGS: Array<Mapping> = Array::with_max_entries(MAPPINGS_MAX as u32, 0);

/// Runs of text pages, one for each file.
#[map]
pub static PAGES: Array<TablePage> = Array::with_max_entries(PAGES_MAX as u32, 0);

/// Rows of text pages, in arrays of one element that the user side makes as it needs them.
#[btf_map]
pub static ROWS: ArrayOfMaps<BtfArray<Chunk, 1>, CHUNKS_MAX> = ArrayOfMaps::new();

/// The rules of all files.
#[map]
pub static RULES: Array<Rule> = Array::with_max_entries(RULES_MAX as u32, 0);

/// The walk on this CPU, that of a sample, and that of a thread that ends a wait.
#[map]
pub static WALK: PerCpuArray<Walk> = PerCpuArray::with_max_entries(3, 0);

/// What was found on each CPU. An array by CPU and not a per-CPU one, whose values are small. The
/// loader makes room for each CPU.
#[map]
pub static FOUND: Array<[Found; 1 << FOUND_BITS]> = Array::with_max_entries(1, 0);

/// The kernel stack that is looked at on this CPU.
#[map]
pub static COPY: PerCpuArray<StackCopy> = PerCpuArray::with_max_entries(1, 0);

/// The kernel stacks known on each CPU. The loader makes room for each CPU.
#[map]
pub static CHAINS: Array<[Chain; KNOWN_CHAINS]> = Array::with_max_entries(1, 0);

/// What was lost, by [`Counter`].
#[map]
pub static COUNTERS: PerCpuArray<u64> = PerCpuArray::with_max_entries(COUNT as u32, 0);

/// Records for the user side.
#[map]
pub static EVENTS: RingBuf = RingBuf::with_byte_size(1 << 20, 0);

/// Adds one to a counter.
#[inline(always)]
pub fn count(counter: Counter) {
    if let Some(value) = COUNTERS.get_ptr_mut(counter as u32) {
        // SAFETY: a per-CPU value of this CPU; programs on one CPU interrupt each other only
        // between the load and the store of a different program, which may lose one count of a
        // loss, never memory.
        unsafe { *value += 1 };
    }
}

/// How an instant lies to the window.
pub enum When {
    /// Before it, or there is none yet.
    Before,
    /// In it.
    Within {
        /// Its first nanosecond.
        start_ns: u64,
    },
    /// After it.
    After {
        /// Its first nanosecond.
        start_ns: u64,
    },
}

/// How the instant lies to the window.
#[inline(always)]
pub fn when(now_ns: u64) -> When {
    let Some(window) = WINDOW.get_ptr(0) else { return When::Before };
    // SAFETY: a value of an array map; the user side writes it while no instant can fall into it.
    let window = unsafe { &*window };
    if now_ns < window.start_ns {
        When::Before
    } else if now_ns < window.end_ns {
        When::Within { start_ns: window.start_ns }
    } else {
        When::After { start_ns: window.start_ns }
    }
}
