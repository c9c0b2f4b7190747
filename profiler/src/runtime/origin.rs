//! Whose code a frame is, as far as its name and its files can tell.
//!
//! No time is added up by it, so a wrong guess costs a glance and nothing else.

use serde::Serialize;

use super::{crates, names, plumbing};

/// Whose code a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// The program's own.
    Own,
    /// A library's, the C library's, the kernel's.
    Library,
    /// The way from a thread's start, or from a runtime's loop, to the code that is run.
    Plumbing,
    /// It has no name, and is not the system's: in a stripped program, its own.
    Unknown,
}

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

/// Functions of the C library that wait: in a static program nothing else tells them from its own.
/// Names that begin with `__` are the implementation's in any program.
const C_WAITS: &[&str] = &[
    "accept",
    "accept4",
    "clock_nanosleep",
    "connect",
    "epoll_pwait",
    "epoll_wait",
    "fcntl",
    "fdatasync",
    "flock",
    "fsync",
    "getaddrinfo",
    "ioctl",
    "nanosleep",
    "open",
    "open64",
    "openat",
    "poll",
    "ppoll",
    "pread",
    "pread64",
    "pselect",
    "pwrite",
    "pwrite64",
    "read",
    "readv",
    "recv",
    "recvfrom",
    "recvmsg",
    "select",
    "send",
    "sendmsg",
    "sendto",
    "sleep",
    "syscall",
    "usleep",
    "wait4",
    "waitid",
    "waitpid",
    "write",
    "writev",
];

impl Origin {
    /// Of the function `name` with the normalised `path`, from the source `file`, in `module`.
    pub fn of(
        name: Option<&str>,
        path: Option<&str>,
        file: Option<&str>,
        module: Option<&str>,
    ) -> Self {
        let system = module.is_some_and(is_system_library);
        let (Some(name), Some(path)) = (name, path) else {
            let hidden = !system && module.is_some();
            return if hidden { Self::Unknown } else { Self::Library };
        };
        if plumbing::is_plumbing(path) {
            return Self::Plumbing;
        }
        let library_file =
            file.is_some_and(|file| LIBRARY_PATHS.iter().any(|part| file.contains(part)));
        // The `main` that a Rust program has for C is a shim without a source line.
        let shim = file.is_none() && name == "main";
        let own = !system
            && !library_file
            && !shim
            && !is_c_library(name)
            && !names::is_of_any_type(path)
            && !crates::is_library(names::first_segment(path));
        if own { Self::Own } else { Self::Library }
    }
}

fn is_c_library(name: &str) -> bool {
    name.starts_with("__") || name.starts_with("pthread_") || C_WAITS.contains(&name)
}

fn is_system_library(module: &str) -> bool {
    let name = module.rsplit('/').next().unwrap_or(module);
    SYSTEM_LIBRARIES.iter().any(|start| name.starts_with(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, file: Option<&str>, module: &str, expected: Origin) {
        let path = names::full_path(name, file);
        let found = Origin::of(Some(name), Some(&path), file, Some(module));
        assert_eq!(found, expected, "{name} {file:?} {module}");
    }

    #[test]
    fn own_code_is_told_by_path_then_by_name() {
        use Origin::{Library, Own, Plumbing};
        const APP: &str = "/srv/app";
        let cargo = Some("/home/me/.cargo/registry/src/index/fast-cache-1.0.0/src/lib.rs");
        check("app::price::lookup", Some("src/price.rs"), APP, Own);
        check("app::price::lookup", None, APP, Own);
        check("<app::Db as tower::Service<Request>>::call", None, APP, Own);
        check("<&mut app::Db as core::future::Future>::poll", None, APP, Own);
        check("app::price::lookup", Some("/usr/src/app/src/price.rs"), "/usr/local/bin/app", Own);
        check("fast_cache::Cache::get", cargo, APP, Library);
        check("<F as axum::handler::Handler<(M, T1), S>>::call::{{closure}}", None, APP, Library);
        check("hyper::proto::h1::dispatch::Dispatcher<D>::poll_loop", None, APP, Library);
        check("sleep", Some("/rustc/abc/library/std/src/thread/mod.rs"), APP, Library);
        check("<core::pin::Pin<P> as core::future::Future>::poll", None, APP, Plumbing);
        check("<app::Job as core::ops::function::FnOnce<()>>::call_once", None, APP, Own);
        check("tokio::runtime::park::Inner::park", None, APP, Library);
        check("tokio_app::run", None, APP, Own);
        check("pthread_cond_wait", None, "/usr/lib/x86_64-linux-gnu/libc.so.6", Library);
        check("__GI___clock_nanosleep", None, APP, Library);
        check("epoll_wait", None, APP, Library);
        check("handle_order", None, APP, Own);
        check("main", None, APP, Library);
        check("main", Some("main.c"), APP, Own);
    }

    #[test]
    fn code_without_a_name_may_be_the_programs_own_but_not_the_systems() {
        let check = |module, expected| {
            assert_eq!(Origin::of(None, None, None, module), expected, "{module:?}");
        };
        check(Some("/srv/app"), Origin::Unknown);
        check(Some("/usr/lib/libc.so.6"), Origin::Library);
        check(None, Origin::Library);
    }
}
