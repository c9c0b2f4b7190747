//! What to use instead of a wait that blocks a worker.

use super::{labels, meaning::Reason};

/// What an async runtime offers instead of waiting; paths that a user can look up.
struct Tools {
    runtime: &'static str,
    /// Waits for a length of time.
    sleep: &'static str,
    /// Runs a closure where it may wait.
    blocking: &'static str,
    mutex: &'static str,
    rwlock: &'static str,
    /// Instead of a condition variable.
    notify: &'static str,
    channel: &'static str,
    net: &'static str,
    lookup: &'static str,
    fs: &'static str,
    process: &'static str,
    /// Waits for any file descriptor.
    readiness: &'static str,
}

const TOOLS: &[Tools] = &[
    Tools {
        runtime: "tokio",
        sleep: "tokio::time::sleep",
        blocking: "tokio::task::spawn_blocking",
        mutex: "tokio::sync::Mutex",
        rwlock: "tokio::sync::RwLock",
        notify: "tokio::sync::Notify",
        channel: "tokio::sync::mpsc",
        net: "tokio::net",
        lookup: "tokio::net::lookup_host",
        fs: "tokio::fs",
        process: "tokio::process::Command",
        readiness: "tokio::io::unix::AsyncFd",
    },
    Tools {
        runtime: "async-std",
        sleep: "async_std::task::sleep",
        blocking: "async_std::task::spawn_blocking",
        mutex: "async_std::sync::Mutex",
        rwlock: "async_std::sync::RwLock",
        notify: "async_std::sync::Condvar",
        channel: "async_std::channel",
        net: "async_std::net",
        lookup: "async_std::net::ToSocketAddrs",
        fs: "async_std::fs",
        process: "async_process::Command",
        readiness: "async_io::Async",
    },
    Tools {
        runtime: "smol",
        sleep: "smol::Timer::after",
        blocking: "smol::unblock",
        mutex: "smol::lock::Mutex",
        rwlock: "smol::lock::RwLock",
        notify: "event_listener::Event",
        channel: "smol::channel",
        net: "smol::net",
        lookup: "smol::net::resolve",
        fs: "smol::fs",
        process: "smol::process::Command",
        readiness: "smol::Async",
    },
];

/// One line of what to use instead of a wait for `reason`, with `label`, in a task of `runtime`.
/// Text between backquotes is code.
pub fn instead(runtime: &str, reason: Reason, label: Option<&str>) -> String {
    match TOOLS.iter().find(|tools| tools.runtime == runtime) {
        Some(tools) => in_task(tools, reason, label),
        None => on_pool(reason, label),
    }
}

fn in_task(tools: &Tools, reason: Reason, label: Option<&str>) -> String {
    let Tools { blocking, sleep, mutex, rwlock, notify, channel, .. } = tools;
    let Tools { net, lookup, fs, process, readiness, .. } = tools;
    match (label, reason) {
        (Some(labels::SYNC_OVER_ASYNC), _) => {
            format!(
                "`.await` the future; a synchronous interface around it belongs in `{blocking}`"
            )
        }
        (Some("mutex"), _) => {
            format!("a shorter critical section; `{mutex}` if it is held across an `.await`")
        }
        (Some("rwlock"), _) => {
            format!("a shorter critical section; `{rwlock}` if it is held across an `.await`")
        }
        (Some("condvar"), _) => format!("`{notify}`, or wait in `{blocking}`"),
        (Some("channel"), _) => format!("`{channel}`, or receive in `{blocking}`"),
        (Some("join"), _) => format!("`{blocking}` instead of a thread, and `.await` its handle"),
        (Some("dns"), _) => format!("`{lookup}`, or an async resolver"),
        (_, Reason::Sleep) => format!("`{sleep}(..).await`"),
        (_, Reason::Futex) => {
            format!("an async lock or channel (`{mutex}`, `{channel}`), or wait in `{blocking}`")
        }
        (_, Reason::Socket) => {
            format!("`{net}` or an async client; a blocking client belongs in `{blocking}`")
        }
        (_, Reason::Pipe) => {
            format!("`{process}` for a child's output, `{readiness}`, or read in `{blocking}`")
        }
        (_, Reason::File | Reason::Disk) => format!("`{fs}`, or all of it in one `{blocking}`"),
        (_, Reason::Poll) => {
            format!("`{readiness}` or an async client; a blocking client belongs in `{blocking}`")
        }
        (_, Reason::PageFault) => {
            format!(
                "touch mapped files in `{blocking}`; if it is heap, look for swap and memory limits"
            )
        }
        (_, Reason::Process) => format!("`{process}`"),
        (_, Reason::Ipc) => format!("`{blocking}`, or a socket with `{net}`"),
        (_, Reason::Stopped) => stopped(),
        (_, Reason::Other) => format!("`{blocking}`"),
    }
}

/// A pool of threads that compute has nothing to wait with.
fn on_pool(reason: Reason, label: Option<&str>) -> String {
    match (label, reason) {
        (_, Reason::Stopped) => stopped(),
        (Some("mutex" | "rwlock"), _) => {
            "a shorter critical section, or a value for each job that is merged at the end".to_owned()
        }
        (Some("channel" | "condvar" | "join" | labels::SYNC_OVER_ASYNC), _) => {
            "start the work when what it waits for is there, or wait on a thread outside of the pool"
                .to_owned()
        }
        (_, Reason::PageFault) => {
            "read mapped files ahead; if it is heap, look for swap and memory limits".to_owned()
        }
        _ => "wait on threads of its own, and give the pool what is ready to be computed".to_owned(),
    }
}

fn stopped() -> String {
    "nothing: it was stopped from outside, by a signal, a debugger or the freezer".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_label_and_reason_has_its_own_advice_in_each_runtime() {
        for runtime in ["tokio", "async-std", "smol", "rayon"] {
            let fallback = instead(runtime, Reason::Other, None);
            for label in labels::all() {
                let found = instead(runtime, Reason::Other, Some(label));
                assert!(label == "dns" || found != fallback, "{runtime} {label}: {found}");
            }
        }
        let mut said = std::collections::HashSet::new();
        for reason in Reason::ALL.iter().filter(|reason| **reason != Reason::Disk) {
            assert!(said.insert(instead("tokio", *reason, None)), "{reason:?}: as another");
        }
    }

    #[test]
    fn advice_names_what_the_runtime_has() {
        let check = |runtime, reason, label, expected: &str| {
            let found = instead(runtime, reason, label);
            assert!(found.contains(expected), "{runtime} {reason:?} {label:?}: {found}");
        };
        check("tokio", Reason::Sleep, None, "`tokio::time::sleep(..).await`");
        check("smol", Reason::Sleep, None, "`smol::Timer::after(..).await`");
        check("tokio", Reason::Poll, Some("dns"), "`tokio::net::lookup_host`");
        check("async-std", Reason::Futex, Some("mutex"), "`async_std::sync::Mutex`");
        check("tokio", Reason::Futex, Some("sync-over-async"), "`.await` the future");
        check("rayon", Reason::Sleep, None, "threads of its own");
    }
}
