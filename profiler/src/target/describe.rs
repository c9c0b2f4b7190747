//! Prints what this room finds out about a process: `stallscope inspect target`.

use std::fmt::Write as _;

use super::{ExecMapping, MappingKind, Process, Throttle, by_pid, children, mappings, threads};
use crate::{
    terminal::printable,
    units::{Pid, Tid},
};

/// The process, its threads and its code mappings, as text for a person.
pub fn describe(pid: Pid) -> anyhow::Result<String> {
    let process = by_pid(pid.0)?;
    let (threads, mappings) = (threads(pid)?, mappings(pid)?);
    let quota = match Throttle::of(pid).and_then(|throttle| throttle.read()) {
        Some(time) => format!("{} ms since its cgroup exists", time.0 / 1_000_000),
        None => "cannot be read from here".to_owned(),
    };
    Ok(print(&process, &children(pid), &quota, &threads, &mappings))
}

fn print(
    process: &Process,
    children: &[Pid],
    throttled: &str,
    threads: &[(Tid, String)],
    mappings: &[ExecMapping],
) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<11}{}", printable(value));
    };
    let pid = process.pid;
    if process.inner_pid == pid {
        line("process", &pid.to_string());
    } else {
        line("process", &format!("{pid} ({} in its own PID namespace)", process.inner_pid));
    }
    line("name", &process.name);
    line("executable", &process.exe.display().to_string());
    line("command", &process.command_line());
    line("container", process.container.as_deref().unwrap_or("none that its cgroup tells"));
    line("throttled", throttled);
    let children: Vec<_> = children.iter().map(Pid::to_string).collect();
    line("children", &if children.is_empty() { "none".to_owned() } else { children.join(" ") });
    line("threads", &threads.len().to_string());
    for (tid, name) in threads {
        let _ = writeln!(text, "  {tid:>8}  {}", printable(name));
    }
    let _ = writeln!(text, "{:<11}{} executable", "mappings", mappings.len());
    for ExecMapping { start, end, offset, path, deleted, kind, .. } in mappings {
        let name = match kind {
            MappingKind::Anonymous if path.as_os_str().is_empty() => "anonymous memory".to_owned(),
            _ => printable(&path.to_string_lossy()),
        };
        let deleted = if *deleted { " (deleted)" } else { "" };
        let _ = writeln!(
            text,
            "  {:012x}-{:012x}  offset {:#x}  {name}{deleted}",
            start.0, end.0, offset.0
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::units::{Avma, FileOffset};

    #[test]
    fn a_process_is_printed() {
        let process = Process {
            pid: Pid(4711),
            start_ticks: 1,
            exe: PathBuf::from("/usr/bin/service"),
            command: vec!["service".to_owned(), "-v".to_owned()],
            name: "service".to_owned(),
            inner_pid: Pid(7),
            container: None,
            note: None,
        };
        let mapping = |path: &str, deleted, kind| ExecMapping {
            start: Avma(0x7f00_0000_0000),
            end: Avma(0x7f00_0000_1000),
            offset: FileOffset(0x1000),
            path: PathBuf::from(path),
            deleted,
            inode: 1,
            dev: (0, 0),
            kind,
        };
        let mappings = [
            mapping("/usr/bin/service", true, MappingKind::File),
            mapping("", false, MappingKind::Anonymous),
        ];
        let threads = [(Tid(4711), "service".to_owned()), (Tid(4720), "tokio\u{1b}rt".to_owned())];
        assert_eq!(
            print(&process, &[Pid(4800), Pid(4801)], "0 ms", &threads, &mappings),
            "process    4711 (7 in its own PID namespace)\n\
             name       service\n\
             executable /usr/bin/service\n\
             command    service -v\n\
             container  none that its cgroup tells\n\
             throttled  0 ms\n\
             children   4800 4801\n\
             threads    2\n      4711  service\n      4720  tokio\u{fffd}rt\n\
             mappings   2 executable\n  \
             7f0000000000-7f0000001000  offset 0x1000  /usr/bin/service (deleted)\n  \
             7f0000000000-7f0000001000  offset 0x1000  anonymous memory\n"
        );
    }
}
