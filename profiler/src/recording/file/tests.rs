#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod damage;
mod room;
mod sample;

use std::{collections::BTreeSet, path::Path};

use sample::{
    all_kinds, all_kinds_of_version_1, all_kinds_of_version_2, all_kinds_of_version_3, end,
    interval, session, totals,
};

use super::{VERSION, Writer, read, records};
use crate::{
    recording::{
        facts::{Counters, Record},
        model::Ending,
    },
    units::Nanos,
};

/// Writes blocks of records, and an end if the last block holds one.
fn write(path: &Path, blocks: &[Vec<Record>]) {
    let mut writer = Writer::create(path, None).unwrap();
    for block in blocks {
        for record in block {
            writer.append(record).unwrap();
        }
        writer.flush().unwrap();
    }
    let bytes = writer.bytes();
    drop(writer);
    // What `finish` does to the space that was held.
    std::fs::File::options().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

fn read_all(path: &Path) -> Vec<Record> {
    records(path).unwrap().map(Result::unwrap).collect()
}

/// Files of every version of this format, kept for good: they must stay readable. `BLESS=1` writes
/// that of the present one anew, which is right only before it is released.
#[test]
fn files_of_every_version_stay_readable() {
    let path = |version: u32| {
        let name = format!("tests/recordings/every-kind.v{version}.stall");
        Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
    };
    if std::env::var_os("BLESS").is_some() {
        let records = all_kinds();
        let (before, after) = records.split_at(4);
        write(&path(VERSION), &[before.to_vec(), after.to_vec()]);
    }
    let check = |version: u32, expected: &[Record]| {
        let bytes = std::fs::read(path(version)).unwrap();
        assert_eq!(bytes[..12], [&b"\x89STALL\r\n"[..], &version.to_le_bytes()].concat());
        assert_eq!(read_all(&path(version)), expected);
    };
    check(1, &all_kinds_of_version_1());
    check(2, &all_kinds_of_version_2());
    check(3, &all_kinds_of_version_3());
    check(4, &all_kinds());
}

#[test]
fn what_is_flushed_can_be_read_while_the_writer_lives() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("live.stall");
    let mut writer = Writer::create(&path, None).unwrap();
    writer.append(&session()).unwrap();
    writer.append(&interval(1)).unwrap();
    writer.flush().unwrap();
    writer.append(&interval(2)).unwrap();

    let unfinished = read(&path).unwrap();
    assert_eq!(unfinished.intervals.len(), 1);
    assert_eq!(unfinished.ending, Ending::Unfinished { offset: writer.bytes() });

    let Record::End(end) = end() else { unreachable!() };
    writer.finish(end.clone()).unwrap();
    let finished = read(&path).unwrap();
    assert_eq!(finished.intervals.len(), 2);
    assert_eq!(finished.ending, Ending::Finished(end));
}

#[test]
fn a_long_recording_is_many_blocks_and_comes_back_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("long.stall");
    let sent: Vec<_> =
        std::iter::once(session()).chain((0..20_000).map(interval)).chain([end()]).collect();
    write(&path, std::slice::from_ref(&sent));
    assert_eq!(read_all(&path), sent);
    let mut block_ends = BTreeSet::new();
    let mut walk = records(&path).unwrap();
    while walk.next().is_some() {
        block_ends.insert(walk.offset());
    }
    assert!(block_ends.len() > 3, "{block_ends:?}");
    // Written by several CPUs, the same records are not in order; the model is.
    let mut shuffled = sent.clone();
    shuffled[1..20_001].reverse();
    write(&path, &[shuffled]);
    let intervals = read(&path).unwrap().intervals;
    assert!(intervals.is_sorted_by_key(|interval| interval.in_) && intervals.len() == 20_000);
}

#[test]
fn later_totals_and_counters_replace_earlier_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("totals.stall");
    let counters =
        |n| Record::Counters(Counters([("intervals_dropped".to_owned(), n)].into_iter().collect()));
    // Thread 8 ended, and its number was given to another at 500.
    let blocks = vec![
        vec![session(), totals(7, 0, 10), totals(8, 0, 20), counters(1)],
        vec![totals(8, 500, 30), totals(7, 0, 40), counters(2)],
    ];
    write(&path, &blocks);
    let recording = read(&path).unwrap();
    let kept: Vec<_> = recording.totals.iter().map(|t| (t.tid.0, t.from.0, t.running)).collect();
    assert_eq!(kept, [(7, 0, Nanos(40)), (8, 0, Nanos(20)), (8, 500, Nanos(30))]);
    assert_eq!(recording.counters.0["intervals_dropped"], 2);
}
