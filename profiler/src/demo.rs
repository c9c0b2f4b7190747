//! A starving service of our own, recorded while it runs, that knows what it should look like.
//!
//! The service is this program in a process of its own; [`service`] says what it does.

pub mod service;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::units::Pid;

/// The hidden subcommand that runs [`service::run`].
pub const SERVICE_COMMAND: &str = "demo-service";

/// What the user asked for.
#[derive(Clone, Debug)]
pub struct Demo {
    /// How long to record.
    pub duration: Duration,
    /// Where the outputs go; made if it is not there.
    pub out_dir: PathBuf,
    /// Whether files that are there are overwritten.
    pub force: bool,
}

/// What is to be recorded, in the terms of the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The service.
    pub pid: Pid,
    /// For how long.
    pub duration: Duration,
    /// The outputs, each in the format of its extension.
    pub outputs: Vec<PathBuf>,
    /// Whether outputs that are there are overwritten.
    pub force: bool,
}

/// Starts the service, lets `record` record it, and says where the outputs are and what the service
/// measured itself.
pub fn run(demo: &Demo, record: impl FnOnce(&Request) -> Result<()>) -> Result<()> {
    let truth_path = demo.out_dir.join("demo.truth.json");
    if !demo.force && truth_path.exists() {
        bail!("{} exists: name another directory or add --force", truth_path.display());
    }
    fs::create_dir_all(&demo.out_dir)
        .with_context(|| format!("cannot make the directory {}", demo.out_dir.display()))?;

    let mut service = Process::start()?;
    let request = request(service.pid(), demo);
    service.say("go")?;
    record(&request)?;
    let truth = service.stop()?;

    fs::write(&truth_path, &truth)
        .with_context(|| format!("cannot write {}", truth_path.display()))?;
    print_truth(&truth)?;
    println!("\nThe picture, the recording it was made from, and what the service measured:");
    let recordings = request.outputs.iter().map(|output| output.with_extension("stall"));
    for path in request.outputs.iter().cloned().chain(recordings).chain([truth_path]) {
        println!("  {}", path.display());
    }
    Ok(())
}

/// What is asked of the recorder.
fn request(pid: Pid, demo: &Demo) -> Request {
    Request {
        pid,
        duration: demo.duration,
        outputs: vec![demo.out_dir.join("demo.svg")],
        force: demo.force,
    }
}

fn print_truth(truth: &str) -> Result<()> {
    let sums: service::Sums = serde_json::from_str(truth).context("the service said no JSON")?;
    let blocked_ns: u64 = sums.values().filter(|sum| !sum.allowed).map(|sum| sum.total_ns).sum();
    println!("\nWhat the service measured itself, from the first order to the last:");
    for (function, sum) in &sums {
        let (calls, ms) = (sum.count, sum.total_ns / 1_000_000);
        if sum.allowed {
            println!("  {function}: {calls} calls, {ms} ms on the blocking pool: allowed");
        } else {
            let share = sum.total_ns as f64 / blocked_ns.max(1) as f64 * 100.0;
            println!("  {function}: {calls} calls, {ms} ms, {share:.1} % of what is blocked");
        }
    }
    Ok(())
}

/// The service in its own process; killed if it is dropped before it was stopped.
struct Process {
    child: Child,
    output: BufReader<ChildStdout>,
}

impl Process {
    /// Returns once the service takes orders.
    fn start() -> Result<Self> {
        let stallscope = std::env::current_exe().context("cannot tell the path of stallscope")?;
        let mut child = Command::new(stallscope)
            .arg(SERVICE_COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the demo's service")?;
        let output = BufReader::new(child.stdout.take().expect("its stdout is a pipe"));
        let mut process = Self { child, output };
        let ready = process.line()?;
        if !ready.starts_with("ready ") {
            bail!("the demo's service did not start; it said {ready:?}");
        }
        Ok(process)
    }

    fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    fn say(&mut self, word: &str) -> Result<()> {
        let stdin = self.child.stdin.as_mut().expect("its stdin is a pipe");
        writeln!(stdin, "{word}").context("the demo's service is gone")
    }

    /// Stops the service and returns its sums as JSON.
    fn stop(mut self) -> Result<String> {
        self.say("stop")?;
        let truth = self.line()?;
        self.child.wait().context("cannot wait for the demo's service")?;
        Ok(truth)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line).context("cannot hear the demo's service")?;
        Ok(line)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if it has ended and was waited for, which is what they are for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
