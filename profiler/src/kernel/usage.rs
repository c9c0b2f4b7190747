//! What the programs and maps cost, as the kernel tells of this process's own descriptors.
//!
//! `fdinfo` is the one place that says how often a program was refused because it was running
//! already, and how much memory a map takes; the BPF system call has fields for neither.

use std::{
    collections::HashSet,
    fs, io,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use crate::units::Nanos;

/// What the programs and maps that this process holds have cost so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Memory of the maps, in bytes.
    pub map_bytes: u64,
    /// Run time of the programs; zero unless `kernel.bpf_stats_enabled` is on.
    pub run_time: Nanos,
    /// Times a program did not run because it was running already on that CPU.
    pub misses: u64,
}

/// Adds up the programs and maps that this process holds.
///
/// # Errors
/// If `/proc/self/fdinfo` cannot be listed.
pub fn usage() -> io::Result<Usage> {
    let mut usage = Usage::default();
    let mut seen = HashSet::new();
    for entry in fs::read_dir("/proc/self/fdinfo")? {
        // A descriptor can be closed between the listing and the reading.
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        add(&text, &mut seen, &mut usage);
    }
    Ok(usage)
}

/// Memory of one map, in bytes.
///
/// # Errors
/// If the descriptor's entry in `/proc/self/fdinfo` cannot be read.
pub fn map_bytes(map: BorrowedFd<'_>) -> io::Result<u64> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", map.as_raw_fd()))?;
    Ok(field(&text, "memlock:").unwrap_or(0))
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

fn add(text: &str, seen: &mut HashSet<(bool, u64)>, usage: &mut Usage) {
    let field = |name: &str| field(text, name);
    if let Some(id) = field("map_id:") {
        if seen.insert((true, id)) {
            usage.map_bytes += field("memlock:").unwrap_or(0);
        }
    } else if let Some(id) = field("prog_id:") {
        // Links name the program too, but only the program's own entry has the counts.
        if let Some(misses) = field("recursion_misses:")
            && seen.insert((false, id))
        {
            usage.misses += misses;
            usage.run_time += Nanos(field("run_time_ns:").unwrap_or(0));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_program_and_map_counts_once() {
        let program = "flags:\t02\nprog_type:\t26\nprog_id:\t7\nrun_time_ns:\t50\nrun_cnt:\t2\nrecursion_misses:\t3\n";
        let link = "link_type:\ttracing\nprog_id:\t7\n";
        let map = "map_type:\t1\nmap_id:\t9\nmemlock:\t4096\n";
        let (mut seen, mut usage) = (HashSet::new(), Usage::default());
        for text in [link, program, map, program, map, "pos:\t0\n"] {
            add(text, &mut seen, &mut usage);
        }
        assert_eq!(usage, Usage { map_bytes: 4096, run_time: Nanos(50), misses: 3 });
    }
}
