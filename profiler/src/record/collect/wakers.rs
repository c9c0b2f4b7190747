//! Who ended waits, as the kernel side told it before the waits themselves.

use std::collections::HashMap;

use profiler_common::event::{IntervalEvent, WakeContext as Context, WakeEvent};

use super::{Collector, threads::text};
use crate::{
    kernel::events::UserPart,
    recording::{
        Interval, KernelStackId, Record, UserStackId, WakeContext, Waker, WakerId, WakerThread,
        Woken, file::WriteError,
    },
    target,
    units::{Ktime, Pid, Tid},
};

/// What was told and not asked for yet.
#[derive(Debug, Default)]
pub struct Wakers {
    numbers: HashMap<Waker, WakerId>,
    /// What ended the latest wait of each thread, and when.
    ended: HashMap<Tid, (Ktime, WakerId)>,
    /// The stacks of the threads that end waits, each until it is told whose.
    stacks: HashMap<Tid, (Ktime, Stacks)>,
    /// By a thread of a process that is not watched: the name of the process.
    processes: HashMap<(Pid, Tid), Option<String>>,
}

type Stacks = (Option<UserStackId>, Option<KernelStackId>);

impl Collector {
    /// Takes the stacks of a thread that ends a wait.
    pub(super) fn waker(
        &mut self,
        event: &IntervalEvent,
        user: UserPart<'_>,
    ) -> Result<(), WriteError> {
        let at = Ktime(event.span.wake_ns);
        let stacks = self.stacks(event, user, at)?;
        self.wakers.stacks.insert(Tid(event.tid), (at, stacks));
        Ok(())
    }

    /// Takes that a wait was ended.
    pub(super) fn wake(&mut self, event: &WakeEvent, kernel: &[u64]) -> Result<(), WriteError> {
        let at = Ktime(event.at_ns);
        let own = self.wakers.stacks.remove(&Tid(event.tid)).filter(|(taken, _)| *taken == at);
        let (user_stack, mut kernel_stack) = own.map(|(_, stacks)| stacks).unwrap_or_default();
        if !kernel.is_empty() {
            kernel_stack = Some(self.kernel_stack(kernel)?);
        }
        let context = context(event);
        let thread =
            (event.tid != 0 && context != WakeContext::Interrupt).then(|| self.waker_thread(event));
        let waker = Waker { context, thread, user_stack, kernel_stack };
        let id = if let Some(id) = self.wakers.numbers.get(&waker) {
            *id
        } else {
            let id = WakerId(self.wakers.numbers.len() as u32);
            self.append(Record::Waker(id, waker.clone()))?;
            self.wakers.numbers.insert(waker, id);
            id
        };
        self.wakers.ended.insert(Tid(event.woken_tid), (at, id));
        Ok(())
    }

    /// Appends what ended an interval, if it was told: for the interval, which follows it.
    pub(super) fn woken(&mut self, interval: &mut Interval) -> Result<(), WriteError> {
        let (pid, tid, at) = (interval.pid, interval.tid, interval.wake);
        if interval.preempted {
            return Ok(());
        }
        let ended = self.wakers.ended.remove(&tid).filter(|(when, _)| *when == at);
        let Some((_, waker)) = ended else { return Ok(()) };
        interval.waker = Some(waker);
        self.append(Record::Woken(Woken { at, pid, tid, waker }))
    }

    fn waker_thread(&mut self, event: &WakeEvent) -> WakerThread {
        let (pid, tid) = (Pid(event.tgid), Tid(event.tid));
        let is_watched = self.names.contains_key(&(pid, tid));
        let process = if is_watched {
            None
        } else {
            let name = || target::process_name(pid);
            self.wakers.processes.entry((pid, tid)).or_insert_with(name).clone()
        };
        WakerThread { pid, tid, name: text(&event.comm), process }
    }
}

/// The idle thread itself wakes nobody: what does so then is an interrupt.
fn context(event: &WakeEvent) -> WakeContext {
    match event.context {
        kind if kind == Context::Thread as u32 => WakeContext::Thread,
        kind if kind == Context::Softirq as u32 => WakeContext::Softirq,
        kind if kind == Context::Interrupt as u32 || event.tid == 0 => WakeContext::Interrupt,
        _ => WakeContext::Unknown,
    }
}
