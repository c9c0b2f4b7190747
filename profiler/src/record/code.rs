//! The code that processes have mapped, as the recorder has seen it and as the kernel side walks it.
//!
//! - `modules` are the files.
//! - `generations` are the mappings of a process, reading by reading.
//! - `unexplained` says how often an address is worth a reading.

mod generations;
mod modules;
mod unexplained;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use self::{
    generations::{Generation, History, Mapped, News, frame},
    modules::{Modules, TableState},
    unexplained::Unexplained,
};
use super::ends;
use crate::{
    cache::TableCache,
    kernel::{KernelTables, Made, MadeMappings},
    recording::{CodeAddress, FrameKind, Mapping, Module, ModuleId, RawFrame, Record, StackEnd},
    symbols::LiveFiles,
    target::{self, ExecMapping},
    units::{Avma, Ktime, Pid},
    unwind::{AddressSpace, Table, Walk, WalkRegs, space::WalkEnd},
};

/// How long after a mapping was made the mappings are read again: one library brings others.
const SETTLING: Duration = Duration::from_millis(2);

/// How long two such readings of a process are apart at least.
const BETWEEN_READINGS: Duration = Duration::from_millis(50);

/// How long after a process replaced its program the mappings are read.
const AFTER_EXEC: Duration = Duration::from_millis(20);

/// How long a program starts: it maps its libraries one after the other, and is soon in each.
const STARTING: Duration = Duration::from_secs(1);

/// The part of the time that reading the mappings of one process may take: a target that makes code
/// and drops it again, in a loop, must not keep the recorder busy.
const READING_SHARE: u32 = 20;

/// What it may take beyond that: a program that starts maps file after file.
const READING_CREDIT: Duration = Duration::from_millis(500);

/// The modules of a recording, and the processes that map them.
#[derive(Default)]
pub struct CodeMap {
    modules: Modules,
    processes: HashMap<Pid, ProcessCode>,
    /// `None` where the kernel side cannot walk.
    tables: Option<KernelTables>,
    /// Where tables are kept.
    cache: Option<Arc<TableCache>>,
    /// Tables that are being made.
    builds: JoinSet<(ModuleId, Table)>,
    /// The number of the latest generation.
    generation: u32,
    /// Numbers that no record can name any more.
    gone: Vec<u32>,
    /// An instant before which every record was taken.
    taken_until: Ktime,
    made: Option<MadeMappings>,
    /// Every mapping made before was heard of.
    heard_until: Ktime,
    /// Processes whose mappings are to be read again, and when.
    due: HashMap<Pid, Instant>,
    /// What was lost.
    pub losses: Losses,
}

/// What was lost of the code that processes have mapped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// Times the mappings of a living process could not be read.
    pub mappings_unread: u64,
    /// Mappings that were made and not heard of.
    pub mappings_unheard: u64,
    /// Files and processes for which there was no room in the kernel.
    pub tables_refused: u64,
}

#[derive(Default)]
struct ProcessCode {
    space: AddressSpace,
    history: History,
    /// What was written to the recording.
    known: HashSet<(u64, u64, ModuleId)>,
    /// When its mappings were first and last read.
    begun: Option<Ktime>,
    refreshed: Option<Ktime>,
    /// What readings took, less their share of the time since then.
    spent: Duration,
    unexplained: Unexplained,
}

/// The frames of a walk in the kernel, free of where their files were loaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placed {
    /// By mappings that were in place when the stack was captured.
    Sure(Vec<RawFrame>),
    /// Up to a frame whose mapping had been replaced by then, which stays an address.
    Doubtful(Vec<RawFrame>),
}

/// The walk of a copied stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyWalk {
    /// Its frames.
    pub placed: Placed,
    /// How it ended.
    pub end: StackEnd,
    /// How many of the frames were found by frame pointer.
    pub by_frame_pointer: u32,
}

impl CodeMap {
    /// From now on tables and mappings go into the kernel. Needs a tokio runtime around it: tables
    /// are made by its blocking threads.
    pub fn serve(&mut self, tables: KernelTables, cache: TableCache) {
        self.tables = Some(tables);
        self.cache = Some(Arc::new(cache));
    }

    /// From now on mappings are known to have been made before they are walked through.
    pub fn listen(&mut self, made: MadeMappings) {
        self.made = Some(made);
    }

    /// Reads the mappings of a process again; `facts` takes what is new.
    pub fn refresh(&mut self, pid: Pid, at: Ktime, facts: &mut Vec<Record>) {
        self.due.remove(&pid);
        let read_at = super::clock::now();
        if let Some(process) = self.processes.get_mut(&pid) {
            process.spent =
                process.spent.saturating_sub(since(process.refreshed, read_at) / READING_SHARE);
        }
        self.refresh_at(pid, at, read_at, facts);
        if let Some(process) = self.processes.get_mut(&pid) {
            process.spent += Duration::from_nanos(super::clock::now().since(read_at).0);
        }
    }

    fn refresh_at(&mut self, pid: Pid, at: Ktime, read_at: Ktime, facts: &mut Vec<Record>) {
        let Ok(mappings) = target::mappings(pid) else {
            // A process that has ended has none. Asked cheaply: short processes end by the thousand
            // before their mappings can be read.
            self.losses.mappings_unread += u64::from(target::has_program(pid));
            return;
        };
        let unreadable = self.modules.unreadable();
        let mapped: Vec<Mapped> =
            mappings.into_iter().map(|mapping| self.mapped(pid, mapping, facts)).collect();
        let opened = self.modules.unreadable() < unreadable;
        let process = self.processes.entry(pid).or_default();
        process.begun.get_or_insert(read_at);
        process.refreshed = Some(read_at);
        let is_same = process.history.current().is_some_and(|current| *current.mapped == *mapped);
        if is_same && !opened && !process.history.is_outdated() {
            return;
        }
        process.space.clear();
        for mapped in &mapped {
            process.space_of(mapped, &self.modules);
            let Mapped { mapping, module: Some(module), .. } = mapped else { continue };
            let ExecMapping { start, end, offset, .. } = *mapping;
            if process.known.insert((start.0, end.0, *module)) {
                let module = *module;
                facts.push(Record::Mapping(Mapping { at, pid, start, end, offset, module }));
            }
        }
        self.build_tables(&mapped);
        self.publish(pid, read_at, mapped.into());
    }

    /// Forgets what a process had mapped.
    pub fn forget(&mut self, pid: Pid) {
        if let Some(process) = self.processes.remove(&pid) {
            self.gone.extend(process.history.numbers());
        }
        if let Some(tables) = &mut self.tables {
            tables.remove(pid);
        }
        self.due.remove(&pid);
    }

    /// Forgets what a process had mapped, for it replaced its program. What it maps now is read once it
    /// has had time to map it; until then its stacks are copied.
    pub fn become_another(&mut self, pid: Pid) {
        self.forget(pid);
        self.due.insert(pid, Instant::now() + AFTER_EXEC);
    }

    /// Hears of every mapping that was made before an instant that is past.
    pub fn hear(&mut self, until: Ktime) {
        if until < self.heard_until {
            return;
        }
        let Some(ring) = &mut self.made else { return };
        let heard_before = std::mem::replace(&mut self.heard_until, super::clock::now());
        let mut made = Vec::new();
        let unheard = ring.take(|pid| self.processes.contains_key(&pid), &mut made);
        self.losses.mappings_unheard += unheard;
        for made in made {
            self.note(made);
        }
        if unheard > 0 {
            // Any mapping of any process may have been replaced since: the kernel side must not walk
            // by what was read before.
            let now = Instant::now();
            for (&pid, process) in &mut self.processes {
                process.history.doubt_everything(heard_before);
                if let Some(tables) = &mut self.tables {
                    tables.remove(pid);
                }
                let due = now + process.rest(self.heard_until);
                self.due.entry(pid).and_modify(|known| *known = due.min(*known)).or_insert(due);
            }
        }
    }

    fn note(&mut self, made: Made) {
        let pid = made.pid;
        let Some(process) = self.processes.get_mut(&pid) else { return };
        let rest = process.rest(self.heard_until);
        let apart = if since(process.begun, self.heard_until) < STARTING {
            Duration::ZERO
        } else {
            BETWEEN_READINGS.saturating_sub(since(process.refreshed, self.heard_until))
        };
        let wait = match process.history.note(made) {
            News::None => return,
            News::Addition => SETTLING.max(apart).max(rest),
            News::Replacement => {
                // By what is not there any more the kernel side must not walk: from here on it
                // copies stacks, until the mappings have been read.
                if let Some(tables) = &mut self.tables {
                    tables.remove(pid);
                }
                rest
            }
        };
        let due = Instant::now() + wait;
        self.due.entry(pid).and_modify(|known| *known = due.min(*known)).or_insert(due);
    }

    /// When mappings are to be read again.
    pub fn due(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// The processes whose mappings are to be read again now.
    pub fn processes_due(&self) -> Vec<Pid> {
        let now = Instant::now();
        self.due.iter().filter(|(_, due)| **due <= now).map(|(&pid, _)| pid).collect()
    }

    /// Waits for tables that are being made, and places one; `None` if there are none.
    pub async fn built(&mut self) -> Option<ModuleId> {
        loop {
            // One that could not be made, which only a defect brings about, is never there.
            let Ok((id, mut table)) = self.builds.join_next().await? else { continue };
            let Some(tables) = &mut self.tables else { continue };
            let has_rules = table.described > 0 || !table.undescribed.is_empty();
            let placed = if has_rules { tables.add_file(&table) } else { Ok(None) };
            let module = self.modules.get_mut(id);
            if let Some(code) = &module.code {
                code.learn(&mut table);
            }
            module.table = match placed {
                Ok(Some(file)) => TableState::Placed(file),
                Ok(None) if !has_rules => TableState::None,
                Ok(None) | Err(_) => {
                    self.losses.tables_refused += 1;
                    TableState::Refused
                }
            };
            return Some(id);
        }
    }

    /// Publishes the mappings of every process that maps one of these files once more.
    pub fn republish(&mut self, modules: &[ModuleId]) {
        let concerned: Vec<_> = self
            .processes
            .iter()
            .filter_map(|(&pid, process)| {
                let current = process.history.current()?;
                let maps = |mapped: &Mapped| mapped.module.is_some_and(|id| modules.contains(&id));
                let concerned = current.mapped.iter().any(maps);
                concerned.then(|| (pid, current.read_at, Arc::clone(&current.mapped)))
            })
            .collect();
        for (pid, read_at, mapped) in concerned {
            self.publish(pid, read_at, mapped);
        }
    }

    /// Waits until every table that is being made is in the kernel.
    pub async fn settle(&mut self) {
        let mut modules = Vec::new();
        while let Some(module) = self.built().await {
            modules.push(module);
        }
        self.republish(&modules);
    }

    /// Every record that was captured before has been taken out of the ring buffer.
    pub fn taken_until(&mut self, instant: Ktime) {
        self.taken_until = instant;
    }

    /// The numbers of generations that no record can name any more, since this was asked last.
    pub fn take_gone(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.gone)
    }

    /// Whether nothing was made in a process since its generation was read, up to a capture: then
    /// the same frames are the same stack.
    pub fn is_quiet(&self, pid: Pid, generation: u32, captured: Ktime) -> bool {
        let history = self.processes.get(&pid).map(|process| &process.history);
        history.is_some_and(|history| {
            let generation = history.get(generation);
            generation.is_some_and(|generation| history.is_quiet(generation, captured))
        })
    }

    /// The frames that the kernel side walked to by one generation of a process's mappings.
    pub fn place(
        &self,
        pid: Pid,
        generation: u32,
        captured: Ktime,
        frames: &[u64],
        leaf: FrameKind,
    ) -> Placed {
        let frames = frames.iter().enumerate().map(|(index, &entry)| frame(entry, index, leaf));
        let known = self
            .processes
            .get(&pid)
            .and_then(|process| Some((&process.history, process.history.get(generation)?)));
        match known {
            Some((history, generation)) => {
                let doubt = history.first_in_doubt(generation, frames.clone(), captured);
                placed(generation, frames, doubt)
            }
            None => Placed::Doubtful(frames.take(1).map(unplaced).collect()),
        }
    }

    /// Walks a copied user stack of a process; reads its mappings again if the walk leaves those
    /// known, or goes through one that was replaced before the capture.
    pub fn walk(
        &mut self,
        pid: Pid,
        regs: &WalkRegs,
        stack: &[u8],
        captured: Ktime,
        facts: &mut Vec<Record>,
    ) -> CopyWalk {
        if !self.processes.contains_key(&pid) {
            self.refresh(pid, captured, facts);
        }
        let process = self.processes.entry(pid).or_default();
        let (mut walk, mut placed) = process.walk(regs, stack, captured);
        if process.is_worth_reading(walk.end, &placed, captured) {
            self.refresh(pid, captured, facts);
            let process = self.processes.entry(pid).or_default();
            (walk, placed) = process.walk(regs, stack, captured);
            if let WalkEnd::NoMapping(address) = walk.end {
                process.unexplained.note(address, super::clock::now());
            }
        }
        let Walk { end, by_frame_pointer, .. } = walk;
        CopyWalk { placed, end: ends::of_copy(end), by_frame_pointer }
    }

    /// The processes whose mappings are known.
    pub fn processes(&self) -> Vec<Pid> {
        self.processes.keys().copied().collect()
    }

    /// How many files could not be opened.
    pub fn modules_unreadable(&self) -> u64 {
        self.modules.unreadable()
    }

    /// The modules so far.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        self.modules.iter().map(|module| &module.facts)
    }

    /// The files that are held open, as paths for this process.
    pub fn live_files(&self) -> LiveFiles {
        self.modules.live_files()
    }

    /// Memory of kernel maps that this process holds no descriptor of.
    pub fn kernel_bytes(&self) -> u64 {
        self.tables.as_ref().map_or(0, KernelTables::bytes)
    }

    /// What a mapping shows.
    fn mapped(&mut self, pid: Pid, mapping: ExecMapping, facts: &mut Vec<Record>) -> Mapped {
        let module = self.modules.of(pid, &mapping, facts);
        let code = module.and_then(|module| self.modules.get(module).code.as_ref());
        let bias = code.and_then(|code| code.bias(mapping.start, mapping.offset));
        // Without segments to tell, addresses count from the start of the file.
        let from_file_start = mapping.start.0.wrapping_sub(mapping.offset.0);
        Mapped { bias: bias.unwrap_or(from_file_start), module, mapping }
    }

    /// Has the tables made that these mappings need and that nobody asked for yet.
    fn build_tables(&mut self, mapped: &[Mapped]) {
        if self.tables.is_none() {
            return;
        }
        for id in mapped.iter().filter_map(|mapped| mapped.module) {
            let module = self.modules.get_mut(id);
            if module.table == TableState::Unbuilt
                && let Some(make) = module.table_maker()
            {
                module.table = TableState::Building;
                let (identity, cache) = (module.identity.clone(), self.cache.clone());
                self.builds.spawn_blocking(move || {
                    let table = match cache {
                        Some(cache) => cache.table(identity.as_ref(), make).0,
                        None => make(),
                    };
                    (id, table)
                });
            }
        }
    }

    /// Begins a generation of a process's mappings, in the kernel too.
    fn publish(&mut self, pid: Pid, read_at: Ktime, mapped: Arc<[Mapped]>) {
        self.generation += 1;
        let number = self.generation;
        let for_kernel: Vec<_> =
            mapped.iter().flat_map(|mapped| self.modules.for_kernel(mapped)).collect();
        let process = self.processes.entry(pid).or_default();
        let generation = Generation { number, read_at, mapped };
        let gone = process.history.begin(generation, super::clock::now(), self.taken_until);
        self.gone.extend(gone);
        if let Some(tables) = &mut self.tables
            && !matches!(tables.publish(pid, number, &for_kernel), Ok(true))
        {
            self.losses.tables_refused += 1;
        }
    }
}

impl ProcessCode {
    /// How long its mappings are left unread, that reading them keeps to its share.
    fn rest(&self, now: Ktime) -> Duration {
        let overdrawn = self.spent.saturating_sub(READING_CREDIT);
        (overdrawn * READING_SHARE).saturating_sub(since(self.refreshed, now))
    }

    /// Adds a mapping to those that copied stacks are walked by.
    fn space_of(&mut self, mapped: &Mapped, modules: &Modules) {
        let Mapped { mapping, bias, module } = mapped;
        let range = mapping.start..mapping.end;
        match module.and_then(|module| modules.get(module).code.as_ref()) {
            Some(code) => self.space.map_file(range, *bias, code),
            None => self.space.map_memory(range),
        }
    }

    fn walk(&mut self, regs: &WalkRegs, stack: &[u8], captured: Ktime) -> (Walk, Placed) {
        let walk = self.space.walk(regs, stack);
        let Some(current) = self.history.current() else {
            return (walk, Placed::Sure(Vec::new()));
        };
        let frames = walk.frames.iter().map(|frame| {
            let kind = if frame.is_return_address {
                FrameKind::ReturnAddress
            } else {
                FrameKind::InstructionPointer
            };
            (frame.address, kind)
        });
        let doubt = self
            .history
            .first_in_doubt(current, frames.clone(), captured)
            .or_else(|| self.history.first_replaced(frames.clone(), captured));
        let placed = placed(current, frames, doubt);
        (walk, placed)
    }

    /// Whether a reading of the mappings may change how a walk went.
    fn is_worth_reading(&self, end: WalkEnd, placed: &Placed, captured: Ktime) -> bool {
        let is_older = self.refreshed.is_none_or(|refreshed| refreshed <= captured);
        let is_rested = self.rest(super::clock::now()).is_zero();
        let helps = match (placed, end) {
            (Placed::Doubtful(_), _) => true,
            (_, WalkEnd::NoMapping(address)) => {
                self.unexplained.is_worth_reading(address, super::clock::now())
            }
            _ => false,
        };
        is_older && is_rested && helps
    }
}

/// How long ago that was; without end if it never was.
fn since(instant: Option<Ktime>, now: Ktime) -> Duration {
    instant.map_or(Duration::MAX, |instant| Duration::from_nanos(now.since(instant).0))
}

/// Frames placed by a generation, up to the one in doubt, which stays an address.
fn placed(
    generation: &Generation,
    frames: impl Iterator<Item = (Avma, FrameKind)> + Clone,
    doubt: Option<usize>,
) -> Placed {
    let sure = frames.clone().take(doubt.unwrap_or(usize::MAX));
    let mut placed: Vec<_> = sure.map(|(address, kind)| generation.place(address, kind)).collect();
    let Some(doubt) = doubt else { return Placed::Sure(placed) };
    placed.extend(frames.skip(doubt).take(1).map(unplaced));
    Placed::Doubtful(placed)
}

fn unplaced((address, kind): (Avma, FrameKind)) -> RawFrame {
    RawFrame { address: CodeAddress::Memory(address), kind }
}
