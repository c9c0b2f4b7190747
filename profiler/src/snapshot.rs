//! `stallscope snapshot`: a recording of a moment, and what every thread was doing then.

use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::{
    analysis::{self, Selection},
    cli::SnapshotArgs,
    kernel::{self, StackCopies, Wakers},
    record::{self, Extent, Outcome, Plan},
    recording::{file, redact::Redaction},
    render,
    report::{self, Outputs, Request},
    symbols::SymbolTable,
    target,
    terminal::say,
    units::Nanos,
};

/// Room for the stacks of a thousand threads; the visit of more waits until there is room again.
const RING_BYTES: u32 = 16 << 20;

/// Records the moment, prints it, and writes what was asked for.
///
/// # Errors
/// [`crate::failure::Failure`] where it cannot begin; other errors where a file cannot be read or
/// written.
pub fn run(args: &SnapshotArgs) -> Result<()> {
    // Before the target is looked at: what a process may not see of it depends on the same rights.
    kernel::probe::check_rights()?;
    let process = match (args.pid, &args.name) {
        (Some(pid), _) => target::by_pid(pid)?,
        (None, Some(name)) => target::by_name(name)?,
        (None, None) => unreachable!("the command line asks for one of them"),
    };
    if let Some(note) = &process.note {
        say(&format!("note: {note}"));
    }
    let stem = record::default_stem(&process.name, &process);
    let outputs = Outputs::of_snapshot(&args.output.output, &stem)?;
    report::check_paths(&outputs, args.output.force)?;
    let room = tempfile::tempdir().context("cannot make a directory for a temporary file")?;
    let recording = outputs.recording.clone();
    let plan = Plan {
        redaction: args.output.redact.then(Redaction::default),
        command: Vec::new(),
        duration: Some(Duration::ZERO),
        recording: recording.unwrap_or_else(|| room.path().join("moment.stall")),
        max_size: None,
        min_block: Nanos(0),
        children: args.children,
        hook: None,
        ring_bytes: RING_BYTES,
        wakers: Wakers::None,
        on_cpu: None,
        bpf_stats: false,
        bpf_log: false,
        stack_copies: StackCopies::WhereNeeded,
        symbols: args.symbols.options(),
        extent: Extent::Moment,
    };
    let Outcome { swept_in, .. } = record::record(&plan, &process, None)?;
    let recording = file::read(&plan.recording)?;
    let names = SymbolTable::from_recording(&recording);
    let selection = Selection { full_stacks: args.full_stacks, ..Selection::default() };
    let report = report::write_outputs(&recording, &names, &Request { outputs, selection })?;
    let threads: usize = report.pools.iter().map(|pool| pool.threads.len()).sum();
    let shown = if args.full_stacks { report } else { analysis::without_plumbing(report) };
    report::print(|out| render::snapshot(&shown, out, report::stdout_style()))?;
    say(&format!("looked at {threads} threads in {}", render::time(swept_in.as_nanos() as u64)));
    for path in &args.output.output {
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}
