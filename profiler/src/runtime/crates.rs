//! Rust crates whose code is not what the user of a runtime wrote.

/// Crates that carry a future or a closure, or run it.
pub const CARRIERS: &[&str] = &[
    "alloc",
    "async_executor",
    "async_global_executor",
    "async_io",
    "async_std",
    "async_task",
    "async_trait",
    "blocking",
    "core",
    "crossbeam_deque",
    "crossbeam_epoch",
    "event_listener",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_executor",
    "futures_lite",
    "futures_util",
    "pin_project",
    "pin_project_lite",
    "polling",
    "rayon",
    "rayon_core",
    "smol",
    "std",
    "tokio",
    "tokio_util",
    "tracing",
    "tracing_futures",
];

/// Crates that only ever wait on behalf of their caller.
pub const LOCKS: &[&str] =
    &["lock_api", "mio", "once_cell", "parking", "parking_lot", "parking_lot_core"];

/// Crates that services are built on: servers and clients.
///
/// Where there is debug information the source's path tells a library, and no list is needed.
const FRAMEWORKS: &[&str] = &[
    "actix_http",
    "actix_rt",
    "actix_server",
    "actix_service",
    "actix_web",
    "axum",
    "axum_core",
    "bytes",
    "crossbeam_channel",
    "crossbeam_utils",
    "flume",
    "h2",
    "http_body_util",
    "hyper",
    "hyper_rustls",
    "hyper_tls",
    "hyper_util",
    "matchit",
    "reqwest",
    "rustls",
    "serde_json",
    "signal_hook_registry",
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
