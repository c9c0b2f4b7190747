//! Kernel stacks that were unwound before, known again by where their return addresses lie.
//!
//! The kernel's own unwinder takes more than a microsecond, half of all that a capture costs, and
//! threads wait in the same few places again and again. What it gave is kept with the place of each
//! return address, counted from the innermost frame. A later stack by the same system call of the same
//! place in the program that has the same return addresses at these places is the same stack: each
//! return address says which function goes on there, and a function of the kernel has one frame size at
//! each of its calls. The outermost return address lies right below the user's registers, however
//! far from the others the entry code has moved them (`randomize_kstack_offset`).
//!
//! Where a return address lies is learned from several stacks: a word that has its value may be a
//! leftover, but only the true place has it in every stack.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{
    bpf_get_current_task, bpf_get_smp_processor_id, bpf_loop, bpf_probe_read_kernel,
};
use profiler_common::event::IntervalEvent;

use crate::{
    bounds::bounded,
    config,
    maps::{CHAINS, COPY, COPY_WORDS, Chain, KNOWN_CHAINS, KNOWN_FRAMES, Places, StackCopy},
};

/// Bytes that are copied.
const COPY_BYTES: u64 = 8 * COPY_WORDS as u64;

/// Stacks that are not the one that is known before that one is given up.
const GIVE_UP_AFTER: u32 = 16;
/// Stacks from which to learn one.
const TRIES: u32 = 64;
/// Stacks for which nothing is tried where one could not be learned.
const REST: u32 = 4096;

/// The kernel stack of the current thread as it is now, and what is known of stacks of its kind.
pub struct Place {
    copy: &'static mut StackCopy,
    chain: &'static mut Chain,
    key: u64,
}

impl Place {
    /// Looks at the stack of the current thread, whose user registers are in the event. The
    /// program's context lies on it, at one distance from the innermost frame.
    #[inline(always)]
    pub fn look(event: &IntervalEvent, ctx: *mut c_void) -> Option<Self> {
        let copy = COPY.get_ptr_mut(0)?;
        // SAFETY: the helper has no preconditions.
        let chains = CHAINS.get_ptr_mut(unsafe { bpf_get_smp_processor_id() })?;
        // SAFETY: values of this CPU; the hooks that use them run with preemption disabled.
        let copy = unsafe { &mut *copy };
        // Through memory, which makes a number of it.
        copy.here = ctx as u64;
        // SAFETY: as above; volatile for the compiler not to go on with the pointer.
        let here = unsafe { (&raw const copy.here).read_volatile() };
        // SAFETY: the helper has no preconditions; the address is read through a checked helper.
        let task = unsafe { bpf_get_current_task() };
        read(task.wrapping_add(u64::from(config::task_stack())), &mut copy.word, 8)?;
        let end = copy.word.wrapping_add(u64::from(config::pt_regs_offset()));
        let start = if here + COPY_BYTES > end { end.wrapping_sub(COPY_BYTES) } else { here };
        copy.skip = here.wrapping_sub(start) >> 3;
        read(start, &mut copy.words, COPY_BYTES as u32)?;
        read(end.wrapping_sub(8), &mut copy.word, 8)?;
        let key = key(event);
        let at = bounded::<{ KNOWN_CHAINS as i32 - 1 }>(key >> 57);
        // SAFETY: there are that many.
        let chain = unsafe { &mut *chains.cast::<Chain>().add(at as usize) };
        Some(Self { copy, chain, key })
    }

    /// Fills in the kernel frames if the stack is the one that is known.
    #[inline(always)]
    pub fn recall(&mut self, event: &mut IntervalEvent) -> bool {
        let Self { copy, chain, key } = self;
        if chain.key != *key || chain.frames == 0 || chain.outermost != copy.word {
            return false;
        }
        recalled(*copy, *chain, event) != 0
    }

    /// Puts aside what was recalled, to check it.
    #[inline(always)]
    pub fn keep(&mut self, event: &IntervalEvent) {
        self.copy.words[..KNOWN_FRAMES].copy_from_slice(&event.kernel[..KNOWN_FRAMES]);
        self.copy.skip = u64::from(event.kernel_frames);
    }

    /// Whether what was put aside is what the kernel's unwinder found.
    #[inline(always)]
    pub fn kept(&self, event: &IntervalEvent) -> bool {
        let mut same = self.copy.skip == u64::from(event.kernel_frames);
        for depth in 0..KNOWN_FRAMES {
            let of_stack = (depth as u64) < self.copy.skip;
            same &= !of_stack || self.copy.words[depth] == event.kernel[depth];
        }
        same
    }

    /// Learns from the stack that the kernel's unwinder found.
    #[inline(always)]
    pub fn learn(self, event: &IntervalEvent) {
        let Self { copy, chain, key } = self;
        let inner = event.kernel_frames.wrapping_sub(1);
        if inner == 0 || inner as usize >= KNOWN_FRAMES {
            return;
        }
        if chain.patience > 0 {
            chain.patience -= 1;
            return;
        }
        if chain.key != key || chain.frames != 0 {
            // Another kind of stack, or another stack of this kind.
            chain.misses += 1;
            if chain.key != 0 && chain.misses < GIVE_UP_AFTER {
                return;
            }
            chain.key = key;
            begin(copy, chain, event);
        }
        let mut context = Search { copy, chain };
        let step: extern "C" fn(u64, *mut Search) -> i64 = find;
        // SAFETY: the callback is a static function of the program, its context lies on the stack.
        unsafe {
            let step = step as *const () as *mut c_void;
            bpf_loop(COPY_WORDS as u32, step, (&raw mut context).cast(), 0);
        }
        // SAFETY: as in `find`.
        let (copy, chain) = unsafe { (&*context.copy, &mut *context.chain) };
        conclude(copy, chain, event);
    }
}

// Functions of their own: the verifier goes on in one state, however their loops ended.

/// Fills in the kernel frames; 0 if a return address is not where it was.
#[inline(never)]
extern "C" fn recalled(
    copy: *const StackCopy,
    chain: *mut Chain,
    event: *mut IntervalEvent,
) -> u64 {
    // SAFETY: those that `recall` has.
    let (copy, chain, event) = unsafe { (&*copy, &mut *chain, &mut *event) };
    for depth in 0..KNOWN_FRAMES {
        if depth as u32 >= chain.frames {
            break;
        }
        let Places { address, place, .. } = chain.places[depth];
        if copy.at(u64::from(place) + copy.skip) != address {
            return 0;
        }
        event.kernel[depth] = address;
    }
    let outermost = bounded::<{ KNOWN_FRAMES as i32 - 1 }>(u64::from(chain.frames));
    // SAFETY: there are more frames than that.
    unsafe { *event.kernel.as_mut_ptr().add(outermost as usize) = copy.word };
    event.kernel_frames = chain.frames + 1;
    chain.misses = 0;
    1
}

/// Begins to learn a stack, in a chain whose key is its.
#[inline(never)]
extern "C" fn begin(copy: *const StackCopy, chain: *mut Chain, event: *const IntervalEvent) -> u64 {
    // SAFETY: those that `learn` has.
    let (copy, chain, event) = unsafe { (&*copy, &mut *chain, &*event) };
    chain.frames = 0;
    chain.misses = 0;
    chain.tries = 0;
    chain.inner = event.kernel_frames.wrapping_sub(1);
    chain.outermost = copy.word;
    for depth in 0..KNOWN_FRAMES {
        let address = event.kernel[depth];
        let everywhere = [!0, !0];
        chain.places[depth] = Places {
            address,
            left: everywhere,
            next: [0, 0],
            count: 0,
            offset: 0,
            place: 0,
            reserved: 0,
        };
    }
    0
}

/// Leaves the places that had their return addresses in this stack too.
#[inline(never)]
extern "C" fn conclude(
    copy: *const StackCopy,
    chain: *mut Chain,
    event: *const IntervalEvent,
) -> u64 {
    // SAFETY: those that `learn` has.
    let (copy, chain, event) = unsafe { (&*copy, &mut *chain, &*event) };
    let (inner, outermost) = (event.kernel_frames.wrapping_sub(1), copy.word);
    let last = bounded::<{ KNOWN_FRAMES as i32 - 1 }>(u64::from(inner));
    // SAFETY: there are more frames than that.
    let last = unsafe { *event.kernel.as_ptr().add(last as usize) };
    let mut same = chain.inner == inner && chain.outermost == outermost && last == outermost;
    // Without branches, as in `find`: 0 if every frame is the same, has a place, and has one place.
    let (mut differ, mut lost, mut unclear) = (0, 0, 0);
    for depth in 0..KNOWN_FRAMES {
        if depth as u32 >= inner {
            break;
        }
        let places = &mut chain.places[depth];
        differ |= places.address ^ event.kernel[depth];
        lost |= places.count.wrapping_sub(1) >> 31;
        unclear |= places.count ^ 1;
        places.left = places.next;
        places.next = [0, 0];
        places.place = places.offset;
        places.offset = 0;
        places.count = 0;
    }
    chain.tries += 1;
    same &= differ == 0 && lost == 0;
    if !same {
        chain.key = 0;
        chain.patience = GIVE_UP_AFTER;
    } else if unclear == 0 {
        chain.frames = inner;
    } else if chain.tries > TRIES {
        chain.key = 0;
        chain.patience = REST;
    }
    0
}

/// What tells kinds of waits apart: the system call and its place in the program.
#[inline(always)]
fn key(event: &IntervalEvent) -> u64 {
    let call = (event.regs.orig_ax as u64) << 48 ^ event.regs.ip;
    // The golden ratio (Fibonacci hashing); 0 is no key.
    call.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1
}

/// Reads kernel memory.
#[inline(always)]
fn read<T>(from: u64, to: &mut T, bytes: u32) -> Option<()> {
    // SAFETY: `to` has room for that many bytes; the helper checks the address.
    let failed =
        unsafe { bpf_probe_read_kernel((&raw mut *to).cast(), bytes, from as *const c_void) };
    if failed == 0 { Some(()) } else { None }
}

/// What the search for return addresses hands to each of its steps.
struct Search {
    copy: *mut StackCopy,
    chain: *mut Chain,
}

/// Looks for return addresses in one word of the stack.
extern "C" fn find(index: u64, context: *mut Search) -> i64 {
    // SAFETY: the context that `learn` passed.
    let (copy, chain) = unsafe { (&*(*context).copy, &mut *(*context).chain) };
    if index + copy.skip >= COPY_WORDS as u64 {
        return 1;
    }
    let word = copy.at(index + copy.skip);
    let half = bounded::<1>(index >> 6) as usize;
    for depth in 0..KNOWN_FRAMES {
        if depth as u32 >= chain.inner {
            break;
        }
        let places = &mut chain.places[depth];
        if places.address != word {
            continue;
        }
        // Without a branch, which the verifier would follow both ways for every frame.
        let left = places.left.as_ptr();
        let next = places.next.as_mut_ptr();
        // SAFETY: there are two.
        unsafe {
            let hit = bounded::<1>(*left.add(half) >> (index & 63));
            *next.add(half) |= hit << (index & 63);
            places.count += hit as u32;
            places.offset += (index as u32).wrapping_mul(hit as u32);
        }
    }
    0
}
