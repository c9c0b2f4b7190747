//! What is kept, what is believed, and what makes room.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{
    ffi::OsString,
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use profiler_common::table::{BpKind, CfaKind, Page, Row, Rule};
use tempfile::TempDir;

use super::{Origin, TableCache, VARIABLE, WORTH_KEEPING, place};
use crate::{
    units::Svma,
    unwind::{CodeIdentity, Table},
};

fn code(build_id: &[u8]) -> CodeIdentity {
    CodeIdentity {
        build_id: build_id.to_owned(),
        text: vec![Svma(0x1000)..Svma(0x9000)],
        eh_frame_bytes: WORTH_KEEPING,
        debug_frame_bytes: 0,
    }
}

fn some_table() -> Table {
    let rule = |cfa, bp| Rule { cfa, bp, bp_offset: -16, cfa_offset: Rule::join(-300, 40) };
    Table {
        first_page: 7,
        pages: vec![Page { first_row: 0, rows: 2 }, Page { first_row: 2, rows: 1 }],
        rows: vec![Row::new(0, 0), Row::new(0x8000, 1), Row::new(0, 1)],
        rules: vec![rule(CfaKind::Uncovered, BpKind::Same), rule(CfaKind::AtSp, BpKind::AtBp)],
        uncovered: vec![Svma(0x1000)..Svma(0x1100)],
        undescribed: vec![(Svma(0x1100)..Svma(0x1180), rule(CfaKind::Sp, BpKind::Same))],
        described: 3,
        ..Table::default()
    }
}

fn cache(folder: &Path) -> TableCache {
    TableCache::in_folder(Some(folder.to_owned()))
}

#[track_caller]
fn check(cache: &TableCache, code: &CodeIdentity, expected: Origin) {
    let (table, origin) = cache.table(Some(code), some_table);
    assert_eq!((table, origin), (some_table(), expected));
}

/// A folder with the table of `code(b"one")`, and that file.
fn with_one() -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("deep/tables");
    check(&cache(&folder), &code(b"one"), Origin::Made);
    let file = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    (dir, folder, file)
}

#[test]
fn the_folder_is_the_users_own_or_the_one_that_is_named() {
    let check = |variables: &[(&str, &str)], is_root, expected: Option<&str>| {
        let value = |name: &str| {
            let named = variables.iter().find(|(variable, _)| *variable == name);
            named.map(|(_, value)| OsString::from(value))
        };
        assert_eq!(place(value, is_root).as_deref(), expected.map(Path::new), "{variables:?}");
    };
    let home = ("HOME", "/home/ann");
    let ours = Some("/var/cache/stallscope/tables");
    check(&[home], false, Some("/home/ann/.cache/stallscope/tables"));
    check(&[home, ("XDG_CACHE_HOME", "/x")], false, Some("/x/stallscope/tables"));
    check(&[home, ("XDG_CACHE_HOME", "x")], false, Some("/home/ann/.cache/stallscope/tables"));
    check(&[home, ("XDG_CACHE_HOME", "/x")], true, ours);
    check(&[], true, ours);
    check(&[], false, None);
    for is_root in [false, true] {
        check(&[home, (VARIABLE, "/tables")], is_root, Some("/tables"));
        check(&[home, (VARIABLE, "")], is_root, None);
    }
}

#[test]
fn a_table_is_made_once() {
    let (_dir, folder, _) = with_one();
    check(&cache(&folder), &code(b"one"), Origin::Kept);
    check(&cache(&folder), &code(b"two"), Origin::Made);
    check(&cache(&folder), &code(b"two"), Origin::Kept);
    check(&TableCache::none(), &code(b"one"), Origin::Made);
}

#[test]
fn another_file_has_another_table() {
    let (_dir, folder, _) = with_one();
    let one = || code(b"one");
    // The same build, not stripped; another segment; a longer build-id that begins like a long one.
    let with_debug = CodeIdentity { debug_frame_bytes: 5, ..one() };
    let elsewhere = CodeIdentity { text: vec![Svma(0x1000)..Svma(0x9001)], ..one() };
    for other in [with_debug, elsewhere, code(&[7; 40]), code(&[7; 41])] {
        check(&cache(&folder), &other, Origin::Made);
        check(&cache(&folder), &other, Origin::Kept);
    }
}

#[test]
fn what_would_not_be_known_again_or_is_quickly_made_is_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let cache = cache(dir.path());
    let small = CodeIdentity { eh_frame_bytes: WORTH_KEEPING - 1, ..code(b"one") };
    for code in [None, Some(&small)] {
        assert_eq!(cache.table(code, some_table), (some_table(), Origin::Made));
    }
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[test]
fn a_damaged_file_is_made_again() {
    let (_dir, folder, file) = with_one();
    let whole = fs::read(&file).unwrap();
    let check_damage = |bytes: &[u8]| {
        fs::write(&file, bytes).unwrap();
        check(&cache(&folder), &code(b"one"), Origin::Made);
        assert_eq!(fs::read(&file).unwrap(), whole);
    };
    for at in 0..whole.len() {
        check_damage(&whole[..at]);
        let mut changed = whole.clone();
        changed[at] ^= 0x10;
        check_damage(&changed);
    }
    check_damage(&[whole.as_slice(), &[0]].concat());
    // Whole, but of another file.
    check(&cache(&folder), &code(b"two"), Origin::Made);
    let is_other = |path: &PathBuf| *path != file;
    let other = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).find(is_other);
    check_damage(&fs::read(other.unwrap()).unwrap());
}

#[test]
fn what_others_could_have_written_is_not_believed() {
    let set_mode =
        |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for mode in [0o620, 0o602, 0o666] {
        let (_dir, folder, file) = with_one();
        set_mode(&file, mode);
        check(&cache(&folder), &code(b"one"), Origin::Made);
        // In its place is one of our own.
        check(&cache(&folder), &code(b"one"), Origin::Kept);
    }
    for (step, mode) in [(".", 0o770), (".", 0o1777), ("..", 0o757)] {
        let (_dir, folder, _) = with_one();
        set_mode(&folder.join(step).canonicalize().unwrap(), mode);
        check(&cache(&folder), &code(b"one"), Origin::Made);
    }
    // Links, to a file and to a folder.
    let (_dir, folder, file) = with_one();
    let moved = folder.join("moved");
    fs::rename(&file, &moved).unwrap();
    symlink(&moved, &file).unwrap();
    check(&cache(&folder), &code(b"one"), Origin::Made);
    assert!(file.symlink_metadata().unwrap().is_file());
    let linked = tempfile::tempdir().unwrap();
    symlink(folder.parent().unwrap(), linked.path().join("deep")).unwrap();
    check(&cache(&linked.path().join("deep/tables")), &code(b"one"), Origin::Made);
    check(&cache(&folder), &code(b"one"), Origin::Kept);
}

/// Only root can give files away.
#[cfg(feature = "live")]
#[test]
fn what_others_own_is_not_believed() {
    use std::os::unix::fs::chown;

    let nobody = Some(65534);
    let (_dir, folder, file) = with_one();
    chown(&file, nobody, nobody).unwrap();
    check(&cache(&folder), &code(b"one"), Origin::Made);
    check(&cache(&folder), &code(b"one"), Origin::Kept);
    for step in [".", ".."] {
        let (_dir, folder, _) = with_one();
        chown(folder.join(step).canonicalize().unwrap(), nobody, nobody).unwrap();
        check(&cache(&folder), &code(b"one"), Origin::Made);
    }
}

#[test]
fn the_tables_used_longest_ago_make_room() {
    let dir = tempfile::tempdir().unwrap();
    let names = |prefix: &str| {
        let files = fs::read_dir(dir.path()).unwrap();
        let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(prefix)).count()
    };
    let age = |prefix: &str, hours: u64| {
        let time = SystemTime::now() - Duration::from_secs(hours * 3600);
        for file in fs::read_dir(dir.path()).unwrap() {
            let path = file.unwrap().path();
            if path.file_name().unwrap().to_string_lossy().starts_with(prefix) {
                File::open(&path).unwrap().set_modified(time).unwrap();
            }
        }
    };
    check(&cache(dir.path()), &code(&[0xaa]), Origin::Made);
    let each = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().metadata().unwrap().len();
    let small = TableCache { bytes_max: 2 * each, ..cache(dir.path()) };
    check(&small, &code(&[0xbb]), Origin::Made);
    // Not ours, and left alone however old and large.
    fs::write(dir.path().join("letters"), vec![0; 10_000]).unwrap();
    age("letters", 100);
    // The older one is used again.
    age("aa", 3);
    age("bb", 2);
    check(&small, &code(&[0xaa]), Origin::Kept);
    check(&small, &code(&[0xcc]), Origin::Made);
    assert_eq!(["aa", "bb", "cc", "letters"].map(names), [1, 0, 1, 1]);
}
