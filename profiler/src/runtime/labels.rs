//! What the library functions at the leaf of a stack say about a wait.

use super::{names, stack::Frame};

/// A task waits for a future by blocking its thread.
pub const SYNC_OVER_ASYNC: &str = "sync-over-async";

/// Modules in which every wait has one meaning.
const MODULES: &[(&str, &str)] = &[
    ("std::sys::sync::mutex", "mutex"),
    ("std::sys::unix::locks::futex_mutex", "mutex"),
    ("std::sys::pal::unix::locks::futex_mutex", "mutex"),
    ("std::sync::mutex", "mutex"),
    ("std::sync::poison::mutex", "mutex"),
    ("parking_lot::raw_mutex", "mutex"),
    ("parking_lot::raw_fair_mutex", "mutex"),
    ("std::sys::sync::rwlock", "rwlock"),
    ("std::sys::unix::locks::futex_rwlock", "rwlock"),
    ("std::sys::pal::unix::locks::futex_rwlock", "rwlock"),
    ("std::sync::rwlock", "rwlock"),
    ("std::sync::poison::rwlock", "rwlock"),
    ("parking_lot::raw_rwlock", "rwlock"),
    ("std::sys::sync::condvar", "condvar"),
    ("std::sys::unix::locks::futex_condvar", "condvar"),
    ("std::sys::pal::unix::locks::futex_condvar", "condvar"),
    ("std::sync::condvar", "condvar"),
    ("std::sync::poison::condvar", "condvar"),
    ("parking_lot::condvar", "condvar"),
    ("std::sync::mpsc", "channel"),
    ("std::sync::mpmc", "channel"),
    ("crossbeam_channel", "channel"),
    ("flume", "channel"),
    ("std::thread::JoinInner", "join"),
    ("std::thread::JoinHandle", "join"),
    ("std::thread::join_handle", "join"),
    ("tokio::runtime::park", SYNC_OVER_ASYNC),
];

/// Functions of Rust crates: any module below the first name, and the last name.
const FUNCTIONS: &[(&str, &str, &str)] = &[
    ("std::sys", "join", "join"),
    ("futures_executor", "run_executor", SYNC_OVER_ASYNC),
    ("std::net", "lookup_host", "dns"),
    ("tokio::sync", "blocking_recv", "channel"),
    ("tokio::sync", "blocking_send", "channel"),
];

/// Functions of the C library, without leading underscores and `GI_`.
const C_FUNCTIONS: &[(&str, &str)] = &[
    ("getaddrinfo", "dns"),
    ("gethostbyname_r", "dns"),
    ("gethostbyname2_r", "dns"),
    ("getnameinfo", "dns"),
    ("lll_lock_wait", "mutex"),
    ("pthread_mutex_lock", "mutex"),
    ("pthread_mutex_timedlock", "mutex"),
    ("pthread_mutex_clocklock", "mutex"),
    ("pthread_rwlock_rdlock", "rwlock"),
    ("pthread_rwlock_wrlock", "rwlock"),
    ("pthread_rwlock_timedrdlock", "rwlock"),
    ("pthread_rwlock_timedwrlock", "rwlock"),
    ("pthread_cond_wait", "condvar"),
    ("pthread_cond_timedwait", "condvar"),
    ("pthread_cond_clockwait", "condvar"),
    ("pthread_cond_wait_common", "condvar"),
    ("pthread_join", "join"),
    ("pthread_clockjoin_ex", "join"),
    ("pthread_timedjoin_np", "join"),
];

/// The label of a wait whose functions are `frames`, leaf first.
///
/// Only the library functions below the first one of the user's count, and of those the outermost
/// with a meaning: a channel that waits on a condition variable is a channel.
pub fn label<'a>(frames: impl IntoIterator<Item = &'a Frame>) -> Option<&'static str> {
    let mut found = None;
    for frame in frames {
        let Some(path) = &frame.path else { continue };
        match label_of(path) {
            Some(label) => found = Some(label),
            None if names::is_user_code(path) => break,
            None => {}
        }
    }
    found
}

/// Every label that there is.
#[cfg(test)]
pub fn all() -> std::collections::BTreeSet<&'static str> {
    let modules = MODULES.iter().map(|(_, label)| *label);
    let functions = FUNCTIONS.iter().map(|(_, _, label)| *label);
    modules.chain(functions).chain(C_FUNCTIONS.iter().map(|(_, label)| *label)).collect()
}

/// The name of a function of C, as [`C_FUNCTIONS`] spells it.
pub(super) fn c_function(path: &str) -> Option<&str> {
    let (scope, function) = names::split(names::outside_closures(path));
    let plain = function.trim_start_matches('_').trim_start_matches("GI_").trim_start_matches('_');
    scope.is_empty().then_some(plain)
}

/// What a function means if it is that of a library.
pub(super) fn label_of(path: &str) -> Option<&'static str> {
    let outer = names::outside_closures(path);
    let (scope, function) = names::split(outer);
    if let Some(plain) = c_function(path) {
        return C_FUNCTIONS.iter().find(|(name, _)| *name == plain).map(|(_, label)| *label);
    }
    // Whoever writes one gives it this name.
    if function == "block_on" {
        return Some(SYNC_OVER_ASYNC);
    }
    if let Some((_, label)) = MODULES.iter().find(|(module, _)| names::within(scope, module)) {
        return Some(label);
    }
    FUNCTIONS
        .iter()
        .find(|(module, name, _)| *name == function && names::within(scope, module))
        .map(|(_, _, label)| *label)
}
