//! Stack by stack: at every instruction that a program executes, a walk by tables and one with all
//! registers find the same frames, and the latter finds all of them.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use nix::libc::user_regs_struct;
use profiler_common::{
    event::UserRegs,
    table::{BpKind, CfaKind},
    unwind::{Frame, Position},
};
use stallscope::{
    units::Avma,
    unwind::{WalkRegs, space::WalkEnd},
};

use crate::traced::{Traced, compile};

/// Instructions after which a program is let go.
const INSTRUCTIONS_MAX: u64 = 40_000;

/// The instruction.
const LEAVE: u8 = 0xc9;

/// What the comparison of many stacks came to.
#[derive(Debug, Default)]
struct Outcome {
    compared: u64,
    complete: u64,
    deepest: usize,
    /// Stacks on a signal handler's own stack.
    elsewhere: u64,
    /// Those that the walk with all registers went to the end of.
    complete_with_all: u64,
    differences: BTreeMap<Difference, u64>,
}

/// How the two walks of one stack differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// No rule can say how to leave the last frame, and the walk by tables ends there.
    NoRule,
}

/// All registers.
fn all_of(regs: &user_regs_struct) -> WalkRegs {
    WalkRegs::of(&UserRegs {
        ip: regs.rip,
        sp: regs.rsp,
        bp: regs.rbp,
        // Interrupted, and in no system call.
        orig_ax: -1,
        args: [regs.rdi, regs.rsi, regs.rdx, regs.r10, regs.r8, regs.r9],
        others: [regs.rbx, regs.r12, regs.r13, regs.r14, regs.r15, regs.rax, regs.rcx, regs.r11],
    })
}

/// Executes a program instruction by instruction and compares all stacks.
fn compare(mut traced: Traced) -> Outcome {
    let (tables, mut space) = traced.code();
    let mut outcome = Outcome::default();
    for instruction in 0..INSTRUCTIONS_MAX {
        let regs = traced.registers();
        if regs.rsp < traced.stack.start {
            traced.find_stack();
        }
        let stack = traced.stack_from(regs.rsp);
        let frame = Frame {
            ip: regs.rip,
            sp: regs.rsp,
            bp: regs.rbp,
            di: regs.rdi,
            position: Position::Interrupted,
        };
        let ((frames, end), with_all) = if stack.is_empty() {
            outcome.elsewhere += 1;
            let read = |address| traced.word(Avma(address));
            let by_tables = tables.walk(frame, u64::MAX, read);
            (by_tables, space.walk_in(&all_of(&regs), u64::MAX, &read))
        } else {
            let read = |address: u64| {
                let at = usize::try_from(address.wrapping_sub(regs.rsp)).ok()?;
                let word = stack.get(at..at.checked_add(8)?)?;
                Some(u64::from_le_bytes(word.try_into().unwrap()))
            };
            let by_tables = tables.walk(frame, regs.rsp, read);
            (by_tables, space.walk(&all_of(&regs), &stack))
        };
        outcome.deepest = outcome.deepest.max(frames.len());
        outcome.complete += u64::from(end == WalkEnd::Complete);
        outcome.complete_with_all += u64::from(with_all.end == WalkEnd::Complete);
        outcome.compared += 1;
        let last = frames.last().and_then(|frame| tables.rule_at(frame.lookup().0));
        let last = last.map(|rule| rule.cfa);
        // Code of the C runtime that nothing describes, and that no walk leaves.
        let unsupported =
            (last, with_all.end) == (Some(CfaKind::Unsupported), WalkEnd::Unsupported);
        let uncovered = with_all.by_frame_pointer > 0
            || last == Some(CfaKind::Uncovered)
            || (unsupported && frames == with_all.frames);
        // Behind the `leave` and at the `ret` of a function that realigned its stack gcc still says
        // that `rbp` is saved, where the caller's `rbp` points to.
        let leave = traced.word(Avma(regs.rip - 1)).is_some_and(|word| word as u8 == LEAVE);
        let stale = tables.rule_at(regs.rip).is_some_and(|rule| {
            (rule.cfa, rule.cfa_offset, rule.bp) == (CfaKind::Sp, 8, BpKind::AtBp)
                || (rule.cfa == CfaKind::Unsupported && leave)
        });
        assert!(
            with_all.end == WalkEnd::Complete || uncovered || stale,
            "instruction {instruction}: {with_all:x?}"
        );
        if (&frames, end) != (&with_all.frames, with_all.end) {
            let no_rule = end == WalkEnd::Unsupported && last == Some(CfaKind::Unsupported);
            assert!(
                no_rule && with_all.frames.starts_with(&frames),
                "instruction {instruction}, last {last:?}\n\
                 tables: {frames:x?} {end:x?}\nall registers: {with_all:x?}"
            );
            *outcome.differences.entry(Difference::NoRule).or_default() += 1;
        }
        if !traced.step() {
            break;
        }
    }
    eprintln!("{outcome:?}");
    outcome
}

/// The fixture, built with these options, from where it says that it is ready. `binding` is whether
/// the dynamic linker binds functions at the start or when they are first called.
fn check(options: &[&str], binding: Binding) {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(compile(options, dir.path()))
        .envs((binding == Binding::AtStart).then_some(("LD_BIND_NOW", "1")))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let mut go = child.stdin.take().unwrap();
    let traced = Traced::stop(child);
    go.write_all(b"!").unwrap();
    let outcome = compare(traced);
    outcome.judge(binding);
    let Outcome { compared, deepest, elsewhere, .. } = &outcome;
    assert!(*compared > 1_500 && *deepest > 40 && *elsewhere > 30, "{outcome:?}");
}

/// When functions of other libraries are bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Binding {
    AtStart,
    /// By code whose CFA counts from `rbx`: for the many instructions that this takes, no walk that
    /// follows `rsp` and `rbp` alone reaches the caller.
    AtFirstCall,
}

impl Outcome {
    fn judge(&self, binding: Binding) {
        let Self { compared, complete, complete_with_all, .. } = self;
        let least = match binding {
            Binding::AtStart => compared * 98 / 100,
            Binding::AtFirstCall => compared / 3,
        };
        assert!(*complete >= least, "{self:?}");
        assert!(*complete_with_all >= compared - compared / 100, "{self:?}");
    }
}

#[test]
fn without_optimisation_with_frame_pointers() {
    check(&["-O0", "-fno-omit-frame-pointer"], Binding::AtStart);
}

#[test]
fn optimised_without_frame_pointers() {
    check(&["-O2", "-fomit-frame-pointer"], Binding::AtStart);
}

#[test]
fn for_size() {
    check(&["-Os", "-fomit-frame-pointer"], Binding::AtStart);
}

#[test]
fn static_and_optimised() {
    check(&["-O3", "-fomit-frame-pointer", "-static"], Binding::AtStart);
}

#[test]
fn at_a_fixed_address_and_bound_lazily() {
    check(&["-O2", "-fomit-frame-pointer", "-no-pie", "-Wl,-z,lazy"], Binding::AtFirstCall);
}

#[test]
fn a_rust_program() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("not-a-recording");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .args(["inspect", "recording"])
        .arg(&pipe)
        .env("LD_BIND_NOW", "1")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Waits until the program reads from it.
    let mut feed = OpenOptions::new().write(true).open(&pipe).unwrap();
    let traced = Traced::stop(child);
    feed.write_all(&[0x5a; 4096]).unwrap();
    drop(feed);
    let outcome = compare(traced);
    outcome.judge(Binding::AtStart);
    assert!(outcome.compared > 3_000 && outcome.deepest > 8, "{outcome:?}");
}
