//! Executable mappings, told by the kernel as they are made.
#![expect(unsafe_code, reason = "a ring gives its descriptor only as a number")]

use std::{
    ffi::OsStr,
    fmt, io,
    os::{
        fd::{AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::PathBuf,
};

use aya::util::online_cpus;
use perf_event::{
    Builder, Clock, SampleFlag, Sampler,
    data::{Mmap2, Record},
    events::Software,
};
use rustix::event::epoll;

use crate::units::{Avma, FileOffset, Ktime, Pid};

/// Room for what is told on one CPU until it is taken: some 2,000 mappings.
const RING_BYTES: usize = 256 * 1024;

/// Every executable mapping that any process makes.
///
/// A dummy event on each CPU, which counts nothing: mappings are told beside it.
pub struct MadeMappings {
    rings: Vec<Sampler>,
}

impl fmt::Debug for MadeMappings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MadeMappings").field("rings", &self.rings.len()).finish()
    }
}

/// An executable mapping that was made, or became executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// When.
    pub at: Ktime,
    /// In which process.
    pub pid: Pid,
    /// First address.
    pub start: Avma,
    /// First address after it.
    pub end: Avma,
    /// Offset in the file of the first address.
    pub offset: FileOffset,
    /// The file's device, major and minor; on some file systems another than `maps` states.
    pub dev: (u32, u32),
    /// The file's inode, 0 for what is no file.
    pub inode: u64,
    /// The file, or the kernel's name for what is none.
    pub path: PathBuf,
}

impl MadeMappings {
    /// Begins to listen on each CPU, with a descriptor that is readable when there is something to
    /// take.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn listen() -> io::Result<(Self, OwnedFd)> {
        let cpus = online_cpus().map_err(|(_, error)| error)?;
        let readable = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut rings = Vec::with_capacity(cpus.len());
        for cpu in cpus {
            let ring = Builder::new(Software::DUMMY)
                .any_pid()
                .one_cpu(cpu as usize)
                .mmap(true)
                .mmap2(true)
                .sample(SampleFlag::TIME)
                .sample_id_all(true)
                .clockid(Clock::MONOTONIC)
                .wakeup_watermark(1)
                .enabled(true)
                .build()?
                .sampled(RING_BYTES)?;
            // SAFETY: the ring owns the descriptor and outlives the call.
            let descriptor = unsafe { BorrowedFd::borrow_raw(ring.as_raw_fd()) };
            epoll::add(
                &readable,
                descriptor,
                epoll::EventData::new_u64(cpu.into()),
                epoll::EventFlags::IN,
            )?;
            rings.push(ring);
        }
        Ok((Self { rings }, readable))
    }

    /// Takes everything that was told, of those processes; returns how many mappings, of any
    /// process, found no room.
    pub fn take(&mut self, of: impl Fn(Pid) -> bool, made: &mut Vec<Made>) -> u64 {
        let mut lost = 0;
        for ring in &mut self.rings {
            while let Some(record) = ring.next_record() {
                match record.parse_record() {
                    Ok(Record::Mmap2(mapping)) if of(Pid(mapping.pid)) => {
                        made.extend(
                            time_of(&record.to_contiguous()).map(|at| of_record(at, &mapping)),
                        );
                    }
                    Ok(Record::Lost(record)) => lost += record.lost,
                    _ => {}
                }
            }
        }
        lost
    }
}

/// The time is the one thing that was asked for behind each record.
fn time_of(record: &[u8]) -> Option<Ktime> {
    record.last_chunk().map(|time| Ktime(u64::from_ne_bytes(*time)))
}

fn of_record(at: Ktime, mapping: &Mmap2<'_>) -> Made {
    Made {
        at,
        pid: Pid(mapping.pid),
        start: Avma(mapping.addr),
        end: Avma(mapping.addr.saturating_add(mapping.len)),
        offset: FileOffset(mapping.pgoff),
        dev: (mapping.maj().unwrap_or(0), mapping.min().unwrap_or(0)),
        inode: mapping.ino().unwrap_or(0),
        path: PathBuf::from(OsStr::from_bytes(&mapping.filename)),
    }
}
