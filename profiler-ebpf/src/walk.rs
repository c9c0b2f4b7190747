//! The walk of the current thread's user stack by the tables of its files.

use core::{arch::asm, ffi::c_void};

use aya_ebpf::helpers::generated::{bpf_loop, bpf_probe_read_user};
use profiler_common::{
    code::{CHUNK_ROWS, Mapping, MappingCode, PROCESS_MAPPINGS_MAX},
    stack::{INTERRUPTED, USER_FRAMES, WalkEnd},
    table::{CfaKind, Row, Rule, TEXT_PAGE_SHIFT},
    unwind::{Failure, Frame, Position, Step, step},
};

use crate::{
    bounds::bounded,
    maps::{
        Draft, FOUND, FOUND_BITS, Found, MAPPINGS, PAGES, PROCESSES, ROWS, RULES, WALK,
        WINDOW_BYTES, Walk,
    },
};

/// Steps of a binary search in all mappings of a process.
const MAPPING_STEPS: u32 = PROCESS_MAPPINGS_MAX.ilog2() + 1;
/// Steps of a binary search in all rows of a chunk.
const ROW_STEPS: u32 = CHUNK_ROWS.ilog2();

/// How a walk repeats its step.
pub trait Looping {
    /// Whether kernel stacks are looked for among those known from before.
    const RECALLS: bool;
    /// Whether the rule for an address is looked for among those known from before.
    const REMEMBERS: bool = true;
    /// Whether the thread is in the kernel for sure, so that there is a kernel stack.
    const IN_KERNEL: bool = true;
    /// Which walk of this CPU: a sample can come in the middle of another program.
    const WALK: u32 = 0;

    /// Repeats [`advance`] until it says 1, or there are enough frames; false if it does not walk.
    fn repeat(context: &mut Loop) -> bool;
}

/// By the helper `bpf_loop`, whose body the verifier looks at once.
pub struct ByHelper;

/// The same in the program that does everything at switch-out: with known kernel stacks it would be
/// more than the verifier follows.
pub struct AtSwitchOut;

/// The same for samples, which interrupt other programs and so share nothing with them.
pub struct ForSample;

/// The same for threads that end waits, for they do so in the middle of other programs too.
pub struct ForWaker;

/// Not at all: for programs that take no stacks, and for kernels without the helper.
///
/// A loop of its own of 128 frames is more than the million instructions that the verifier follows.
pub struct Never;

impl Looping for ByHelper {
    const RECALLS: bool = true;

    #[inline(always)]
    fn repeat(context: &mut Loop) -> bool {
        by_helper(advance::<Self>, context);
        true
    }
}

impl Looping for AtSwitchOut {
    const RECALLS: bool = false;

    #[inline(always)]
    fn repeat(context: &mut Loop) -> bool {
        by_helper(advance::<Self>, context);
        true
    }
}

impl Looping for ForSample {
    const RECALLS: bool = false;
    const REMEMBERS: bool = false;
    const IN_KERNEL: bool = false;
    const WALK: u32 = 1;

    #[inline(always)]
    fn repeat(context: &mut Loop) -> bool {
        by_helper(advance::<Self>, context);
        true
    }
}

impl Looping for ForWaker {
    const RECALLS: bool = false;
    const REMEMBERS: bool = false;
    const IN_KERNEL: bool = false;
    const WALK: u32 = 2;

    #[inline(always)]
    fn repeat(context: &mut Loop) -> bool {
        by_helper(advance::<Self>, context);
        true
    }
}

#[inline(always)]
fn by_helper(step: extern "C" fn(u64, *mut Loop) -> i64, context: &mut Loop) {
    // SAFETY: the callback is a static function of the program, its context lies on the stack.
    unsafe {
        let step = step as *const () as *mut c_void;
        bpf_loop(USER_FRAMES as u32, step, (&raw mut *context).cast(), 0);
    }
}

impl Looping for Never {
    const RECALLS: bool = false;

    #[inline(always)]
    fn repeat(_: &mut Loop) -> bool {
        false
    }
}

/// What the loop hands to each of its steps.
pub struct Loop {
    walk: *mut Walk,
    frames: *mut u64,
}

/// Walks from the drafted registers on: fills in the user frames and how the walk ended.
#[inline(always)]
pub fn walk<L: Looping, const BYTES: usize>(draft: &mut Draft<BYTES>) {
    let Some(process) = PROCESSES.get_ptr(&draft.event.tgid) else { return };
    let Some(walk) = WALK.get_ptr_mut(L::WALK) else { return };
    // SAFETY: a per-CPU value that only such programs use, with preemption disabled; and a value
    // of a hash map that the user side replaces as a whole.
    let (walk, process) = unsafe { (&mut *walk, &*process) };
    let regs = &draft.event.regs;
    let in_syscall = regs.orig_ax >= 0;
    walk.process = *process;
    walk.mapping.start = 0;
    walk.mapping.end = 0;
    walk.frame = Frame {
        ip: regs.ip,
        sp: regs.sp,
        bp: regs.bp,
        di: regs.args[0],
        position: if in_syscall { Position::Syscall } else { Position::Interrupted },
    };
    walk.count = 0;
    walk.by_frame_pointer = 0;
    walk.end = WalkEnd::TooDeep as u32;
    // Further from every address than the window is long.
    walk.window_at = 1 << 63;
    let mut context = Loop { walk, frames: (&raw mut draft.frames).cast() };
    if !L::repeat(&mut context) {
        return;
    }
    draft.event.user_frames = walk.count;
    draft.event.walk_end = walk.end;
    draft.event.generation = walk.process.generation;
    draft.event.by_frame_pointer = walk.by_frame_pointer;
}

/// Keeps the frame that the walk is at and goes on to its caller; 1 ends the loop.
extern "C" fn advance<L: Looping>(index: u64, context: *mut Loop) -> i64 {
    // SAFETY: the context that `walk` passed.
    let (walk, frames) = unsafe { (&mut *(*context).walk, (*context).frames) };
    let lookup = walk.frame.lookup();
    // An address outside of all code is no frame.
    if !know_rule::<L>(walk, lookup) {
        return 1;
    }
    let interrupted = walk.frame.position as u32 == Position::Interrupted as u32 && index > 0;
    let at = bounded::<{ USER_FRAMES as i32 - 1 }>(index);
    // SAFETY: there are that many entries.
    unsafe {
        *frames.add(at as usize) = walk.frame.ip | if interrupted { INTERRUPTED } else { 0 };
    }
    walk.count = at as u32 + 1;
    leave(walk)
}

/// Goes on to the caller of the frame, by the rule for its code.
#[inline(always)]
fn leave(walk: &mut Walk) -> i64 {
    let (frame, rule) = (walk.frame, walk.rule);
    let uncovered = rule.cfa as u8 == CfaKind::Uncovered as u8;
    let is_caller = frame.position as u32 == Position::Caller as u32;
    if uncovered && is_caller && (frame.bp & 7 != 0 || frame.bp < frame.sp) {
        walk.end = WalkEnd::BadFramePointer as u32;
        return 1;
    }
    walk.end = match step(rule, frame, |address| read(walk, address)) {
        Step::To(caller) => {
            walk.frame = caller;
            walk.by_frame_pointer += u32::from(uncovered);
            return 0;
        }
        Step::Outermost => WalkEnd::Complete,
        Step::Failed(Failure::Unsupported) => WalkEnd::Unsupported,
        Step::Failed(Failure::Unreadable(_)) => WalkEnd::Unreadable,
        Step::Failed(Failure::NotAdvancing) => WalkEnd::NotAdvancing,
        Step::Failed(Failure::RegisterLost) => WalkEnd::RegisterLost,
    } as u32;
    1
}

/// Finds the rule for the instruction that an address lies in: the one found there before, else by
/// search.
#[inline(always)]
fn know_rule<L: Looping>(walk: &mut Walk, lookup: u64) -> bool {
    if !L::REMEMBERS {
        return search(walk, lookup) == 0;
    }
    let generation = walk.process.generation;
    let slot = found_before(lookup);
    if let Some(found) = &slot
        && found.lookup == lookup
        && found.generation == generation
    {
        walk.rule = found.rule;
        return true;
    }
    if search(walk, lookup) != 0 {
        return false;
    }
    if let Some(found) = slot {
        *found = Found { lookup, generation, reserved: 0, rule: walk.rule };
    }
    true
}

/// Where this CPU keeps what was found for an address: stacks come again and again.
#[inline(always)]
fn found_before(lookup: u64) -> Option<&'static mut Found> {
    // SAFETY: the helper has no preconditions.
    let cpu = unsafe { aya_ebpf::helpers::bpf_get_smp_processor_id() };
    let all = FOUND.get_ptr_mut(cpu)?;
    // The upper bits of a product with the golden ratio depend on all bits (Fibonacci hashing).
    let hash = lookup.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - FOUND_BITS);
    let at = bounded::<{ (1 << FOUND_BITS) - 1 }>(hash);
    // SAFETY: there are that many, and only programs on this CPU, with preemption disabled, use
    // them.
    Some(unsafe { &mut *all.cast::<Found>().add(at as usize) })
}

/// Searches the rule for the instruction that an address lies in; 1 if there is none.
///
/// A function of its own so that the verifier goes on in one state, however the search went.
#[inline(never)]
extern "C" fn search(walk: *mut Walk, lookup: u64) -> u64 {
    // SAFETY: the one that `walk` took.
    let walk = unsafe { &mut *walk };
    match searched(walk, lookup) {
        Ok(rule) => {
            walk.rule = rule;
            0
        }
        Err(end) => {
            walk.end = end as u32;
            1
        }
    }
}

#[inline(always)]
fn searched(walk: &mut Walk, lookup: u64) -> Result<Rule, WalkEnd> {
    if lookup < walk.mapping.start || lookup >= walk.mapping.end {
        find_mapping(walk, lookup)?;
    }
    let Mapping { bias, page_base, code, .. } = walk.mapping;
    if code == MappingCode::FramePointer as u32 {
        return Ok(Rule::of(CfaKind::Uncovered));
    }
    if code != MappingCode::Table as u32 {
        return Err(WalkEnd::NoTable);
    }
    let address = lookup.wrapping_sub(bias);
    let page = page_base.wrapping_add((address >> TEXT_PAGE_SHIFT) as u32);
    let Some(page) = PAGES.get_ptr(page) else { return Err(WalkEnd::NoTable) };
    // SAFETY: a value of an array map, which the user side wrote before it published the mapping.
    let page = unsafe { &*page };
    if page.rows == 0 {
        return Ok(Rule::of(CfaKind::Uncovered));
    }
    // On the stack: a constant zero would be put where some global of the loader's lies that is zero
    // in the object, and be whatever the loader makes of that.
    let only = bounded::<0>(0) as u32;
    let Some(chunk) = ROWS.get_value(page.chunk, &only) else { return Err(WalkEnd::NoTable) };
    let rows = chunk.as_ptr().cast::<Row>();
    let row = |at: u64| {
        // SAFETY: masked to the length of a chunk.
        unsafe { *rows.add(bounded::<{ CHUNK_ROWS as i32 - 1 }>(at) as usize) }
    };
    let low = address & 0xffff;
    let (mut at, mut count) = (u64::from(page.first), u64::from(page.rows));
    for _ in 0..ROW_STEPS {
        if count <= 1 {
            break;
        }
        let half = count >> 1;
        let not_above = below(u64::from(row(at + half).low()), low + 1);
        at += half & not_above;
        count -= half;
    }
    let Some(rule) = RULES.get_ptr(u32::from(row(at).rule())) else {
        return Err(WalkEnd::NoTable);
    };
    // SAFETY: as for the page.
    Ok(unsafe { *rule })
}

/// Goes to the mapping that an address lies in.
#[inline(always)]
fn find_mapping(walk: &mut Walk, lookup: u64) -> Result<(), WalkEnd> {
    let (mut at, mut count) = (u64::from(walk.process.first), u64::from(walk.process.mappings));
    if count == 0 {
        return Err(WalkEnd::NoMapping);
    }
    for _ in 0..MAPPING_STEPS {
        if count <= 1 {
            break;
        }
        let half = count >> 1;
        let Some(mapping) = MAPPINGS.get_ptr((at + half) as u32) else {
            return Err(WalkEnd::NoMapping);
        };
        // SAFETY: a value of an array map.
        let not_above = below(unsafe { (*mapping).start }, lookup + 1);
        at += half & not_above;
        count -= half;
    }
    let Some(mapping) = MAPPINGS.get_ptr(at as u32) else { return Err(WalkEnd::NoMapping) };
    // SAFETY: as above.
    let mapping = unsafe { &*mapping };
    if lookup < mapping.start || lookup >= mapping.end {
        return Err(WalkEnd::NoMapping);
    }
    walk.mapping = *mapping;
    Ok(())
}

/// All ones if `left < right`, else 0; both below 2^63.
///
/// In a way that the compiler cannot make a branch of: the verifier would follow both sides of it
/// in every step of a search.
#[inline(always)]
fn below(left: u64, right: u64) -> u64 {
    let mut difference = left.wrapping_sub(right);
    // SAFETY: an arithmetic instruction on a register.
    unsafe { asm!("{0} s>>= 63", inout(reg) difference) };
    difference
}

/// Eight bytes of the stack.
#[inline(always)]
fn read(walk: &mut Walk, address: u64) -> Option<u64> {
    if read_word(walk, address) == 0 { Some(walk.word) } else { None }
}

/// Reads eight bytes of the stack out of a window that follows the walk, for frames are small; 1 if
/// they cannot be read. A function of its own for the same reason as [`search`].
#[inline(never)]
extern "C" fn read_word(walk: *mut Walk, address: u64) -> u64 {
    // SAFETY: the one that `walk` took.
    let walk = unsafe { &mut *walk };
    if address.wrapping_sub(walk.window_at) > WINDOW_BYTES as u64 - 8 {
        let window = (&raw mut walk.window).cast::<c_void>();
        let from = address as *const c_void;
        // SAFETY: the window has that many bytes; the helper checks the address.
        if unsafe { bpf_probe_read_user(window, WINDOW_BYTES as u32, from) } != 0 {
            // There is memory near that cannot be read. The window was written in part.
            walk.window_at = 1 << 63;
            let word = (&raw mut walk.word).cast::<c_void>();
            // SAFETY: room for eight bytes; the helper checks the address.
            return u64::from(unsafe { bpf_probe_read_user(word, 8, from) } != 0);
        }
        walk.window_at = address;
    }
    let at = bounded::<{ WINDOW_BYTES as i32 - 1 }>(address.wrapping_sub(walk.window_at));
    let window = (&raw const walk.window).cast::<u8>();
    // SAFETY: the window has eight bytes to spare behind every such offset.
    walk.word = unsafe { window.add(at as usize).cast::<u64>().read_unaligned() };
    0
}
