//! Unwind information that nobody's compiler made: tables say what gimli says of it, and no bytes break
//! them or the reader of stored ones. Everything comes from a generator with a fixed seed.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::fs;

use gimli::{
    CieOrFde, DebugFrame, EhFrame, EndianSlice, LittleEndian, RegisterRule, UnwindContext,
    UnwindContextStorage, UnwindSection, UnwindTableRow, X86_64,
};
use object::{Object as _, ObjectSection as _};
use profiler_common::table::{CfaKind, Rule};

use super::{
    Sources, Table,
    machine::State,
    rules::{Bytes, Context},
    stored,
    tests::assert_whole,
};
use crate::{units::Svma, unwind::CodeFile};

/// Where the one function lies, and how long it is.
const CODE: u64 = 0x1_0000;
const CODE_BYTES: u64 = 0x300;
/// Where `.eh_frame` lies.
const EH_FRAME: u64 = 0x9_0000;

/// The same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Any instruction, mostly one that means something.
fn instruction(random: &mut Random, out: &mut Vec<u8>) {
    // rbp, rsp, the return address, others.
    let register = |random: &mut Random| random.of(&[6, 6, 7, 7, 16, 16, 3, 5, 0x7f]);
    let offset = |random: &mut Random, out: &mut Vec<u8>| match random.below(8) {
        // More than a byte, not in its shortest form, too long.
        0 => out.extend([0x80 | random.byte(), random.byte() & 0x7f]),
        1 => out.extend([0x82, 0x80, 0]),
        2 => out.extend([0xff; 9].map(|byte| byte & (0x80 | random.byte()))),
        _ => out.push(random.byte() & 0x7f),
    };
    match random.below(24) {
        0..6 => out.push(0x40 | random.byte() & 0x1f),
        6 => out.extend([0x02, random.byte()]),
        7 => out.extend([0x03, random.byte(), random.below(2) as u8]),
        8..12 => {
            out.push(0x0e);
            offset(random, out);
        }
        12 => {
            out.extend([0x0c, register(random)]);
            offset(random, out);
        }
        13 => out.extend([0x0d, register(random)]),
        14..16 => {
            out.push(0x80 | register(random) & 0x3f);
            out.push(random.of(&[1, 2, 3, 0x7f]));
        }
        16 => out.push(0xc0 | register(random) & 0x3f),
        17 => out.push(0x0a),
        18 => out.push(0x0b),
        19 => out.extend([random.of(&[0x07, 0x08]), register(random)]),
        20 => out.extend([0x09, register(random), register(random)]),
        21 => {
            let expression: &[u8] =
                random.of(&[&[0x76, 0x78, 6], &[0x77, 24, 6, 0x23, 8], &[0x76, 0]]);
            match random.below(2) {
                0 => out.push(0x0f),
                _ => out.extend([random.of(&[0x10, 0x16]), register(random)]),
            }
            out.push(expression.len() as u8);
            out.extend(expression);
        }
        22 => {
            out.extend([random.of(&[0x11, 0x12, 0x14, 0x15]), register(random)]);
            offset(random, out);
        }
        _ => out.push(random.byte()),
    }
}

/// A section with one function; `instructions` are its own.
fn section(is_eh: bool, signal: bool, instructions: &[u8]) -> Vec<u8> {
    let entry = |body: &[u8]| {
        let mut bytes = body.to_vec();
        bytes.resize(body.len().next_multiple_of(4), 0);
        [&(bytes.len() as u32).to_le_bytes(), bytes.as_slice()].concat()
    };
    let augmentation: &[u8] = match (is_eh, signal) {
        (false, _) => b"\0",
        (true, false) => b"zR\0",
        (true, true) => b"zRS\0",
    };
    let mut shared = if is_eh { vec![0; 4] } else { vec![0xff; 4] };
    shared.push(1);
    shared.extend(augmentation);
    shared.extend([1, 0x78, 16]);
    if is_eh {
        shared.extend([1, 0x1b]);
    }
    shared.extend([0x0c, 7, 8, 0x90, 1]);
    let mut bytes = entry(&shared);
    let mut function =
        if is_eh { (bytes.len() as u32 + 4).to_le_bytes().to_vec() } else { vec![0; 4] };
    if is_eh {
        let here = EH_FRAME + bytes.len() as u64 + 8;
        function.extend((CODE.wrapping_sub(here) as u32).to_le_bytes());
        function.extend((CODE_BYTES as u32).to_le_bytes());
        function.push(0);
    } else {
        function.extend(CODE.to_le_bytes());
        function.extend(CODE_BYTES.to_le_bytes());
    }
    function.extend(instructions);
    bytes.extend(entry(&function));
    bytes.extend([0; 4]);
    bytes
}

/// Remembers any number of states, as the tables do.
struct Deep;

impl UnwindContextStorage<usize> for Deep {
    type Rules = Vec<(gimli::Register, RegisterRule<usize>)>;
    type Stack = Vec<UnwindTableRow<usize, Self>>;
}

/// From where on gimli says what, byte by byte of the code.
fn expected<'data, S: UnwindSection<Bytes<'data>>>(section: &S) -> Vec<Rule> {
    let bases = gimli::BaseAddresses::default().set_eh_frame(EH_FRAME);
    let mut entries = section.entries(&bases);
    let mut rules = Vec::new();
    let mut context = UnwindContext::<usize, Deep>::new_in();
    while let Some(entry) = entries.next().unwrap() {
        let CieOrFde::Fde(function) = entry else { continue };
        let function = function.parse(S::cie_from_offset).unwrap();
        assert_eq!((function.initial_address(), function.len()), (CODE, CODE_BYTES));
        let meaning = Context {
            section,
            encoding: function.cie().encoding(),
            is_signal_frame: function.is_signal_trampoline(),
        };
        let mut table = function.rows(section, &bases, &mut context).unwrap();
        while let Ok(Some(row)) = table.next_row() {
            let state = State {
                cfa: row.cfa().clone(),
                bp: row.register(X86_64::RBP),
                return_address: row.register(X86_64::RA),
            };
            let end = row.end_address().clamp(CODE, CODE + CODE_BYTES) - CODE;
            let length = usize::try_from(end).unwrap().max(rules.len());
            rules.resize(length, meaning.rule(&state).unwrap_or_default());
        }
    }
    rules.resize(usize::try_from(CODE_BYTES).unwrap(), Rule::default());
    rules
}

#[test]
fn instructions_mean_what_gimli_says() {
    let mut random = Random(0x6a09_e667_f3bc_c908);
    let (mut unsupported, mut described) = (0, 0);
    for round in 0..12_000 {
        let (is_eh, signal) = (round % 2 == 0, round % 16 == 0);
        let mut instructions = Vec::new();
        for _ in 0..random.below(30) {
            instruction(&mut random, &mut instructions);
        }
        let bytes = section(is_eh, signal, &instructions);
        let sources = Sources {
            text: vec![Svma(CODE)..Svma(CODE + CODE_BYTES)],
            eh_frame: is_eh.then_some(&bytes),
            debug_frame: (!is_eh).then_some(&bytes),
            eh_frame_at: Some(Svma(EH_FRAME)),
            ..Sources::default()
        };
        let table = Table::build(&sources);
        assert_whole(&table);
        let reader = EndianSlice::new(&bytes, LittleEndian);
        let rules = if is_eh {
            let mut section = EhFrame::from(reader);
            section.set_address_size(8);
            expected(&section)
        } else {
            let mut section = DebugFrame::from(reader);
            section.set_address_size(8);
            expected(&section)
        };
        for (address, rule) in (CODE..).zip(rules) {
            let found = table.rule_at(Svma(address)).unwrap();
            assert_eq!(found, rule, "round {round}, at {address:#x}: {instructions:02x?}");
            let kind =
                if found.cfa == CfaKind::Unsupported { &mut unsupported } else { &mut described };
            *kind += 1;
        }
    }
    // Both were tried enough.
    assert!(unsupported > 100_000 && described > 1_000_000, "{unsupported}, {described}");
}

#[test]
fn no_bytes_make_a_table_large() {
    // States remembered without end; one entry for each function; ever smaller steps.
    let remembering = section(false, false, &[0x0a; 60_000]);
    let stepping = section(false, false, &[0x41, 0x0e, 0x10, 0x41, 0x0e, 0x18].repeat(10_000));
    for bytes in [remembering, stepping] {
        let text = vec![Svma(0)..Svma(u64::MAX)];
        let table =
            Table::build(&Sources { text, debug_frame: Some(&bytes), ..Sources::default() });
        assert_whole(&table);
        let pages = table.pages.len();
        assert!(table.rows.len() <= pages + bytes.len(), "{} rows", table.rows.len());
    }
}

#[test]
fn no_bytes_break_real_sections() {
    let bytes = fs::read("/proc/self/exe").unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let section = file.section_by_name(".eh_frame").unwrap();
    let whole = &section.data().unwrap()[..12_000];
    let text = CodeFile::parse(bytes.as_slice()).unwrap().text();
    let build = |eh_frame: &[u8], debug_frame: &[u8]| {
        let table = Table::build(&Sources {
            text: text.clone(),
            eh_frame: Some(eh_frame),
            debug_frame: Some(debug_frame),
            eh_frame_at: Some(Svma(section.address())),
            ..Sources::default()
        });
        assert_whole(&table);
        table.described
    };
    let intact = build(whole, &[]);
    assert!(intact > 100, "{intact} functions");
    for length in (0..400).chain((400..whole.len()).step_by(97)) {
        build(&whole[..length], &whole[length..]);
    }
    let mut random = Random(0x1234_5678_9abc_def1);
    let mut changed = 0;
    for _ in 0..600 {
        let mut bytes = whole.to_vec();
        for _ in 0..=random.below(20) {
            let at = random.below(bytes.len());
            bytes[at] = random.byte();
        }
        changed += u64::from(build(&bytes, &bytes) != intact);
    }
    assert!(changed > 100, "{changed} of the changes had an effect");
    for text in [0..u64::MAX, u64::MAX - 10..u64::MAX, 5..5, 0..1] {
        let text = vec![Svma(text.start)..Svma(text.end)];
        assert_whole(&Table::build(&Sources { text, eh_frame: Some(whole), ..Sources::default() }));
    }
}

/// A checksum tells damage; this is what a file is that was written with a right one.
#[test]
fn no_stored_bytes_break_a_search() {
    let bytes = fs::read("/proc/self/exe").unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    let section = file.section_by_name(".eh_frame").unwrap();
    let table = Table::build(&Sources {
        text: vec![CodeFile::parse(bytes.as_slice()).unwrap().text()[0].clone()],
        eh_frame: Some(&section.data().unwrap()[..12_000]),
        eh_frame_at: Some(Svma(section.address())),
        ..Sources::default()
    });
    let mut whole = Vec::new();
    stored::write(&table, b"identity", &mut whole).unwrap();
    assert_eq!(stored::read(whole.as_slice(), whole.len() as u64, b"identity"), Some(table));
    // The identity, the census, pages and rules: what steers the rest.
    let steering = whole.len().min(1000);
    let mut random = Random(0x9b05_688c_2b3e_6c1f);
    let (mut refused, mut read) = (0, 0);
    for round in 0..20_000 {
        let mut bytes = whole.clone();
        for _ in 0..=random.below(4) {
            let at = 16 + random.below(if round % 2 == 0 { steering } else { bytes.len() } - 16);
            bytes[at] = random.byte();
        }
        let sum = crc32fast::hash(&bytes[16..]);
        bytes[12..16].copy_from_slice(&sum.to_le_bytes());
        let Some(table) = stored::read(bytes.as_slice(), bytes.len() as u64, b"identity") else {
            refused += 1;
            continue;
        };
        read += 1;
        let start = table.first_page.wrapping_shl(16);
        for address in (start..).step_by(0x9999).take(table.pages.len() + 2) {
            table.rule_at(Svma(address));
        }
    }
    assert!(refused > 1000 && read > 1000, "{refused} refused, {read} read");
}
