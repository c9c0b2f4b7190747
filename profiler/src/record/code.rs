//! Which files' code a process has mapped, as far as the recorder has seen it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Write as _,
    os::fd::AsRawFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use object::read::ReadCache;
use profiler_common::{event::IntervalEvent, stack::INTERRUPTED};

use super::{collect::stacks::WalkedStack, ends};
use crate::{
    recording::{CodeAddress, FrameKind, Mapping, Module, ModuleId, RawFrame, Record},
    symbols::{LiveFile, LiveFiles},
    target::{self, ExecMapping, MappingKind},
    units::{Avma, Ktime, Pid},
    unwind::{AddressSpace, CodeFile, WalkRegs, WalkedFrame, code, elf, space::WalkEnd},
};

/// How long an address that a reading of the mappings did not explain is not looked for again.
const UNEXPLAINED_FOR: Duration = Duration::from_secs(1);

/// The modules of a recording, and the processes that map them.
#[derive(Debug, Default)]
pub struct CodeMap {
    modules: Vec<LoadedModule>,
    by_file: HashMap<FileKey, usize>,
    processes: HashMap<Pid, ProcessCode>,
    /// Times the mappings of a living process could not be read.
    pub mappings_unread: u64,
}

/// What makes two mappings ones of the same file.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum FileKey {
    Inode {
        dev: (u32, u32),
        inode: u64,
    },
    /// Every process sees the same vDSO.
    Vdso,
}

#[derive(Debug)]
struct LoadedModule {
    facts: Module,
    /// `None` if the file could not be opened or is no ELF file: its frames are left by frame
    /// pointer.
    code: Option<CodeFile>,
    /// Held open so that names can be looked up after the file, or the target, is gone.
    file: Option<File>,
    root: PathBuf,
}

#[derive(Debug, Default)]
struct ProcessCode {
    space: AddressSpace,
    ranges: Vec<Range>,
    /// What was written to the recording.
    known: HashSet<(u64, u64, ModuleId)>,
    /// The mappings as they were last read.
    seen: Vec<ExecMapping>,
    /// When they were last read.
    refreshed: Option<Ktime>,
    /// Addresses that were in none of them, and since when that is known.
    unexplained: HashMap<Avma, Instant>,
}

#[derive(Debug)]
struct Range {
    start: u64,
    end: u64,
    bias: u64,
    module: Option<ModuleId>,
}

impl CodeMap {
    /// Reads the mappings of a process again; `facts` takes what is new.
    pub fn refresh(&mut self, pid: Pid, at: Ktime, facts: &mut Vec<Record>) {
        let Ok(mappings) = target::mappings(pid) else {
            // A process that has ended has none.
            self.mappings_unread += u64::from(target::by_pid(pid.0).is_ok());
            return;
        };
        let process = self.processes.entry(pid).or_default();
        process.refreshed = Some(super::clock::now());
        if process.seen == mappings && self.modules.iter().all(|module| module.file.is_some()) {
            return;
        }
        let modules: Vec<Option<usize>> =
            mappings.iter().map(|mapping| self.module_of(pid, mapping, facts)).collect();
        let process = self.processes.entry(pid).or_default();
        process.space.clear();
        process.ranges.clear();
        for (mapping, index) in mappings.iter().zip(modules) {
            let module = index.map(|index| &self.modules[index]);
            process.map(mapping, module);
            let Some(module) = module.map(|module| module.facts.id) else { continue };
            if process.known.insert((mapping.start.0, mapping.end.0, module)) {
                facts.push(Record::Mapping(Mapping {
                    at,
                    pid,
                    start: mapping.start,
                    end: mapping.end,
                    offset: mapping.offset,
                    module,
                }));
            }
        }
        process.seen = mappings;
    }

    /// Forgets what a process had mapped: it replaced its program.
    pub fn forget(&mut self, pid: Pid) {
        self.processes.remove(&pid);
    }

    /// Walks a user stack of a process; reads its mappings again if the walk leaves those known.
    pub fn walk(
        &mut self,
        pid: Pid,
        regs: &WalkRegs,
        stack: &[u8],
        at: Ktime,
        facts: &mut Vec<Record>,
    ) -> WalkedStack {
        if !self.processes.contains_key(&pid) {
            self.refresh(pid, at, facts);
        }
        let process = self.processes.entry(pid).or_default();
        let mut walk = process.space.walk(regs, stack);
        if let WalkEnd::NoMapping(address) = walk.end
            && process.may_have_changed(address, at)
        {
            self.refresh(pid, at, facts);
            let process = self.processes.entry(pid).or_default();
            walk = process.space.walk(regs, stack);
            if let WalkEnd::NoMapping(address) = walk.end {
                process.unexplained.insert(address, Instant::now());
            }
        }
        let process = self.processes.entry(pid).or_default();
        WalkedStack {
            frames: walk.frames.iter().map(|frame| process.place(*frame)).collect(),
            end: ends::of_copy(walk.end),
            by_frame_pointer: walk.by_frame_pointer,
        }
    }

    /// The frames that the kernel side walked to in a process.
    pub fn kernel_walk(&self, event: &IntervalEvent, frames: &[u64]) -> WalkedStack {
        let process = self.processes.get(&Pid(event.tgid));
        let in_syscall = event.regs.orig_ax >= 0;
        let place = |(depth, frame): (usize, &u64)| {
            let is_return_address = if depth == 0 { in_syscall } else { frame & INTERRUPTED == 0 };
            let frame = WalkedFrame { address: Avma(frame & !INTERRUPTED), is_return_address };
            Some(process?.place(frame))
        };
        WalkedStack {
            frames: frames.iter().enumerate().filter_map(place).collect(),
            end: ends::of_kernel(event.walk_end),
            by_frame_pointer: event.by_frame_pointer,
        }
    }

    /// The processes whose mappings are known.
    pub fn processes(&self) -> Vec<Pid> {
        self.processes.keys().copied().collect()
    }

    /// How many files could not be opened.
    pub fn modules_unreadable(&self) -> u64 {
        self.modules.iter().filter(|module| module.file.is_none()).count() as u64
    }

    /// The modules so far.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter().map(|module| &module.facts)
    }

    /// The files that are held open, as paths for this process.
    pub fn live_files(&self) -> LiveFiles {
        self.modules
            .iter()
            .filter_map(|module| {
                let open = format!("/proc/self/fd/{}", module.file.as_ref()?.as_raw_fd());
                let live = LiveFile { open: open.into(), root: module.root.clone() };
                Some((module.facts.id, live))
            })
            .collect()
    }

    /// The index of the module that a mapping shows, entered if it is new; `None` for memory that
    /// is no file.
    fn module_of(
        &mut self,
        pid: Pid,
        mapping: &ExecMapping,
        facts: &mut Vec<Record>,
    ) -> Option<usize> {
        let key = match mapping.kind {
            MappingKind::File => FileKey::Inode { dev: mapping.dev, inode: mapping.inode },
            MappingKind::Vdso => FileKey::Vdso,
            MappingKind::Anonymous | MappingKind::Other => return None,
        };
        let known = self.by_file.get(&key).copied();
        if let Some(index) = known.filter(|&index| self.modules[index].file.is_some()) {
            return Some(index);
        }
        // One that could not be opened is tried again: it may have been in the middle of an exec.
        let file = match mapping.kind {
            MappingKind::Vdso => vdso(pid, mapping),
            _ => target::open_mapped(pid, mapping).ok(),
        };
        if let (Some(index), None) = (known, &file) {
            return Some(index);
        }
        let index = known.unwrap_or(self.modules.len());
        let (code, build_id) = match &file {
            Some(file) => (
                CodeFile::parse(&ReadCache::new(file)).ok(),
                elf::build_id(&ReadCache::new(file)).unwrap_or_default(),
            ),
            None => (None, Vec::new()),
        };
        let module = Module {
            id: ModuleId(index as u32),
            path: mapping.path.clone(),
            build_id,
            deleted: mapping.deleted,
        };
        facts.push(Record::Module(module.clone()));
        let root = PathBuf::from(format!("/proc/{pid}/root"));
        let loaded = LoadedModule { facts: module, code, file, root };
        match known {
            Some(index) => self.modules[index] = loaded,
            None => self.modules.push(loaded),
        }
        self.by_file.insert(key, index);
        Some(index)
    }
}

impl ProcessCode {
    /// Adds an executable mapping and the module that it shows.
    fn map(&mut self, mapping: &ExecMapping, module: Option<&LoadedModule>) {
        let range = mapping.start..mapping.end;
        let code = module.and_then(|module| module.code.as_ref());
        let bias = code.and_then(|code| code.bias(mapping.start, mapping.offset));
        match (code, bias) {
            (Some(code), Some(bias)) => self.space.map_file(range, bias, code),
            _ => self.space.map_memory(range),
        }
        self.ranges.push(Range {
            start: mapping.start.0,
            end: mapping.end.0,
            // Without segments to tell, addresses count from the start of the file.
            bias: bias.unwrap_or(mapping.start.0.wrapping_sub(mapping.offset.0)),
            module: module.map(|module| module.facts.id),
        });
    }

    /// Whether an address in no mapping may lie in one that is younger than the last reading.
    fn may_have_changed(&self, address: Avma, at: Ktime) -> bool {
        let known = self.unexplained.get(&address);
        self.refreshed.is_none_or(|refreshed| refreshed <= at)
            && known.is_none_or(|since| since.elapsed() >= UNEXPLAINED_FOR)
    }

    /// A walked frame, free of where its file was loaded.
    fn place(&self, frame: WalkedFrame) -> RawFrame {
        let at = frame.lookup().0;
        let range = self.ranges.iter().find(|range| range.start <= at && at < range.end);
        let address = match range {
            Some(Range { bias, module: Some(module), .. }) => {
                CodeAddress::Module(*module, code::svma(frame.address, *bias))
            }
            _ => CodeAddress::Memory(Avma(frame.address.0)),
        };
        let kind = if frame.is_return_address {
            FrameKind::ReturnAddress
        } else {
            FrameKind::InstructionPointer
        };
        RawFrame { address, kind }
    }
}

/// The vDSO is an ELF file that lies nowhere but in memory.
fn vdso(pid: Pid, mapping: &ExecMapping) -> Option<File> {
    let bytes = mapping.end.0 - mapping.start.0;
    let image = target::read_memory(pid, mapping.start, bytes).ok()?;
    let fd = rustix::fs::memfd_create("vdso", rustix::fs::MemfdFlags::CLOEXEC).ok()?;
    let mut file = File::from(fd);
    file.write_all(&image).ok()?;
    Some(file)
}
