//! gimli's own evaluation of unwind information, with all registers and all of memory.

use std::{fs::File, ops::Range, os::unix::fs::FileExt as _};

use gimli::{
    BaseAddresses, CfaRule, EhFrame, Encoding, EndianSlice, Evaluation, EvaluationResult,
    Expression, LittleEndian, Location, Register, RegisterRule, UnwindContext, UnwindSection as _,
    UnwindTableRow, Value, X86_64,
};
use object::{Object as _, ObjectSection as _};

pub type Bytes<'data> = EndianSlice<'data, LittleEndian>;

/// By DWARF's numbers; `None` for one whose value is lost.
pub type Registers = [Option<u64>; 17];

/// Why the evaluation ends without a caller.
pub type Lost = &'static str;

/// One frame.
pub struct Evaluator<'a, 'data, M> {
    pub section: &'a EhFrame<Bytes<'data>>,
    pub encoding: Encoding,
    pub registers: Registers,
    pub memory: M,
}

impl<'data, M: Fn(u64) -> Option<u64>> Evaluator<'_, 'data, M> {
    /// The caller's registers, `None` if there is none.
    pub fn caller(&self, row: &UnwindTableRow<usize>) -> Result<Option<Registers>, Lost> {
        if matches!(row.register(X86_64::RA), None | Some(RegisterRule::Undefined)) {
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
        let mut caller = Registers::default();
        for number in 0..17 {
            let register = Register(number);
            let same = matches!(number, 3 | 6 | 12..=15);
            caller[usize::from(number)] = match row.register(register) {
                None | Some(RegisterRule::Undefined) if !same => None,
                None | Some(RegisterRule::Undefined | RegisterRule::SameValue) => {
                    self.registers[usize::from(number)]
                }
                Some(rule) => self.saved(&rule, cfa).ok(),
            };
        }
        caller[usize::from(X86_64::RSP.0)] = Some(cfa);
        self.saved(&row.register(X86_64::RA).unwrap(), cfa)?;
        Ok(Some(caller))
    }

    fn saved(&self, rule: &RegisterRule<usize>, cfa: u64) -> Result<u64, Lost> {
        let at = |address| (self.memory)(address).ok_or("memory");
        match rule {
            RegisterRule::Offset(offset) => at(cfa.wrapping_add_signed(*offset)),
            RegisterRule::ValOffset(offset) => Ok(cfa.wrapping_add_signed(*offset)),
            RegisterRule::Register(register) => self.register(*register),
            RegisterRule::Expression(address) => {
                at(self.expression(address.get(self.section).unwrap())?)
            }
            RegisterRule::ValExpression(value) => self.expression(value.get(self.section).unwrap()),
            other => panic!("{other:?}"),
        }
    }

    fn register(&self, register: Register) -> Result<u64, Lost> {
        self.registers.get(usize::from(register.0)).copied().flatten().ok_or("a register")
    }

    fn expression(&self, expression: Expression<Bytes<'data>>) -> Result<u64, Lost> {
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
                    let value = Value::Generic((self.memory)(address).ok_or("memory")?);
                    evaluation.resume_with_memory(value).unwrap()
                }
                other => panic!("{other:?}"),
            };
        }
        match evaluation.as_result().last().unwrap().location {
            Location::Address { address } => Ok(address),
            ref other => panic!("{other:?}"),
        }
    }
}

/// The `.eh_frame` of a file.
pub struct UnwindInfo {
    data: Vec<u8>,
    pub bases: BaseAddresses,
}

impl UnwindInfo {
    pub fn of(bytes: &[u8]) -> Self {
        let file = object::File::parse(bytes).unwrap();
        let at = |name: &str| file.section_by_name(name).map_or(0, |section| section.address());
        let bases = BaseAddresses::default()
            .set_eh_frame(at(".eh_frame"))
            .set_text(at(".text"))
            .set_got(at(".got"));
        let section = file.section_by_name(".eh_frame").unwrap();
        Self { data: section.uncompressed_data().unwrap().into_owned(), bases }
    }

    pub fn section(&self) -> EhFrame<Bytes<'_>> {
        let mut section = EhFrame::new(&self.data, LittleEndian);
        section.set_address_size(8);
        section
    }
}

/// The code of one process.
#[derive(Default)]
pub struct Oracle {
    modules: Vec<(Range<u64>, u64, UnwindInfo)>,
}

impl Oracle {
    pub fn map(&mut self, range: Range<u64>, bias: u64, file: &File) {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        self.modules.push((range, bias, UnwindInfo::of(&bytes)));
    }

    /// The addresses of all frames, leaf first; whether the last one has no caller.
    pub fn walk(
        &self,
        mut registers: Registers,
        memory: impl Fn(u64) -> Option<u64>,
    ) -> (Vec<u64>, bool) {
        let mut frames = Vec::new();
        let mut interrupted = true;
        while let Some(ip) = registers[usize::from(X86_64::RA.0)] {
            frames.push(ip);
            let lookup = ip - u64::from(!interrupted);
            let module = self.modules.iter().find(|(range, ..)| range.contains(&lookup));
            let Some((_, bias, info)) = module else { break };
            let (section, address) = (info.section(), lookup.wrapping_sub(*bias));
            let function = section.fde_for_address(&info.bases, address, |section, bases, at| {
                section.cie_from_offset(bases, at)
            });
            let Ok(function) = function else {
                // An entry of a procedure linkage table that nothing describes.
                let sp = registers[usize::from(X86_64::RSP.0)];
                let return_address = sp.filter(|_| frames.len() == 1).and_then(&memory);
                registers[usize::from(X86_64::RA.0)] = return_address;
                registers[usize::from(X86_64::RSP.0)] = sp.map(|sp| sp + 8);
                interrupted = false;
                continue;
            };
            let mut context = UnwindContext::new();
            let row = function
                .unwind_info_for_address(&section, &info.bases, &mut context, address)
                .unwrap();
            let encoding = function.cie().encoding();
            let evaluator = Evaluator { section: &section, encoding, registers, memory: &memory };
            match evaluator.caller(row) {
                Ok(Some(caller)) => registers = caller,
                Ok(None) => return (frames, true),
                Err(_) => break,
            }
            interrupted = function.is_signal_trampoline();
        }
        (frames, false)
    }
}
