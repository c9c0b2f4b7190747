//! Reads the usual forms of functions and instructions from their bytes.
//!
//! gimli reads all forms, but its readers cost more than what they read: with these few read here
//! tables are made in two thirds of the time. What is not one of them, or is cut short, is left to
//! gimli, whose word it is whether it means anything.

use gimli::{
    CallFrameInstruction, CommonInformationEntry, Register,
    constants::{self, DwCfa},
};

use super::rules::Bytes;

/// A function's description.
#[derive(Clone, Copy, Debug)]
pub struct Function<'data> {
    pub start: u64,
    pub end: u64,
    pub instructions: &'data [u8],
}

/// The instruction that bytes begin with.
#[derive(Debug)]
pub enum Next {
    Instruction(CallFrameInstruction<usize>),
    End,
    /// Not one of the usual ones.
    Unusual,
}

/// The description of `length` bytes behind the length at `offset` of a section that lies at `section_at`.
pub fn function<'data>(
    section: &'data [u8],
    section_at: Option<u64>,
    (offset, length): (usize, usize),
    entry: &CommonInformationEntry<Bytes<'data>>,
) -> Option<Function<'data>> {
    let whole = section.get(offset..)?;
    let (said, rest) = whole.split_first_chunk()?;
    // What a 64-bit length begins with is no length.
    if u32::from_le_bytes(*said) as usize != length {
        return None;
    }
    // Behind the offset of the shared entry.
    let mut bytes = rest.get(4..length)?;
    let encoding = entry.augmentation().and(entry.fde_address_encoding());
    let (start, size) = match encoding {
        None if entry.address_size() == 8 => {
            (u64::from_le_bytes(chunk(&mut bytes)?), u64::from_le_bytes(chunk(&mut bytes)?))
        }
        Some(encoding) if encoding == constants::DW_EH_PE_pcrel | constants::DW_EH_PE_sdata4 => {
            let here = section_at?.wrapping_add(offset as u64 + 8);
            let start = i32::from_le_bytes(chunk(&mut bytes)?);
            let size = i32::from_le_bytes(chunk(&mut bytes)?);
            (here.wrapping_add_signed(start.into()), u64::try_from(size).ok()?)
        }
        _ => return None,
    };
    if entry.augmentation().is_some() {
        let size = unsigned(&mut bytes)?;
        bytes = bytes.get(usize::try_from(size).ok()?..)?;
    }
    Some(Function { start, end: start.checked_add(size)?, instructions: bytes })
}

/// Takes the first instruction off the bytes; takes nothing if it is an unusual one.
#[inline(always)]
pub fn next(bytes: &mut &[u8]) -> Next {
    let mut rest = *bytes;
    let Some(first) = byte(&mut rest) else { return Next::End };
    let Some(instruction) = instruction(first, &mut rest) else { return Next::Unusual };
    *bytes = rest;
    Next::Instruction(instruction)
}

#[inline(always)]
fn instruction(first: u8, bytes: &mut &[u8]) -> Option<CallFrameInstruction<usize>> {
    use CallFrameInstruction as I;
    /// In the upper bits of the first byte: the instruction, if they are not zero; below: its operand.
    const UPPER: u8 = 0xc0;
    let small = first & !UPPER;
    Some(match DwCfa(first & UPPER) {
        constants::DW_CFA_advance_loc => I::AdvanceLoc { delta: small.into() },
        constants::DW_CFA_offset => {
            I::Offset { register: Register(small.into()), factored_offset: unsigned(bytes)? }
        }
        constants::DW_CFA_restore => I::Restore { register: Register(small.into()) },
        _ => match DwCfa(first) {
            constants::DW_CFA_nop => I::Nop,
            constants::DW_CFA_advance_loc1 => I::AdvanceLoc { delta: byte(bytes)?.into() },
            constants::DW_CFA_advance_loc2 => {
                I::AdvanceLoc { delta: u16::from_le_bytes(chunk(bytes)?).into() }
            }
            constants::DW_CFA_advance_loc4 => {
                I::AdvanceLoc { delta: u32::from_le_bytes(chunk(bytes)?) }
            }
            constants::DW_CFA_def_cfa => {
                I::DefCfa { register: register(bytes)?, offset: unsigned(bytes)? }
            }
            constants::DW_CFA_def_cfa_register => I::DefCfaRegister { register: register(bytes)? },
            constants::DW_CFA_def_cfa_offset => I::DefCfaOffset { offset: unsigned(bytes)? },
            constants::DW_CFA_remember_state => I::RememberState,
            constants::DW_CFA_restore_state => I::RestoreState,
            constants::DW_CFA_GNU_args_size => I::ArgsSize { size: unsigned(bytes)? },
            _ => return None,
        },
    })
}

#[inline(always)]
fn register(bytes: &mut &[u8]) -> Option<Register> {
    unsigned(bytes)?.try_into().ok().map(Register)
}

/// A LEB128 number of at most 9 bytes.
#[inline(always)]
fn unsigned(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    let mut shift = 0;
    while shift < 63 {
        let byte = byte(bytes)?;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
        shift += 7;
    }
    None
}

#[inline(always)]
fn byte(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

#[inline(always)]
fn chunk<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*first)
}
