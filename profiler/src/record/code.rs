//! Which files' code a process has mapped, as far as the recorder has seen it.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    io::Write as _,
    ops::RangeInclusive,
    os::fd::AsRawFd as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use object::read::ReadCache;

use crate::{
    recording::{CodeAddress, FrameKind, Mapping, Module, ModuleId, RawFrame, Record, StackEnd},
    symbols::{LiveFile, LiveFiles},
    target::{self, ExecMapping, MappingKind},
    units::{Avma, Ktime, Pid},
    unwind::{AddressSpace, CodeFile, WalkRegs, WalkedFrame, code, elf, space::WalkEnd},
};

/// How long the mappings of a process are not read again because of an address in none: the
/// shortest pause after a reading that found something new, as a program that starts maps one
/// library after the other; twice as long after each that did not, as with generated code.
const PAUSES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_millis(100);

/// The modules of a recording, and the processes that map them.
#[derive(Debug, Default)]
pub struct CodeMap {
    modules: Vec<LoadedModule>,
    by_file: HashMap<FileKey, usize>,
    processes: HashMap<Pid, ProcessCode>,
    /// Times the mappings of a living process could not be read.
    pub mappings_unread: u64,
    /// Files that could not be opened.
    pub modules_unreadable: u64,
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
    known: HashSet<(u64, u64, Option<ModuleId>)>,
    refreshed: Option<Instant>,
    /// From then until the next reading.
    pause: Duration,
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
        let mut ranges = Vec::with_capacity(mappings.len());
        for mapping in &mappings {
            let loaded = self.module_of(pid, mapping, facts);
            let bias = loaded.and_then(|index| {
                let code = self.modules[index].code.as_ref()?;
                code.bias(mapping.start, mapping.offset)
            });
            ranges.push((loaded, bias));
        }
        let process = self.processes.entry(pid).or_default();
        process.space.clear();
        process.ranges.clear();
        process.pause = (process.pause * 2).clamp(*PAUSES.start(), *PAUSES.end());
        for (mapping, (loaded, bias)) in mappings.iter().zip(ranges) {
            let range = mapping.start..mapping.end;
            let module = loaded.map(|index| &self.modules[index]);
            match (module.and_then(|module| module.code.as_ref()), bias) {
                (Some(code), Some(bias)) => process.space.map_file(range, bias, code),
                _ => process.space.map_memory(range),
            }
            let id = module.map(|module| module.facts.id);
            // Without segments to tell, addresses count from the start of the file.
            let bias = bias.unwrap_or(mapping.start.0.wrapping_sub(mapping.offset.0));
            process.ranges.push(Range {
                start: mapping.start.0,
                end: mapping.end.0,
                bias,
                module: id,
            });
            if let (Some(module), true) =
                (id, process.known.insert((mapping.start.0, mapping.end.0, id)))
            {
                process.pause = *PAUSES.start();
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
        process.refreshed = Some(Instant::now());
    }

    /// Forgets what a process had mapped: it replaced its program.
    pub fn forget(&mut self, pid: Pid) {
        self.processes.remove(&pid);
    }

    /// Walks a user stack of a process; reads its mappings again if the walk leaves those known.
    pub fn walk(
        &mut self,
        pid: Pid,
        regs: WalkRegs,
        stack: &[u8],
        at: Ktime,
        facts: &mut Vec<Record>,
    ) -> (Vec<RawFrame>, StackEnd) {
        if !self.processes.contains_key(&pid) {
            self.refresh(pid, at, facts);
        }
        let process = self.processes.entry(pid).or_default();
        let mut walk = process.space.walk(regs, stack);
        if matches!(walk.end, WalkEnd::Unmapped(_))
            && process.refreshed.is_none_or(|last| last.elapsed() >= process.pause)
        {
            self.refresh(pid, at, facts);
            walk = self.processes.entry(pid).or_default().space.walk(regs, stack);
        }
        let process = self.processes.entry(pid).or_default();
        let frames = walk.frames.iter().map(|frame| process.place(*frame)).collect();
        let end = match walk.end {
            WalkEnd::Complete => StackEnd::Complete,
            WalkEnd::Truncated => StackEnd::Truncated,
            WalkEnd::Broken | WalkEnd::Unmapped(_) => StackEnd::Broken,
        };
        (frames, end)
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
        if let Some(&index) = self.by_file.get(&key) {
            return Some(index);
        }
        let file = match mapping.kind {
            MappingKind::Vdso => vdso(pid, mapping),
            _ => target::open_mapped(pid, mapping).ok(),
        };
        self.modules_unreadable += u64::from(file.is_none());
        let index = self.modules.len();
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
        self.modules.push(LoadedModule { facts: module, code, file, root });
        self.by_file.insert(key, index);
        Some(index)
    }
}

impl ProcessCode {
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
