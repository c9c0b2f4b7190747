#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::path::PathBuf;

use super::*;
use crate::{
    target::MappingKind,
    units::{FileOffset, Svma},
};

const A: u64 = 11;
const B: u64 = 22;
const MEMORY: u64 = 0;

/// A mapping of the file with that inode at an address, as `maps` tells it.
fn mapping(inode: u64, start: u64, end: u64) -> ExecMapping {
    ExecMapping {
        start: Avma(start),
        end: Avma(end),
        offset: FileOffset(0x1000),
        path: PathBuf::from(format!("/lib/{inode}")),
        deleted: false,
        inode,
        dev: (8, 1),
        kind: if inode == 0 { MappingKind::Anonymous } else { MappingKind::File },
    }
}

/// The same, as it is heard of when it is made.
fn made(at: u64, inode: u64, start: u64, end: u64) -> Made {
    let ExecMapping { start, end, offset, path, inode, dev, .. } = mapping(inode, start, end);
    Made { at: Ktime(at), pid: Pid(1), start, end, offset, dev, inode, path }
}

fn generation(number: u32, read_at: u64, mappings: &[ExecMapping]) -> Generation {
    let mapped = |mapping: &ExecMapping| Mapped {
        bias: mapping.start.0 - mapping.offset.0,
        module: (mapping.inode != 0).then_some(ModuleId(mapping.inode as u32)),
        mapping: mapping.clone(),
    };
    let mapped = mappings.iter().map(mapped).collect();
    Generation { number, read_at: Ktime(read_at), mapped }
}

/// Program at 0x1000, a library at 0x5000, generated code at 0x9000.
fn plain(number: u32, read_at: u64) -> Generation {
    let mappings =
        [mapping(A, 0x1000, 0x3000), mapping(B, 0x5000, 0x7000), mapping(MEMORY, 0x9000, 0xa000)];
    generation(number, read_at, &mappings)
}

#[test]
fn frames_are_placed_by_what_was_mapped_there() {
    let generation = plain(1, 0);
    let check = |entry: u64, index: usize, address: CodeAddress, kind: FrameKind| {
        let (at, found) = frame(entry, index, FrameKind::InstructionPointer);
        assert_eq!(generation.place(at, found), RawFrame { address, kind });
    };
    let module =
        |inode: u64, address: u64| CodeAddress::Module(ModuleId(inode as u32), Svma(address));
    check(0x1010, 0, module(A, 0x1010), FrameKind::InstructionPointer);
    check(0x5010, 1, module(B, 0x1010), FrameKind::ReturnAddress);
    check(0x5000 | INTERRUPTED, 1, module(B, 0x1000), FrameKind::InstructionPointer);
    // A call that was the last instruction of a mapping, and one before the first.
    check(0x7000, 1, module(B, 0x3000), FrameKind::ReturnAddress);
    check(0x5000, 1, CodeAddress::Memory(Avma(0x5000)), FrameKind::ReturnAddress);
    check(0x9010, 1, CodeAddress::Memory(Avma(0x9010)), FrameKind::ReturnAddress);
}

#[test]
fn a_walk_through_a_mapping_that_had_been_replaced_is_in_doubt() {
    // read at 100                captured at 200
    //   |---------- made ----------|
    let frames = [0x1010, 0x5010, 0x9010];
    let check = |made: &[Made], expected: Option<usize>| {
        let mut history = History::default();
        history.begin(plain(1, 100), Ktime(101), Ktime(0));
        for made in made {
            history.note(made.clone());
        }
        let generation = history.get(1).unwrap();
        let frames = frames
            .iter()
            .enumerate()
            .map(|(index, &entry)| frame(entry, index, FrameKind::ReturnAddress));
        let found = history.first_in_doubt(generation, frames, Ktime(200));
        assert_eq!(found, expected, "{made:?}");
        if expected.is_some() {
            assert!(!history.is_quiet(generation, Ktime(200)));
        }
    };
    check(&[], None);
    // Another library in its place, or over its end.
    check(&[made(150, 33, 0x5000, 0x7000)], Some(1));
    check(&[made(150, 33, 0x6000, 0x8000)], Some(1));
    check(&[made(150, MEMORY, 0x5000, 0x6000)], Some(1));
    check(&[made(150, 33, 0x9000, 0xa000)], Some(2));
    check(&[made(150, 33, 0x9000, 0xa000), made(160, 33, 0x1000, 0x3000)], Some(0));
    // Where no frame lies; before the reading, which saw it; after the capture.
    check(&[made(150, 33, 0x7000, 0x9000)], None);
    check(&[made(99, 33, 0x5000, 0x7000)], None);
    check(&[made(200, 33, 0x5000, 0x7000)], None);
    // The same file at the same place, all of it or a part, or more of it.
    check(&[made(150, B, 0x5000, 0x7000)], None);
    check(&[made(150, B, 0x5000, 0x8000)], None);
    // The same file, moved.
    check(&[made(150, B, 0x4000, 0x7000)], Some(1));
    // More generated code.
    check(&[made(150, MEMORY, 0x9000, 0xf000)], None);
    // A file system that tells `maps` another device.
    check(&[Made { dev: (0, 40), inode: 7, ..made(150, B, 0x5000, 0x7000) }], None);
    // A new file at the same path.
    check(&[Made { inode: 7, ..made(150, B, 0x5000, 0x7000) }], Some(1));
}

#[test]
fn a_walk_by_mappings_younger_than_the_stack_is_in_doubt_where_they_are_others() {
    // read at 100: A, B   captured   read at 200: A, another
    let mut history = History::default();
    history.begin(plain(1, 100), Ktime(101), Ktime(0));
    let later = [mapping(A, 0x1000, 0x3000), mapping(33, 0x5000, 0x7000)];
    history.begin(generation(2, 200, &later), Ktime(201), Ktime(0));
    let check = |captured: u64, expected: Option<usize>| {
        let frames = [0x1010, 0x5010].map(|at| (Avma(at), FrameKind::ReturnAddress));
        assert_eq!(history.first_replaced(frames, Ktime(captured)), expected, "{captured}");
    };
    check(150, Some(1));
    check(200, None);
    // Nobody knows what was mapped then.
    check(50, None);
}

#[test]
fn a_mapping_that_is_known_is_no_news() {
    let check = |made: Made, expected: News| {
        let mut history = History::default();
        history.begin(plain(1, 100), Ktime(101), Ktime(0));
        assert_eq!(history.note(made.clone()), expected, "{made:?}");
        assert_eq!(history.is_outdated(), expected != News::None && made.at >= Ktime(100));
    };
    check(made(150, B, 0x5000, 0x7000), News::None);
    check(made(150, MEMORY, 0x9000, 0x9800), News::None);
    check(made(150, B, 0x5000, 0x8000), News::Addition);
    check(made(150, 33, 0xb000, 0xc000), News::Addition);
    check(made(50, 33, 0xb000, 0xc000), News::Addition);
    check(made(150, 33, 0x5000, 0x7000), News::Replacement);
    check(made(150, 33, 0x2000, 0x9000), News::Replacement);
}

#[test]
fn generations_stay_while_records_may_name_them() {
    let mut history = History::default();
    let begin = |history: &mut History, number: u32, taken_until: u64| {
        let at = u64::from(number) * 10;
        history.begin(plain(number, at), Ktime(at), Ktime(taken_until))
    };
    let last = KEPT as u32 + 1;
    for number in 1..=last {
        assert_eq!(begin(&mut history, number, u64::MAX), Vec::<u32>::new());
    }
    history.note(made(15, 33, 0x5000, 0x7000));
    history.note(made(25, 33, 0x5000, 0x7000));
    // The first one was replaced at 20, and records from before are still to come.
    assert_eq!(begin(&mut history, last + 1, 20), Vec::<u32>::new());
    assert!(history.get(1).is_some() && history.get(last + 1).is_some());
    assert_eq!(begin(&mut history, last + 2, 31), [1, 2]);
    assert!(history.get(2).is_none() && history.get(3).is_some());
    // What was made before the oldest was read is of no use to any.
    assert!(history.made.is_empty());
    assert_eq!(history.numbers().count(), KEPT + 1);
}

//  100 (read)   200 (heard of all)   250        300 (something was not heard of)   400 (read)
#[test]
fn what_was_not_heard_of_may_have_replaced_anything() {
    let mut history = History::default();
    history.begin(plain(1, 100), Ktime(110), Ktime(0));
    history.doubt_everything(Ktime(200));
    let frame = [(Avma(0x5010), FrameKind::InstructionPointer)];
    let check = |history: &History, number: u32, captured: u64, expected: Option<usize>| {
        let generation = history.get(number).unwrap();
        let found = history.first_in_doubt(generation, frame, Ktime(captured));
        assert_eq!(found, expected, "generation {number}, captured at {captured}");
        assert_eq!(history.is_quiet(generation, Ktime(captured)), expected.is_none());
    };
    check(&history, 1, 150, None);
    check(&history, 1, 250, Some(0));
    assert!(history.is_outdated());
    history.begin(plain(2, 400), Ktime(410), Ktime(0));
    check(&history, 1, 250, Some(0));
    check(&history, 2, 450, None);
    assert!(!history.is_outdated());
}
