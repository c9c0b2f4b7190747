//! One record of each kind.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use crate::{
    recording::{
        Futex, Handle, Holder, Look, Object, ObjectId, OpenSince, PathBytes, Reference, Search,
        Thing, WakeContext, Waker, WakerId, WakerThread, Woken,
        facts::{
            CodeAddress, Counters, End, EndReason, FrameKind, Host, Interval, KernelStack,
            KernelStackId, Mapping, Missing, Module, ModuleId, NamedFrame, NamelessFunction, Names,
            Observer, Options, RawFrame, Record, Regs, ResolvedName, Sample, Sampling, Session,
            StackCheck, StackDifference, StackEnd, Target, ThreadName, ThreadTotals, UserStack,
            UserStackId, Why,
        },
    },
    units::{Avma, FileOffset, Ktime, Nanos, Pid, Svma, Tid},
};

pub fn session() -> Record {
    Record::Session(Session {
        recorder: "0.1.0".to_owned(),
        target: Target {
            pid: Pid(4711),
            exe: PathBuf::from("/usr/bin/service"),
            command: vec!["service".to_owned(), "--port=80".to_owned()],
            build_id: vec![0xab; 20],
            container: Some("4c9f3a".to_owned()),
        },
        host: Host {
            kernel: "6.1.0-18-amd64".to_owned(),
            arch: "x86_64".to_owned(),
            cpus: 8,
            boot_id: "5b4f2b6e-0000-4000-8000-000000000000".to_owned(),
        },
        options: Options {
            min_block: Nanos(100_000),
            children: false,
            hook: "finish_task_switch".to_owned(),
        },
        start: Ktime(1_000_000_000),
        start_unix_ns: 1_700_000_000_000_000_000,
        boot_minus_monotonic: Nanos(12),
    })
}

pub fn interval(n: u64) -> Record {
    let out = 1_000_000_000 + n * 1000;
    Record::Interval(Interval {
        pid: Pid(4711),
        tid: Tid(4712),
        out: Ktime(out),
        wake: Ktime(out + 700),
        in_: Ktime(out + 900),
        task_state: 1,
        preempted: false,
        open_at_start: false,
        open_at_end: false,
        cpu_out: 0,
        cpu_in: 3,
        regs: Some(Regs {
            ip: Avma(0x7f00_0000_1000),
            sp: Avma(0x7ffd_0000_0000 + n),
            bp: Avma(0),
            syscall: Some(202),
            args: [n, 2, 3, 4, 5, u64::MAX],
        }),
        user_stack: Some(UserStackId(n as u32)),
        kernel_stack: Some(KernelStackId(0)),
        waker: None,
    })
}

pub fn open_interval(n: u64) -> Record {
    let Record::Interval(interval) = interval(n) else { unreachable!() };
    Record::Interval(Interval { open_at_end: true, regs: None, ..interval })
}

pub fn totals(tid: u32, from: u64, running: u64) -> Record {
    Record::Totals(ThreadTotals {
        pid: Pid(4711),
        tid: Tid(tid),
        name: "tokio-runtime-w".to_owned(),
        from: Ktime(from),
        to: Ktime(from + running),
        running: Nanos(running),
        runnable: Nanos(0),
        waiting: Nanos(0),
        short: Nanos(0),
        switches: 3,
        kernel_switches: 3,
        intervals: 2,
        shorts: 1,
        open_at_start: true,
        open_at_end: false,
    })
}

pub fn names(count: u64) -> Record {
    let name = |n| {
        let address = CodeAddress::Module(ModuleId(0), Svma(n * 64));
        let function = format!("service::handlers::h{n:016x}");
        let file = Some("src/handlers.rs".to_owned());
        (address, ResolvedName::Frames(vec![NamedFrame { function, file, line: Some(n as u32) }]))
    };
    Record::Names(Names { names: (0..count).map(name).collect() })
}

pub fn end() -> Record {
    Record::End(End {
        end: Ktime(11_000_000_000),
        reason: EndReason::Duration,
        observer: Observer {
            cpu: Nanos(5),
            max_rss_bytes: 6,
            kernel_map_bytes: 7,
            bpf: Some(Nanos(8)),
        },
        throttled: Some(Nanos(9)),
    })
}

/// What version 1 has: one record of each kind, in an order that a recorder could give.
pub fn all_kinds_of_version_1() -> Vec<Record> {
    // It did not say why a stack is broken.
    kinds_with(StackEnd::Incomplete(Why::BrokenUntold), 0)
}

/// One record of each kind. Written as version 4 for good: a new field or kind goes into a sample
/// of the next version.
pub fn all_kinds() -> Vec<Record> {
    let mut kinds = all_kinds_of_version_3();
    let things = [
        Thing::Gone,
        Thing::File(PathBuf::from(OsStr::from_bytes(b"/srv/caf\xe9"))),
        Thing::Pipe {
            inode: 7,
            path: Some(PathBytes("/run/p".into())),
            other_end: vec![Holder { pid: Pid(9), name: "sh".to_owned() }],
        },
        Thing::Inet {
            protocol: "tcp".to_owned(),
            local: ([127, 0, 0, 1], 80).into(),
            peer: Some(([1, 2, 3, 4, 5, 6, 7, 8], 5432).into()),
        },
        Thing::Unix {
            inode: 8,
            name: None,
            peer_name: Some(PathBytes("@bus".into())),
            peers: vec![],
        },
        Thing::Socket { inode: 9 },
        Thing::Process(Pid(4713)),
        Thing::Anonymous("eventfd".to_owned()),
    ];
    let objects = (0..).map(ObjectId).zip(things);
    let objects = objects.map(|(id, thing)| Record::Object(Object { id, thing }));
    let look = Look {
        at: Ktime(1_000_000_600),
        pid: Pid(4711),
        handle: Handle::Descriptor(5),
        object: ObjectId(1),
    };
    let waker = Waker {
        context: WakeContext::Softirq,
        thread: Some(WakerThread {
            pid: Pid(9),
            tid: Tid(10),
            name: "sh".to_owned(),
            process: Some("bash".to_owned()),
        }),
        user_stack: Some(UserStackId(1)),
        kernel_stack: None,
    };
    let woken =
        Woken { at: Ktime(1_000_000_700), pid: Pid(4711), tid: Tid(4712), waker: WakerId(3) };
    let since = OpenSince { pid: Pid(4711), tid: Tid(4712), since: Ktime(999_999_000) };
    let others = [
        Record::Look(look),
        Record::Waker(WakerId(3), waker),
        Record::Woken(woken),
        Record::OpenSince(since),
        Record::Futex(Futex {
            at: Ktime(11_000_000_100),
            pid: Pid(4711),
            address: Avma(0x7f00_3000_0000),
            value: 2,
            owner: Some(Tid(4713)),
        }),
        Record::Reference(Reference {
            at: Ktime(11_000_000_200),
            pid: Pid(4711),
            tid: Tid(4713),
            address: Avma(0x7f00_3000_0000),
        }),
        Record::Search(Search {
            at: Ktime(11_000_000_300),
            pid: Pid(4711),
            searched: 2,
            missed: 1,
        }),
    ];
    let end = kinds.len() - 1;
    kinds.splice(end..end, objects.chain(others));
    kinds
}

/// What version 3 has.
pub fn all_kinds_of_version_3() -> Vec<Record> {
    let mut kinds = all_kinds_of_version_2();
    let new = vec![
        Record::Sampling(Sampling { frequency: 99 }),
        Record::Sample(Sample {
            at: Ktime(1_000_000_500),
            pid: Pid(4711),
            tid: Tid(4712),
            user_stack: Some(UserStackId(0)),
            kernel_stack: None,
        }),
        Record::Nameless(NamelessFunction {
            module: ModuleId(0),
            start: Svma(0x2000),
            end: Svma(0x2040),
            mentions: vec!["src/handlers.rs".to_owned(), "tokio/src/runtime/park.rs".to_owned()],
        }),
    ];
    let end = kinds.len() - 1;
    kinds.splice(end..end, new);
    kinds
}

/// What version 2 has.
pub fn all_kinds_of_version_2() -> Vec<Record> {
    let mut kinds = kinds_with(StackEnd::Incomplete(Why::BadFramePointer), 1);
    let before_end = kinds.len() - 1;
    kinds.insert(
        before_end,
        Record::StackCheck(StackCheck {
            compared: 4,
            equal: 1,
            prefix_equal: 1,
            different: 2,
            why: [("frames_differ".to_owned(), 2), ("slice_too_short".to_owned(), 1)].into(),
            differences: vec![StackDifference {
                why: "frames_differ".to_owned(),
                count: 2,
                kernel: vec![RawFrame {
                    address: CodeAddress::Module(ModuleId(0), Svma(0x2000)),
                    kind: FrameKind::ReturnAddress,
                }],
                check: vec![],
            }],
        }),
    );
    kinds
}

fn kinds_with(end: StackEnd, by_frame_pointer: u32) -> Vec<Record> {
    let frame = |address, kind| RawFrame { address, kind };
    vec![
        session(),
        Record::Thread(ThreadName {
            at: Ktime(1_000_000_000),
            pid: Pid(4711),
            tid: Tid(4712),
            name: "tokio-runtime-w".to_owned(),
        }),
        Record::Module(Module {
            id: ModuleId(0),
            // A path is bytes, not text.
            path: PathBuf::from(OsStr::from_bytes(b"/opt/caf\xe9/service")),
            build_id: vec![],
            deleted: true,
        }),
        Record::Mapping(Mapping {
            at: Ktime(1_000_000_000),
            pid: Pid(4711),
            start: Avma(0x7f00_0000_0000),
            end: Avma(0x7f00_0001_0000),
            offset: FileOffset(0x1000),
            module: ModuleId(0),
        }),
        Record::UserStack(UserStack {
            id: UserStackId(1),
            frames: vec![
                frame(
                    CodeAddress::Module(ModuleId(0), Svma(0x2000)),
                    FrameKind::InstructionPointer,
                ),
                frame(CodeAddress::Memory(Avma(0x7f00_2000_0000)), FrameKind::ReturnAddress),
            ],
            end,
            by_frame_pointer,
        }),
        Record::KernelStack(KernelStack {
            id: KernelStackId(0),
            frames: vec![Avma(0xffff_ffff_8100_0000)],
        }),
        interval(1),
        totals(4712, 1_000_000_000, 10_000_000_000),
        Record::Counters(Counters([("stacks_broken".to_owned(), 1)].into_iter().collect())),
        names(1),
        Record::Names(Names {
            names: vec![(
                CodeAddress::Kernel(Avma(0xffff_ffff_8100_0000)),
                ResolvedName::Missing(Missing::KernelHidden),
            )],
        }),
        super::sample::end(),
    ]
}
