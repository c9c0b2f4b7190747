//! A command that is started to be recorded: held before its first instruction, run as the user
//! who asked, ended when the recording is over.

use std::{
    cell::Cell,
    ffi::{CString, OsStr, OsString},
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        signal::{Signal, kill, raise},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Uid, User, initgroups, setgid, setuid},
};

use crate::{failure::Failure, terminal::say, units::Pid};

/// The hidden subcommand that a launched command begins as.
pub const GATE: &str = "gate";

/// Exit code of a gate that could not become the command, as a shell's for the same.
const NOT_STARTED: i32 = 127;

/// How long a command may take to end after SIGTERM before it is left alone.
const END_LIMIT: Duration = Duration::from_secs(10);

/// How often it is looked at meanwhile.
const END_STEP: Duration = Duration::from_millis(10);

/// A command that waits to be let go. Dropped before its end was awaited, it is killed.
#[derive(Debug)]
pub struct Launched {
    child: Child,
    /// It was waited for, or is left alone.
    reaped: bool,
    /// It was let go.
    released: Cell<bool>,
}

impl Launched {
    /// Starts the command up to the point where it can be watched: this program, stopped, about to
    /// turn into it. It has a process group of its own, so that Ctrl-C reaches the recorder alone.
    ///
    /// # Errors
    /// If no process can be had.
    pub fn hold(command: &[OsString]) -> Result<Self> {
        let own = std::env::current_exe().context("cannot find this program's own file")?;
        let child = Command::new(own)
            .arg(GATE)
            .arg("--")
            .args(command)
            .process_group(0)
            .spawn()
            .context("cannot start the command")?;
        let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED)).context("cannot wait for the command")? {
            WaitStatus::Stopped(..) => {
                Ok(Self { child, reaped: false, released: Cell::new(false) })
            }
            other => anyhow::bail!("the command ended before it began: {other:?}"),
        }
    }

    /// Its process.
    pub fn pid(&self) -> Pid {
        Pid(self.child.id())
    }

    /// Lets it become the command.
    ///
    /// # Errors
    /// If it is gone.
    pub fn release(&self) -> Result<()> {
        self.released.set(true);
        self.signal(Signal::SIGCONT).context("the command ended before it began")
    }

    /// Asks it to end if it has not: SIGTERM, and SIGCONT in case it is stopped, as a command of a
    /// background process group is when it reads the terminal.
    pub fn ask_to_end(&self) {
        // It may have ended by itself; then there is nothing to signal.
        let _ = self.signal(Signal::SIGTERM);
        let _ = self.signal(Signal::SIGCONT);
    }

    /// Waits a while for its end and says how it ended, or that it goes on.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn say_end(mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("cannot wait for the command")? {
                self.reaped = true;
                say(&format!("the command ended: {status}"));
                return Ok(());
            }
            if begun.elapsed() > END_LIMIT {
                let pid = self.pid();
                self.reaped = true;
                say(&format!("the command goes on in spite of SIGTERM; to end it: kill -9 {pid}"));
                return Ok(());
            }
            thread::sleep(END_STEP);
        }
    }

    fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(nix::unistd::Pid::from_raw(self.child.id().cast_signed()), signal)
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if self.released.get() && !self.reaped {
            // It runs: it is asked, as at any other end of a recording.
            self.ask_to_end();
        } else if !self.reaped {
            // Held, it hears no other signal; an error means that it is gone.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// The launched process before it is the command: stops itself, and once it is let go gives up
/// the rights that sudo gave and turns into the command. Returns only if it cannot.
///
/// # Errors
/// If the command cannot be run. The exit code is then `NOT_STARTED`.
pub fn gate(command: &[OsString]) -> Result<()> {
    raise(Signal::SIGSTOP).context("cannot wait for the recorder")?;
    let become_command = || -> Result<()> {
        become_invoker()?;
        let (program, arguments) = command.split_first().context("no command was given")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    };
    if let Err(error) = become_command() {
        say(&format!("error: {error:#}"));
        std::process::exit(NOT_STARTED);
    }
    Ok(())
}

/// Under sudo: becomes the user who ran it.
fn become_invoker() -> Result<()> {
    let id = |name: &str| std::env::var(name).ok().and_then(|id| id.parse::<u32>().ok());
    let (Some(uid), Some(gid)) = (id("SUDO_UID"), id("SUDO_GID")) else { return Ok(()) };
    if !Uid::effective().is_root() {
        return Ok(());
    }
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    if let Some(user) = User::from_uid(uid).context("cannot look up the invoking user")? {
        initgroups(&CString::new(user.name)?, gid).context("cannot take on the user's groups")?;
    }
    setgid(gid).context("cannot take on the user's group")?;
    setuid(uid).context("cannot become the invoking user")
}

/// The failure of a command that never started.
pub fn not_started(program: &OsStr) -> Failure {
    let program = String::from_utf8_lossy(program.as_bytes()).into_owned();
    Failure::NoTarget(format!(
        "{program} did not start; try it without stallscope first: {program}"
    ))
}
