//! What the programs cost the target, ours and those of offcputime, on the same workload.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{
    Paths, monotonic_ns,
    numbers::median,
    programs::{self, Runs},
    recorded::{self, Recorded},
    target::Target,
};

/// Between the first run of a tool's programs and the measurement: tables are made, caches filled.
const SETTLE: Duration = Duration::from_secs(1);

/// What a tool has beyond the measurement, to be asked for its programs' names.
const SPARE: Duration = Duration::from_secs(2);

/// How long a tool may take to begin.
const BEGIN_LIMIT: Duration = Duration::from_secs(30);

/// Who records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tool {
    /// stallscope with a stack for every wait.
    EveryWait,
    /// stallscope as it is used.
    Default,
    /// offcputime of libbpf-tools, which takes a stack at every switch.
    Offcputime,
}

/// What is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Load {
    /// A Tokio service with this many calls between a handler and its wait. One wait in 17 is an idle
    /// one of a millisecond.
    Service(u32),
    /// Two threads that hand a byte to and fro through pipes: nothing but short waits.
    Storm,
    /// The same on one CPU, where one thread's switch-out is the other's switch-in.
    StormOnOneCpu,
}

impl Load {
    fn words(self) -> Vec<String> {
        match self {
            Self::Service(depth) => vec!["service".into(), "--depth".into(), depth.to_string()],
            Self::Storm => vec!["storm".into()],
            Self::StormOnOneCpu => vec!["storm".into(), "--same-cpu".into()],
        }
    }
}

/// One measurement.
struct Sample {
    /// Of the target's threads.
    switches: u64,
    /// By name.
    programs: BTreeMap<String, Runs>,
    /// Of ours.
    recorded: Recorded,
}

/// The medians over all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub tool: Tool,
    /// What was recorded.
    pub load: Load,
    /// The target's context switches a second.
    pub switches_per_second: f64,
    /// Run time of all programs, by the target's switches.
    pub ns_per_switch: f64,
    /// The same by the recorded intervals with a user stack; offcputime takes one at each switch.
    pub ns_per_stack: f64,
    /// Frames of a user stack, in the mean; unknown for offcputime.
    pub frames: f64,
    /// Part of the user stacks that end at the outermost frame; unknown for offcputime.
    pub complete: f64,
    /// By program.
    pub programs: BTreeMap<String, Share>,
}

/// One program's part.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Share {
    pub ns_per_switch: f64,
    pub ns_per_run: f64,
    /// More than the target's switches where other processes make it run too.
    pub runs_per_switch: f64,
}

/// Measures every case once a round, the cases in turns, so that what changes on the machine meets all of them.
pub fn measure(
    paths: &Paths,
    cases: &[(Tool, Load)],
    rounds: u32,
    length: Duration,
) -> Result<Vec<Row>> {
    let mut samples: Vec<Vec<Sample>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for ((tool, load), samples) in cases.iter().zip(&mut samples) {
            println!("round {round} of {rounds}: {tool:?}, {load:?}");
            samples.push(sample(paths, *tool, *load, length)?);
        }
    }
    let row = |((tool, load), samples): (&(Tool, Load), &Vec<Sample>)| {
        summarize(*tool, *load, samples, length)
    };
    Ok(cases.iter().zip(&samples).map(row).collect())
}

fn sample(paths: &Paths, tool: Tool, load: Load, length: Duration) -> Result<Sample> {
    let words = load.words();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let mut target = Target::start(&paths.workload, &words, &[])?;
    target.go()?;
    let recording = paths.scratch.join("service.stall");
    let mut child = start(paths, tool, target.pid(), SETTLE + length + SPARE, &recording)?;
    wait_for_runs(&mut child)?;
    thread::sleep(SETTLE);
    let from = monotonic_ns()?;
    let (switches, before) = (target.switches()?, programs::of_process(child.id())?);
    thread::sleep(length);
    let to = monotonic_ns()?;
    let (switches, after) = (target.switches()? - switches, programs::of_process(child.id())?);
    let mut by_name = BTreeMap::new();
    for (id, runs) in after {
        let runs = runs.since(before.get(&id).copied().unwrap_or_default());
        let sum: &mut Runs = by_name.entry(programs::name(id)?).or_default();
        *sum = Runs { count: sum.count + runs.count, ns: sum.ns + runs.ns };
    }
    let status = child.wait().context("cannot wait for a tool")?;
    if !status.success() {
        bail!("{tool:?} failed: {status}");
    }
    target.stop()?;
    let recorded = match tool {
        Tool::Offcputime => Recorded::default(),
        Tool::EveryWait | Tool::Default => {
            recorded::read(&paths.stallscope, &recording, &(from..to))?
        }
    };
    Ok(Sample { switches, programs: by_name, recorded })
}

fn start(
    paths: &Paths,
    tool: Tool,
    pid: u32,
    length: Duration,
    recording: &PathBuf,
) -> Result<Child> {
    let (pid, seconds) = (pid.to_string(), length.as_secs().to_string());
    let mut command = match tool {
        Tool::Offcputime => {
            let mut command = Command::new("offcputime");
            // The default has room for 1,024 stacks; one that finds none costs less.
            command.args(["--stack-storage-size", "16384", "-p", &pid, &seconds]);
            command
        }
        Tool::EveryWait | Tool::Default => {
            let mut command = Command::new(&paths.stallscope);
            command.args(["record", "--force", "-p", &pid, "-d", &seconds, "-o"]).arg(recording);
            if tool == Tool::EveryWait {
                command.args(["--min-block", "0"]);
            }
            command
        }
    };
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().with_context(|| format!("cannot start {tool:?}"))
}

/// Until every program of the tool that a switch runs has run.
fn wait_for_runs(child: &mut Child) -> Result<()> {
    let deadline = Instant::now() + BEGIN_LIMIT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait().context("cannot wait for a tool")? {
            bail!("a tool ended before it began: {status}");
        }
        if programs::of_process(child.id())?.values().any(|runs| runs.count > 1000) {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(20));
    }
    bail!("no program of a tool ran within {} s", BEGIN_LIMIT.as_secs())
}

fn summarize(tool: Tool, load: Load, samples: &[Sample], length: Duration) -> Row {
    let of = |figure: &dyn Fn(&Sample) -> f64| median(samples.iter().map(figure));
    let ns = |sample: &Sample| sample.programs.values().map(|runs| runs.ns).sum::<u64>() as f64;
    let switches = |sample: &Sample| sample.switches as f64;
    let stacks = |sample: &Sample| match tool {
        Tool::Offcputime => switches(sample),
        Tool::EveryWait | Tool::Default => sample.recorded.stacks as f64,
    };
    let share = |name: &str| {
        let runs = |sample: &Sample| sample.programs.get(name).copied().unwrap_or_default();
        Share {
            ns_per_switch: of(&|sample| runs(sample).ns as f64 / switches(sample)),
            ns_per_run: of(&|sample| runs(sample).ns as f64 / runs(sample).count.max(1) as f64),
            runs_per_switch: of(&|sample| runs(sample).count as f64 / switches(sample)),
        }
    };
    let names = samples.iter().flat_map(|sample| sample.programs.keys());
    Row {
        tool,
        load,
        switches_per_second: of(&|sample| switches(sample) / length.as_secs_f64()),
        ns_per_switch: of(&|sample| ns(sample) / switches(sample)),
        ns_per_stack: of(&|sample| ns(sample) / stacks(sample)),
        frames: of(&|sample| sample.recorded.frames as f64 / stacks(sample)),
        complete: of(&|sample| sample.recorded.complete as f64 / stacks(sample)),
        programs: names.map(|name| (name.clone(), share(name))).collect(),
    }
}
