//! A process that becomes another program, and one that has children.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    process::{Child, ChildStdout, Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::{
    control::Control,
    sites::{Sum, Sums},
};

const CHILDREN: usize = 2;

/// Becomes `truth` on `go`.
pub fn exec() -> Result<()> {
    drop(Control::ready()?);
    let error = itself()?.arg("truth").exec();
    Err(error).context("cannot become `workload truth`")
}

/// Starts children on `go`, stops them on `stop`, and adds their sums up.
pub fn fork() -> Result<()> {
    let mut control = Control::ready()?;
    let mut children = (0..CHILDREN).map(|_| start_child()).collect::<Result<Vec<_>>>()?;
    control.wait_for_stop()?;
    let mut sums = Sums::new();
    for (child, output) in &mut children {
        // The end of its stdin is `stop`.
        drop(child.stdin.take());
        let theirs: Sums = serde_json::from_str(&line(output)?).context("a child said no JSON")?;
        for (name, Sum { count, waits, total_ns }) in theirs {
            let sum = sums.entry(name).or_default();
            sum.count += count;
            sum.waits += waits;
            sum.total_ns += total_ns;
        }
        child.wait().context("cannot wait for a child")?;
    }
    control.finish(&sums)
}

fn start_child() -> Result<(Child, BufReader<ChildStdout>)> {
    let mut child = itself()?
        .arg("truth")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start a child")?;
    let mut output = BufReader::new(child.stdout.take().expect("its stdout is a pipe"));
    let ready = line(&mut output)?;
    if !ready.starts_with("ready ") {
        bail!("a child said {ready:?} instead of being ready");
    }
    let stdin = child.stdin.as_mut().expect("its stdin is a pipe");
    stdin.write_all(b"go\n").context("cannot write to a child")?;
    Ok((child, output))
}

fn line(output: &mut impl BufRead) -> Result<String> {
    let mut line = String::new();
    output.read_line(&mut line).context("cannot read from a child")?;
    Ok(line)
}

fn itself() -> Result<Command> {
    std::env::current_exe().map(Command::new).context("cannot tell the path of this program")
}
