//! Row by row: a step by the table's rule gives the registers that a step by the row itself gives,
//! at the first and last address of every row.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use gimli::{CieOrFde, EhFrame, UnwindContext, UnwindSection as _, X86_64};
use profiler_common::{
    table::CfaKind,
    unwind::{self, Failure, Position, step},
};
use stallscope::{
    units::Svma,
    unwind::{
        CodeFile, Registers,
        frame::{Frame, Leaver, Step},
    },
};

/// Registers in which no two results are the same by chance.
const SP: u64 = 0x7ffe_0000_1230;
const BP: u64 = 0x7ffe_0004_5670;
const DI: u64 = 0x5555_1111;

/// What memory holds: something above the stack pointer, and something else everywhere.
fn memory(address: u64) -> u64 {
    0x7fff_0000_0000 + (address.wrapping_mul(0x9e37_79b9) & 0x0fff_fff8)
}

/// Compares all rows of a file; returns how many, and how many of them no rule can say.
fn compare(bytes: &[u8]) -> (u64, BTreeMap<String, u64>) {
    let code = CodeFile::parse(bytes).unwrap();
    let (table, info) = (code.table(), code.info());
    let (section, bases) = (info.eh_frame_reader(), info.bases());
    let mut leaver = Leaver::default();
    let mut context = UnwindContext::new();
    let (mut rows, mut unsupported) = (0, BTreeMap::new());
    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(function) = entry else { continue };
        let function = function.parse(EhFrame::cie_from_offset).unwrap();
        let mut of_function = function.rows(&section, &bases, &mut context).unwrap();
        while let Some(row) = of_function.next_row().unwrap() {
            if row.start_address() >= row.end_address() {
                continue;
            }
            rows += 1;
            for ip in [row.start_address(), row.end_address() - 1] {
                // What a rule cannot say needs another register, which is lost here.
                let mut registers = Registers::default();
                registers.set(X86_64::RSP, Some(SP));
                registers.set(X86_64::RBP, Some(BP));
                registers.set(X86_64::RDI, Some(DI));
                registers.set(X86_64::RA, Some(ip));
                let frame = Frame { registers, position: Position::Interrupted };
                let memory = |address| Some(memory(address));
                let expected = match leaver.leave(Some(info), 0, &frame, &memory) {
                    Step::To(caller) => {
                        Ok(Some((caller.ip(), caller.sp(), caller.registers.get(X86_64::RBP))))
                    }
                    Step::Outermost => Ok(None),
                    Step::Failed(failure) => Err(failure),
                    other => panic!("{other:?} at {ip:#x}"),
                };
                let frame =
                    unwind::Frame { ip, sp: SP, bp: BP, di: DI, position: Position::Interrupted };
                let rule = table.rule_at(Svma(ip)).unwrap();
                if rule.cfa == CfaKind::Unsupported {
                    let why = expected.expect_err("the row can be followed and the rule cannot");
                    assert_eq!(why, Failure::RegisterLost, "at {ip:#x}");
                    *unsupported.entry(format!("{why:?}")).or_default() += 1;
                    continue;
                }
                let found = match step(rule, frame, memory) {
                    unwind::Step::To(unwind::Frame { ip, sp, bp, .. }) => {
                        Ok(Some((ip, sp, Some(bp))))
                    }
                    unwind::Step::Outermost => Ok(None),
                    unwind::Step::Failed(failure) => panic!("{failure:?} at {ip:#x} by {rule:?}"),
                };
                assert_eq!(found, expected, "at {ip:#x} by {rule:?}");
            }
        }
    }
    (rows, unsupported)
}

fn mapped(name: &str) -> PathBuf {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let path = maps.lines().filter_map(|line| line.split_once('/')).map(|(_, path)| path);
    let path = path.into_iter().find(|path| path.contains(name)).unwrap();
    format!("/{path}").into()
}

fn check(path: &Path, at_least: u64) {
    let (rows, unsupported) = compare(&fs::read(path).unwrap());
    eprintln!("{}: {rows} rows, not supported: {unsupported:?}", path.display());
    assert!(rows > at_least, "{rows} rows");
    // Prologues and epilogues of functions that realign their stack, and hand-written code.
    assert!(unsupported.values().sum::<u64>() * 100 < rows, "{unsupported:?}");
}

#[test]
fn of_the_c_library() {
    check(&mapped("/libc.so"), 10_000);
}

#[test]
fn of_the_dynamic_linker() {
    check(&mapped("/ld-linux"), 1_000);
}

#[test]
fn of_a_rust_program() {
    check(env!("CARGO_BIN_EXE_stallscope").as_ref(), 10_000);
}
