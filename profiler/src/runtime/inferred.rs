//! Tokio in a program without names, inferred from the structure of its stacks.
//!
//! Stripping takes the names of functions, not where they begin nor the source files at which they
//! can panic ([`Body`]). A worker that parks shows itself: it is in a function of the scheduler's
//! `worker.rs` that waits through the park or the driver, with no task's poll in between and,
//! further out, the job of a blocking pool's thread. Such stacks are the anchors. They say which
//! functions lead from the worker's beginning to its park; any other wait is compared with them.
//! Whatever leaves that way for a task's poll is inside a task. A mention never decides alone,
//! because a function mentions what was inlined into it as well: what proves nothing is left to be
//! unknown.

use std::{
    collections::{HashMap, HashSet},
    ops::{Range, RangeInclusive},
};

use super::{
    Description, Reading, View,
    instances::Sign,
    meaning::{Reason, Role, Scope, State},
    names,
    stack::{Body, Frame},
};
use crate::recording::CodeAddress;

/// What a process without names shows of Tokio.
pub const TOKIO: Description = Description { name: "tokio", read, plumbing: &[] };

/// What the source files that a function mentions say about it, and what was inlined into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Marks(u16);

impl Marks {
    /// A multi-thread worker's loop, its park or its way to a task.
    const WORKER: Self = Self(1);
    /// A worker's way to sleep; in later versions also any other thread's.
    const PARK: Self = Self(1 << 1);
    /// The IO driver is turned.
    const DRIVER: Self = Self(1 << 2);
    /// A current-thread runtime.
    const LOCAL: Self = Self(1 << 3);
    /// A task is polled, or a closure of the blocking pool run.
    const POLL: Self = Self(1 << 4);
    /// A thread of the blocking pool.
    const POOL: Self = Self(1 << 5);
    /// A task left its runtime for a while: `block_in_place`.
    const EXIT: Self = Self(1 << 6);
    /// A `LocalSet` and its tasks.
    const LOCAL_SET: Self = Self(1 << 7);
    /// Code that is neither Tokio's nor of what Tokio is made of.
    const FOREIGN: Self = Self(1 << 8);

    const fn any(self, of: Self) -> bool {
        self.0 & of.0 != 0
    }

    /// Whether these are, of some marks, those and no others.
    const fn only(self, of: Self, these: Self) -> bool {
        self.0 & of.0 == these.0
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Modules of any 1.x version, and what it means that a function mentions them.
const MENTIONED: &[(Marks, &[&str])] = &[
    (
        Marks::WORKER,
        &[
            "tokio::runtime::scheduler::multi_thread::worker",
            "tokio::runtime::scheduler::multi_thread_alt::worker",
            "tokio::runtime::thread_pool::worker",
        ],
    ),
    (
        Marks::PARK,
        &[
            "tokio::runtime::scheduler::multi_thread::park",
            "tokio::runtime::scheduler::multi_thread_alt::park",
            "tokio::runtime::thread_pool::park",
            "tokio::runtime::park",
        ],
    ),
    (Marks::DRIVER, &["tokio::io::driver", "tokio::runtime::io::driver", "tokio::runtime::io"]),
    (
        Marks::LOCAL,
        &["tokio::runtime::basic_scheduler", "tokio::runtime::scheduler::current_thread"],
    ),
    (Marks::POLL, &["tokio::runtime::task::core"]),
    (Marks::POOL, &["tokio::runtime::blocking::pool"]),
    (
        Marks::EXIT,
        &[
            "tokio::runtime::context",
            "tokio::runtime::context::runtime_mt",
            "tokio::runtime::enter",
        ],
    ),
    (Marks::LOCAL_SET, &["tokio::task::local"]),
];

/// What Tokio's driver, its locks and itself are made of.
const OWN: &[&str] = &[
    "alloc",
    "core",
    "hashbrown",
    "lock_api",
    "mio",
    "parking_lot",
    "parking_lot_core",
    "slab",
    "smallvec",
    "std",
    "tokio",
    "tracing",
    "tracing_core",
];

/// Everything that tells a loop that polls tasks from code that does not.
const LOOPS: Marks = Marks::WORKER.and(Marks::LOCAL).and(Marks::LOCAL_SET);

fn read(views: &[View<'_>]) -> Vec<Option<Reading>> {
    let mut known = HashMap::new();
    let stacks: Vec<Option<Shape>> = views.iter().map(|view| Shape::of(view, &mut known)).collect();
    let anchors = Anchors::of(&stacks);
    let reading = |(view, shape): (&View<'_>, &Option<Shape>)| anchors.read(view, shape.as_ref()?);
    views.iter().zip(&stacks).map(reading).collect()
}

/// A stack as far as it can be read without names, leaf first: which function, and what it mentions.
/// Its root side may be missing: only what is on it counts.
struct Shape {
    functions: Vec<(CodeAddress, Marks)>,
    reason: Reason,
}

impl Shape {
    /// `None` if there is no stack, or every function on it has a name.
    fn of(view: &View<'_>, known: &mut HashMap<CodeAddress, Marks>) -> Option<Self> {
        let stack = view.stack?;
        if stack.frames.iter().all(|frame| frame.body.is_none()) {
            return None;
        }
        let function = |frame: &&Frame| match &frame.body {
            Some(body) => (body.start, *known.entry(body.start).or_insert_with(|| marks(body))),
            None => (frame.address, Marks::default()),
        };
        Some(Self { functions: stack.frames.iter().map(function).collect(), reason: view.reason })
    }

    fn first(&self, from: usize, marks: Marks) -> Option<usize> {
        Some(from + self.functions.get(from..)?.iter().position(|(_, found)| found.any(marks))?)
    }

    fn has(&self, range: Range<usize>, marks: Marks) -> bool {
        self.functions[range].iter().any(|(_, found)| found.any(marks))
    }

    /// The place of the park, if this is a thread that is parked by a loop of `scheduler` alone.
    fn park(&self, scheduler: Marks) -> Option<usize> {
        let park = self.first(0, LOOPS)?;
        let not = Marks::POLL.and(Marks::FOREIGN).and(Marks::EXIT).and(Marks::POOL);
        let of_one = self.functions[park].1.only(LOOPS, scheduler);
        (of_one && !self.has(0..park + 1, not)).then_some(park)
    }

    /// The functions from a worker's park outwards to where the worker begins, and the loop of the
    /// pool's thread that it is a job of.
    fn parked_worker(&self) -> Option<(RangeInclusive<usize>, CodeAddress)> {
        let park = self.park(Marks::WORKER).filter(|_| self.may_park())?;
        self.has(0..park + 1, Marks::DRIVER.and(Marks::PARK)).then_some(())?;
        let pool = self.first(park + 1, Marks::POOL)?;
        // The job's poll; a task's would have the worker's loop further out.
        let job = self.first(park + 1, Marks::POLL).filter(|job| *job < pool)?;
        let begin = (park..=job).rev().find(|at| self.functions[*at].1.any(Marks::WORKER))?;
        (!self.has(begin + 1..pool, LOOPS)).then_some((park..=begin, self.functions[pool].0))
    }

    /// The functions from the park of a current-thread runtime outwards to where it begins.
    fn parked_local(&self) -> Option<RangeInclusive<usize>> {
        // Its driver cannot be told from its loop where one is inlined into the other.
        let park = self.park(Marks::LOCAL).filter(|_| self.reason == Reason::Poll)?;
        self.has(0..park, Marks::DRIVER).then_some(())?;
        let outer = self.functions[park + 1..].iter();
        let within = outer.take_while(|(_, marks)| {
            !marks.any(Marks::POOL) && (!marks.any(Marks::POLL) || marks.any(Marks::LOCAL))
        });
        let end = park + within.count();
        let begin = (park..=end).rev().find(|at| self.functions[*at].1.any(Marks::LOCAL))?;
        Some(park..=begin)
    }

    /// Whether it waits for what a runtime's park waits for.
    fn may_park(&self) -> bool {
        matches!(self.reason, Reason::Futex | Reason::Poll)
    }
}

fn marks(body: &Body) -> Marks {
    let mut marks = Marks::default();
    for module in &body.mentions {
        let Some(module) = module else {
            marks = marks.and(Marks::FOREIGN);
            continue;
        };
        let found = MENTIONED.iter().find(|(_, modules)| modules.contains(&module.as_str()));
        marks = marks.and(found.map_or(Marks::default(), |(found, _)| *found));
        if !OWN.contains(&names::first_segment(module)) {
            marks = marks.and(Marks::FOREIGN);
        }
    }
    marks
}

/// The stacks that explain the others.
#[derive(Default)]
struct Anchors {
    /// The ways from the beginning of a multi-thread worker to its park, outermost function first.
    workers: HashSet<Vec<CodeAddress>>,
    /// The same of current-thread runtimes.
    locals: HashSet<Vec<CodeAddress>>,
    /// The loops of blocking pools' threads, of which workers are jobs.
    pools: HashSet<CodeAddress>,
}

/// Where a stack is, compared with the way to a park.
enum At {
    /// On that way, to its end, with this function.
    Parked(usize),
    /// It left that way; this is the last function that is on it.
    Left(usize),
}

impl Anchors {
    fn of(stacks: &[Option<Shape>]) -> Self {
        let mut anchors = Self::default();
        for shape in stacks.iter().flatten() {
            let way = |range: RangeInclusive<usize>| -> Vec<CodeAddress> {
                shape.functions[range].iter().rev().map(|(function, _)| *function).collect()
            };
            if let Some((range, pool)) = shape.parked_worker() {
                anchors.workers.insert(way(range));
                anchors.pools.insert(pool);
            } else if let Some(range) = shape.parked_local() {
                anchors.locals.insert(way(range));
            }
        }
        anchors
    }

    fn read(&self, view: &View<'_>, shape: &Shape) -> Option<Reading> {
        let local = locate(shape, &self.locals).map(|at| (at, Scope::Thread(view.tid)));
        let worker = || Some((locate(shape, &self.workers)?, Scope::Process));
        if let Some((at, scope)) = local.or_else(worker) {
            let reading = in_loop(shape, &at, scope);
            let turns = reading.state == State::Idle && shape.reason == Reason::Poll;
            let driver = view.object.filter(|_| turns && scope == Scope::Process);
            return Some(Reading { instance: driver.map(Sign::Own), ..reading });
        }
        self.in_pool(shape)
    }

    /// The meaning of a stack of a blocking pool's thread.
    fn in_pool(&self, shape: &Shape) -> Option<Reading> {
        let is_pool = |(function, _): &(CodeAddress, Marks)| self.pools.contains(function);
        let pool = shape.functions.iter().position(is_pool)?;
        let job = shape.first(0, Marks::POLL).filter(|job| *job < pool);
        let state = match job {
            // What else polls tasks there cannot be told from what only mentions it.
            Some(_) if shape.has(0..pool, LOOPS) => State::Unknown,
            Some(_) => State::Allowed,
            None if shape.reason == Reason::Futex && !shape.has(0..pool, Marks::FOREIGN) => {
                State::Idle
            }
            None => State::Unknown,
        };
        Some(reading(state, Role::Blocking, Scope::Process, job.unwrap_or(pool)))
    }
}

/// Where a stack is on the leafmost way that it is on at all.
fn locate(shape: &Shape, ways: &HashSet<Vec<CodeAddress>>) -> Option<At> {
    let mut found: Option<(usize, At)> = None;
    for way in ways {
        let Some(begin) = shape.functions.iter().position(|(function, _)| *function == way[0])
        else {
            continue;
        };
        let inwards = shape.functions[..=begin].iter().rev();
        let common = inwards.zip(way).take_while(|((function, _), on)| function == *on).count();
        let last = begin + 1 - common;
        let at = if common == way.len() { At::Parked(last) } else { At::Left(last) };
        if found.as_ref().is_none_or(|(leafmost, _)| last < *leafmost) {
            found = Some((last, at));
        }
    }
    found.map(|(_, at)| at)
}

/// The meaning of a stack in a loop that polls tasks.
fn in_loop(shape: &Shape, at: &At, scope: Scope) -> Reading {
    let (At::Parked(last) | At::Left(last)) = *at;
    let clear = !shape.has(0..last, Marks::POLL.and(Marks::FOREIGN));
    // A runtime of one thread may poll the future it was given where it parks.
    let parks = scope == Scope::Process || shape.has(0..last, Marks::DRIVER);
    if matches!(at, At::Parked(_)) && shape.may_park() && clear && parks {
        return reading(State::Idle, Role::Worker, scope, last);
    }
    // The function that the loop called may mention a poll on its own way to it.
    let inner = last.saturating_sub(1);
    let called = &shape.functions[inner..last];
    let polls_itself = called.iter().any(|(_, marks)| marks.any(Marks::POLL) && !marks.any(LOOPS));
    let polled = polls_itself || shape.has(0..inner, Marks::POLL);
    // It hands its core over by way of the blocking pool.
    let hands_over = |marks: &Marks| marks.any(Marks::POOL) && !marks.any(Marks::FOREIGN);
    let exited = shape.has(0..last, Marks::EXIT)
        || shape.functions[..last].iter().any(|(_, marks)| hands_over(marks));
    let state = if polled && !exited { State::Blocked } else { State::Unknown };
    Reading { under_task: true, ..reading(state, Role::Worker, scope, inner) }
}

fn reading(state: State, role: Role, scope: Scope, below: usize) -> Reading {
    Reading {
        state,
        role: Some(role),
        scope: Some(scope),
        task: None,
        below,
        under_task: false,
        entry_hidden: None,
        instance: None,
        in_pool_thread: false,
    }
}

#[cfg(test)]
mod tests;
