//! The programs of the corpus: what is built, and how each is started.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A program, and everything that it can be told to be.
pub struct Program {
    /// The corpus has its stacks under this name.
    pub name: &'static str,
    /// Folder of the package in `workloads/corpus`.
    package: &'static str,
    binary: &'static str,
    /// Settings of its release profile.
    profile: &'static [(&'static str, &'static str)],
    pub flavours: &'static [Flavour],
}

/// A flavour, and the reasons for which threads with nothing to do must be seen to wait: by role.
pub type Flavour = (&'static str, &'static [(&'static str, &'static str)]);

const TOKIO: &[Flavour] = &[
    (
        "multi-thread",
        &[("worker", "futex"), ("worker", "poll"), ("blocking", "futex"), ("other", "futex")],
    ),
    ("current-thread", &[("worker", "poll"), ("blocking", "futex")]),
    ("given-future", &[("worker", "poll"), ("blocking", "futex")]),
    ("local-set", &[("worker", "poll"), ("blocking", "futex")]),
    ("in-place", &[("worker", "futex"), ("worker", "poll"), ("blocking", "futex")]),
    ("two", &[("worker", "futex"), ("worker", "poll")]),
    ("shutdown", &[("other", "futex")]),
];

const LINES: &[(&str, &str)] = &[("DEBUG", "line-tables-only")];
const FAT: &[(&str, &str)] = &[("LTO", "fat"), ("PANIC", "abort"), ("CODEGEN_UNITS", "1")];

const fn tokio(
    name: &'static str,
    package: &'static str,
    profile: &'static [(&'static str, &'static str)],
) -> Program {
    Program { name, package, binary: "corpus-tokio", profile, flavours: TOKIO }
}

/// Every program.
pub const PROGRAMS: &[Program] = &[
    tokio("tokio-1.0", "tokio-1.0", &[]),
    tokio("tokio-1.28", "tokio-1.28", &[]),
    tokio("tokio-1.54", "tokio-1.54", &[]),
    tokio("tokio-1.54-lines", "tokio-1.54", LINES),
    tokio("tokio-1.54-fat", "tokio-1.54", FAT),
];

impl Program {
    /// Builds it, as a release build is unless its profile says otherwise, and returns its path.
    pub fn build(&self) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus");
        let package = sources().join(self.package);
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(package).args(["build", "--release", "--locked"]);
        cargo.args(["--bin", self.binary, "--target-dir"]).arg(&folder);
        for (key, value) in self.profile {
            cargo.env(format!("CARGO_PROFILE_RELEASE_{key}"), value);
        }
        let output = cargo.output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{cargo:?}: {}\n{said}", output.status);
        // The next program may have the same name.
        let program = folder.join(self.name);
        let _ = fs::remove_file(&program);
        fs::copy(folder.join("release").join(self.binary), &program).unwrap();
        program
    }

    /// Starts it where the name server that it asks is its own.
    pub fn command(&self, flavour: &str) -> Command {
        let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("corpus").join(self.name);
        let mut command = Command::new("unshare");
        let script = r#"mount --bind "$1" /etc/resolv.conf || exit 99; exec "$2" "$3""#;
        command.args(["--mount", "sh", "-c", script, "sh"]);
        command.arg(sources().join("resolv.conf")).arg(program).arg(flavour);
        command
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("workloads").join("corpus")
}
