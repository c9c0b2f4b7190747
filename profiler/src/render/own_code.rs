//! Which frames are the user's own code, as far as a name and a path can tell.
//!
//! This only decides what is put forward and in which colour. No time is added up by it and no
//! frame is left out, so a wrong guess costs a glance and nothing else.

use crate::analysis::report::{Frame, FrameKind};

/// Parts of source paths where package managers and toolchains keep other people's code.
const LIBRARY_PATHS: &[&str] = &[
    "/rustc/",
    "/rust/deps/",
    "/rustlib/src/",
    "/usr/src/rustc-",
    "cargo/registry/src/",
    "cargo/git/checkouts/",
    "/usr/include/",
    "/usr/lib/",
];

/// Rust crates that runtimes and their users are made of, for binaries without debug information.
const LIBRARY_CRATES: &[&str] = &[
    "alloc",
    "async_std",
    "axum",
    "bytes",
    "core",
    "crossbeam_channel",
    "futures",
    "futures_channel",
    "futures_core",
    "futures_executor",
    "futures_util",
    "h2",
    "hyper",
    "hyper_util",
    "mio",
    "parking_lot",
    "parking_lot_core",
    "rayon",
    "rayon_core",
    "reqwest",
    "rustls",
    "signal_hook_registry",
    "smol",
    "socket2",
    "std",
    "std_detect",
    "tokio",
    "tokio_stream",
    "tokio_util",
    "tonic",
    "tower",
    "tower_http",
    "tracing",
];

/// Functions of C that begin every thread.
const C_STARTS: &[&str] =
    &["_start", "start_thread", "clone", "clone3", "__clone", "__clone3", "__restore_rt"];

/// Beginnings of file names of shared libraries that belong to the system.
const SYSTEM_LIBRARIES: &[&str] = &[
    "ld-linux",
    "ld-musl",
    "libc.",
    "libc-",
    "libm.",
    "libpthread",
    "libstdc++",
    "libgcc_s",
    "[vdso]",
];

/// Whether `frame` is code of the program itself.
pub fn is_own(frame: &Frame) -> bool {
    let Some(function) = &frame.function else { return false };
    if frame.kind == FrameKind::Kernel {
        return false;
    }
    if frame.module.as_deref().is_some_and(is_system_library) {
        return false;
    }
    if frame
        .file
        .as_deref()
        .is_some_and(|file| LIBRARY_PATHS.iter().any(|part| file.contains(part)))
    {
        return false;
    }
    // The `main` that a Rust program has for C is a shim without a source line.
    let shim = frame.file.is_none() && function == "main";
    !shim
        && !function.starts_with("__libc_start")
        && !function.starts_with("__rust")
        && !C_STARTS.contains(&function.as_str())
        && !LIBRARY_CRATES.contains(&crate_of(function))
}

/// Whether `frame` is code without a name that is not the system's: in a stripped program, its own.
pub fn may_be_own(frame: &Frame) -> bool {
    frame.function.is_none()
        && frame.kind != FrameKind::Kernel
        && frame.module.as_deref().is_some_and(|module| !is_system_library(module))
}

/// The crate at the start of a Rust path: `app` of `<app::Db as tower::Service>::call`.
fn crate_of(function: &str) -> &str {
    let path = function.trim_start_matches(['<', '&', '*', '(', '[']);
    let path = path.strip_prefix("mut ").or_else(|| path.strip_prefix("dyn ")).unwrap_or(path);
    let end = path.find(|c: char| c != '_' && !c.is_alphanumeric()).unwrap_or(path.len());
    &path[..end]
}

fn is_system_library(module: &str) -> bool {
    let name = module.rsplit('/').next().unwrap_or(module);
    SYSTEM_LIBRARIES.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(function: &str, file: Option<&str>, module: &str, expected: bool) {
        let frame = Frame {
            function: Some(function.to_owned()),
            file: file.map(str::to_owned),
            line: None,
            module: Some(module.to_owned()),
            address: Some("0x10".to_owned()),
            kind: FrameKind::Native,
            missing: None,
        };
        assert_eq!(is_own(&frame), expected, "{function} {file:?} {module}");
    }

    #[test]
    fn own_code_is_told_by_path_then_by_name() {
        let cargo = Some("/home/me/.cargo/registry/src/index/fast-cache-1.0.0/src/lib.rs");
        check("app::price::lookup", Some("src/price.rs"), "/srv/app", true);
        check("app::price::lookup", None, "/srv/app", true);
        check("<app::Db as tower::Service<Request>>::call", None, "/srv/app", true);
        check("<&mut app::Db as core::future::Future>::poll", None, "/srv/app", true);
        check("app::price::lookup", Some("/usr/src/app/src/price.rs"), "/usr/local/bin/app", true);
        check("fast_cache::Cache::get", cargo, "/srv/app", false);
        check(
            "std::thread::sleep",
            Some("/rustc/abc/library/std/src/thread/mod.rs"),
            "/srv/app",
            false,
        );
        check("<core::pin::Pin<P> as core::future::Future>::poll", None, "/srv/app", false);
        check("tokio::runtime::park::Inner::park", None, "/srv/app", false);
        check("tokio_app::run", None, "/srv/app", true);
        check("pthread_cond_wait", None, "/usr/lib/x86_64-linux-gnu/libc.so.6", false);
        check("main", None, "/srv/app", false);
        check("main", Some("main.c"), "/srv/app", true);
    }
}
