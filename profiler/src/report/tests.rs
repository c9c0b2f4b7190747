//! Where outputs go and which paths are refused.

#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use super::*;

fn paths(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(PathBuf::from).collect()
}

#[test]
fn a_recording_stands_beside_the_first_report() {
    for (names, recording, files) in [
        (&[][..], "default.stall", &["default.svg"][..]),
        (&["dir/out.svg"], "dir/out.stall", &["dir/out.svg"]),
        (&["a.svg", "b.json"], "a.stall", &["a.svg", "b.json"]),
        (&["a.svg", "b.stall"], "b.stall", &["a.svg"]),
        (&["v1.2.svg"], "v1.2.stall", &["v1.2.svg"]),
        (&["b.stall"], "b.stall", &[]),
    ] {
        let outputs = Outputs::of_record(&paths(names), "default").unwrap();
        assert_eq!(outputs.recording, Some(recording.into()), "{names:?}");
        let found = outputs.files.into_iter().map(|(path, _)| path).collect::<Vec<_>>();
        assert_eq!(found, paths(files), "{names:?}");
    }
}

#[test]
fn names_that_name_no_format_are_wrong_usage() {
    let record = |names: &[&str]| Outputs::of_record(&paths(names), "x").map(drop);
    let report = |names: &[&str]| Outputs::of_report(&paths(names)).map(drop);
    for (result, expected) in [
        (record(&["out.png"]), ".svg .folded .json .txt"),
        (record(&["out"]), "does not name a format"),
        (record(&["out.SVG"]), "does not name a format"),
        (record(&["a.stall", "b.stall"]), "only one recording"),
        (report(&["a.stall"]), "made from a recording"),
    ] {
        let error = result.unwrap_err();
        assert_eq!(Failure::exit_code(&error), 2, "{error}");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn paths_are_refused_before_anything_is_recorded() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::write(path("old.svg"), "old").unwrap();
    fs::write(path("old.stall"), "old").unwrap();
    fs::create_dir(path("dir.svg")).unwrap();
    for (names, force, expected) in [
        (&["new.svg"][..], false, None),
        (&["new.svg", "new.json"], false, None),
        (&["old.svg"], false, Some("exists")),
        (&["old.json"], false, Some("old.stall: exists")),
        (&["old.svg"], true, None),
        (&["missing/new.svg"], true, Some("mkdir -p")),
        (&["old.svg/new.svg"], true, Some("there is no directory")),
        (&["dir.svg"], true, Some("is a directory")),
        (&["new.svg", "new.svg"], true, Some("twice")),
    ] {
        let names = names.iter().map(|name| path(name)).collect::<Vec<_>>();
        let outputs = Outputs::of_record(&names, "x").unwrap();
        match (check_paths(&outputs, force), expected) {
            (Ok(()), None) => {}
            (Err(error), Some(expected)) => {
                assert_eq!(Failure::exit_code(&error), 2, "{error}");
                assert!(error.to_string().contains(expected), "{error}");
            }
            (result, _) => panic!("{names:?}: {result:?}, expected {expected:?}"),
        }
    }
    // Root may do everything and cannot do this.
    let recording = Some("/proc/x.stall".into());
    let error = check_paths(&Outputs { recording, ..Outputs::default() }, true).unwrap_err();
    assert!(error.to_string().contains("cannot write in /proc"), "{error}");
    let left = fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(left, 3, "a probe was left behind");
}

#[test]
fn a_failed_write_leaves_the_old_file_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("out.json");
    write_file(&path, |out| Ok(out.write_all(b"old")?)).unwrap();
    let error = write_file(&path, |out| {
        out.write_all(b"half")?;
        anyhow::bail!("no space left")
    });
    let error = format!("{:#}", error.unwrap_err());
    assert!(error.contains("out.json: no space left"), "{error}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    let left = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(left.collect::<Vec<_>>(), ["out.json"]);
}

#[test]
fn a_closed_pipe_is_told_from_other_failures() {
    let pipe = || io::Error::from(io::ErrorKind::BrokenPipe);
    for (error, expected) in [
        (anyhow::Error::from(pipe()), true),
        (anyhow::Error::from(pipe()).context("cannot write"), true),
        (anyhow::Error::from(serde_json::Error::io(pipe())), true),
        (anyhow::Error::from(io::Error::from(io::ErrorKind::StorageFull)), false),
    ] {
        assert_eq!(is_closed_pipe(&error), expected, "{error:#}");
    }
}
