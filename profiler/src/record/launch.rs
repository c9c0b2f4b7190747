//! A command that is started to be recorded: held before its first instruction, run as the user
//! who asked, ended when the recording is over.

use std::{
    ffi::{CString, OsString},
    os::unix::{ffi::OsStrExt as _, process::CommandExt as _},
    process::{Child, Command, ExitStatus},
};

use anyhow::{Context as _, Result};
use nix::{
    sys::{
        signal::{Signal, kill, raise},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Gid, Uid, User, initgroups, setgid, setuid},
};

use crate::{failure::Failure, units::Pid};

/// The hidden subcommand that a launched command begins as.
pub const GATE: &str = "gate";

/// Exit code of a gate that could not become the command, as a shell's for the same.
const NOT_STARTED: i32 = 127;

/// A command that waits to be let go. Dropped before its end was awaited, it is killed.
#[derive(Debug)]
pub struct Launched {
    /// The program, then its arguments.
    pub command: Vec<OsString>,
    child: Child,
    reaped: bool,
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
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        match waitpid(pid, Some(WaitPidFlag::WUNTRACED)).context("cannot wait for the command")? {
            WaitStatus::Stopped(..) => Ok(Self { command: command.to_vec(), child, reaped: false }),
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
        self.signal(Signal::SIGCONT).context("the command ended before it began")
    }

    /// Asks it to end if it has not, and waits for it.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn end(mut self) -> Result<Ended> {
        if self.child.try_wait()?.is_none() {
            // It can end between the two; then there is nothing to signal.
            let _ = self.signal(Signal::SIGTERM);
            // If recording never began it is still held, and hears nothing before this.
            let _ = self.signal(Signal::SIGCONT);
        }
        let status = self.child.wait().context("cannot wait for the command")?;
        self.reaped = true;
        Ok(Ended { program: self.command[0].clone(), status })
    }

    fn signal(&self, signal: Signal) -> nix::Result<()> {
        kill(nix::unistd::Pid::from_raw(self.child.id() as i32), signal)
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        if !self.reaped {
            // Held, it hears no other signal; an error means that it is gone.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    /// The program.
    pub program: OsString,
    /// By itself, or by the SIGTERM that follows the recording.
    pub status: ExitStatus,
}

/// The launched process before it is the command: stops itself, and once it is let go gives up
/// the rights that sudo gave and turns into the command. Returns only if it cannot.
///
/// # Errors
/// If the command cannot be run. The exit code is then [`NOT_STARTED`].
pub fn gate(command: &[OsString]) -> Result<()> {
    raise(Signal::SIGSTOP).context("cannot wait for the recorder")?;
    let become_command = || -> Result<()> {
        become_invoker()?;
        let (program, arguments) = command.split_first().context("no command was given")?;
        let error = Command::new(program).args(arguments).exec();
        Err(error).with_context(|| format!("cannot run {}", program.display()))
    };
    if let Err(error) = become_command() {
        eprintln!("error: {error:#}");
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

/// The failure of a command that never became itself, which its exit status alone does not tell:
/// a command can end with [`NOT_STARTED`] too.
pub fn not_started(ended: &Ended) -> Option<Failure> {
    let Ended { program, status } = ended;
    if status.code() != Some(NOT_STARTED) {
        return None;
    }
    let program = String::from_utf8_lossy(program.as_bytes()).into_owned();
    Some(Failure::NoTarget(format!(
        "{program} did not start; try it without stallscope first: {program}"
    )))
}
