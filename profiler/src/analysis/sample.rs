//! Tiny recordings made by hand, for tests of every room that reads one.

use std::collections::{BTreeMap, HashMap};

use crate::{
    recording::{
        CodeAddress, Counters, End, Ending, FrameKind, Host, Interval, KernelStack, KernelStackId,
        LockFacts, Module, ModuleId, NamedFrame, Options, RawFrame, Recording, Regs, ResolvedName,
        Session, StackEnd, Target, ThreadName, ThreadTotals, UserStack, UserStackId, WakeContext,
        Waker, WakerId, WakerThread,
        facts::{EndReason, Observer},
    },
    symbols::{self, SymbolTable},
    units::{Avma, Ktime, Nanos, Pid, Svma, Tid},
};

/// The process of every sample.
pub const PID: Pid = Pid(100);
/// The first instant of every sample's window.
pub const START: Ktime = Ktime(1_000_000_000);

/// A recording under construction; times are nanoseconds from [`START`].
#[derive(Clone, Debug)]
pub struct Sample {
    /// The recording so far.
    pub recording: Recording,
    names: HashMap<CodeAddress, ResolvedName>,
    addresses: HashMap<String, u64>,
}

/// One interval of a sample.
#[derive(Clone, Copy, Debug)]
pub struct Wait<'a> {
    /// The thread.
    pub tid: u32,
    /// Switch-out, wake-up and switch-in.
    pub span: (u64, u64, u64),
    /// The syscall; `None` for a fault.
    pub syscall: Option<i64>,
    /// Function names, leaf first; empty for no stack.
    pub stack: &'a [&'a str],
}

impl Sample {
    /// An empty recording of `duration_ns`.
    pub fn new(duration_ns: u64) -> Self {
        let session = Session {
            recorder: "0.1.0".to_owned(),
            target: Target {
                pid: PID,
                exe: "/usr/bin/orders".into(),
                command: vec!["orders".to_owned()],
                build_id: vec![0xab, 0xcd],
                container: None,
            },
            host: Host {
                kernel: "6.12.0".to_owned(),
                arch: "x86_64".to_owned(),
                cpus: 2,
                boot_id: "boot".to_owned(),
            },
            options: Options {
                min_block: Nanos(100_000),
                children: false,
                hook: "sched_exit_tp".to_owned(),
            },
            start: START,
            start_unix_ns: 1_700_000_000_000_000_000,
            boot_minus_monotonic: Nanos(0),
        };
        let id = ModuleId(0);
        let module =
            Module { id, path: "/usr/bin/orders".into(), build_id: vec![0xab], deleted: false };
        let end = End {
            end: Ktime(START.0 + duration_ns),
            reason: EndReason::Duration,
            observer: Observer::default(),
            throttled: None,
        };
        let recording = Recording {
            session,
            threads: Vec::new(),
            modules: HashMap::from([(id, module)]),
            mappings: Vec::new(),
            user_stacks: HashMap::new(),
            kernel_stacks: HashMap::new(),
            intervals: Vec::new(),
            totals: Vec::new(),
            counters: Counters(BTreeMap::new()),
            names: HashMap::new(),
            open_since: Vec::new(),
            sampling: None,
            samples: Vec::new(),
            nameless: Vec::new(),
            stack_check: None,
            objects: HashMap::new(),
            looks: Vec::new(),
            wakers: HashMap::new(),
            locks: LockFacts::default(),
            ending: Ending::Finished(end),
        };
        Self { recording, names: HashMap::new(), addresses: HashMap::new() }
    }

    /// Adds a wait with a complete stack.
    pub fn wait(&mut self, wait: Wait<'_>) -> &mut Self {
        let user_stack = (!wait.stack.is_empty()).then(|| self.user_stack(wait.stack));
        let (out, wake, in_) = wait.span;
        let regs = Regs {
            ip: Avma(0),
            sp: Avma(0),
            bp: Avma(0),
            syscall: wait.syscall.and_then(|number| u32::try_from(number).ok()),
            args: [0; 6],
        };
        self.recording.intervals.push(Interval {
            pid: PID,
            tid: Tid(wait.tid),
            out: Ktime(START.0 + out),
            wake: Ktime(START.0 + wake),
            in_: Ktime(START.0 + in_),
            task_state: 1,
            preempted: false,
            open_at_start: false,
            open_at_end: false,
            cpu_out: 0,
            cpu_in: 0,
            regs: Some(regs),
            user_stack,
            kernel_stack: None,
            waker: None,
        });
        self
    }

    /// Adds a preempted interval.
    pub fn preempted(&mut self, tid: u32, out: u64, in_: u64) -> &mut Self {
        self.wait(Wait { tid, span: (out, out, in_), syscall: None, stack: &[] });
        let interval = self.recording.intervals.last_mut();
        let interval = interval.expect("an interval was pushed just now");
        (interval.preempted, interval.task_state, interval.regs) = (true, 0, None);
        self
    }

    /// Lets the last interval be on this futex.
    pub fn on_futex(&mut self, address: u64) -> &mut Self {
        let regs = self.last().regs.as_mut();
        let regs = regs.expect("an interval on a futex has registers");
        regs.syscall = u32::try_from(libc::SYS_futex).ok();
        regs.args = [address, 0x80, 2, 0, 0, 0];
        self
    }

    /// Lets the last interval be ended by a thread of the same process, with this user stack.
    pub fn woken_by(&mut self, tid: u32, stack: &[&str]) -> &mut Self {
        let user_stack = (!stack.is_empty()).then(|| self.user_stack(stack));
        let thread = WakerThread { pid: PID, tid: Tid(tid), name: String::new(), process: None };
        let waker = Waker {
            context: WakeContext::Thread,
            thread: Some(thread),
            user_stack,
            kernel_stack: None,
        };
        let id = WakerId(self.recording.wakers.len() as u32);
        self.recording.wakers.insert(id, waker);
        self.last().waker = Some(id);
        self
    }

    /// Lets the last interval be one that had not ended when the window did.
    pub fn open_at_end(&mut self) -> &mut Self {
        self.last().open_at_end = true;
        self
    }

    fn last(&mut self) -> &mut Interval {
        self.recording.intervals.last_mut().expect("there is an interval to be changed")
    }

    /// Gives the last interval a kernel stack of these functions, leaf first.
    pub fn in_kernel(&mut self, functions: &[&str]) -> &mut Self {
        let frames = functions.iter().map(|function| {
            let address = Avma(0xffff_ffff_8000_0000 + self.address_of(function));
            self.name(CodeAddress::Kernel(address), function);
            address
        });
        let frames = frames.collect::<Vec<_>>();
        let id = KernelStackId(self.recording.kernel_stacks.len() as u32);
        self.recording.kernel_stacks.insert(id, KernelStack { id, frames });
        let interval = self.recording.intervals.last_mut();
        interval.expect("there is an interval to be in the kernel").kernel_stack = Some(id);
        self
    }

    /// Has a thread end the wait of the last interval.
    pub fn ended_by(&mut self, tid: u32) -> &mut Self {
        let id = WakerId(tid);
        let thread =
            WakerThread { pid: PID, tid: Tid(tid), name: format!("thread-{tid}"), process: None };
        let waker = Waker {
            context: WakeContext::Thread,
            thread: Some(thread),
            user_stack: None,
            kernel_stack: None,
        };
        self.recording.wakers.insert(id, waker);
        let interval = self.recording.intervals.last_mut();
        interval.expect("there is an interval to be ended").waker = Some(id);
        self
    }

    /// Adds the totals of a thread that lived through the window: its intervals, `short` ns and
    /// `lost` ns of waiting in intervals that are not there, and running for the rest.
    pub fn totals(&mut self, tid: u32, name: &str, short: u64, lost: u64) -> &mut Self {
        let Ending::Finished(end) = &self.recording.ending else {
            panic!("a sample without an end has no totals")
        };
        let (from, to) = (self.recording.session.start, end.end);
        let own = || self.recording.intervals.iter().filter(|interval| interval.tid == Tid(tid));
        let waiting: u64 = own().map(|interval| interval.wake.since(interval.out).0).sum();
        let runnable: u64 = own().map(|interval| interval.in_.since(interval.wake).0).sum();
        let running = to.since(from).0 - waiting - lost - runnable - short;
        let count = own().count() as u64 + u64::from(lost > 0);
        let open_at_start = own().any(|interval| interval.open_at_start);
        let open_at_end = own().any(|interval| interval.open_at_end);
        self.recording.totals.push(ThreadTotals {
            pid: PID,
            tid: Tid(tid),
            name: name.to_owned(),
            from,
            to,
            running: Nanos(running),
            runnable: Nanos(runnable),
            waiting: Nanos(waiting + lost),
            short: Nanos(short),
            switches: count,
            kernel_switches: count,
            intervals: count,
            shorts: 0,
            open_at_start,
            open_at_end,
        });
        self
    }

    /// Makes the recording one whose recorder was killed.
    pub fn unfinished(&mut self) -> &mut Self {
        self.recording.totals.clear();
        self.recording.ending = Ending::Unfinished { offset: 1 };
        self
    }

    /// Adds a thread by name only.
    pub fn thread(&mut self, tid: u32, name: &str) -> &mut Self {
        let name = name.to_owned();
        self.recording.threads.push(ThreadName { at: START, pid: PID, tid: Tid(tid), name });
        self
    }

    /// The names of everything on the sample's stacks.
    pub fn names(&self) -> SymbolTable {
        self.names.clone().into_iter().collect()
    }

    fn user_stack(&mut self, functions: &[&str]) -> UserStackId {
        let frames: Vec<_> = functions
            .iter()
            .map(|function| {
                let address = CodeAddress::Module(ModuleId(0), Svma(self.address_of(function)));
                self.name(address, function);
                RawFrame { address, kind: FrameKind::ReturnAddress }
            })
            .collect();
        let known = self.recording.user_stacks.values().find(|stack| stack.frames == frames);
        if let Some(stack) = known {
            return stack.id;
        }
        let id = UserStackId(self.recording.user_stacks.len() as u32);
        let end = StackEnd::Complete;
        self.recording.user_stacks.insert(id, UserStack { id, frames, end, by_frame_pointer: 0 });
        id
    }

    fn address_of(&mut self, function: &str) -> u64 {
        let next = 0x1000 + 0x10 * self.addresses.len() as u64;
        *self.addresses.entry(function.to_owned()).or_insert(next)
    }

    fn name(&mut self, address: CodeAddress, function: &str) {
        let frame = RawFrame { address, kind: FrameKind::ReturnAddress };
        let named = NamedFrame {
            function: function.to_owned(),
            file: Some("src/db.rs".to_owned()),
            line: Some(88),
        };
        let name = ResolvedName::Frames(vec![named]);
        self.names.insert(symbols::lookup_address(&frame), name);
    }
}
