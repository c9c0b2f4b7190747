//! The corpus: stacks of running programs that said of each of their threads what it does.
//!
//! `stacks/` holds what was recorded of the programs in `workloads/corpus`. Every wait must be
//! classified as the program itself declared it before it waited. With the feature `live` they are
//! built, run and recorded again; `BLESS=1` then rewrites what is committed.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod process;
#[cfg(feature = "live")]
mod programs;
#[cfg(feature = "live")]
mod record;
#[cfg(feature = "live")]
#[path = "../live/support/mod.rs"]
#[expect(dead_code, reason = "the other live tests use more of it")]
mod support;
mod text;

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where the committed stacks are, one file a program.
fn stacks() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/stacks")
}

#[test]
fn every_committed_wait_is_classified_as_its_program_declared_it() {
    let mut waits = 0;
    let mut wrong = Vec::new();
    for entry in fs::read_dir(stacks()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for process in text::read(&text) {
            waits += process.waits.len();
            let program = path.file_stem().unwrap().to_string_lossy();
            wrong.extend(process.wrong().iter().map(|what| format!("{program} {what}")));
        }
    }
    println!("{waits} waits, {} wrong", wrong.len());
    assert!(waits > 0, "there is no corpus");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_written_is_what_is_read() {
    for entry in fs::read_dir(stacks()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let again = text::write(&text::read(&text));
        assert!(text == again, "{} is not as it would be written", path.display());
    }
}
