//! What of the kernel side is in the kernel, and who holds it.

use std::{
    collections::HashSet,
    fs,
    time::{Duration, Instant},
};

use aya::programs::{loaded_links, loaded_programs};

/// The kernel side's programs, as the kernel keeps their names: up to 15 bytes.
const PROGRAMS: &[&str] = &[
    "sched_switch",
    "sched_waking",
    "sched_process_f",
    "sched_process_e",
    "sched_exit",
    "finish_task_swi",
    "roll_call",
    "sweep",
];

/// The kernel frees a program after the last run of it is over and some time has passed.
const FREED_WITHIN: Duration = Duration::from_secs(10);

/// Programs and links by their numbers.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Attached {
    /// Numbers of programs.
    pub programs: HashSet<u32>,
    /// Numbers of links.
    pub links: HashSet<u32>,
}

/// What a process holds by its descriptors.
pub fn held_by(pid: u32) -> Attached {
    let mut held = Attached::default();
    let Ok(entries) = fs::read_dir(format!("/proc/{pid}/fdinfo")) else { return held };
    for entry in entries.flatten() {
        let Ok(text) = fs::read_to_string(entry.path()) else { continue };
        let id = |key: &str| {
            text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u32>().ok())
        };
        held.programs.extend(id("prog_id:"));
        held.links.extend(id("link_id:"));
    }
    held
}

/// Panics unless a recorder holds programs and links, all of which are found by their names.
pub fn expect_all_known(recorder: u32) {
    let held = held_by(recorder);
    assert!(!held.programs.is_empty() && !held.links.is_empty(), "{held:?}");
    let known: HashSet<u32> = programs().collect();
    assert!(held.programs.is_subset(&known), "another name than {PROGRAMS:?}");
}

/// Panics unless soon every program and link of the kernel side has a living process that holds
/// it: what a dead recorder left behind has none.
///
/// Other recorders may be at work on this machine, so that numbers alone would not tell.
pub fn expect_nothing_left() {
    let deadline = Instant::now() + FREED_WITHIN;
    loop {
        let left = left();
        if left == Attached::default() {
            return;
        }
        assert!(Instant::now() < deadline, "held by no process: {left:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Programs and links of the kernel side that no living process holds.
fn left() -> Attached {
    let ours: HashSet<u32> = programs().collect();
    let links: HashSet<u32> = loaded_links()
        .flatten()
        .filter(|link| ours.contains(&link.program_id()))
        .map(|link| link.id())
        .collect();
    let mut left = Attached { programs: ours, links };
    for process in fs::read_dir("/proc").unwrap().flatten() {
        let Some(pid) = process.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        let held = held_by(pid);
        left.programs.retain(|id| !held.programs.contains(id));
        left.links.retain(|id| !held.links.contains(id));
    }
    left
}

/// Every program of the kernel side, whoever holds it.
fn programs() -> impl Iterator<Item = u32> {
    loaded_programs()
        .flatten()
        .filter(|program| program.name_as_str().is_some_and(|name| PROGRAMS.contains(&name)))
        .map(|program| program.id())
}
