//! Stacks of stripped programs as they were recorded, leaf first, and such as must prove nothing.

use super::super::{
    Body, Frame, NO_RUNTIME, Reason, Role, Scope, Stack, State, Thread, View, classify,
};
use crate::{
    recording::{CodeAddress, ModuleId, StackEnd, Why},
    units::{Svma, Tid},
};

/// Functions from the leaf outwards, with what each mentions behind a colon. What a function is
/// called here says only which one it is.
type Functions = &'static [&'static str];

const WORKER: &str = "runtime/scheduler/multi_thread/worker.rs";
const PARK: &str = "runtime/scheduler/multi_thread/park.rs";
const LOCAL: &str = "runtime/scheduler/current_thread/mod.rs";

/// The file that an abbreviation stands for.
fn file(mention: &str) -> String {
    let tokio = |path: &str| format!("/cargo/registry/src/index/tokio-1.54.1/src/{path}");
    match mention {
        "worker" => tokio(WORKER),
        "park" => tokio(PARK),
        "local" => tokio(LOCAL),
        "driver" => tokio("runtime/io/driver.rs"),
        "core" => tokio("runtime/task/core.rs"),
        "harness" => tokio("runtime/task/harness.rs"),
        "pool" => tokio("runtime/blocking/pool.rs"),
        "exit" => tokio("runtime/context/runtime_mt.rs"),
        "thread-park" => tokio("runtime/park.rs"),
        "entered" => tokio("runtime/scheduler/multi_thread/mod.rs"),
        "old-worker" => tokio("runtime/thread_pool/worker.rs"),
        "old-driver" => tokio("io/driver/mod.rs"),
        "condvar" => "/cargo/registry/src/index/parking_lot-0.12.5/src/condvar.rs".to_owned(),
        "vec" => "/rustc/59807616e1/library/alloc/src/vec/mod.rs".to_owned(),
        "mio" => "/cargo/registry/src/index/mio-1.2.5/src/event/events.rs".to_owned(),
        "user" => "src/main.rs".to_owned(),
        "crate" => "/home/dev/orders/src/main.rs".to_owned(),
        "smol" => "/cargo/registry/src/index/smol-2.0.2/src/lib.rs".to_owned(),
        other => panic!("{other}"),
    }
}

const CONDVAR: Functions = &["syscall", "wait_until_internal:condvar"];
const DRIVER: Functions = &["epoll_wait", "select:vec", "turn:driver mio", "time_park:driver"];
const PARKED: Functions = &["park_internal:worker park vec"];
const LOOP: Functions = &["run:worker vec", "set:worker", "enter", "worker_run:worker"];
const HOSTED: Functions = &["blocking_task", "job_core:core", "job_harness:harness core"];
const POOL: Functions = &["inner_run:pool", "short_backtrace", "shim", "thread_start", "clone3"];
const TASK: Functions = &["task_core:core", "task_harness:harness", "run_task:worker core"];
const LOCAL_LOOP: Functions = &["local_set:local core", "core_guard:local", "enter_local:local"];
const LOCAL_PARK: Functions = &["local_park:local vec", "local_park_outer:local"];
const MAIN: Functions = &["main:user", "lang_start", "libc_start", "_start"];
const THREAD: Functions = &["body:user", "short_backtrace_2", "shim_2", "thread_start", "clone3"];

/// A worker that holds the driver.
const TURNING: &[Functions] = &[DRIVER, PARKED, LOOP, HOSTED, POOL];
/// A worker that waits for its turn.
const PARKING: &[Functions] = &[CONDVAR, PARKED, LOOP, HOSTED, POOL];

fn address(name: &str) -> CodeAddress {
    let svma = name.bytes().fold(7, |sum: u64, b| sum * 31 % 1_000_003 + u64::from(b));
    CodeAddress::Module(ModuleId(0), Svma(svma * 64))
}

fn frame(function: &str) -> Frame {
    let (name, mentions) = function.split_once(':').unwrap_or((function, ""));
    let start = address(name);
    let CodeAddress::Module(module, svma) = start else { unreachable!() };
    let within = CodeAddress::Module(module, Svma(svma.0 + 17));
    let mut frame = Frame::new(within, None, None, Some("/bin/tk"));
    let files: Vec<_> = mentions.split_whitespace().map(file).collect();
    frame.body = Some(Body::new(start, files.iter().map(String::as_str)));
    frame
}

/// Where the first thread belongs, and what its wait means, if the others are in the process too.
fn read_end(
    reason: Reason,
    parts: &[Functions],
    end: StackEnd,
    others: &[(Reason, &[Functions])],
) -> (State, Option<Role>, &'static str, Scope, bool) {
    let all: Vec<_> = std::iter::once((reason, parts, end))
        .chain(others.iter().map(|(reason, parts)| (*reason, *parts, StackEnd::Complete)))
        .collect();
    let frames: Vec<Vec<Frame>> = all
        .iter()
        .map(|(_, parts, _)| parts.iter().copied().flatten().map(|it| frame(it)).collect())
        .collect();
    let stacks: Vec<_> = frames
        .iter()
        .zip(&all)
        .map(|(frames, (_, _, end))| Stack { frames: frames.iter().collect(), end: *end })
        .collect();
    let views: Vec<_> = (1..)
        .zip(&stacks)
        .zip(&all)
        .map(|((tid, stack), (reason, ..))| View {
            tid: Tid(tid),
            reason: *reason,
            object: None,
            stack: Some(stack),
        })
        .collect();
    // A thread takes the name of the thread that starts it: names are the same, and prove nothing.
    let threads: Vec<_> =
        views.iter().map(|view| Thread { tid: view.tid, name: "tokio-rt-worker" }).collect();
    let verdict = classify(&threads, &views);
    let (meaning, place) = (&verdict.meanings[0], verdict.places[&Tid(1)]);
    assert_eq!(place.inferred, place.runtime == "tokio");
    (meaning.state, meaning.role, place.runtime, place.scope, meaning.inferred)
}

const POOLED: Scope = Scope::Process;
const OWN: Scope = Scope::Thread(Tid(1));

/// What the wait means beside a worker that turns the driver.
fn check(what: &str, reason: Reason, parts: &[Functions], state: State, role: Role, scope: Scope) {
    let found = read_end(reason, parts, StackEnd::Complete, &[(Reason::Poll, TURNING)]);
    assert_eq!(found, (state, Some(role), "tokio", scope, true), "{what}");
}

/// Nothing can be said of the wait, nor where its thread belongs.
fn check_nothing(
    what: &str,
    reason: Reason,
    parts: &[Functions],
    others: &[(Reason, &[Functions])],
) {
    let found = read_end(reason, parts, StackEnd::Complete, others);
    assert_eq!(found, (State::Unknown, None, NO_RUNTIME, POOLED, false), "{what}");
}

#[test]
fn a_worker_that_parks_is_idle() {
    let check = |what, reason, parts: &[Functions]| {
        check(what, reason, parts, State::Idle, Role::Worker, POOLED);
    };
    check("driver", Reason::Poll, TURNING);
    check("condvar", Reason::Futex, PARKING);
    let standard: Functions = &["syscall", "condvar_futex_wait"];
    check("std's condvar", Reason::Futex, &[standard, PARKED, LOOP, HOSTED, POOL]);
}

#[test]
fn what_leaves_the_loop_for_a_poll_is_blocked() {
    let worker: &[Functions] = &[TASK, LOOP, HOSTED, POOL];
    let check = |what, reason, leaf: Functions| {
        let parts = [&[leaf], worker].concat();
        check(what, reason, &parts, State::Blocked, Role::Worker, POOLED);
    };
    check("sleep", Reason::Sleep, &["clock_nanosleep", "std_sleep", "handler:user"]);
    check("a function without panics", Reason::Futex, &["syscall", "lock_slow", "handler"]);
    // It spawns tasks, which was inlined into it: it mentions what the worker does.
    check("inlined", Reason::Futex, &["syscall", "lock_slow", "handler:user worker park local"]);
    check("another reactor", Reason::Poll, &["epoll_wait", "react:smol", "handler:user"]);
    check("poll of C", Reason::Poll, &["poll", "connect", "handler:user"]);
    // The condition variable is the one that workers park with.
    check("same condvar", Reason::Futex, &["syscall", "wait_until_internal:condvar", "handler"]);
}

#[test]
fn waits_of_the_loop_itself_are_unknown() {
    let check = |what, parts: &[Functions]| {
        check(what, Reason::Futex, parts, State::Unknown, Role::Worker, POOLED);
    };
    check("a lock of the scheduler", &[&["syscall", "lock_slow"], LOOP, HOSTED, POOL]);
    check("run_task's own", &[&["syscall", "lock", "run_task:worker core"], LOOP, HOSTED, POOL]);
    let hook: Functions = &["syscall", "lock_slow", "on_park:user"];
    check("a hook of the user's", &[hook, PARKED, LOOP, HOSTED, POOL]);
}

#[test]
fn a_worker_that_left_its_runtime_for_a_while_is_unknown() {
    let in_place: Functions = &["clock_nanosleep", "closure", "exit_runtime:exit", "handler:user"];
    let handing_over: Functions =
        &["syscall", "lock", "spawn_task:pool", "move_runtime:worker", "in_place", "handler:user"];
    let parts: &[Functions] = &[handing_over, TASK, LOOP, HOSTED, POOL];
    check("on its way", Reason::Futex, parts, State::Unknown, Role::Worker, POOLED);
    let parts: &[Functions] = &[in_place, TASK, LOOP, HOSTED, POOL];
    check("block_in_place", Reason::Sleep, parts, State::Unknown, Role::Worker, POOLED);
}

#[test]
fn threads_of_the_blocking_pool() {
    let check = |what, reason, parts: &[Functions], state| {
        check(what, reason, parts, state, Role::Blocking, POOLED);
    };
    check("idle", Reason::Futex, &[CONDVAR, POOL], State::Idle);
    let job: Functions =
        &["clock_nanosleep", "closure:user", "blocking_task_2", "closure_core:core"];
    check("busy", Reason::Sleep, &[job, POOL], State::Allowed);
    // It may poll tasks itself, on a runtime of its own.
    let nested: Functions =
        &["clock_nanosleep", "poll", "nested_core:core", "nested:local", "job_core_2:core"];
    check("a runtime in it", Reason::Sleep, &[nested, POOL], State::Unknown);
    let hook: Functions = &["syscall", "lock_slow", "on_thread_start:user"];
    check("a hook of the user's", Reason::Futex, &[hook, POOL], State::Unknown);
    check("sleeps", Reason::Sleep, &[&["clock_nanosleep"], POOL], State::Unknown);
}

#[test]
fn runtimes_of_one_thread() {
    let parked: &[Functions] = &[DRIVER, LOCAL_PARK, LOCAL_LOOP, MAIN];
    check("parked", Reason::Poll, parked, State::Idle, Role::Worker, OWN);
    let task: Functions =
        &["clock_nanosleep", "handler:user", "task_core:core", "task_harness:harness"];
    let check = |what, parts: &[Functions], others: &[(Reason, &[Functions])], state| {
        let found = read_end(Reason::Sleep, parts, StackEnd::Complete, others);
        assert_eq!(found, (state, Some(Role::Worker), "tokio", OWN, true), "{what}");
    };
    let known: &[(Reason, &[Functions])] = &[(Reason::Poll, parked)];
    check("task", &[task, LOCAL_LOOP, MAIN], known, State::Blocked);
    // The future that it was given, or the thread itself: both are called from the same function.
    check("main", &[&["clock_nanosleep", "f:user"], LOCAL_LOOP, MAIN], known, State::Unknown);
    // In some versions the loop parks by itself.
    let old: Functions = &["scoped_set:local", "old_block_on:local"];
    let itself: &[(Reason, &[Functions])] = &[(Reason::Poll, &[DRIVER, old, MAIN])];
    check("task of a loop that parks", &[task, old, MAIN], itself, State::Blocked);
    let future: Functions = &["clock_nanosleep", "given_future"];
    check("future of a loop that parks", &[future, old, MAIN], itself, State::Unknown);
    // A runtime within a closure of a pool.
    let hosted: &[Functions] = &[DRIVER, LOCAL_PARK, LOCAL_LOOP, &["closure:user"], HOSTED, POOL];
    let both = [(Reason::Poll, hosted), (Reason::Poll, TURNING)];
    let within: &[Functions] = &[task, LOCAL_LOOP, &["closure:user"], HOSTED, POOL];
    check("in a closure", within, &both, State::Blocked);
}

#[test]
fn an_older_version_shows_itself_too() {
    let parked: &[Functions] = &[
        &["epoll_wait", "mio_poll", "turn:old-driver", "park:old-worker", "run:old-worker"],
        &["worker_run:old-worker"],
        HOSTED,
        POOL,
    ];
    let found = read_end(Reason::Poll, parked, StackEnd::Complete, &[]);
    assert_eq!(found, (State::Idle, Some(Role::Worker), "tokio", POOLED, true));
}

#[test]
fn without_a_parked_worker_nothing_is_said() {
    let task: &[Functions] = &[&["clock_nanosleep", "handler:user"], TASK, LOOP, HOSTED, POOL];
    check_nothing("task", Reason::Sleep, task, &[]);
    check_nothing("busy pool thread", Reason::Sleep, &[&["nap:user"], HOSTED, POOL], &[]);
    check_nothing("idle pool thread", Reason::Futex, &[CONDVAR, POOL], &[]);
}

#[test]
fn what_is_not_a_park_explains_nothing() {
    let check = |what, reason, parts: &[Functions]| check_nothing(what, reason, parts, &[]);
    // A task's function into which the scheduler's way to wake workers was inlined.
    let handler: &[Functions] = &[&["syscall", "handler:worker park"], TASK, LOOP, HOSTED, POOL];
    check("handler", Reason::Futex, handler);
    let spawning: &[Functions] = &[&["syscall", "spawns:worker park"], THREAD];
    check("thread that spawns", Reason::Futex, spawning);
    let mixed: &[Functions] = &[DRIVER, &["park:worker local"], LOOP, HOSTED, POOL];
    check("of two loops", Reason::Poll, mixed);
    let users: &[Functions] = &[CONDVAR, &["park:worker park user"], LOOP, HOSTED, POOL];
    check("with the user's code", Reason::Futex, users);
    let other: &[Functions] = &[CONDVAR, &["park:worker park crate"], LOOP, HOSTED, POOL];
    check("with another crate's code", Reason::Futex, other);
    let sleeping: &[Functions] = &[&["clock_nanosleep"], PARKED, LOOP, HOSTED, POOL];
    check("asleep", Reason::Sleep, sleeping);
    check("not hosted by a pool", Reason::Futex, &[CONDVAR, PARKED, LOOP, THREAD]);
}

#[test]
fn threads_beside_a_runtime_do_not_belong_to_it() {
    let check = |what, reason, parts: &[Functions]| {
        check_nothing(what, reason, parts, &[(Reason::Poll, TURNING), (Reason::Futex, PARKING)]);
    };
    check("own pool", Reason::Futex, &[&["syscall", "mpsc_recv"], THREAD]);
    check("same condvar", Reason::Futex, &[CONDVAR, THREAD]);
    check("mio's loop", Reason::Poll, &[&["epoll_wait", "select:vec", "poll:mio"], THREAD]);
    check("after a runtime", Reason::Sleep, &[&["clock_nanosleep", "b:local worker user"], THREAD]);
    // Parked until a future is ready, or until a channel has something: the same from outside.
    let parked: Functions = &["syscall", "thread_park:thread-park", "block_on", "enter:entered"];
    check("block_on", Reason::Futex, &[parked, MAIN]);
}

#[test]
fn programs_without_tokio_are_not_taken_for_it() {
    let epoll: &[Functions] = &[&["epoll_wait", "select:vec", "poll:mio", "serve:user"], MAIN];
    let worker: &[Functions] = &[&["syscall", "condvar_wait", "work:user"], THREAD];
    let bare: &[Functions] = &[&["epoll_wait", "loop"], &["start", "clone3"]];
    let smol: &[Functions] = &[&["epoll_wait", "wait", "react:smol", "driver:smol"], THREAD];
    let all = [
        (Reason::Poll, epoll),
        (Reason::Futex, worker),
        (Reason::Poll, bare),
        (Reason::Poll, smol),
    ];
    for (reason, parts) in all {
        check_nothing("not tokio", reason, parts, &all);
    }
}

#[test]
fn a_stack_without_its_root_is_read_as_far_as_it_goes() {
    let check = |parts: &[Functions], others: &[(Reason, &[Functions])], expected| {
        for why in [Why::TruncatedUntold, Why::BrokenUntold] {
            let found = read_end(Reason::Futex, parts, StackEnd::Incomplete(why), others);
            assert_eq!(found, expected);
        }
    };
    let known: &[(Reason, &[Functions])] = &[(Reason::Poll, TURNING)];
    let idle = (State::Idle, Some(Role::Worker), "tokio", POOLED, true);
    check(&[CONDVAR, PARKED, LOOP, HOSTED, &["inner_run:pool"]], &[], idle);
    check(&[CONDVAR, PARKED, LOOP], known, idle);
    check(&[CONDVAR, PARKED, LOOP], &[], (State::Unknown, None, NO_RUNTIME, POOLED, false));
    // Its name alone puts the thread into the pool.
    check(&[CONDVAR], known, (State::Unknown, None, "tokio", POOLED, false));
}
