//! Appends facts to a recording without ever leaving it unreadable.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use thiserror::Error;
use zstd::{bulk::Compressor, zstd_safe::compress_bound};

use super::{
    super::{
        facts::{End, Interval, Names, Record},
        redact::Redaction,
    },
    BLOCK_BYTES, BlockHeader, MAX_RECORD_BYTES, file_header, give_to_invoker,
};
use crate::failure::Failure;

/// The smallest `--max-size`: half of it is kept for the end of the recording.
pub const MIN_LIMIT: u64 = 1 << 20;

/// Bytes of disk held beyond the last block, so that a disk that fills up leaves room to finish:
/// for one block of `BLOCK_BYTES` that does not compress, the totals of 5,000 threads (350 KB at
/// worst), the counters, and some names.
pub(super) const DISK_RESERVE: u64 = 1 << 20;

/// Bytes kept for the counters and the end once totals have taken their part.
const COUNTERS_ROOM: u64 = 4096;

/// Bytes kept for the end alone: a block header, a frame, and fewer than a hundred raw bytes.
const END_ROOM: u64 = 256;

/// zstd's own default: about 400 MB/s, far more than a recording brings.
const LEVEL: i32 = 3;

/// Why a record did not get into the recording. The recording stays readable whatever happens.
#[derive(Debug, Error)]
pub enum WriteError {
    /// `--max-size` leaves no room for this kind of record; those that finish it still fit.
    #[error(
        "the recording reached its limit of {limit} bytes; raise --max-size or record for less time"
    )]
    LimitReached {
        /// The limit in bytes.
        limit: u64,
    },
    /// The disk, or the user's quota of it, is full.
    #[error("no space left for {}; free some, or write to another disk with -o", .path.display())]
    Full {
        /// The recording.
        path: PathBuf,
    },
    /// Anything else.
    #[error("cannot write to {}", .path.display())]
    Io {
        /// The recording.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// A recording that is being written.
///
/// Room runs out in a fixed order, so that a recording cut short still adds up: first for
/// intervals that ended, then for stacks, names and the intervals open at the end, then for
/// totals, then for counters, never for the end.
pub struct Writer {
    path: PathBuf,
    disk: Box<dyn Disk + Send>,
    /// Takes out of each record what must not be read, where that was asked for.
    redaction: Option<Redaction>,
    compressor: Compressor<'static>,
    /// Encoded records that are in no block yet.
    raw: Vec<u8>,
    /// The block being written, header first.
    block: Vec<u8>,
    /// Length of the file: whole blocks only.
    bytes: u64,
    /// Where the disk space held for this file ends; `None` where the file system cannot hold any.
    held_to: Option<u64>,
    /// The file must not grow beyond this.
    end: u64,
    /// How much before `end` ordinary intervals stop.
    reserve: u64,
    full: Fullness,
    /// Ordinary intervals were refused: later ones are too, so that those kept are all up to an
    /// instant.
    intervals_over: bool,
}

/// What bounds the file.
#[derive(Clone, Copy)]
enum Fullness {
    /// Nothing, or the limit the user set.
    Limit,
    /// The disk.
    Disk,
}

/// A new file at `path`, in place of one that is there. A link that somebody else put there is
/// replaced, not followed: root would write, and give away, what it points at.
fn create(path: &Path) -> io::Result<File> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.is_file() || found.is_symlink() => fs::remove_file(path)?,
        Ok(_) => return File::options().write(true).open(path),
        Err(_) => {}
    }
    File::create_new(path)
}

impl Writer {
    /// Makes a recording at `path`, replacing what is there: the caller has asked about that.
    ///
    /// `limit` is in bytes. Less than [`MIN_LIMIT`] is a [`Failure::Usage`].
    pub fn create(path: &Path, limit: Option<u64>) -> anyhow::Result<Self> {
        if let Some(limit) = limit.filter(|&limit| limit < MIN_LIMIT) {
            return Err(Failure::Usage(format!(
                "--max-size of {limit} bytes is too small to hold a recording; \
                 give at least {MIN_LIMIT}"
            ))
            .into());
        }
        let file = create(path).with_context(|| format!("cannot create {}", path.display()))?;
        // A file that stays root's is still a recording, and `chown` names the way out.
        let _ = give_to_invoker(&file);
        let regular = file.metadata().is_ok_and(|found| found.is_file());
        Self::new(path, Box::new(file), limit).map_err(|error| {
            // An empty file would only be in the way of the next try.
            if regular {
                let _ = fs::remove_file(path);
            }
            error.into()
        })
    }

    pub(super) fn new(
        path: &Path,
        disk: Box<dyn Disk + Send>,
        limit: Option<u64>,
    ) -> Result<Self, WriteError> {
        let io = |source| WriteError::Io { path: path.to_owned(), source };
        let mut writer = Self {
            path: path.to_owned(),
            disk,
            redaction: None,
            compressor: Compressor::new(LEVEL).map_err(io)?,
            raw: Vec::with_capacity(2 * BLOCK_BYTES),
            block: Vec::new(),
            bytes: 0,
            held_to: Some(0),
            end: limit.unwrap_or(u64::MAX),
            reserve: limit.map_or(0, limit_reserve),
            full: Fullness::Limit,
            intervals_over: false,
        };
        writer.block.extend_from_slice(&file_header());
        writer.write_out()?;
        Ok(writer)
    }

    /// Takes out of every record from here on what a stranger must not read.
    pub fn redact(&mut self, redaction: Redaction) {
        self.redaction = Some(redaction);
    }

    /// Adds a record. It is on its way to the disk after the next [`Self::flush`].
    ///
    /// On an error this record is not in the recording; all that were accepted before are, unless
    /// the file system cannot hold space and filled up. A record with very many names is kept as
    /// several, of which the first ones may get in.
    pub fn append(&mut self, record: &Record) -> Result<(), WriteError> {
        let mut redacted = None;
        if let Some(redaction) = &mut self.redaction
            && matches!(record, Record::Session(_) | Record::Object(_))
        {
            redaction.record(redacted.insert(record.clone()));
        }
        let record = redacted.as_ref().unwrap_or(record);
        let ordinary = is_ordinary(record);
        if ordinary && self.intervals_over {
            return Err(self.no_room());
        }
        let start = self.raw.len();
        if let Err(error) = postcard::to_io(record, &mut self.raw).map(drop) {
            self.raw.truncate(start);
            return Err(self.io(io::Error::new(io::ErrorKind::InvalidInput, error)));
        }
        let added = self.raw.len() - start;
        if let Record::Names(Names { names }) = record
            && added > BLOCK_BYTES
            && names.len() > 1
        {
            self.raw.truncate(start);
            let piece = names.len().div_ceil(added / BLOCK_BYTES + 1);
            return names
                .chunks(piece)
                .try_for_each(|some| self.append(&Record::Names(Names { names: some.to_vec() })));
        }
        if added > MAX_RECORD_BYTES {
            self.raw.truncate(start);
            return Err(self.io(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a record of {added} bytes is larger than {MAX_RECORD_BYTES}"),
            )));
        }
        let ceiling = self.ceiling(record);
        if self.bytes + worst_block(self.raw.len()) > ceiling {
            // By the worst estimate there is no room. How much there is shows once what was
            // accepted before is written, and this record after it in a block of its own.
            let own = self.raw.split_off(start);
            self.flush()?;
            self.raw = own;
            let written = self.write_block(ceiling);
            self.intervals_over |= ordinary && written.is_err();
            return written;
        }
        if self.raw.len() >= BLOCK_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what was added so far as a block; a reader sees it from then on.
    ///
    /// An error means that records which were accepted are lost.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        self.write_block(self.end)
    }

    /// Ends the recording in good order.
    ///
    /// On an error the recording is unfinished, or lacks what was added after the last block, and
    /// still readable.
    pub fn finish(mut self, end: End) -> Result<(), WriteError> {
        let flushed = self.flush();
        let ended = self.append(&Record::End(end)).and_then(|()| self.flush());
        let trimmed = self.disk.truncate(self.bytes).map_err(|error| self.io(error));
        flushed.and(ended).and(trimmed)
    }

    /// Length of the file so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The length of the file up to which a record of this kind is accepted.
    fn ceiling(&self, record: &Record) -> u64 {
        let kept = match record {
            record if is_ordinary(record) => self.reserve,
            Record::Session(_)
            | Record::Thread(_)
            | Record::Module(_)
            | Record::Mapping(_)
            | Record::UserStack(_)
            | Record::KernelStack(_)
            | Record::Interval(_)
            | Record::OpenSince(_)
            | Record::Sampling(_)
            | Record::Sample(_)
            | Record::Object(_)
            | Record::Look(_)
            | Record::Waker(..)
            | Record::Woken(_)
            | Record::Futex(_)
            | Record::Reference(_)
            | Record::Search(_)
            | Record::Names(_)
            | Record::Nameless(_)
            | Record::StackCheck(_) => self.reserve / 2,
            Record::Totals(_) => COUNTERS_ROOM,
            Record::Counters(_) => END_ROOM,
            Record::End(_) => 0,
        };
        self.end.saturating_sub(kept)
    }

    /// Writes the records at hand as one block, or drops them if the file would outgrow `ceiling`.
    fn write_block(&mut self, ceiling: u64) -> Result<(), WriteError> {
        if self.raw.is_empty() {
            return Ok(());
        }
        self.block.clear();
        self.block.resize(BlockHeader::BYTES + compress_bound(self.raw.len()), 0);
        let packed = self
            .compressor
            .compress_to_buffer(&self.raw, &mut self.block[BlockHeader::BYTES..])
            .map_err(|error| self.io(error))?;
        self.block.truncate(BlockHeader::BYTES + packed);
        let header = BlockHeader {
            packed_bytes: packed as u32,
            raw_bytes: self.raw.len() as u32,
            crc: crc32fast::hash(&self.block[BlockHeader::BYTES..]),
        };
        self.block[..BlockHeader::BYTES].copy_from_slice(&header.encode());
        self.raw.clear();
        if self.bytes + self.block.len() as u64 > ceiling {
            return Err(self.no_room());
        }
        self.write_out()
    }

    /// Puts `block` at the end of the file, wholly or not at all.
    fn write_out(&mut self) -> Result<(), WriteError> {
        let grown = self.bytes + self.block.len() as u64;
        self.hold(grown.saturating_add(DISK_RESERVE).min(self.end));
        if grown > self.end {
            return Err(self.no_room());
        }
        match self.disk.write_at(&self.block, self.bytes) {
            Ok(()) => {
                self.bytes = grown;
                Ok(())
            }
            Err(error) => {
                self.disk.truncate(self.bytes).map_err(|error| self.io(error))?;
                if is_full(&error) {
                    self.full = Fullness::Disk;
                    self.intervals_over = true;
                    return Err(self.no_room());
                }
                Err(self.io(error))
            }
        }
    }

    /// Holds disk space up to `wanted`. If there is none, the recording ends within what it holds.
    fn hold(&mut self, wanted: u64) {
        let Some(held_to) = self.held_to.filter(|&held_to| held_to < wanted) else { return };
        match self.disk.hold(held_to, wanted) {
            Ok(()) => self.held_to = Some(wanted),
            Err(error) if is_full(&error) => {
                self.full = Fullness::Disk;
                self.end = held_to;
                self.reserve = DISK_RESERVE;
                self.intervals_over = true;
            }
            // Not every file system can. There, a full disk is found by the write that fails.
            Err(_) => self.held_to = None,
        }
    }

    fn no_room(&self) -> WriteError {
        match self.full {
            Fullness::Limit => WriteError::LimitReached { limit: self.end },
            Fullness::Disk => WriteError::Full { path: self.path.clone() },
        }
    }

    fn io(&self, source: io::Error) -> WriteError {
        WriteError::Io { path: self.path.clone(), source }
    }
}

/// Bytes of a limit that are kept for what finishes a recording: an eighth, so that the names of a
/// large service fit (2 MB for 20,000 inlined places), but not less than 5,000 threads' totals
/// need, nor more than names ever did.
fn limit_reserve(limit: u64) -> u64 {
    (limit / 8).clamp(MIN_LIMIT / 2, 16 << 20)
}

/// Length of the block that `raw` bytes make if they do not compress at all.
fn worst_block(raw: usize) -> u64 {
    (BlockHeader::BYTES + compress_bound(raw)) as u64
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// What a recording is written to.
pub(super) trait Disk {
    /// Writes all bytes at an offset.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Takes the disk space from `from` to `to` without changing the file's length.
    fn hold(&self, from: u64, to: u64) -> io::Result<()>;
    /// Cuts the file, and gives back what was held beyond.
    fn truncate(&self, length: u64) -> io::Result<()>;
}

impl Disk for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_all_at(bytes, offset)
    }

    fn hold(&self, from: u64, to: u64) -> io::Result<()> {
        let signed = |offset| i64::try_from(offset).map_err(|_| io::Error::from(Errno::EFBIG));
        let (from, length) = (signed(from)?, signed(to - from)?);
        Ok(fallocate(self, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, length)?)
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.set_len(length)
    }
}
/// Whether it is one of the many that make a recording long, of which there can be fewer.
fn is_ordinary(record: &Record) -> bool {
    matches!(record, Record::Interval(Interval { open_at_end: false, .. }) | Record::Sample(_))
}
