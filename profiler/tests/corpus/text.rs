//! The corpus as text: the stacks of a process as one tree, root first, one function a line.
//!
//! ```text
//! process multi-thread
//! thread 1 tokio/only tokio-rt-worker
//! clone3 | libc.so.6 | 12
//!  start_thread | libc.so.6 | 13
//!   park | app | 14 | tokio-1.54.1/src/runtime/park.rs
//!   = 1 futex complete, idle worker - - -
//! ```
//!
//! One more space is one call deeper. A line with `=` is a wait in the function above it that has one
//! space less or as many: its thread, its reason (`@` what it waits on), and what was declared.

use std::{collections::BTreeMap, fmt::Write as _};

use stallscope::runtime::Reason;

use crate::process::{Line, Member, Process, Truth, Wait, name_of};

/// Every process of a file.
pub fn read(text: &str) -> Vec<Process> {
    let mut processes: Vec<Process> = Vec::new();
    let mut path: Vec<Line> = Vec::new();
    for line in text.lines() {
        if let Some(flavour) = line.strip_prefix("process ") {
            let (threads, waits) = (BTreeMap::new(), Vec::new());
            processes.push(Process { flavour: flavour.to_owned(), threads, waits });
            continue;
        }
        let process = processes.last_mut().unwrap();
        let content = line.trim_start_matches(' ');
        let depth = line.len() - content.len();
        if let Some(thread) = line.strip_prefix("thread ") {
            let [number, pool, name] = words(thread);
            let member = Member { name: name.to_owned(), pool: pool.to_owned() };
            process.threads.insert(number.parse().unwrap(), member);
        } else if let Some(wait) = content.strip_prefix("= ") {
            path.truncate(depth);
            process.waits.push(read_wait(wait, &path));
        } else {
            path.truncate(depth);
            path.push(read_line(content));
        }
    }
    processes
}

fn read_line(content: &str) -> Line {
    let mut parts = content.split(" | ");
    let mut part = || parts.next().map(str::to_owned);
    let (function, module, address) = (part().unwrap(), part().unwrap(), part().unwrap());
    let function = (function != "?").then_some(function);
    Line { address: address.parse().unwrap(), function, module, source: part() }
}

fn read_wait(wait: &str, path: &[Line]) -> Wait {
    let (seen, declared) = wait.split_once(", ").unwrap();
    let [thread, reason, end] = words(seen);
    let [state, role, declared_reason, label, task] = words(declared);
    let (reason, object) = match reason.split_once('@') {
        Some((reason, object)) => (reason, Some(object.parse().unwrap())),
        None => (reason, None),
    };
    let if_any = |word: &str| (word != "-").then(|| word.to_owned());
    Wait {
        frames: path.to_vec(),
        complete: end == "complete",
        thread: thread.parse().unwrap(),
        object,
        reason: *Reason::ALL.iter().find(|known| name_of(**known) == reason).unwrap(),
        truth: Truth {
            state: state.to_owned(),
            role: role.to_owned(),
            reason: if_any(declared_reason),
            label: if_any(label),
            task: if_any(task),
        },
    }
}

/// `N` words, the last of which may have spaces.
fn words<const N: usize>(text: &str) -> [&str; N] {
    text.splitn(N, ' ').collect::<Vec<_>>().try_into().unwrap_or_else(|_| panic!("{text:?}"))
}

/// The processes as [`read`] reads them.
pub fn write(processes: &[Process]) -> String {
    let mut text = String::new();
    for process in processes {
        write_process(&mut text, process);
    }
    text
}

fn write_process(text: &mut String, process: &Process) {
    writeln!(text, "process {}", process.flavour).unwrap();
    for (number, Member { name, pool }) in &process.threads {
        writeln!(text, "thread {number} {pool} {name}").unwrap();
    }
    let mut waits: Vec<&Wait> = process.waits.iter().collect();
    waits.sort();
    let mut path: &[Line] = &[];
    for wait in waits {
        let shared = path.iter().zip(&wait.frames).take_while(|(a, b)| a == b).count();
        for (depth, line) in wait.frames.iter().enumerate().skip(shared) {
            let function = line.function.as_deref().unwrap_or("?");
            write!(text, "{:depth$}{function} | {} | {}", "", line.module, line.address).unwrap();
            match &line.source {
                Some(source) => writeln!(text, " | {source}").unwrap(),
                None => writeln!(text).unwrap(),
            }
        }
        path = &wait.frames;
        let end = if wait.complete { "complete" } else { "incomplete" };
        let depth = path.len();
        write!(text, "{:depth$}= {} {}", "", wait.thread, name_of(wait.reason)).unwrap();
        if let Some(object) = wait.object {
            write!(text, "@{object}").unwrap();
        }
        write!(text, " {end}").unwrap();
        let or_none = |word: &Option<String>| word.clone().unwrap_or_else(|| "-".to_owned());
        let Truth { state, role, reason, label, task } = &wait.truth;
        let (reason, label, task) = (or_none(reason), or_none(label), or_none(task));
        writeln!(text, ", {state} {role} {reason} {label} {task}").unwrap();
    }
}
