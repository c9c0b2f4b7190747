//! Reports of recordings made by hand.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::collections::BTreeMap;

use super::{
    Selection, analyze, analyze_selected, default_states,
    report::{AtEnd, FrameKind, Reason, Report, Role, StackQuality, State},
    sample::{PID, START, Sample, Wait},
    select_states, without_plumbing,
};
use crate::{
    failure::Failure,
    recording::OpenSince,
    units::{Ktime, Tid},
};

const MS: u64 = 1_000_000;

const BLOCKED: &[&str] = &[
    "clock_nanosleep",
    "std::thread::functions::sleep",
    "orders::load::{{closure}}",
    "tokio::runtime::task::raw::poll",
    "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
    "tokio::runtime::scheduler::multi_thread::worker::run",
    "clone3",
];
const IDLE: &[&str] = &[
    "syscall",
    "tokio::runtime::scheduler::multi_thread::worker::Context::park_internal",
    "tokio::runtime::scheduler::multi_thread::worker::run",
    "clone3",
];
const IN_PLACE: &[&str] = &[
    "clock_nanosleep",
    "tokio::runtime::scheduler::multi_thread::worker::block_in_place",
    "orders::load::{{closure}}",
    "tokio::runtime::task::raw::poll",
    "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
    "tokio::runtime::scheduler::multi_thread::worker::run",
    "clone3",
];
const PLAIN: &[&str] = &["clock_nanosleep", "orders::ticker", "clone3"];
const STACKS: [&[&str]; 5] = [BLOCKED, IDLE, IN_PLACE, PLAIN, &[]];

const SLEEP: Option<i64> = Some(libc::SYS_clock_nanosleep);
const FUTEX: Option<i64> = Some(libc::SYS_futex);

fn wait<'a>(tid: u32, span: (u64, u64, u64), stack: &'a [&'a str]) -> Wait<'a> {
    let syscall = if stack.first() == Some(&"syscall") { FUTEX } else { SLEEP };
    Wait { tid, span: (span.0 * MS, span.1 * MS, span.2 * MS), syscall, stack }
}

fn report(sample: &Sample) -> Report {
    analyze(&sample.recording, &sample.names()).unwrap()
}

/// The invariants of every report.
fn conserves(report: &Report) {
    let mut pools: BTreeMap<(u32, State), u64> = BTreeMap::new();
    let mut runnable: BTreeMap<u32, u64> = BTreeMap::new();
    for pool in &report.pools {
        for thread in &pool.threads {
            let sum = thread.running_ns
                + thread.runnable_ns
                + thread.idle_ns
                + thread.blocked_ns
                + thread.allowed_ns
                + thread.short_ns
                + thread.unknown_ns;
            assert_eq!(sum, thread.wall_ns, "thread {}", thread.tid);
            for (state, time) in [
                (State::Idle, thread.idle_ns),
                (State::Blocked, thread.blocked_ns),
                (State::Allowed, thread.allowed_ns),
                (State::Unknown, thread.unknown_ns),
            ] {
                *pools.entry((pool.id, state)).or_default() += time;
            }
            *runnable.entry(pool.id).or_default() += thread.runnable_ns;
        }
    }
    let mut sites: BTreeMap<(u32, State), u64> = pools.keys().map(|key| (*key, 0)).collect();
    for site in &report.sites {
        if site.state == State::Runnable {
            assert_eq!((site.total_ns, site.max_ns), (0, 0));
        } else {
            *sites.entry((site.pool, site.state)).or_default() += site.total_ns;
        }
        let left = runnable.get_mut(&site.pool).unwrap();
        *left = left.checked_sub(site.runnable_ns).unwrap();
    }
    assert_eq!(sites, pools);
    assert!(report.sites.is_sorted_by(|a, b| {
        (b.total_ns, &a.frames) <= (a.total_ns, &b.frames) || a.total_ns > b.total_ns
    }));
}

//   ms  0    2        12  13   20      40        70
//   w1  | run | blocked | rq | run | idle |  run  |
#[test]
fn a_blocked_worker_is_told_from_an_idle_one() {
    let mut sample = Sample::new(70 * MS);
    sample.wait(wait(1, (2, 12, 13), BLOCKED)).in_kernel(&["schedule", "do_nanosleep"]);
    sample.wait(wait(1, (20, 40, 40), IDLE)).totals(1, "tokio-rt-worker", 3, 0);
    let report = report(&sample);
    conserves(&report);
    let pool = &report.pools[0];
    assert_eq!((pool.runtime.as_str(), pool.name.as_str(), pool.workers), ("tokio", "tokio", 1));
    let thread = &pool.threads[0];
    let times = (thread.blocked_ns, thread.idle_ns, thread.runnable_ns, thread.short_ns);
    assert_eq!(times, (10 * MS, 20 * MS, MS, 3));
    let site = report.sites.iter().find(|site| site.state == State::Blocked).unwrap();
    assert_eq!(site.task.as_deref(), Some("async fn orders::load"));
    assert_eq!((site.reason, site.role, site.count), (Reason::Sleep, Role::Worker, 1));
    assert_eq!((site.total_ns, site.p50_ns, site.runnable_ns), (10 * MS, 10 * MS, MS));
    let functions: Vec<_> = site.frames.iter().map(|f| f.function.as_deref().unwrap()).collect();
    let mut expected: Vec<_> = BLOCKED.iter().rev().copied().collect();
    expected.extend(["do_nanosleep", "schedule"]);
    assert_eq!(functions, expected);
    let kinds: Vec<_> = site.frames.iter().map(|frame| frame.kind).collect();
    assert_eq!(kinds[6..], [FrameKind::Native, FrameKind::Kernel, FrameKind::Kernel]);
    assert_eq!(report.window.start, "2023-11-14T22:13:20.000000000Z");
    assert_eq!(report.quality.counters["intervals_dropped"], 0);
    assert_eq!(report.quality.user_stacks.complete, 2);
    assert_eq!(report.target.build_id.as_deref(), Some("abcd"));
}

//   ms  0  2   10       30   40
//   w1  |  | blocked     |          both blocked from 10 to 30
//   w2       | blocked        |
//   t3  | a thread of no pool, blocked or not, does not matter
#[test]
fn a_starved_pool_has_a_window_with_the_sites_that_held_it() {
    let mut sample = Sample::new(50 * MS);
    sample.wait(wait(1, (2, 30, 30), BLOCKED)).totals(1, "w", 0, 0);
    sample.wait(wait(2, (10, 39, 40), BLOCKED)).totals(2, "w", 0, 0);
    sample.wait(wait(3, (0, 49, 49), PLAIN)).totals(3, "t", 0, 0);
    let report = report(&sample);
    conserves(&report);
    let window = &report.starvation[0];
    assert_eq!(report.starvation.len(), 1);
    assert_eq!((window.start_ns, window.end_ns, window.workers), (10 * MS, 30 * MS, 2));
    assert_eq!(report.sites[window.sites[0]].state, State::Blocked);
    let curve = &report.pools[0].blocked_curve;
    let expected = [(0, 0, 2), (2, 1, 2), (10, 2, 2), (30, 1, 2), (40, 0, 2), (50, 0, 0)];
    assert_eq!(curve[..], expected.map(|(t, k, n)| (t * MS, k, n)));
    assert_eq!(report.pools[1].runtime, "none");
    assert_eq!(report.pools[1].threads[0].allowed_ns, 49 * MS);
}

//   ms  0       10               40      50
//   w1  | idle  | block_in_place | idle  |     its core runs on w2 meanwhile
//   w2  | idle  | blocked        | idle  |
#[test]
fn a_worker_that_gave_its_core_away_is_no_worker_meanwhile() {
    let mut sample = Sample::new(50 * MS);
    sample.wait(wait(1, (0, 10, 10), IDLE)).wait(wait(1, (10, 40, 40), IN_PLACE));
    sample.wait(wait(1, (40, 50, 50), IDLE)).totals(1, "w", 0, 0);
    sample.wait(wait(2, (0, 10, 10), IDLE)).wait(wait(2, (10, 40, 40), BLOCKED));
    sample.wait(wait(2, (40, 50, 50), IDLE)).totals(2, "w", 0, 0);
    let report = report(&sample);
    conserves(&report);
    let window = &report.starvation[0];
    assert_eq!((window.start_ns, window.end_ns, window.workers), (10 * MS, 40 * MS, 1));
    let roles: Vec<_> = report.pools[0].threads.iter().map(|thread| thread.role).collect();
    assert_eq!(roles, [Role::Blocking, Role::Worker]);
}

#[test]
fn a_worker_on_the_cpu_all_along_is_known_by_its_name_and_prevents_a_window() {
    let mut sample = Sample::new(50 * MS);
    sample.wait(wait(1, (2, 30, 30), BLOCKED)).totals(1, "w", 0, 0);
    sample.totals(2, "w", 0, 0);
    let report = report(&sample);
    conserves(&report);
    assert_eq!(report.starvation, []);
    assert_eq!(report.pools[0].workers, 2);
}

#[test]
fn time_that_no_interval_explains_is_unknown_without_frames() {
    let mut sample = Sample::new(50 * MS);
    sample.wait(wait(1, (2, 12, 12), BLOCKED)).totals(1, "w", 0, 7 * MS);
    let report = report(&sample);
    conserves(&report);
    let site = report.sites.iter().find(|site| site.state == State::Unknown).unwrap();
    assert_eq!((site.total_ns, site.count, site.stack), (7 * MS, 1, StackQuality::Missing));
    assert_eq!(site.frames, []);
}

#[test]
fn an_unfinished_recording_is_all_that_its_intervals_say() {
    let mut sample = Sample::new(50 * MS);
    sample.thread(1, "w").wait(wait(1, (2, 12, 13), BLOCKED)).preempted(1, 20 * MS, 22 * MS);
    sample.unfinished();
    let report = report(&sample);
    conserves(&report);
    assert!(report.quality.unfinished);
    let thread = &report.pools[0].threads[0];
    assert_eq!((thread.wall_ns, thread.blocked_ns), (22 * MS, 10 * MS));
    assert_eq!((thread.runnable_ns, thread.unknown_ns), (3 * MS, 9 * MS));
}

#[test]
fn a_recording_that_contradicts_itself_is_an_error() {
    let check = |spoil: fn(&mut Sample), expected: &str| {
        let mut sample = Sample::new(50 * MS);
        sample.wait(wait(1, (2, 12, 13), BLOCKED)).totals(1, "w", 0, 0);
        spoil(&mut sample);
        let error = analyze(&sample.recording, &sample.names()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error:#}");
    };
    check(|sample| sample.recording.totals[0].running.0 += 1, "do not add up");
    check(
        |sample| {
            sample.recording.totals[0].running.0 += 1;
            sample.recording.totals[0].waiting.0 -= 1;
        },
        "longer than its time",
    );
    check(|sample| sample.recording.intervals[0].wake.0 = 0, "ends before it begins");
}

#[test]
fn a_thread_id_used_twice_is_two_threads() {
    let mut sample = Sample::new(50 * MS);
    sample.wait(wait(1, (2, 12, 12), BLOCKED)).totals(1, "w", 0, 0);
    let mut first = sample.recording.totals[0].clone();
    let mut second = first.clone();
    let middle = Ktime(first.from.0 + 20 * MS);
    first.to = middle;
    first.running.0 -= 30 * MS;
    second.from = middle;
    second.waiting.0 = 0;
    second.running.0 = 30 * MS;
    sample.recording.totals = vec![second, first];
    let report = report(&sample);
    conserves(&report);
    let blocked: Vec<_> = report.pools[0].threads.iter().map(|t| t.blocked_ns).collect();
    assert_eq!(blocked, [10 * MS, 0]);
}

#[test]
fn sums_hold_for_any_sequence_of_intervals() {
    // The constants of Knuth's MMIX generator.
    let mut seed = 1_u64;
    let mut random = move |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % below
    };
    for round in 0..200 {
        let duration = 200 * MS;
        let mut sample = Sample::new(duration);
        for tid in 1..=1 + random(6) as u32 {
            let mut at = random(5 * MS);
            while at < duration {
                let out = at;
                let wake = (out + random(20 * MS)).min(duration);
                let in_ = (wake + random(MS)).min(duration);
                let stack = STACKS[random(5) as usize];
                if random(5) == 0 {
                    sample.preempted(tid, out, in_);
                } else {
                    sample.wait(Wait { tid, span: (out, wake, in_), syscall: SLEEP, stack });
                }
                at = in_ + random(3 * MS);
            }
            sample.totals(tid, "w", 0, 0);
            let totals = sample.recording.totals.last_mut().unwrap();
            // Some of the running time is short or was lost.
            let lost = random(totals.running.0 + 1);
            let short = random(totals.running.0 - lost + 1);
            totals.running.0 -= lost + short;
            totals.waiting.0 += lost;
            totals.short.0 += short;
        }
        if round % 10 == 9 {
            sample.unfinished();
        }
        let report = report(&sample);
        conserves(&report);
        for pool in &report.pools {
            for (t, blocked, workers) in &pool.blocked_curve {
                assert!(blocked <= workers, "round {round} at {t}");
            }
        }
        for window in &report.starvation {
            assert!(window.end_ns - window.start_ns >= MS && window.end_ns <= duration);
        }
    }
}

#[test]
fn a_selection_leaves_what_was_asked_for() {
    let mut sample = Sample::new(50 * MS);
    sample.wait(wait(1, (2, 30, 30), BLOCKED)).totals(1, "w1", 0, 0);
    sample.wait(wait(2, (2, 30, 30), BLOCKED)).wait(wait(2, (31, 45, 45), IDLE));
    sample.totals(2, "w2", 0, 0).wait(wait(3, (0, 49, 49), PLAIN)).totals(3, "t", 0, 0);
    let names = sample.names();
    let select = |states: Option<Vec<State>>, pools: &[&str], threads: &[&str]| {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let selection = Selection {
            states,
            pools: owned(pools),
            threads: owned(threads),
            ..Selection::default()
        };
        analyze_selected(&sample.recording, &names, &selection)
    };
    let check = |report: &Report, expected: &[(State, u64)]| {
        let sites: Vec<_> = report.sites.iter().map(|s| (s.state, s.total_ns / MS)).collect();
        assert_eq!(sites, expected);
        for window in &report.starvation {
            let blocked = |site: &usize| report.sites[*site].state == State::Blocked;
            assert!(window.sites.iter().all(blocked));
        }
    };
    let (blocked, idle, allowed) = (State::Blocked, State::Idle, State::Allowed);
    let all = select(None, &[], &[]).unwrap();
    check(&all, &[(blocked, 56), (allowed, 49), (idle, 14)]);
    assert_eq!(default_states(&all), [blocked]);
    check(&select_states(all, &[idle]), &[(idle, 14)]);
    check(
        &select(Some(vec![blocked, allowed]), &[], &[]).unwrap(),
        &[(blocked, 56), (allowed, 49)],
    );
    check(&select(None, &["none"], &[]).unwrap(), &[(allowed, 49)]);
    check(&select(None, &[], &["w2"]).unwrap(), &[(blocked, 28), (idle, 14)]);
    let one = select(None, &[], &["1"]).unwrap();
    check(&one, &[(blocked, 28)]);
    conserves(&one);
    assert_eq!(one.starvation[0].workers, 2);
    for (pools, threads) in [(&["x"][..], &[][..]), (&[], &["x"])] {
        let error = select(None, pools, threads).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(Failure::Usage(_))));
    }
}

#[test]
fn where_no_runtime_is_recognised_everything_but_idle_is_shown() {
    let mut sample = Sample::new(50 * MS);
    sample.wait(wait(3, (0, 49, 49), PLAIN)).totals(3, "t", 0, 0);
    let states = default_states(&report(&sample));
    assert_eq!(states, [State::Runnable, State::Blocked, State::Allowed, State::Unknown]);
}

#[test]
fn pictures_leave_out_plumbing_and_the_report_has_every_frame() {
    const TASK: &[&str] = &[
        "clock_nanosleep",
        "orders::handler::{{closure}}",
        "tokio::runtime::task::core::Core<T,S>::poll",
        "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
        "start_thread",
    ];
    // The same task reached by another way is another site, whatever a picture shows of it.
    let other_way = [&TASK[..3], &["tokio::runtime::task::raw::poll"], &TASK[3..]].concat();
    let mut sample = Sample::new(10_000_000);
    for (at, stack) in [(0, TASK), (1, &other_way)] {
        let out = at * 1_000_000;
        let span = (out, out + 500_000, out + 500_000);
        sample.wait(Wait { tid: 1, span, syscall: Some(libc::SYS_clock_nanosleep), stack });
    }
    sample.totals(1, "tokio-rt-worker", 0, 0);
    let report = analyze(&sample.recording, &sample.names()).unwrap();
    let shape = |report: &Report| {
        let sites = report.sites.iter();
        sites.map(|site| (site.total_ns, site.frames.len())).collect::<Vec<_>>()
    };
    assert_eq!(shape(&report), [(500_000, 5), (500_000, 6)]);
    let picture = without_plumbing(report);
    assert_eq!(shape(&picture), [(500_000, 2), (500_000, 2)]);
    let names: Vec<_> =
        picture.sites[0].frames.iter().filter_map(|frame| frame.function.as_deref()).collect();
    assert_eq!(names, ["orders::handler::{{closure}}", "clock_nanosleep"]);
}

//   ms -50    0          30 31   40
//   1   |     blocked            |      since -50
//   2         | run | blocked    |      woken at 31
//   3   ?     blocked    |  run  |      since when is not known
#[test]
fn open_intervals_are_told_with_their_beginning_and_site() {
    let mut sample = Sample::new(40 * MS);
    sample.wait(wait(1, (0, 40, 40), BLOCKED)).wait(wait(2, (20, 31, 40), BLOCKED));
    sample.wait(wait(3, (0, 30, 30), IDLE));
    for (interval, tid) in sample.recording.intervals.iter_mut().zip(1..) {
        interval.open_at_start = tid != 2;
        interval.open_at_end = tid != 3;
    }
    sample.totals(1, "tokio-rt-worker", 0, 0).totals(2, "tokio-rt-worker", 0, 0);
    sample.totals(3, "tokio-rt-worker", 0, 0);
    for totals in &mut sample.recording.totals {
        totals.open_at_start = totals.tid.0 != 2;
        totals.open_at_end = totals.tid.0 != 3;
    }
    let since = Ktime(START.0 - 50 * MS);
    sample.recording.open_since.push(OpenSince { pid: PID, tid: Tid(1), since });
    let report = report(&sample);
    let site = report.sites.iter().position(|site| site.state == State::Blocked).unwrap();
    let open = |report: &Report, tid| {
        let mut threads = report.pools.iter().flat_map(|pool| &pool.threads);
        let thread = threads.find(|thread| thread.tid == tid).unwrap();
        (thread.open_since_ns, thread.at_end)
    };
    let ms = MS.cast_signed();
    let at_end = |since_ms: i64, in_run_queue| {
        Some(AtEnd { site, since_ns: Some(since_ms * ms), in_run_queue })
    };
    assert_eq!(open(&report, 1), (Some(-50 * ms), at_end(-50, false)));
    assert_eq!(open(&report, 2), (None, at_end(20, true)));
    assert_eq!(open(&report, 3), (None, None));
    // Without its site the interval is not told of.
    let idle = select_states(report, &[State::Idle]);
    assert_eq!(open(&idle, 1), (Some(-50 * ms), None));
}
