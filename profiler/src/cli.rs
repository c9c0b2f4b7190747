//! The command line: spelling, defaults and conflicts. Never probes and never works.

mod values;

use std::{ffi::OsString, fmt::Write, path::PathBuf, time::Duration};

use clap::{
    ArgGroup, Args, Parser, Subcommand, ValueEnum,
    builder::{PossibleValuesParser, TypedValueParser},
};

use crate::{
    analysis::{LongPoll, Selection, report::State},
    demo, doctor,
    failure::EXIT_CODES,
    inspect,
    record::{self, launch},
    render::Format,
    report, snapshot,
    symbols::SymbolOptions,
    units::{Nanos, Pid},
};

/// Waits shorter than this are counted, not named.
const MIN_BLOCK: &str = "100us";

/// Room between the kernel and the recorder: a second of 2,000 waits with stacks.
const RING_SIZE: &str = "16MiB";

/// Finds where the worker threads of async runtimes and thread pools sleep synchronously.
///
/// Attaches to a running process, without a rebuild or a restart, and says which task blocks which
/// pool, on which line, for how long, and waiting for what.
#[derive(Clone, Debug, PartialEq, Parser)]
#[command(name = "stallscope", version, after_help = top_help(), max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Subcommand)]
pub enum Command {
    /// Watch a process and write what its threads waited for.
    #[command(after_help = RECORD_EXAMPLES, override_usage = RECORD_USAGE)]
    Record(RecordArgs),
    /// Print what every thread of a process is doing now, and since when.
    #[command(after_help = SNAPSHOT_EXAMPLES, override_usage = SNAPSHOT_USAGE)]
    Snapshot(SnapshotArgs),
    /// Turn a recording into a picture, a summary or data; needs no rights and no target.
    #[command(after_help = REPORT_EXAMPLES)]
    Report(ReportArgs),
    /// Print what a stage of the tool sees.
    #[command(subcommand)]
    Inspect(Inspect),
    /// Say what this kernel and these rights allow, and how to mend what is missing.
    Doctor,
    /// Record a starving service of stallscope's own and explain the result.
    Demo(DemoArgs),
    /// Be the service that `demo` records.
    #[command(hide = true)]
    DemoService,
    /// Become a command once the recorder says so.
    #[command(hide = true, name = launch::GATE)]
    Gate {
        /// The program, then its arguments.
        #[arg(last = true, required = true)]
        command: Vec<OsString>,
    },
}

/// How to record.
#[derive(Clone, Debug, PartialEq, Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub struct RecordArgs {
    /// Whom to watch.
    #[command(flatten)]
    pub target: TargetArgs,

    /// How long; without it until Ctrl-C or until the target ends.
    ///
    /// Seconds, or a number with a unit: 10, 10s, 500ms, 2m.
    #[arg(short, long, value_name = "SECS", value_parser = values::seconds)]
    pub duration: Option<Duration>,

    /// Where the results go.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Which results.
    #[command(flatten)]
    pub select: SelectArgs,

    /// Name waits of at least this length; shorter ones are counted, not named. 0 names all.
    #[arg(long, value_name = "TIME", default_value = MIN_BLOCK, value_parser = values::nanos)]
    pub min_block: Nanos,

    /// Watch child processes too, each with pools of its own.
    #[arg(long)]
    pub children: bool,

    /// End the recording when its file has this size: 500MB, 1GiB.
    #[arg(long, value_name = "SIZE", value_parser = values::bytes)]
    pub max_size: Option<u64>,

    /// Where to look for names.
    #[command(flatten)]
    pub symbols: SymbolArgs,

    /// Room for events between the kernel and the recorder; raise it when intervals are dropped.
    #[arg(long, value_name = "SIZE", default_value = RING_SIZE, value_parser = values::bytes)]
    pub ring_size: u64,

    /// What to tell of who ends each wait: nothing, the thread or interrupt, or the stacks of the
    /// thread too.
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = WakersChoice::Thread)]
    pub wakers: WakersChoice,

    /// Also look what runs, so many times a second on each CPU: names long polls that compute.
    ///
    /// 99 is usual. It takes stacks of the target's threads while they run.
    #[arg(long, value_name = "HZ", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub on_cpu: Option<u32>,

    /// Measure what the kernel programs themselves cost.
    #[arg(long)]
    pub bpf_stats: bool,

    /// Print the debug log of the kernel programs.
    #[arg(long)]
    pub bpf_log: bool,

    /// Walk every stack twice, in the kernel and from a copy of it, and compare; for tests of the
    /// unwinder, and for doubters.
    #[arg(long, hide = true)]
    pub check_stacks: bool,

    /// Where stacks are captured; for tests, the kernel's offer decides.
    #[arg(long, hide = true, value_enum, default_value_t = HookChoice::Auto)]
    pub hook: HookChoice,
}

impl RecordArgs {
    /// What `record` would be told to record the demo's service.
    fn of_demo(request: &demo::Request) -> Self {
        let demo::Request { pid, duration, outputs, force } = request;
        Self {
            target: TargetArgs { pid: Some(pid.0), name: None, command: Vec::new() },
            duration: Some(*duration),
            output: OutputArgs { output: outputs.clone(), force: *force, redact: false },
            select: SelectArgs::default(),
            min_block: values::nanos(MIN_BLOCK).expect("the default is valid"),
            children: false,
            max_size: None,
            symbols: SymbolArgs::default(),
            ring_size: values::bytes(RING_SIZE).expect("the default is valid"),
            wakers: WakersChoice::Thread,
            on_cpu: None,
            bpf_stats: false,
            bpf_log: false,
            check_stacks: false,
            hook: HookChoice::Auto,
        }
    }
}

/// Whom to watch: exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[group(required = true, multiple = false)]
pub struct TargetArgs {
    /// The process with this id.
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// The one process with this name.
    #[arg(short, long)]
    pub name: Option<String>,

    /// A command to start, as the invoking user where sudo was used.
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// Whom to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetChoice {
    /// The process with this id.
    Pid(Pid),
    /// The one process with this name.
    Name(String),
    /// A command to start: the program, then its arguments. Never empty.
    Command(Vec<OsString>),
}

impl TargetArgs {
    /// The one that was given.
    pub fn choice(&self) -> TargetChoice {
        match (self.pid, &self.name) {
            (Some(pid), _) => TargetChoice::Pid(Pid(pid)),
            (None, Some(name)) => TargetChoice::Name(name.clone()),
            (None, None) => TargetChoice::Command(self.command.clone()),
        }
    }
}

/// What to look at.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(group = ArgGroup::new("process").required(true).args(["pid", "name"]))]
pub struct SnapshotArgs {
    /// The process with this id.
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    pub pid: Option<u32>,

    /// The one process with this name.
    #[arg(short, long)]
    pub name: Option<String>,

    /// Look at child processes too.
    #[arg(long)]
    pub children: bool,

    /// Show what leads to the code that runs, too: the start of a thread, the runtime's loop.
    #[arg(long)]
    pub full_stacks: bool,

    /// Where the results go.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Where to look for names.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// Where stacks are captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum HookChoice {
    /// The best that the kernel offers.
    Auto,
    /// `tp_btf/sched_exit_tp`.
    SchedExit,
    /// kprobes on `finish_task_switch*`.
    FinishTaskSwitch,
    /// `sched_switch` itself, for every wait.
    SwitchOut,
}

/// What to tell of who ends waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum WakersChoice {
    /// Nothing.
    None,
    /// The thread or the interrupt.
    Thread,
    /// The stacks of the thread too, where its process is watched.
    Stack,
}

/// Where the results go.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct OutputArgs {
    /// Write this file.
    #[arg(short, long, value_name = "PATH", help = output_help())]
    pub output: Vec<PathBuf>,

    /// Replace files that exist.
    #[arg(long)]
    pub force: bool,

    /// Leave out arguments, paths of files and sockets that are not code, and network addresses.
    #[arg(long)]
    pub redact: bool,
}

/// Which results.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SelectArgs {
    /// Only waits in these states [pictures default to `blocked`, or to all but `idle` where no
    /// runtime was recognised].
    #[arg(long, value_name = "STATE", value_delimiter = ',', value_parser = state_parser())]
    pub state: Vec<State>,

    /// Only this pool; may be repeated.
    #[arg(long, value_name = "NAME")]
    pub pool: Vec<String>,

    /// Only threads of this name or id; may be repeated.
    #[arg(long, value_name = "NAME|TID")]
    pub thread: Vec<String>,

    /// Count polls that hold a worker for this long, on the CPU or waiting [default: 10ms].
    #[arg(long, value_name = "TIME", value_parser = values::nanos)]
    pub long_poll: Option<Nanos>,

    /// Keep in pictures what leads to the code that runs: the start of a thread, the runtime's loop.
    #[arg(long)]
    pub full_stacks: bool,
}

impl SelectArgs {
    /// What it selects.
    pub fn selection(&self) -> Selection {
        Selection {
            states: (!self.state.is_empty()).then(|| self.state.clone()),
            pools: self.pool.clone(),
            threads: self.thread.clone(),
            long_poll: self.long_poll.map(LongPoll).unwrap_or_default(),
            full_stacks: self.full_stacks,
        }
    }
}

/// Where to look for names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct SymbolArgs {
    /// Directory with split debug information; may be repeated.
    #[arg(long, value_name = "DIR")]
    pub debug_dir: Vec<PathBuf>,
}

impl SymbolArgs {
    /// The same for the symbols room.
    pub fn options(&self) -> SymbolOptions {
        SymbolOptions { debug_dirs: self.debug_dir.clone() }
    }
}

/// What to report.
#[derive(Clone, Debug, PartialEq, Args)]
pub struct ReportArgs {
    /// The recording.
    #[arg(value_name = "FILE.stall")]
    pub recording: PathBuf,

    /// Where the results go; the summary is printed if nothing is asked for.
    #[command(flatten)]
    pub output: OutputArgs,

    /// Print this format.
    #[arg(long, value_parser = format_parser(), conflicts_with = "output")]
    pub format: Option<Format>,

    /// Which results.
    #[command(flatten)]
    pub select: SelectArgs,

    /// Where to look for names that the recording does not have.
    #[command(flatten)]
    pub symbols: SymbolArgs,
}

/// What to look into.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Inspect {
    /// What a recorder would see of a process: threads, mappings, containers.
    Target {
        /// The process.
        #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
        pid: u32,
    },
    /// The unwind tables of a program or library, or of everything that a process has mapped: rows,
    /// rules, bytes, and the code that they do not cover.
    #[command(override_usage = "stallscope inspect tables <-p PID | FILE>")]
    Tables {
        /// The process.
        #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
        #[arg(required_unless_present = "file", conflicts_with = "file")]
        pid: Option<u32>,
        /// The program or library.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// What this kernel's verifier makes of the programs, in JSON.
    #[command(hide = true)]
    Programs,
    /// What a recording holds: session, threads, modules, counters.
    Recording {
        /// The recording.
        #[arg(value_name = "FILE.stall")]
        file: PathBuf,
    },
    /// Every record of a recording, one JSON object a line.
    Events {
        /// The recording.
        #[arg(value_name = "FILE.stall")]
        file: PathBuf,
    },
}

/// How to demonstrate.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// How long to record.
    #[arg(short, long, value_name = "SECS", default_value = "5", value_parser = values::seconds)]
    pub duration: Duration,

    /// Directory that the recording and the picture are written to.
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub output: PathBuf,

    /// Replace files that exist.
    #[arg(long)]
    pub force: bool,
}

/// Does what the command line says.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    match cli.command {
        Command::Record(args) => record::run(&args),
        Command::Snapshot(args) => snapshot::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Inspect(what) => inspect::run(&what),
        Command::Doctor => doctor::run(),
        Command::Demo(args) => {
            let DemoArgs { duration, output, force } = args;
            let demo = demo::Demo { duration, out_dir: output, force };
            demo::run(&demo, |request| record::run(&RecordArgs::of_demo(request)))
        }
        Command::DemoService => demo::service::run(),
        Command::Gate { command } => launch::gate(&command),
    }
}

const RECORD_USAGE: &str = "stallscope record [OPTIONS] <-p PID | -n NAME | -- COMMAND...>";

const RECORD_EXAMPLES: &str = "\
Examples:
  sudo stallscope record -p 4242 -d 10 -o out.svg      ten seconds: a picture, and out.stall
  sudo stallscope record -n orders-api                 until Ctrl-C, then the summary
  sudo stallscope record -d 5 -- ./orders-api --port 8080
  sudo stallscope record -p 4242 -d 10 --min-block 0   name every wait, however short

The target is never stopped, signalled, traced or written to. Without -o a recording and a picture
are written to the working directory and the summary is printed.";

const SNAPSHOT_USAGE: &str = "stallscope snapshot [OPTIONS] <-p PID | -n NAME>";

const SNAPSHOT_EXAMPLES: &str = "\
Examples:
  sudo stallscope snapshot -p 4242                     every thread, by what it waits for
  sudo stallscope snapshot -n orders-api -o hung.json  the same as data, and hung.stall

The target is never stopped, signalled, traced or written to. Without -o no file is left.";

const REPORT_EXAMPLES: &str = "\
Examples:
  stallscope report out.stall                               the summary
  stallscope report out.stall -o out.json -o out.folded
  stallscope report out.stall --state idle,allowed -o rest.svg
  stallscope report out.stall --format json | jq '.sites[0]'";

fn top_help() -> String {
    let mut help =
        "Start with:\n  sudo stallscope record -p PID -d 10 -o out.svg\n\nExit codes:".to_owned();
    for (code, when) in EXIT_CODES {
        write!(help, "\n  {code:>3}  {when}").expect("a String takes every write");
    }
    help
}

fn output_help() -> String {
    let formats = Format::ALL.iter().map(|format| format!(".{}", format.extension()));
    format!(
        "Write this file; its extension is the format ({}). May be repeated. `record -o X.EXT` also \
         writes the recording X.stall",
        formats.collect::<Vec<_>>().join(" ")
    )
}

fn state_parser() -> impl TypedValueParser<Value = State> {
    let names = State::ALL.iter().map(|state| state.name());
    PossibleValuesParser::new(names).map(|name| {
        let state = State::ALL.iter().find(|state| state.name() == name);
        *state.expect("only the names of states are possible values")
    })
}

fn format_parser() -> impl TypedValueParser<Value = Format> {
    let names = Format::ALL.iter().map(|format| format.extension());
    PossibleValuesParser::new(names).map(|name| {
        let format = Format::ALL.iter().find(|format| format.extension() == name);
        *format.expect("only the names of formats are possible values")
    })
}

#[cfg(test)]
mod tests;
