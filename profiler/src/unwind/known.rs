//! Functions that toolchains put into programs without unwind information, known by their
//! instructions and described as `.debug_frame` would.

use std::ops::Range;

use profiler_common::table::{CfaKind, Rule};

use super::table::reading::{Code, Found};
use crate::units::Svma;

/// How far from its first byte a function is looked at.
pub const CODE_BYTES: usize = 64;

/// How a function that was recognised is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Known {
    /// It is the outermost one.
    Outermost(Range<Svma>),
    /// It pushes one register first, and takes it back last.
    PushesOne(Range<Svma>),
}

/// The entry of a program with musl (`arch/x86_64/crt_arch.h`): clears `rbp`, which marks the
/// outermost frame, and calls a function in C.
pub fn entry(at: Svma, code: &[u8]) -> Option<Known> {
    // xor %rbp,%rbp; mov %rsp,%rdi; lea _DYNAMIC(%rip),%rsi; and $-16,%rsp; call
    let rest = code.strip_prefix(&[0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x8d, 0x35])?;
    let rest = rest.get(4..)?.strip_prefix(&[0x48, 0x83, 0xe4, 0xf0, 0xe8])?;
    let end = at.0.checked_add((code.len() - rest.get(4..)?.len()) as u64)?;
    Some(Known::Outermost(at..Svma(end)))
}

/// Where `main` is, by the entry of a program with glibc (`sysdeps/x86_64/start.S`), which passes it
/// on in `rdi`.
pub fn main_by(entry: Svma, code: &[u8]) -> Option<Svma> {
    code.windows(7).enumerate().find_map(|(at, instruction)| {
        let (&[a, b, c], number) = instruction.split_first_chunk()?;
        let number = i64::from(i32::from_le_bytes(number.try_into().ok()?));
        match [a, b, c] {
            // lea main(%rip),%rdi
            [0x48, 0x8d, 0x3d] => {
                Some(Svma(entry.0.wrapping_add(at as u64 + 7).wrapping_add_signed(number)))
            }
            // mov $main,%rdi
            [0x48, 0xc7, 0xc7] => Some(Svma(number.cast_unsigned())),
            _ => None,
        }
    })
}

/// The `main` that rustc makes, which has no unwind information where panics abort: a push, one
/// call, a pop and the return.
pub fn main(at: Svma, code: &[u8]) -> Option<Known> {
    let [0x50, ..] = code else { return None };
    let popped = code.windows(8).position(|bytes| {
        // call *function(%rip), or call function; pop %rax or %rcx; ret
        matches!(bytes, [0xff, 0x15, _, _, _, _, 0x58 | 0x59, 0xc3])
            || matches!(bytes, [_, 0xe8, _, _, _, _, 0x58 | 0x59, 0xc3])
    })?;
    let end = at.0.checked_add(popped as u64 + 8)?;
    Some(Known::PushesOne(at..Svma(end)))
}

/// What handlers of signals return to: the system call `rt_sigreturn`, with the kernel's signal frame
/// at the stack pointer. Libraries do not describe it, or not as that (musl's
/// `src/signal/x86_64/restore.s`, Go). In order.
///
/// Its first byte is where a handler returns to, looked up by the byte before: padding, if it can
/// be.
pub fn restorers(code: &Code<'_>) -> Vec<Found> {
    /// mov $15,%rax; syscall
    const RESTORER: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
    /// nop, int3
    const PADDING: [u8; 2] = [0x90, 0xcc];
    let mut found = Vec::new();
    for (start, bytes) in &code.segments {
        for at in memchr::memmem::find_iter(bytes, &RESTORER) {
            let before = at.checked_sub(1).filter(|&before| PADDING.contains(&bytes[before]));
            let from = start.0 + before.unwrap_or(at) as u64;
            let to = start.0 + (at + RESTORER.len()) as u64;
            found.push((from..to, Rule::of(CfaKind::Signal)));
        }
    }
    found.sort_unstable_by_key(|(range, _)| range.start);
    found
}

/// Adds what is known to the bytes of a `.debug_frame`.
pub fn describe(known: &[Known], section: &mut Vec<u8>) {
    const UNDEFINED_RETURN_ADDRESS: [u8; 2] = [0x07, 16];
    if known.is_empty() {
        return;
    }
    let common = section.len() as u32;
    // Version 1, no augmentation, factors 1 and -8, return address in column 16; then
    // DW_CFA_def_cfa rsp 8 and DW_CFA_offset of the return address.
    add_entry(section, u32::MAX, &[1, 0, 1, 0x78, 16, 0x0c, 7, 8, 0x90, 1]);
    for known in known {
        let (Known::Outermost(code) | Known::PushesOne(code)) = known;
        let length = code.end.0 - code.start.0;
        let mut entry = [code.start.0.to_le_bytes(), length.to_le_bytes()].concat();
        match known {
            Known::Outermost(_) => entry.extend(UNDEFINED_RETURN_ADDRESS),
            Known::PushesOne(_) => {
                // DW_CFA_advance_loc over the push, DW_CFA_def_cfa_offset; the same for the pop.
                let body = (length - 2) as u8;
                entry.extend([0x41, 0x0e, 16, 0x40 | body, 0x0e, 8]);
            }
        }
        add_entry(section, common, &entry);
    }
}

/// An entry is a whole number of words, the rest `DW_CFA_nop`.
fn add_entry(section: &mut Vec<u8>, of: u32, bytes: &[u8]) {
    let length = (4 + bytes.len()).next_multiple_of(8) + 4;
    section.extend((length as u32).to_le_bytes());
    let end = section.len() + length;
    section.extend(of.to_le_bytes());
    section.extend(bytes);
    section.resize(end, 0);
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;
    use crate::unwind::table::{Sources, Table};

    const AT: Svma = Svma(0x1_bba0);

    const MUSL_ENTRY: [u8; 23] = [
        0x48, 0x31, 0xed, 0x48, 0x89, 0xe7, 0x48, 0x8d, 0x35, 1, 2, 3, 4, 0x48, 0x83, 0xe4, 0xf0,
        0xe8, 1, 2, 3, 4, 0x48,
    ];

    /// Of a release build: push, arguments, call, pop, ret, and what lies behind it.
    const RUST_MAIN: [u8; 41] = [
        0x50, 0x48, 0x89, 0xf1, 0x48, 0x63, 0xd7, 0x48, 0x8d, 0x05, 0xf4, 0xf2, 0xff, 0xff, 0x48,
        0x89, 0x04, 0x24, 0x48, 0x8d, 0x35, 0xf7, 0x35, 0x04, 0x00, 0x48, 0x89, 0xe7, 0x45, 0x31,
        0xc0, 0xff, 0x15, 0xeb, 0x59, 0x04, 0x00, 0x59, 0xc3, 0xcc, 0xcc,
    ];

    #[test]
    fn functions_are_known_by_their_instructions() {
        let entry_end = Svma(AT.0 + 22);
        assert_eq!(entry(AT, &MUSL_ENTRY), Some(Known::Outermost(AT..entry_end)));
        let main_end = Svma(AT.0 + 39);
        assert_eq!(main(AT, &RUST_MAIN), Some(Known::PushesOne(AT..main_end)));
        for length in 0..22 {
            assert_eq!(entry(AT, &MUSL_ENTRY[..length]), None);
        }
        for length in 0..39 {
            assert_eq!(main(AT, &RUST_MAIN[..length]), None);
        }
        assert_eq!(entry(AT, &RUST_MAIN), None);
        assert_eq!(main(AT, &MUSL_ENTRY), None);
    }

    #[test]
    fn handlers_of_signals_return_to_a_system_call() {
        const RESTORER: [u8; 9] = [0x48, 0xc7, 0xc0, 0x0f, 0, 0, 0, 0x0f, 0x05];
        let check = |before: u8, expected: Range<u64>| {
            let bytes = [&[0xc3, before][..], &RESTORER, &[0xc3; 8]].concat();
            let code = Code { segments: vec![(AT, &bytes)], entry: None };
            assert_eq!(restorers(&code), [(expected.clone(), Rule::of(CfaKind::Signal))]);
            let text = vec![AT..Svma(AT.0 + bytes.len() as u64)];
            let mut table = Table::build(&Sources { text, ..Sources::default() });
            table.complete(&code);
            for at in AT.0..AT.0 + bytes.len() as u64 {
                let kind = table.rule_at(Svma(at)).unwrap().cfa;
                assert_eq!(kind == CfaKind::Signal, expected.contains(&at), "byte {}", at - AT.0);
            }
        };
        // A nop, as in musl, and the end of another function.
        check(0x90, AT.0 + 1..AT.0 + 11);
        check(0xc3, AT.0 + 2..AT.0 + 11);
    }

    #[test]
    fn main_is_what_the_entry_passes_on() {
        // xor %ebp,%ebp; the instruction; call
        let check = |instruction: [u8; 7], expected: Option<u64>| {
            let code = [&[0x31, 0xed][..], &instruction, &[0xff, 0x15, 0, 0, 0, 0]].concat();
            assert_eq!(main_by(Svma(0x1000), &code), expected.map(Svma));
        };
        check([0x48, 0x8d, 0x3d, 0xf0, 0xff, 0xff, 0xff], Some(0xff9));
        check([0x48, 0xc7, 0xc7, 0x40, 0x11, 0x40, 0x00], Some(0x40_1140));
        check([0x48, 0x8d, 0x35, 0, 0, 0, 0], None);
    }

    #[test]
    fn what_is_known_becomes_rules() {
        let known = [main(AT, &RUST_MAIN).unwrap(), entry(Svma(0x2_0000), &MUSL_ENTRY).unwrap()];
        let mut section = Vec::new();
        describe(&known, &mut section);
        let text = vec![Svma(0x1_0000)..Svma(0x3_0000)];
        let table =
            Table::build(&Sources { text, debug_frame: Some(&section), ..Sources::default() });
        let check = |at: u64, expected: Rule| {
            assert_eq!(table.rule_at(Svma(at)), Some(expected), "{at:#x}");
        };
        let sp = |cfa_offset| Rule { cfa: CfaKind::Sp, cfa_offset, ..Rule::default() };
        check(AT.0, sp(8));
        check(AT.0 + 1, sp(16));
        check(AT.0 + 37, sp(16));
        check(AT.0 + 38, sp(8));
        check(AT.0 + 39, Rule::of(CfaKind::Uncovered));
        check(0x2_0000, Rule::of(CfaKind::Stop));
        check(0x2_0015, Rule::of(CfaKind::Stop));
        check(0x2_0016, Rule::of(CfaKind::Uncovered));
        assert_eq!((table.described, table.unsupported.iter().count()), (2, 0));
    }
}
