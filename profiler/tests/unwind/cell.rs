//! A cell of the matrix: a program, how it is started, and what its stacks must be.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, time::Duration};

use serde_json::Value;
use tempfile::{TempDir, tempdir};

use crate::{
    chain::{Chain, Frames},
    program::{Program, sources},
    support::{
        process::{Recorder, Workload},
        report::{Report, number},
    },
};

/// How long each is recorded.
const LENGTH: Duration = Duration::from_millis(1200);

/// How many intervals at least must be the whole of each chain.
const OCCURRENCES_MIN: u64 = 20;

/// The share of stacks that must be equal to the slow path's, and of those that must be complete.
const SHARE_MIN: f64 = 0.999;

/// The share of stacks that may be [outdated](Ends::CompleteOrOutdated) where code is replaced all
/// the time.
const OUTDATED_MAX: f64 = 0.05;

/// One cell.
#[derive(Clone, Debug)]
pub struct Cell {
    /// What is started, and after it what that is given the paths of.
    pub programs: Vec<Program>,
    /// How it is started.
    pub start: Start,
    /// Further arguments.
    pub args: Vec<&'static str>,
    /// Every chain that its stacks may be.
    pub chains: Vec<String>,
    /// How its stacks end.
    pub ends: Ends,
}

/// How a cell is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At its path. Once it is recorded it is told to go on.
    Plain,
    /// From a copy that is deleted before it is recorded.
    Deleted,
    /// From a copy on a file system that is mounted for no other process.
    Mounted,
    /// By this interpreter: the first argument is a script of `workloads/cells`.
    Interpreter(&'static str),
}

/// How the stacks of a cell end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ends {
    /// At the outermost frame.
    Complete,
    /// The same, but for a few from between a change of the mappings and the recorder's hearing of it:
    /// that is the only reason why any is not complete.
    CompleteOrOutdated,
    /// Some of them at code that nothing describes: they are marked, and as far as they go they are
    /// the leaf side of a chain. This share at least is complete.
    Marked { complete_min: f64 },
}

/// What a recording of a cell came to.
struct Outcome {
    report: Report,
    /// Intervals by chain, whole ones.
    whole: Vec<u64>,
    /// Intervals whose stack reaches further than its copy, which is all that the slow path sees.
    not_copied: u64,
    /// Stacks that are none of the chains, with their intervals.
    strange: BTreeMap<String, u64>,
}

/// Records a cell and checks every stack.
pub fn check(name: &str, cell: &Cell) {
    let chains: Vec<Chain> = cell.chains.iter().map(|chain| Chain::new(chain)).collect();
    let outcome = Outcome::of(cell.record(), cell, &chains);
    println!("CELL {name:<32} {}", outcome.summary(cell.ends));
    let mut wrong = Vec::new();
    for (chain, count) in chains.iter().zip(&outcome.whole) {
        let marked = matches!(cell.ends, Ends::Marked { .. });
        if chain.required && !marked && *count < OCCURRENCES_MIN {
            wrong.push(format!("only {count} intervals are {chain}"));
        }
    }
    for (stack, count) in &outcome.strange {
        wrong.push(format!("{count} intervals are no chain: {stack}"));
    }
    let (least, only) = match cell.ends {
        Ends::Complete => (SHARE_MIN, None),
        Ends::CompleteOrOutdated => (1.0 - OUTDATED_MAX, Some("outdated")),
        Ends::Marked { complete_min } => (complete_min, None),
    };
    let stacks = &outcome.report.0["quality"]["user_stacks"];
    let others = stacks["why"].as_object().unwrap().keys().any(|why| Some(why.as_str()) != only);
    if outcome.complete_share() < least || (only.is_some() && others) {
        wrong.push(format!("not complete: {stacks}"));
    }
    let equal = outcome.equal_share(cell.ends);
    let different = number(&outcome.stack_check()["different"]);
    if equal.is_nan() || equal < SHARE_MIN || different > 0 {
        wrong.push(format!("not equal: {}", outcome.stack_check()));
    }
    let quality = &outcome.report.0["quality"];
    assert!(wrong.is_empty(), "{name}:\n  {}\n{quality}", wrong.join("\n  "));
}

impl Cell {
    fn record(&self) -> Report {
        let out = tempdir().unwrap();
        let json = out.path().join("out.json");
        let (mut workload, _folder) = self.start();
        let pid = workload.pid().to_string();
        let output = ["-p", &pid, "-o", json.to_str().unwrap(), "--check-stacks"];
        let recorder = Recorder::start(&output);
        workload.go();
        std::thread::sleep(LENGTH);
        recorder.interrupt().expect_success();
        workload.hang_up();
        Report::read(&json)
    }

    /// The process, and the folder that lives as long.
    fn start(&self) -> (Workload, Option<TempDir>) {
        let files: Vec<PathBuf> = self.programs.iter().map(Program::build).collect();
        let folder = tempdir().unwrap();
        let copy = folder.path().join("copy");
        let mut command = match self.start {
            Start::Plain => Command::new(&files[0]),
            Start::Deleted => {
                fs::copy(&files[0], &copy).unwrap();
                Command::new(&copy)
            }
            Start::Mounted => {
                let mut command = Command::new("unshare");
                let script = r#"mount -t tmpfs none "$1" && cp "$2" "$1/copy" || exit 99
                    exec "$1/copy" "$3""#;
                command.args(["--mount", "sh", "-c", script, "sh"]).arg(folder.path());
                command.arg(&files[0]);
                command
            }
            Start::Interpreter(interpreter) => {
                let mut command = Command::new(interpreter);
                command.current_dir(sources());
                command
            }
        };
        command.args(&self.args).args(files.iter().skip(1));
        let workload = Workload::start_as(command);
        if self.start == Start::Deleted {
            fs::remove_file(&copy).unwrap();
        }
        (workload, Some(folder))
    }
}

impl Outcome {
    fn of(report: Report, cell: &Cell, chains: &[Chain]) -> Self {
        let stripped = cell.programs.iter().find(|program| program.stripped);
        let functions = stripped.map(Program::functions).unwrap_or_default();
        let path = stripped.map(|program| program.build().display().to_string());
        let name_of = |module: &str, address: u64| {
            let of_it = path.as_deref() == Some(module);
            let found = functions.iter().find(|(range, _)| of_it && range.contains(&address));
            found.map(|(_, name)| name.clone())
        };
        let whole = vec![0; chains.len()];
        let mut outcome = Self { report, whole, not_copied: 0, strange: BTreeMap::new() };
        for site in outcome.report.sites().to_vec() {
            outcome.judge(&site, &Frames::of(&site, name_of), chains);
        }
        let counts = chains.iter().zip(&outcome.whole).filter(|(chain, _)| !chain.copied);
        outcome.not_copied += counts.map(|(_, count)| count).sum::<u64>();
        outcome
    }

    fn judge(&mut self, site: &Value, frames: &Frames, chains: &[Chain]) {
        let count = number(&site["count"]);
        let complete = site["stack"] == "complete";
        let known = if complete {
            let found = chains.iter().position(|chain| chain.is(frames));
            found.inspect(|&chain| self.whole[chain] += count).is_some()
        } else {
            if chains.iter().any(|chain| !chain.copied && chain.ends_with(frames)) {
                self.not_copied += count;
            }
            // That it is not complete is told by the quality.
            site["stack"] == "missing" || chains.iter().any(|chain| chain.ends_with(frames))
        };
        if !known {
            let stack = format!("{}: {}", site["stack"], frames.0.join(" "));
            *self.strange.entry(stack).or_default() += count;
        }
    }

    fn complete_share(&self) -> f64 {
        let stacks = &self.report.0["quality"]["user_stacks"];
        let kinds = ["complete", "truncated", "broken", "missing"];
        let all: u64 = kinds.iter().map(|kind| number(&stacks[*kind])).sum();
        number(&stacks["complete"]) as f64 / all as f64
    }

    /// What the comparison with the slow path found.
    fn stack_check(&self) -> &Value {
        &self.report.0["quality"]["stack_check"]
    }

    /// How many of the stacks that were walked twice are equal. Those that the slow path could not
    /// walk to their end for want of memory are, if they are equal up to there and there are no more
    /// of them than of stacks that must be so.
    ///
    /// Where code is replaced all the time, the kernel side does not know some of it yet.
    fn equal_share(&self, ends: Ends) -> f64 {
        let check = self.stack_check();
        let for_want_of_memory = ["slice_too_short", "check_unreadable"];
        let cut = for_want_of_memory.iter().filter_map(|why| check["why"][why].as_u64()).sum();
        let compared = number(&check["compared"]) as f64;
        let of_new_code = ["kernel_no_table", "kernel_no_mapping"];
        let new: u64 = of_new_code.iter().filter_map(|why| check["why"][why].as_u64()).sum();
        let is_few = new as f64 <= OUTDATED_MAX * compared;
        let allowed = ends == Ends::CompleteOrOutdated && is_few;
        let new = if allowed { new } else { 0 };
        let equal = number(&check["equal"]) + self.not_copied.min(cut) + new;
        equal as f64 / compared
    }

    fn summary(&self, ends: Ends) -> String {
        let strange: u64 = self.strange.values().sum();
        let check = self.stack_check();
        format!(
            "compared {:>5} equal {:7.3} % complete {:7.3} % no chain {strange} whole {:?} {}",
            check["compared"],
            100.0 * self.equal_share(ends),
            100.0 * self.complete_share(),
            self.whole,
            check["why"],
        )
    }
}
