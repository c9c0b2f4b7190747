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
    /// So much is inlined that labels can be missing, and that a future which a runtime polls itself
    /// cannot be told from the function that called the runtime.
    pub inlined: bool,
    pub flavours: &'static [Flavour],
}

/// What a program can be told to be.
pub struct Flavour {
    pub name: &'static str,
    /// For which reasons threads with nothing to do must be seen to wait, by role.
    pub idle: &'static [(&'static str, &'static str)],
}

const fn flavour(name: &'static str, idle: &'static [(&'static str, &'static str)]) -> Flavour {
    Flavour { name, idle }
}

const MULTI_THREAD: Flavour = flavour(
    "multi-thread",
    &[("worker", "futex"), ("worker", "poll"), ("blocking", "futex"), ("other", "futex")],
);
const CURRENT_THREAD: Flavour =
    flavour("current-thread", &[("worker", "poll"), ("blocking", "futex")]);
const GIVEN_FUTURE: Flavour = flavour("given-future", &[("worker", "poll"), ("blocking", "futex")]);
const LOCAL_SET: Flavour = flavour("local-set", &[("worker", "poll"), ("blocking", "futex")]);
const IN_PLACE: Flavour =
    flavour("in-place", &[("worker", "futex"), ("worker", "poll"), ("blocking", "futex")]);
const TWO: Flavour = flavour("two", &[("worker", "futex"), ("worker", "poll")]);
const SHUTDOWN: Flavour = flavour("shutdown", &[("other", "futex")]);

/// Who of all threads turns the reactor is not decided by the program.
const SMOL: &[(&str, &str)] = &[("worker", "futex"), ("blocking", "futex"), ("other", "futex")];

const LINES: &[(&str, &str)] = &[("DEBUG", "line-tables-only")];
const FAT: &[(&str, &str)] = &[("LTO", "fat"), ("PANIC", "abort"), ("CODEGEN_UNITS", "1")];

const TOKIO: Program = Program {
    name: "",
    package: "",
    binary: "corpus-tokio",
    profile: &[],
    inlined: false,
    flavours: &[MULTI_THREAD, CURRENT_THREAD, GIVEN_FUTURE, LOCAL_SET, IN_PLACE, TWO, SHUTDOWN],
};

const OTHER: Program = Program {
    name: "",
    package: "others",
    binary: "",
    profile: &[],
    inlined: false,
    flavours: &[],
};

/// Every program.
pub const PROGRAMS: &[Program] = &[
    Program { name: "tokio-1.0", package: "tokio-1.0", ..TOKIO },
    Program { name: "tokio-1.28", package: "tokio-1.28", ..TOKIO },
    Program { name: "tokio-1.54", package: "tokio-1.54", ..TOKIO },
    Program {
        name: "tokio-1.54-lines",
        package: "tokio-1.54",
        profile: LINES,
        flavours: &[MULTI_THREAD, GIVEN_FUTURE, IN_PLACE],
        ..TOKIO
    },
    // `block_in_place` leaves nothing on a stack of this one: what waits in it is taken for blocked.
    Program {
        name: "tokio-1.54-fat",
        package: "tokio-1.54",
        profile: FAT,
        inlined: true,
        flavours: &[MULTI_THREAD, CURRENT_THREAD, GIVEN_FUTURE, LOCAL_SET, TWO, SHUTDOWN],
        ..TOKIO
    },
    Program {
        name: "rayon-1.12",
        binary: "corpus-rayon",
        flavours: &[
            flavour("pool", &[("worker", "futex")]),
            flavour("global", &[("worker", "futex")]),
            flavour("two", &[("worker", "futex")]),
        ],
        ..OTHER
    },
    Program {
        name: "smol-2.0",
        binary: "corpus-smol",
        flavours: &[flavour("global", SMOL), flavour("own-threads", &[("worker", "futex")])],
        ..OTHER
    },
    Program {
        name: "async-std-1.13",
        binary: "corpus-async-std",
        flavours: &[flavour("global", SMOL)],
        ..OTHER
    },
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
