//! What recording costs: the kernel side against offcputime, attaching, the recorder.

mod kernel_side;
mod numbers;
mod programs;
mod recorded;
mod recorder;
mod target;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Args;
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;

use self::{
    kernel_side::{Load, Row, Tool},
    numbers::{Line, fit},
    recorder::{Attach, Cost},
};
use crate::{run, setup};

/// How to measure.
#[derive(Clone, Copy, Debug, Args)]
pub struct Plan {
    /// How often each case is measured; the medians count
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// How long a case is measured
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// The programs are built: measure. For root, after the user has built them
    #[arg(long, hide = true)]
    built: bool,
}

/// What is run, and where it writes.
pub struct Paths {
    stallscope: PathBuf,
    workload: PathBuf,
    scratch: PathBuf,
}

/// Everything that was found.
#[derive(Serialize)]
struct Results {
    kernel: String,
    cpu: String,
    cpus: usize,
    load_before: String,
    rounds: u32,
    seconds: u64,
    kernel_side: Vec<Row>,
    /// Nanoseconds a frame, and what a stack of none costs.
    per_frame: Line,
    marks: Vec<Mark>,
    attach: Attach,
    recorder: Cost,
}

/// Something that was to be reached.
#[derive(Clone, Serialize)]
struct Mark {
    what: String,
    found: f64,
    at_most: f64,
    met: bool,
}

/// Calls between a handler and its wait that make a stack of usual depth.
const USUAL: u32 = 8;

/// The depths through which the line is drawn.
const DEPTHS: [u32; 4] = [0, 20, 100, 200];

const PACKAGES: [&str; 2] = ["libbpf-tools", "bpftool"];

/// Builds as this user, measures as root, prints, and keeps the results.
pub fn run(plan: &Plan) -> Result<()> {
    if !plan.built {
        setup::debian_packages(&PACKAGES)?;
        let packages = ["-p", "stallscope", "-p", "workloads", "--bins"];
        run::run(run::cargo(&["build", "--release", "--locked"]).args(packages))?;
    }
    if !run::is_root() {
        let program = std::env::current_exe().context("cannot tell which program this is")?;
        let (rounds, seconds) = (plan.rounds.to_string(), plan.seconds.to_string());
        let words = ["bench", "unwind", "--built", "--rounds", &rounds, "--seconds", &seconds];
        return run::run(run::as_root(program).args(words));
    }
    let release = run::target_dir().join("release");
    let paths = Paths {
        stallscope: release.join("stallscope"),
        workload: release.join("workload"),
        scratch: run::target_dir().join("bench/unwind"),
    };
    fs::create_dir_all(&paths.scratch)
        .with_context(|| format!("cannot make {}", paths.scratch.display()))?;
    let results = measure(&paths, plan)?;
    print(&results);
    let path = super::results("unwind.json")?;
    fs::write(&path, serde_json::to_string_pretty(&results)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("wrote {}", path.display());
    Ok(())
}

fn measure(paths: &Paths, plan: &Plan) -> Result<Results> {
    let load_before = read("/proc/loadavg")?;
    let tools = [Tool::EveryWait, Tool::Default, Tool::Offcputime];
    let loads = [Load::Service(USUAL), Load::Storm, Load::StormOnOneCpu];
    let mut cases = loads.map(|load| tools.map(|tool| (tool, load))).concat();
    cases.extend(DEPTHS.map(|depth| (Tool::EveryWait, Load::Service(depth))));
    let measuring = programs::Measuring::begin()?;
    let length = Duration::from_secs(plan.seconds);
    let kernel_side = kernel_side::measure(paths, &cases, plan.rounds, length)?;
    // What follows is about the recorder, and the measuring itself has a cost.
    drop(measuring);
    let of_service = |load| matches!(load, Load::Service(_));
    let by_depth =
        kernel_side.iter().filter(|row| row.tool == Tool::EveryWait && of_service(row.load));
    let per_frame = fit(&by_depth.map(|row| (row.frames, row.ns_per_stack)).collect::<Vec<_>>());
    let attach = recorder::attach(paths, plan.rounds)?;
    let recorder = recorder::cost(paths)?;
    let mark = |what: &str, found: f64, at_most: f64| Mark {
        what: what.to_owned(),
        found,
        at_most,
        met: found <= at_most,
    };
    let against_offcputime = |rows: &[Row]| {
        let [every, default, offcputime] = rows else {
            unreachable!("there is a row for each tool");
        };
        let share = |row: &Row| row.ns_per_switch / offcputime.ns_per_switch;
        let what = |tool: &str| {
            format!("{:?}: ns of a switch {tool}, by ns of offcputime's", offcputime.load)
        };
        [
            mark(&what("with every stack"), share(every), 1.0),
            mark(&what("with the default --min-block"), share(default), 0.15),
        ]
    };
    let compared = kernel_side.chunks(tools.len()).take(loads.len());
    let mut marks: Vec<Mark> = compared.flat_map(against_offcputime).collect();
    marks.extend([
        mark("ns a frame", per_frame.slope, 60.0),
        mark("recorder, CPU at 10,000 blocks a second", recorder.cpu, 0.05),
        mark("recorder, memory in MB", recorder.max_rss_bytes as f64 / 1e6, 100.0),
    ]);
    Ok(Results {
        kernel: read("/proc/sys/kernel/osrelease")?,
        cpu: cpu()?,
        cpus: std::thread::available_parallelism().map_or(0, usize::from),
        load_before,
        rounds: plan.rounds,
        seconds: plan.seconds,
        kernel_side,
        per_frame,
        marks,
        attach,
        recorder,
    })
}

fn print(results: &Results) {
    let Results { kernel, cpu, cpus, load_before, rounds, seconds, .. } = results;
    println!("\nkernel {kernel}, {cpus} x {cpu}, load before {load_before}");
    println!("medians of {rounds} interleaved rounds of {seconds} s, by the kernel's bpf_stats\n");
    println!(
        "{:<12} {:<13} {:>11} {:>10} {:>10} {:>8} {:>10}",
        "tool", "load", "switches/s", "ns/switch", "ns/stack", "frames", "complete"
    );
    for row in &results.kernel_side {
        let unknown = row.tool == Tool::Offcputime;
        let known = |text: String| if unknown { "-".to_owned() } else { text };
        println!(
            "{:<12} {:<13} {:>11.0} {:>10.0} {:>10.0} {:>8} {:>10}",
            format!("{:?}", row.tool),
            format!("{:?}", row.load),
            row.switches_per_second,
            row.ns_per_switch,
            row.ns_per_stack,
            known(format!("{:.1}", row.frames)),
            known(format!("{:.2} %", row.complete * 100.0))
        );
    }
    println!("\nwhere it goes");
    for row in results.kernel_side.iter().take(9) {
        for (name, share) in row.programs.iter().filter(|(_, share)| share.ns_per_switch >= 1.0) {
            println!(
                "{:<12} {:<13} {name:<15} {:>7.0} ns/switch = {:>7.0} ns/run x {:.2} runs",
                format!("{:?}", row.tool),
                format!("{:?}", row.load),
                share.ns_per_switch,
                share.ns_per_run,
                share.runs_per_switch
            );
        }
    }
    let Line { slope, fixed } = results.per_frame;
    println!("\na wait with its stack: {fixed:.0} ns + {slope:.1} ns a frame");
    let Attach { text_bytes, cold_ready_ms, cold_first_ms, warm_ready_ms, warm_first_ms } =
        results.attach;
    println!("\nattaching to a process with {} MB of code", text_bytes / 1_000_000);
    println!(
        "  no tables yet: ready after {cold_ready_ms:.0} ms, first stack {cold_first_ms:.0} ms"
    );
    println!(
        "  tables cached: ready after {warm_ready_ms:.0} ms, first stack {warm_first_ms:.0} ms"
    );
    let cost = &results.recorder;
    println!("\nthe recorder at {:.0} intervals a second", cost.blocks_per_second);
    println!(
        "  {:.1} % of one CPU (of it {:.1} % for what a recording of nothing takes too), {:.0} MB, \
         {:.0} MB of maps, {} intervals with stacks",
        cost.cpu * 100.0,
        cost.cpu_of_nothing * 100.0,
        cost.max_rss_bytes as f64 / 1e6,
        cost.kernel_map_bytes as f64 / 1e6,
        cost.intervals_with_stack
    );
    for (name, count) in &cost.losses {
        println!("  {name}: {count}");
    }
    println!();
    for Mark { what, found, at_most, met } in &results.marks {
        let verdict = if *met { "met   " } else { "MISSED" };
        println!("{verdict}  {what}: {found:.3}, at most {at_most}");
    }
}

/// Now, on the clock that recordings use.
fn monotonic_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).context("cannot read the clock")?;
    Ok(now.tv_sec() as u64 * 1_000_000_000 + now.tv_nsec() as u64)
}

fn read(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let text =
        fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

fn cpu() -> Result<String> {
    let text = read("/proc/cpuinfo")?;
    let model = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    Ok(model.map_or("CPU", |(_, name)| name).to_owned())
}
