//! Tokio's stacks as they were seen in running programs, leaf first.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod pieces;

use pieces::{
    BLOCK_ON_CT, BLOCK_ON_MT, CONDVAR, CT_PARK, CT_RUN_TASK, DRIVER, FAT_POLL, FAT_WORKER, H_SLEEP,
    MAIN, PARK, POLL, POOL, RUN_TASK, SLEEP, THREAD, WORKER,
};

use super::super::{
    Frame, NO_RUNTIME, Reason, Role, Scope, Stack, State, Thread, View, classify, meaning::Meaning,
};
use crate::{
    recording::{CodeAddress, StackEnd, Why},
    units::{Avma, Tid},
};

type Parts<'a> = &'a [&'a [&'a str]];

/// State, role, label and task of a wait, and whether its pool is its own thread's.
type Expected = (State, Option<Role>, Option<&'static str>, Option<&'static str>);

fn frames(parts: Parts<'_>) -> Vec<Frame> {
    let names = parts.iter().copied().flatten();
    // The same function at the same place has the same address in every stack of a test.
    let address =
        |name: &str| name.bytes().fold(7, |sum: u64, b| sum * 31 % 1_000_003 + u64::from(b));
    names
        .map(|name| {
            Frame::new(CodeAddress::Memory(Avma(address(name))), Some(name), None, Some("/bin/tk"))
        })
        .collect()
}

/// Classifies the stacks of one process, each on a thread `(tid, name)`.
fn read(
    waits: &[(u32, &str, Reason, Parts<'_>, StackEnd)],
) -> (Vec<Meaning>, Vec<(&'static str, Scope, Role)>) {
    let frames: Vec<_> = waits.iter().map(|wait| frames(wait.3)).collect();
    let stacks: Vec<_> = waits
        .iter()
        .zip(&frames)
        .map(|(wait, frames)| Stack { frames: frames.iter().collect(), end: wait.4 })
        .collect();
    let views: Vec<_> = waits
        .iter()
        .zip(&stacks)
        .map(|(wait, stack)| View {
            tid: Tid(wait.0),
            reason: wait.2,
            object: None,
            stack: Some(stack),
        })
        .collect();
    let threads: Vec<_> =
        waits.iter().map(|wait| Thread { tid: Tid(wait.0), name: wait.1 }).collect();
    let verdict = classify(&threads, &views);
    let places = waits.iter().map(|wait| verdict.places[&Tid(wait.0)]);
    (verdict.meanings, places.map(|place| (place.runtime, place.scope, place.role)).collect())
}

fn check_end(what: &str, reason: Reason, parts: Parts<'_>, end: StackEnd, expected: Expected) {
    let (meanings, _) = read(&[(1, "x", reason, parts, end)]);
    let found = &meanings[0];
    let found = (found.state, found.role, found.label, found.task.as_deref());
    assert_eq!(found, expected, "{what}");
}

fn check(what: &str, reason: Reason, parts: Parts<'_>, expected: Expected) {
    check_end(what, reason, parts, StackEnd::Complete, expected);
}

const IDLE_WORKER: Expected = (State::Idle, Some(Role::Worker), None, None);

const fn blocked(label: Option<&'static str>, task: &'static str) -> Expected {
    (State::Blocked, Some(Role::Worker), label, Some(task))
}

#[test]
fn parked_workers_are_idle() {
    let condvar = ["tokio::runtime::scheduler::multi_thread::park::Inner::park_condvar"];
    let driver = ["tokio::runtime::scheduler::multi_thread::park::Inner::park_driver"];
    check("condvar", Reason::Futex, &[CONDVAR, &condvar, PARK, WORKER, THREAD], IDLE_WORKER);
    check("driver", Reason::Poll, &[DRIVER, PARK, WORKER, THREAD], IDLE_WORKER);
    check("fat condvar", Reason::Futex, &[CONDVAR, PARK, FAT_WORKER, THREAD], IDLE_WORKER);
    check("fat driver", Reason::Poll, &[DRIVER, &driver, PARK, FAT_WORKER, THREAD], IDLE_WORKER);
    let v0 = [
        "<parking_lot[1f]::condvar::Condvar>::wait_until_internal",
        "<tokio[2e]::runtime::scheduler::multi_thread::worker::Context>::park_internal",
        "tokio[2e]::runtime::scheduler::multi_thread::worker::run::{closure#0}",
    ];
    check("v0 names", Reason::Futex, &[&v0, WORKER, THREAD], IDLE_WORKER);
    let oldest = [
        "syscall",
        "tokio::park::thread::Inner::park",
        "<tokio::runtime::thread_pool::park::Parker as tokio::park::Park>::park",
        "tokio::runtime::thread_pool::worker::Context::park_timeout",
        "tokio::runtime::thread_pool::worker::Context::run",
    ];
    check("1.0", Reason::Futex, &[&oldest, POLL, POOL, THREAD], IDLE_WORKER);
    check_end(
        "cut",
        Reason::Futex,
        &[CONDVAR, PARK, FAT_WORKER],
        StackEnd::Incomplete(Why::NoMapping),
        IDLE_WORKER,
    );
}

#[test]
fn a_wait_under_a_tasks_poll_is_blocked_whatever_it_waits_for() {
    let on_worker = |what: &str, reason, leaf: &[&str], task: &str, label| {
        let parts = [leaf, &[task], POLL, RUN_TASK, WORKER, THREAD];
        let readable = task.strip_suffix("::{{closure}}").unwrap();
        let readable: &'static str = Box::leak(format!("async fn {readable}").into_boxed_str());
        check(what, reason, &parts, blocked(label, readable));
        let fat = [leaf, &[task], FAT_POLL, RUN_TASK, FAT_WORKER, THREAD];
        check(what, reason, &fat, blocked(label, readable));
    };
    let sleep = "tk::h_sleep::{{closure}}";
    on_worker("sleep", Reason::Sleep, SLEEP, sleep, None);
    on_worker("fat sleep", Reason::Sleep, &SLEEP[..1], sleep, None);
    let mutex = ["syscall", "<std[e2]::sys::sync::mutex::futex::Mutex>::lock_contended"];
    on_worker("std mutex", Reason::Futex, &mutex, "tk::h_mutex::{{closure}}", Some("mutex"));
    let pl = ["syscall", "parking_lot::raw_mutex::RawMutex::lock_slow"];
    on_worker("parking_lot", Reason::Futex, &pl, "tk::h_pl::{{closure}}", Some("mutex"));
    let condvar = ["syscall", "std::sys::sync::condvar::futex::Condvar::wait"];
    on_worker("condvar", Reason::Futex, &condvar, "tk::h_cv::{{closure}}", Some("condvar"));
    let recv = [
        "syscall",
        "<std[e2]::thread::thread::Thread>::park",
        "std::sync::mpmc::list::Channel<T>::recv::{{closure}}",
        "std::sync::mpmc::list::Channel<T>::recv",
    ];
    on_worker("mpsc", Reason::Futex, &recv, "tk::h_mpsc::{{closure}}", Some("channel"));
    let join = ["__pthread_clockjoin_ex", "<std[e2]::sys::thread::unix::Thread>::join"];
    on_worker("join", Reason::Futex, &join, "tk::h_join::{{closure}}", Some("join"));
    let net = ["__libc_recv", "<std[e2]::net::tcp::TcpStream as std[e2]::io::Read>::read"];
    on_worker("net", Reason::Socket, &net, "tk::h_net::{{closure}}", None);
    let dns = ["__poll", "__res_context_send", "getaddrinfo", "std::net::socket_addr::lookup_host"];
    on_worker("dns", Reason::Poll, &dns, "tk::h_dns::{{closure}}", Some("dns"));
    let block_on = [
        "syscall",
        "std[e2]::thread::functions::park",
        "std::thread::local::LocalKey<T>::with",
        "futures_executor::local_pool::block_on",
        "tk::sync_facade",
    ];
    on_worker(
        "block_on",
        Reason::Futex,
        &block_on,
        "tk::h_b::{{closure}}",
        Some("sync-over-async"),
    );
}

#[test]
fn what_a_future_does_inside_block_on_keeps_its_own_label() {
    let leaf = [
        "syscall",
        "<std[e2]::sys::sync::mutex::futex::Mutex>::lock_contended",
        "tk::query::{{closure}}",
        "futures_executor::local_pool::block_on",
        "tk::h_b::{{closure}}",
    ];
    let parts: Parts<'_> = &[&leaf, POLL, RUN_TASK, WORKER, THREAD];
    check("mutex", Reason::Futex, parts, blocked(Some("mutex"), "async fn tk::h_b"));
}

#[test]
fn waits_of_blocking_threads_are_allowed() {
    let busy = |task| (State::Allowed, Some(Role::Blocking), None, task);
    let closure = ["tk::h_spawnblk::{{closure}}::{{closure}}"];
    let task = Some("closure in tk::h_spawnblk");
    check("busy", Reason::Sleep, &[SLEEP, &closure, POLL, POOL, THREAD], busy(task));
    check("busy, inlined", Reason::Sleep, &[SLEEP, POLL, POOL, THREAD], busy(None));
    let v0 =
        ["tokio::runtime::task::raw::poll::<tokio::runtime::blocking::task::BlockingTask<X>, S>"];
    check("busy, v0", Reason::Sleep, &[SLEEP, &v0, THREAD], busy(None));
    let idle = (State::Idle, Some(Role::Blocking), None, None);
    check("idle", Reason::Futex, &[CONDVAR, POOL, THREAD], idle);
    let handle =
        ["tokio::runtime::park::Inner::park", "tokio::runtime::park::CachedParkThread::block_on"];
    let parts: Parts<'_> = &[CONDVAR, &handle, &closure, POLL, POOL, THREAD];
    check(
        "block_on on a blocking thread",
        Reason::Futex,
        parts,
        (State::Allowed, Some(Role::Blocking), None, task),
    );
}

#[test]
fn a_poll_without_a_loop_is_told_by_what_other_stacks_show() {
    const USERS_THREAD: &[&str] = &[
        "std::sys::backtrace::__rust_begin_short_backtrace",
        "core::ops::function::FnOnce::call_once{{vtable.shim}}::of_another_closure",
        "clone3",
    ];
    let own: Parts<'_> = &[SLEEP, FAT_POLL, THREAD];
    let users: Parts<'_> = &[SLEEP, FAT_POLL, USERS_THREAD];
    let worker: Parts<'_> = &[CONDVAR, PARK, FAT_WORKER, THREAD];
    let local: Parts<'_> = &[DRIVER, CT_PARK, BLOCK_ON_CT, MAIN];
    let turned: Parts<'_> = &[DRIVER, USERS_THREAD];
    // What another thread shows, then the poll and its thread.
    let check = |what: &str, other: Option<(u32, Reason, Parts<'_>)>, poll, expected| {
        let poll = (1, "x", Reason::Sleep, poll, StackEnd::Complete);
        let other = other.map(|(tid, reason, parts)| (tid, "x", reason, parts, StackEnd::Complete));
        let waits: Vec<_> = std::iter::once(poll).chain(other).collect();
        let found = &read(&waits).0[0];
        assert_eq!((found.state, found.role), expected, "{what}");
    };
    let allowed = (State::Allowed, Some(Role::Blocking));
    let blocked = (State::Blocked, Some(Role::Worker));
    check("nothing", None, own, (State::Unknown, None));
    check("a worker of the same body", Some((2, Reason::Futex, worker)), own, allowed);
    check("a worker of another body", Some((2, Reason::Futex, worker)), users, blocked);
    check("the thread turns a driver", Some((1, Reason::Poll, turned)), users, blocked);
    check("a local runtime elsewhere", Some((2, Reason::Poll, local)), own, allowed);
    check("the user's function", None, &[SLEEP, FAT_POLL, MAIN], blocked);
}

#[test]
fn block_in_place_may_wait() {
    let in_place = ["tokio::runtime::scheduler::multi_thread::worker::block_in_place"];
    let task = Some("async fn tk::h_inplace");
    let handler = ["tk::h_inplace::{{closure}}"];
    let parts: Parts<'_> = &[SLEEP, &in_place, &handler, POLL, RUN_TASK, WORKER, THREAD];
    check("sleep", Reason::Sleep, parts, (State::Allowed, Some(Role::Blocking), None, task));
    let park = [
        "tokio::runtime::park::Inner::park",
        "tokio::runtime::park::CachedParkThread::block_on",
        "tk::h_inplace::{{closure}}::{{closure}}",
    ];
    let parts: Parts<'_> = &[CONDVAR, &park, &in_place, &handler, POLL, RUN_TASK, WORKER, THREAD];
    let expected = (State::Allowed, Some(Role::Blocking), Some("sync-over-async"), task);
    check("block_on", Reason::Futex, parts, expected);
}

#[test]
fn the_caller_of_a_multi_thread_block_on_is_no_worker() {
    let park = ["tokio::runtime::park::Inner::park"];
    let idle = (State::Idle, Some(Role::Other), None, None);
    check("parked", Reason::Futex, &[CONDVAR, &park, BLOCK_ON_MT, MAIN], idle);
    let fat = ["tokio::runtime::park::CachedParkThread::park"];
    check("parked, fat", Reason::Futex, &[CONDVAR, &fat, MAIN], idle);
    // Who drops a runtime waits for the threads of its blocking pool, as for a future.
    let join = [
        "__futex_abstimed_wait_common64",
        "__futex_abstimed_wait_common",
        "__pthread_clockjoin_ex",
        "std::sys::thread::unix::Thread::join",
        "std::thread::lifecycle::JoinInner<T>::join",
        "tokio::runtime::blocking::pool::BlockingPool::shutdown",
        "core::ptr::drop_in_place<tokio::runtime::blocking::pool::BlockingPool>",
    ];
    check("dropping", Reason::Futex, &[&join, MAIN], idle);
    let polls = (State::Allowed, Some(Role::Other), None, None);
    check("polling", Reason::Sleep, &[SLEEP, H_SLEEP, BLOCK_ON_MT, MAIN], polls);
    let recv = [
        "tokio::runtime::park::CachedParkThread::park",
        "tokio::runtime::park::CachedParkThread::block_on",
        "tokio::sync::mpsc::bounded::Receiver<T>::blocking_recv",
    ];
    let plain = (State::Allowed, None, Some("channel"), None);
    check("blocking_recv", Reason::Futex, &[CONDVAR, &recv, MAIN], plain);
}

#[test]
fn a_current_thread_runtime_is_its_own_worker() {
    let task = "async fn tk::h_sleep";
    check("idle", Reason::Poll, &[DRIVER, CT_PARK, BLOCK_ON_CT, MAIN], IDLE_WORKER);
    check("idle, fat", Reason::Poll, &[DRIVER, CT_PARK, MAIN], IDLE_WORKER);
    let parts: Parts<'_> = &[SLEEP, H_SLEEP, POLL, CT_RUN_TASK, BLOCK_ON_CT, MAIN];
    check("task", Reason::Sleep, parts, blocked(None, task));
    let parts: Parts<'_> = &[SLEEP, H_SLEEP, FAT_POLL, CT_RUN_TASK, MAIN];
    check("task, fat", Reason::Sleep, parts, blocked(None, task));
    check("given future", Reason::Sleep, &[SLEEP, H_SLEEP, BLOCK_ON_CT, MAIN], blocked(None, task));
    let inlined = (State::Blocked, Some(Role::Worker), None, None);
    check("given future, inlined", Reason::Sleep, &[SLEEP, BLOCK_ON_CT, MAIN], inlined);
    let own = (State::Unknown, Some(Role::Worker), None, None);
    check("its own lock", Reason::Futex, &[&["syscall"], BLOCK_ON_CT, MAIN], own);
    let enter = [
        "std::thread::local::LocalKey<T>::with",
        "tokio::runtime::scheduler::current_thread::Context::enter",
    ];
    let tick = ["tokio::task::local::LocalSet::tick"];
    let parts: Parts<'_> = &[SLEEP, H_SLEEP, POLL, &tick, &enter, BLOCK_ON_CT, MAIN];
    check("LocalSet", Reason::Sleep, parts, blocked(None, task));
    let run_until = ["tokio::task::local::LocalSet::run_until::{{closure}}"];
    let parts: Parts<'_> = &[SLEEP, H_SLEEP, FAT_POLL, &run_until, MAIN];
    check("LocalSet, fat", Reason::Sleep, parts, blocked(None, task));
    let basic = [
        "epoll_wait",
        "mio::poll::Poll::poll",
        "tokio::io::driver::Driver::turn",
        "<tokio::time::driver::Driver<P> as tokio::park::Park>::park",
        "tokio::runtime::basic_scheduler::BasicScheduler<P>::block_on",
    ];
    check("1.0", Reason::Poll, &[&basic, MAIN], IDLE_WORKER);
}

#[test]
fn what_cannot_be_seen_is_unknown() {
    let nothing = (State::Unknown, None, None, None);
    let in_poll: Parts<'_> = &[SLEEP, H_SLEEP, POLL];
    check_end(
        "cut at a poll",
        Reason::Sleep,
        in_poll,
        StackEnd::Incomplete(Why::SliceTooShort),
        nothing,
    );
    check_end("broken", Reason::Sleep, &[SLEEP], StackEnd::Incomplete(Why::NoMapping), nothing);
    let parts: Parts<'_> = &[SLEEP, H_SLEEP, POLL, RUN_TASK, WORKER, THREAD];
    let stopped = (State::Unknown, Some(Role::Worker), None, None);
    check("stopped", Reason::Stopped, parts, stopped);
    check("plain thread", Reason::Sleep, &[SLEEP, THREAD], (State::Allowed, None, None, None));
}

#[test]
fn stripped_code_may_hide_a_runtime_but_the_c_library_may_not() {
    let check = |module: &str, expected| {
        let address = CodeAddress::Memory(Avma(1));
        let nameless = Frame::new(address, None, None, Some(module));
        let named = Frame::new(address, Some("clone3"), None, Some("/lib/libc.so.6"));
        let stack = Stack { frames: vec![&nameless, &named], end: StackEnd::Complete };
        let view = View { tid: Tid(1), reason: Reason::Futex, object: None, stack: Some(&stack) };
        let verdict = classify(&[Thread { tid: Tid(1), name: "x" }], &[view]);
        assert_eq!(verdict.meanings[0].state, expected, "{module}");
    };
    check("/usr/bin/service", State::Unknown);
    check("/usr/lib/x86_64-linux-gnu/libc.so.6", State::Allowed);
}

/// Stacks explain one another: pools, threads known by their name, and what inlining hid.
#[test]
fn the_threads_of_a_process_form_pools() {
    let whole = StackEnd::Complete;
    let worker: Parts<'_> = &[CONDVAR, PARK, FAT_WORKER, THREAD];
    let idle_pool_thread: Parts<'_> = &[CONDVAR, THREAD];
    let other_body = [
        "std::sys::backtrace::__rust_begin_short_backtrace",
        "core::ops::function::FnOnce::call_once{{vtable.shim}}#2",
        "start_thread",
    ];
    let std_thread: Parts<'_> = &[CONDVAR, &other_body];
    let (meanings, places) = read(&[
        (1, "tokio-rt-worker", Reason::Futex, worker, whole),
        (2, "tokio-rt-worker", Reason::Futex, idle_pool_thread, whole),
        (3, "tokio-rt-worker", Reason::Futex, std_thread, whole),
        (4, "tokio-rt-worker", Reason::Futex, &[], StackEnd::Incomplete(Why::NoMapping)),
    ]);
    let states: Vec<_> = meanings.iter().map(|meaning| meaning.state).collect();
    assert_eq!(states, [State::Idle, State::Idle, State::Allowed, State::Unknown]);
    let tokio = |role| ("tokio", Scope::Process, role);
    let none = (NO_RUNTIME, Scope::Process, Role::Other);
    assert_eq!(places, [tokio(Role::Worker), tokio(Role::Blocking), none, tokio(Role::Worker)]);
}

#[test]
fn a_lone_current_thread_runtime_owns_its_blocking_threads() {
    let whole = StackEnd::Complete;
    let idle: Parts<'_> = &[DRIVER, CT_PARK, BLOCK_ON_CT, MAIN];
    let busy: Parts<'_> = &[SLEEP, POLL, POOL, THREAD];
    let (_, places) =
        read(&[(1, "main", Reason::Poll, idle, whole), (2, "x", Reason::Sleep, busy, whole)]);
    let own = Scope::Thread(Tid(1));
    assert_eq!(places, [("tokio", own, Role::Worker), ("tokio", own, Role::Blocking)]);
}

#[test]
fn outside_its_runtime_a_current_thread_may_wait_unless_inlining_hides_the_way_in() {
    let whole = StackEnd::Complete;
    let outside: Parts<'_> = &[SLEEP, MAIN];
    let check = |idle: Parts<'_>, expected| {
        let waits =
            [(1, "main", Reason::Poll, idle, whole), (1, "main", Reason::Sleep, outside, whole)];
        assert_eq!(read(&waits).0[1].state, expected);
    };
    check(&[DRIVER, CT_PARK, BLOCK_ON_CT, MAIN], State::Allowed);
    check(&[DRIVER, CT_PARK, MAIN], State::Unknown);
}

/// Line tables name inlined functions without their path; the source file says the rest.
#[test]
fn inlined_functions_are_known_by_their_source_file() {
    const TOKIO: &str = "/home/dev/.cargo/registry/src/mirror/tokio-1.54.1/src";
    let check = |inlined: &[(&str, &str)], state, role| {
        let frame = |name: &str, file: Option<&str>| {
            Frame::new(CodeAddress::Memory(Avma(1)), Some(name), file, Some("/bin/tk"))
        };
        let leaf = frame("clock_nanosleep", None);
        let inlined =
            inlined.iter().map(|(name, file)| frame(name, Some(&format!("{TOKIO}/{file}"))));
        let outer =
            frames(&[&["tk::h_inplace::{{closure}}"], FAT_POLL, RUN_TASK, FAT_WORKER, THREAD]);
        let all: Vec<_> = std::iter::once(leaf).chain(inlined).chain(outer).collect();
        let stack = Stack { frames: all.iter().collect(), end: StackEnd::Complete };
        let view = View { tid: Tid(1), reason: Reason::Sleep, object: None, stack: Some(&stack) };
        let verdict = classify(&[Thread { tid: Tid(1), name: "x" }], &[view]);
        let meaning = &verdict.meanings[0];
        assert_eq!((meaning.state, meaning.role), (state, Some(role)));
        assert_eq!(meaning.task.as_deref(), Some("async fn tk::h_inplace"));
    };
    check(&[("with_budget<()>", "task/coop/mod.rs")], State::Blocked, Role::Worker);
    let in_place = [
        ("block_in_place<tk::h_inplace::{async_fn#0}::{closure_env#0}, ()>", "task/blocking.rs"),
        ("{closure#0}", "runtime/scheduler/multi_thread/worker.rs"),
    ];
    check(&in_place, State::Allowed, Role::Blocking);
}
