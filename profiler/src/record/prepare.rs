//! What is in the kernel before the window opens: the tables and mappings of the target.

use std::os::fd::OwnedFd;

use anyhow::{Context as _, Result};
use tokio::io::unix::AsyncFd;

use super::{Extent, collect::Collector};
use crate::{
    cache::TableCache,
    kernel::{MadeMappings, Probe, Programs, readiness},
    terminal::say,
    units::Pid,
};

/// Has the kernel side walk the stacks of these processes, unless those of one moment are
/// all that is wanted, and what maps code later told. The
/// descriptor is readable when there is something to hear, `None` if the kernel does not tell.
///
/// # Errors
/// If the maps of the kernel side are not there, or the recording cannot be written.
pub async fn prepare(
    probe: &Probe,
    programs: &mut Programs,
    collector: &mut Collector,
    processes: &[Pid],
    extent: Extent,
) -> Result<Option<AsyncFd<OwnedFd>>> {
    if probe.bpf_loop && extent == Extent::Window {
        collector.code.serve(programs.take_tables()?, TableCache::open());
    }
    // Before the first reading: what is mapped meanwhile is in it, or is told.
    let told = match MadeMappings::listen() {
        Ok((made, readable)) => {
            collector.code.listen(made);
            let readable = readiness::of_descriptor(readable);
            Some(readable.context("cannot wait for mappings that are made")?)
        }
        Err(error) => {
            say(&format!(
                "note: the kernel does not tell of mappings as they are made ({error}); libraries \
                 that are loaded from now on are found when a stack leads into them"
            ));
            None
        }
    };
    for &pid in processes {
        collector.refresh(pid, super::clock::now())?;
    }
    collector.code.settle().await;
    Ok(told)
}
