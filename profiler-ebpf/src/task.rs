//! Every read of a kernel structure.

use core::ffi::c_void;

use aya_ebpf::helpers::{
    bpf_get_current_task, bpf_probe_read_kernel,
    generated::{bpf_get_current_task_btf, bpf_task_pt_regs},
};
use profiler_common::{event::UserRegs, state::ThreadId};

use crate::{config, maps::TARGETS};

/// User code segment selectors of 64-bit code; anything else is 32-bit code or no user mode.
const USER_CS_64: u64 = 0x33;

/// Threads below this priority are real-time ones (`linux/sched/prio.h`).
const MAX_RT_PRIO: i32 = 100;

/// A `task_struct` that the kernel gave the program as a typed pointer, so that its fields are
/// plain loads.
#[derive(Clone, Copy)]
pub struct Task(*const u8);

impl Task {
    /// A task that came as a typed argument of a tracepoint or iterator, and is not null.
    #[inline(always)]
    pub fn new(task: *const c_void) -> Self {
        Self(task.cast())
    }

    /// The thread that runs the program; `None` on kernels that do not give it as a typed pointer.
    #[inline(always)]
    pub fn current() -> Option<Self> {
        if config::has_task_pt_regs() == 0 {
            return None;
        }
        // SAFETY: the helper always returns the current task.
        Some(Self::new(unsafe { bpf_get_current_task_btf() }.cast()))
    }

    /// The pointer itself.
    #[inline(always)]
    pub fn as_ptr<T>(self) -> *mut T {
        self.0.cast_mut().cast()
    }

    #[inline(always)]
    fn load<T: Copy>(self, offset: u32) -> T {
        // SAFETY: the offset is that of a field of `T` in the running kernel's BTF, and the
        // verifier checks the load against the same BTF.
        unsafe { self.0.add(offset as usize).cast::<T>().read_volatile() }
    }

    /// What tells it from every other thread that lives at the same time, even while an `exec`
    /// swaps thread ids.
    #[inline(always)]
    pub fn key(self) -> u64 {
        self.0 as u64
    }

    /// Its ids.
    #[inline(always)]
    pub fn id(self) -> ThreadId {
        ThreadId { tid: self.tid(), tgid: self.tgid() }
    }

    /// Thread id in the initial PID namespace.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        self.load(config::task_pid())
    }

    /// Process id in the initial PID namespace.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        self.load(config::task_tgid())
    }

    /// Scheduler state bits.
    #[inline(always)]
    pub fn state(self) -> u32 {
        self.load(config::task_state())
    }

    /// Whether it is on a CPU, or on its way off one.
    #[inline(always)]
    pub fn on_cpu(self) -> bool {
        if config::task_on_cpu_bytes() == 1 {
            return self.load::<u8>(config::task_on_cpu()) != 0;
        }
        self.load::<u32>(config::task_on_cpu()) != 0
    }

    /// How often it was switched out, by the kernel's own count.
    #[inline(always)]
    pub fn switches(self) -> u64 {
        self.load::<u64>(config::task_nvcsw()) + self.load::<u64>(config::task_nivcsw())
    }

    /// When it was created, on the clock of `bpf_ktime_get_ns`.
    #[inline(always)]
    pub fn start_time(self) -> u64 {
        self.load(config::task_start_time())
    }

    /// When its process was created; an `exec` keeps it.
    #[inline(always)]
    pub fn process_start_time(self) -> u64 {
        let leader = Self(self.load::<*const u8>(config::task_group_leader()));
        leader.start_time()
    }

    /// When it last got a CPU, in nanoseconds of the scheduler's clock; 0 if the kernel does not
    /// say.
    #[inline(always)]
    pub fn got_cpu_at(self) -> u64 {
        if config::task_last_arrival() == 0 { 0 } else { self.load(config::task_last_arrival()) }
    }

    /// When it last left a CPU, on the same clock: when it got it, and for how long it ran then. 0
    /// if the kernel does not say, as of real-time threads, of which it keeps no such length.
    ///
    /// The length leaves out what interrupts and the hypervisor took meanwhile.
    #[inline(always)]
    pub fn left_cpu_at(self) -> u64 {
        let got_cpu_at = self.got_cpu_at();
        if got_cpu_at == 0 || self.load::<i32>(config::task_prio()) < MAX_RT_PRIO {
            return 0;
        }
        let run: u64 = self.load(config::task_run());
        let before: u64 = self.load(config::task_run_before());
        got_cpu_at + run.saturating_sub(before)
    }

    /// Its name.
    #[inline(always)]
    pub fn comm(self) -> [u8; 16] {
        let name = self.0.wrapping_add(config::task_comm() as usize).cast::<[u8; 16]>();
        // SAFETY: the helper checks the address.
        unsafe { bpf_probe_read_kernel(name) }.unwrap_or([0; 16])
    }

    /// Whether it belongs to a watched process, by id alone: the filter that everything passes.
    #[inline(always)]
    pub fn is_watched(self) -> bool {
        let only = config::only_tgid();
        if only != 0 {
            return self.tgid() == only;
        }
        TARGETS.get_ptr(&self.tgid()).is_some()
    }

    /// Whether it belongs to the process that is meant and not to a later one with the same id.
    #[inline(always)]
    pub fn is_of_target(self) -> bool {
        let Some(start_time) = TARGETS.get_ptr(&self.tgid()) else {
            return false;
        };
        // SAFETY: a value of a preallocated hash map, a single word.
        unsafe { *start_time == self.process_start_time() }
    }
}

/// The register frame that the kernel saved on entry from user mode (`struct pt_regs`, x86-64, an
/// ABI).
#[derive(Clone, Copy)]
#[repr(C)]
struct PtRegs {
    r15: u64,
    r14: u64,
    r13: u64,
    r12: u64,
    bp: u64,
    bx: u64,
    r11: u64,
    r10: u64,
    r9: u64,
    r8: u64,
    ax: u64,
    cx: u64,
    dx: u64,
    si: u64,
    di: u64,
    orig_ax: u64,
    ip: u64,
    cs: u64,
    flags: u64,
    sp: u64,
    ss: u64,
}

/// User registers of the current thread at its wait, written to `out`. False if it has none: not
/// in 64-bit user code before.
#[inline(always)]
pub fn current_user_regs(out: &mut UserRegs) -> bool {
    if config::has_task_pt_regs() != 0 {
        // SAFETY: the helper always returns the current task.
        let task = unsafe { bpf_get_current_task_btf() };
        return user_regs(task.cast(), out);
    }
    // SAFETY: the helper returns an address that is only read through a checked helper.
    let task = unsafe { bpf_get_current_task() } as *const u8;
    let stack = task.wrapping_add(config::task_stack() as usize).cast::<*const u8>();
    // SAFETY: the helper checks the address.
    let Ok(stack) = (unsafe { bpf_probe_read_kernel(stack) }) else {
        return false;
    };
    let regs = stack.wrapping_add(config::pt_regs_offset() as usize).cast::<PtRegs>();
    // SAFETY: the helper checks the address.
    match unsafe { bpf_probe_read_kernel(regs) } {
        Ok(regs) => keep(&regs, out),
        Err(_) => false,
    }
}

/// User registers of a thread that is off-CPU, written to `out`; see [`current_user_regs`].
#[inline(always)]
pub fn user_regs(task: *mut c_void, out: &mut UserRegs) -> bool {
    // SAFETY: `task` is a typed task pointer; the helper returns a typed `pt_regs` pointer that
    // the verifier lets the program read.
    let regs = unsafe { bpf_task_pt_regs(task.cast()) } as *const PtRegs;
    if regs.is_null() {
        return false;
    }
    // SAFETY: as above.
    keep(unsafe { &*regs }, out)
}

#[inline(always)]
fn keep(regs: &PtRegs, out: &mut UserRegs) -> bool {
    // Threads that the kernel makes for io_uring and vhost have a register frame, but no user code.
    if regs.cs != USER_CS_64 || regs.ip == 0 || regs.sp == 0 {
        return false;
    }
    out.ip = regs.ip;
    out.sp = regs.sp;
    out.bp = regs.bp;
    out.orig_ax = regs.orig_ax as i64;
    out.args = [regs.di, regs.si, regs.dx, regs.r10, regs.r8, regs.r9];
    out.others = [regs.bx, regs.r12, regs.r13, regs.r14, regs.r15, regs.ax, regs.cx, regs.r11];
    true
}
