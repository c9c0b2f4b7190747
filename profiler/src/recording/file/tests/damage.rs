//! What a file that was cut, changed or is another gives: records or an error, never a panic.

use std::path::Path;

use super::{
    read_all,
    sample::{all_kinds, end, interval, session},
    write,
};
use crate::recording::{
    facts::Record,
    file::{BlockHeader, Damage, ReadError, VERSION, file_header, read, records},
    model::Ending,
};

/// A finished recording of three blocks, and where each block ends.
fn small(path: &Path) -> (Vec<u8>, Vec<u64>) {
    let records = all_kinds();
    let blocks = [records[..4].to_vec(), records[4..9].to_vec(), records[9..].to_vec()];
    let ends = (1..=3)
        .map(|n| {
            write(path, &blocks[..n]);
            std::fs::metadata(path).unwrap().len()
        })
        .collect();
    (std::fs::read(path).unwrap(), ends)
}

fn error_of(path: &Path) -> ReadError {
    match read(path) {
        Ok(_) => panic!("{} was read", path.display()),
        Err(error) => error.downcast().unwrap(),
    }
}

/// One block around a payload, its checksums right.
fn block(payload: &[u8], raw_bytes: u32) -> Vec<u8> {
    let crc = crc32fast::hash(payload);
    let header = BlockHeader { packed_bytes: payload.len() as u32, raw_bytes, crc };
    [header.encode().as_slice(), payload].concat()
}

fn block_of(records: &[Record]) -> Vec<u8> {
    let raw: Vec<u8> = records.iter().flat_map(|r| postcard::to_stdvec(r).unwrap()).collect();
    raw_block(&raw)
}

fn raw_block(raw: &[u8]) -> Vec<u8> {
    block(&zstd::bulk::compress(raw, 3).unwrap(), raw.len() as u32)
}

#[test]
fn a_file_cut_anywhere_is_unfinished_from_its_first_block_on() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.stall");
    let (whole, ends) = small(&path);
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let last_whole = ends.iter().rev().find(|&&end| end <= length as u64);
        match (last_whole, read(&path)) {
            (Some(&end), Ok(recording)) => {
                assert_eq!(recording.ending, Ending::Unfinished { offset: end }, "at {length}");
            }
            (None, Err(error)) => {
                let expected = if length < 12 { 0 } else { 12 };
                match error.downcast_ref() {
                    Some(ReadError::NoSession { offset, .. }) => assert_eq!(*offset, expected),
                    _ => panic!("at {length}: {error:#}"),
                }
            }
            (_, read) => panic!("at {length}: {read:?}"),
        }
    }
}

#[test]
fn no_changed_byte_goes_unnoticed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("flipped.stall");
    let (whole, ends) = small(&path);
    let kept = read_all(&path);
    for at in 0..whole.len() {
        // None of them makes of this version another one that can be read.
        for mask in [0x04, 0x80, 0xff] {
            let mut flipped = whole.clone();
            flipped[at] ^= mask;
            std::fs::write(&path, &flipped).unwrap();
            if flipped[8..12] == 2_u32.to_le_bytes() {
                // Version 3 only has one kind of record more.
                assert_eq!(read_all(&path), kept);
                continue;
            }
            let begin = std::iter::once(12).chain(ends.clone());
            let begin = begin.rev().find(|&begin| begin <= at as u64);
            match (begin, error_of(&path)) {
                (None, ReadError::Foreign { .. }) if at < 8 => {}
                (None, ReadError::Version { version, .. }) if at >= 8 => {
                    assert_ne!(version, VERSION);
                }
                (Some(begin), ReadError::Corrupt { offset, .. }) => assert_eq!(offset, begin),
                (_, error) => panic!("byte {at}: {error:#}"),
            }
        }
    }
}

#[test]
fn what_precedes_a_damaged_block_is_read_and_nothing_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("middle.stall");
    let (mut whole, ends) = small(&path);
    whole[ends[0] as usize + BlockHeader::BYTES] ^= 1;
    std::fs::write(&path, &whole).unwrap();
    let read: Vec<_> = records(&path).unwrap().collect();
    assert_eq!(read.iter().filter(|record| record.is_ok()).count(), 4);
    assert!(matches!(
        read[4..],
        [Err(ReadError::Corrupt { offset, damage: Damage::Checksum, .. })] if offset == ends[0]
    ));
    // What the message advises.
    whole.truncate(ends[0] as usize);
    std::fs::write(&path, &whole).unwrap();
    assert_eq!(records(&path).unwrap().flatten().count(), 4);
}

#[test]
fn blocks_that_are_whole_and_wrong_are_damage() {
    let check = |blocks: &[Vec<u8>], at: usize, expected: Damage| {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("wrong.stall");
        std::fs::write(&path, [file_header().to_vec(), blocks.concat()].concat()).unwrap();
        let block_at = (12 + blocks[..at].concat().len()) as u64;
        match error_of(&path) {
            ReadError::Corrupt { offset, damage, .. } => {
                assert_eq!((offset, damage), (block_at, expected));
            }
            error => panic!("{error:#}"),
        }
    };
    let first = || block_of(&[session()]);
    let frame = zstd::bulk::compress(&[7; 100], 3).unwrap();
    check(&[block_of(&[interval(1)])], 0, Damage::SessionNotFirst);
    check(&[first(), first()], 1, Damage::SecondSession);
    check(&[first(), block_of(&[end()]), b"x".to_vec()], 2, Damage::AfterEnd);
    check(&[first(), block_of(&[end(), interval(1)])], 1, Damage::AfterEnd);
    check(&[first(), block(&frame, 99)], 1, Damage::Frame);
    check(&[first(), block(&frame, 101)], 1, Damage::Frame);
    check(&[first(), block(b"no zstd frame", 13)], 1, Damage::Frame);
    check(&[first(), block(&frame, 0)], 1, Damage::Length);
    check(&[first(), block(&frame, u32::MAX)], 1, Damage::Length);
    check(&[first(), block(b"", 1)], 1, Damage::Length);
    // A kind of a newer program; then a vector that claims to be longer than memory.
    check(&[first(), raw_block(&[99, 1, 2])], 1, Damage::Record { kind: 99 });
    let endless = [&[5, 1][..], &[0xff; 9][..], &[1]].concat();
    check(&[first(), raw_block(&endless)], 1, Damage::Record { kind: 5 });
    check(
        &[first(), raw_block(&postcard::to_stdvec(&interval(1)).unwrap()[..9])],
        1,
        Damage::Record { kind: 6 },
    );
}

#[test]
fn garbage_is_an_error_at_every_depth() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("garbage.stall");
    let mut seed = 0x9e37_79b9_7f4a_7c15_u64;
    let mut noise = |length: usize| -> Vec<u8> {
        std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        })
        .take(length)
        .collect()
    };
    for round in 0..200 {
        let (header, first) = (file_header().to_vec(), block_of(&[session()]));
        let bytes = noise(round + 16);
        let raw_bytes = bytes.len() as u32;
        let files = [
            bytes.clone(),
            [header.clone(), bytes.clone()].concat(),
            [header.clone(), first.clone(), bytes.clone()].concat(),
            [header.clone(), first.clone(), block(&bytes, raw_bytes)].concat(),
            [header, first, raw_block(&bytes)].concat(),
        ];
        for (depth, file) in files.iter().enumerate() {
            std::fs::write(&path, file).unwrap();
            match read(&path) {
                Err(error) => assert!(error.is::<ReadError>(), "depth {depth}: {error:#}"),
                // By chance, noise is records: then it is no end, and nothing is made up.
                Ok(recording) => assert!(matches!(recording.ending, Ending::Unfinished { .. })),
            }
        }
    }
}
