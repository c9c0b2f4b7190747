//! How a command that cannot do what it was asked to ends.

use std::{fs, path::Path};

use super::process::Ended;

impl Ended {
    /// Panics unless it ended with this code, said all of this, and did not panic.
    pub fn expect(self, code: i32, said: &[&str]) -> Self {
        let Self { status, stdout, stderr } = &self;
        assert_eq!(status.code(), Some(code), "{stdout}\n{stderr}");
        for part in said {
            assert!(stderr.contains(part), "{part:?} is not in: {stderr}");
        }
        assert!(!stderr.contains("panicked"), "{stderr}");
        self
    }
}

/// The names in a directory, in order.
pub fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// Panics unless a directory is empty.
pub fn expect_empty(dir: &Path) {
    assert_eq!(names_in(dir), [""; 0], "left in {}", dir.display());
}
