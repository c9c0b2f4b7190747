//! Names as they are seen on the stacks of real programs.

use super::*;
use crate::{recording::CodeAddress, units::Avma};

const TOKIO: &str = "/home/dev/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/tokio-1.54.1";

#[test]
fn tasks_read_like_source() {
    use Job::{Closure, Future};
    for (name, job, expected) in [
        // Legacy mangling.
        ("orders::handler::{{closure}}", Future, "async fn orders::handler"),
        ("orders::handler::{{closure}}::h461517ad34e127bd", Future, "async fn orders::handler"),
        ("orders::main::{{closure}}::{{closure}}", Future, "async block in orders::main"),
        ("orders::load::{{closure}}::{{closure}}", Closure, "closure in orders::load"),
        ("orders::load::{{closure}}", Closure, "closure in orders::load"),
        ("orders::load", Closure, "orders::load"),
        ("<orders::load as core::ops::function::FnOnce<()>>::call_once", Closure, "orders::load"),
        ("<orders::Pump as core::future::future::Future>::poll", Future, "orders::Pump"),
        ("<orders::Db as orders::Repo>::load::{{closure}}", Future, "async fn orders::Db::load"),
        (
            "orders::db::<impl orders::Repo for orders::Db>::load::{{closure}}",
            Future,
            "async fn orders::db::load",
        ),
        ("orders::retry<F>::{{closure}}", Future, "async fn orders::retry"),
        ("orders::Pool<T>::get::{{closure}}", Future, "async fn orders::Pool::get"),
        // v0 mangling.
        ("orders[a1b2]::handler::{closure#0}", Future, "async fn orders::handler"),
        ("<orders[a1]::Db>::load::{closure#0}", Future, "async fn orders::Db::load"),
        ("<orders::Db as orders::Repo>::load::{closure#0}", Future, "async fn orders::Db::load"),
        ("orders::main::{closure#0}::{closure#3}", Future, "async block in orders::main"),
        (
            "orders::retry::<orders::load::{closure#0}>::{closure#0}",
            Future,
            "async fn orders::retry",
        ),
        // Debug information.
        ("orders::handler::{async_fn_env#0}", Future, "async fn orders::handler"),
        ("orders::handler::{async_fn_env#0}<orders::Db>", Future, "async fn orders::handler"),
        ("orders::main::{async_fn#0}::{async_block_env#1}", Future, "async block in orders::main"),
        ("orders::start::{async_block_env#0}", Future, "async block in orders::start"),
        ("orders::start::{async_closure_env#0}", Future, "async closure in orders::start"),
        ("orders::load::{async_fn#0}::{closure_env#0}", Closure, "closure in orders::load"),
        ("orders::load::{closure_env#0}", Future, "closure in orders::load"),
        ("orders::{impl#2}::call::{async_block_env#0}", Future, "async block in orders::call"),
        ("orders::Pump<orders::Item>", Future, "orders::Pump"),
    ] {
        assert_eq!(readable(name, job), expected, "{name}");
    }
}

/// A stack from the poll on, root first: names, and source files where debug information has them.
fn check(stack: &[(&str, Option<&str>)], job: Job, expected: Option<&str>) {
    const CARRIERS: Carriers =
        &[(&["tokio::runtime::task", "tokio::runtime::blocking::task"], &[])];
    let frames: Vec<_> = stack
        .iter()
        .rev()
        .map(|(name, file)| {
            let file = file.map(|file| file.replace("TOKIO", TOKIO));
            let address = CodeAddress::Memory(Avma(1));
            Frame::new(address, Some(name), file.as_deref(), Some("/srv/orders"))
        })
        .collect();
    let frames: Vec<_> = frames.iter().collect();
    assert_eq!(name(&frames, job, CARRIERS).as_deref(), expected, "{stack:#?}");
}

const HARNESS: (&str, Option<&str>) = ("tokio::runtime::task::harness::Harness<T,S>::poll", None);
const SLEEP: (&str, Option<&str>) = ("std::thread::functions::sleep", None);

#[test]
fn without_arguments_the_outermost_function_of_the_users_names_the_task() {
    let handler = ("orders::handler::{{closure}}", None);
    let inner = ("orders::load::{{closure}}", None);
    check(&[HARNESS, handler, inner, SLEEP], Job::Future, Some("async fn orders::handler"));
    check(&[HARNESS, SLEEP], Job::Future, None);
    // What a server puts around a handler.
    let server = [
        ("hyper_util::server::conn::auto::UpgradeableConnection<I,S,E>::poll", None),
        ("hyper::proto::h1::dispatch::Dispatcher<D,Bs,I,T>::poll_loop", None),
        ("<tower::util::oneshot::Oneshot<S,Req> as core::future::future::Future>::poll", None),
        ("<F as axum::handler::Handler<(M,T1),S>>::call::{{closure}}", None),
    ];
    let all = [&[HARNESS], &server[..], &[handler, SLEEP]].concat();
    check(&all, Job::Future, Some("async fn orders::handler"));
    // Nothing of the user's: the library that is held up is better than nothing.
    let none = [&[HARNESS], &server[..], &[SLEEP]].concat();
    let connection = "hyper_util::server::conn::auto::UpgradeableConnection";
    check(&none, Job::Future, Some(connection));
    // What only waits for its caller is no task.
    check(&[HARNESS, ("parking_lot::raw_mutex::RawMutex::lock_slow", None)], Job::Future, None);
    // Line tables name inlined functions without their path.
    let inlined = ("{closure#0}", Some("/home/dev/orders/src/load.rs"));
    check(&[HARNESS, inlined, SLEEP], Job::Closure, Some("closure in orders::load"));
    let inlined = ("{async_block#0}", Some("/home/dev/orders/src/load.rs"));
    check(&[HARNESS, inlined, SLEEP], Job::Future, Some("async block in orders::load"));
}

#[test]
fn a_librarys_code_for_a_function_of_the_users_names_it() {
    let axum = Some("/r/.cargo/registry/src/x/axum-0.8.9/src/handler/mod.rs");
    let call = "<orders::get_price as axum::handler::Handler<((),), ()>>::call::{closure#0}";
    let inlined = ("{async_fn#0}", Some("/home/dev/orders/src/main.rs"));
    let expected = Some("async fn orders::get_price");
    check(&[HARNESS, (call, axum), inlined, SLEEP], Job::Future, expected);
    check(&[HARNESS, (call, axum), SLEEP], Job::Future, expected);
    check(&[HARNESS, inlined, SLEEP], Job::Future, Some("async fn in orders"));
    // A type's method says no more than the function that it calls.
    let layer = "<orders::Layer as tower::Service<()>>::call";
    check(&[HARNESS, (layer, axum), inlined, SLEEP], Job::Future, Some("async fn in orders"));
}

#[test]
fn the_type_that_was_polled_names_the_task() {
    let core = Some("TOKIO/src/runtime/task/core.rs");
    let both = |polled: &str, file, job, expected| {
        check(&[HARNESS, (polled, file), SLEEP], job, Some(expected));
        // Whatever it calls.
        let inner = ("orders::inner::{{closure}}", None);
        check(&[HARNESS, (polled, file), inner, SLEEP], job, Some(expected));
    };
    both(
        "tokio::runtime::task::raw::poll::<orders::handler::{closure#0}, alloc::sync::Arc<S>>",
        None,
        Job::Future,
        "async fn orders::handler",
    );
    both(
        "<tokio::runtime::task::core::Core<orders::handler::{closure#0}, S>>::poll",
        None,
        Job::Future,
        "async fn orders::handler",
    );
    both(
        "{closure#0}<orders::handler::{async_fn_env#0}, alloc::sync::Arc<tokio::runtime::scheduler::multi_thread::handle::Handle, alloc::alloc::Global>>",
        core,
        Job::Future,
        "async fn orders::handler",
    );
    both(
        "poll_future<orders::main::{async_fn#0}::{async_block_env#0}, alloc::sync::Arc<S>>",
        Some("TOKIO/src/runtime/task/harness.rs"),
        Job::Future,
        "async block in orders::main",
    );
    // What carries it is looked through.
    both(
        "{closure#0}<tokio::runtime::blocking::task::BlockingTask<orders::load::{async_fn#0}::{closure_env#0}>, tokio::runtime::blocking::schedule::BlockingSchedule>",
        core,
        Job::Closure,
        "closure in orders::load",
    );
    both(
        "poll<tracing::instrument::Instrumented<orders::handler::{async_fn_env#0}>, S>",
        core,
        Job::Future,
        "async fn orders::handler",
    );
    both(
        "poll<core::pin::Pin<alloc::boxed::Box<futures_util::future::Map<orders::Pump<u8>, fn(u8) -> u16>>>, S>",
        core,
        Job::Future,
        "orders::Pump",
    );
}

#[test]
fn a_type_that_tells_nothing_leaves_it_to_the_functions() {
    let handler = ("orders::handler::{{closure}}", None);
    let file = Some("TOKIO/src/runtime/task/core.rs");
    for polled in [
        "poll<core::pin::Pin<alloc::boxed::Box<dyn core::future::future::Future<Output = orders::Reply> + core::marker::Send>>, S>",
        "poll<hyper_util::server::conn::auto::Connection<orders::Body>, S>",
        "poll<T, S>",
        "poll",
    ] {
        check(
            &[HARNESS, (polled, file), handler, SLEEP],
            Job::Future,
            Some("async fn orders::handler"),
        );
    }
    let server = "poll<hyper_util::server::conn::auto::Connection<orders::Body>, S>";
    let connection = Some("hyper_util::server::conn::auto::Connection");
    check(&[HARNESS, (server, file), SLEEP], Job::Future, connection);
}
