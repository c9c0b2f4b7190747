//! A workload that speaks first and stops when told, and a recorder that says when it sees.

use std::{
    io::{BufRead, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
};

use serde_json::Value;

/// A workload of the package `workloads`; killed if the test ends before it.
pub struct Workload {
    child: Child,
    output: BufReader<ChildStdout>,
    pid: u32,
}

impl Workload {
    /// Starts it and waits until it is ready.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = Command::new(workload());
        command.args(arguments);
        Self::start_as(command)
    }

    /// The same for a command that runs a workload in its own way.
    pub fn start_as(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut workload = Self { child, output, pid: 0 };
        workload.wait_ready();
        workload
    }

    /// Waits for a line `ready PID`; a workload that becomes another says it again.
    pub fn wait_ready(&mut self) {
        let line = self.line();
        let pid = line.strip_prefix("ready ").map(str::trim);
        self.pid = pid.and_then(|pid| pid.parse().ok()).unwrap_or_else(|| panic!("said {line:?}"));
    }

    /// Its process, as it says itself.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process that was started, as this test sees it.
    pub fn child_pid(&self) -> u32 {
        self.child.id()
    }

    /// Lets it work.
    pub fn go(&mut self) {
        self.say("go");
    }

    /// Ends its work and returns what it measured; it lives on.
    pub fn stop(&mut self) -> Value {
        self.say("stop");
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line:?}"))
    }

    /// Closes its stdin, after which it ends.
    pub fn hang_up(&mut self) {
        drop(self.child.stdin.take());
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        self.child.wait().unwrap();
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn say(&mut self, word: &str) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{word}").unwrap();
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        line
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both fail only if it was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A running `stallscope record`; killed if the test ends before it.
pub struct Recorder {
    child: Child,
    errors: BufReader<ChildStderr>,
    said: String,
}

/// How a recorder ended.
pub struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
}

impl Recorder {
    /// Starts `stallscope record` and waits until the first event can be seen.
    ///
    /// Panics with what the recorder said if it ends before, as it does without the rights.
    pub fn start(arguments: &[&str]) -> Self {
        let mut command = stallscope();
        command.arg("record").args(arguments);
        Self::start_as(command)
    }

    /// The same for a command that runs the recorder in its own way.
    pub fn start_as(command: Command) -> Self {
        let mut recorder = Self::spawn(command);
        while !recorder.said.contains("recording pid ") {
            let read = recorder.errors.read_line(&mut recorder.said).unwrap();
            assert!(read > 0, "the recorder did not start: {}", recorder.said);
        }
        recorder
    }

    fn spawn(mut command: Command) -> Self {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = BufReader::new(child.stderr.take().unwrap());
        Self { child, errors, said: String::new() }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has ended and waits for its parent to notice.
    pub fn is_over(&self) -> bool {
        super::proc::field(self.pid(), "State").contains('Z')
    }

    /// Interrupts it, as Ctrl-C does, and waits for its end.
    pub fn interrupt(self) -> Ended {
        self.signal(nix::sys::signal::Signal::SIGINT);
        self.wait()
    }

    /// Starts `stallscope record` and does not wait for anything.
    pub fn start_unready(arguments: &[&str]) -> Self {
        let mut command = stallscope();
        command.arg("record").args(arguments);
        Self::spawn(command)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let mut stdout = String::new();
        self.child.stdout.take().unwrap().read_to_string(&mut stdout).unwrap();
        self.errors.read_to_string(&mut self.said).unwrap();
        let status = self.child.wait().unwrap();
        Ended { status, stdout, stderr: std::mem::take(&mut self.said) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Ended {
    /// Panics with what the recorder said unless it ended well.
    pub fn expect_success(self) -> Self {
        assert!(self.status.success(), "{}\n{}\n{}", self.status, self.stdout, self.stderr);
        self
    }
}

/// Runs `stallscope` to its end.
pub fn run(arguments: &[&str]) -> Ended {
    let mut command = stallscope();
    command.args(arguments);
    run_as(command)
}

/// Runs a command to its end.
pub fn run_as(command: Command) -> Ended {
    Recorder::spawn(command).wait()
}

/// The program under test.
pub fn stallscope() -> Command {
    Command::new(env!("CARGO_BIN_EXE_stallscope"))
}

/// The workload program, built beside the program under test.
pub fn workload() -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_stallscope")).with_file_name("workload");
    assert!(path.exists(), "{} is missing: cargo build -p workloads", path.display());
    path
}
