//! What the kernel itself counts of a process's threads.

use std::{collections::BTreeMap, fs, thread, time::Duration};

/// The kernel's counters of one thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counters {
    /// `sum_exec_runtime`.
    pub running_ns: u64,
    /// `sched_info.run_delay`: from the enqueue on a run queue to the CPU.
    pub run_queue_ns: u64,
    /// Voluntary and other switch-outs.
    pub switches: u64,
}

/// All threads of a process, read while each was asleep and stayed so.
pub struct Reading {
    threads: BTreeMap<u64, Counters>,
    stolen_ns: u64,
}

/// What a thread that lived throughout did between two readings.
#[derive(Debug)]
pub struct Done {
    pub tid: u64,
    pub running_ns: u64,
    pub run_queue_ns: u64,
    pub switches: u64,
}

impl Reading {
    /// Waits until every thread of the process is at rest.
    pub fn at_rest(pid: u32) -> Self {
        let mut last = None;
        loop {
            let threads = sleeping(pid);
            if let Some(threads) = threads.clone().filter(|_| threads == last) {
                return Self { threads, stolen_ns: stolen_ns() };
            }
            last = threads;
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// What each thread that is in both readings did from this one to the later one.
    pub fn until<'readings>(
        &'readings self,
        later: &'readings Self,
    ) -> impl Iterator<Item = Done> + use<'readings> {
        self.threads.iter().filter_map(|(tid, before)| {
            let after = later.threads.get(tid)?;
            Some(Done {
                tid: *tid,
                running_ns: after.running_ns - before.running_ns,
                run_queue_ns: after.run_queue_ns - before.run_queue_ns,
                switches: after.switches - before.switches,
            })
        })
    }

    /// Time that the hypervisor took from this machine's CPUs up to the later reading, at most.
    pub fn stolen_until(&self, later: &Self) -> u64 {
        later.stolen_ns - self.stolen_ns + CLOCK_TICK_NS
    }
}

/// The unit of `/proc/stat`.
const CLOCK_TICK_NS: u64 = 10_000_000;

/// Counters of all threads; `None` if one is not asleep or just went.
fn sleeping(pid: u32) -> Option<BTreeMap<u64, Counters>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks
        .map(|task| {
            let task = task.unwrap();
            let tid = task.file_name().to_str().unwrap().parse().unwrap();
            let schedstat = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let status = fs::read_to_string(task.path().join("status")).ok()?;
            let value = |key: &str| status.lines().find_map(|line| line.strip_prefix(key));
            if !value("State:").unwrap().trim().starts_with('S') {
                return None;
            }
            let count = |key| value(key).unwrap().trim().parse::<u64>().unwrap();
            let times: Vec<u64> =
                schedstat.split_whitespace().map(|number| number.parse().unwrap()).collect();
            let [running_ns, run_queue_ns, _] = times[..] else { panic!("{schedstat:?}") };
            let switches = count("voluntary_ctxt_switches:") + count("nonvoluntary_ctxt_switches:");
            Some((tid, Counters { running_ns, run_queue_ns, switches }))
        })
        .collect()
}

/// Steal time of all CPUs since the boot.
fn stolen_ns() -> u64 {
    let stat = fs::read_to_string("/proc/stat").unwrap();
    let steal = stat.split_whitespace().nth(8).unwrap();
    steal.parse::<u64>().unwrap() * CLOCK_TICK_NS
}
