//! A program that is executed one instruction at a time.

use std::{
    fs::File,
    io::{Seek as _, Write as _},
    os::unix::fs::FileExt,
    process::{Child, Command},
    rc::Rc,
};

use nix::{
    libc::user_regs_struct,
    sys::{
        ptrace,
        signal::Signal,
        wait::{WaitStatus, waitpid},
    },
};
use object::read::ReadCache;
use stallscope::{
    target::{self, MappingKind},
    units::{Avma, Pid},
    unwind::{AddressSpace, CodeFile},
};

use crate::walk::Tables;

/// A stopped program; it is killed with the value.
pub struct Traced {
    child: Child,
    memory: File,
    /// The main thread's stack: its first and last address are those of the mapping.
    pub stack: std::ops::Range<u64>,
}

impl Traced {
    /// Stops a child.
    pub fn stop(child: Child) -> Self {
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        ptrace::attach(pid).unwrap();
        assert!(matches!(waitpid(pid, None).unwrap(), WaitStatus::Stopped(_, Signal::SIGSTOP)));
        let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
        let mut traced = Self { child, memory, stack: 0..0 };
        traced.find_stack();
        traced
    }

    fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.id().cast_signed())
    }

    pub fn find_stack(&mut self) {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.pid())).unwrap();
        let line = maps.lines().find(|line| line.ends_with("[stack]")).unwrap();
        let (start, rest) = line.split_once('-').unwrap();
        let hex = |text| u64::from_str_radix(text, 16).unwrap();
        self.stack = hex(start)..hex(rest.split(' ').next().unwrap());
    }

    /// What is mapped, for each walk.
    pub fn code(&self) -> (Tables, AddressSpace) {
        let pid = Pid(self.child.id());
        let (mut tables, mut space) = (Tables::default(), AddressSpace::default());
        for mapping in target::mappings(pid).unwrap() {
            let range = mapping.start..mapping.end;
            let file = match mapping.kind {
                MappingKind::File => target::open_mapped(pid, &mapping).unwrap(),
                MappingKind::Vdso => {
                    let bytes = mapping.end.0 - mapping.start.0;
                    let image = target::read_memory(pid, mapping.start, bytes).unwrap();
                    let mut file = tempfile::tempfile().unwrap();
                    file.write_all(&image).unwrap();
                    file.rewind().unwrap();
                    file
                }
                MappingKind::Anonymous | MappingKind::Other => continue,
            };
            let data = ReadCache::new(&file);
            let code = CodeFile::parse(&data).unwrap();
            let mut table = code.complete_table(&data);
            code.learn(&mut table);
            let bias = code.bias(mapping.start, mapping.offset).unwrap();
            space.map_file(range.clone(), bias, &code);
            tables.map(range, bias, Rc::new(table));
        }
        (tables, space)
    }

    pub fn registers(&self) -> user_regs_struct {
        ptrace::getregs(self.pid()).unwrap()
    }

    /// The stack from an address up to its end; empty if the address is not in it.
    pub fn stack_from(&self, sp: u64) -> Vec<u8> {
        if !self.stack.contains(&sp) {
            return Vec::new();
        }
        let mut bytes = vec![0; (self.stack.end - sp) as usize];
        self.memory.read_exact_at(&mut bytes, sp).unwrap();
        bytes
    }

    /// 8 bytes of memory.
    pub fn word(&self, address: Avma) -> Option<u64> {
        let mut word = [0; 8];
        self.memory.read_exact_at(&mut word, address.0).ok()?;
        Some(u64::from_le_bytes(word))
    }

    /// Executes one instruction, `false` if the program has ended. Signals reach it.
    pub fn step(&self) -> bool {
        let mut signal = None;
        loop {
            ptrace::step(self.pid(), signal).unwrap();
            match waitpid(self.pid(), None).unwrap() {
                WaitStatus::Stopped(_, Signal::SIGTRAP) => return true,
                WaitStatus::Stopped(_, Signal::SIGSTOP) => signal = None,
                WaitStatus::Stopped(_, other) => signal = Some(other),
                _ => return false,
            }
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Builds a fixture with gcc.
pub fn compile(options: &[&str], dir: &std::path::Path) -> std::path::PathBuf {
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tables/stacks.c");
    let program = dir.join("stacks");
    let status =
        Command::new("gcc").args(options).arg(source).arg("-o").arg(&program).status().unwrap();
    assert!(status.success(), "gcc {options:?}");
    program
}
