//! What reports are made of: sites, threads and frames.

use stallscope::analysis::report::{
    Frame, FrameKind, Origin, Reason, Role, Site, StackQuality, Starvation, State, Thread,
};

pub const MS: u64 = 1_000_000;
pub const EXE: &str = "/srv/orders/bin/orders-api";
const TOKIO: &str = "/home/dev/.cargo/registry/src/mirror-1949cf8c6b5b557f/tokio-1.47.1/src";
const LIBC: &str = "/usr/lib/x86_64-linux-gnu/libc.so.6";

/// A site without time and stack.
pub fn site(pool: u32, state: State, reason: Reason, role: Role) -> Site {
    Site {
        inferred: false,
        pool,
        state,
        reason,
        role,
        label: None,
        task: None,
        count: 1,
        total_ns: 0,
        max_ns: 0,
        p50_ns: 0,
        p99_ns: 0,
        runnable_ns: 0,
        stack: StackQuality::Complete,
        frames: vec![],
        objects: vec![],
        wakers: Vec::new(),
    }
}

/// A frame with a name.
pub fn frame(function: &str, module: Option<&str>, address: u64, kind: FrameKind) -> Frame {
    Frame {
        function: Some(function.to_owned()),
        file: None,
        line: None,
        module: module.map(str::to_owned),
        address: Some(format!("{address:#x}")),
        kind,
        missing: None,
        origin: match kind {
            FrameKind::Kernel => Origin::Library,
            _ => Origin::of(Some(function), Some(function), None, module),
        },
    }
}

pub fn thread(tid: u32, name: &str, role: Role) -> Thread {
    Thread {
        tid,
        name: name.to_owned(),
        role,
        wall_ns: 10_000 * MS,
        running_ns: 0,
        runnable_ns: 0,
        idle_ns: 0,
        blocked_ns: 0,
        allowed_ns: 0,
        short_ns: 0,
        unknown_ns: 0,
        open_at_start: false,
        open_at_end: false,
        switches: 1_000,
        kernel_switches: 1_000,
        intervals: 900,
        shorts: 100,
        open_since_ns: None,
        at_end: None,
    }
}

pub fn starvation(start_ns: u64, end_ns: u64) -> Starvation {
    let held = 4 * (end_ns - start_ns);
    let held_ns = vec![held / 10 * 8, held / 10 * 2];
    Starvation { pool: 0, start_ns, end_ns, workers: 4, sites: vec![0, 1], held_ns }
}

/// How a Tokio worker gets to `task`, then the kernel.
pub fn worker_stack(task: &[Frame], kernel_functions: &[&str]) -> Vec<Frame> {
    let mut frames = vec![
        libc("start_thread"),
        std_frame("std::sys::thread::unix::Thread::new::thread_start", FrameKind::Native),
        tokio("tokio::runtime::scheduler::multi_thread::worker::run", FrameKind::Native),
        tokio(
            "tokio::runtime::scheduler::multi_thread::worker::Context::run_task",
            FrameKind::Inlined,
        ),
        tokio("tokio::runtime::task::harness::Harness<T,S>::poll", FrameKind::Native),
    ];
    frames.extend_from_slice(task);
    frames.extend(
        ["entry_SYSCALL_64_after_hwframe", "do_syscall_64"].iter().map(|name| kernel(name)),
    );
    frames.extend(kernel_functions.iter().map(|name| kernel(name)));
    frames
}

pub fn own(function: &str, file: &str, line: u32, kind: FrameKind) -> Frame {
    let place = (Some(file.to_owned()), Some(line));
    Frame {
        file: place.0,
        line: place.1,
        ..frame(function, Some(EXE), 0x1000 + u64::from(line), kind)
    }
}

pub fn tokio(function: &str, kind: FrameKind) -> Frame {
    let file = format!("{TOKIO}/runtime/scheduler/multi_thread/worker.rs");
    Frame { file: Some(file), line: Some(500), ..frame(function, Some(EXE), 0x8000, kind) }
}

pub fn std_frame(function: &str, kind: FrameKind) -> Frame {
    let file = "/rustc/59807616e1fa2540724bfbac14d7976d7e4a3860/library/std/src/thread/mod.rs";
    Frame { file: Some(file.to_owned()), line: Some(3), ..frame(function, Some(EXE), 0x9000, kind) }
}

pub fn libc(function: &str) -> Frame {
    frame(function, Some(LIBC), 0x9_f000, FrameKind::Native)
}

pub fn kernel(function: &str) -> Frame {
    frame(function, None, 0xffff_ffff_8100_0000, FrameKind::Kernel)
}
