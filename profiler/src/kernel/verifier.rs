//! What the kernel's verifier makes of each program.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Btf, VerifierLogLevel,
    programs::{Program, ProgramError},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

use super::load::{OBJECT, Programs, Request, load_object};
use crate::kernel::Probe;

/// What one program cost the verifier, and what it became.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified {
    /// Instructions that the verifier went through, each as often as it did. The kernel gives up
    /// at [`INSTRUCTIONS_MAX`].
    pub instructions: u64,
    /// Bytes of stack: of the program, then of each of its functions. What is on the stack at one
    /// time may take [`STACK_MAX`].
    pub stack: Vec<u64>,
    /// How long the verifier took.
    pub verification: Duration,
    /// How long the whole load took, machine code included.
    pub load: Duration,
    /// Bytes of the program as the verifier left it.
    pub translated_bytes: u32,
    /// Bytes of its machine code; 0 where the kernel interprets.
    pub jitted_bytes: u32,
}

/// Instructions after which the verifier gives up (`BPF_COMPLEXITY_LIMIT_INSNS`).
pub const INSTRUCTIONS_MAX: u64 = 1_000_000;

/// Bytes of stack that a program and the functions it is in may use (`MAX_BPF_STACK`).
pub const STACK_MAX: u64 = 512;

/// Loads the programs that a recording would load for `request`, each by itself, and tells what
/// the verifier said of each, by name. Everything is gone again when this returns.
///
/// # Errors
/// If the kernel refuses a program.
pub fn verify(probe: &Probe, request: &Request) -> Result<BTreeMap<String, Verified>> {
    // Which programs these are only the loader knows.
    let names: BTreeSet<String> =
        Programs::load(probe, request)?.loaded().map(str::to_owned).collect();
    let attachments = attachments()?;
    let btf = Btf::from_sys_fs().context("cannot read the kernel's BTF")?;
    let mut ebpf = load_object(probe, request, &btf, VerifierLogLevel::STATS)?;
    let mut all = BTreeMap::new();
    for name in names {
        let program = ebpf.program_mut(&name).context("no such program")?;
        let attachment = attachments.get(&name).with_context(|| format!("no symbol {name}"))?;
        let log = log_of(program, attachment, &btf)?;
        let begin = Instant::now();
        load(program, attachment, &btf).with_context(|| format!("cannot load {name}"))?;
        let load = begin.elapsed();
        let info = program.info().with_context(|| format!("cannot ask about {name}"))?;
        let said = Statistics::parse(&log)
            .with_context(|| format!("the verifier's log on {name} says something else: {log}"))?;
        let verified = Verified {
            instructions: said.instructions,
            stack: said.stack,
            verification: said.time,
            load,
            translated_bytes: info.size_translated().unwrap_or(0),
            jitted_bytes: info.size_jitted(),
        };
        all.insert(name, verified);
    }
    Ok(all)
}

/// The verifier's words on a program that it accepts.
///
/// aya keeps them only of a load that failed. So this one is made to fail, in its last step, the
/// descriptor: there may be none. `bpf_prog_info` has no stack depth, and the machine code does
/// not show it where the kernel gives programs a stack of their own.
fn log_of(program: &mut Program, attachment: &str, btf: &Btf) -> Result<String> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, 0, hard)?;
    let refused = load(program, attachment, btf);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard)?;
    match refused {
        Err(ProgramError::LoadError { verifier_log, .. }) => Ok(verifier_log.to_string()),
        Err(error) => Err(error.into()),
        Ok(()) => bail!("a program was loaded although there may be no descriptor for it"),
    }
}

fn load(program: &mut Program, attachment: &str, btf: &Btf) -> Result<(), ProgramError> {
    match program {
        Program::BtfTracePoint(program) => program.load(attachment, btf),
        Program::Iter(program) => program.load(attachment, btf),
        Program::KProbe(program) => program.load(),
        Program::PerfEvent(program) => program.load(),
        _ => Err(ProgramError::UnexpectedProgramType),
    }
}

/// What each program is for, by name: the part of its section's name behind the kind.
fn attachments() -> Result<BTreeMap<String, String>> {
    let object = object::File::parse(OBJECT)?;
    let mut all = BTreeMap::new();
    for symbol in object.symbols() {
        let Some(index) = symbol.section_index() else { continue };
        let section = object.section_by_index(index)?.name()?.to_owned();
        let attachment = section.split_once('/').map_or("", |(_, attachment)| attachment);
        all.insert(symbol.name()?.to_owned(), attachment.to_owned());
    }
    Ok(all)
}

/// What the verifier says at `BPF_LOG_STATS`.
#[derive(Debug, PartialEq, Eq)]
struct Statistics {
    time: Duration,
    stack: Vec<u64>,
    instructions: u64,
}

impl Statistics {
    /// `verification time 281 usec`, `stack depth 64+0`, `processed 905 insns (limit 1000000) ...`;
    /// `None` if a line is missing.
    fn parse(log: &str) -> Option<Self> {
        let after = |words: &str| log.lines().find_map(|line| line.strip_prefix(words));
        let number = |text: &str| text.split(' ').next()?.parse().ok();
        Some(Self {
            time: Duration::from_micros(number(after("verification time ")?)?),
            stack: after("stack depth ")?
                .split('+')
                .map(|part| part.trim().parse().ok())
                .collect::<Option<_>>()?,
            instructions: number(after("processed ")?)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_read_whole_or_not_at_all() {
        let check = |log: &str, expected: Option<(u64, &[u64], u64)>| {
            let expected = expected.map(|(micros, stack, instructions)| Statistics {
                time: Duration::from_micros(micros),
                stack: stack.to_vec(),
                instructions,
            });
            assert_eq!(Statistics::parse(log), expected);
        };
        check(
            "verification time 281 usec\nstack depth 64+0+320\nprocessed 905 insns (limit 1000000) \
             max_states_per_insn 4 total_states 60\n",
            Some((281, &[64, 0, 320], 905)),
        );
        check("verification time 1 usec\nstack depth 8\nprocessed 2 insns\n", Some((1, &[8], 2)));
        check("stack depth 8\nprocessed 2 insns (limit 1000000)\n", None);
        check("verification time 1 usec\nstack depth deep\nprocessed 2 insns\n", None);
        check("", None);
    }
}
