//! What a recording begins with: who was recorded, where, and with which options.

use std::{fs::File, os::fd::OwnedFd, path::Path};

use anyhow::Result;
use object::read::ReadCache;
use profiler_common::config::HookPath;
use rustix::process::{PidfdFlags, pidfd_open};

use super::Plan;
use crate::{
    failure::Failure,
    recording::{Host, Options, Session, Target},
    target::{self, Process},
    units::Ktime,
    unwind::elf,
};

/// A descriptor that becomes readable when the process ends, and the proof that it is the one that
/// was found: an id that is used again from here on is not the target.
///
/// # Errors
/// [`Failure::NoTarget`] if it has ended.
pub fn open_pidfd(process: &Process) -> Result<OwnedFd> {
    let pid = process.pid;
    let gone = || Failure::NoTarget(format!("process {pid} ended before it could be recorded"));
    let raw = rustix::process::Pid::from_raw(pid.0.cast_signed()).ok_or_else(gone)?;
    let pidfd = pidfd_open(raw, PidfdFlags::empty()).map_err(|_| gone())?;
    if process.lives() { Ok(pidfd) } else { Err(gone().into()) }
}

/// The first record of a recording whose window begins at `start`.
///
/// # Errors
/// If the machine's own facts cannot be read.
pub fn session(plan: &Plan, hook: HookPath, process: &Process, start: Ktime) -> Result<Session> {
    let host = target::host()?;
    let clocks = target::clocks()?;
    Ok(Session {
        recorder: env!("CARGO_PKG_VERSION").to_owned(),
        target: facts_of(process),
        host: Host { kernel: host.kernel, arch: host.arch, cpus: host.cpus, boot_id: host.boot_id },
        options: Options {
            min_block: plan.min_block,
            children: plan.children,
            hook: hook_name(hook).to_owned(),
        },
        start,
        start_unix_ns: clocks.unix_ns - clocks.monotonic.since(start).0.cast_signed(),
        boot_minus_monotonic: clocks.boot_minus_monotonic,
    })
}

/// What is said of the process itself.
pub fn facts_of(process: &Process) -> Target {
    let exe = Path::new("/proc").join(process.pid.to_string()).join("exe");
    let build_id = File::open(exe).ok().and_then(|file| elf::build_id(&ReadCache::new(file)));
    Target {
        pid: process.pid,
        exe: process.exe.clone(),
        command: process.command.clone(),
        build_id: build_id.unwrap_or_default(),
        container: process.container.clone(),
    }
}

/// What a recording calls the place where stacks are taken.
pub(crate) fn hook_name(hook: HookPath) -> &'static str {
    match hook {
        HookPath::SchedExit => "sched_exit_tp",
        HookPath::FinishTaskSwitch => "finish_task_switch",
        HookPath::SwitchOut => "switch-out",
    }
}
