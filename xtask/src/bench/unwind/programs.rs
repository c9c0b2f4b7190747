//! What the kernel says of the run times of the programs that a process holds.

use std::{collections::BTreeMap, fs, process::Command};

use anyhow::{Context, Result};

use crate::run;

const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";

/// The kernel's measurement of run times, on until this is dropped.
pub struct Measuring {
    before: String,
}

impl Measuring {
    /// Turns it on for every program.
    pub fn begin() -> Result<Self> {
        let before = fs::read_to_string(SWITCH).with_context(|| format!("cannot read {SWITCH}"))?;
        fs::write(SWITCH, "1").with_context(|| format!("cannot write {SWITCH}"))?;
        Ok(Self { before })
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!("warning: cannot set {SWITCH} back to {}: {error}", self.before.trim());
        }
    }
}

/// How often a program ran, and how long in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    pub count: u64,
    pub ns: u64,
}

impl Runs {
    pub fn since(self, earlier: Self) -> Self {
        Self { count: self.count - earlier.count, ns: self.ns - earlier.ns }
    }
}

/// The programs that the process holds, by id.
pub fn of_process(pid: u32) -> Result<BTreeMap<u32, Runs>> {
    let folder = format!("/proc/{pid}/fdinfo");
    let mut programs = BTreeMap::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
        // A descriptor can be closed between the listing and the reading.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        programs.extend(parse(&text));
    }
    Ok(programs)
}

/// The name of a program, as it was loaded: at most 15 bytes of it.
pub fn name(id: u32) -> Result<String> {
    let id = id.to_string();
    let json = run::output(Command::new("bpftool").args(["-j", "prog", "show", "id", &id]))?;
    let program: serde_json::Value =
        serde_json::from_str(&json).context("bpftool printed something else than JSON")?;
    Ok(program["name"].as_str().unwrap_or("(unnamed)").to_owned())
}

/// Links name their program too; only the program's own entry has its run times.
fn parse(fdinfo: &str) -> Option<(u32, Runs)> {
    let field = |name: &str| {
        fdinfo.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok())
    };
    let runs = Runs { ns: field("run_time_ns:")?, count: field("run_cnt:")? };
    Some((u32::try_from(field("prog_id:")?).ok()?, runs))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_told_from_its_link() {
        let program = "prog_type:\t26\nprog_id:\t7\nrun_time_ns:\t50\nrun_cnt:\t2\n";
        assert_eq!(parse(program), Some((7, Runs { count: 2, ns: 50 })));
        assert_eq!(parse("link_type:\ttracing\nprog_id:\t7\n"), None);
    }
}
