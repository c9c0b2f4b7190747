//! What a picture can leave out: the way from a thread's start to the code that it runs.
//!
//! The standard library's part of it is here, a runtime's in its description. Waits, parks and
//! whatever else a reader must see is not plumbing, and neither is any function of the user's.

use super::{
    RUNTIMES,
    names::{outside_closures, split, within},
    origin::Origin,
    stack::Frame,
};

/// Functions, or closures in them, anywhere below one of some modules. No function means all.
pub type Row = (&'static [&'static str], &'static [&'static str]);

/// What the standard library and the crates that carry futures put around every thread and task.
const STD: &[Row] = &[
    (&["std::panic", "std::panicking", "core::panic", "std::rt"], &[]),
    (
        &["std::sys", "std::sys_common"],
        &["__rust_begin_short_backtrace", "thread_start", "lang_start", "lang_start_internal"],
    ),
    (&["std::thread::lifecycle"], &[]),
    (&["std::thread"], &["spawn_unchecked", "spawn_unchecked_"]),
    // Closures in the file that has these functions.
    (&["std"], &["thread"]),
    (&["std::thread::local", "std::thread::LocalKey"], &["with", "try_with"]),
    (&["alloc::boxed", "core::ops::function"], &["call", "call_mut", "call_once"]),
    (
        &[
            "alloc::boxed",
            "core::future",
            "core::pin",
            "core::panic",
            "futures_util::future",
            "tracing::instrument",
        ],
        &["poll"],
    ),
];

/// Functions of C that begin every thread.
const C_STARTS: &[&str] = &[
    "_start",
    "__clone",
    "__clone3",
    "__libc_start_call_main",
    "__libc_start_main",
    "__libc_start_main_impl",
    "__restore_rt",
    "clone",
    "clone3",
    "start_thread",
    "__rust_try",
];

/// Whether a function with this normalised path is plumbing.
pub fn is_plumbing(path: &str) -> bool {
    if !path.contains("::") {
        return C_STARTS.contains(&path);
    }
    STD.iter()
        .chain(RUNTIMES.iter().flat_map(|runtime| runtime.plumbing))
        .any(|row| is_in(path, row))
}

/// Whether a normalised path is one that `row` means.
pub fn is_in(path: &str, (modules, functions): &Row) -> bool {
    let outer = outside_closures(path);
    let (scope, function) = split(outer);
    match functions {
        [] => modules.iter().any(|module| within(outer, module)),
        _ => functions.contains(&function) && modules.iter().any(|module| within(scope, module)),
    }
}

/// For each frame of a user stack, leaf first, whether it can be left out.
///
/// Where no function of the user's comes after the innermost plumbing, that stays: it is the caller
/// of what waits, and what the user wrote may have been inlined into it.
pub fn left_out(frames: &[&Frame]) -> Vec<bool> {
    let is_plumbing = |frame: &&Frame| frame.origin == Origin::Plumbing;
    let own = |frame: &&Frame| matches!(frame.origin, Origin::Own | Origin::Unknown);
    let innermost = frames.iter().position(is_plumbing);
    let stays = innermost.filter(|at| !frames[..*at].iter().any(own));
    let left_out = |at: usize| {
        // What calls a Rust program's `main` is a shim of that name.
        let shim = at > 0
            && frames[at].origin == Origin::Library
            && frames[at].name.as_deref() == Some("main")
            && is_plumbing(&frames[at - 1]);
        shim || (is_plumbing(&frames[at]) && stays != Some(at))
    };
    (0..frames.len()).map(left_out).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{recording::CodeAddress, units::Avma};

    /// Root first, as pictures are read; what is left out stands in brackets.
    fn check(stack: &[&str]) {
        let named = stack.iter().rev().map(|line| {
            let text = line.trim_matches(['(', ')']);
            let (name, file) = text.split_once(" @ ").map_or((text, None), |(n, f)| (n, Some(f)));
            let name = (name != "?").then_some(name);
            Frame::new(CodeAddress::Memory(Avma(1)), name, file, Some("/srv/app"))
        });
        let frames: Vec<_> = named.collect();
        let frames: Vec<_> = frames.iter().collect();
        let expected: Vec<_> = stack.iter().rev().map(|line| line.starts_with('(')).collect();
        for (at, (found, expected)) in left_out(&frames).iter().zip(expected).enumerate() {
            assert_eq!(*found, expected, "{:?} in {stack:#?}", stack[stack.len() - 1 - at]);
        }
    }

    #[test]
    fn the_way_to_a_task_is_left_out_and_how_it_waits_is_not() {
        check(&[
            "(clone3)",
            "(start_thread)",
            "(<std::sys::thread::unix::Thread>::new::thread_start)",
            "(<alloc::boxed::Box<dyn FnOnce<(), Output = ()>> as FnOnce<()>>::call_once)",
            "(core::ops::function::FnOnce::call_once{{vtable.shim}})",
            "(std::sys::backtrace::__rust_begin_short_backtrace)",
            "(tokio::runtime::blocking::pool::Inner::run)",
            "(tokio::runtime::task::UnownedTask<S>::run)",
            "(tokio::runtime::task::harness::Harness<T,S>::poll)",
            "(<tokio::runtime::blocking::task::BlockingTask<T> as core::future::Future>::poll)",
            "(tokio::runtime::scheduler::multi_thread::worker::run)",
            "(tokio::runtime::context::runtime::enter_runtime)",
            "(tokio::runtime::context::scoped::Scoped<T>::set)",
            "(tokio::runtime::scheduler::multi_thread::worker::Context::run)",
            "(tokio::runtime::scheduler::multi_thread::worker::Context::run_task)",
            "(tokio::runtime::task::harness::poll_future)",
            "(catch_unwind<F, R> @ /rustc/59/library/std/src/panic.rs)",
            "(do_call<F, R> @ /rustc/59/library/std/src/panicking.rs)",
            "(call_once<R, F> @ /rustc/59/library/core/src/panic/unwind_safe.rs)",
            "({closure#0}<T, S> @ /r/cargo/registry/src/x/tokio-1.54.1/src/runtime/task/core.rs)",
            "(with_mut<T> @ /r/cargo/registry/src/x/tokio-1.54.1/src/loom/std/unsafe_cell.rs)",
            "orders::handler::{{closure}}",
            "(core::pin::Pin<P> as core::future::Future>::poll)",
            "(std::thread::local::LocalKey<T>::with)",
            "orders::load",
            "futures_executor::local_pool::block_on",
            "(core::future::poll_fn::PollFn<F> as core::future::Future>::poll)",
            "std::thread::local::LocalKey<T>::with",
            "std::thread::functions::park",
            "syscall",
        ]);
    }

    #[test]
    fn parks_and_what_was_inlined_into_plumbing_keep_their_caller() {
        check(&[
            "(start_thread)",
            "(tokio::runtime::scheduler::multi_thread::worker::run)",
            "tokio::runtime::scheduler::multi_thread::worker::Context::run",
            "tokio::runtime::scheduler::multi_thread::worker::Context::park_internal",
            "epoll_wait",
        ]);
        check(&["(start_thread)", "tokio::runtime::task::raw::poll", "clock_nanosleep"]);
        check(&["(start_thread)", "?", "clock_nanosleep"]);
        check(&["start_thread"]);
        check(&[
            "(start_thread)",
            "({closure#1}<F, T> @ /rustc/59/library/std/src/thread/lifecycle.rs)",
            "({closure#0}<F, T> @ /rustc/59/library/std/src/thread/mod.rs)",
            "{closure#0} @ /srv/orders/src/main.rs",
            "std::thread::sleep",
        ]);
        check(&["main", "handle_order", "read"]);
    }

    #[test]
    fn what_a_reader_must_see_stays() {
        check(&[
            "(tokio::runtime::scheduler::multi_thread::worker::Context::run_task)",
            "orders::handler::{{closure}}",
            "tokio::runtime::scheduler::multi_thread::worker::block_in_place",
            "tokio::runtime::runtime::Runtime::block_on",
            "(tokio::runtime::context::runtime::enter_runtime)",
            "hyper::client::Connection::poll",
            "orders::query::{{closure}}",
            "recv",
        ]);
        check(&[
            "(main)",
            "(std::rt::lang_start::{{closure}})",
            "(core::ops::function::FnOnce::call_once)",
            "<orders::Job as core::ops::function::FnOnce<()>>::call_once",
            "read",
        ]);
    }
}
