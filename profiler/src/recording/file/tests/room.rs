//! What a recording keeps when its room runs out.

use std::{
    fs::File,
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    read_all,
    sample::{end, interval, names, open_interval, session, totals},
};
use crate::{
    failure::Failure,
    recording::{
        facts::{Counters, Record},
        file::{
            MIN_LIMIT, WriteError, Writer, read,
            writer::{DISK_RESERVE, Disk},
        },
        model::Ending,
    },
};

/// A disk of so many bytes, which can hold space or cannot.
struct SmallDisk {
    file: File,
    room: Arc<AtomicU64>,
    holds: bool,
}

impl Disk for SmallDisk {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let room = self.room.load(Ordering::Relaxed);
        let fits = room.saturating_sub(offset).min(bytes.len() as u64) as usize;
        self.file.write_at(&bytes[..fits], offset)?;
        if fits < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn hold(&self, _: u64, to: u64) -> io::Result<()> {
        if !self.holds {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let room = self.room.load(Ordering::Relaxed);
        if to > room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn truncate(&self, length: u64) -> io::Result<()> {
        self.file.set_len(length)
    }
}

/// Appends intervals until one is refused: how many got in, and why no more did. Their registers
/// are noise, so that they compress badly.
fn fill(writer: &mut Writer) -> (u64, WriteError) {
    writer.append(&session()).unwrap();
    for n in 0_u64.. {
        let noisy = interval(n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24);
        if let Err(error) = writer.append(&noisy) {
            return (n, error);
        }
    }
    unreachable!()
}

/// What ends a recording of 5,000 threads.
fn closing() -> Vec<Record> {
    let counters = Record::Counters(Counters([("stacks_broken".to_owned(), 1)].into()));
    let noise = |n: u64| n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 24;
    (0..5000)
        .map(|tid| totals(tid, noise(tid.into()), noise(u64::from(tid) + 5000)))
        .chain([counters])
        .collect()
}

fn finish(mut writer: Writer) -> Result<(), WriteError> {
    for record in closing() {
        writer.append(&record)?;
    }
    let Record::End(end) = end() else { unreachable!() };
    writer.finish(end)
}

fn check_finished(path: &Path, accepted: u64) {
    let recording = read(path).unwrap();
    assert_eq!(recording.intervals.len() as u64, accepted);
    assert_eq!(recording.totals.len(), 5000);
    assert_eq!(recording.counters.0["stacks_broken"], 1);
    assert!(matches!(recording.ending, Ending::Finished(_)));
}

#[test]
fn a_limit_keeps_room_to_finish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("limit.stall");
    let limit = MIN_LIMIT;
    let mut writer = Writer::create(&path, Some(limit)).unwrap();
    let (accepted, error) = fill(&mut writer);
    assert!(matches!(error, WriteError::LimitReached { limit } if limit == MIN_LIMIT));
    assert!(writer.bytes() > limit / 2 - 1000, "{} bytes", writer.bytes());
    // A later interval that would fit is refused too; one that is open at the end is not.
    assert!(writer.append(&interval(0)).is_err());
    writer.append(&open_interval(0)).unwrap();
    finish(writer).unwrap();
    check_finished(&path, accepted + 1);
    assert!(std::fs::metadata(&path).unwrap().len() <= limit);
}

#[test]
fn names_do_not_take_the_room_of_totals() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("names.stall");
    let mut writer = Writer::create(&path, Some(MIN_LIMIT)).unwrap();
    let (accepted, _) = fill(&mut writer);
    let refused = (0..1000).find_map(|_| writer.append(&names(10_000)).err());
    assert!(matches!(refused, Some(WriteError::LimitReached { .. })));
    finish(writer).unwrap();
    check_finished(&path, accepted);
    assert!(!read(&path).unwrap().names.is_empty());
}

#[test]
fn a_limit_too_small_is_wrong_usage() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("none.stall");
    let error = Writer::create(&path, Some(MIN_LIMIT - 1)).err().unwrap();
    assert!(matches!(error.downcast_ref(), Some(Failure::Usage(_))));
    assert!(!path.exists());
}

#[test]
fn a_disk_that_fills_up_leaves_room_to_finish() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk.stall");
    let room = Arc::new(AtomicU64::new(3 << 20));
    let disk = SmallDisk { file: File::create(&path).unwrap(), room, holds: true };
    let mut writer = Writer::new(&path, Box::new(disk), None).unwrap();
    let (accepted, error) = fill(&mut writer);
    assert!(matches!(error, WriteError::Full { .. }));
    assert!(writer.bytes() > (3 << 20) - 2 * DISK_RESERVE, "{} bytes", writer.bytes());
    finish(writer).unwrap();
    check_finished(&path, accepted);
}

#[test]
fn a_full_disk_that_cannot_hold_space_leaves_whole_blocks() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("full.stall");
    let room = Arc::new(AtomicU64::new(1 << 20));
    let disk = SmallDisk { file: File::create(&path).unwrap(), room: room.clone(), holds: false };
    let mut writer = Writer::new(&path, Box::new(disk), None).unwrap();
    let (accepted, error) = fill(&mut writer);
    assert!(matches!(error, WriteError::Full { .. }));
    assert_eq!(std::fs::metadata(&path).unwrap().len(), writer.bytes());
    let kept = read(&path).unwrap();
    assert_eq!(kept.ending, Ending::Unfinished { offset: writer.bytes() });
    assert!((1..accepted).contains(&(kept.intervals.len() as u64)));
    // Nothing more fits: finishing gives up, and what was whole stays whole.
    room.store(writer.bytes() + 10, Ordering::Relaxed);
    let before = read_all(&path);
    assert!(finish(writer).is_err());
    assert_eq!(read_all(&path), before);
}

#[test]
fn a_disk_without_room_for_an_end_is_not_begun_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tiny.stall");
    let room = Arc::new(AtomicU64::new(DISK_RESERVE));
    let disk = SmallDisk { file: File::create(&path).unwrap(), room, holds: true };
    let error = Writer::new(&path, Box::new(disk), None).err().unwrap();
    assert!(matches!(error, WriteError::Full { .. }));
}

#[test]
fn a_record_larger_than_a_block_is_kept_whole_and_names_are_split() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("large.stall");
    let Record::Session(mut large) = session() else { unreachable!() };
    large.target.command = vec!["x".repeat(6 << 20)];
    let mut writer = Writer::create(&path, None).unwrap();
    writer.append(&Record::Session(large.clone())).unwrap();
    writer.append(&names(100_000)).unwrap();
    writer.flush().unwrap();
    let recording = read(&path).unwrap();
    assert_eq!((recording.session, recording.names.len()), (large.clone(), 100_000));
    let pieces = read_all(&path).iter().filter(|r| matches!(r, Record::Names(_))).count();
    assert!(pieces > 10, "{pieces} records of names");

    large.target.command = vec!["x".repeat(17 << 20)];
    assert!(matches!(writer.append(&Record::Session(large)), Err(WriteError::Io { .. })));
    writer.append(&interval(1)).unwrap();
    writer.flush().unwrap();
    assert_eq!(read(&path).unwrap().intervals.len(), 1);
}
