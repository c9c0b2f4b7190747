//! What corrupt and hostile files do: nothing.

use std::{fs, path::Path};

use super::{Workshop, check, module, recording, symbol};
use crate::{
    recording::{Missing, Module},
    symbols::{LiveFiles, SymbolOptions, resolve},
};

#[test]
fn what_is_no_elf_file_is_unreadable() {
    let workshop = Workshop::new();
    for (name, bytes) in [
        ("empty", &b""[..]),
        ("text", b"#!/bin/sh\n"),
        ("magic", b"\x7fELF"),
        ("zeros", &[0; 4096]),
    ] {
        fs::write(workshop.path(name), bytes).unwrap();
    }
    workshop.run("mkfifo", ["fifo"]);
    for name in ["empty", "text", "magic", "zeros", "fifo", "absent", "."] {
        let module = Module { path: workshop.path(name), ..module(Path::new("/")) };
        let missing = Err(Missing::FileUnreadable);
        check(module, &LiveFiles::new(), &SymbolOptions::default(), 0x1000, missing);
    }
}

#[test]
fn damaged_files_never_end_the_program() {
    let workshop = Workshop::new();
    let file = workshop.inline(&["-gz=zlib"]);
    let whole = fs::read(&file).unwrap();
    let addresses: Vec<u64> = symbol(&file, "outer").step_by(5).chain([0, u64::MAX]).collect();
    let unchecked = Module { build_id: Vec::new(), ..module(&file) };

    let survives = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        let table = resolve(
            &recording(unchecked.clone(), addresses.iter().copied()),
            &LiveFiles::new(),
            &SymbolOptions::default(),
        );
        assert_eq!(table.iter().count(), addresses.len());
    };
    for length in (0..whole.len()).step_by(whole.len() / 50) {
        survives(&whole[..length]);
    }
    // Pseudo-random damage, the same in every run; half of it in the headers, which steer the rest.
    let mut random = 0x2545_f491_4f6c_dd1d_u64;
    let mut below = |limit: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        usize::try_from(random % limit as u64).unwrap()
    };
    let section_headers = u64::from_le_bytes(whole[0x28..0x30].try_into().unwrap());
    let section_headers = usize::try_from(section_headers).unwrap();
    for round in 0..400 {
        let mut damaged = whole.clone();
        for _ in 0..8 {
            let at = if round % 2 == 0 {
                below(whole.len())
            } else {
                section_headers + below(whole.len() - section_headers)
            };
            damaged[at] = u8::try_from(below(256)).unwrap();
        }
        survives(&damaged);
    }
}
