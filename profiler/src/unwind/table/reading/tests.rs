//! A static musl program without its unwind information, against what the information says; and code that
//! must not be believed.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{fs, process::Command};

use profiler_common::table::{BpKind, CfaKind, Rule};

use super::{
    Code, instructions, read,
    state::{Bp, State},
};
use crate::{
    units::Svma,
    unwind::{CodeFile, elf, table::tests},
};

/// Threads, locks, sockets, files and processes: most of what musl has that waits.
const PROGRAM: &str = r#"
use std::{fs, net::TcpListener, process::Command, sync::{Condvar, Mutex}, thread, time::Duration};
fn main() {
    let (lock, condition) = (Mutex::new(0), Condvar::new());
    thread::scope(|scope| {
        scope.spawn(|| thread::sleep(Duration::from_millis(1)));
        let _ = condition.wait_timeout(lock.lock().unwrap(), Duration::from_millis(1));
    });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("{listener:?} {:?} {:?}", fs::read_dir("/").map(Iterator::count), Command::new("true").status());
}
"#;

#[test]
fn what_is_read_is_what_the_unwind_information_says() {
    let dir = tempfile::tempdir().unwrap();
    let run = |program: &str, arguments: &[&str]| {
        let status =
            Command::new(program).args(arguments).current_dir(dir.path()).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    };
    fs::write(dir.path().join("whole.rs"), PROGRAM).unwrap();
    run("rustc", &["-O", "--target", "x86_64-unknown-linux-musl", "whole.rs"]);
    run("strip", &["-o", "stripped", "whole"]);
    let whole = fs::read(dir.path().join("whole")).unwrap();
    let whole = CodeFile::parse(whole.as_slice()).unwrap().table();
    let bytes = fs::read(dir.path().join("stripped")).unwrap();
    let file = CodeFile::parse(bytes.as_slice()).unwrap();
    let (before, after) = (file.table(), file.complete_table(bytes.as_slice()));
    tests::assert_whole(&after);

    let text = file.text().remove(0);
    let at = usize::try_from(text.start.0).unwrap();
    let code = Code {
        // This linker puts code where it lies in the file.
        segments: vec![(text.start, &bytes[at..usize::try_from(text.end.0).unwrap()])],
        entry: elf::entry(bytes.as_slice()),
    };
    let (mut compared, mut bytes) = (0, 0);
    for (at, told) in instructions(&code, &before.uncovered) {
        let Some(state) = told.state.filter(|state| state.rule().is_some()) else { continue };
        let said = whole.rule_at(Svma(at)).unwrap();
        assert_ne!(after.rule_at(Svma(at)).unwrap().cfa, CfaKind::Uncovered, "{at:#x}");
        // Unwind information of assembly is made by a script of musl's that reads it line by line and does
        // not know that a child begins with another stack: that it has no return address holds for the
        // parent too.
        let is_wrong = said.cfa == CfaKind::Stop && !state.is_outermost;
        if said.cfa != CfaKind::Uncovered && !is_wrong {
            assert!(agree(state, said), "{at:#x}: {state:?}, said is {said:?}");
            compared += 1;
            bytes += told.end - at;
        }
    }
    let of = |ranges: &[std::ops::Range<Svma>]| {
        ranges.iter().map(|range| range.end.0 - range.start.0).sum::<u64>()
    };
    let uncovered = of(&before.uncovered);
    let rest = of(&after.uncovered);
    let seen = format!("{compared} instructions, {bytes} of {uncovered} bytes, {rest} are left");
    assert!(compared > 10_000 && bytes * 10 > uncovered * 8 && rest * 10 < uncovered * 2, "{seen}");
}

/// Whether unwind information says what was read, in whichever registers.
fn agree(state: State, said: Rule) -> bool {
    let Rule { cfa, bp, bp_offset, cfa_offset } = said;
    let same_cfa = match cfa {
        CfaKind::Stop => return state.is_outermost,
        CfaKind::Sp => state.sp == Some(cfa_offset),
        CfaKind::Bp => state.bp == Bp::BelowCfa(cfa_offset),
        _ => false,
    };
    let same_bp = match bp {
        BpKind::Same => state.bp == Bp::Callers,
        BpKind::AtCfa => state.saved_bp == Some(bp_offset.into()),
        BpKind::AtBp => false,
    };
    same_cfa && same_bp
}

/// Rules that are found from the first byte on, each with the bytes it holds for.
fn check(code: &[u8], expected: &[(u64, Option<Rule>)]) {
    const AT: u64 = 0x1000;
    let end = AT + code.len() as u64;
    let whole = Code { segments: vec![(Svma(AT), code)], entry: None };
    let found = read(&whole, &[Svma(AT)..Svma(end)]);
    let mut at = AT;
    for &(bytes, rule) in expected {
        for byte in at..at + bytes {
            let there = found.iter().find(|(range, _)| range.contains(&byte));
            assert_eq!(there.map(|(_, rule)| *rule), rule, "byte {} of {code:02x?}", byte - AT);
        }
        at += bytes;
    }
    assert_eq!(at, end);
}

#[test]
fn a_function_must_put_back_what_it_moves() {
    let sp = |n| Some(Rule { cfa: CfaKind::Sp, bp: BpKind::Same, bp_offset: 0, cfa_offset: n });
    let saved = |cfa, n| Some(Rule { cfa, bp: BpKind::AtCfa, bp_offset: -16, cfa_offset: n });
    // push rbx; sub rsp, 16; add rsp, 16; pop rbx; ret
    check(
        &[0x53, 0x48, 0x83, 0xec, 16, 0x48, 0x83, 0xc4, 16, 0x5b, 0xc3],
        &[(1, sp(8)), (4, sp(16)), (4, sp(32)), (1, sp(16)), (1, sp(8))],
    );
    // push rbp; mov rbp, rsp; and rsp, -32; leave; ret
    check(
        &[0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xe4, 0xe0, 0xc9, 0xc3],
        &[
            (1, sp(8)),
            // Saved, and still there.
            (3, sp(16)),
            (5, saved(CfaKind::Bp, 16)),
            (1, sp(8)),
        ],
    );
    // push rbx; ret: returns to what it pushed.
    check(&[0x53, 0xc3], &[(2, None)]);
    // push rbp; xor ebp, ebp; add rsp, 8; ret: rbp is lost.
    check(&[0x55, 0x31, 0xed, 0x48, 0x83, 0xc4, 8, 0xc3], &[(8, None)]);
    // je +1; push rbx; ret: two ways that disagree.
    check(&[0x74, 1, 0x53, 0xc3], &[(4, None)]);
    // push rbp; test edi, edi; je +2; xor ebp, ebp; pop rbp; ret: two ways that both put it back.
    check(
        &[0x55, 0x85, 0xff, 0x74, 2, 0x31, 0xed, 0x5d, 0xc3],
        &[(1, sp(8)), (6, sp(16)), (1, saved(CfaKind::Sp, 16)), (1, sp(8))],
    );
    // push rbx; jmp rax: nothing proves how it began.
    check(&[0x53, 0xff, 0xe0], &[(3, None)]);
    // push rbx; call rax: cut off.
    check(&[0x53, 0xff, 0xd0], &[(3, None)]);
}
