//! A process to be recorded: a workload that begins when told.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// A workload that runs. Dropping it ends it.
pub struct Target {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Target {
    /// Starts `program` with these words and waits until it is ready to begin. `preload` are
    /// libraries that it maps beside its own.
    pub fn start(program: &Path, words: &[&str], preload: &[String]) -> Result<Self> {
        let mut command = Command::new(program);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        if !preload.is_empty() {
            command.env("LD_PRELOAD", preload.join(":"));
        }
        let mut child =
            command.spawn().with_context(|| format!("cannot start {}", program.display()))?;
        let stdin = child.stdin.take();
        let stdout = BufReader::new(child.stdout.take().expect("its stdout is a pipe"));
        let mut target = Self { child, stdin, stdout };
        let line = target.line()?;
        if !line.starts_with("ready ") {
            bail!("{} {} said {line:?} and not `ready`", program.display(), words.join(" "));
        }
        Ok(target)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it begin.
    pub fn go(&mut self) -> Result<()> {
        self.tell("go")
    }

    /// Lets it end and returns what it says of its work.
    pub fn stop(mut self) -> Result<serde_json::Value> {
        self.tell("stop")?;
        let line = self.line()?;
        serde_json::from_str(&line).with_context(|| format!("a workload said {line:?}"))
    }

    /// Context switches of all its threads so far, voluntary or not.
    pub fn switches(&self) -> Result<u64> {
        let folder = format!("/proc/{}/task", self.pid());
        let mut switches = 0;
        for thread in fs::read_dir(&folder).with_context(|| format!("cannot list {folder}"))? {
            // A thread can end between the listing and the reading.
            let Ok(text) = fs::read_to_string(thread?.path().join("status")) else { continue };
            let counts = text.lines().filter_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.ends_with("ctxt_switches").then(|| value.trim().parse::<u64>().ok())?
            });
            switches += counts.sum::<u64>();
        }
        Ok(switches)
    }

    /// Bytes of code that it has mapped from files.
    pub fn text_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/maps", self.pid());
        let maps = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let bytes = maps.lines().filter_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let is_code = fields.next()?.contains('x') && line.contains('/');
            let address = |hex| u64::from_str_radix(hex, 16).ok();
            is_code.then_some(address(end)?.saturating_sub(address(start)?))
        });
        Ok(bytes.sum())
    }

    fn tell(&mut self, word: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("stdin was closed")?;
        writeln!(stdin, "{word}").context("a workload does not listen")
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.stdout.read_line(&mut line).context("cannot hear a workload")?;
        Ok(line)
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // The end of its stdin is what ends it; after an error it may no longer listen.
        drop(self.stdin.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
