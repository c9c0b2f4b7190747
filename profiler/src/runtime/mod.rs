//! What a wait means: is the runtime parking its own thread, or does a task hold it up?
//!
//! [`classify`] is pure: no I/O, no clock, no totals. It is given all the waits of one process at
//! once, because one stack can explain another. A runtime is one `Description` in `RUNTIMES`;
//! adding one changes nothing else.

pub mod advice;
pub mod awaited;
mod crates;
mod inferred;
pub mod instances;
pub mod labels;
pub mod lock;
mod marks;
pub mod meaning;
pub mod names;
mod origin;
pub mod plumbing;
mod rayon;
pub mod reason;
mod smol;
pub mod stack;
pub mod task;
mod tokio;
mod waker;

use std::collections::{BTreeMap, HashMap, HashSet};

pub use awaited::Awaited;
pub use lock::Lock;
pub use meaning::{Meaning, Place, Reason, Role, Scope, State};
pub use origin::Origin;
pub use stack::{Body, Frame, Stack};
pub use waker::{WakerKind, kind as waker_kind};

use crate::{recording::StackEnd, units::Tid};

/// The runtimes that are known.
const RUNTIMES: &[Description] = &[tokio::TOKIO, rayon::RAYON, smol::SMOL, smol::ASYNC_STD];

/// What can be told of them where functions have no names; asked where no description says anything.
const INFERRED: &[Description] = &[inferred::TOKIO];

/// The runtime of threads that belong to none.
pub const NO_RUNTIME: &str = "none";

/// One thread of a process.
#[derive(Clone, Copy, Debug)]
pub struct Thread<'a> {
    /// The thread.
    pub tid: Tid,
    /// Its name: a hint, never evidence.
    pub name: &'a str,
}

/// One distinct wait of a thread: whatever has the same stack and reason need be asked once.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The thread.
    pub tid: Tid,
    /// What the kernel was asked to wait for.
    pub reason: Reason,
    /// What tells instances apart of what the kernel was asked to wait on: [`Awaited::instance`].
    pub object: Option<u64>,
    /// The user stack, if one was taken.
    pub stack: Option<&'a Stack<'a>>,
}

/// What the waits and threads of one process mean.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// One meaning for each wait, in the order given.
    pub meanings: Vec<Meaning>,
    /// Where each thread belongs.
    pub places: HashMap<Tid, Place>,
}

/// Everything that is known about one runtime.
struct Description {
    /// Its name in reports.
    name: &'static str,
    /// Reads all waits of a process; `None` where a stack shows nothing of this runtime.
    read: fn(&[View<'_>]) -> Vec<Option<Reading>>,
    /// Its functions on the way to the code that it runs.
    plumbing: &'static [plumbing::Row],
}

/// What a runtime's description reads from one stack.
#[derive(Clone, Debug)]
struct Reading {
    state: State,
    /// The thread's role at that moment, if the stack shows it.
    role: Option<Role>,
    /// Which of the runtime's pools, if the stack shows it.
    scope: Option<Scope>,
    /// Which of the runtime's instances, if the wait shows it.
    instance: Option<instances::Sign>,
    task: Option<String>,
    /// The frames before this one, leaf first, are what the runtime called.
    below: usize,
    /// What runs is a task's poll, not a closure or a thread that may wait.
    under_task: bool,
    /// The function through which the thread entered the runtime is not on the stack: it is inlined
    /// into the one of this name, or further out.
    entry_hidden: Option<String>,
    /// The thread is one of those that the runtime starts itself.
    in_pool_thread: bool,
}

impl Reading {
    /// Of two runtimes on one stack, which one's thread it is: whose task or whose pool's loop it
    /// is in, before one whose future it only waits for; else the one nearer to the leaf.
    fn rank(&self) -> (bool, usize) {
        (!matches!(self.role, Some(Role::Worker | Role::Blocking)), self.below)
    }
}

/// What one stack shows of one runtime.
#[derive(Clone, Copy)]
struct Read<'a> {
    runtime: &'static str,
    reading: &'a Reading,
    /// Functions had no names.
    inferred: bool,
}

/// Says what the waits of one process mean and which pools its threads form.
///
/// A wait without a stack, with a broken one, or without names where a runtime may hide, is
/// [`State::Unknown`], never anything else.
pub fn classify(threads: &[Thread<'_>], waits: &[View<'_>]) -> Verdict {
    let all = |inferred| {
        let runtimes = if inferred { INFERRED } else { RUNTIMES };
        runtimes.iter().map(move |runtime| (runtime.name, (runtime.read)(waits), inferred))
    };
    let read: Vec<_> = all(false).chain(all(true)).collect();
    let first = |at: usize| {
        let found = read.iter().filter_map(|(runtime, readings, inferred)| {
            let reading = readings[at].as_ref()?;
            Some(Read { runtime, reading, inferred: *inferred })
        });
        found.min_by_key(|read| (read.inferred, read.reading.rank()))
    };
    let readings: Vec<Option<Read<'_>>> = (0..waits.len()).map(first).collect();
    let places = places(threads, waits, &readings);
    let hidden: HashSet<(Tid, &str)> = waits
        .iter()
        .zip(&readings)
        .filter_map(|(wait, read)| {
            Some((wait.tid, read.as_ref()?.reading.entry_hidden.as_deref()?))
        })
        .collect();
    let meanings =
        waits.iter().zip(&readings).map(|(wait, read)| meaning(wait, *read, &hidden)).collect();
    Verdict { meanings, places }
}

fn meaning(
    wait: &View<'_>,
    read: Option<Read<'_>>,
    entry_hidden: &HashSet<(Tid, &str)>,
) -> Meaning {
    let reading = read.map(|read| read.reading);
    let inferred = read.is_some_and(|read| read.inferred);
    let role = reading.and_then(|reading| reading.role);
    let Some(stack) = wait.stack.filter(|_| wait.reason != Reason::Stopped) else {
        return Meaning { state: State::Unknown, role, label: None, task: None, inferred };
    };
    let Some(reading) = reading else {
        let mut names = stack.frames.iter().filter_map(|frame| frame.name.as_deref());
        let may_be_inside = names.any(|name| entry_hidden.contains(&(wait.tid, name)));
        let outside = stack.tells_all() && !may_be_inside;
        let state = if outside { State::Allowed } else { State::Unknown };
        let label = labels::label(stack.frames.iter().copied());
        let label = label.filter(may_stand_outside_tasks);
        return Meaning { state, role, label, task: None, inferred };
    };
    let label = match reading.state {
        State::Idle => None,
        _ => labels::label(stack.frames[..reading.below].iter().copied()),
    };
    Meaning {
        state: reading.state,
        role,
        label: label.filter(|label| reading.under_task || may_stand_outside_tasks(label)),
        task: reading.task.clone(),
        inferred,
    }
}

/// Blocking on a future is what a thread of no runtime is meant to do.
fn may_stand_outside_tasks(label: &&'static str) -> bool {
    *label != labels::SYNC_OVER_ASYNC
}

/// Where each thread belongs: what its stacks show, or else what its name suggests.
fn places(
    threads: &[Thread<'_>],
    waits: &[View<'_>],
    readings: &[Option<Read<'_>>],
) -> HashMap<Tid, Place> {
    let mut shown: HashMap<Tid, Place> = HashMap::new();
    for (wait, read) in waits.iter().zip(readings) {
        let Some(Read { runtime, reading, inferred }) = *read else { continue };
        let (Some(role), Some(scope)) = (reading.role, reading.scope) else { continue };
        let place = Place { runtime, scope, role, inferred };
        shown
            .entry(wait.tid)
            .and_modify(|known| *known = (*known).weightier(place))
            .or_insert(place);
    }
    adopt_by_lone_runtime(&mut shown);
    for runtime in RUNTIMES {
        instances::tell_apart(&mut shown, threads, waits, readings, runtime.name);
    }
    // A worker that never waits long enough to be seen would make the others look like the whole
    // pool: its name is taken for evidence, but only where no whole stack speaks against it.
    let named_like_workers: BTreeMap<&str, Place> = threads
        .iter()
        .filter_map(|thread| Some((thread.name, *shown.get(&thread.tid)?)))
        .filter(|(_, place)| place.role == Role::Worker && place.scope.has_many_threads())
        .collect();
    let outside = |tid, inferred| {
        let own = waits.iter().filter(|wait| wait.tid == tid);
        // What is inferred goes by functions that no whole stack of a pool's thread lacks.
        let speaks = |stack: &Stack<'_>| {
            if inferred { stack.end == StackEnd::Complete } else { stack.tells_all() }
        };
        own.filter_map(|wait| wait.stack).any(speaks)
    };
    let nowhere =
        Place { runtime: NO_RUNTIME, scope: Scope::Process, role: Role::Other, inferred: false };
    let place_of = |thread: &Thread<'_>| {
        let by_name = || {
            let place = named_like_workers.get(thread.name);
            place.filter(|place| !outside(thread.tid, place.inferred))
        };
        shown.get(&thread.tid).or_else(by_name).copied().unwrap_or(nowhere)
    };
    threads.iter().map(|thread| (thread.tid, place_of(thread))).collect()
}

impl Place {
    /// Of two places that a thread's stacks show, the one that says more: a worker is first of all
    /// a worker, whatever else it was used for.
    fn weightier(self, other: Self) -> Self {
        let weight = |place: Self| match (place.role, place.scope) {
            (Role::Worker, Scope::Process | Scope::Several | Scope::Instance(_)) => 0,
            (Role::Worker, Scope::Thread(_)) => 1,
            (Role::Blocking, _) => 2,
            (Role::Other, _) => 3,
        };
        if weight(other) < weight(self) { other } else { self }
    }
}

/// Threads that serve a runtime of one thread belong to it, where it is the only one they can
/// belong to.
fn adopt_by_lone_runtime(places: &mut HashMap<Tid, Place>) {
    for runtime in RUNTIMES {
        let own = || places.values().filter(|place| place.runtime == runtime.name);
        let mut lone = own().filter(|place| place.role == Role::Worker);
        let (Some(only), None) = (lone.next().copied(), lone.next()) else { continue };
        if only.scope == Scope::Process {
            continue;
        }
        for place in places.values_mut().filter(|place| place.runtime == runtime.name) {
            place.scope = only.scope;
        }
    }
}
