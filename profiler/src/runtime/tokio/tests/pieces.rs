//! The pieces that stacks of Tokio programs are made of, leaf first.

pub const THREAD: &[&str] = &[
    "std::sys::backtrace::__rust_begin_short_backtrace",
    "core::ops::function::FnOnce::call_once{{vtable.shim}}",
    "<std[e28293b1aa0f68bd]::sys::thread::unix::Thread>::new::thread_start",
    "start_thread",
    "clone3",
];
pub const POLL: &[&str] = &[
    "tokio::runtime::task::core::Core<T,S>::poll",
    "tokio::runtime::task::harness::Harness<T,S>::poll",
];
pub const POOL: &[&str] = &["tokio::runtime::blocking::pool::Inner::run"];
pub const WORKER: &[&str] = &[
    "tokio::runtime::scheduler::multi_thread::worker::Context::run",
    "tokio::runtime::context::scoped::Scoped<T>::set",
    "tokio::runtime::context::runtime::enter_runtime",
    "tokio::runtime::scheduler::multi_thread::worker::run",
    "tokio::runtime::task::core::Core<T,S>::poll",
    "tokio::runtime::task::harness::Harness<T,S>::poll",
    "tokio::runtime::blocking::pool::Inner::run",
];
pub const RUN_TASK: &[&str] =
    &["tokio::runtime::scheduler::multi_thread::worker::Context::run_task"];
pub const PARK: &[&str] =
    &["tokio::runtime::scheduler::multi_thread::worker::Context::park_internal"];
pub const CONDVAR: &[&str] = &["syscall", "parking_lot::condvar::Condvar::wait_until_internal"];
pub const DRIVER: &[&str] = &[
    "epoll_wait",
    "mio::poll::Poll::poll",
    "tokio::runtime::io::driver::Driver::turn",
    "tokio::runtime::time::Driver::park_internal",
];
pub const BLOCK_ON_MT: &[&str] = &[
    "tokio::runtime::park::CachedParkThread::block_on",
    "tokio::runtime::context::runtime::enter_runtime",
    "tokio::runtime::runtime::Runtime::block_on",
];
pub const BLOCK_ON_CT: &[&str] = &[
    "tokio::runtime::context::scoped::Scoped<T>::set",
    "tokio::runtime::scheduler::current_thread::CoreGuard::block_on",
    "tokio::runtime::context::runtime::enter_runtime",
    "tokio::runtime::runtime::Runtime::block_on",
];
pub const CT_PARK: &[&str] = &[
    "tokio::runtime::scheduler::current_thread::Context::park_internal",
    "tokio::runtime::scheduler::current_thread::Context::park",
];
pub const CT_RUN_TASK: &[&str] = &["tokio::runtime::scheduler::current_thread::Context::run_task"];
pub const MAIN: &[&str] =
    &["tk::main", "std::sys::backtrace::__rust_begin_short_backtrace", "main"];
pub const SLEEP: &[&str] =
    &["__GI___clock_nanosleep", "std[e28293b1aa0f68bd]::thread::functions::sleep"];
pub const H_SLEEP: &[&str] = &["tk::h_sleep::{{closure}}::h461517ad34e127bd"];

// With link-time optimisation of everything.
pub const FAT_POLL: &[&str] = &["tokio::runtime::task::raw::poll"];
pub const FAT_WORKER: &[&str] =
    &["tokio::runtime::scheduler::multi_thread::worker::run", "tokio::runtime::task::raw::poll"];
