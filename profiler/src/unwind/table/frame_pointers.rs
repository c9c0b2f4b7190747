//! Whether code that nothing describes keeps frame pointers.

use std::ops::Range;

use iced_x86::{
    Decoder, DecoderOptions, Instruction, InstructionInfoFactory, Mnemonic, OpAccess, OpKind,
    Register,
};

use super::reading::Code;
use crate::units::Svma;

/// Bytes at the beginning of a range of code by which it is judged.
const JUDGED_MAX: usize = 1 << 20;

/// How many times as often as for anything else code must use `rbp` for frames. What has no frame
/// pointers uses it like any other register; what has them has some pieces that do not, and data
/// between its functions that read as instructions.
const FRAMES_FOR_OTHERS: u32 = 16;

/// Whether a range of code keeps frame pointers: it makes frames, and `rbp` is for nothing else.
pub fn are_kept(code: &Code<'_>, range: &Range<Svma>) -> bool {
    let Some(bytes) = code.bytes(range) else { return false };
    let bytes = &bytes[..bytes.len().min(JUDGED_MAX)];
    let mut decoder = Decoder::with_ip(64, bytes, range.start.0, DecoderOptions::NONE);
    let mut facts = InstructionInfoFactory::new();
    let mut instruction = Instruction::default();
    let (mut frames, mut others) = (0_u32, 0_u32);
    while decoder.can_decode() {
        decoder.decode_out(&mut instruction);
        match use_of(&instruction, &mut facts) {
            Use::Frame => frames += 1,
            Use::Other => others += 1,
            Use::None => {}
        }
    }
    frames > 0 && u64::from(others) * u64::from(FRAMES_FOR_OTHERS) <= u64::from(frames)
}

/// What an instruction does to `rbp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// Nothing, or gives it back.
    None,
    /// Has it point to the frame.
    Frame,
    /// Has it be something else.
    Other,
}

fn use_of(instruction: &Instruction, facts: &mut InstructionInfoFactory) -> Use {
    let is_bp = instruction.op_count() > 0
        && instruction.op0_kind() == OpKind::Register
        && instruction.op0_register().full_register() == Register::RBP;
    if !is_bp {
        return Use::None;
    }
    let from_stack =
        || instruction.op1_kind() == OpKind::Memory && instruction.memory_base() == Register::RSP;
    match (instruction.mnemonic(), instruction.op0_register()) {
        (Mnemonic::Mov, Register::RBP) if instruction.op1_register() == Register::RSP => Use::Frame,
        (Mnemonic::Lea, Register::RBP) if from_stack() => Use::Frame,
        (Mnemonic::Pop, Register::RBP) => Use::None,
        (Mnemonic::Mov, Register::RBP) if from_stack() || is_callers(instruction) => Use::None,
        _ => match facts.info(instruction).op0_access() {
            OpAccess::None | OpAccess::Read | OpAccess::CondRead | OpAccess::NoMemAccess => {
                Use::None
            }
            _ => Use::Other,
        },
    }
}

/// Whether it loads what the frame pointer points to, which is the caller's.
fn is_callers(instruction: &Instruction) -> bool {
    instruction.op1_kind() == OpKind::Memory
        && instruction.memory_base() == Register::RBP
        && instruction.memory_index() == Register::None
        && instruction.memory_displacement64() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bytes: &[u8], expected: bool) {
        const AT: u64 = 0x1000;
        let code = Code { segments: vec![(Svma(AT), bytes)], entry: None };
        let range = Svma(AT)..Svma(AT + bytes.len() as u64);
        assert_eq!(are_kept(&code, &range), expected, "{bytes:02x?}");
    }

    #[test]
    fn code_with_frame_pointers_is_told_from_code_without() {
        // push rbp; mov rbp, rsp; call; pop rbp; ret
        const WITH: [u8; 11] = [0x55, 0x48, 0x89, 0xe5, 0xe8, 0, 0, 0, 0, 0x5d, 0xc3];
        // sub rsp, 24; mov [rsp+16], rbp; lea rbp, [rsp+16]; call; mov rbp, [rsp+16]; add rsp, 24; ret
        const OLDER_GO: [u8; 29] = [
            0x48, 0x83, 0xec, 24, 0x48, 0x89, 0x6c, 0x24, 16, 0x48, 0x8d, 0x6c, 0x24, 16, 0xe8, 0,
            0, 0, 0, 0x48, 0x8b, 0x6c, 0x24, 16, 0x48, 0x83, 0xc4, 24, 0xc3,
        ];
        // push rbp; mov ebp, edi; call; cmp ebp, 1; pop rbp; ret
        const WITHOUT: [u8; 13] = [0x55, 0x89, 0xfd, 0xe8, 0, 0, 0, 0, 0x83, 0xfd, 1, 0x5d, 0xc3];
        check(&WITH, true);
        check(&OLDER_GO, true);
        // mov rbp, [rbp]; and with anything else than 0 added.
        check(&[WITH.as_slice(), &[0x48, 0x8b, 0x6d, 0]].concat(), true);
        check(&[WITH.as_slice(), &[0x48, 0x8b, 0x6d, 8]].concat(), false);
        check(&WITHOUT, false);
        // sub rsp, 8; call; add rsp, 8; ret: says nothing.
        check(&[0x48, 0x83, 0xec, 8, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 8, 0xc3], false);
        check(&[WITH.as_slice(), &WITHOUT].concat(), false);
        check(&[WITH.repeat(16).as_slice(), &WITHOUT].concat(), true);
    }
}
