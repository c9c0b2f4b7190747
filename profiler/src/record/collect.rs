//! What came out of the ring buffer, turned into the facts of a recording.

use std::collections::HashMap;

use profiler_common::{
    config::HookPath,
    counter::Counter,
    event::{HAS_REGS, IntervalEvent, OPEN_AT_START, PREEMPTED, ThreadEvent},
    state::{Ended, OFF_AT_START, Phase, Span, TASK_DEAD, ThreadState},
};

use super::code::CodeMap;
use crate::{
    kernel::{Event, events},
    recording::{
        Interval, KernelStack, KernelStackId, RawFrame, Record, Regs, Session, StackEnd,
        ThreadName, ThreadTotals, UserStack, UserStackId,
        file::{WriteError, Writer},
    },
    units::{Avma, Ktime, Nanos, Pid, Tid},
    unwind::WalkRegs,
};

/// The facts of a recording under way.
pub struct Collector {
    writer: Writer,
    /// Facts that came before the session could be written; `None` once it is.
    early: Option<Vec<Record>>,
    /// Where code is mapped.
    pub code: CodeMap,
    user_stacks: HashMap<(Vec<RawFrame>, StackEnd), UserStackId>,
    kernel_stacks: HashMap<Vec<Avma>, KernelStackId>,
    names: HashMap<(Pid, Tid), String>,
    /// By thread and its switch counter: the same stacks can come from the sweep and from the
    /// thread's next switch-in, and later ones belong to other waits.
    swept: HashMap<(Tid, u64), Swept>,
    /// The threads that the latest roll-call found.
    present: HashMap<Tid, ThreadEvent>,
    /// A process replaced its program since this was last asked.
    exec_seen: Option<Pid>,
    /// What was recorded, for the progress line.
    pub tally: Tally,
    lost: HashMap<Counter, u64>,
    scratch: Vec<Record>,
}

/// What was recorded so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Intervals.
    pub intervals: u64,
    /// Waiting time in them.
    pub waiting: Nanos,
}

/// The stacks of a thread that is off-CPU.
struct Swept {
    regs: Option<Regs>,
    user_stack: Option<UserStackId>,
    kernel_stack: Option<KernelStackId>,
}

impl Collector {
    /// An empty recording that is written through `writer`.
    pub fn new(writer: Writer) -> Self {
        Self {
            writer,
            early: Some(Vec::new()),
            code: CodeMap::default(),
            user_stacks: HashMap::new(),
            kernel_stacks: HashMap::new(),
            names: HashMap::new(),
            swept: HashMap::new(),
            present: HashMap::new(),
            exec_seen: None,
            tally: Tally::default(),
            lost: HashMap::new(),
            scratch: Vec::new(),
        }
    }

    /// Writes what a recording begins with, then the facts that came before it.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn begin(&mut self, session: &Session) -> Result<(), WriteError> {
        self.writer.append(&Record::Session(session.clone()))?;
        let early = self.early.take().unwrap_or_default();
        early.iter().try_for_each(|fact| self.writer.append(fact))?;
        self.refresh(session.target.pid, session.start)?;
        self.writer.flush()
    }

    /// Appends a fact.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn append(&mut self, record: &Record) -> Result<(), WriteError> {
        match &mut self.early {
            Some(early) => {
                early.push(record.clone());
                Ok(())
            }
            None => self.writer.append(record),
        }
    }

    /// Takes one record of the ring buffer.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn take(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let Some(event) = events::parse(bytes) else {
            self.lose(Counter::EventsMalformed);
            return Ok(());
        };
        match event {
            Event::Interval(event, stack) => self.interval(&event, stack),
            Event::Swept(event, stack) => {
                let (user_stack, kernel_stack) = self.stacks(&event, stack, super::clock::now())?;
                let wait = (Tid(event.tid), event.kernel_switches);
                self.swept.insert(wait, Swept { regs: regs(&event), user_stack, kernel_stack });
                Ok(())
            }
            Event::ThreadEnded(event) => {
                let name = self.name(&event.state.comm, Pid(event.tgid), Tid(event.tid));
                self.totals(Tid(event.tid), &event.state, event.at_ns, name, false)
            }
            Event::Exec(event) => {
                let pid = Pid(event.tgid);
                self.code.forget(pid);
                self.exec_seen = Some(pid);
                self.refresh(pid, Ktime(event.at_ns))
            }
            Event::ProcessBorn(event) => self.refresh(Pid(event.tgid), Ktime(event.at_ns)),
            // It ended and its parent has not noticed: its totals came with its end.
            Event::Present(event) if event.state.task_state & TASK_DEAD != 0 => Ok(()),
            Event::Present(event) => {
                self.rename(
                    Ktime(event.at_ns),
                    &event.state.comm,
                    Pid(event.tgid),
                    Tid(event.tid),
                )?;
                self.present.insert(Tid(event.tid), event);
                Ok(())
            }
        }
    }

    /// Reads the mappings of a process.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn refresh(&mut self, pid: Pid, at: Ktime) -> Result<(), WriteError> {
        let mut facts = std::mem::take(&mut self.scratch);
        self.code.refresh(pid, at, &mut facts);
        self.append_all(facts)
    }

    /// Whether a process replaced its program since this was last asked.
    pub fn take_exec(&mut self) -> Option<Pid> {
        self.exec_seen.take()
    }

    /// Forgets the answers of earlier roll-calls: the next one is about to be taken.
    pub fn expect_roll_call(&mut self) {
        self.present.clear();
    }

    /// Closes the accounting of every thread at the end of the window: `states` is what the kernel
    /// kept, and the roll-call and the sweep have been taken after `end`.
    ///
    /// # Errors
    /// If the recording cannot be written.
    pub fn close(
        &mut self,
        states: Vec<(Tid, ThreadState)>,
        start: Ktime,
        end: Ktime,
        min_block: Nanos,
    ) -> Result<(), WriteError> {
        let mut states: HashMap<Tid, ThreadState> = states.into_iter().collect();
        for (tid, event) in &self.present {
            // Without an event in the window a thread did all along what it does now.
            let born = event.state.from_ns.max(start.0);
            if born < end.0 {
                states.entry(*tid).or_insert_with(|| silent(event, born));
            }
        }
        let mut states: Vec<_> = states.into_iter().collect();
        states.sort_unstable_by_key(|(tid, _)| *tid);
        for (tid, mut state) in states {
            let ended = state.close(end.0, min_block.0);
            let pid = Pid(state.tgid);
            if let Ended::Interval(span) = ended {
                self.open_interval(pid, tid, &state, span)?;
            }
            let comm = self.present.get(&tid).map(|event| event.state.comm);
            let name = self.name(&comm.unwrap_or_default(), pid, tid);
            self.totals(tid, &state, end.0, name, !matches!(ended, Ended::Nothing))?;
        }
        Ok(())
    }

    /// Counts a loss of the user side.
    pub fn lose(&mut self, counter: Counter) {
        *self.lost.entry(counter).or_default() += 1;
    }

    /// Adds what the kernel side lost.
    pub fn add(&mut self, counter: Counter, count: u64) {
        *self.lost.entry(counter).or_default() += count;
    }

    /// How much was lost.
    pub fn lost(&self, counter: Counter) -> u64 {
        let own = match counter {
            Counter::MappingsUnread => self.code.mappings_unread,
            Counter::ModulesUnreadable => self.code.modules_unreadable,
            _ => 0,
        };
        own + self.lost.get(&counter).copied().unwrap_or(0)
    }

    /// Every stack so far, by number.
    pub fn interned(
        &self,
    ) -> (HashMap<UserStackId, UserStack>, HashMap<KernelStackId, KernelStack>) {
        let user = self
            .user_stacks
            .iter()
            .map(|((frames, end), &id)| (id, UserStack { id, frames: frames.clone(), end: *end }));
        let kernel = self
            .kernel_stacks
            .iter()
            .map(|(frames, &id)| (id, KernelStack { id, frames: frames.clone() }));
        (user.collect(), kernel.collect())
    }

    /// The writer, to flush it.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// The writer, to finish it, and the files that are held open.
    pub fn into_parts(self) -> (Writer, CodeMap) {
        (self.writer, self.code)
    }

    fn interval(&mut self, event: &IntervalEvent, stack: &[u8]) -> Result<(), WriteError> {
        let (pid, tid) = (Pid(event.tgid), Tid(event.tid));
        self.rename(Ktime(event.span.in_ns), &event.comm, pid, tid)?;
        let (user_stack, kernel_stack) = self.stacks(event, stack, Ktime(event.span.in_ns))?;
        let interval = Interval {
            task_state: event.task_state,
            preempted: event.flags & PREEMPTED != 0,
            open_at_start: event.flags & OPEN_AT_START != 0,
            cpu_out: event.cpu_out,
            cpu_in: event.cpu_in,
            regs: regs(event),
            user_stack,
            kernel_stack,
            ..bare(pid, tid, event.span)
        };
        self.record(interval)
    }

    /// An interval that had not ended when the window did, with the stacks of the sweep if the
    /// thread has not moved since.
    fn open_interval(
        &mut self,
        pid: Pid,
        tid: Tid,
        state: &ThreadState,
        span: Span,
    ) -> Result<(), WriteError> {
        let preempted = state.phase == Phase::Runnable as u32;
        let mut interval = Interval {
            task_state: state.task_state,
            preempted,
            open_at_start: span.out_ns == state.from_ns && state.flags & OFF_AT_START != 0,
            open_at_end: true,
            cpu_out: u32::from(state.cpu_out),
            cpu_in: u32::from(state.cpu_out),
            ..bare(pid, tid, span)
        };
        if let Some(swept) = self.swept.remove(&(tid, state.kernel_switches_last)) {
            interval.regs = swept.regs;
            interval.user_stack = swept.user_stack;
            interval.kernel_stack = swept.kernel_stack;
        } else if !preempted {
            self.lose(Counter::SweepsMoved);
        }
        self.record(interval)
    }

    fn record(&mut self, interval: Interval) -> Result<(), WriteError> {
        self.tally.intervals += 1;
        self.tally.waiting += interval.wake.since(interval.out);
        self.append(&Record::Interval(interval))
    }

    /// The stacks of an event, walked and given their numbers.
    fn stacks(
        &mut self,
        event: &IntervalEvent,
        stack: &[u8],
        at: Ktime,
    ) -> Result<(Option<UserStackId>, Option<KernelStackId>), WriteError> {
        let kernel: Vec<Avma> =
            event.kernel[..event.kernel_frames as usize].iter().map(|&frame| Avma(frame)).collect();
        let kernel_stack = if kernel.is_empty() { None } else { Some(self.kernel_stack(kernel)?) };
        if event.flags & HAS_REGS == 0 {
            return Ok((None, kernel_stack));
        }
        let regs = WalkRegs {
            ip: Avma(event.regs.ip),
            sp: Avma(event.regs.sp),
            bp: Avma(event.regs.bp),
            in_syscall: event.regs.orig_ax >= 0,
        };
        let mut facts = std::mem::take(&mut self.scratch);
        let (frames, end) = self.code.walk(Pid(event.tgid), regs, stack, at, &mut facts);
        self.append_all(facts)?;
        match end {
            StackEnd::Complete => {}
            StackEnd::Truncated => self.lose(Counter::StacksTruncated),
            StackEnd::Broken => self.lose(Counter::StacksBroken),
        }
        Ok((Some(self.user_stack(frames, end)?), kernel_stack))
    }

    fn user_stack(
        &mut self,
        frames: Vec<RawFrame>,
        end: StackEnd,
    ) -> Result<UserStackId, WriteError> {
        let next = UserStackId(self.user_stacks.len() as u32);
        let key = (frames, end);
        if let Some(&id) = self.user_stacks.get(&key) {
            return Ok(id);
        }
        let stack = UserStack { id: next, frames: key.0.clone(), end };
        self.user_stacks.insert(key, next);
        self.append(&Record::UserStack(stack))?;
        Ok(next)
    }

    fn kernel_stack(&mut self, frames: Vec<Avma>) -> Result<KernelStackId, WriteError> {
        let next = KernelStackId(self.kernel_stacks.len() as u32);
        if let Some(&id) = self.kernel_stacks.get(&frames) {
            return Ok(id);
        }
        let stack = KernelStack { id: next, frames: frames.clone() };
        self.kernel_stacks.insert(frames, next);
        self.append(&Record::KernelStack(stack))?;
        Ok(next)
    }

    fn append_all(&mut self, mut facts: Vec<Record>) -> Result<(), WriteError> {
        for fact in facts.drain(..) {
            self.append(&fact)?;
        }
        self.scratch = facts;
        Ok(())
    }

    /// Notes the name of a thread if it is new.
    fn rename(&mut self, at: Ktime, comm: &[u8; 16], pid: Pid, tid: Tid) -> Result<(), WriteError> {
        let name = text(comm);
        if name.is_empty() || self.names.get(&(pid, tid)).is_some_and(|known| *known == name) {
            return Ok(());
        }
        self.names.insert((pid, tid), name.clone());
        self.append(&Record::Thread(ThreadName { at, pid, tid, name }))
    }

    /// The name that the kernel just gave, else the last one known.
    fn name(&self, comm: &[u8; 16], pid: Pid, tid: Tid) -> String {
        let name = text(comm);
        if name.is_empty() {
            self.names.get(&(pid, tid)).cloned().unwrap_or_default()
        } else {
            name
        }
    }

    fn totals(
        &mut self,
        tid: Tid,
        state: &ThreadState,
        to_ns: u64,
        name: String,
        open_at_end: bool,
    ) -> Result<(), WriteError> {
        let kernel_switches = state.kernel_switches_last - state.kernel_switches_first;
        *self.lost.entry(Counter::SwitchesMissed).or_default() +=
            kernel_switches.saturating_sub(state.switches);
        self.append(&Record::Totals(ThreadTotals {
            pid: Pid(state.tgid),
            tid,
            name,
            from: Ktime(state.from_ns),
            to: Ktime(to_ns.max(state.from_ns)),
            running: Nanos(state.running_ns),
            runnable: Nanos(state.runnable_ns),
            waiting: Nanos(state.waiting_ns),
            short: Nanos(state.short_ns),
            switches: state.switches,
            kernel_switches,
            intervals: state.intervals,
            shorts: state.shorts,
            open_at_start: state.flags & OFF_AT_START != 0,
            open_at_end,
        }))
    }
}

/// The name of a hook in a recording.
pub fn hook_name(hook: HookPath) -> &'static str {
    match hook {
        HookPath::SchedExit => "sched_exit_tp",
        HookPath::FinishTaskSwitch => "finish_task_switch",
        HookPath::SwitchOut => "switch-out",
    }
}

/// The accounting of a thread that had no event since `born`.
fn silent(event: &ThreadEvent, born: u64) -> ThreadState {
    let phase = match event.state.phase {
        phase if phase == Phase::Running as u32 => Phase::Running,
        phase if phase == Phase::Runnable as u32 => Phase::Runnable,
        _ => Phase::Waiting,
    };
    let switches = event.state.kernel_switches_last;
    let mut state = ThreadState::first_seen(born, phase, event.tgid, switches);
    state.task_state = event.state.task_state;
    state
}

/// An interval of which only the times are known.
fn bare(pid: Pid, tid: Tid, span: Span) -> Interval {
    Interval {
        pid,
        tid,
        out: Ktime(span.out_ns),
        wake: Ktime(span.wake_ns),
        in_: Ktime(span.in_ns),
        task_state: 0,
        preempted: false,
        open_at_start: false,
        open_at_end: false,
        cpu_out: 0,
        cpu_in: 0,
        regs: None,
        user_stack: None,
        kernel_stack: None,
    }
}

fn regs(event: &IntervalEvent) -> Option<Regs> {
    (event.flags & HAS_REGS != 0).then(|| Regs {
        ip: Avma(event.regs.ip),
        sp: Avma(event.regs.sp),
        bp: Avma(event.regs.bp),
        syscall: u32::try_from(event.regs.orig_ax).ok(),
        args: event.regs.args,
    })
}

/// A thread's name as the kernel keeps it: up to 15 bytes, ended by a zero.
fn text(comm: &[u8; 16]) -> String {
    let end = comm.iter().position(|&byte| byte == 0).unwrap_or(comm.len());
    String::from_utf8_lossy(&comm[..end]).into_owned()
}
