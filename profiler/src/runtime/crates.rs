//! Rust crates whose code is not what the user of a runtime wrote.

/// Crates that carry a future or a closure.
pub const CARRIERS: &[&str] = &[
    "alloc",
    "async_trait",
    "core",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_executor",
    "futures_util",
    "pin_project",
    "pin_project_lite",
    "std",
    "tokio",
    "tokio_util",
    "tracing",
    "tracing_futures",
];

/// Crates that only ever wait on behalf of their caller.
pub const LOCKS: &[&str] =
    &["lock_api", "mio", "once_cell", "parking", "parking_lot", "parking_lot_core"];

/// Crates that services are built on: servers, clients and runtimes.
///
/// Where there is debug information the source's path tells a library, and no list is needed.
const FRAMEWORKS: &[&str] = &[
    "actix_http",
    "actix_rt",
    "actix_server",
    "actix_service",
    "actix_web",
    "async_executor",
    "async_global_executor",
    "async_io",
    "async_std",
    "async_task",
    "axum",
    "axum_core",
    "blocking",
    "bytes",
    "crossbeam_channel",
    "crossbeam_deque",
    "crossbeam_utils",
    "flume",
    "futures_lite",
    "h2",
    "http_body_util",
    "hyper",
    "hyper_rustls",
    "hyper_tls",
    "hyper_util",
    "matchit",
    "polling",
    "rayon",
    "rayon_core",
    "reqwest",
    "rustls",
    "serde_json",
    "signal_hook_registry",
    "smol",
    "socket2",
    "std_detect",
    "tokio_rustls",
    "tokio_stream",
    "tonic",
    "tower",
    "tower_http",
    "tower_layer",
    "tower_service",
    "warp",
];

/// Whether `name` is a crate that is known to be a library.
pub fn is_library(name: &str) -> bool {
    [CARRIERS, LOCKS, FRAMEWORKS].iter().any(|list| list.contains(&name))
}
