//! Small reports, written out by hand, that every renderer is tested from.

mod parts;

use std::collections::BTreeMap;

use parts::{EXE, MS, kernel, libc, own, starvation, std_frame, thread, tokio, worker_stack};
pub use parts::{frame, site};

use profiler_common::counter::Counter;
use stallscope::{
    analysis::report::{
        AtEnd, Deadlock, DeadlockThread, EndReason, Frame, FrameKind, HeldBy, HeldSite, Holder,
        Host, How, Lock, LockHolder, LongPolls, Object, Observer, Origin, Pool, Quality, Reason,
        Report, Role, SCHEMA, Site, StackQuality, State, Target, Thread, UserStacks, Window,
    },
    recording::Why,
};

/// Every report with its name.
pub fn reports() -> Vec<(&'static str, Report)> {
    vec![
        ("starving", starving()),
        ("healthy", healthy()),
        ("no-runtime", no_runtime()),
        ("drops", drops()),
        ("unfinished", unfinished()),
        ("locked", locked()),
    ]
}

/// Two of the workers' habits starve a pool; a second pool does as it should.
pub fn starving() -> Report {
    let workers = (0..4).map(|n| Thread {
        running_ns: 1_200 * MS,
        runnable_ns: 40 * MS,
        idle_ns: 1_560 * MS,
        blocked_ns: 6_000 * MS + n,
        short_ns: 1_200 * MS - n,
        open_at_start: n == 0,
        ..thread(4243 + n as u32, "tokio-runtime-w", Role::Worker)
    });
    let blocking = Thread {
        running_ns: 100 * MS,
        idle_ns: 8_900 * MS,
        allowed_ns: 1_000 * MS,
        ..thread(4250, "tokio-runtime-w", Role::Blocking)
    };
    let main = Thread { idle_ns: 10_000 * MS, ..thread(4242, "orders-api", Role::Other) };
    let sleep = Site {
        count: 1_204,
        total_ns: 15_000 * MS,
        max_ns: 210 * MS,
        p50_ns: 12 * MS,
        p99_ns: 13_100_000,
        runnable_ns: 120 * MS,
        task: Some("async fn orders_api::price".to_owned()),
        frames: worker_stack(
            &[
                own("orders_api::price::{{closure}}", "src/price.rs", 31, FrameKind::Native),
                own("orders_api::price::lookup", "src/price.rs", 88, FrameKind::Inlined),
                std_frame("std::thread::sleep", FrameKind::Native),
                libc("clock_nanosleep"),
            ],
            &["do_nanosleep", "schedule", "__schedule"],
        ),
        ..site(0, State::Blocked, Reason::Sleep, Role::Worker)
    };
    let mutex = Site {
        count: 77,
        total_ns: 9_000 * MS + 6,
        max_ns: 1_000 * MS,
        p50_ns: 90 * MS,
        p99_ns: 990 * MS,
        runnable_ns: 3 * MS,
        label: Some("mutex".to_owned()),
        task: Some("async fn orders_api::cart::checkout".to_owned()),
        frames: worker_stack(
            &[
                own(
                    "<orders_api::cart::Cart<alloc::vec::Vec<orders_api::cart::Item>, std::collections::HashMap<u64, orders_api::cart::Discount>> as orders_api::cart::Total>::total",
                    "src/cart.rs",
                    210,
                    FrameKind::Native,
                ),
                std_frame("std::sync::poison::mutex::Mutex<T>::lock", FrameKind::Inlined),
                libc("syscall"),
            ],
            &["futex_wait", "schedule", "__schedule"],
        ),
        ..site(0, State::Blocked, Reason::Futex, Role::Worker)
    };
    let idle = Site {
        count: 9_000,
        total_ns: 6_240 * MS,
        max_ns: 400 * MS,
        p50_ns: MS,
        p99_ns: 90 * MS,
        frames: worker_stack(
            &[tokio("tokio::runtime::park::Inner::park", FrameKind::Native)],
            &["ep_poll"],
        ),
        ..site(0, State::Idle, Reason::Poll, Role::Worker)
    };
    Report {
        pools: vec![
            Pool {
                inferred: false,
                hung: false,
                id: 0,
                name: "tokio-runtime-worker".to_owned(),
                runtime: "tokio".to_owned(),
                workers: 4,
                blocked_curve: vec![(0, 1, 4), (3_410 * MS, 4, 4), (4_610 * MS, 2, 4)],
                threads: workers.chain([blocking]).collect(),
            },
            outside(1, vec![main]),
        ],
        sites: vec![sleep, mutex, idle],
        long_polls: long_polls(),
        starvation: vec![
            starvation(100 * MS, 600 * MS),
            starvation(3_410 * MS, 4_610 * MS),
            starvation(7_000 * MS, 7_610 * MS),
        ],
        ..empty()
    }
}

/// The same workers, stuck at the end.
pub fn hung() -> Report {
    let mut report = starving();
    let ms = MS.cast_signed();
    let at_end = |site, since_ns, in_run_queue| Some(AtEnd { site, since_ns, in_run_queue });
    let doing = [
        at_end(0, Some(-62_000 * ms), false),
        at_end(0, Some(9_800 * ms), true),
        at_end(1, Some(-1), false),
        at_end(2, None, false),
    ];
    for (thread, doing) in report.pools[0].threads.iter_mut().zip(doing) {
        (thread.open_at_end, thread.at_end) = (true, doing);
    }
    // What the last one is off-CPU for was lost.
    report.pools[1].threads[0].open_at_end = true;
    report
}

/// A pool that hangs, two threads that wait for each other's locks, and a lock with a convoy.
pub fn locked() -> Report {
    let mut report = starving();
    let ms = MS.cast_signed();
    report.pools[0].hung = true;
    for thread in &mut report.pools[0].threads[..4] {
        thread.open_at_end = true;
        thread.at_end = Some(AtEnd { site: 1, since_ns: Some(-62_000 * ms), in_run_queue: false });
    }
    let in_deadlock = |tid, lock: &str, how| DeadlockThread {
        pid: 4242,
        tid,
        name: "tokio-runtime-w".to_owned(),
        lock: lock.to_owned(),
        kind: "mutex".to_owned(),
        site: Some(1),
        since_ns: Some(-62_000 * ms),
        how,
    };
    let threads = vec![
        in_deadlock(4243, "0x7f00a0", How::Owner),
        in_deadlock(4244, "0x7f00e0", How::Reference),
    ];
    let itself = vec![in_deadlock(4245, "0x7f0200", How::Owner)];
    report.deadlocks = vec![
        Deadlock { threads, how: How::Reference, inferred: true },
        Deadlock { threads: itself, how: How::Owner, inferred: false },
    ];
    let held = |tid, how| Some(HeldBy { tid, name: "tokio-runtime-w".to_owned(), how });
    report.locks = vec![
        Lock {
            pid: 4242,
            address: "0x7f0300".to_owned(),
            kind: "mutex".to_owned(),
            name: Some("orders_api::cart::Cart::total".to_owned()),
            waiters: 8,
            waiting: (4260..4270).collect(),
            count: 2_310,
            total_ns: 48_000 * MS,
            max_ns: 210 * MS,
            queued_ns: 9_300 * MS,
            convoy: true,
            sites: vec![1],
            holders: vec![
                LockHolder {
                    tid: 4250,
                    name: "flusher".to_owned(),
                    count: 301,
                    total_ns: 46_000 * MS,
                    sites: vec![HeldSite { site: 0, total_ns: 30_000 * MS }],
                    frames: vec![own(
                        "orders_api::log::flush",
                        "src/log.rs",
                        12,
                        FrameKind::Native,
                    )],
                    inferred: false,
                },
                LockHolder {
                    tid: 4251,
                    name: "quick".to_owned(),
                    count: 2_009,
                    total_ns: 2_000 * MS,
                    sites: vec![],
                    frames: vec![],
                    inferred: true,
                },
            ],
            held_at_end: held(4250, How::WakeUp),
        },
        Lock {
            address: "0x7f00a0".to_owned(),
            kind: "rwlock".to_owned(),
            name: None,
            waiters: 1,
            waiting: vec![4243],
            count: 1,
            total_ns: 10_000 * MS,
            max_ns: 10_000 * MS,
            queued_ns: 0,
            convoy: false,
            holders: vec![LockHolder {
                tid: 4244,
                name: "tokio-runtime-w".to_owned(),
                count: 0,
                total_ns: 10_000 * MS,
                sites: vec![HeldSite { site: 1, total_ns: 10_000 * MS }],
                frames: vec![],
                inferred: true,
            }],
            held_at_end: None,
            ..lock_of_none()
        },
        Lock { kind: "condvar".to_owned(), total_ns: 90_000 * MS, ..lock_of_none() },
    ];
    report
}

/// What nobody waited for.
fn lock_of_none() -> Lock {
    Lock {
        pid: 4242,
        address: "0x7f0400".to_owned(),
        kind: "futex".to_owned(),
        name: None,
        waiters: 0,
        waiting: vec![],
        count: 0,
        total_ns: 0,
        max_ns: 0,
        queued_ns: 0,
        convoy: false,
        sites: vec![1],
        holders: vec![],
        held_at_end: None,
    }
}

/// Threads of no runtime.
fn outside(id: u32, threads: Vec<Thread>) -> Pool {
    Pool {
        inferred: false,
        hung: false,
        id,
        name: "orders-api".to_owned(),
        runtime: "none".to_owned(),
        workers: 0,
        blocked_curve: vec![],
        threads,
    }
}

/// Workers that never block: some CPU, some run queue, some throttling.
pub fn healthy() -> Report {
    let workers = (0..2).map(|n| Thread {
        running_ns: 5_000 * MS,
        runnable_ns: 1_500 * MS,
        idle_ns: 3_400 * MS,
        short_ns: 100 * MS,
        ..thread(4243 + n, "tokio-runtime-w", Role::Worker)
    });
    let mut report = Report {
        pools: vec![Pool {
            inferred: false,
            hung: false,
            id: 0,
            name: "tokio-runtime-worker".to_owned(),
            runtime: "tokio".to_owned(),
            workers: 2,
            blocked_curve: vec![(0, 0, 2)],
            threads: workers.collect(),
        }],
        ..empty()
    };
    report.quality.throttled_ns = Some(830 * MS);
    report
}

/// Threads of no runtime: nothing can be called blocked, yet there are waits to show.
pub fn no_runtime() -> Report {
    let threads = (0..3).map(|n| Thread {
        running_ns: 500 * MS,
        allowed_ns: 9_000 * MS,
        unknown_ns: 500 * MS,
        ..thread(4242 + n, "cworker", Role::Other)
    });
    let unnamed = Frame {
        function: None,
        missing: Some("the file has no symbols".to_owned()),
        origin: Origin::Unknown,
        ..frame("", Some(EXE), 0x2f40, FrameKind::Native)
    };
    let read = Site {
        count: 40,
        total_ns: 27_000 * MS,
        max_ns: 2_000 * MS,
        p50_ns: 600 * MS,
        p99_ns: 2_000 * MS,
        frames: vec![libc("start_thread"), unnamed, libc("read"), kernel("pipe_read")],
        objects: vec![
            Object {
                kind: "pipe".to_owned(),
                name: "/run/orders.fifo".to_owned(),
                local: None,
                peers: vec![Holder { pid: 812, name: "logger".to_owned() }],
                count: 38,
                total_ns: 25_000 * MS,
                reused: false,
            },
            Object {
                kind: "tcp".to_owned(),
                name: "10.0.0.5:5432".to_owned(),
                local: Some("10.0.0.1:40112".to_owned()),
                peers: vec![],
                count: 2,
                total_ns: 2_000 * MS,
                reused: true,
            },
        ],
        ..site(0, State::Allowed, Reason::Pipe, Role::Other)
    };
    let lost = Site {
        count: 3,
        total_ns: 1_500 * MS,
        max_ns: 900 * MS,
        p50_ns: 300 * MS,
        p99_ns: 900 * MS,
        stack: StackQuality::Missing,
        ..site(0, State::Unknown, Reason::Other, Role::Other)
    };
    Report {
        pools: vec![Pool {
            inferred: false,
            hung: false,
            id: 0,
            name: "cworker".to_owned(),
            runtime: "none".to_owned(),
            workers: 0,
            blocked_curve: vec![],
            threads: threads.collect(),
        }],
        sites: vec![read, lost],
        ..empty()
    }
}

/// A starving pool of which a part was lost.
pub fn drops() -> Report {
    let mut report = starving();
    report.sites[1].stack = StackQuality::Truncated;
    report.quality.user_stacks = UserStacks {
        complete: 1_150,
        truncated: 120,
        broken: 8,
        missing: 3,
        by_frame_pointer: 41,
        why: [
            (Why::SliceTooShort.name(), 117),
            (Why::TooDeep.name(), 3),
            (Why::NoMapping.name(), 1),
            (Why::BadFramePointer.name(), 6),
            ("reason_of_tomorrow", 1),
        ]
        .map(|(name, n)| (name.to_owned(), n))
        .into(),
    };
    report.quality.counters.insert(Counter::IntervalsDropped.name().to_owned(), 1_200);
    report.quality.counters.insert(Counter::StacksTruncated.name().to_owned(), 120);
    report.quality.counters.insert("counter_of_tomorrow".to_owned(), 1);
    report
}

/// The recorder was killed before any thread was accounted for.
pub fn unfinished() -> Report {
    let mut report = starving();
    report.quality.unfinished = true;
    report.quality.end = None;
    for thread in report.pools.iter_mut().flat_map(|pool| &mut pool.threads) {
        *thread = Thread {
            wall_ns: thread.blocked_ns,
            blocked_ns: thread.blocked_ns,
            ..self::thread(thread.tid, &thread.name, thread.role)
        };
        (thread.wall_ns, thread.idle_ns) = (thread.blocked_ns, 0);
    }
    report.starvation.truncate(1);
    report
}

/// Nothing at all.
pub fn empty() -> Report {
    let counters = Counter::ALL.iter().map(|counter| (counter.name().to_owned(), 0));
    Report {
        schema: SCHEMA,
        target: Target {
            pid: 4242,
            exe: EXE.to_owned(),
            command: vec![EXE.to_owned(), "--port".to_owned(), "8080".to_owned()],
            build_id: Some("4c2f9a".to_owned()),
            container: None,
        },
        host: Host { kernel: "6.12.41".to_owned(), arch: "x86_64".to_owned(), cpus: 8 },
        window: Window {
            start: "2026-03-01T12:00:00.123456789Z".to_owned(),
            start_unix_ns: 1_772_366_400_123_456_789,
            duration_ns: 10_000 * MS,
        },
        quality: Quality {
            intervals: 1_281,
            counters: counters.collect::<BTreeMap<_, _>>(),
            user_stacks: UserStacks { complete: 1_281, ..UserStacks::default() },
            observer: Observer {
                cpu_ns: 212 * MS,
                max_rss_bytes: 41 << 20,
                kernel_map_bytes: 18 << 20,
                bpf_ns: None,
            },
            unfinished: false,
            end: Some(EndReason::Duration),
            min_block_ns: 100_000,
            hook: "sched_exit_tp".to_owned(),
            throttled_ns: None,
            nameless: Vec::new(),
            stack_check: None,
        },
        pools: vec![],
        sites: vec![],
        starvation: vec![],
        deadlocks: vec![],
        locks: vec![],
        long_polls: vec![],
        long_poll_ns: 10 * MS,
        on_cpu: None,
        states: State::ALL.to_vec(),
    }
}

/// The polls of the starving pool that held its workers.
fn long_polls() -> Vec<LongPolls> {
    vec![
        LongPolls {
            pool: 0,
            task: Some("async fn orders_api::price".to_owned()),
            count: 1_100,
            certain: 900,
            total_ns: 16_000 * MS,
            max_ns: 240 * MS,
            running_ns: 1_500 * MS,
            runnable_ns: 100 * MS,
            waiting_ns: 14_400 * MS,
            samples: 0,
        },
        LongPolls {
            pool: 0,
            task: Some("async fn orders_api::cart::checkout".to_owned()),
            count: 77,
            certain: 77,
            total_ns: 9_000 * MS + 6,
            max_ns: 1_000 * MS,
            running_ns: 0,
            runnable_ns: 0,
            waiting_ns: 9_000 * MS + 6,
            samples: 0,
        },
    ]
}
