//! The kernel side's programs, as the verifier of this kernel sees them.

use std::{
    collections::BTreeMap,
    io::{BufWriter, Write},
};

use anyhow::Context as _;
use profiler_common::config::HookPath;
use serde::Serialize;

use crate::{
    kernel::{
        Probe, Request, StackCopies, Wakers,
        probe::probe,
        verifier::{INSTRUCTIONS_MAX, STACK_MAX, Verified, verify},
    },
    record::hook_name,
    units::{Nanos, Pid},
};

/// What the verifier said of all programs.
#[derive(Debug, Serialize)]
pub struct Programs {
    kernel: String,
    instructions_max: u64,
    stack_max: u64,
    /// By place where stacks are taken.
    hooks: BTreeMap<String, BTreeMap<String, Figures>>,
}

/// One program. Where a recording's options change it, each figure is the largest.
#[derive(Debug, Serialize)]
struct Figures {
    instructions: u64,
    stack: Vec<u64>,
    verification_ns: u64,
    load_ns: u64,
    translated_bytes: u32,
    jitted_bytes: u32,
}

/// Loads the programs as `record` would, for each place where this kernel offers to take stacks,
/// and lets go of them. A kernel with `bpf_loop` also gets what is for kernels without.
///
/// # Errors
/// If the kernel refuses a program.
pub fn of_this_kernel() -> anyhow::Result<Programs> {
    let probe = probe()?;
    probe.hook(None)?;
    let mut hooks = BTreeMap::new();
    for hook in [HookPath::SchedExit, HookPath::FinishTaskSwitch, HookPath::SwitchOut] {
        if probe.hook(Some(hook)).is_err() {
            continue;
        }
        hooks.insert(hook_name(hook).to_owned(), at(&probe, hook)?);
        // No kernel has sched_exit_tp and lacks bpf_loop.
        if probe.bpf_loop && hook != HookPath::SchedExit {
            let older = Probe { bpf_loop: false, ..probe.clone() };
            hooks.insert(format!("{}-without-bpf_loop", hook_name(hook)), at(&older, hook)?);
        }
    }
    let kernel = probe.release;
    Ok(Programs { kernel, instructions_max: INSTRUCTIONS_MAX, stack_max: STACK_MAX, hooks })
}

/// Prints them as JSON.
pub fn print(programs: &Programs, out: &mut dyn Write) -> anyhow::Result<()> {
    let mut out = BufWriter::new(out);
    serde_json::to_writer_pretty(&mut out, programs)?;
    writeln!(out)?;
    Ok(out.flush()?)
}

/// The options of a recording are read-only globals: the verifier leaves out what they turn off.
/// So the programs are loaded with everything off and with everything on.
fn at(probe: &Probe, hook: HookPath) -> anyhow::Result<BTreeMap<String, Figures>> {
    let plain = Request {
        target: Pid(std::process::id()),
        children: false,
        split_at_exec: false,
        min_block: Nanos(100_000),
        hook,
        ring_bytes: 64 << 10,
        wakers: Wakers::Thread,
        on_cpu: None,
        threads_max: 1,
        kept_stacks_max: 1,
        stack_copies: StackCopies::WhereNeeded,
        log: false,
    };
    let full = Request {
        children: true,
        split_at_exec: true,
        min_block: Nanos(0),
        stack_copies: StackCopies::Always,
        wakers: Wakers::Stack,
        on_cpu: probe.bpf_loop.then_some(1),
        log: true,
        ..plain
    };
    let mut all = BTreeMap::new();
    for request in [plain, full] {
        let verified = verify(probe, &request)
            .with_context(|| format!("stacks taken at {}", hook_name(hook)))?;
        for (name, verified) in verified {
            let figures = Figures::from(verified);
            all.entry(name)
                .and_modify(|known: &mut Figures| known.grow(&figures))
                .or_insert(figures);
        }
    }
    Ok(all)
}

impl From<Verified> for Figures {
    fn from(verified: Verified) -> Self {
        let Verified { instructions, stack, verification, load, translated_bytes, jitted_bytes } =
            verified;
        Self {
            instructions,
            stack,
            verification_ns: verification.as_nanos() as u64,
            load_ns: load.as_nanos() as u64,
            translated_bytes,
            jitted_bytes,
        }
    }
}

impl Figures {
    fn grow(&mut self, other: &Self) {
        let Self { instructions, stack, verification_ns, load_ns, translated_bytes, jitted_bytes } =
            self;
        *instructions = other.instructions.max(*instructions);
        if other.stack.iter().sum::<u64>() > stack.iter().sum() {
            stack.clone_from(&other.stack);
        }
        *verification_ns = other.verification_ns.max(*verification_ns);
        *load_ns = other.load_ns.max(*load_ns);
        *translated_bytes = other.translated_bytes.max(*translated_bytes);
        *jitted_bytes = other.jitted_bytes.max(*jitted_bytes);
    }
}
