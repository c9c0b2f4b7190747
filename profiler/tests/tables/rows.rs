//! Row by row: a step by the table's rule gives the registers that gimli's evaluation of the row
//! gives, at the first and last address of every row.

use std::{collections::BTreeMap, fs, path::PathBuf};

use gimli::{
    BaseAddresses, CfaRule, CieOrFde, EhFrame, Encoding, EndianSlice, Evaluation, EvaluationResult,
    Expression, LittleEndian, Location, Register, RegisterRule, UnwindContext, UnwindSection as _,
    UnwindTableRow, Value, X86_64,
};
use object::{Object as _, ObjectSection as _};
use profiler_common::{
    table::CfaKind,
    unwind::{Frame, Position, Step, step},
};
use stallscope::{units::Svma, unwind::CodeFile};

type Bytes<'data> = EndianSlice<'data, LittleEndian>;

/// Registers in which no two results are the same by chance.
const SP: u64 = 0x7ffe_0000_1230;
const BP: u64 = 0x7ffe_0004_5670;
const DI: u64 = 0x5555_1111;

/// What any memory holds: something above the stack pointer, and something else everywhere.
fn memory(address: u64) -> u64 {
    0x7fff_0000_0000 + (address.wrapping_mul(0x9e37_79b9) & 0x0fff_fff8)
}

/// Registers of the caller: `None` if there is none, an error with the register that is not known.
type Caller = Result<Option<(u64, u64, u64)>, &'static str>;

struct Evaluator<'a, 'data> {
    section: &'a EhFrame<Bytes<'data>>,
    encoding: Encoding,
    ip: u64,
}

impl<'data> Evaluator<'_, 'data> {
    fn register(&self, register: Register) -> Result<u64, &'static str> {
        match register {
            X86_64::RSP => Ok(SP),
            X86_64::RBP => Ok(BP),
            X86_64::RA => Ok(self.ip),
            X86_64::RDI => Ok(DI),
            _ => Err("a register that is not followed"),
        }
    }

    fn expression(&self, expression: Expression<Bytes<'data>>) -> Result<u64, &'static str> {
        let mut evaluation: Evaluation<Bytes<'_>> = expression.evaluation(self.encoding);
        let mut result = evaluation.evaluate().unwrap();
        loop {
            result = match result {
                EvaluationResult::Complete => break,
                EvaluationResult::RequiresRegister { register, .. } => {
                    let value = Value::Generic(self.register(register)?);
                    evaluation.resume_with_register(value).unwrap()
                }
                EvaluationResult::RequiresMemory { address, .. } => {
                    evaluation.resume_with_memory(Value::Generic(memory(address))).unwrap()
                }
                other => panic!("{other:?}"),
            };
        }
        match evaluation.as_result().last().unwrap().location {
            Location::Address { address } => Ok(address),
            ref other => panic!("{other:?}"),
        }
    }

    fn saved(
        &self,
        rule: Option<RegisterRule<usize>>,
        cfa: u64,
        same: u64,
    ) -> Result<u64, &'static str> {
        match rule {
            None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => Ok(same),
            Some(RegisterRule::Offset(offset)) => Ok(memory(cfa.wrapping_add_signed(offset))),
            Some(RegisterRule::ValOffset(offset)) => Ok(cfa.wrapping_add_signed(offset)),
            Some(RegisterRule::Register(register)) => self.register(register),
            Some(RegisterRule::Expression(at)) => {
                Ok(memory(self.expression(at.get(self.section).unwrap())?))
            }
            Some(RegisterRule::ValExpression(value)) => {
                self.expression(value.get(self.section).unwrap())
            }
            Some(other) => panic!("{other:?}"),
        }
    }

    fn caller(&self, row: &UnwindTableRow<usize>) -> Caller {
        let return_address = row.register(X86_64::RA);
        if matches!(return_address, None | Some(RegisterRule::Undefined)) {
            return Ok(None);
        }
        let cfa = match row.cfa() {
            CfaRule::RegisterAndOffset { register, offset } => {
                self.register(*register)?.wrapping_add_signed(*offset)
            }
            CfaRule::Expression(expression) => {
                self.expression(expression.get(self.section).unwrap())?
            }
        };
        let ip = self.saved(return_address, cfa, self.ip)?;
        let bp = self.saved(row.register(X86_64::RBP), cfa, BP)?;
        Ok(Some((ip, cfa, bp)))
    }
}

/// Compares all rows of a file; returns how many, and how many of them no rule can say.
fn compare(bytes: &[u8]) -> (u64, BTreeMap<&'static str, u64>) {
    let table = CodeFile::parse(bytes).unwrap().table();
    let file = object::File::parse(bytes).unwrap();
    let at = |name: &str| file.section_by_name(name).map_or(0, |section| section.address());
    let data = file.section_by_name(".eh_frame").unwrap().uncompressed_data().unwrap();
    let mut section = EhFrame::new(&data, LittleEndian);
    section.set_address_size(8);
    let bases = BaseAddresses::default()
        .set_eh_frame(at(".eh_frame"))
        .set_text(at(".text"))
        .set_got(at(".got"));
    let mut context = UnwindContext::new();
    let (mut rows, mut unsupported) = (0, BTreeMap::new());
    let mut entries = section.entries(&bases);
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(function) = entry else { continue };
        let function = function.parse(|section, bases, at| section.cie_from_offset(bases, at));
        let function = function.unwrap();
        let encoding = function.cie().encoding();
        let mut of_function = function.rows(&section, &bases, &mut context).unwrap();
        while let Some(row) = of_function.next_row().unwrap() {
            if row.start_address() >= row.end_address() {
                continue;
            }
            rows += 1;
            for ip in [row.start_address(), row.end_address() - 1] {
                let expected = Evaluator { section: &section, encoding, ip }.caller(row);
                let frame = Frame { ip, sp: SP, bp: BP, di: DI, position: Position::Interrupted };
                let rule = table.rule_at(Svma(ip)).unwrap();
                if rule.cfa == CfaKind::Unsupported {
                    let why = expected.expect_err("gimli can say what the table cannot");
                    *unsupported.entry(why).or_default() += 1;
                    continue;
                }
                let found = match step(rule, frame, |address| Some(memory(address))) {
                    Step::To(Frame { ip, sp, bp, .. }) => Ok(Some((ip, sp, bp))),
                    Step::Outermost => Ok(None),
                    Step::Failed(failure) => panic!("{failure:?} at {ip:#x} by {rule:?}"),
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

fn check(path: PathBuf, at_least: u64) {
    let (rows, unsupported) = compare(&fs::read(&path).unwrap());
    eprintln!("{}: {rows} rows, not supported: {unsupported:?}", path.display());
    assert!(rows > at_least, "{rows} rows");
    // Prologues and epilogues of functions that realign their stack, and hand-written code.
    assert!(unsupported.values().sum::<u64>() * 100 < rows, "{unsupported:?}");
}

#[test]
fn of_the_c_library() {
    check(mapped("/libc.so"), 10_000);
}

#[test]
fn of_the_dynamic_linker() {
    check(mapped("/ld-linux"), 1_000);
}

#[test]
fn of_a_rust_program() {
    check(env!("CARGO_BIN_EXE_stallscope").into(), 10_000);
}
