//! Runtimes of one shape: threads that take up tasks, and park when there are none.
//!
//! Such a runtime is a table of its functions. Stacks are read from the leaf; what is told apart is
//! whether a task is being run, by which kind of thread, or whether the thread is parked.

use std::collections::HashSet;

use super::{
    Reading, View,
    meaning::{Reason, Role, Scope, State},
    stack::{Frame, Stack},
    task::{self, Carriers, Job},
};
use crate::recording::{CodeAddress, StackEnd};

/// What a function of a runtime's says about the thread that is in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A worker has nothing to do, and takes up whatever comes, even if a task waits for it.
    Idle,
    /// The thread is parked, by a worker or by whoever waits for a future.
    Park,
    /// A task is run.
    Task,
    /// A worker's loop.
    Worker,
    /// The loop of a thread that may wait.
    Blocking,
    /// A thread that turns the IO driver and does nothing else.
    Driver,
    /// A future is polled on the thread that waits for it.
    BlockOn,
}

/// What functions say: the mark, modules, functions in them. The first row of a table that fits
/// counts.
pub type Row<M> = (M, &'static [&'static str], &'static [&'static str]);

/// What a table says of a function.
pub fn of<M: Copy>(rows: &[Row<M>], frame: &Frame) -> Option<M> {
    rows.iter().find(|(_, modules, functions)| frame.is(modules, functions)).map(|row| row.0)
}

/// A runtime of this shape.
pub struct Marks {
    /// Its functions.
    pub rows: &'static [Row<Mark>],
    /// What its tasks are.
    pub job: Job,
    /// Its functions that are generic over the task first of all.
    pub carriers: Carriers,
}

/// Where the standard library starts what a thread was made for; it is never inlined.
pub const THREAD_BODY: (&[&str], &[&str]) =
    (&["std::sys", "std::sys_common"], &["__rust_begin_short_backtrace"]);

impl Marks {
    /// Reads all waits of a process.
    pub fn read(&self, views: &[View<'_>]) -> Vec<Option<Reading>> {
        let mut readings: Vec<_> = views.iter().map(|view| self.read_one(view)).collect();
        // The loop of a worker can be inlined into the body of its thread. The body's caller is one
        // for each kind of thread, and those that run tasks tell which kind it is.
        let bodies: HashSet<CodeAddress> = views
            .iter()
            .zip(&readings)
            .filter(|(_, reading)| reading.as_ref().is_some_and(is_worker))
            .filter_map(|(view, _)| body_caller(view.stack?))
            .collect();
        for (view, reading) in views.iter().zip(&mut readings) {
            let Some(reading) = reading.as_mut().filter(|reading| reading.role.is_none()) else {
                continue;
            };
            let body = view.stack.and_then(body_caller);
            let role = if body.is_some_and(|at| bodies.contains(&at)) {
                Role::Worker
            } else {
                Role::Other
            };
            reading.role = Some(role);
        }
        readings
    }

    fn read_one(&self, view: &View<'_>) -> Option<Reading> {
        let stack = view.stack?;
        let marks: Vec<(usize, Mark)> = stack
            .frames
            .iter()
            .enumerate()
            .filter_map(|(at, frame)| Some((at, of(self.rows, frame)?)))
            .collect();
        let first =
            |wanted: Mark| marks.iter().find(|(_, mark)| *mark == wanted).map(|(at, _)| *at);
        let outermost = marks.last()?.0;
        let task = first(Mark::Task);
        let may_wait = first(Mark::Blocking).is_some();
        if let Some(at) = first(Mark::Idle).filter(|at| task.is_none_or(|task| *at < task)) {
            return Some(reading(State::Idle, Some(Role::Worker), at));
        }
        if let Some(at) = task {
            let (state, role) = if may_wait {
                (State::Allowed, Some(Role::Blocking))
            } else if self.has_blocking_threads() && stack.end != StackEnd::Complete {
                // The loop of a thread that may wait would be further out.
                (State::Unknown, None)
            } else {
                (State::Blocked, Some(Role::Worker))
            };
            let task = task::name(&stack.frames[..=at], self.job, self.carriers);
            return Some(Reading { task, under_task: !may_wait, ..reading(state, role, at) });
        }
        let parked = first(Mark::Park);
        let role = [
            (Mark::Worker, Role::Worker),
            (Mark::Blocking, Role::Blocking),
            (Mark::Driver, Role::Other),
            (Mark::BlockOn, Role::Other),
        ];
        let role = role.iter().find(|(mark, _)| first(*mark).is_some()).map(|(_, role)| *role);
        let state = match role {
            _ if parked.is_some() || first(Mark::Driver).is_some() => State::Idle,
            Some(Role::Blocking) if view.reason == Reason::Futex => State::Idle,
            Some(Role::Other) if first(Mark::BlockOn).is_some() => State::Allowed,
            _ => State::Unknown,
        };
        Some(reading(state, role, parked.unwrap_or(outermost)))
    }

    fn has_blocking_threads(&self) -> bool {
        self.rows.iter().any(|(mark, ..)| *mark == Mark::Blocking)
    }
}

fn is_worker(reading: &Reading) -> bool {
    reading.role == Some(Role::Worker)
}

fn reading(state: State, role: Option<Role>, below: usize) -> Reading {
    Reading {
        state,
        role,
        scope: Some(Scope::Process),
        instance: None,
        task: None,
        below,
        under_task: false,
        entry_hidden: None,
        in_pool_thread: false,
    }
}

/// Where a whole stack's thread body is called.
pub fn body_caller(stack: &Stack<'_>) -> Option<CodeAddress> {
    if stack.end != StackEnd::Complete {
        return None;
    }
    let body = stack.frames.iter().rposition(|frame| frame.is(THREAD_BODY.0, THREAD_BODY.1))?;
    let address = stack.frames[body].address;
    stack.frames[body..].iter().map(|frame| frame.address).find(|caller| *caller != address)
}
