//! Stack by stack: at every instruction that a program executes, a walk by tables and one by
//! framehop find the same frames.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::{BufRead as _, BufReader, Write as _},
    process::{Command, Stdio},
};

use profiler_common::{
    table::CfaKind,
    unwind::{Frame, Position},
};
use stallscope::{
    units::Avma,
    unwind::{WalkRegs, space::WalkEnd},
};

use crate::traced::{Traced, compile};

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
    /// Stacks that only the tables could walk, by the reason.
    only_tables: BTreeMap<&'static str, u64>,
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
            if (&frames, end) != (&theirs.frames, theirs.end) {
                let kind = tables.rule_at(regs.rip).map(|rule| rule.cfa);
                let reason = match kind {
                    Some(CfaKind::ReturnInDi) => "the return address is in rdi",
                    _ => panic!(
                        "instruction {instruction}, rule {:?}, tables: {frames:x?} {end:x?}, framehop: {theirs:x?}",
                        tables.rule_at(regs.rip)
                    ),
                };
                assert_eq!(end, WalkEnd::Complete, "{reason}");
                *outcome.only_tables.entry(reason).or_default() += 1;
            }
        }
        if !traced.step() {
            break;
        }
    }
    outcome
}

/// The fixture, built with these options, at its first instruction after it said that it is ready.
fn fixture(options: &[&str]) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let mut child = Command::new(compile(options, dir.path()))
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
    compare(traced)
}

fn check(options: &[&str]) {
    let outcome = fixture(options);
    eprintln!("{options:?}: {outcome:?}");
    let Outcome { compared, complete, deepest, elsewhere, .. } = outcome;
    assert!(compared > 3_000 && deepest > 40 && elsewhere > 30, "{outcome:?}");
    assert!(complete * 1000 >= compared * 990, "{outcome:?}");
}

#[test]
fn without_optimisation_with_frame_pointers() {
    check(&["-O0", "-fno-omit-frame-pointer"]);
}

#[test]
fn optimised_without_frame_pointers() {
    check(&["-O2", "-fomit-frame-pointer"]);
}

#[test]
fn for_size() {
    check(&["-Os", "-fomit-frame-pointer"]);
}

#[test]
fn static_and_optimised() {
    check(&["-O3", "-fomit-frame-pointer", "-static"]);
}

#[test]
fn at_a_fixed_address_and_bound_lazily() {
    check(&["-O2", "-fomit-frame-pointer", "-no-pie", "-Wl,-z,lazy"]);
}

#[test]
fn a_rust_program() {
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("not-a-recording");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_stallscope"))
        .args(["inspect", "recording"])
        .arg(&pipe)
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // Waits until the program reads from it.
    let mut feed = OpenOptions::new().write(true).open(&pipe).unwrap();
    let traced = Traced::stop(child);
    feed.write_all(&[0x5a; 4096]).unwrap();
    drop(feed);
    let outcome = compare(traced);
    eprintln!("stallscope: {outcome:?}");
    assert!(outcome.compared > 3_000 && outcome.deepest > 8, "{outcome:?}");
    assert!(outcome.complete * 1000 >= outcome.compared * 990, "{outcome:?}");
}
