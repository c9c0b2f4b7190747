//! `stallscope record`: a recording, then the reports that were asked of it, from it alone.

use std::{ffi::OsStr, fs, path::Path};

use anyhow::{Result, ensure};
use profiler_common::config::HookPath;

use super::{
    Extent, Outcome, Plan,
    launch::{self, Launched},
    record,
};
use crate::{
    cli::{HookChoice, RecordArgs, TargetChoice, WakersChoice},
    failure::Failure,
    kernel::{self, StackCopies, Wakers},
    recording::{EndReason, file, redact::Redaction},
    report::{self, Outputs, Request},
    symbols::SymbolTable,
    target::{self, Process},
    terminal::say,
};

/// Bounds of the ring buffer's size in bytes.
const RING_BYTES: std::ops::RangeInclusive<u64> = 64 << 10..=1 << 30;

/// Records, writes the reports and prints the summary.
///
/// # Errors
/// [`Failure`] where it cannot begin; other errors where a file cannot be read or written.
pub fn run(args: &RecordArgs) -> Result<()> {
    let ring_bytes = ring_bytes(args.ring_size)?;
    // Before the target is looked at: what a process may not see of it depends on the same rights.
    kernel::probe::check_rights()?;
    let launched = match args.target.choice() {
        TargetChoice::Command(command) => Some((Launched::hold(&command)?, command)),
        TargetChoice::Pid(_) | TargetChoice::Name(_) => None,
    };
    let (process, name) = match (args.target.choice(), &launched) {
        (TargetChoice::Pid(pid), _) => named(target::by_pid(pid.0)?),
        (TargetChoice::Name(name), _) => named(target::by_name(&name)?),
        (TargetChoice::Command(command), Some((launched, _))) => {
            (target::by_pid(launched.pid().0)?, file_name(Path::new(&command[0])))
        }
        (TargetChoice::Command(_), None) => unreachable!("a command was launched above"),
    };
    if let Some(note) = &process.note {
        say(&format!("note: {note}"));
    }
    let outputs = Outputs::of_record(&args.output.output, &default_stem(&name, &process))?;
    report::check_paths(&outputs, args.output.force)?;
    let recording = report::recording_path(&outputs, &default_stem(&name, &process));
    let plan = Plan {
        command: launched.as_ref().map(|(_, command)| command.clone()).unwrap_or_default(),
        duration: args.duration,
        recording: recording.clone(),
        redaction: args.output.redact.then(Redaction::default),
        max_size: args.max_size,
        min_block: args.min_block,
        children: args.children,
        hook: hook(args.hook),
        ring_bytes,
        wakers: wakers(args.wakers),
        on_cpu: args.on_cpu,
        bpf_stats: args.bpf_stats,
        bpf_log: args.bpf_log,
        stack_copies: if args.check_stacks {
            StackCopies::Always
        } else {
            StackCopies::WhereNeeded
        },
        symbols: args.symbols.options(),
        extent: Extent::Window,
    };
    let (launched, command) = launched.unzip();
    let Outcome { reason, target_ran, swept_in: _ } = record(&plan, &process, launched.as_ref())?;
    if let Some(launched) = &launched {
        launched.ask_to_end();
    }
    if let (Some(command), false) = (command, target_ran) {
        // It would only be in the way of the next try.
        let _ = fs::remove_file(&recording);
        return Err(launch::not_started(&command[0]).into());
    }
    reports(&recording, &Request { outputs, selection: args.select.selection() })?;
    launched.map_or(Ok(()), Launched::say_end)?;
    ensure!(
        reason != EndReason::WriteFailed,
        "{} holds the recording up to the moment when it could not be written any more; make room, \
         or record to another disk with -o",
        recording.display()
    );
    Ok(())
}

/// Writes what was asked for from the finished recording and prints the summary.
fn reports(path: &Path, request: &Request) -> Result<()> {
    let recording = file::read(path)?;
    // The names were looked up while the target lived; nothing is added to them here.
    let names = SymbolTable::from_recording(&recording);
    let report = report::write_outputs(&recording, &names, request)?;
    report::print_summary(&report, request.selection.states.as_deref())?;
    for path in request.outputs.files.iter().map(|(path, _)| path.as_path()).chain([path]) {
        say(&format!("wrote {}", path.display()));
    }
    Ok(())
}

fn named(process: Process) -> (Process, String) {
    let name = process.name.clone();
    (process, name)
}

/// `stallscope-NAME-PID-TIME`, safe as a file name.
pub(crate) fn default_stem(name: &str, process: &Process) -> String {
    let safe: String = name
        .chars()
        .map(|c| if c.is_alphanumeric() || "._-".contains(c) { c } else { '_' })
        .collect();
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%SZ");
    format!("stallscope-{safe}-{}-{time}", process.pid)
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or(OsStr::new("command")).to_string_lossy().into_owned()
}

fn hook(choice: HookChoice) -> Option<HookPath> {
    match choice {
        HookChoice::Auto => None,
        HookChoice::SchedExit => Some(HookPath::SchedExit),
        HookChoice::FinishTaskSwitch => Some(HookPath::FinishTaskSwitch),
        HookChoice::SwitchOut => Some(HookPath::SwitchOut),
    }
}

fn wakers(choice: WakersChoice) -> Wakers {
    match choice {
        WakersChoice::None => Wakers::None,
        WakersChoice::Thread => Wakers::Thread,
        WakersChoice::Stack => Wakers::Stack,
    }
}

/// The kernel wants a power of two that is a multiple of the page size.
fn ring_bytes(asked: u64) -> Result<u32> {
    if !RING_BYTES.contains(&asked) {
        return Err(Failure::Usage(format!(
            "--ring-size {asked}: must be between 64KiB and 1GiB; the default is 16MiB"
        ))
        .into());
    }
    Ok(asked.next_power_of_two() as u32)
}
