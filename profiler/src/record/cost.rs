//! What the recorder itself cost.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::{
    resource::{UsageWho, getrusage},
    time::TimeVal,
};

use crate::{kernel::usage::Usage, recording::Observer, units::Nanos};

/// The cost so far of this process and of its kernel side; the run time of the programs is known
/// only where it was measured.
///
/// # Errors
/// If the system does not tell.
pub fn observer(usage: &Usage, bpf_measured: bool) -> Result<Observer> {
    let own = getrusage(UsageWho::RUSAGE_SELF).context("cannot measure the recorder itself")?;
    let micros = |time: TimeVal| time.tv_sec() as u64 * 1_000_000 + time.tv_usec() as u64;
    Ok(Observer {
        cpu: Nanos((micros(own.user_time()) + micros(own.system_time())) * 1000),
        max_rss_bytes: max_rss_bytes()?,
        kernel_map_bytes: usage.map_bytes,
        bpf: bpf_measured.then_some(usage.run_time),
    })
}

/// The most memory that this program had at one time. `getrusage` would count what its process had
/// before it became this program: as much as whoever started it.
fn max_rss_bytes() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("cannot measure the memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.context("the kernel does not tell the most memory that was used")? * 1024)
}
