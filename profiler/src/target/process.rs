//! One process, its threads and its descendants.

use std::{
    collections::HashMap,
    fs, io,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use super::{
    cgroup,
    stat::{SchedStat, Stat, Status},
    unreadable,
};
use crate::units::{Pid, Tid};

/// A user process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Its id, as our `/proc` numbers it.
    pub pid: Pid,
    /// When it began, in clock ticks since boot: with the id it names the process for good.
    pub start_ticks: u64,
    /// Its executable, as it sees the path itself.
    pub exe: PathBuf,
    /// Its arguments, the program's name first; never empty.
    pub command: Vec<String>,
    /// Its name, up to 15 bytes.
    pub name: String,
    /// Its id in its own PID namespace; the same as `pid` where it has none of its own.
    pub inner_pid: Pid,
    /// Id of the container it runs in, where its cgroup tells one.
    pub container: Option<String>,
    /// What the user should know about why this process was taken.
    pub note: Option<String>,
}

impl Process {
    /// Whether the process is still there: not ended, and not another under the same id.
    pub fn lives(&self) -> bool {
        stat(self.pid).is_ok_and(|stat| stat.start_ticks == self.start_ticks && !stat.ended)
    }

    /// The command line as one string.
    pub fn command_line(&self) -> String {
        self.command.join(" ")
    }
}

/// The process's threads and their names, in order of their ids.
pub fn threads(pid: Pid) -> anyhow::Result<Vec<(Tid, String)>> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task"))
        .and_then(Iterator::collect::<io::Result<Vec<_>>>)
        .map_err(|error| unreadable(pid, "task", error))?;
    let mut threads: Vec<_> = tasks
        .iter()
        .filter_map(|task| {
            let tid = task.file_name().to_str()?.parse().ok()?;
            let name = fs::read(task.path().join("comm")).ok()?;
            Some((Tid(tid), String::from_utf8_lossy(name.trim_ascii_end()).into_owned()))
        })
        .collect();
    threads.sort_unstable_by_key(|(tid, _)| *tid);
    Ok(threads)
}

/// How often the kernel switched this thread out, by its own count.
pub fn switches(pid: Pid, tid: Tid) -> io::Result<u64> {
    thread_status(pid, tid).map(|status| status.switches)
}

/// What the kernel itself accounts for this thread; an error on kernels without schedstats.
pub fn sched_stat(pid: Pid, tid: Tid) -> io::Result<SchedStat> {
    read_parsed(&format!("/proc/{pid}/task/{tid}/schedstat"), SchedStat::parse)
}

/// All descendants of a process that live at this moment, parents before their children.
pub fn children(pid: Pid) -> Vec<Pid> {
    let mut of_parent: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for child in all_pids() {
        if let Ok(stat) = stat(child) {
            of_parent.entry(stat.parent).or_default().push(child);
        }
    }
    let mut found = vec![pid];
    let mut at = 0;
    while let Some(parent) = found.get(at) {
        found.extend(of_parent.remove(parent).unwrap_or_default());
        at += 1;
    }
    found.split_off(1)
}

/// Every process there is, in order of their ids.
pub(super) fn all_pids() -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<_> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok().map(Pid))
        .collect();
    pids.sort_unstable();
    pids
}

pub(super) fn stat(pid: Pid) -> io::Result<Stat> {
    read_parsed(&format!("/proc/{pid}/stat"), Stat::parse)
}

pub(super) fn thread_status(pid: Pid, tid: Tid) -> io::Result<Status> {
    read_parsed(&format!("/proc/{pid}/task/{tid}/status"), Status::parse)
}

pub(super) fn status(pid: Pid) -> io::Result<Status> {
    read_parsed(&format!("/proc/{pid}/status"), Status::parse)
}

/// A user process that `stat` and `status` were read of.
pub(super) fn process(pid: Pid, stat: Stat, status: &Status) -> anyhow::Result<Process> {
    let exe =
        fs::read_link(format!("/proc/{pid}/exe")).map_err(|error| unreadable(pid, "exe", error))?;
    Ok(Process {
        pid,
        start_ticks: stat.start_ticks,
        exe: without_deleted(&exe).0,
        command: command(pid, &stat.name),
        name: stat.name,
        inner_pid: status.inner_pid().map_or(pid, Pid),
        container: cgroup::container(pid),
        note: None,
    })
}

/// The name of a process, up to 15 bytes; `None` if it is gone.
pub fn process_name(pid: Pid) -> Option<String> {
    let name = fs::read(format!("/proc/{pid}/comm")).ok()?;
    Some(String::from_utf8_lossy(name.trim_ascii_end()).into_owned())
}

/// The arguments of a process, or just its name where it has none or hides them.
pub(super) fn command(pid: Pid, name: &str) -> Vec<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(&bytes);
    if bytes.is_empty() {
        return vec![name.to_owned()];
    }
    bytes.split(|&byte| byte == 0).map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
}

/// A path of `/proc` without the mark that the kernel appends for an unlinked file, and whether it
/// had that mark. A file that is really called so loses its name's end, and is still opened right.
pub(super) fn without_deleted(path: &Path) -> (PathBuf, bool) {
    match path.as_os_str().as_bytes().strip_suffix(b" (deleted)") {
        Some(bytes) => (PathBuf::from(std::ffi::OsStr::from_bytes(bytes)), true),
        None => (path.to_owned(), false),
    }
}

/// Text that does not parse is what a process leaves that ends while it is read.
fn read_parsed<T>(path: &str, parse: fn(&str) -> Option<T>) -> io::Result<T> {
    let text = String::from_utf8_lossy(&fs::read(path)?).into_owned();
    parse(&text).ok_or_else(|| io::ErrorKind::NotFound.into())
}
