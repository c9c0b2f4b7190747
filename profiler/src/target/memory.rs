//! Reads of a live process's memory, and of where its threads' stacks are.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::{self, IoSliceMut},
    os::unix::fs::FileExt as _,
};

use nix::sys::uio::{RemoteIoVec, process_vm_readv};

use super::process;
use crate::units::{Avma, Pid, Tid};

/// More than any vDSO is long.
const MAX_MEMORY_BYTES: u64 = 16 << 20;

/// Bytes of a process's memory. An error if not all of them can be read.
pub fn read_memory(pid: Pid, start: Avma, length: u64) -> io::Result<Vec<u8>> {
    if length > MAX_MEMORY_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "too much memory asked for"));
    }
    let mut bytes = vec![0; length as usize];
    if read_readable(pid, start, &mut bytes) < bytes.len() {
        File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut bytes, start.0)?;
    }
    Ok(bytes)
}

/// Reads a process's memory from `start` on for as far as it can be read; how many bytes that were.
///
/// Unlike `/proc/PID/mem` it asks for no more than `CAP_SYS_PTRACE`; but a kernel can be without it.
pub fn read_readable(pid: Pid, start: Avma, bytes: &mut [u8]) -> usize {
    let from = RemoteIoVec { base: start.0 as usize, len: bytes.len() };
    let target = nix::unistd::Pid::from_raw(pid.0.cast_signed());
    process_vm_readv(target, &mut [IoSliceMut::new(bytes)], &[from]).unwrap_or(0)
}

/// The stack pointer of a thread that is off-CPU at this moment; `None` if it runs.
pub fn stack_pointer(pid: Pid, tid: Tid) -> Option<Avma> {
    parse_syscall(&fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?)
}

/// The threads of a process by their ids in its own PID namespace.
pub fn threads_inside(pid: Pid, threads: impl Iterator<Item = Tid>) -> HashMap<u32, Tid> {
    let has_own = process::status(pid).is_ok_and(|status| status.inner_pid().is_some());
    let inside = |tid: Tid| {
        if !has_own {
            return Some(tid.0);
        }
        process::thread_status(pid, tid).ok()?.inner_pid()
    };
    threads.filter_map(|tid| Some((inside(tid)?, tid))).collect()
}

/// A line of `syscall`: the number and six arguments where it is in a system call, then the stack
/// pointer and the instruction pointer; `running` alone if it runs.
fn parse_syscall(text: &str) -> Option<Avma> {
    let mut last = text.split_ascii_whitespace().rev();
    let (_ip, sp) = (last.next()?, last.next()?);
    u64::from_str_radix(sp.strip_prefix("0x")?, 16).ok().map(Avma)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stack_pointer_is_the_last_but_one() {
        let check = |text: &str, expected: Option<u64>| {
            assert_eq!(parse_syscall(text), expected.map(Avma), "{text}");
        };
        check("running\n", None);
        check("-1 0x7ffd90 0x401000\n", Some(0x7f_fd90));
        check("202 0x5570 0x80 0x2 0x0 0x0 0x0 0x7f1230 0x7f9999\n", Some(0x7f_1230));
        check("", None);
    }

    #[test]
    fn memory_is_read_up_to_where_it_ends() {
        let words = [7_u64; 16];
        let mut bytes = [0; 128];
        let own = Pid(std::process::id());
        let read = read_readable(own, Avma(words.as_ptr() as u64), &mut bytes);
        assert_eq!((read, bytes[120]), (128, 7));
        assert_eq!(read_readable(own, Avma(8), &mut bytes), 0);
    }
}
