//! Finds the process that the user means by a number or a name.

use std::{fmt::Write as _, io, path::Path};

use super::{
    host::own_pid,
    process::{Process, all_pids, command, process, stat, status},
    unreadable,
};
use crate::{failure::Failure, units::Pid};

/// How many processes or names a message lists.
const LISTED: usize = 20;

/// How alike two names are, from 0 to 1, for one to be offered in place of the other.
const ALIKE: f64 = 0.85;

/// The process of this number.
///
/// A number that is no process here, but is one process's id in its own PID namespace, means that
/// one; [`Process::note`] says so. Errors are [`Failure`]s: `NoTarget` for a number that names
/// nothing, a thread, a kernel thread or an ended process; `Usage` for one that names several.
pub fn by_pid(pid: u32) -> anyhow::Result<Process> {
    let pid = Pid(pid);
    let status = match status(pid) {
        Ok(status) => status,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return by_inner_pid(pid),
        Err(error) => return Err(unreadable(pid, "status", error)),
    };
    let stat = stat(pid).map_err(|error| unreadable(pid, "stat", error))?;
    let no_target = |message| Err(Failure::NoTarget(message).into());
    if status.process != pid {
        let process = status.process;
        return no_target(format!(
            "{pid} is thread {:?} of process {process}; try -p {process}, and --thread to select \
             it in a report",
            stat.name
        ));
    }
    if stat.kernel_thread {
        return no_target(format!(
            "{pid} is the kernel thread {:?}: it runs no user code to explain; \
             `pgrep -af NAME` lists user processes",
            stat.name
        ));
    }
    if stat.ended {
        return no_target(format!(
            "process {pid} ({}) has ended and only waits for its parent {} to notice; \
             `pgrep -af NAME` lists what runs now",
            stat.name, stat.parent
        ));
    }
    process(pid, stat, &status)
}

/// The one process whose name, executable or `argv[0]` this is.
///
/// Errors are [`Failure`]s: `NoTarget` with names that are near for none, `Usage` with a list for
/// several.
pub fn by_name(name: &str) -> anyhow::Result<Process> {
    let all: Vec<_> = all_pids().into_iter().filter(|&pid| pid != own_pid()).collect();
    let named: Vec<_> = all.into_iter().filter_map(|pid| Some((pid, names(pid)?))).collect();
    let matching: Vec<_> =
        named.iter().filter(|(_, names)| names.iter().any(|own| own == name)).collect();
    match matching[..] {
        [(pid, _)] => by_pid(pid.0),
        [] => {
            let near = near(name, named.into_iter().flat_map(|(_, names)| names));
            let advice = if near.is_empty() {
                "`pgrep -af NAME` searches whole command lines".to_owned()
            } else {
                format!("near it: {}", near.join(", "))
            };
            Err(Failure::NoTarget(format!("no process is called {name:?}; {advice}")).into())
        }
        ref several => {
            let pids: Vec<_> = several.iter().map(|(pid, _)| *pid).collect();
            Err(Failure::Usage(format!(
                "{} processes are called {name:?}; give one of them with -p:{}",
                pids.len(),
                list(&pids)
            ))
            .into())
        }
    }
}

/// The process whose id in a PID namespace of its own this is.
fn by_inner_pid(inner: Pid) -> anyhow::Result<Process> {
    let matching: Vec<_> = all_pids()
        .into_iter()
        .filter(|&pid| status(pid).is_ok_and(|status| status.inner_pid() == Some(inner.0)))
        .collect();
    match matching[..] {
        [pid] => {
            let mut process = by_pid(pid.0)?;
            process.note = Some(format!("{inner} is the id of process {pid} within its container"));
            Ok(process)
        }
        [] => Err(Failure::NoTarget(format!(
            "there is no process {inner}: it has ended, or the number is from another machine; \
             `pgrep -af NAME` lists what runs now"
        ))
        .into()),
        ref several => Err(Failure::Usage(format!(
            "{inner} is the id of {} processes, each within its own container; give one of these \
             with -p:{}",
            several.len(),
            list(several)
        ))
        .into()),
    }
}

/// The names that a user process answers to.
fn names(pid: Pid) -> Option<Vec<String>> {
    let stat = stat(pid).ok().filter(|stat| !stat.kernel_thread && !stat.ended)?;
    let base = |path: &Path| Some(path.file_name()?.to_string_lossy().into_owned());
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok();
    let exe = exe.and_then(|exe| base(&super::process::without_deleted(&exe).0));
    let first = base(Path::new(&command(pid, &stat.name)[0]));
    Some([Some(stat.name), exe, first].into_iter().flatten().collect())
}

/// Names that contain the wanted one or look like it, likest first.
fn near(wanted: &str, names: impl Iterator<Item = String>) -> Vec<String> {
    let lower = wanted.to_lowercase();
    let mut scored: Vec<_> = names
        .filter_map(|name| {
            let own = name.to_lowercase();
            let contains = own.contains(&lower) || (own.len() > 2 && lower.contains(&own));
            let likeness = strsim::jaro_winkler(&own, &lower);
            (contains || likeness > ALIKE).then_some((name, likeness))
        })
        .collect();
    scored.sort_by(|(a, x), (b, y)| y.total_cmp(x).then_with(|| a.cmp(b)));
    scored.dedup_by(|(a, _), (b, _)| a == b);
    scored.into_iter().map(|(name, _)| name).take(LISTED).collect()
}

/// Process ids with their command lines, one a line.
fn list(pids: &[Pid]) -> String {
    let mut text = String::new();
    for &pid in pids.iter().take(LISTED) {
        // One that ended meanwhile is no choice any more.
        let Ok(stat) = stat(pid) else { continue };
        let line = command(pid, &stat.name).join(" ");
        let container = super::cgroup::container(pid)
            .map(|id| format!("  (container {})", id.get(..12).unwrap_or(&id)));
        let _ = write!(
            text,
            "\n  {pid:>8}  {}{}",
            line.chars().take(160).collect::<String>(),
            container.unwrap_or_default()
        );
    }
    if pids.len() > LISTED {
        let _ = write!(text, "\n  and {} more", pids.len() - LISTED);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_those_a_mistyping_or_a_half_name_is_close_to() {
        let running = ["service", "service-worker", "Service", "postgres", "sh", "nginx"];
        let check = |wanted: &str, expected: &[&str]| {
            let names = running.iter().map(|&name| name.to_owned());
            assert_eq!(near(wanted, names), expected, "{wanted}");
        };
        check("servcie", &["Service", "service", "service-worker"]);
        check("worker", &["service-worker"]);
        check("postgresql", &["postgres"]);
        check("ngnix", &["nginx"]);
        check("mysqld", &[]);
    }
}
