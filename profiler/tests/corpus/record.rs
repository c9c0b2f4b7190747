//! Recording the programs again: what they declare, and what the recorder saw of it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    sync::{Mutex, PoisonError},
};

use serde::Deserialize;
use stallscope::{
    recording::{self, CodeAddress, Interval, RawFrame, Recording, ResolvedName, StackEnd},
    runtime::{
        Awaited,
        awaited::awaited,
        reason::{self, Entry},
    },
    symbols::{self, SymbolTable},
};
use tempfile::tempdir;

use crate::{
    process::{Line, MAYBE, Member, Process, Truth, Wait, name_of},
    programs::{Flavour, PROGRAMS, Program},
    stacks,
    support::process::{Recorder, Workload},
    text,
};

/// Shorter waits are the runtimes' own business. Those of the programs are four times as long.
const MIN_BLOCK: &str = "5ms";

/// When, of which thread, and what was declared.
#[derive(Debug, Deserialize)]
struct Declared(u64, u32, String, String, String, Option<String>, Option<String>, Option<String>);

impl Declared {
    fn truth(&self) -> Truth {
        Truth {
            state: self.4.clone(),
            role: self.3.clone(),
            reason: self.5.clone(),
            label: self.6.clone(),
            task: self.7.clone(),
        }
    }
}

/// Needs no rights to record. Run alone before the others it builds what they run, as this user.
#[test]
fn every_program_builds() {
    for program in PROGRAMS {
        program.build();
    }
}

/// A test for each program.
macro_rules! programs {
    ($($test:ident: $name:literal,)+) => {
        $(
            #[test]
            fn $test() {
                check($name);
            }
        )+

        #[test]
        fn every_program_has_a_test() {
            let listed: Vec<_> = PROGRAMS.iter().map(|program| program.name).collect();
            assert_eq!(listed, [$($name),+]);
        }
    };
}

programs! {
    tokio_1_0: "tokio-1.0",
    tokio_1_28: "tokio-1.28",
    tokio_1_54: "tokio-1.54",
    tokio_1_54_lines: "tokio-1.54-lines",
    tokio_1_54_fat: "tokio-1.54-fat",
    rayon_1_12: "rayon-1.12",
    smol_2_0: "smol-2.0",
    async_std_1_13: "async-std-1.13",
}

/// Records a program in all its flavours: every wait must be classified as it declares it.
fn check(name: &str) {
    // They share a name server and a folder of builds.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _held = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let program = PROGRAMS.iter().find(|program| program.name == name).unwrap();
    program.build();
    let (mut processes, mut wrong) = (Vec::new(), Vec::new());
    for flavour in program.flavours {
        let (process, missed) = record(program, flavour);
        println!("{name} {}: {} distinct waits", flavour.name, process.waits.len());
        wrong.extend(missed);
        wrong.extend(process.wrong());
        processes.push(process);
    }
    if std::env::var_os("BLESS").is_some() {
        let file = stacks().join(format!("{name}.txt"));
        fs::write(file, text::write(&processes)).unwrap();
    }
    let wrong: Vec<String> = wrong.iter().map(|what| format!("{name} {what}")).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A process, and what of its declarations no wait was seen for.
fn record(program: &Program, flavour: &Flavour) -> (Process, Vec<String>) {
    let out = tempdir().unwrap();
    let file = out.path().join("out.stall");
    let mut workload = Workload::start_as(program.command(flavour.name));
    let pid = workload.pid().to_string();
    let output = ["-p", &pid, "-o", file.to_str().unwrap(), "--min-block", MIN_BLOCK];
    let recorder = Recorder::start(&output);
    workload.go();
    let declared: Vec<Declared> = serde_json::from_value(workload.stop()).unwrap();
    recorder.interrupt().expect_success();
    workload.hang_up();
    let recording = recording::file::read(&file).unwrap();
    let (mut process, mut missed) = Reading::of(&recording, &declared).process(flavour.name);
    for (role, reason) in flavour.idle {
        let seen = |wait: &Wait| {
            let truth = &wait.truth;
            truth.state == "idle" && truth.role == *role && name_of(wait.reason) == *reason
        };
        if !process.waits.iter().any(seen) {
            missed.push(format!("{}: no idle {role} waits for {reason}", flavour.name));
        }
    }
    if program.inlined {
        for truth in process.waits.iter_mut().map(|wait| &mut wait.truth) {
            truth.label = truth.label.take().map(|label| format!("{MAYBE}{label}"));
            if flavour.name == "given-future" && truth.state == "blocked" {
                truth.state.insert_str(0, MAYBE);
                truth.task = truth.task.take().map(|task| format!("{MAYBE}{task}"));
            }
        }
    }
    (process, missed)
}

/// A recording beside what was declared.
struct Reading<'a> {
    recording: &'a Recording,
    names: SymbolTable,
    declared: &'a [Declared],
    /// Numbers instead of addresses and of thread ids, which change from run to run.
    addresses: HashMap<CodeAddress, u64>,
    threads: HashMap<u32, u32>,
}

impl<'a> Reading<'a> {
    fn of(recording: &'a Recording, declared: &'a [Declared]) -> Self {
        Self {
            recording,
            names: SymbolTable::from_recording(recording),
            declared,
            addresses: HashMap::new(),
            threads: HashMap::new(),
        }
    }

    fn process(mut self, flavour: &str) -> (Process, Vec<String>) {
        let mut missed = Vec::new();
        let mut waits = BTreeSet::new();
        let mut threads = BTreeMap::new();
        // One thread of no runtime that waits in the same functions is like another.
        let mut seen_outside = BTreeSet::new();
        for interval in self.recording.intervals.iter().filter(|interval| !interval.preempted) {
            let Some(declared) = self.declared_of(interval) else {
                missed.push(format!("{flavour}: {interval:?} was not declared"));
                continue;
            };
            let Some(wait) = self.wait(interval, declared) else {
                missed.push(format!("{flavour}: {interval:?} has no stack"));
                continue;
            };
            if declared.2 == "none" && !seen_outside.insert((wait.truth.clone(), wait.functions()))
            {
                continue;
            }
            let name = self.recording.totals.iter().find(|totals| totals.tid == interval.tid);
            let name = name.map_or_else(String::new, |totals| totals.name.clone());
            let pool = self.pool_of(interval.tid.0);
            threads.insert(wait.thread, Member { name, pool });
            waits.insert(wait);
        }
        for declared in self.declared {
            let truth = declared.truth();
            if truth.state != "idle" && !waits.iter().any(|wait| wait.truth == truth) {
                missed.push(format!("{flavour}: no wait is {truth:?}"));
            }
        }
        missed.sort();
        missed.dedup();
        let mut waits: Vec<Wait> = waits.into_iter().collect();
        // Addresses, unlike descriptors, have another beginning in each run.
        let is_address = |object: &u64| *object > u64::from(u32::MAX);
        let objects = || waits.iter().filter_map(|wait| wait.object).filter(is_address);
        let beginning = objects().min().unwrap_or(0);
        for object in waits.iter_mut().filter_map(|wait| wait.object.as_mut()) {
            if is_address(object) {
                *object -= beginning;
            }
        }
        (Process { flavour: flavour.to_owned(), threads, waits }, missed)
    }

    /// The pool of a thread that is ever in one.
    fn pool_of(&self, tid: u32) -> String {
        let pools = || self.declared.iter().filter(|it| it.1 == tid).map(|it| &it.2);
        pools().find(|pool| *pool != "none").or(pools().next()).unwrap().clone()
    }

    /// What the thread had said when it was switched out.
    fn declared_of(&self, interval: &Interval) -> Option<&'a Declared> {
        let before =
            |declared: &&Declared| declared.1 == interval.tid.0 && declared.0 <= interval.out.0;
        self.declared.iter().filter(before).max_by_key(|declared| declared.0)
    }

    fn wait(&mut self, interval: &Interval, declared: &Declared) -> Option<Wait> {
        let stack = self.recording.user_stacks.get(&interval.user_stack?)?;
        let frames = stack.frames.iter().rev().flat_map(|frame| self.lines(frame)).collect();
        let next = self.threads.len() as u32 + 1;
        Some(Wait {
            frames,
            complete: stack.end == StackEnd::Complete,
            thread: *self.threads.entry(interval.tid.0).or_insert(next),
            reason: self.reason(interval),
            object: if declared.4 == "idle" { object(interval) } else { None },
            truth: declared.truth(),
        })
    }

    /// The functions at a frame, the outermost first.
    fn lines(&mut self, frame: &RawFrame) -> Vec<Line> {
        let address = symbols::lookup_address(frame);
        let next = self.addresses.len() as u64 + 1;
        let number = *self.addresses.entry(address).or_insert(next);
        let module = match address {
            CodeAddress::Module(id, _) => self.recording.modules[&id].path.file_name().map_or_else(
                || self.recording.modules[&id].path.to_string_lossy().into_owned(),
                |name| name.to_string_lossy().into_owned(),
            ),
            CodeAddress::Memory(_) | CodeAddress::Kernel(_) => "-".to_owned(),
        };
        let line = |function: Option<&str>, source: Option<&str>| Line {
            address: number,
            function: function.map(str::to_owned),
            module: module.clone(),
            // Of a whole path the source tells nothing new.
            source: source.filter(|_| !function.is_some_and(is_whole)).and_then(from_package),
        };
        match self.names.get(&address) {
            ResolvedName::Frames(named) => named
                .iter()
                .map(|named| line(Some(&named.function), named.file.as_deref()))
                .collect(),
            ResolvedName::Missing(_) => vec![line(None, None)],
        }
    }

    fn reason(&self, interval: &Interval) -> stallscope::runtime::Reason {
        let syscall = interval.regs.and_then(|regs| regs.syscall);
        let fault = interval.regs.is_some_and(|regs| regs.syscall.is_none());
        let stack = interval.kernel_stack.and_then(|id| self.recording.kernel_stacks.get(&id));
        let addresses = stack.into_iter().flat_map(symbols::kernel_lookup_addresses);
        let names: Vec<&str> = addresses
            .flat_map(|address| match self.names.get(&address) {
                ResolvedName::Frames(named) => named.iter().map(|named| &*named.function).collect(),
                ResolvedName::Missing(_) => vec![],
            })
            .collect();
        reason::reason(Entry { syscall, fault, task_state: interval.task_state }, names)
    }
}

fn object(interval: &Interval) -> Option<u64> {
    awaited(interval.regs).and_then(Awaited::instance)
}

fn is_whole(function: &str) -> bool {
    function.contains("::")
}

/// A source's path without what is this machine's business, but for the folders by which other
/// people's code is known.
fn from_package(path: &str) -> Option<String> {
    const OTHERS: &[&str] = &["/rustc/", "/cargo/registry/src/"];
    let (before, after) = path.replace("/.cargo/", "/cargo/").rsplit_once("/src/").map(owned)?;
    let package = before.rsplit('/').next().unwrap_or(&before);
    let others = OTHERS.iter().find(|folder| format!("{before}/").contains(**folder));
    Some(format!("{}{package}/src/{after}", others.unwrap_or(&"")))
}

fn owned((before, after): (&str, &str)) -> (String, String) {
    (before.to_owned(), after.to_owned())
}
