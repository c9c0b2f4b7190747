//! Tokio 1.x: which functions park a thread, run a task, or hand a thread to blocking work.
//!
//! Stacks are read from the leaf, and the first function that decides wins: an idle worker's stack
//! also contains a task's poll and the blocking pool's loop, because a worker is started as a job
//! of that pool. What survives inlining differs from build to build, so every role has several
//! functions to be known by. One thing leaves no trace where link-time optimisation inlines it and
//! there are no line tables: `block_in_place`. What waits in it is then taken for blocked, unless it
//! waits for a future, which Tokio allows nowhere else in a task.

use std::collections::HashSet;

use super::{
    Description, Reading, View,
    instances::Sign,
    marks::{self, Row, THREAD_BODY, body_caller},
    meaning::{Reason, Role, Scope, State},
    names, plumbing,
    stack::{Frame, Stack},
    task::{self, Job},
};
use crate::{
    recording::{CodeAddress, StackEnd},
    units::Tid,
};

/// The description.
pub const TOKIO: Description = Description { name: "tokio", read, plumbing: PLUMBING };

/// What a function of Tokio's says about the thread that is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mark {
    /// A multi-thread worker parks.
    Park,
    /// A multi-thread worker polls a task.
    RunTask,
    /// A worker's loop.
    Worker,
    /// A task gave its worker's core away before it waits.
    BlockInPlace,
    /// A current-thread runtime parks.
    LocalPark,
    /// A current-thread runtime polls a task.
    LocalRunTask,
    /// A current-thread runtime's loop, which polls the future it was given itself.
    LocalLoop,
    /// A `LocalSet` polls its tasks, or the future it was given.
    LocalSet,
    /// A task is polled, whoever does it.
    Poll,
    /// The IO, time or signal driver is turned.
    Driver,
    /// A thread is parked until a future is ready, or until the threads of a runtime that ends have
    /// ended.
    ThreadPark,
    /// A future is polled on the calling thread.
    BlockOn,
    /// The loop of a blocking pool's thread.
    BlockingPool,
}

/// Every mark, with the modules of any 1.x version.
const MARKS: &[Row<Mark>] = &[
    (
        Mark::BlockInPlace,
        &[
            "tokio::runtime::scheduler::block_in_place",
            "tokio::runtime::scheduler::multi_thread::worker",
            "tokio::runtime::scheduler::multi_thread_alt::worker",
            "tokio::runtime::thread_pool::worker",
            "tokio::task::blocking",
        ],
        &["block_in_place"],
    ),
    (Mark::RunTask, WORKER, &["run_task"]),
    (
        Mark::Park,
        WORKER,
        &["park", "park_internal", "park_timeout", "park_yield", "pre_shutdown", "shutdown_core"],
    ),
    (
        Mark::Park,
        &[
            "tokio::runtime::scheduler::multi_thread::park",
            "tokio::runtime::scheduler::multi_thread_alt::park",
            "tokio::runtime::thread_pool::park",
        ],
        &["park", "park_condvar", "park_driver", "park_timeout", "shutdown"],
    ),
    (Mark::Worker, WORKER, &["run"]),
    (Mark::LocalRunTask, CURRENT_THREAD, &["run_task"]),
    (Mark::LocalPark, CURRENT_THREAD, &["park", "park_internal", "park_yield"]),
    (Mark::LocalLoop, CURRENT_THREAD, &["block_on"]),
    (Mark::LocalSet, &["tokio::task::local"], &["poll", "run_until", "tick"]),
    (
        Mark::Poll,
        &[
            "tokio::runtime::task::core",
            "tokio::runtime::task::harness",
            "tokio::runtime::task::raw",
        ],
        &["poll", "poll_future", "poll_inner"],
    ),
    (
        Mark::Driver,
        &[
            "tokio::io::driver",
            "tokio::runtime::driver",
            "tokio::runtime::io",
            "tokio::runtime::process",
            "tokio::runtime::signal",
            "tokio::runtime::time",
            "tokio::time::driver",
        ],
        &["park", "park_internal", "park_timeout", "turn"],
    ),
    (Mark::ThreadPark, &["tokio::park::thread", "tokio::runtime::park"], &["park", "park_timeout"]),
    (Mark::ThreadPark, &["tokio::runtime::blocking::pool"], &["shutdown"]),
    (Mark::BlockOn, &["tokio::park::thread", "tokio::runtime"], &["block_on"]),
    (Mark::BlockingPool, &["tokio::runtime::blocking::pool"], &["run", "run_worker"]),
];

const WORKER: &[&str] = &[
    "tokio::runtime::scheduler::multi_thread::worker",
    "tokio::runtime::scheduler::multi_thread_alt::worker",
    "tokio::runtime::thread_pool::worker",
];

const CURRENT_THREAD: &[&str] =
    &["tokio::runtime::basic_scheduler", "tokio::runtime::scheduler::current_thread"];

/// The way to a task. Parks, drivers, `block_in_place` and a user's `block_on` are none of it.
const PLUMBING: &[plumbing::Row] = &[
    (
        &[
            "tokio::coop",
            "tokio::loom",
            "tokio::macros",
            "tokio::runtime::blocking::pool",
            "tokio::runtime::blocking::task",
            "tokio::runtime::context",
            "tokio::runtime::coop",
            "tokio::runtime::enter",
            "tokio::runtime::task",
            "tokio::task::coop",
            "tokio::util",
        ],
        &[],
    ),
    (WORKER, &["enter", "launch", "run", "run_task"]),
    (CURRENT_THREAD, &["block_on", "enter", "run_task"]),
    (&["tokio::task::local"], &["enter", "poll", "run_until", "tick", "with"]),
    // Closures in the files that have these functions.
    (
        &[
            "tokio::runtime::scheduler::multi_thread",
            "tokio::runtime::scheduler::multi_thread_alt",
            "tokio::runtime::thread_pool",
        ],
        &["worker"],
    ),
    (&["tokio::runtime", "tokio::runtime::scheduler"], &["basic_scheduler", "current_thread"]),
    (&["tokio::task"], &["local"]),
];

/// What the blocking pool polls, where names have generic arguments.
const BLOCKING_TASK: &str = "::runtime::blocking::task::BlockingTask";

/// Functions that are generic over the future or the closure first of all.
const CARRIERS: task::Carriers = &[
    (&["tokio::runtime::task", "tokio::runtime::blocking::task"], &[]),
    (CURRENT_THREAD, &["block_on"]),
];

fn read(views: &[View<'_>]) -> Vec<Option<Reading>> {
    let mut readings: Vec<_> = views.iter().map(read_one).collect();
    // Link-time optimisation leaves nothing of the blocking pool's loop but the thread body that
    // it was inlined into. The body's caller is one for each kind of thread, and the workers, which
    // are jobs of that pool, tell which it is.
    let with = |is: fn(&Reading) -> bool| {
        let all = views.iter().zip(&readings);
        all.filter(move |(_, reading)| reading.as_ref().is_some_and(is)).map(|(view, _)| view)
    };
    let body = |view: &View<'_>| body_caller(view.stack?);
    let mut pool: HashSet<CodeAddress> =
        with(|reading| reading.in_pool_thread).filter_map(body).collect();
    // A thread of the pool never turns a driver itself.
    let turn: HashSet<Tid> = with(turns_driver).map(|view| view.tid).collect();
    let workers: HashSet<Tid> =
        with(|reading| reading.role == Some(Role::Worker)).map(|view| view.tid).collect();
    let has_pool = !pool.is_empty();
    for (view, reading) in views.iter().zip(&mut readings) {
        let (Some(stack), Some(reading)) = (view.stack, reading) else { continue };
        if !is_ownerless(reading, stack) {
            continue;
        }
        let is_of_pool = body(view).is_some_and(|at| pool.contains(&at));
        let (state, role, scope) = if !is_of_pool && (has_pool || turn.contains(&view.tid)) {
            (State::Blocked, Role::Worker, Scope::Thread(view.tid))
        } else if is_of_pool || workers.iter().any(|tid| *tid != view.tid) {
            // Whom else would it serve.
            pool.extend(body(view));
            (State::Allowed, Role::Blocking, Scope::Process)
        } else {
            continue;
        };
        (reading.state, reading.role, reading.scope) = (state, Some(role), Some(scope));
        if state == State::Blocked {
            reading.under_task = true;
            reading.task = task::name(&stack.frames[..=reading.below], Job::Future, CARRIERS);
        }
    }
    for (view, reading) in views.iter().zip(&mut readings) {
        if let (Some(stack), None) = (view.stack, &reading)
            && body(view).is_some_and(|at| pool.contains(&at))
        {
            *reading = Some(unmarked_pool_thread(view.reason, stack));
        }
    }
    readings
}

/// Whether only a driver that is turned was seen, and not by whom.
fn turns_driver(reading: &Reading) -> bool {
    reading.state == State::Idle && reading.role.is_none()
}

/// What has been passed on the way from the leaf.
#[derive(Default)]
struct Passed {
    poll: Option<usize>,
    driver: bool,
    in_place: bool,
    thread_park: Option<usize>,
    block_on: Option<usize>,
}

fn read_one(view: &View<'_>) -> Option<Reading> {
    let stack = view.stack?;
    let mut passed = Passed::default();
    for (at, frame) in stack.frames.iter().enumerate() {
        let Some(mark) = mark(frame) else { continue };
        match mark {
            // Inside a task Tokio refuses to park the thread, unless it may wait: `block_in_place`
            // itself can be inlined.
            Mark::RunTask if passed.thread_park.is_some() => {
                passed.in_place = true;
                return Some(decide(mark, at, view, stack, &passed));
            }
            Mark::Poll => passed.poll = Some(at),
            Mark::Driver => passed.driver |= passed.poll.is_none(),
            Mark::BlockInPlace => passed.in_place = true,
            Mark::ThreadPark if passed.poll.is_none() => {
                passed.thread_park.get_or_insert(at);
            }
            Mark::ThreadPark => {}
            Mark::BlockOn => {
                passed.block_on.get_or_insert(at);
            }
            Mark::Park
            | Mark::RunTask
            | Mark::Worker
            | Mark::LocalPark
            | Mark::LocalRunTask
            | Mark::LocalLoop
            | Mark::LocalSet
            | Mark::BlockingPool => return Some(decide(mark, at, view, stack, &passed)),
        }
    }
    undecided(view, stack, &passed)
}

/// The meaning of a stack whose first deciding function, from the leaf, is at `at`.
fn decide(mark: Mark, at: usize, view: &View<'_>, stack: &Stack<'_>, passed: &Passed) -> Reading {
    let in_task = State::Blocked;
    let (state, role) = match mark {
        _ if passed.in_place && mark != Mark::BlockingPool => (State::Allowed, Role::Blocking),
        Mark::Park | Mark::LocalPark => (State::Idle, Role::Worker),
        Mark::RunTask | Mark::LocalRunTask => (in_task, Role::Worker),
        Mark::BlockingPool if passed.poll.is_some() => (State::Allowed, Role::Blocking),
        Mark::BlockingPool => (State::Idle, Role::Blocking),
        // `run_task` or the park function was inlined, or the loop itself waits.
        _ if passed.poll.is_some() => (in_task, Role::Worker),
        _ if passed.driver || passed.thread_park.is_some() => (State::Idle, Role::Worker),
        Mark::LocalLoop | Mark::LocalSet if polls_given_future(view.reason, stack, at) => {
            (in_task, Role::Worker)
        }
        _ => (State::Unknown, Role::Worker),
    };
    let local =
        matches!(mark, Mark::LocalPark | Mark::LocalRunTask | Mark::LocalLoop | Mark::LocalSet);
    let job = if mark == Mark::BlockingPool { Job::Closure } else { Job::Future };
    let name = |from, job| task::name(&stack.frames[..=from], job, CARRIERS);
    let waits_for_task = matches!(state, State::Blocked | State::Allowed);
    Reading {
        state,
        role: Some(role),
        scope: Some(if local { Scope::Thread(view.tid) } else { Scope::Process }),
        task: waits_for_task.then(|| name(passed.poll.unwrap_or(at), job)).flatten(),
        below: at,
        under_task: mark != Mark::BlockingPool,
        // Each runtime has a driver, that an epoll.
        instance: view.object.filter(|_| passed.driver && !local).map(Sign::Own),
        // Without a visible way into the runtime, the future that it was given may be polled by a
        // function that shows no mark at all.
        entry_hidden: if local { hides_entry(stack, at) } else { None },
        in_pool_thread: !local,
    }
}

/// The meaning of a stack on which nothing decides.
fn undecided(view: &View<'_>, stack: &Stack<'_>, passed: &Passed) -> Option<Reading> {
    let whole = stack.end == StackEnd::Complete;
    let leaf = stack.frames.len();
    let reading = |state, role, below| Reading {
        state,
        role,
        scope: role.map(|_| Scope::Process),
        task: None,
        below,
        under_task: false,
        instance: None,
        entry_hidden: None,
        in_pool_thread: false,
    };
    if passed.in_place {
        return Some(reading(State::Allowed, Some(Role::Blocking), leaf));
    }
    if let Some(poll) = passed.poll {
        // Workers would have shown themselves on a whole stack.
        if !whole {
            return Some(reading(State::Unknown, None, leaf));
        }
        let name = |job| task::name(&stack.frames[..=poll], job, CARRIERS);
        if has_user_frame(&stack.frames[poll + 1..]) {
            // The loop of a current-thread runtime was inlined into the function that entered it.
            return Some(Reading {
                scope: Some(Scope::Thread(view.tid)),
                task: name(Job::Future),
                under_task: true,
                ..reading(State::Blocked, Some(Role::Worker), poll)
            });
        }
        let task = name(Job::Closure);
        if stack.frames[poll].name.as_deref().is_some_and(|name| name.contains(BLOCKING_TASK)) {
            let blocking = reading(State::Allowed, Some(Role::Blocking), poll);
            return Some(Reading { task, in_pool_thread: true, ..blocking });
        }
        // The blocking pool's loop was inlined into the body of its thread, or that of a
        // current-thread runtime into the body of a thread of the user's: other threads must tell.
        return Some(Reading { task, ..reading(State::Unknown, None, poll) });
    }
    if passed.driver {
        // Only a runtime that parks turns the driver.
        return Some(reading(State::Idle, None, leaf));
    }
    if passed.thread_park.or(passed.block_on).is_none() || called_from_sync(stack, passed) {
        return None;
    }
    if !whole {
        return Some(reading(State::Unknown, None, leaf));
    }
    let state = if passed.thread_park.is_some() { State::Idle } else { State::Allowed };
    Some(reading(state, Some(Role::Other), passed.block_on.unwrap_or(leaf)))
}

/// Whether it is a poll that [`undecided`] found on a whole stack, without a sign of whose it is.
fn is_ownerless(reading: &Reading, stack: &Stack<'_>) -> bool {
    reading.role.is_none() && reading.state == State::Unknown && stack.end == StackEnd::Complete
}

/// Whether the thread is parked by `blocking_recv` and the like, made for threads of no runtime.
fn called_from_sync(stack: &Stack<'_>, passed: &Passed) -> bool {
    let from = passed.thread_park.unwrap_or(0);
    let caller =
        stack.frames[from..].iter().filter_map(|frame| frame.path.as_deref()).find(|path| {
            !names::within(path, "tokio::runtime::park") && !names::within(path, "std::thread")
        });
    passed.thread_park.is_some() && caller.is_some_and(|path| names::within(path, "tokio::sync"))
}

/// The meaning of a stack without a mark on a thread of the blocking pool.
fn unmarked_pool_thread(reason: Reason, stack: &Stack<'_>) -> Reading {
    let body = stack.frames.iter().rposition(|frame| frame.is(THREAD_BODY.0, THREAD_BODY.1));
    let below = body.unwrap_or(stack.frames.len());
    let parked = reason == Reason::Futex && !has_user_frame(&stack.frames[..below]);
    Reading {
        state: if parked { State::Idle } else { State::Unknown },
        role: Some(Role::Blocking),
        scope: Some(Scope::Process),
        task: None,
        below,
        under_task: false,
        instance: None,
        entry_hidden: None,
        in_pool_thread: true,
    }
}

/// Whether a loop that polls a future itself is doing so, and not waiting on its own behalf.
fn polls_given_future(reason: Reason, stack: &Stack<'_>, at: usize) -> bool {
    let own = matches!(reason, Reason::Futex | Reason::PageFault | Reason::Poll | Reason::Other);
    !own || has_user_frame(&stack.frames[..at])
}

fn has_user_frame(frames: &[&Frame]) -> bool {
    frames.iter().filter_map(|frame| frame.path.as_deref()).any(names::is_user_code)
}

/// The function into which the one that enters the runtime is inlined, if that is not on the stack
/// at `at` or further out.
fn hides_entry(stack: &Stack<'_>, at: usize) -> Option<String> {
    let outer = &stack.frames[at..];
    let enters = |frame: &&Frame| matches!(mark(frame), Some(Mark::LocalLoop | Mark::BlockOn));
    if outer.iter().any(enters) {
        return None;
    }
    let users = |frame: &&&Frame| frame.path.as_deref().is_some_and(names::is_user_code);
    outer.iter().find(users).or(outer.last())?.name.clone()
}

fn mark(frame: &Frame) -> Option<Mark> {
    // One look at the crate spares most frames the table.
    if !frame.path.as_deref()?.starts_with("tokio::") {
        return None;
    }
    marks::of(MARKS, frame)
}

#[cfg(test)]
mod tests;
