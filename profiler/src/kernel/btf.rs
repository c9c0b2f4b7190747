//! Layouts and functions of the running kernel, from its BTF.
//!
//! aya's parser keeps member offsets to itself, and the one crate that offers them is LGPL, which
//! a statically linked program under MIT or Apache-2.0 should not take in. The format is that of
//! the kernel's `Documentation/bpf/btf.rst`.

use std::{
    collections::{HashMap, HashSet},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};

/// Where the running kernel publishes its BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
const KIND_ENUM: u32 = 6;
const KIND_TYPEDEF: u32 = 8;
const KIND_VOLATILE: u32 = 9;
const KIND_CONST: u32 = 10;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const KIND_DECL_TAG: u32 = 17;
const KIND_ENUM64: u32 = 19;
const KIND_MAX: u32 = 19;

/// What the kernel's BTF says about the types this program asks for.
#[derive(Debug)]
pub struct KernelBtf {
    bytes: Vec<u8>,
    strings: usize,
    /// Byte offset of each type's description; index 0 stands for `void`.
    types: Vec<usize>,
    typedefs: HashMap<String, u32>,
    structs: HashMap<String, u32>,
    enumerators: HashSet<String>,
    /// The section of variables that each CPU has its own of.
    per_cpu: Option<u32>,
}

/// Its name.
const PER_CPU: &str = ".data..percpu";

impl KernelBtf {
    /// Reads the running kernel's BTF.
    ///
    /// # Errors
    /// If the kernel was built without BTF, or the bytes are not BTF.
    pub fn of_running_kernel() -> Result<Self> {
        let path = Path::new(VMLINUX);
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {VMLINUX}"))?;
        Self::parse(bytes).with_context(|| format!("{VMLINUX} is not understood"))
    }

    /// Indexes BTF bytes.
    ///
    /// # Errors
    /// If the bytes are not little-endian BTF.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        ensure!(bytes.get(..2) == Some(&MAGIC.to_le_bytes()), "no BTF magic");
        let header = word(&bytes, 4)? as usize;
        let types_start = header + word(&bytes, 8)? as usize;
        let types_end = types_start + word(&bytes, 12)? as usize;
        let strings = header + word(&bytes, 16)? as usize;
        let mut btf = Self {
            bytes,
            strings,
            types: vec![0],
            typedefs: HashMap::new(),
            structs: HashMap::new(),
            enumerators: HashSet::new(),
            per_cpu: None,
        };
        let mut at = types_start;
        while at < types_end {
            at = btf.index_type(at)?;
        }
        Ok(btf)
    }

    /// Byte offset of a member of a struct, anonymous structs and unions looked through.
    pub fn member_offset(&self, of: &str, member: &str) -> Option<u32> {
        let (bits, _) = self.find_member(*self.structs.get(of)?, member, 0).ok()??;
        bits.is_multiple_of(8).then_some(bits / 8)
    }

    /// Where a variable of which each CPU has its own lies among all of these, in bytes.
    pub fn per_cpu_offset(&self, variable: &str) -> Option<u32> {
        let section = self.per_cpu?;
        let (_, variables, _) = self.info(section).ok()?;
        let first = self.types[section as usize] + 12;
        (0..variables as usize).map(|index| first + 12 * index).find_map(|entry| {
            let id = word(&self.bytes, entry).ok()?;
            let name = word(&self.bytes, *self.types.get(id as usize)?).ok()?;
            (self.string(name).ok()? == variable).then(|| word(&self.bytes, entry + 4).ok())?
        })
    }

    /// Length in bytes of a member that is an integer.
    pub fn member_bytes(&self, of: &str, member: &str) -> Option<u32> {
        let (_, mut id) = self.find_member(*self.structs.get(of)?, member, 0).ok()??;
        loop {
            match self.info(id).ok()?.0 {
                KIND_TYPEDEF | KIND_VOLATILE | KIND_CONST => {
                    id = word(&self.bytes, self.types[id as usize] + 8).ok()?;
                }
                KIND_INT => return word(&self.bytes, self.types[id as usize] + 8).ok(),
                _ => return None,
            }
        }
    }

    /// How many arguments the tracepoint passes, or `None` if the kernel has no such tracepoint.
    pub fn tracepoint_arguments(&self, name: &str) -> Option<usize> {
        let typedef = *self.typedefs.get(&format!("btf_trace_{name}"))?;
        let pointer = self.referred(typedef, KIND_TYPEDEF)?;
        let prototype = self.referred(pointer, KIND_PTR)?;
        let (kind, parameters, _) = self.info(prototype).ok()?;
        // The first parameter is the tracepoint's own data pointer.
        (kind == KIND_FUNC_PROTO).then(|| (parameters as usize).saturating_sub(1))
    }

    /// Whether the kernel knows the BPF helper, named as in `enum bpf_func_id` without `BPF_FUNC_`.
    pub fn has_helper(&self, name: &str) -> bool {
        self.enumerators.contains(&format!("BPF_FUNC_{name}"))
    }

    /// Enters the type at a byte offset; returns the offset of the next one.
    fn index_type(&mut self, at: usize) -> Result<usize> {
        let id = u32::try_from(self.types.len())?;
        self.types.push(at);
        let (kind, entries, _) = self.info(id)?;
        let entries = entries as usize;
        ensure!(kind <= KIND_MAX, "unknown type kind {kind} at byte {at}");
        let body = at + 12;
        let next = body
            + match kind {
                KIND_INT | KIND_VAR | KIND_DECL_TAG => 4,
                KIND_ARRAY => 12,
                KIND_STRUCT | KIND_UNION | KIND_DATASEC | KIND_ENUM64 => 12 * entries,
                KIND_ENUM | KIND_FUNC_PROTO => 8 * entries,
                _ => 0,
            };
        match kind {
            KIND_TYPEDEF => {
                let name = self.string(word(&self.bytes, at)?)?.to_owned();
                if name.starts_with("btf_trace_") {
                    self.typedefs.insert(name, id);
                }
            }
            KIND_STRUCT => {
                let name = self.string(word(&self.bytes, at)?)?.to_owned();
                if !name.is_empty() {
                    self.structs.entry(name).or_insert(id);
                }
            }
            KIND_DATASEC if self.string(word(&self.bytes, at)?)? == PER_CPU => {
                self.per_cpu = Some(id);
            }
            KIND_ENUM => {
                for entry in 0..entries {
                    let name = self.string(word(&self.bytes, body + 8 * entry)?)?.to_owned();
                    if name.starts_with("BPF_FUNC_") {
                        self.enumerators.insert(name);
                    }
                }
            }
            _ => {}
        }
        Ok(next)
    }

    /// Bit offset and type of a member.
    fn find_member(&self, of: u32, member: &str, base: u32) -> Result<Option<(u32, u32)>> {
        let at = self.types[of as usize];
        let (_, members, has_bitfields) = self.info(of)?;
        for index in 0..members as usize {
            let entry = at + 12 + 12 * index;
            let name = self.string(word(&self.bytes, entry)?)?;
            let mut offset = word(&self.bytes, entry + 8)?;
            if has_bitfields {
                offset &= 0x00ff_ffff;
            }
            let inner = word(&self.bytes, entry + 4)?;
            if name == member {
                return Ok(Some((base + offset, inner)));
            }
            if name.is_empty()
                && matches!(self.info(inner)?.0, KIND_STRUCT | KIND_UNION)
                && let Some(found) = self.find_member(inner, member, base + offset)?
            {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The type that a typedef or pointer refers to.
    fn referred(&self, id: u32, kind: u32) -> Option<u32> {
        (self.info(id).ok()?.0 == kind)
            .then(|| word(&self.bytes, self.types[id as usize] + 8).ok())?
    }

    /// Kind, number of entries and kind flag of a type.
    fn info(&self, id: u32) -> Result<(u32, u32, bool)> {
        let Some(&at) = self.types.get(id as usize) else { bail!("no type {id}") };
        if id == 0 {
            return Ok((0, 0, false));
        }
        let info = word(&self.bytes, at + 4)?;
        Ok((info >> 24 & 0x1f, info & 0xffff, info >> 31 != 0))
    }

    fn string(&self, offset: u32) -> Result<&str> {
        let start = self.strings + offset as usize;
        let tail = self.bytes.get(start..).context("string outside of the file")?;
        let end = tail.iter().position(|&byte| byte == 0).context("unterminated string")?;
        Ok(std::str::from_utf8(&tail[..end])?)
    }
}

fn word(bytes: &[u8], at: usize) -> Result<u32> {
    let Some(word) = bytes.get(at..at + 4) else { bail!("the file ends at byte {at}") };
    Ok(u32::from_le_bytes(word.try_into()?))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;

    #[test]
    fn the_running_kernel_is_understood() {
        let btf = KernelBtf::of_running_kernel().unwrap();
        // The layout is ABI: a struct whose offsets are known without BTF.
        assert_eq!(btf.member_offset("pt_regs", "di"), Some(112));
        // A member of an anonymous union.
        assert!(btf.member_offset("sk_buff", "sk").is_some());
        assert_eq!(btf.member_offset("task_struct", "no_such_member"), None);
        assert_eq!(btf.member_bytes("pt_regs", "di"), Some(8));
        // A pointer is no integer.
        assert_eq!(btf.member_bytes("task_struct", "stack"), None);
        assert!(matches!(btf.tracepoint_arguments("sched_switch"), Some(3 | 4)));
        assert_eq!(btf.tracepoint_arguments("no_such_tracepoint"), None);
        let per_cpu = ["runqueues", "this_cpu_off"].map(|name| btf.per_cpu_offset(name));
        assert!(matches!(per_cpu, [Some(one), Some(other)] if one != other), "{per_cpu:?}");
        assert_eq!(btf.per_cpu_offset("no_such_variable"), None);
        assert!(btf.has_helper("ringbuf_output"));
        assert!(!btf.has_helper("no_such_helper"));
    }

    #[test]
    fn bytes_that_are_not_btf_are_refused() {
        let real = std::fs::read(VMLINUX).unwrap();
        for bytes in [Vec::new(), vec![0; 64], real[..1000].to_vec()] {
            assert!(KernelBtf::parse(bytes).is_err());
        }
    }
}
