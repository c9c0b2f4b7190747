//! What the recorder itself costs, and how long it takes to begin.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

use super::{Paths, monotonic_ns, numbers::median, recorded, target::Target};
use crate::{run, toolchain::DEBIAN_LLVM};

/// The recorder's cost while a process blocks 10,000 times a second.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    pub blocks_per_second: f64,
    pub intervals_with_stack: u64,
    /// CPU time by wall time.
    pub cpu: f64,
    /// Of the same, what a recording of nothing takes: the start, the names, the end.
    pub cpu_of_nothing: f64,
    pub max_rss_bytes: u64,
    pub kernel_map_bytes: u64,
    /// Those that are not zero.
    pub losses: serde_json::Map<String, serde_json::Value>,
}

/// From the start of the recorder, in milliseconds, medians.
#[derive(Clone, Debug, Serialize)]
pub struct Attach {
    /// Code that the process has mapped.
    pub text_bytes: u64,
    /// Until it says that it records, with no table made before.
    pub cold_ready_ms: f64,
    /// Until the first interval with a complete stack ended.
    pub cold_first_ms: f64,
    /// The same with the tables of a recording before.
    pub warm_ready_ms: f64,
    pub warm_first_ms: f64,
}

const SECONDS: u64 = 20;

/// Records the workload `blocks`.
pub fn cost(paths: &Paths) -> Result<Cost> {
    println!("the recorder at 10,000 blocks a second, {SECONDS} s");
    let mut idle = Target::start(&paths.workload, &["blocks"], &[])?;
    let nothing = report(paths, idle.pid(), 1)?;
    idle.go()?;
    idle.stop()?;
    let mut target = Target::start(&paths.workload, &["blocks"], &[])?;
    target.go()?;
    let report = report(paths, target.pid(), SECONDS)?;
    target.stop()?;
    let quality = &report["quality"];
    let number = |value: &serde_json::Value| value.as_u64().context("the report lacks a number");
    let wall = number(&report["window"]["duration_ns"])? as f64;
    let intervals = number(&quality["intervals"])?;
    let stacks = quality["user_stacks"].as_object().context("the report lacks its user stacks")?;
    let counters = quality["counters"].as_object().context("the report lacks its counters")?;
    Ok(Cost {
        blocks_per_second: intervals as f64 / (wall / 1e9),
        intervals_with_stack: stacks.values().filter_map(serde_json::Value::as_u64).sum(),
        cpu: number(&quality["observer"]["cpu_ns"])? as f64 / wall,
        cpu_of_nothing: number(&nothing["quality"]["observer"]["cpu_ns"])? as f64 / wall,
        max_rss_bytes: number(&quality["observer"]["max_rss_bytes"])?,
        kernel_map_bytes: number(&quality["observer"]["kernel_map_bytes"])?,
        losses: counters
            .iter()
            .filter(|(_, count)| **count != 0)
            .map(|(name, count)| (name.clone(), count.clone()))
            .collect(),
    })
}

/// Records a process that has mapped the largest libraries that this machine has.
pub fn attach(paths: &Paths, rounds: u32) -> Result<Attach> {
    let mut target = Target::start(&paths.workload, &["truth"], &large_libraries()?)?;
    target.go()?;
    let text_bytes = target.text_bytes()?;
    println!("attaching to a process with {} MB of code", text_bytes / 1_000_000);
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let cache = paths.scratch.join("cache");
        if cache.exists() {
            fs::remove_dir_all(&cache).context("cannot empty the cache")?;
        }
        cold.push(begin(paths, target.pid(), &cache)?);
        warm.push(begin(paths, target.pid(), &cache)?);
    }
    target.stop()?;
    let middle = |times: &[(f64, f64)]| {
        (median(times.iter().map(|time| time.0)), median(times.iter().map(|time| time.1)))
    };
    let ((cold_ready_ms, cold_first_ms), (warm_ready_ms, warm_first_ms)) =
        (middle(&cold), middle(&warm));
    Ok(Attach { text_bytes, cold_ready_ms, cold_first_ms, warm_ready_ms, warm_first_ms })
}

/// Milliseconds until the recorder says that it records, and until the first interval with a complete stack.
fn begin(paths: &Paths, pid: u32, cache: &Path) -> Result<(f64, f64)> {
    let recording = paths.scratch.join("attach.stall");
    let start = monotonic_ns()?;
    let mut child = Command::new(&paths.stallscope)
        .args(["record", "--force", "-d", "2", "-p", &pid.to_string(), "-o"])
        .arg(&recording)
        .env("XDG_CACHE_HOME", cache)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start stallscope")?;
    let mut lines = BufReader::new(child.stderr.take().expect("its stderr is a pipe")).lines();
    let ready = loop {
        let line = lines.next().context("stallscope never said that it records")??;
        if line.starts_with("recording pid ") {
            break monotonic_ns()?;
        }
    };
    lines.for_each(drop);
    let status = child.wait().context("cannot wait for stallscope")?;
    if !status.success() {
        bail!("stallscope record failed: {status}");
    }
    let recorded = recorded::read(&paths.stallscope, &recording, &(0..u64::MAX))?;
    let first = recorded.first_complete.context("no complete stack was recorded")?;
    let ms = |at: u64| at.saturating_sub(start) as f64 / 1e6;
    Ok((ms(ready), ms(first)))
}

fn report(paths: &Paths, pid: u32, seconds: u64) -> Result<serde_json::Value> {
    let json = paths.scratch.join("blocks.json");
    let mut record = Command::new(&paths.stallscope);
    record.args(["record", "--force", "-p", &pid.to_string(), "-d", &seconds.to_string(), "-o"]);
    run::output(record.arg(&json))?;
    let text = fs::read(&json).with_context(|| format!("cannot read {}", json.display()))?;
    serde_json::from_slice(&text).context("the report is not JSON")
}

/// The compiler's own libraries, and LLVM's: more than 200 MB of code. Not all compilers have all.
fn large_libraries() -> Result<Vec<String>> {
    let sysroot = run::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let folders = [PathBuf::from(sysroot).join("lib"), Path::new(DEBIAN_LLVM).join("lib")];
    // Several names can lead to one file.
    let mut found = BTreeSet::new();
    for folder in folders {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if ["librustc_driver-", "libLLVM.so."].iter().any(|start| name.starts_with(start)) {
                found.insert(entry.path().canonicalize()?.display().to_string());
            }
        }
    }
    Ok(found.into_iter().collect())
}
