//! What a report says: `stallscope.report/1` as Rust types.
//!
//! This is the contract that others script against: fields are added, never renamed or removed.
//! Times are integer nanoseconds; `start_ns`, `end_ns` and `t_ns` count from the window's start.

mod locks;

use std::collections::BTreeMap;

use serde::Serialize;

pub use locks::{Deadlock, DeadlockThread, HeldBy, HeldSite, How, Lock, LockHolder};

pub use crate::runtime::{Origin, Reason, Role, State};

/// The value of [`Report::schema`].
pub const SCHEMA: &str = "stallscope.report/1";

/// Everything a renderer needs; renderers add no meaning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// The process that was recorded.
    pub target: Target,
    /// The machine it ran on.
    pub host: Host,
    /// When.
    pub window: Window,
    /// What is known about the completeness of this report.
    pub quality: Quality,
    /// The pools, the one with the most blocked time first.
    pub pools: Vec<Pool>,
    /// The sites, largest total first, then by frames.
    pub sites: Vec<Site>,
    /// Spans in which a pool had no worker to run anything.
    pub starvation: Vec<Starvation>,
    /// Threads that wait for each other's locks and can never go on.
    pub deadlocks: Vec<Deadlock>,
    /// What threads waited for by futex: locks first, then the rest, those with the most waiting
    /// first; the first hundred.
    pub locks: Vec<Lock>,
    /// Polls that held a worker for long, those that held the most time in all first.
    pub long_polls: Vec<LongPolls>,
    /// From which length on a poll is in [`Self::long_polls`].
    pub long_poll_ns: u64,
    /// How often it was looked what ran; null for not at all.
    pub on_cpu: Option<OnCpu>,
    /// The states whose sites this report holds: all of them unless some were selected.
    pub states: Vec<State>,
}

/// The process that was recorded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Target {
    /// Its id in the recorder's PID namespace.
    pub pid: u32,
    /// Its executable.
    pub exe: String,
    /// Its arguments.
    pub command: Vec<String>,
    /// Hex; null if it has none.
    pub build_id: Option<String>,
    /// Null if it runs in none.
    pub container: Option<String>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Host {
    /// Kernel release.
    pub kernel: String,
    /// Machine type.
    pub arch: String,
    /// CPUs online.
    pub cpus: u32,
}

/// The measured window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Window {
    /// RFC 3339 with nanoseconds, UTC.
    pub start: String,
    /// Nanoseconds since the Unix epoch.
    pub start_unix_ns: i64,
    /// Its length.
    pub duration_ns: u64,
}

/// What is known about the completeness of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quality {
    /// Intervals recorded.
    pub intervals: u64,
    /// Every counter, zeros too.
    pub counters: BTreeMap<String, u64>,
    /// How many recorded waits have which kind of user stack.
    pub user_stacks: UserStacks,
    /// What the recorder itself cost.
    pub observer: Observer,
    /// The recording was not finished in good order; totals are a lower bound.
    pub unfinished: bool,
    /// Why the recording ended; null where it is unfinished.
    pub end: Option<EndReason>,
    /// Intervals shorter than this were counted, not named.
    pub min_block_ns: u64,
    /// Where stacks were captured.
    pub hook: String,
    /// CFS bandwidth throttling of the target's cgroup during the window; null where unread.
    pub throttled_ns: Option<u64>,
    /// Null unless stacks were checked.
    pub stack_check: Option<StackCheck>,
    /// Files whose missing names leave waits unknown or inferred, the one that concerns the most
    /// time first.
    pub nameless: Vec<NamelessModule>,
}

/// A file with functions without a name on the stacks of waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NamelessModule {
    /// Its path.
    pub module: String,
    /// Hex; null if it has none.
    pub build_id: Option<String>,
    /// Waiting whose state was inferred from the structure of the stacks.
    pub inferred_ns: u64,
    /// Waiting that is unknown.
    pub unknown_ns: u64,
}

/// Why a recording ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
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

/// How many recorded waits have which kind of user stack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct UserStacks {
    /// The walk reached the outermost frame.
    pub complete: u64,
    /// The leaf side is whole, the root side is cut.
    pub truncated: u64,
    /// The walk stopped at a frame it could not leave.
    pub broken: u64,
    /// No user stack was taken.
    pub missing: u64,
    /// Whatever the kind: at least one frame was found by frame pointer, without unwind information.
    pub by_frame_pointer: u64,
    /// How many are truncated or broken for which reason: [`crate::recording::Why::name`].
    pub why: BTreeMap<String, u64>,
}

/// User stacks as the kernel side walked them, held against walks of copies of the same stacks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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

/// Two walks of one stack that are not equal. Frames are leaf first, each `module+0xaddress`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct StackDifference {
    /// What they differ in.
    pub why: String,
    /// How many stacks were these very two.
    pub count: u64,
    /// The frames of the kernel side.
    pub kernel: Vec<String>,
    /// Those of the copy.
    pub check: Vec<String>,
}

/// What the recorder itself cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Observer {
    /// CPU time of the recording process.
    pub cpu_ns: u64,
    /// Its largest resident set.
    pub max_rss_bytes: u64,
    /// Memory of its kernel maps.
    pub kernel_map_bytes: u64,
    /// Run time of its kernel programs; null unless measured.
    pub bpf_ns: Option<u64>,
}

/// The threads of one runtime instance, or the threads of none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Pool {
    /// Its number in this report.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// `tokio`, ..., or `none`.
    pub runtime: String,
    /// How many of its threads are workers.
    pub workers: u32,
    /// `[t_ns, blocked, workers]`: how many workers were blocked from `t_ns` on.
    pub blocked_curve: Vec<(u64, u32, u32)>,
    /// Its threads.
    pub threads: Vec<Thread>,
    /// Functions had no names: that it is one follows from the structure of its stacks.
    pub inferred: bool,
    /// Each of its workers was blocked in one and the same wait for all of the window.
    pub hung: bool,
}

/// Where every nanosecond of a thread went. Exactly: the seven states add up to `wall_ns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Thread {
    /// The thread.
    pub tid: u32,
    /// Its name.
    pub name: String,
    /// Its part in the pool.
    pub role: Role,
    /// How long it was watched.
    pub wall_ns: u64,
    /// On a CPU.
    pub running_ns: u64,
    /// Wanting a CPU.
    pub runnable_ns: u64,
    /// Parked by its runtime for lack of work.
    pub idle_ns: u64,
    /// Waiting inside a task on a thread that must not wait.
    pub blocked_ns: u64,
    /// Waiting where waiting is right.
    pub allowed_ns: u64,
    /// Waiting in intervals below the minimum block.
    pub short_ns: u64,
    /// Waiting, and nothing more can be said.
    pub unknown_ns: u64,
    /// It was off-CPU when the window began.
    pub open_at_start: bool,
    /// It was off-CPU when the window ended.
    pub open_at_end: bool,
    /// Switch-outs seen.
    pub switches: u64,
    /// Switch-outs by the kernel's own count over the same events.
    pub kernel_switches: u64,
    /// Intervals of at least the minimum block, recorded or dropped, preempted ones too.
    pub intervals: u64,
    /// Shorter intervals.
    pub shorts: u64,
    /// When the interval that was open at the start of the window had begun: negative, and about
    /// right. Null if there was none or the kernel does not say.
    pub open_since_ns: Option<i64>,
    /// What it was off-CPU for when the window ended. Null if it was on a CPU, or if the interval is
    /// not recorded or its site not in this report.
    pub at_end: Option<AtEnd>,
}

/// An interval that was open when the window ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AtEnd {
    /// Index into [`Report::sites`].
    pub site: usize,
    /// When it began. Negative where that was before the window, and then about right; null where it
    /// was before and the kernel does not say when.
    pub since_ns: Option<i64>,
    /// It wanted a CPU: its wait was over, or it had not waited.
    pub in_run_queue: bool,
}

/// One distinct stack in one state of one pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Site {
    /// [`Pool::id`].
    pub pool: u32,
    /// Its state.
    pub state: State,
    /// What the kernel was asked to wait for.
    pub reason: Reason,
    /// What the stack means beyond that: `mutex`, `channel`, `sync-over-async`, ...
    pub label: Option<String>,
    /// The future, request or job that was running.
    pub task: Option<String>,
    /// Intervals.
    pub count: u64,
    /// Waiting time, all intervals.
    pub total_ns: u64,
    /// Waiting time, the longest interval.
    pub max_ns: u64,
    /// Waiting time, median (nearest rank).
    pub p50_ns: u64,
    /// Waiting time, 99th percentile (nearest rank).
    pub p99_ns: u64,
    /// Run-queue time that followed the waits.
    pub runnable_ns: u64,
    /// How the walk of the user stack ended: `complete`, `truncated`, `broken`, or `missing`.
    pub stack: StackQuality,
    /// Root to leaf, user frames then kernel frames; empty if there was no stack.
    pub frames: Vec<Frame>,
    /// The role of the threads it was seen on.
    pub role: Role,
    /// Functions had no names: the state follows from the structure of the process's stacks.
    pub inferred: bool,
    /// What was waited on, longest first; the few that most time went to. Time that is in none of
    /// them went to others, or nothing is known of what it went to.
    pub objects: Vec<Object>,
    /// Who ended the waits, longest first; the few that most time went to. Time that is in none of
    /// them was ended by others, or it is not known by what.
    pub wakers: Vec<Waker>,
}

/// What ended waits of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waker {
    /// `thread`, `timer`, `network`, `disk`, `interrupt`; `unknown` where it cannot be told whether
    /// the thread did so or an interrupt that came upon it.
    pub kind: &'static str,
    /// The thread's process, as the recorder sees it; null unless the kind is `thread` or `unknown`.
    pub pid: Option<u32>,
    /// The thread.
    pub tid: Option<u32>,
    /// The thread's name.
    pub name: Option<String>,
    /// The name of its process, where that is not watched.
    pub process: Option<String>,
    /// Intervals.
    pub count: u64,
    /// Waiting time.
    pub total_ns: u64,
    /// What the thread itself waited for meanwhile, longest first; the few that most time went to.
    pub chains: Vec<Chain>,
    /// Where it ended the waits, root to leaf; empty unless stacks of wakers were taken.
    pub frames: Vec<Frame>,
}

/// Waits that led to the end of others.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Chain {
    /// Indices into [`Report::sites`]: where the waker waited, where the one that ended that wait
    /// did, and so on, four at most.
    pub sites: Vec<usize>,
    /// Intervals.
    pub count: u64,
    /// How long the waits at the first of the sites lasted while the waker was waited for.
    pub total_ns: u64,
}

/// What threads waited on. Addresses, paths and descriptors are those that the target sees.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Object {
    /// `tcp`, `udp`, `unix`, `socket`, `pipe`, `file`, `futex` (private to the process),
    /// `shared-futex`, `process` (a child), `pidfd`, `clock`, `epoll`, `eventfd`, `timerfd`,
    /// `inotify`, ...; `gone` if it was closed before it was looked at, `descriptor` if it never
    /// was.
    pub kind: String,
    /// The other side's address, else its own; the path; the address in memory; the process; the
    /// number of a descriptor that was never looked at. Empty where the kind says all.
    pub name: String,
    /// Its own address, where `name` is another.
    pub local: Option<String>,
    /// Who had the other side open.
    pub peers: Vec<Holder>,
    /// Intervals.
    pub count: u64,
    /// Waiting time.
    pub total_ns: u64,
    /// Some of it may have been on something else, which had the same number before.
    pub reused: bool,
}

/// A process that has something open.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Holder {
    /// Its id, as the recorder sees it.
    pub pid: u32,
    /// Its name.
    pub name: String,
}

/// How the walk of a user stack ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum StackQuality {
    /// At the outermost frame.
    Complete,
    /// The root side is cut.
    Truncated,
    /// At a frame it could not leave.
    Broken,
    /// There is no user stack.
    Missing,
}

/// [`Frame::missing`] of a kernel function whose name the recorder was not allowed to see.
pub const KERNEL_HIDDEN: &str = "kernel-hidden";

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Frame {
    /// Demangled name.
    pub function: Option<String>,
    /// Source file.
    pub file: Option<String>,
    /// Line, from 1.
    pub line: Option<u32>,
    /// Path of the file the code is in; null for the kernel and for generated code.
    pub module: Option<String>,
    /// Hex, as the file's own symbol table counts; absolute where there is no file.
    pub address: Option<String>,
    /// What kind of frame it is.
    pub kind: FrameKind,
    /// Why it has no name.
    pub missing: Option<String>,
    /// Whose code it is; pictures leave out what is `plumbing`.
    pub origin: Origin,
}

/// What kind of frame it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameKind {
    /// Machine code of a file.
    Native,
    /// Inlined into the native frame before it.
    Inlined,
    /// Generated code.
    Jit,
    /// Code run by an interpreter.
    Interpreted,
    /// Kernel code.
    Kernel,
}

/// A maximal span in which every worker of a pool was blocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Starvation {
    /// [`Pool::id`].
    pub pool: u32,
    /// Its start.
    pub start_ns: u64,
    /// Its end.
    pub end_ns: u64,
    /// How many workers there were.
    pub workers: u32,
    /// Indices into [`Report::sites`], the one that held the most worker time first.
    pub sites: Vec<usize>,
    /// For each of these sites how much worker time it held in this span.
    pub held_ns: Vec<u64>,
}

/// How often a task of a pool held a worker for long, and how that time splits. Exactly:
/// `running_ns + runnable_ns + waiting_ns == total_ns`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LongPolls {
    /// [`Pool::id`].
    pub pool: u32,
    /// The future; null where it cannot be told.
    pub task: Option<String>,
    /// Stretches in which a worker was in this task whenever it was seen: one poll each, or several
    /// polls in a row.
    pub count: u64,
    /// How many of them hold a wait that is long by itself, and so surely a long poll.
    pub certain: u64,
    /// Their length, all of them.
    pub total_ns: u64,
    /// Their length, the longest.
    pub max_ns: u64,
    /// On a CPU, or in waits below the minimum block.
    pub running_ns: u64,
    /// Wanting a CPU.
    pub runnable_ns: u64,
    /// Waiting.
    pub waiting_ns: u64,
    /// Samples in them.
    pub samples: u64,
}

/// How often it was looked what ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct OnCpu {
    /// Times a second, on each CPU.
    pub frequency: u32,
    /// Samples of the target's threads.
    pub samples: u64,
}
