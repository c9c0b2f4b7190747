//! Gathers what the doctor judges. Judges nothing.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit};

use crate::{
    kernel::probe::{Probe, probe},
    target,
};

/// A capability: its name and its bit (`linux/capability.h`).
pub(super) struct Capability {
    pub name: &'static str,
    pub bit: u32,
}

pub(super) const SYS_PTRACE: Capability = Capability { name: "CAP_SYS_PTRACE", bit: 19 };
pub(super) const SYS_ADMIN: Capability = Capability { name: "CAP_SYS_ADMIN", bit: 21 };
pub(super) const SYS_RESOURCE: Capability = Capability { name: "CAP_SYS_RESOURCE", bit: 24 };
pub(super) const SYSLOG: Capability = Capability { name: "CAP_SYSLOG", bit: 34 };
pub(super) const PERFMON: Capability = Capability { name: "CAP_PERFMON", bit: 38 };
pub(super) const BPF: Capability = Capability { name: "CAP_BPF", bit: 39 };
pub(super) const CHECKPOINT_RESTORE: Capability =
    Capability { name: "CAP_CHECKPOINT_RESTORE", bit: 40 };

/// Capabilities in effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Capabilities(pub u64);

impl Capabilities {
    /// The `CapEff` line of `/proc/self/status`.
    pub fn parse(status: &str) -> Option<Self> {
        let hex = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
        u64::from_str_radix(hex.trim(), 16).ok().map(Self)
    }

    pub fn have(self, capability: &Capability) -> bool {
        self.0 >> capability.bit & 1 != 0
    }
}

/// What the doctor judges.
#[derive(Debug)]
pub(super) struct Facts {
    pub probe: anyhow::Result<Probe>,
    pub capabilities: Capabilities,
    /// The program that is to be given capabilities.
    pub program: PathBuf,
    /// The mode in brackets in `/sys/kernel/security/lockdown`.
    pub lockdown: Option<String>,
    /// Bytes of memory that may be locked; `None` if unlimited.
    pub memlock: Option<u64>,
    pub perf_event_paranoid: Option<i32>,
    pub kptr_restrict: Option<i32>,
    pub unprivileged_bpf_disabled: Option<i32>,
    /// `/proc/kallsyms` shows addresses.
    pub kernel_names: bool,
    /// A tracefs is mounted somewhere.
    pub tracefs: bool,
    pub initial_pid_namespace: bool,
}

impl Facts {
    pub fn gather() -> anyhow::Result<Self> {
        let sysctl = |name| read(&Path::new("/proc/sys/kernel").join(name))?.trim().parse().ok();
        let status = read(Path::new("/proc/self/status")).unwrap_or_default();
        let (memlock, _) = getrlimit(Resource::RLIMIT_MEMLOCK)?;
        Ok(Self {
            probe: probe(),
            capabilities: Capabilities::parse(&status).unwrap_or(Capabilities(0)),
            program: std::env::current_exe()?,
            lockdown: read(Path::new("/sys/kernel/security/lockdown"))
                .and_then(|modes| Some(in_brackets(&modes)?.to_owned())),
            memlock: (memlock != RLIM_INFINITY).then_some(memlock),
            perf_event_paranoid: sysctl("perf_event_paranoid"),
            kptr_restrict: sysctl("kptr_restrict"),
            unprivileged_bpf_disabled: sysctl("unprivileged_bpf_disabled"),
            kernel_names: shows_addresses(Path::new("/proc/kallsyms")),
            tracefs: read(Path::new("/proc/self/mountinfo"))
                .is_some_and(|mounts| mounts.contains(" - tracefs ")),
            initial_pid_namespace: target::is_initial_pid_namespace(),
        })
    }
}

/// `integrity` of `none [integrity] confidentiality`.
pub(super) fn in_brackets(modes: &str) -> Option<&str> {
    modes.split_once('[')?.1.split_once(']').map(|(mode, _)| mode)
}

/// Whether the first symbols have addresses. The file has megabytes: only its start is read.
fn shows_addresses(kallsyms: &Path) -> bool {
    let mut start = Vec::new();
    let file = fs::File::open(kallsyms);
    file.is_ok_and(|file| file.take(4096).read_to_end(&mut start).is_ok())
        && String::from_utf8_lossy(&start)
            .lines()
            .filter_map(|line| u64::from_str_radix(line.split(' ').next()?, 16).ok())
            .any(|address| address != 0)
}

/// What cannot be read is not known: files of kernels that are built differently are not there.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok()
}
