//! What came out of the ring buffer, turned into the facts of a recording.

mod close;
mod open;
pub mod stacks;
mod threads;
mod wakers;
mod walks;

use std::collections::HashMap;

use profiler_common::{
    counter::Counter,
    event::{HAS_REGS, IntervalEvent, OPEN_AT_START, PREEMPTED, ThreadEvent},
    state::Span,
};

use self::{open::OpenWaits, stacks::StackTable, wakers::Wakers, walks::KernelWalks};
use super::{
    check::Checker,
    code::CodeMap,
    locks::{self, Asleep},
    objects::Objects,
};
use crate::{
    kernel::{
        Event,
        events::{self, UserPart},
    },
    recording::{
        Interval, KernelStackId, Record, Regs, Sample, Session, UserStackId,
        file::{WriteError, Writer},
    },
    units::{Avma, Ktime, Nanos, Pid, Tid},
};

/// The facts of a recording under way.
pub struct Collector {
    writer: Writer,
    /// Facts that wait for the session, which comes first in the file.
    held: Option<Vec<Record>>,
    /// What ended before this instant was seen while the window was not open yet.
    start: Ktime,
    /// Where code is mapped.
    pub code: CodeMap,
    /// Every stack so far.
    pub stacks: StackTable,
    /// The user stacks that the kernel side walked.
    walks: KernelWalks,
    /// As the kernel keeps them.
    names: HashMap<(Pid, Tid), [u8; 16]>,
    /// By thread and its switch counter: the same stacks can come from the sweep and from the
    /// thread's next switch-in, and later ones belong to other waits.
    swept: HashMap<(Tid, u64), Swept>,
    /// The threads that the latest roll-call found.
    present: HashMap<Tid, ThreadEvent>,
    /// Since when threads are off-CPU.
    open: OpenWaits,
    /// Who ends waits.
    wakers: Wakers,
    /// Processes that replaced their program.
    execs: HashMap<Pid, Ktime>,
    /// Compares stacks of the kernel side with walks of their copies, where that was asked for.
    pub checker: Option<Checker>,
    /// Looks up what is waited on, where it could be started.
    pub objects: Option<Objects>,
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
    pid: Pid,
    regs: Option<Regs>,
    user_stack: Option<UserStackId>,
    kernel_stack: Option<KernelStackId>,
}

impl Collector {
    /// An empty recording that is written through `writer`.
    pub fn new(writer: Writer) -> Self {
        Self {
            writer,
            held: Some(Vec::new()),
            start: Ktime(0),
            code: CodeMap::default(),
            stacks: StackTable::default(),
            walks: KernelWalks::default(),
            names: HashMap::new(),
            swept: HashMap::new(),
            present: HashMap::new(),
            open: OpenWaits::default(),
            wakers: Wakers::default(),
            execs: HashMap::new(),
            checker: None,
            objects: None,
            tally: Tally::default(),
            lost: HashMap::new(),
            scratch: Vec::new(),
        }
    }

    /// The window is open from `start` on.
    pub fn window_opened(&mut self, start: Ktime) {
        self.start = start;
    }

    /// Writes the session, and behind it everything that waited for it, except what a command that
    /// was launched waited for before it was itself.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn begin(&mut self, session: Session) -> Result<(), WriteError> {
        let held = self.held.take().unwrap_or_default();
        let itself_at = self.execs.get(&session.target.pid).copied().unwrap_or_default();
        let is_of_session = |fact: &&Record| match fact {
            Record::Interval(interval) => interval.in_ > itself_at,
            Record::Totals(totals) => totals.to > itself_at,
            Record::Sample(sample) => sample.at > itself_at,
            _ => true,
        };
        self.writer.append(&Record::Session(session))?;
        held.iter().filter(is_of_session).try_for_each(|record| self.writer.append(record))?;
        self.writer.flush()
    }

    /// Appends a fact.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn append(&mut self, record: Record) -> Result<(), WriteError> {
        match &mut self.held {
            Some(held) => {
                held.push(record);
                Ok(())
            }
            None => self.writer.append(&record),
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
            Event::Interval(event, user) => self.interval(event, user),
            Event::Swept(event, user) => {
                let (user_stack, kernel_stack) = self.stacks(event, user, super::clock::now())?;
                let wait = (Tid(event.tid), event.kernel_switches);
                let (pid, regs) = (Pid(event.tgid), regs(event));
                self.swept.insert(wait, Swept { pid, regs, user_stack, kernel_stack });
                Ok(())
            }
            Event::Sample(event, user) => self.sample(event, user),
            Event::Waker(event, user) => self.waker(event, user),
            Event::Wake(event, kernel) => self.wake(event, kernel),
            Event::ThreadEnded(event) => self.thread_ended(&event),
            Event::Exec(event) => {
                let pid = Pid(event.state.tgid);
                self.code.become_another(pid);
                self.execs.entry(pid).or_insert(Ktime(event.at_ns));
                Ok(())
            }
            Event::ProcessBorn(event) => self.refresh(Pid(event.state.tgid), Ktime(event.at_ns)),
            Event::ProcessGone(event) => {
                self.code.forget(Pid(event.state.tgid));
                Ok(())
            }
            Event::Present(event) => {
                let (pid, tid) = (Pid(event.state.tgid), Tid(event.state.tid));
                self.rename(Ktime(event.at_ns), &event.comm, pid, tid)?;
                self.open.hear(&event);
                self.present.insert(tid, event);
                Ok(())
            }
        }
    }

    /// Every record that was captured before an instant has been taken.
    pub fn taken_until(&mut self, instant: Ktime) {
        self.code.taken_until(instant);
        self.walks.forget(&self.code.take_gone());
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

    /// Whether a process replaced its program.
    pub fn has_execed(&self, pid: Pid) -> bool {
        self.execs.contains_key(&pid)
    }

    /// The next roll-call is about to be taken.
    pub fn forget_roll_call(&mut self) {
        self.present.clear();
    }

    /// Reads the mappings of every process again.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn refresh_all(&mut self) -> Result<(), WriteError> {
        let now = super::clock::now();
        self.code.processes().into_iter().try_for_each(|pid| self.refresh(pid, now))
    }

    /// Reads the mappings of those processes again in which mappings were made.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn refresh_due(&mut self) -> Result<(), WriteError> {
        let now = super::clock::now();
        self.code.processes_due().into_iter().try_for_each(|pid| self.refresh(pid, now))
    }

    /// Appends what was found out about the things that are waited on.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn take_objects(&mut self) -> Result<(), WriteError> {
        let facts = self.objects.as_mut().map(Objects::answers).unwrap_or_default();
        self.append_all(facts)
    }

    /// The same for the last time.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn finish_objects(&mut self) -> Result<(), WriteError> {
        let facts = self.objects.take().map(Objects::finish).unwrap_or_default();
        self.append_all(facts)
    }

    /// Looks at the futexes that are still waited for, and at who may hold them. The roll-call and
    /// the sweep have just been taken.
    ///
    /// # Errors
    /// If the recording is full or cannot be written.
    pub fn look_at_locks(&mut self) -> Result<(), WriteError> {
        let mut asleep: HashMap<Tid, Asleep> = HashMap::new();
        for (&(tid, switches), swept) in &self.swept {
            let Some(regs) = swept.regs else { continue };
            let thread = Asleep { pid: swept.pid, tid, regs, switches };
            let latest = asleep.entry(tid).or_insert(thread);
            if latest.switches < switches {
                *latest = thread;
            }
        }
        let present = self.present.values().map(|event| event.state);
        let others = present.filter(|state| !asleep.contains_key(&Tid(state.tid)));
        let others: Vec<_> = others.map(|state| (Pid(state.tgid), Tid(state.tid))).collect();
        self.append_all(locks::look(asleep.into_values().collect(), others))
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
            Counter::MappingsUnread => self.code.losses.mappings_unread,
            Counter::MappingsUnheard => self.code.losses.mappings_unheard,
            Counter::TablesRefused => self.code.losses.tables_refused,
            Counter::ModulesUnreadable => self.code.modules_unreadable(),
            _ => 0,
        };
        own + self.lost.get(&counter).copied().unwrap_or(0)
    }

    /// The writer, to flush it.
    pub fn writer(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// The writer, to finish it, and the files that are held open.
    pub fn into_parts(self) -> (Writer, CodeMap) {
        (self.writer, self.code)
    }

    fn interval(&mut self, event: &IntervalEvent, user: UserPart<'_>) -> Result<(), WriteError> {
        if event.span.in_ns < self.start.0 {
            return Ok(());
        }
        let (pid, tid) = (Pid(event.tgid), Tid(event.tid));
        self.rename(Ktime(event.span.in_ns), &event.comm, pid, tid)?;
        let (mut user_stack, mut kernel_stack) =
            self.stacks(event, user, Ktime(event.span.in_ns))?;
        let mut regs = regs(event);
        if regs.is_none() && event.flags & OPEN_AT_START != 0 {
            // Where stacks are taken at switch-out, that was before the window.
            if let Some(swept) = self.swept.remove(&(tid, event.kernel_switches)) {
                (regs, user_stack, kernel_stack) =
                    (swept.regs, swept.user_stack, swept.kernel_stack);
            }
        }
        let interval = Interval {
            task_state: event.task_state,
            preempted: event.flags & PREEMPTED != 0,
            open_at_start: event.flags & OPEN_AT_START != 0,
            cpu_out: event.cpu_out,
            cpu_in: event.cpu_in,
            regs,
            user_stack,
            kernel_stack,
            ..bare(pid, tid, event.span)
        };
        self.record(interval)
    }

    fn sample(&mut self, event: &IntervalEvent, user: UserPart<'_>) -> Result<(), WriteError> {
        let at = Ktime(event.span.in_ns);
        let (pid, tid) = (Pid(event.tgid), Tid(event.tid));
        let (user_stack, kernel_stack) = self.stacks(event, user, at)?;
        self.append(Record::Sample(Sample { at, pid, tid, user_stack, kernel_stack }))
    }

    fn record(&mut self, mut interval: Interval) -> Result<(), WriteError> {
        self.woken(&mut interval)?;
        self.tally.intervals += 1;
        self.tally.waiting += interval.wake.since(interval.out);
        if let Some(objects) = &mut self.objects {
            objects.ask(&interval);
        }
        let appended = self.append(Record::Interval(interval));
        if appended.is_err() {
            self.lose(Counter::IntervalsRefused);
        }
        appended
    }

    /// The stacks of an event, walked and given their numbers.
    fn stacks(
        &mut self,
        event: &IntervalEvent,
        user: UserPart<'_>,
        at: Ktime,
    ) -> Result<(Option<UserStackId>, Option<KernelStackId>), WriteError> {
        let kernel = &event.kernel[..event.kernel_frames as usize];
        let kernel_stack = if kernel.is_empty() { None } else { Some(self.kernel_stack(kernel)?) };
        if event.flags & HAS_REGS == 0 {
            return Ok((None, kernel_stack));
        }
        Ok((Some(self.user_stack(event, user, at)?), kernel_stack))
    }

    fn kernel_stack(&mut self, frames: &[u64]) -> Result<KernelStackId, WriteError> {
        let (id, new) = self.stacks.kernel(frames);
        let Some(stack) = new else { return Ok(id) };
        let appended = self.append(Record::KernelStack(stack.clone()));
        appended.map(|()| self.stacks.keep_kernel(&stack))
    }

    fn append_all(&mut self, mut facts: Vec<Record>) -> Result<(), WriteError> {
        let mut refused = Ok(());
        for fact in facts.drain(..) {
            refused = refused.and(self.append(fact));
        }
        self.scratch = facts;
        refused
    }
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
        waker: None,
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
