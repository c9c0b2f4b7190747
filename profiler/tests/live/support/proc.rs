//! What `/proc` says of a process, and that a recording leaves its target alone.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

/// Longer than anything takes that a test waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a recorder might have changed of a process.
#[derive(Debug, PartialEq, Eq)]
pub struct Untouched {
    pid: u32,
    fields: Vec<String>,
}

/// Who traces a process; its pending signals, mask and handlers.
const FIELDS: &[&str] = &["TracerPid", "SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"];

/// `SIGCANCEL` and `SIGSETXID`, 32 and 33.
const LIBC_SIGNALS: u64 = 3 << 31;

impl Untouched {
    /// Looks at a process before it is recorded.
    pub fn before(pid: u32) -> Self {
        Self { pid, fields: FIELDS.iter().map(|name| without_libc(field(pid, name))).collect() }
    }

    /// Panics if the process has been stopped, traced, signalled or ended since.
    pub fn check(&self) {
        assert_eq!(*self, Self::before(self.pid));
        assert!(self.fields.contains(&"TracerPid:\t0".to_owned()), "{self:?}");
        let state = field(self.pid, "State");
        let runs = ["\tR", "\tS", "\tD"].iter().any(|&letter| state.contains(letter));
        assert!(runs, "{state}");
    }
}

/// Without the two signals that libc keeps for itself and takes with the first thread.
fn without_libc(line: String) -> String {
    let (name, value) = line.split_once(":\t").unwrap();
    match u64::from_str_radix(value, 16) {
        Ok(set) if value.len() == 16 => format!("{name}:\t{:x}", set & !LIBC_SIGNALS),
        _ => line,
    }
}

/// The line of `/proc/PID/status` that begins with this name.
pub fn field(pid: u32, name: &str) -> String {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let found = text.lines().find(|line| line.split(':').next() == Some(name));
    found.unwrap_or_else(|| panic!("{path} has no {name}")).to_owned()
}

/// The threads of a process in order of their ids.
pub fn threads(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let mut tids: Vec<u32> =
        tasks.map(|task| task.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    tids.sort_unstable();
    tids
}

/// The largest number that no process or thread has.
pub fn free_number() -> u32 {
    let max = fs::read_to_string("/proc/sys/kernel/pid_max").unwrap();
    let max: u32 = max.trim().parse().unwrap();
    (2..max).rev().find(|number| !Path::new(&format!("/proc/{number}")).exists()).unwrap()
}

/// Waits until something holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
