//! A recording and unwind tables, printed: for a person and record by record.
//!
//! `BLESS=1` rewrites the files under `tests/golden`.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{collections::HashMap, fs, path::Path, process::Command, time::Duration};

use stallscope::{
    cache::TableCache,
    inspect::{
        describe, events,
        tables::{self, Code},
    },
    recording::{
        CodeAddress, Counters, End, Ending, FrameKind, Host, Interval, LockFacts, Mapping, Missing,
        Module, NamedFrame, OpenSince, Options, RawFrame, Recording, ResolvedName, Sample,
        Sampling, Session, StackEnd, Target, ThreadName, ThreadTotals, UserStack, Why,
        facts::{EndReason, ModuleId, Observer, UserStackId},
    },
    units::{Avma, FileOffset, Ktime, Nanos, Pid, Svma, Tid},
};

const START: Ktime = Ktime(1_000_000_000);

fn at(ms: u64) -> Ktime {
    Ktime(START.0 + ms * 1_000_000)
}

fn session(pid: Pid) -> Session {
    Session {
        recorder: "0.1.0".to_owned(),
        target: Target {
            pid,
            exe: "/srv/app".into(),
            command: vec!["/srv/app".to_owned(), "--port".to_owned(), "80".to_owned()],
            build_id: vec![0x4c, 0x2f],
            container: None,
        },
        host: Host {
            kernel: "6.12.41".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: 8,
            boot_id: "5f9a".to_owned(),
        },
        options: Options {
            min_block: Nanos(100_000),
            children: false,
            hook: "sched_exit_tp".to_owned(),
        },
        start: START,
        start_unix_ns: 1_772_366_400_123_456_789,
        boot_minus_monotonic: Nanos(0),
    }
}

fn recording() -> Recording {
    let address = |svma| CodeAddress::Module(ModuleId(0), Svma(svma));
    let (pid, tid) = (Pid(4242), Tid(4243));
    let name = "worker".to_owned();
    let stack = UserStack {
        id: UserStackId(0),
        frames: vec![
            RawFrame { address: address(0x10), kind: FrameKind::InstructionPointer },
            RawFrame { address: address(0x20), kind: FrameKind::ReturnAddress },
        ],
        end: StackEnd::Incomplete(Why::SliceTooShort),
        by_frame_pointer: 1,
    };
    let main = NamedFrame { function: "main".to_owned(), file: None, line: None };
    Recording {
        session: session(pid),
        threads: vec![ThreadName { at: START, pid, tid, name: name.clone() }],
        modules: HashMap::from([(
            ModuleId(0),
            Module { id: ModuleId(0), path: "/srv/app".into(), build_id: vec![], deleted: true },
        )]),
        mappings: vec![Mapping {
            at: START,
            pid,
            start: Avma(0x1000),
            end: Avma(0x2000),
            offset: FileOffset(0),
            module: ModuleId(0),
        }],
        user_stacks: HashMap::from([(UserStackId(0), stack)]),
        kernel_stacks: HashMap::new(),
        intervals: vec![Interval {
            pid,
            tid,
            out: at(1),
            wake: at(4),
            in_: at(5),
            task_state: 1,
            preempted: false,
            open_at_start: false,
            open_at_end: false,
            cpu_out: 0,
            cpu_in: 3,
            regs: None,
            user_stack: Some(UserStackId(0)),
            kernel_stack: None,
            waker: None,
        }],
        totals: vec![ThreadTotals {
            pid,
            tid,
            name,
            from: START,
            to: at(10),
            running: Nanos(6_000_000),
            runnable: Nanos(1_000_000),
            waiting: Nanos(3_000_000),
            short: Nanos(0),
            switches: 1,
            kernel_switches: 1,
            intervals: 1,
            shorts: 0,
            open_at_start: false,
            open_at_end: false,
        }],
        counters: Counters([("intervals_dropped".to_owned(), 0)].into()),
        names: HashMap::from([
            (address(0x1f), ResolvedName::Frames(vec![main])),
            (address(0x10), ResolvedName::Missing(Missing::NoSymbolHere)),
        ]),
        open_since: vec![OpenSince { pid, tid, since: Ktime(START.0 - 7) }],
        sampling: Some(Sampling { frequency: 99 }),
        samples: vec![Sample {
            at: at(6),
            pid,
            tid,
            user_stack: Some(UserStackId(0)),
            kernel_stack: None,
        }],
        nameless: Vec::new(),
        stack_check: None,
        objects: HashMap::new(),
        looks: Vec::new(),
        wakers: HashMap::new(),
        locks: LockFacts::default(),
        ending: Ending::Finished(End {
            end: at(10),
            reason: EndReason::Duration,
            observer: Observer::default(),
            throttled: None,
        }),
    }
}

fn check(name: &str, print: impl FnOnce(&mut Vec<u8>) -> anyhow::Result<()>) {
    let mut bytes = Vec::new();
    print(&mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("BLESS").is_some() {
        fs::write(&path, &text).unwrap();
    }
    assert_eq!(text, fs::read_to_string(&path).unwrap_or_default(), "BLESS=1 rewrites {name}");
}

#[test]
fn a_finished_recording_is_described() {
    check("recording.txt", |out| describe(&recording(), out));
}

#[test]
fn an_unfinished_recording_says_how_far_it_is_whole() {
    let mut recording = recording();
    recording.totals.clear();
    recording.ending = Ending::Unfinished { offset: 65_536 };
    check("recording-unfinished.txt", |out| describe(&recording, out));
}

#[test]
fn every_record_is_one_line_of_json() {
    check("recording.jsonl", |out| events(&recording(), out));
}

#[test]
fn the_tables_of_files_are_described() {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tables/code.s");
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("code");
    let status = Command::new("gcc")
        .args(["-nostdlib", "-static", "-Wl,--build-id=none,-e0,-Ttext=0x401000", source, "-o"])
        .arg(&program)
        .status()
        .unwrap();
    assert!(status.success());
    let mut code = tables::of_file(&program, &TableCache::none()).unwrap();
    "/srv/app".clone_into(&mut code.name);
    code.tabled.as_mut().unwrap().took = Duration::from_micros(1500);
    let memory = Code {
        name: "anonymous memory".to_owned(),
        bytes: 4096,
        tabled: Err("not a file".to_owned()),
    };
    check("tables.txt", |out| tables::describe(&[code, memory], out));

    let error = tables::of_file(Path::new(source), &TableCache::none()).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot make a table of {source}"));
}
