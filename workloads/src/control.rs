//! The words that a test and a workload exchange.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    sync::atomic::{AtomicBool, Ordering},
};

use anyhow::{Context, Result, bail};
use serde::Serialize;

static STOPPED: AtomicBool = AtomicBool::new(false);

/// Whether the work is to end; asked by every thread between two waits.
pub fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Ends the work.
pub fn stop() {
    STOPPED.store(true, Ordering::Relaxed);
}

/// Stdin, read without a buffer so that nothing of it is lost over an exec.
pub struct Control {
    stdin: File,
}

impl Control {
    /// Says `ready PID` and waits for `go`.
    pub fn ready() -> Result<Self> {
        let stdin = std::io::stdin().as_fd().try_clone_to_owned().context("cannot read stdin")?;
        let mut control = Self { stdin: stdin.into() };
        say(&format!("ready {}", std::process::id()))?;
        match control.line()?.as_str() {
            "go" => Ok(control),
            other => bail!("expected the line `go` on stdin, got {other:?}"),
        }
    }

    /// Waits for `stop` and ends the work.
    pub fn wait_for_stop(&mut self) -> Result<()> {
        self.line()?;
        stop();
        Ok(())
    }

    /// Prints the result and waits for the end of stdin.
    pub fn finish(mut self, result: &impl Serialize) -> Result<()> {
        report(result)?;
        while !self.line()?.is_empty() {}
        Ok(())
    }

    /// The next line, empty at the end of stdin.
    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        let mut byte = [0];
        while self.stdin.read(&mut byte).context("cannot read stdin")? == 1 && byte != *b"\n" {
            line.push(char::from(byte[0]));
        }
        Ok(line)
    }
}

/// Prints the result as one line of JSON.
pub fn report(result: &impl Serialize) -> Result<()> {
    say(&serde_json::to_string(result).context("the result is not JSON")?)
}

fn say(line: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).context("cannot write to stdout")
}
