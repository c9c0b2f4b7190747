//! Reads a recording block by block, however it was cut short or damaged.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use anyhow::Context;
use thiserror::Error;
use zstd::bulk::Decompressor;

use super::{
    super::{
        facts::{Counters, Record, Session, ThreadTotals, Woken},
        lock::LockFacts,
        model::{Ending, Recording},
    },
    BlockHeader, FILE_HEADER_BYTES, MAGIC, VERSION,
    version1::Record1,
};
use crate::units::{Ktime, Pid, Tid};

/// Why a recording cannot be read (further). Each names the file and the byte offset.
#[derive(Debug, Error)]
pub enum ReadError {
    /// The file is something else.
    #[error(
        "{} is not a stallscope recording: byte 0 does not begin its signature; \
         recordings are what `stallscope record` writes as FILE.stall", .path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// The format is not one that this program knows.
    #[error(
        "{}: format version {version} at byte 8, and this stallscope reads up to {VERSION}; \
         read it with the stallscope that recorded it, or a newer one", .path.display()
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// The version it states.
        version: u32,
    },
    /// The file ends before its first record.
    #[error(
        "{} ends at byte {offset}, before its first record: the recorder was stopped before it \
         wrote anything; record again", .path.display()
    )]
    NoSession {
        /// The file.
        path: PathBuf,
        /// The first byte that is not part of a whole block.
        offset: u64,
    },
    /// A block is not what was written.
    #[error(
        "{} is corrupt at byte {offset}: {damage}; copy it again from where it was recorded, or \
         keep what comes before with `truncate -s {offset} {}`", .path.display(), .path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where the block begins.
        offset: u64,
        /// What is wrong with it.
        damage: Damage,
    },
    /// The system cannot read the file.
    #[error("cannot read {} at byte {offset}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// How far it was read.
        offset: u64,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Damage {
    /// Its header does not match the header's checksum.
    #[error("the header of a block does not match its checksum")]
    Header,
    /// Its header states a length that no block has.
    #[error("a block states a length that no block has")]
    Length,
    /// Its payload does not match the checksum.
    #[error("a block does not match its checksum")]
    Checksum,
    /// The payload matches the checksum and is not a zstd frame of the stated length.
    #[error("a block cannot be decompressed")]
    Frame,
    /// A whole block holds a record that this program does not know.
    #[error(
        "a block is whole, but its record of kind {kind} means nothing to this stallscope: \
         a newer one may have written it"
    )]
    Record {
        /// The number of its variant.
        kind: u32,
    },
    /// A block of a recording whose first record is another than its session.
    #[error("the session is not the first record")]
    SessionNotFirst,
    /// There is a second session.
    #[error("a second session begins")]
    SecondSession,
    /// Something follows the end.
    #[error("something follows the end of the recording")]
    AfterEnd,
}

/// Opens a recording and checks its header.
///
/// The records come one block at a time; no more than one block is in memory.
pub fn records(path: &Path) -> anyhow::Result<Records> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut records = Records {
        path: path.to_owned(),
        file: BufReader::with_capacity(1 << 20, file),
        decompressor: Decompressor::new().context("cannot start zstd")?,
        offset: 0,
        block_at: 0,
        packed: Vec::new(),
        raw: Vec::new(),
        at: 0,
        stage: Stage::Start,
        version: VERSION,
    };
    records.read_header()?;
    Ok(records)
}

/// Reads a whole recording.
///
/// A file that ends within a block, or without an `End`, is [`Ending::Unfinished`]; a damaged one
/// is an error.
pub fn read(path: &Path) -> anyhow::Result<Recording> {
    let mut records = records(path)?;
    let mut recording = match records.next().transpose()? {
        Some(Record::Session(session)) => empty(session),
        _ => unreachable!("the first record is a session or an error"),
    };
    let mut slots = HashMap::new();
    let mut woken = HashMap::new();
    for record in &mut records {
        match record? {
            Record::Session(_) => unreachable!("a second session is an error"),
            Record::Thread(thread) => recording.threads.push(thread),
            Record::Module(module) => {
                recording.modules.insert(module.id, module);
            }
            Record::Mapping(mapping) => recording.mappings.push(mapping),
            Record::UserStack(stack) => {
                recording.user_stacks.insert(stack.id, stack);
            }
            Record::KernelStack(stack) => {
                recording.kernel_stacks.insert(stack.id, stack);
            }
            Record::Interval(mut interval) => {
                let ended = woken.remove(&(interval.pid, interval.tid));
                interval.waker =
                    ended.filter(|by: &Woken| by.at == interval.wake).map(|by| by.waker);
                recording.intervals.push(interval);
            }
            Record::Waker(id, waker) => {
                recording.wakers.insert(id, waker);
            }
            Record::Woken(by) => {
                woken.insert((by.pid, by.tid), by);
            }
            Record::OpenSince(since) => recording.open_since.push(since),
            Record::Sampling(sampling) => recording.sampling = Some(sampling),
            Record::Sample(sample) => recording.samples.push(sample),
            Record::Totals(totals) => put_totals(&mut recording.totals, &mut slots, totals),
            Record::Counters(counters) => recording.counters = counters,
            Record::Names(names) => recording.names.extend(names.names),
            Record::Nameless(function) => recording.nameless.push(function),
            Record::StackCheck(check) => recording.stack_check = Some(check),
            Record::Object(object) => {
                recording.objects.insert(object.id, object);
            }
            Record::Look(look) => recording.looks.push(look),
            Record::Futex(futex) => recording.locks.futexes.push(futex),
            Record::Reference(reference) => recording.locks.references.push(reference),
            Record::Search(search) => recording.locks.searches.push(search),
            Record::End(end) => recording.ending = Ending::Finished(end),
        }
    }
    if let Ending::Unfinished { offset } = &mut recording.ending {
        *offset = records.offset();
    }
    // Each CPU hands over its own events in order, not all of them together.
    recording.threads.sort_by_key(|thread| thread.at);
    recording.mappings.sort_by_key(|mapping| mapping.at);
    recording.intervals.sort_by_key(|interval| interval.in_);
    recording.samples.sort_by_key(|sample| sample.at);
    recording.looks.sort_by_key(|look| look.at);
    Ok(recording)
}

fn empty(session: Session) -> Recording {
    Recording {
        session,
        threads: Vec::new(),
        modules: HashMap::new(),
        mappings: Vec::new(),
        user_stacks: HashMap::new(),
        kernel_stacks: HashMap::new(),
        intervals: Vec::new(),
        totals: Vec::new(),
        counters: Counters::default(),
        names: HashMap::new(),
        open_since: Vec::new(),
        sampling: None,
        samples: Vec::new(),
        nameless: Vec::new(),
        stack_check: None,
        objects: HashMap::new(),
        looks: Vec::new(),
        wakers: HashMap::new(),
        locks: LockFacts::default(),
        ending: Ending::Unfinished { offset: 0 },
    }
}

/// Later totals of a thread replace earlier ones. The kernel gives a thread's id to another once
/// it is free; what tells the two apart is when they began.
fn put_totals(
    all: &mut Vec<ThreadTotals>,
    slots: &mut HashMap<(Pid, Tid, Ktime), usize>,
    totals: ThreadTotals,
) {
    let slot = *slots.entry((totals.pid, totals.tid, totals.from)).or_insert(all.len());
    match all.get_mut(slot) {
        Some(earlier) => *earlier = totals,
        None => all.push(totals),
    }
}

/// The records of a file, in order. After an error there are none.
///
/// The first is the session. If the last is not an `End`, the recording is unfinished.
pub struct Records {
    path: PathBuf,
    file: BufReader<File>,
    decompressor: Decompressor<'static>,
    /// Where the next block begins.
    offset: u64,
    /// Where the block at hand began.
    block_at: u64,
    packed: Vec<u8>,
    raw: Vec<u8>,
    /// How much of `raw` was decoded.
    at: usize,
    stage: Stage,
    /// Which format the records have.
    version: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Before the session.
    Start,
    /// Between the session and the end.
    Body,
    /// After the end.
    Ended,
    /// Nothing more comes.
    Over,
}

impl Records {
    /// The first byte that is not part of a whole block, as far as the file was read.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    fn read_header(&mut self) -> Result<(), ReadError> {
        let mut header = [0; FILE_HEADER_BYTES];
        let length = self.fill(&mut header)?;
        let magic = length.min(MAGIC.len());
        if header[..magic] != MAGIC[..magic] {
            return Err(ReadError::Foreign { path: self.path.clone() });
        }
        if length < FILE_HEADER_BYTES {
            return Err(self.no_session());
        }
        self.offset = FILE_HEADER_BYTES as u64;
        let version = header[MAGIC.len()..].try_into().expect("the version is four bytes");
        self.version = u32::from_le_bytes(version);
        match self.version {
            1..=VERSION => Ok(()),
            version => Err(ReadError::Version { path: self.path.clone(), version }),
        }
    }

    fn next_record(&mut self) -> Result<Option<Record>, ReadError> {
        if self.at == self.raw.len() && !self.next_block()? {
            return match self.stage {
                Stage::Start => Err(self.no_session()),
                Stage::Body | Stage::Ended | Stage::Over => Ok(None),
            };
        }
        let rest = &self.raw[self.at..];
        let decoded = match self.version {
            1 => postcard::take_from_bytes::<Record1>(rest)
                .map(|(record, after)| (Record::from(record), after)),
            _ => postcard::take_from_bytes::<Record>(rest),
        };
        let Ok((record, after)) = decoded else {
            let kind = postcard::take_from_bytes(rest).map_or(u32::MAX, |(kind, _)| kind);
            return Err(self.corrupt(Damage::Record { kind }));
        };
        self.at = self.raw.len() - after.len();
        self.stage = match (self.stage, &record) {
            (Stage::Start, Record::Session(_)) => Stage::Body,
            (Stage::Start, _) => return Err(self.corrupt(Damage::SessionNotFirst)),
            (Stage::Body, Record::Session(_)) => return Err(self.corrupt(Damage::SecondSession)),
            (Stage::Body, Record::End(_)) => Stage::Ended,
            (Stage::Body, _) => Stage::Body,
            (Stage::Ended | Stage::Over, _) => return Err(self.corrupt(Damage::AfterEnd)),
        };
        Ok(Some(record))
    }

    /// Decompresses the next block into `raw`; false if the file has no further whole block.
    fn next_block(&mut self) -> Result<bool, ReadError> {
        self.block_at = self.offset;
        let mut header = [0; BlockHeader::BYTES];
        let length = self.fill(&mut header)?;
        if length > 0 && self.stage == Stage::Ended {
            return Err(self.corrupt(Damage::AfterEnd));
        }
        if length < BlockHeader::BYTES {
            return Ok(false);
        }
        let BlockHeader { packed_bytes, raw_bytes, crc } =
            BlockHeader::decode(header).map_err(|damage| self.corrupt(damage))?;
        self.packed.clear();
        // Grows by what the file has, not by what the header says.
        let read = self.file.by_ref().take(packed_bytes.into()).read_to_end(&mut self.packed);
        if read.map_err(|error| self.io(error))? < packed_bytes as usize {
            return Ok(false);
        }
        if crc32fast::hash(&self.packed) != crc {
            return Err(self.corrupt(Damage::Checksum));
        }
        self.raw.clear();
        self.raw.reserve(raw_bytes as usize);
        self.at = 0;
        match self.decompressor.decompress_to_buffer(&self.packed, &mut self.raw) {
            Ok(length) if length == raw_bytes as usize => {}
            _ => return Err(self.corrupt(Damage::Frame)),
        }
        self.offset += BlockHeader::BYTES as u64 + u64::from(packed_bytes);
        Ok(true)
    }

    /// Reads until `buffer` is full or the file ends.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize, ReadError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.io(error)),
            }
        }
        Ok(filled)
    }

    fn corrupt(&self, damage: Damage) -> ReadError {
        ReadError::Corrupt { path: self.path.clone(), offset: self.block_at, damage }
    }

    fn no_session(&self) -> ReadError {
        ReadError::NoSession { path: self.path.clone(), offset: self.offset }
    }

    fn io(&self, source: io::Error) -> ReadError {
        ReadError::Io { path: self.path.clone(), offset: self.offset, source }
    }
}

impl Iterator for Records {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.stage == Stage::Over {
            return None;
        }
        let next = self.next_record().transpose();
        if !matches!(next, Some(Ok(_))) {
            self.stage = Stage::Over;
        }
        next
    }
}
