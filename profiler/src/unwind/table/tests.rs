//! Programs assembled for the purpose.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{fs, process::Command};

use object::{Object as _, ObjectSection as _};
use profiler_common::table::{BpKind, CfaKind, Page, Rule};

use super::{Sources, Table, Unsupported};
use crate::{units::Svma, unwind::CodeFile};

/// Where the code of every program here begins: 64 bytes before a text page ends.
pub const TEXT: u64 = 0x40_ffc0;

/// Assembles a program.
pub fn program(assembly: &str) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let source = format!(".section .note.GNU-stack, \"\", @progbits\n.text\n{assembly}\n");
    fs::write(dir.path().join("code.s"), source).unwrap();
    let status = Command::new("gcc")
        .args(["-nostdlib", "-static", "-Wl,--build-id=none,-e0", "code.s", "-o", "code"])
        .arg(format!("-Wl,-Ttext={TEXT:#x}"))
        .current_dir(dir.path())
        .status()
        .unwrap();
    assert!(status.success());
    fs::read(dir.path().join("code")).unwrap()
}

fn table(assembly: &str) -> Table {
    CodeFile::parse(program(assembly).as_slice()).unwrap().table()
}

fn rule(cfa: CfaKind, cfa_offset: i32, bp: BpKind, bp_offset: i16) -> Rule {
    Rule { cfa, bp, bp_offset, cfa_offset }
}

fn sp(offset: i32) -> Rule {
    rule(CfaKind::Sp, offset, BpKind::Same, 0)
}

fn check(table: &Table, expected: &[(u64, Rule)]) {
    for (offset, rule) in expected {
        assert_eq!(table.rule_at(Svma(TEXT + offset)), Some(*rule), "at {offset:#x}");
    }
}

#[test]
fn each_form_of_unwind_information_has_its_rule() {
    // One function of one byte for each form: directives, and the rule.
    let forms: &[(&str, Rule)] = &[
        ("", rule(CfaKind::Sp, 8, BpKind::Same, 0)),
        (".cfi_def_cfa_offset 48; .cfi_offset rbp, -16", rule(CfaKind::Sp, 48, BpKind::AtCfa, -16)),
        (".cfi_def_cfa rbp, 16; .cfi_offset rbp, -16", rule(CfaKind::Bp, 16, BpKind::AtCfa, -16)),
        (".cfi_undefined rip", Rule::of(CfaKind::Stop)),
        // vfork: the return address was popped.
        (
            ".cfi_def_cfa_offset 0; .cfi_register rip, rdi",
            rule(CfaKind::ReturnInDi, 0, BpKind::Same, 0),
        ),
        // A realigned stack: CFA = *(rbp - 8), rbp = *rbp.
        (
            ".cfi_escape 0x0f,3,0x76,0x78,6; .cfi_escape 0x10,6,2,0x76,0",
            rule(CfaKind::AtBp, Rule::join(-8, 0), BpKind::AtBp, 0),
        ),
        // Assembly: CFA = *(rsp + 24) + 8.
        (
            ".cfi_escape 0x0f,5,0x77,24,6,0x23,8",
            rule(CfaKind::AtSp, Rule::join(24, 8), BpKind::Same, 0),
        ),
        // A procedure linkage table.
        (
            ".cfi_escape 0x0f,11,0x77,8,0x80,0,0x3f,0x1a,0x3b,0x2a,0x33,0x24,0x22",
            rule(CfaKind::Plt, 11, BpKind::Same, 0),
        ),
        // What a signal handler returns to: CFA = *(rsp + 160).
        (".cfi_signal_frame; .cfi_escape 0x0f,4,0x77,0xa0,1,6", Rule::of(CfaKind::Signal)),
    ];
    let functions = forms
        .iter()
        .map(|(form, _)| format!(".cfi_startproc; {form}; nop; .cfi_endproc; "))
        .collect::<Vec<_>>();
    let table = table(&functions.concat());
    for (offset, (form, rule)) in forms.iter().enumerate() {
        assert_eq!(table.rule_at(Svma(TEXT + offset as u64)), Some(*rule), "{form}");
    }
    assert_eq!(table.unsupported.iter().count(), 0);
    assert_eq!(table.described, forms.len() as u64);
}

#[test]
fn what_no_rule_can_say_is_counted_by_kind() {
    let kinds: &[(&str, Unsupported)] = &[
        (".cfi_def_cfa r10, 0", Unsupported::CfaRegister),
        // *rsp - 8
        (".cfi_escape 0x0f,4,0x77,0,6,0x38", Unsupported::CfaExpression),
        (".cfi_register rbp, r9", Unsupported::SavedBp),
        (".cfi_offset rip, -16", Unsupported::ReturnAddress),
        (".cfi_register rip, rcx", Unsupported::ReturnAddress),
        (".cfi_signal_frame", Unsupported::SignalFrame),
        (".cfi_offset rbp, -80000", Unsupported::Offset),
    ];
    for (form, kind) in kinds {
        let table = table(&format!(
            ".cfi_startproc; nop; nop; {form}; .skip 3; .cfi_def_cfa rsp, 8; .cfi_endproc"
        ));
        let (rows, bytes) = if *kind == Unsupported::SignalFrame { (2, 5) } else { (1, 3) };
        let found = table
            .unsupported
            .iter()
            .map(|(kind, share)| (kind, share.rows, share.bytes))
            .collect::<Vec<_>>();
        assert_eq!(found, [(*kind, rows, bytes)], "{form}");
        check(&table, &[(4, Rule::default())]);
    }
}

#[test]
fn a_page_begins_with_the_rule_that_holds_there() {
    //   0x40 | page   +0x10040 | page   +0x20040 | end
    let table = table(
        ".cfi_startproc; .skip 0x20; .cfi_def_cfa_offset 16; .skip 0x10020; .cfi_def_cfa_offset 32
         .skip 0x100; .cfi_def_cfa_offset 48; .skip 0xff00; .cfi_endproc",
    );
    check(
        &table,
        &[
            (0, sp(8)),
            (0x1f, sp(8)),
            (0x20, sp(16)),
            (0x40, sp(16)),
            (0x1003f, sp(16)),
            (0x10040, sp(32)),
            (0x1013f, sp(32)),
            (0x10140, sp(48)),
            (0x2003f, sp(48)),
        ],
    );
    assert_eq!(table.rule_at(Svma(TEXT - 0x10000)), None);
    assert_eq!(table.rule_at(Svma(TEXT + 0x20040)), None);
    // Before the code; 0x20. Carried over. At once the new one; 0x140 of it.
    let rows = |first_row, rows| Page { first_row, rows };
    assert_eq!(table.pages, [rows(0, 3), rows(3, 1), rows(4, 2)]);
}

#[test]
fn padding_belongs_to_a_function_and_a_gap_to_none() {
    let of = |skip: u64| {
        table(&format!(
            ".cfi_startproc; .cfi_def_cfa_offset 16; .skip 4; .cfi_endproc; .skip {skip}
             .cfi_startproc; .cfi_undefined rip; .skip 4; .cfi_endproc; .skip 16"
        ))
    };
    let stop = Rule::of(CfaKind::Stop);
    let uncovered = Rule::of(CfaKind::Uncovered);
    let at = |offset: u64| Svma(TEXT + offset);
    let padded = of(15);
    // The outermost function's first byte is a return address to whoever it is left to.
    check(&padded, &[(3, sp(16)), (17, sp(16)), (18, stop), (22, stop), (23, uncovered)]);
    assert_eq!(padded.uncovered, [at(23)..at(39)]);
    let apart = of(16);
    check(&apart, &[(3, sp(16)), (4, uncovered), (18, uncovered), (19, stop), (24, uncovered)]);
    assert_eq!(apart.uncovered, [at(4)..at(20), at(24)..at(40)]);
}

#[test]
fn debug_frame_describes_what_eh_frame_does_not() {
    let debug = table(
        ".cfi_sections .debug_frame
         .cfi_startproc; .cfi_def_cfa_offset 24; .skip 4; .cfi_endproc",
    );
    check(&debug, &[(0, sp(24)), (3, sp(24))]);

    let described = |offset: u32| {
        let assembly = format!(
            ".cfi_sections .debug_frame
             .cfi_startproc; .cfi_def_cfa_offset {offset}; .skip 4; .cfi_endproc; .skip 4"
        );
        program(&assembly)
    };
    let eh = program(".skip 4; .cfi_startproc; .cfi_def_cfa_offset 40; .skip 4; .cfi_endproc");
    let both = |debug: &[u8], eh: &[u8]| {
        let (debug, eh) = (object::File::parse(debug).unwrap(), object::File::parse(eh).unwrap());
        let section = eh.section_by_name(".eh_frame").unwrap();
        Table::build(&Sources {
            text: vec![Svma(TEXT)..Svma(TEXT + 8)],
            eh_frame: Some(section.data().unwrap()),
            eh_frame_at: Some(Svma(section.address())),
            debug_frame: Some(debug.section_by_name(".debug_frame").unwrap().data().unwrap()),
            ..Sources::default()
        })
    };
    check(&both(&described(24), &eh), &[(0, sp(24)), (3, sp(24)), (4, sp(40)), (7, sp(40))]);
    let same_place = program(".cfi_startproc; .cfi_def_cfa_offset 40; .skip 8; .cfi_endproc");
    check(&both(&described(24), &same_place), &[(0, sp(40)), (7, sp(40))]);
}

/// What every search leans on.
pub fn assert_whole(table: &Table) {
    let mut next = 0;
    for page in &table.pages {
        assert_eq!(page.first_row, next);
        next += page.rows;
        let rows = &table.rows[page.first_row as usize..next as usize];
        assert_eq!(rows[0].low(), 0);
        assert!(rows.is_sorted_by(|a, b| a.low() < b.low()));
        assert!(rows.iter().all(|row| usize::from(row.rule()) < table.rules.len()));
    }
    assert_eq!(next as usize, table.rows.len());
}
