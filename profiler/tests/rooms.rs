//! Data flows one way: no room names a room after it.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms in the order in which data flows through them.
const ROOMS: &[&str] = &[
    "target",
    "unwind",
    "cache",
    "kernel",
    "recording",
    "symbols",
    "runtime",
    "analysis",
    "render",
];

/// The pipelines and the command line may know every room; no room may know them.
const ABOVE: &[&str] = &["record", "report", "snapshot", "inspect", "doctor", "demo", "cli"];

#[test]
fn no_use_points_backwards() {
    let backwards: Vec<String> = ROOMS
        .iter()
        .enumerate()
        .flat_map(|(order, room)| {
            let forbidden = ROOMS[order + 1..].iter().chain(ABOVE).copied().collect::<Vec<_>>();
            files_of(room)
                .into_iter()
                .flat_map(move |file| violations(&file, &forbidden))
                .collect::<Vec<_>>()
        })
        .collect();
    assert!(backwards.is_empty(), "{}", backwards.join("\n"));
}

#[test]
fn a_backward_use_is_found_however_it_is_written() {
    let check = |text: &str, expected: &[&str]| {
        assert_eq!(named_rooms(text), expected, "{text}");
    };
    check("use crate::render::Format;", &["render"]);
    check("use crate::{\n    render::{Format, x},\n    units::Nanos,\n};", &["render", "units"]);
    check("let x = crate::analysis::report::State::Idle;", &["analysis"]);
    check("//! See [`crate::render`]: a comment may name any room.", &[]);
    check("use super::render;", &[]);
}

fn files_of(room: &str) -> Vec<PathBuf> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![src.join(room)];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ext| ext == "rs") {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "the room {room} has no files");
    files
}

fn violations(file: &Path, forbidden: &[&str]) -> Vec<String> {
    let text = fs::read_to_string(file).unwrap();
    named_rooms(&text)
        .into_iter()
        .filter(|room| forbidden.contains(&room.as_str()))
        .map(|room| format!("{} names the later room {room}", file.display()))
        .collect()
}

/// The first path segments after every `crate::`, braces opened.
fn named_rooms(text: &str) -> Vec<String> {
    let code: String = text
        .lines()
        .map(|line| line.split("//").next().unwrap_or_default())
        .collect::<Vec<_>>()
        .join("\n");
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => rooms.extend(group_heads(group)),
            None => rooms.extend(head(rest)),
        }
    }
    rooms
}

fn head(path: &str) -> Option<String> {
    let name: String =
        path.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first segment of each member of a `{...}` group, whose opening brace is already read.
fn group_heads(group: &str) -> Vec<String> {
    let (mut depth, mut start, mut heads) = (1, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if (c == ',' && depth == 1) || depth == 0 {
            heads.extend(head(&group[start..at]));
            start = at + 1;
        }
        if depth == 0 {
            break;
        }
    }
    heads
}
