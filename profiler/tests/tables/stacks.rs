//! Stack by stack: at every instruction that a program executes, a walk by tables and one by
//! framehop find the same frames.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use nix::libc::user_regs_struct;
use profiler_common::{
    table::{BpKind, CfaKind},
    unwind::{Frame, Position},
};
use stallscope::{
    units::Avma,
    unwind::{WalkRegs, space::WalkEnd},
};

use crate::{
    oracle::Registers,
    traced::{Traced, compile},
};

/// Instructions after which a program is let go.
const INSTRUCTIONS_MAX: u64 = 40_000;

/// What the comparison of many stacks came to.
#[derive(Debug, Default)]
struct Outcome {
    compared: u64,
    complete: u64,
    deepest: usize,
    /// Stacks on a signal handler's own stack, which framehop's copy does not hold.
    elsewhere: u64,
    differences: BTreeMap<Difference, u64>,
}

/// How the two walks of one stack differ. What is right says gimli, with all registers and memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    /// The tables are right. framehop follows no memory in expressions and no `rdi`; where it would
    /// need one (signal frames, realigned stacks, `vfork`) it supposes a frame pointer.
    OnlyTables,
    /// No rule can say how to leave the last frame, and the walk by tables ends there, marked.
    /// framehop supposes a frame pointer.
    NoRule,
}

/// All registers, by DWARF's numbers.
fn all_of(regs: &user_regs_struct) -> Registers {
    [
        regs.rax, regs.rdx, regs.rcx, regs.rbx, regs.rsi, regs.rdi, regs.rbp, regs.rsp, regs.r8,
        regs.r9, regs.r10, regs.r11, regs.r12, regs.r13, regs.r14, regs.r15, regs.rip,
    ]
    .map(Some)
}

/// Executes a program instruction by instruction and compares all stacks.
fn compare(mut traced: Traced) -> Outcome {
    let (tables, mut space, oracle) = traced.code();
    let mut outcome = Outcome::default();
    for instruction in 0..INSTRUCTIONS_MAX {
        let regs = traced.registers();
        if regs.rsp < traced.stack.start {
            traced.find_stack();
        }
        let stack = traced.stack_from(regs.rsp);
        let read = |address: u64| {
            let at = usize::try_from(address.wrapping_sub(regs.rsp)).ok()?;
            let word = stack.get(at..at.checked_add(8)?)?;
            Some(u64::from_le_bytes(word.try_into().unwrap()))
        };
        let frame = Frame {
            ip: regs.rip,
            sp: regs.rsp,
            bp: regs.rbp,
            di: regs.rdi,
            position: Position::Interrupted,
        };
        if stack.is_empty() {
            let (_, end) = tables.walk(frame, u64::MAX, |address| traced.word(Avma(address)));
            assert_eq!(end, WalkEnd::Complete, "{regs:#x?}");
            outcome.elsewhere += 1;
        } else {
            let (frames, end) = tables.walk(frame, traced.stack.end, read);
            let theirs = space.walk(
                WalkRegs {
                    ip: Avma(regs.rip),
                    sp: Avma(regs.rsp),
                    bp: Avma(regs.rbp),
                    in_syscall: false,
                },
                &stack,
            );
            outcome.deepest = outcome.deepest.max(frames.len());
            outcome.complete += u64::from(end == WalkEnd::Complete);
            outcome.compared += 1;
            let last = frames.last().and_then(|frame| tables.rule_at(frame.lookup().0));
            let last = last.map(|rule| rule.cfa);
            // At the `ret` of a function that realigned its stack gcc still says that `rbp` is saved,
            // where the caller's `rbp` points to.
            let stale = tables.rule_at(regs.rip).is_some_and(|rule| {
                (rule.cfa, rule.cfa_offset, rule.bp) == (CfaKind::Sp, 8, BpKind::AtBp)
            });
            // Code of the C runtime that nothing describes, and what no rule can say: nothing else
            // ends a walk too early.
            let known = matches!(last, Some(CfaKind::Unsupported | CfaKind::Uncovered)) || stale;
            assert!(
                end == WalkEnd::Complete || known,
                "instruction {instruction}: {frames:x?} {end:x?} by {last:?}"
            );
            if (&frames, end) != (&theirs.frames, theirs.end) {
                let (truth, whole) =
                    oracle.walk(all_of(&regs), |address| traced.word(Avma(address)));
                let ours = frames.iter().map(|frame| frame.address.0).collect::<Vec<_>>();
                let difference = match (last, end) {
                    (_, WalkEnd::Complete) if whole && ours == truth => Difference::OnlyTables,
                    (Some(CfaKind::Unsupported), WalkEnd::Broken) if truth.starts_with(&ours) => {
                        Difference::NoRule
                    }
                    _ => panic!(
                        "instruction {instruction}, last {last:?}\n\
                         tables:   {frames:x?} {end:x?}\nframehop: {theirs:x?}\ngimli:    {truth:x?}"
                    ),
                };
                *outcome.differences.entry(difference).or_default() += 1;
            }
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
    let Outcome { compared, deepest, elsewhere, differences, .. } = &outcome;
    assert!(*compared > 1_500 && *deepest > 40 && *elsewhere > 30, "{outcome:?}");
    assert!(differences[&Difference::OnlyTables] > 30, "{outcome:?}");
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
        let Self { compared, complete, .. } = self;
        let least = match binding {
            Binding::AtStart => compared * 98 / 100,
            Binding::AtFirstCall => compared / 3,
        };
        assert!(*complete >= least, "{self:?}");
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
