//! The programs, loaded and attached. Dropping [`Programs`] detaches them; so does the death of
//! the process, since every attachment is a file descriptor.

use std::{
    fs::File,
    io::{self, Read as _},
    ops::Range,
};

use anyhow::{Context as _, Result};
use aya::{
    Btf, Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, RingBuf, Stack},
    programs::{
        BtfTracePoint, Iter, KProbe, PerfEvent,
        perf_event::{PerfEventConfig, PerfEventScope, SamplePolicy, SoftwareEvent},
    },
    util::{nr_cpus, online_cpus},
};
use profiler_common::{
    config::{HookPath, Window},
    counter::Counter,
    state::{Slot, ThreadState},
};

use super::{
    probe::Probe,
    tables::{self, KernelTables},
};
use crate::{
    failure::Failure,
    units::{Ktime, Nanos, Pid},
};

/// The kernel side, as `cargo xtask ebpf` built it.
pub(super) static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../profiler-ebpf/prebuilt/profiler-ebpf.o"
));

/// Kernels before 5.15 have no helper for it: the register frame lies at the end of the kernel
/// stack, whose length is `THREAD_SIZE` (x86-64 without KASAN).
const PT_REGS_OFFSET: u32 = 16 * 1024 - 168;

/// A visit of every thread, prepared. It writes to the ring buffer, which somebody should read
/// meanwhile: thousands of threads can be more than fits.
#[derive(Debug)]
pub struct Visit {
    file: File,
}

impl Visit {
    /// Pays the visit, as far as the ring buffer has room. Can block on a process whose memory
    /// cannot be read now.
    ///
    /// # Errors
    /// If the kernel breaks it off.
    pub fn go_on(&mut self) -> io::Result<Progress> {
        // Nothing comes through the file: one read runs the program for every thread.
        match self.file.read(&mut [0]) {
            Ok(_) => Ok(Progress::AllVisited),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Progress::NoRoom),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(Progress::NoRoom),
            Err(error) => Err(error),
        }
    }
}

/// How far a [`Visit`] came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// To the end.
    AllVisited,
    /// To a thread for which the ring buffer had no room; it is the first to be visited next.
    NoRoom,
}

/// `BPF_NOEXIST` of `linux/bpf.h`: enter only what is not there.
const BPF_NOEXIST: u64 = 1;

/// How many times the reader is woken while the ring buffer fills up.
const RING_MARKS: u32 = 16;

/// What is to be recorded.
#[derive(Clone, Debug)]
pub struct Request {
    /// The process.
    pub target: Pid,
    /// Whether child processes are watched too.
    pub children: bool,
    /// Whether a thread that replaces its program is accounted as another one from there on.
    pub split_at_exec: bool,
    /// Intervals shorter than this are counted and not recorded.
    pub min_block: Nanos,
    /// Where stacks are captured.
    pub hook: HookPath,
    /// Size of the ring buffer in bytes; a power of two.
    pub ring_bytes: u32,
    /// How many threads can be measured at once.
    pub threads_max: u32,
    /// For how many of them stacks can be kept where they are taken at switch-out.
    pub kept_stacks_max: u32,
    /// When user stacks are copied.
    pub stack_copies: StackCopies,
    /// What is told of who ends waits.
    pub wakers: Wakers,
    /// How many times a second it is looked what each CPU runs; `None` for not at all.
    pub on_cpu: Option<u32>,
    /// Whether the kernel side writes its debug log.
    pub log: bool,
}

/// When the kernel side sends a copy of the user stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum StackCopies {
    /// Where its own walk does not find all frames.
    WhereNeeded = 0,
    /// With every stack.
    Always = 1,
}

/// What the kernel side tells of who ends waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wakers {
    /// Nothing.
    None,
    /// The thread or the interrupt.
    Thread,
    /// The stacks of the thread too.
    Stack,
}

/// The programs, loaded and attached, with nothing measured until a window is opened.
#[derive(Debug)]
pub struct Programs {
    ebpf: Ebpf,
    btf: Btf,
    has_sweep: bool,
}

impl Programs {
    /// Loads and attaches the programs.
    ///
    /// # Errors
    /// [`Failure::NotPermitted`] if the kernel refuses.
    pub fn load(probe: &Probe, request: &Request) -> Result<Self> {
        Self::try_load(probe, request).map_err(|error| {
            let refused = error.chain().any(|cause| {
                cause
                    .downcast_ref::<io::Error>()
                    .is_some_and(|io| io.kind() == io::ErrorKind::PermissionDenied)
            });
            if refused {
                Failure::NotPermitted(format!(
                    "the kernel does not let this process load or attach its programs ({error:#}); \
                     for what is missing: stallscope doctor"
                ))
                .into()
            } else {
                error
            }
        })
    }

    fn try_load(probe: &Probe, request: &Request) -> Result<Self> {
        let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
        let mut ebpf = load_object(probe, request, &btf, VerifierLogLevel::default())?;
        let mut window: Array<_, Window> = map(&mut ebpf, "WINDOW")?;
        window.set(0, Window::CLOSED, 0).context("cannot write the window")?;
        let mut programs = Self { ebpf, btf, has_sweep: probe.sleepable_iter };
        programs.free_slots(0..request.threads_max)?;
        programs.load_iterator("roll_call")?;
        if programs.has_sweep {
            programs.load_iterator("sweep")?;
        }
        programs.adopt(&[request.target])?;
        for tracepoint in ["sched_process_fork", "sched_process_exec", "sched_process_free"] {
            programs.attach_tracepoint(tracepoint, tracepoint)?;
        }
        let waking = match (request.wakers, probe.bpf_loop) {
            (Wakers::Stack, true) => "sched_waking_walk",
            _ => "sched_waking",
        };
        programs.attach_tracepoint(waking, "sched_waking")?;
        match request.hook {
            HookPath::SchedExit => programs.attach_tracepoint("sched_exit", "sched_exit_tp")?,
            HookPath::FinishTaskSwitch => {
                let name =
                    if probe.bpf_loop { "finish_task_switch" } else { "finish_task_switch_copy" };
                programs.attach_kprobes(name, &probe.finish_task_switch)?;
            }
            HookPath::SwitchOut => {}
        }
        let switch = match (request.hook, probe.bpf_loop) {
            (HookPath::SwitchOut, true) => "sched_switch_walk",
            _ => "sched_switch",
        };
        programs.attach_tracepoint(switch, "sched_switch")?;
        if let Some(frequency) = request.on_cpu {
            programs.attach_clock("on_cpu", frequency)?;
        }
        Ok(programs)
    }

    /// The names of the programs that the kernel was given.
    pub(super) fn loaded(&self) -> impl Iterator<Item = &str> {
        self.ebpf.programs().filter(|(_, program)| program.fd().is_ok()).map(|(name, _)| name)
    }

    /// Watches processes that exist already, beside those that are forked from now on.
    ///
    /// An id that was entered before stays as it is; one whose process is gone is dropped again,
    /// so that a later process with the same id is not mistaken for it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn adopt(&mut self, pids: &[Pid]) -> Result<()> {
        let mut targets: HashMap<_, u32, u64> = map(&mut self.ebpf, "TARGETS")?;
        for pid in pids {
            match targets.insert(pid.0, 0, BPF_NOEXIST) {
                Ok(()) => {}
                Err(MapError::SyscallError(error))
                    if error.io_error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).context("cannot enter a process to watch"),
            }
        }
        // Before the window it tells of no thread, so there is room.
        self.roll_call()?.go_on()?;
        let mut targets: HashMap<_, u32, u64> = map(&mut self.ebpf, "TARGETS")?;
        for pid in pids {
            if matches!(targets.get(&pid.0, 0), Ok(0)) {
                targets.remove(&pid.0).context("cannot drop a process that is gone")?;
            }
        }
        Ok(())
    }

    /// Takes the reading end of the ring buffer; once.
    ///
    /// # Errors
    /// If it was taken before.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>> {
        let map = self.ebpf.take_map("EVENTS").context("the ring buffer was taken already")?;
        Ok(RingBuf::try_from(map)?)
    }

    /// Takes the maps that the walk of user stacks goes by; once.
    ///
    /// # Errors
    /// If they were taken before.
    pub fn take_tables(&mut self) -> Result<KernelTables> {
        let mut take = |name: &str| {
            self.ebpf.take_map(name).with_context(|| format!("the map {name} was taken already"))
        };
        Ok(KernelTables::new(tables::Maps {
            chunks: tables::Chunks::new(take("ROWS")?, take("RULES")?)?,
            pages: take("PAGES")?.try_into()?,
            mappings: take("MAPPINGS")?.try_into()?,
            processes: take("PROCESSES")?.try_into()?,
        }))
    }

    /// Takes the reader of the kernel side's debug log, which hands each line to `log`.
    ///
    /// # Errors
    /// If the object has no log.
    pub fn take_log<T: log::Log>(&mut self, log: T) -> Result<aya_log::EbpfLogger<T>> {
        Ok(aya_log::EbpfLogger::init_with_logger(&mut self.ebpf, log)?)
    }

    /// Forgets every accounting: the window is about to be opened again.
    ///
    /// # Errors
    /// If the map cannot be changed.
    pub fn forget_threads(&mut self) -> Result<()> {
        let mut threads: HashMap<_, u64, u32> = map(&mut self.ebpf, "THREADS")?;
        let taken: Vec<(u64, u32)> = threads.iter().collect::<Result<_, _>>()?;
        for (key, _) in &taken {
            threads.remove(key)?;
        }
        let mut slots: Array<_, Slot> = map(&mut self.ebpf, "SLOTS")?;
        for (_, slot) in &taken {
            slots.set(*slot, Slot::default(), 0)?;
        }
        self.free_slots(taken.iter().map(|(_, slot)| *slot))
    }

    /// Says which instants belong to the window; `None` for none at all.
    ///
    /// # Errors
    /// If the kernel refuses the write.
    pub fn set_window(&mut self, bounds: Option<Range<Ktime>>) -> Result<()> {
        let value = bounds.map_or(Window::CLOSED, |bounds| Window {
            start_ns: bounds.start.0,
            end_ns: bounds.end.0,
        });
        let mut window: Array<_, Window> = map(&mut self.ebpf, "WINDOW")?;
        window.set(0, value, 0)?;
        Ok(())
    }

    /// A visit that puts every thread of the targets into the ring buffer.
    ///
    /// # Errors
    /// If the kernel refuses the iteration.
    pub fn roll_call(&mut self) -> Result<Visit> {
        self.visit("roll_call")
    }

    /// A visit that puts the registers and stacks of every thread that is off-CPU into the ring
    /// buffer; `None` where the kernel cannot.
    ///
    /// # Errors
    /// If the kernel refuses the iteration.
    pub fn sweep(&mut self) -> Result<Option<Visit>> {
        if self.has_sweep { self.visit("sweep").map(Some) } else { Ok(None) }
    }

    /// The accounting of every thread that had an event.
    ///
    /// # Errors
    /// If the map cannot be read.
    pub fn threads(&mut self) -> Result<Vec<ThreadState>> {
        let threads: HashMap<_, u64, u32> = map(&mut self.ebpf, "THREADS")?;
        let taken: Vec<u32> =
            threads.iter().map(|entry| Ok(entry?.1)).collect::<Result<_, MapError>>()?;
        let slots: Array<_, Slot> = map(&mut self.ebpf, "SLOTS")?;
        taken.iter().map(|slot| Ok(slots.get(slot, 0)?.state)).collect()
    }

    fn free_slots(&mut self, numbers: impl Iterator<Item = u32>) -> Result<()> {
        let mut free: Stack<_, u32> = map(&mut self.ebpf, "FREE_SLOTS")?;
        for number in numbers {
            free.push(number, 0)?;
        }
        Ok(())
    }

    /// What was lost so far, all CPUs added up.
    ///
    /// # Errors
    /// If the counters cannot be read.
    pub fn counters(&mut self) -> Result<Vec<(Counter, u64)>> {
        let counters: PerCpuArray<_, u64> = map(&mut self.ebpf, "COUNTERS")?;
        Counter::ALL
            .iter()
            .map(|&counter| {
                let per_cpu = counters.get(&(counter as u32), 0)?;
                Ok((counter, per_cpu.iter().sum()))
            })
            .collect()
    }

    fn load_iterator(&mut self, name: &str) -> Result<()> {
        let program: &mut Iter =
            self.ebpf.program_mut(name).context("no such program")?.try_into()?;
        program.load("task", &self.btf).with_context(|| format!("cannot load {name}"))?;
        Ok(())
    }

    fn visit(&mut self, name: &str) -> Result<Visit> {
        let program: &mut Iter =
            self.ebpf.program_mut(name).context("no such program")?.try_into()?;
        let link = program.attach().with_context(|| format!("cannot attach {name}"))?;
        Ok(Visit { file: program.take_link(link)?.into_file()? })
    }

    fn attach_tracepoint(&mut self, name: &str, tracepoint: &str) -> Result<()> {
        let program: &mut BtfTracePoint =
            self.ebpf.program_mut(name).context("no such program")?.try_into()?;
        program
            .load(tracepoint, &self.btf)
            .and_then(|()| program.attach())
            .with_context(|| format!("cannot attach {name} to the tracepoint {tracepoint}"))?;
        Ok(())
    }

    /// Has a program run so many times a second on each CPU.
    fn attach_clock(&mut self, name: &str, frequency: u32) -> Result<()> {
        let program: &mut PerfEvent =
            self.ebpf.program_mut(name).context("no such program")?.try_into()?;
        program.load().with_context(|| format!("cannot load {name}"))?;
        let cpus = online_cpus().map_err(|(_, error)| error).context("cannot tell the CPUs")?;
        for cpu in cpus {
            program
                .attach(
                    PerfEventConfig::Software(SoftwareEvent::CpuClock),
                    PerfEventScope::AllProcessesOneCpu { cpu },
                    SamplePolicy::Frequency(frequency.into()),
                    false,
                )
                .with_context(|| format!("cannot attach {name} to the clock of CPU {cpu}"))?;
        }
        Ok(())
    }

    fn attach_kprobes(&mut self, name: &str, functions: &[String]) -> Result<()> {
        let program: &mut KProbe =
            self.ebpf.program_mut(name).context("no such program")?.try_into()?;
        program.load().with_context(|| format!("cannot load {name}"))?;
        for function in functions {
            program
                .attach(function, 0)
                .with_context(|| format!("cannot attach {name} to the function {function}"))?;
        }
        Ok(())
    }
}

/// The object with its maps made and its globals set, and no program loaded yet. `words` is what
/// the verifier is to say of a program that fails.
pub(super) fn load_object(
    probe: &Probe,
    request: &Request,
    btf: &Btf,
    words: VerifierLogLevel,
) -> Result<Ebpf> {
    let only_tgid = if request.children { 0 } else { request.target.0 };
    // What `bpf_get_stack` puts before the caller of the scheduler: in a BTF tracepoint the
    // program, the trampoline and `__schedule`; in a kprobe the probed function and `__schedule`.
    let skip: u32 = if request.hook == HookPath::FinishTaskSwitch { 2 } else { 3 };
    let pending = if request.hook == HookPath::SwitchOut { request.kept_stacks_max } else { 1 };
    let cpus = nr_cpus().map_err(|(_, error)| error).context("cannot tell the number of CPUs")?;
    let cpus = u32::try_from(cpus).context("there are too many CPUs")?;
    let check_drafts = if request.stack_copies == StackCopies::Always { cpus } else { 1 };
    let globals: Vec<(&str, u32)> = [
        ("HOOK_PATH", request.hook as u32),
        ("ONLY_TGID", only_tgid),
        ("SPLIT_AT_EXEC", u32::from(request.split_at_exec)),
        ("HAS_PREV_STATE", u32::from(probe.prev_state)),
        ("HAS_TASK_PT_REGS", u32::from(probe.bpf_task_pt_regs)),
        ("PT_REGS_OFFSET", PT_REGS_OFFSET),
        ("TASK_ON_CPU_BYTES", probe.on_cpu_bytes),
        ("KERNEL_STACK_SKIP", skip),
        ("RING_MARK_BITS", (request.ring_bytes / RING_MARKS).ilog2()),
        ("COPY_ALWAYS", request.stack_copies as u32),
        ("WAKER_STACKS", u32::from(request.wakers == Wakers::Stack)),
    ]
    .into_iter()
    .chain(probe.offsets.iter().copied())
    .collect();
    let waker_min_ns = match request.wakers {
        Wakers::None => u64::MAX,
        Wakers::Thread | Wakers::Stack => request.min_block.0.max(1),
    };
    let timer_wakes = probe.timer_wakes.clone().unwrap_or(0..0);
    let timer_wakes_bytes = timer_wakes.end - timer_wakes.start;
    let preempt_count_from_rq = probe.preempt_count_from_rq.unwrap_or(0).cast_unsigned();
    let log_level: u8 = if request.log { aya_log::Level::Debug as u8 } else { 0 };
    let mut loader = EbpfLoader::new();
    loader
        .btf(Some(btf))
        .verifier_log_level(words)
        .override_global("MIN_BLOCK_NS", &request.min_block.0, true)
        .override_global("WAKER_MIN_NS", &waker_min_ns, true)
        .override_global("TIMER_WAKES_AT", &timer_wakes.start, true)
        .override_global("TIMER_WAKES_BYTES", &timer_wakes_bytes, true)
        .override_global("PREEMPT_COUNT_FROM_RQ", &preempt_count_from_rq, true)
        .override_global(aya_log::LEVEL, &log_level, false)
        .map_max_entries("EVENTS", request.ring_bytes)
        .map_max_entries("THREADS", request.threads_max)
        .map_max_entries("SLOTS", request.threads_max)
        .map_max_entries("FREE_SLOTS", request.threads_max)
        .map_max_entries("PENDING", pending)
        .map_max_entries("FOUND", cpus)
        .map_max_entries("CHAINS", cpus)
        .map_max_entries("CHECK_DRAFT", check_drafts);
    for (name, value) in &globals {
        loader.override_global(name, value, true);
    }
    loader.load(OBJECT).context("cannot load the kernel side")
}

/// A typed map of the object.
fn map<'ebpf, M>(ebpf: &'ebpf mut Ebpf, name: &str) -> Result<M>
where
    M: TryFrom<&'ebpf mut Map, Error = MapError>,
{
    let map = ebpf.map_mut(name).with_context(|| format!("the object has no map {name}"))?;
    Ok(M::try_from(map)?)
}
