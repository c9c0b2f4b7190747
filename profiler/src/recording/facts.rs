//! The facts of a recording, in the order and shape in which they are appended to the file.
//!
//! Enum variants and struct fields are encoded by position: append only, never reorder, and raise
//! [`super::file::VERSION`] when a shape changes.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use super::lock::{Futex, Reference, Search};
pub use super::object::{Look, Object};
use super::path_bytes;
pub use super::stack_end::{Part, StackEnd, Why};
pub use super::waker::{Waker, WakerId, Woken};
use crate::units::{Avma, FileOffset, Ktime, Nanos, Pid, Svma, Tid};

/// One appended fact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record {
    /// What was recorded, how and where; always first.
    Session(Session),
    /// A thread exists or changed its name.
    Thread(ThreadName),
    /// A file whose code was mapped.
    Module(Module),
    /// A module became visible in an address space.
    Mapping(Mapping),
    /// A user stack, given a number the first time it is seen.
    UserStack(UserStack),
    /// A kernel stack, given a number the first time it is seen.
    KernelStack(KernelStack),
    /// One off-CPU interval.
    Interval(Interval),
    /// The final accounting of a thread.
    Totals(ThreadTotals),
    /// What was lost so far; a later one replaces an earlier one.
    Counters(Counters),
    /// Names resolved while the target still lived.
    Names(Names),
    /// The recording was finished in good order; always last.
    End(End),
    /// What came out of checking the kernel's stacks, where that was asked for.
    StackCheck(StackCheck),
    /// It was looked from time to time what ran.
    Sampling(Sampling),
    /// What a thread did on a CPU.
    Sample(Sample),
    /// A function that has no name but is on a stack, looked up while the target still lived.
    Nameless(NamelessFunction),
    /// The interval that was open at the start of the window is older.
    OpenSince(OpenSince),
    /// Something that a thread waited on, given a number the first time it is seen.
    Object(Object),
    /// What a process named to the kernel, when somebody looked.
    Look(Look),
    /// What ended waits, and its number.
    Waker(WakerId, Waker),
    /// What ended a wait.
    Woken(Woken),
    /// A futex that was still waited for, looked at.
    Futex(Futex),
    /// A thread's stack held the address of a futex that was still waited for.
    Reference(Reference),
    /// Stacks were searched for such addresses.
    Search(Search),
}

/// What was recorded, how and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Version of the program that recorded.
    pub recorder: String,
    /// The process asked for.
    pub target: Target,
    /// The machine.
    pub host: Host,
    /// The options in force.
    pub options: Options,
    /// First instant of the window.
    pub start: Ktime,
    /// The same instant in nanoseconds since the Unix epoch.
    pub start_unix_ns: i64,
    /// `CLOCK_BOOTTIME` minus `CLOCK_MONOTONIC` at that instant.
    pub boot_minus_monotonic: Nanos,
}

/// The process asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its id in the recorder's PID namespace.
    pub pid: Pid,
    /// Its executable, as the target sees the path.
    #[serde(with = "path_bytes")]
    pub exe: PathBuf,
    /// Its arguments, the program's name first.
    pub command: Vec<String>,
    /// The executable's build-id, empty if it has none.
    pub build_id: Vec<u8>,
    /// Id of the container it runs in, where its cgroup tells one.
    pub container: Option<String>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    /// Kernel release, as `uname -r` says.
    pub kernel: String,
    /// Machine type, as `uname -m` says.
    pub arch: String,
    /// CPUs online.
    pub cpus: u32,
    /// Id of this boot: kernel addresses mean something only within it.
    pub boot_id: String,
}

/// The options in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Options {
    /// Intervals shorter than this were counted, not recorded.
    pub min_block: Nanos,
    /// Whether child processes were watched too.
    pub children: bool,
    /// Where stacks were captured: `sched_exit_tp`, `finish_task_switch` or `switch-out`.
    pub hook: String,
}

/// A thread exists or changed its name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadName {
    /// When that was seen.
    pub at: Ktime,
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// Its name, up to 15 bytes.
    pub name: String,
}

/// Number of a module within a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ModuleId(pub u32);

/// A file whose code was mapped. The vDSO is a module of path `[vdso]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Module {
    /// Its number in this recording.
    pub id: ModuleId,
    /// Its path as the target saw it, without ` (deleted)`.
    #[serde(with = "path_bytes")]
    pub path: PathBuf,
    /// Its build-id, empty if it has none.
    pub build_id: Vec<u8>,
    /// Whether the file had been unlinked.
    pub deleted: bool,
}

/// A module became visible in an address space.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mapping {
    /// When that was seen.
    pub at: Ktime,
    /// The process.
    pub pid: Pid,
    /// First address.
    pub start: Avma,
    /// First address after it.
    pub end: Avma,
    /// Offset in the file of the first address.
    pub offset: FileOffset,
    /// What is mapped.
    pub module: ModuleId,
}

/// Number of a user stack within a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct UserStackId(pub u32);

/// Number of a kernel stack within a recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KernelStackId(pub u32);

/// A user stack, leaf first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserStack {
    /// Its number in this recording.
    pub id: UserStackId,
    /// The frames, leaf first.
    pub frames: Vec<RawFrame>,
    /// How the walk ended.
    pub end: StackEnd,
    /// How many of the frames were found by frame pointer, without unwind information.
    pub by_frame_pointer: u32,
}

/// One frame as walked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RawFrame {
    /// The address.
    pub address: CodeAddress,
    /// What kind of address it is.
    pub kind: FrameKind,
}

/// What the address of a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum FrameKind {
    /// Where execution stopped (a fault, or a frame interrupted by a signal): names are looked up at it.
    InstructionPointer,
    /// Where execution will go on: names are looked up one byte before it.
    ReturnAddress,
}

/// A place in code, free of where it was loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum CodeAddress {
    /// In a file.
    Module(ModuleId, Svma),
    /// In memory that is not a file: generated code, or an unknown mapping.
    Memory(Avma),
    /// In the kernel of [`Host::boot_id`].
    Kernel(Avma),
}

/// A kernel stack: return addresses, leaf first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelStack {
    /// Its number in this recording.
    pub id: KernelStackId,
    /// Return addresses, leaf first.
    pub frames: Vec<Avma>,
}

/// One off-CPU interval, cut at the edges of the window: `out <= wake <= in_`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// Switch-out.
    pub out: Ktime,
    /// First wake-up after it; equals `out` if all of the interval was runnable.
    pub wake: Ktime,
    /// Switch-in.
    pub in_: Ktime,
    /// Scheduler state bits it slept in, 0 if it was preempted.
    pub task_state: u32,
    /// It was preempted, not waiting.
    pub preempted: bool,
    /// It was already off-CPU when the window began.
    pub open_at_start: bool,
    /// It was still off-CPU when the window ended.
    pub open_at_end: bool,
    /// CPU it left.
    pub cpu_out: u32,
    /// CPU it came back on.
    pub cpu_in: u32,
    /// User registers at the wait.
    pub regs: Option<Regs>,
    /// User stack, where one was taken.
    pub user_stack: Option<UserStackId>,
    /// Kernel stack, where one was taken.
    pub kernel_stack: Option<KernelStackId>,
    /// What ended it, where that is known; a fact of its own in the file ([`Woken`]).
    #[serde(skip)]
    pub waker: Option<WakerId>,
}

/// Since when a thread was off-CPU that was so when the window began.
///
/// By the scheduler's clock, which nobody corrects: it is off by some millionths of the length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenSince {
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// When its interval began, before the window.
    pub since: Ktime,
}

/// It was looked from time to time what ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sampling {
    /// How many times a second, on each CPU.
    pub frequency: u32,
}

/// What a thread did on a CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sample {
    /// When.
    pub at: Ktime,
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// User stack, where one was taken.
    pub user_stack: Option<UserStackId>,
    /// Kernel stack, where it was in the kernel.
    pub kernel_stack: Option<KernelStackId>,
}

/// User registers at a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Regs {
    /// Instruction pointer.
    pub ip: Avma,
    /// Stack pointer.
    pub sp: Avma,
    /// Frame pointer register.
    pub bp: Avma,
    /// The syscall number; `None` for a fault or an interrupt.
    pub syscall: Option<u32>,
    /// The six syscall arguments.
    pub args: [u64; 6],
}

/// The final accounting of a thread. Exactly:
/// `running + runnable + waiting + short == to - from`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThreadTotals {
    /// The process.
    pub pid: Pid,
    /// The thread.
    pub tid: Tid,
    /// Its last name.
    pub name: String,
    /// Start of the window or birth of the thread.
    pub from: Ktime,
    /// End of the window or end of the thread.
    pub to: Ktime,
    /// On a CPU.
    pub running: Nanos,
    /// Wanting a CPU.
    pub runnable: Nanos,
    /// Waiting, in intervals of at least the minimum block, recorded or dropped.
    pub waiting: Nanos,
    /// Waiting, in shorter intervals.
    pub short: Nanos,
    /// Switch-outs seen.
    pub switches: u64,
    /// Switch-outs by the kernel's own count over the same events.
    pub kernel_switches: u64,
    /// Intervals of at least the minimum block, recorded or dropped, preempted ones too.
    pub intervals: u64,
    /// Shorter intervals.
    pub shorts: u64,
    /// It was off-CPU when the window began.
    pub open_at_start: bool,
    /// It was off-CPU when the window ended.
    pub open_at_end: bool,
}

/// Counters by name; see [`profiler_common::counter::Counter`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters(pub BTreeMap<String, u64>);

/// Names resolved while the target still lived. Several records add up.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Names {
    /// For each looked-up address (one byte before a return address), what stands there.
    pub names: Vec<(CodeAddress, ResolvedName)>,
}

/// What stands at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResolvedName {
    /// The function whose code it is, with the functions inlined at that place: outermost (the
    /// real function) first, innermost last. Never empty.
    Frames(Vec<NamedFrame>),
    /// No name, because.
    Missing(Missing),
}

/// One function at an address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedFrame {
    /// Demangled name.
    pub function: String,
    /// Source file, as the debug information spells it.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u32>,
}

/// Why an address has no name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Missing {
    /// The file could not be opened.
    FileUnreadable,
    /// A file was found, but its build-id is another.
    BuildIdMismatch,
    /// The file has no symbols that cover any code.
    NoSymbols,
    /// The file has symbols, none of which covers the address.
    NoSymbolHere,
    /// The address lies in no file, and no perf map names it.
    NotInFile,
    /// Kernel symbols are hidden from the recorder.
    KernelHidden,
    /// The recording is of another boot, and the kernel's addresses have moved.
    OtherBoot,
}

/// A function that has no name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamelessFunction {
    /// The file it is in.
    pub module: ModuleId,
    /// Its first address, as the file's unwind information says.
    pub start: Svma,
    /// The first address behind it.
    pub end: Svma,
    /// The source files that its code mentions as places where it can panic, each once, in order:
    /// its own, and those of what was inlined into it.
    pub mentions: Vec<String>,
}

/// User stacks as the kernel side walked them, held against walks of copies of the same stacks with
/// all registers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackCheck {
    /// Stacks that were walked twice. Exactly: `equal + prefix_equal + different`.
    pub compared: u64,
    /// The same frames and the same end.
    pub equal: u64,
    /// One of the two walks ended early, and up to there they are the same.
    pub prefix_equal: u64,
    /// Frames that are not the same.
    pub different: u64,
    /// How many of those that are not equal there are for each reason.
    pub why: BTreeMap<String, u64>,
    /// Some of those that are not equal, those that are different first.
    pub differences: Vec<StackDifference>,
}

/// Two walks of one stack that are not equal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackDifference {
    /// What they differ in.
    pub why: String,
    /// How many stacks were these very two.
    pub count: u64,
    /// The frames of the kernel side, leaf first.
    pub kernel: Vec<RawFrame>,
    /// Those of the copy, leaf first.
    pub check: Vec<RawFrame>,
}

/// The recording was finished in good order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// First instant after the window.
    pub end: Ktime,
    /// Why the recording ended.
    pub reason: EndReason,
    /// What the recorder itself cost.
    pub observer: Observer,
    /// CFS bandwidth throttling of the target's cgroup during the window, where it could be read.
    pub throttled: Option<Nanos>,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndReason {
    /// The asked length was over.
    Duration,
    /// The user interrupted it.
    Interrupt,
    /// The target ended.
    TargetEnded,
    /// `--max-size` was reached.
    MaxSize,
    /// The disk was full or the file could not be written further.
    WriteFailed,
}

/// What the recorder itself cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observer {
    /// CPU time of the recording process, user and system.
    pub cpu: Nanos,
    /// Its largest resident set, in bytes.
    pub max_rss_bytes: u64,
    /// Memory of its kernel maps, in bytes.
    pub kernel_map_bytes: u64,
    /// Run time of its kernel programs; only measured when asked for.
    pub bpf: Option<Nanos>,
}
