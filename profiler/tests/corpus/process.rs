//! One recorded process of the corpus, and what is wrong with its classification.

use std::{collections::BTreeMap, fmt::Write as _};

use stallscope::{
    recording::{CodeAddress, StackEnd, Why},
    runtime::{self, Frame, Reason, Role, Stack, Thread, View},
    units::{Avma, Tid},
};

/// A process.
#[derive(Debug, PartialEq, Eq)]
pub struct Process {
    /// What it was told to be.
    pub flavour: String,
    /// Its threads that ever waited, by number.
    pub threads: BTreeMap<u32, Member>,
    /// Its distinct waits.
    pub waits: Vec<Wait>,
}

/// A thread, and the pool that it said it is in.
#[derive(Debug, PartialEq, Eq)]
pub struct Member {
    pub name: String,
    pub pool: String,
}

/// A wait, and what its thread had said about it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wait {
    /// Root first.
    pub frames: Vec<Line>,
    pub complete: bool,
    pub thread: u32,
    pub reason: Reason,
    /// Of an idle wait what it is on: a descriptor, or an address less the smallest one.
    pub object: Option<u64>,
    pub truth: Truth,
}

/// A function on a stack. One that is inlined has the address of the one it is in.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    /// The same for the same address in the same process, and no other.
    pub address: u64,
    pub function: Option<String>,
    /// Base name of the file.
    pub module: String,
    /// Source, from the folder of the package on.
    pub source: Option<String>,
}

/// What a wait was declared to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Truth {
    pub state: String,
    pub role: String,
    /// `None` where the runtime chooses.
    pub reason: Option<String>,
    pub label: Option<String>,
    pub task: Option<String>,
}

impl Process {
    /// What is not classified as declared, in words; nothing if all is well.
    pub fn wrong(&self) -> Vec<String> {
        let frames: Vec<Vec<Frame>> = self.waits.iter().map(Wait::frames).collect();
        let stacks: Vec<Stack<'_>> = frames
            .iter()
            .zip(&self.waits)
            .map(|(frames, wait)| Stack { frames: frames.iter().collect(), end: wait.end() })
            .collect();
        let views: Vec<View<'_>> = self
            .waits
            .iter()
            .zip(&stacks)
            .map(|(wait, stack)| View {
                tid: Tid(wait.thread),
                reason: wait.reason,
                object: wait.object,
                stack: Some(stack),
            })
            .collect();
        let threads: Vec<Thread<'_>> = self
            .threads
            .iter()
            .map(|(number, member)| Thread { tid: Tid(*number), name: &member.name })
            .collect();
        let verdict = runtime::classify(&threads, &views);
        let mut wrong = Vec::new();
        for (wait, meaning) in self.waits.iter().zip(&verdict.meanings) {
            // Outside of all runtimes there are no roles.
            let outside = wait.truth.state == "allowed" && wait.truth.role == "other";
            let role = meaning.role.unwrap_or(verdict.places[&Tid(wait.thread)].role);
            let role = if outside && meaning.role.is_none() { Role::Other } else { role };
            let found = Truth {
                state: meaning.state.name().to_owned(),
                role: role.name().to_owned(),
                reason: wait.truth.reason.as_ref().map(|_| name_of(wait.reason)),
                label: meaning.label.map(str::to_owned),
                task: meaning.task.clone(),
            };
            if !wait.truth.allows(&found) {
                let mut what = format!("{}: {found:?} instead of {:?}", self.flavour, wait.truth);
                for line in wait.frames.iter().rev() {
                    let function = line.function.as_deref().unwrap_or("?");
                    let _ = write!(what, "\n    {function}  {}", line.module);
                }
                wrong.push(what);
            }
        }
        wrong.extend(self.wrong_pools(&verdict));
        wrong
    }

    /// Threads of one declared pool must be in one pool, and those of different ones in different
    /// ones.
    fn wrong_pools(&self, verdict: &runtime::Verdict) -> Vec<String> {
        let mut found: BTreeMap<&str, Vec<(u32, String)>> = BTreeMap::new();
        for (number, member) in &self.threads {
            let place = verdict.places[&Tid(*number)];
            let pool = format!("{} {:?}", place.runtime, place.scope);
            found.entry(&member.pool).or_default().push((*number, pool));
        }
        let mut wrong = Vec::new();
        let mut known: BTreeMap<&str, &str> = BTreeMap::new();
        for (declared, threads) in &found {
            let runtime = declared.split('/').next().unwrap();
            let first = &threads[0].1;
            let same = threads.iter().all(|(_, pool)| pool == first);
            if !same || first.split(' ').next() != Some(runtime) {
                wrong.push(format!("{}: {declared} is {threads:?}", self.flavour));
            }
            if let Some(other) = known.insert(first, declared) {
                wrong.push(format!("{}: {other} and {declared} are one pool", self.flavour));
            }
        }
        wrong
    }
}

/// Stands before what the stack may not show. It must not show anything else.
pub const MAYBE: &str = "?";

impl Truth {
    fn allows(&self, found: &Self) -> bool {
        let word = |declared: &Option<String>, found: &Option<String>| match declared
            .as_ref()
            .and_then(|word| word.strip_prefix(MAYBE))
        {
            Some(word) => found.as_ref().is_none_or(|found| found == word),
            None => declared == found,
        };
        let state = match self.state.strip_prefix(MAYBE) {
            Some(state) => found.state == "unknown" || found.state == state,
            None => found.state == self.state,
        };
        let Self { role, reason, label, task, .. } = self;
        state
            && *role == found.role
            && *reason == found.reason
            && word(label, &found.label)
            && word(task, &found.task)
    }
}

impl Wait {
    /// Names only.
    #[cfg(feature = "live")]
    pub fn functions(&self) -> Vec<Option<String>> {
        self.frames.iter().map(|line| line.function.clone()).collect()
    }

    fn frames(&self) -> Vec<Frame> {
        let frame = |line: &Line| {
            let address = CodeAddress::Memory(Avma(line.address));
            let (function, source) = (line.function.as_deref(), line.source.as_deref());
            Frame::new(address, function, source, Some(&line.module))
        };
        self.frames.iter().rev().map(frame).collect()
    }

    fn end(&self) -> StackEnd {
        if self.complete { StackEnd::Complete } else { StackEnd::Incomplete(Why::NoMapping) }
    }
}

/// The name of a reason, as reports have it.
pub fn name_of(reason: Reason) -> String {
    serde_json::to_value(reason).unwrap().as_str().unwrap().to_owned()
}
