//! Locks and deadlocks of recordings made by hand.

use crate::{
    analysis::{
        analyze,
        report::{How, Report},
        sample::{PID, START, Sample, Wait},
    },
    recording::{Futex, OpenSince, Reference, Search},
    units::{Avma, Ktime, Tid},
};

const MS: u64 = 1_000_000;
const S: u64 = 1_000 * MS;

const A: u64 = 0x1000;
const B: u64 = 0x2000;

const MUTEX: &str = "std::sys::sync::mutex::futex::Mutex::lock_contended";
const PTHREAD: &str = "pthread_mutex_lock";

/// One wait, in milliseconds, for a lock of a kind in a function of its own.
fn waits(sample: &mut Sample, tid: u32, (out, wake): (u64, u64), lock: u64, stack: &[&str]) {
    let span = (out * MS, wake * MS, wake * MS);
    sample.wait(Wait { tid, span, syscall: None, stack }).on_futex(lock);
}

fn finish(sample: &mut Sample) -> Report {
    for tid in 1..=6 {
        sample.totals(tid, &format!("thread-{tid}"), 0, 0);
    }
    analyze(&sample.recording, &sample.names()).unwrap_or_else(|error| panic!("{error:#}"))
}

/// 1 holds the lock, 2 and 3 wait for it; 2 gets it for a millisecond, then 3.
///
/// ```text
///      0         10        20 ms
/// 1    hhhh[sleeps]h|
/// 2     |----------|h
/// 3      |----------|
/// ```
#[test]
fn who_held_a_lock_held_up_all_who_waited_meanwhile() {
    let mut sample = Sample::new(40 * MS);
    let sleep = Wait {
        tid: 1,
        span: (4 * MS, 9 * MS, 9 * MS),
        syscall: Some(libc::SYS_clock_nanosleep),
        stack: &["clock_nanosleep", "orders::slow", "orders::main"],
    };
    sample.wait(sleep);
    waits(&mut sample, 2, (1, 10), A, &["syscall", MUTEX, "orders::pay", "orders::main"]);
    sample.woken_by(1, &["syscall", "orders::slow", "orders::main"]);
    waits(&mut sample, 3, (2, 11), A, &["syscall", MUTEX, "orders::total", "orders::main"]);
    sample.woken_by(2, &[]);
    let report = finish(&mut sample);
    let [lock] = &report.locks[..] else { panic!("{:#?}", report.locks) };
    assert_eq!((lock.kind.as_str(), lock.address.as_str()), ("mutex", "0x1000"));
    assert_eq!(lock.name.as_deref(), Some("orders::pay"));
    assert_eq!((lock.waiters, lock.count, lock.total_ns), (2, 2, 18 * MS));
    assert_eq!((lock.max_ns, lock.queued_ns, lock.convoy), (9 * MS, 8 * MS, false));
    assert_eq!((lock.sites.len(), &lock.waiting[..]), (2, &[][..]));
    let [slow, quick] = &lock.holders[..] else { panic!("{:#?}", lock.holders) };
    assert_eq!((slow.tid, slow.count, slow.total_ns, slow.inferred), (1, 1, 17 * MS, false));
    let [held] = &slow.sites[..] else { panic!("{:#?}", slow.sites) };
    assert_eq!(held.total_ns, 10 * MS);
    assert_eq!(report.sites[held.site].total_ns, 5 * MS);
    let function = slow.frames.last().and_then(|frame| frame.function.as_deref());
    assert_eq!((slow.frames.len(), function), (3, Some("syscall")));
    assert_eq!((quick.tid, quick.total_ns, quick.sites.len()), (2, MS, 0));
}

#[test]
fn a_convoy_queues_for_half_of_the_window() {
    let check = |threads: &[(u64, u64)], stack: &[&str], expected: bool| {
        let mut sample = Sample::new(100 * MS);
        for (tid, span) in (2..).zip(threads) {
            waits(&mut sample, tid, *span, A, stack);
            sample.woken_by(1, &[]);
        }
        let report = finish(&mut sample);
        assert_eq!(report.locks[0].convoy, expected, "{threads:?} {stack:?}");
    };
    let mutex = ["syscall", MUTEX, "orders::pay"];
    check(&[(0, 60), (0, 50), (50, 100)], &mutex, true);
    check(&[(0, 60), (0, 49), (61, 100)], &mutex, false);
    check(&[(0, 100), (0, 100)], &mutex, false);
    let condvar = ["syscall", "std::sys::sync::condvar::futex::Condvar::wait", "orders::pay"];
    check(&[(0, 100), (0, 100), (0, 100)], &condvar, false);
}

#[test]
fn who_notifies_a_condition_variable_did_not_hold_it() {
    let mut sample = Sample::new(100 * MS);
    let condvar = ["syscall", "std::sys::sync::condvar::futex::Condvar::wait", "orders::pay"];
    waits(&mut sample, 2, (1, 60), A, &condvar);
    sample.woken_by(1, &[]);
    let report = finish(&mut sample);
    assert_eq!((report.locks[0].kind.as_str(), report.locks[0].holders.len()), ("condvar", 0));
}

/// The two futexes of a read-write lock are one lock: readers wait for the first, writers for the
/// second.
#[test]
fn readers_and_writers_wait_for_one_lock() {
    let mut sample = Sample::new(100 * MS);
    let read = ["syscall", "std::sys::sync::rwlock::futex::RwLock::read_contended", "orders::read"];
    let write =
        ["syscall", "std::sys::sync::rwlock::futex::RwLock::write_contended", "orders::put"];
    waits(&mut sample, 1, (1, 60), A, &read);
    waits(&mut sample, 2, (1, 60), A + 4, &write);
    waits(&mut sample, 3, (1, 60), B, &["syscall", MUTEX, "orders::pay"]);
    waits(&mut sample, 4, (1, 60), B + 4, &["syscall", MUTEX, "orders::pay"]);
    let report = finish(&mut sample);
    let locks: Vec<_> =
        report.locks.iter().map(|lock| (lock.address.as_str(), lock.waiters)).collect();
    assert_eq!(locks, [("0x1000", 2), ("0x2000", 1), ("0x2004", 1)]);
}

/// What stood in memory at the end: a futex with its value and owner, and who has its address.
type Memory<'a> = (u64, u32, Option<u32>, &'a [u32]);

/// 1 waits for A and 2 for B from `out` seconds to the end of a window of ten, and the deadlock of
/// the two is said with `expected`.
fn check(
    what: &str,
    out: u64,
    stack: &[&str],
    memory: &[Memory<'_>],
    before: impl Fn(&mut Sample),
    expected: Option<How>,
) {
    let mut sample = Sample::new(10 * S);
    before(&mut sample);
    for (tid, lock) in [(1, A), (2, B)] {
        waits(&mut sample, tid, (out * 1000, 10_000), lock, stack);
        sample.open_at_end();
    }
    let at = Ktime(START.0 + 10 * S);
    let found = &mut sample.recording.locks;
    for (address, value, owner, holders) in memory {
        let (address, owner) = (Avma(*address), owner.map(Tid));
        found.futexes.push(Futex { at, pid: PID, address, value: *value, owner });
        let references =
            holders.iter().map(|tid| Reference { at, pid: PID, tid: Tid(*tid), address });
        found.references.extend(references);
    }
    // A case takes it back by a second search.
    if found.searches.is_empty() {
        found.searches.push(Search { at, pid: PID, searched: 6, missed: 0 });
    }
    let report = finish(&mut sample);
    let said = report.deadlocks.first().map(|deadlock| deadlock.how);
    assert_eq!(
        (said, report.deadlocks.len()),
        (expected, usize::from(expected.is_some())),
        "{what}"
    );
    let Some(deadlock) = report.deadlocks.first() else { return };
    assert_eq!(deadlock.inferred, deadlock.how != How::Owner, "{what}");
    let threads = deadlock.threads.iter().map(|thread| (thread.tid, thread.lock.as_str()));
    assert_eq!(threads.collect::<Vec<_>>(), [(1, "0x1000"), (2, "0x2000")], "{what}");
    assert!(deadlock.threads.iter().all(|thread| thread.site.is_some()), "{what}");
}

#[test]
fn a_cycle_of_locks_is_a_deadlock_where_it_can_be_no_other() {
    let pthread = ["__lll_lock_wait", PTHREAD, "pay"];
    let mutex = ["syscall", MUTEX, "orders::pay"];
    let condvar = ["syscall", "std::sys::sync::condvar::futex::Condvar::wait", "orders::pay"];
    let nothing = |_: &mut Sample| {};
    let owners = [(A, 2, Some(2), &[][..]), (B, 2, Some(1), &[])];
    check("locks that name their owner", 9, &pthread, &owners, nothing, Some(How::Owner));
    check("what stands there in another lock", 2, &mutex, &owners, nothing, None);
    check("a lock that is free", 2, &pthread, &[(A, 0, Some(2), &[]), owners[1]], nothing, None);
    check(
        "an owner that waits for nothing",
        2,
        &pthread,
        &[(A, 2, Some(3), &[]), owners[1]],
        nothing,
        None,
    );
    let guards = [(A, 2, None, &[2][..]), (B, 2, None, &[1])];
    let by_guards = Some(How::Reference);
    check("guards on the stacks", 9, &mutex, &guards, nothing, by_guards);
    check(
        "a waiter's own reference",
        2,
        &mutex,
        &[(A, 2, None, &[1, 2]), guards[1]],
        nothing,
        by_guards,
    );
    check("two that may hold it", 2, &mutex, &[(A, 2, None, &[2, 3]), guards[1]], nothing, None);
    check("no lock", 2, &condvar, &guards, nothing, None);
    let mixed = [(A, 2, Some(2), &[][..]), (B, 2, None, &[1])];
    check("the least sure counts", 2, &pthread, &mixed, nothing, by_guards);
    let unsearched = |sample: &mut Sample| {
        let at = START;
        sample.recording.locks.searches.push(Search { at, pid: PID, searched: 5, missed: 1 });
    };
    check("another that was not looked at", 2, &mutex, &guards, unsearched, None);
    let moves = |sample: &mut Sample| {
        waits(sample, 3, (4_000, 5_000), A, &mutex);
        sample.woken_by(4, &[]);
    };
    check("a lock that others get meanwhile", 3, &mutex, &guards, moves, None);
    check("a lock that others got before", 6, &mutex, &guards, moves, by_guards);
    check(
        "waits of less than a second",
        9,
        &mutex,
        &guards,
        |sample| {
            sample.recording.ending = Sample::new(9_900 * MS).recording.ending;
        },
        None,
    );
    let got = |sample: &mut Sample| {
        for (tid, lock) in [(1, B), (2, A)] {
            waits(sample, tid, (100, 200), lock, &mutex);
            sample.woken_by(4, &[]);
        }
    };
    let held = [(A, 2, None, &[][..]), (B, 2, None, &[])];
    check("the last that got them", 2, &mutex, &held, got, Some(How::WakeUp));
    check("nobody is known", 2, &mutex, &held, nothing, None);
}

/// A lock that a thread takes twice names its owner; a reference to it is on its stack in any case.
#[test]
fn a_thread_can_wait_for_itself() {
    let check = |stack: &[&str], memory: Memory<'_>, expected: usize| {
        let mut sample = Sample::new(10 * S);
        waits(&mut sample, 1, (0, 10_000), A, stack);
        sample.open_at_end();
        let (address, value, owner, _) = memory;
        let (at, owner) = (START, owner.map(Tid));
        let futex = Futex { at, pid: PID, address: Avma(address), value, owner };
        sample.recording.locks.futexes.push(futex);
        let report = finish(&mut sample);
        assert_eq!(report.deadlocks.len(), expected, "{stack:?}");
        assert!(report.deadlocks.iter().all(|deadlock| deadlock.threads.len() == 1));
    };
    check(&["__lll_lock_wait", PTHREAD, "pay"], (A, 2, Some(1), &[]), 1);
    check(&["syscall", MUTEX, "orders::pay"], (A, 2, Some(1), &[1]), 0);
}

/// A snapshot has no window to speak of: the age of the waits is what the kernel knows.
#[test]
fn waits_from_before_a_window_are_as_old_as_the_kernel_says() {
    let check = |since: Option<u64>, expected: usize| {
        let mut sample = Sample::new(10 * MS);
        for (tid, lock, other) in [(1, A, B), (2, B, A)] {
            waits(&mut sample, tid, (0, 10), lock, &["syscall", MUTEX, "orders::pay"]);
            sample.open_at_end();
            if let Some(interval) = sample.recording.intervals.last_mut() {
                interval.open_at_start = true;
            }
            let (at, pid, tid) = (START, PID, Tid(tid));
            let recording = &mut sample.recording;
            recording.locks.futexes.push(Futex {
                at,
                pid,
                address: Avma(lock),
                value: 2,
                owner: None,
            });
            recording.locks.references.push(Reference { at, pid, tid, address: Avma(other) });
            recording.open_since.extend(since.map(|ns| OpenSince {
                pid,
                tid,
                since: Ktime(START.0 - ns),
            }));
        }
        sample.recording.locks.searches.push(Search {
            at: START,
            pid: PID,
            searched: 6,
            missed: 0,
        });
        assert_eq!(finish(&mut sample).deadlocks.len(), expected, "{since:?}");
    };
    check(Some(995 * MS), 1);
    check(Some(900 * MS), 0);
    check(None, 0);
}
