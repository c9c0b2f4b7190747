//! The compiler and linker that can build the kernel side.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};

use crate::run;

/// Debian's packages of a compiler with `core`'s source, and of the LLVM that bpf-linker needs.
pub const DEBIAN_PACKAGES: [&str; 7] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
    "zlib1g-dev",
];

/// Where Debian's LLVM lies.
pub const DEBIAN_LLVM: &str = "/usr/lib/llvm-22";

/// The version of bpf-linker that is installed where there is none.
pub const BPF_LINKER_VERSION: &str = "0.13.0";

/// A compiler that has `core`'s source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// `/usr/bin/rustc` of Debian's packages, told to accept `-Z`.
    Debian,
    /// rustup's nightly with the component rust-src.
    Nightly,
}

/// A compiler and bpf-linker.
pub struct Toolchain {
    compiler: Compiler,
    bpf_linker: PathBuf,
}

impl Compiler {
    /// The one that is there, Debian's first.
    pub fn find() -> Option<Self> {
        let debian = DEBIAN_PACKAGES[..3].iter().all(|package| is_installed(package));
        if debian {
            return Some(Self::Debian);
        }
        let sysroot = run::output(Self::Nightly.command("rustc").arg("--print=sysroot")).ok()?;
        let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
        core.is_dir().then_some(Self::Nightly)
    }

    fn command(self, program: &str) -> Command {
        let mut command = match self {
            Self::Debian => {
                let mut command = Command::new(Path::new("/usr/bin").join(program));
                run::without_our_toolchain(&mut command);
                command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }
            Self::Nightly => {
                let mut command = Command::new("rustup");
                run::without_our_toolchain(&mut command);
                command.args(["run", "nightly", program]);
                command
            }
        };
        command.current_dir(run::root());
        command
    }
}

impl Toolchain {
    /// What is installed. The error names the command that installs it.
    pub fn find() -> Result<Self> {
        let compiler = Compiler::find().context(
            "no compiler with the source of `core` is installed: run `cargo xtask setup`",
        )?;
        let bpf_linker =
            bpf_linker()?.context("bpf-linker is not installed: run `cargo xtask setup`")?;
        Ok(Self { compiler, bpf_linker })
    }

    /// Its cargo.
    pub fn cargo(&self) -> Command {
        self.compiler.command("cargo")
    }

    /// Its linker.
    pub fn bpf_linker(&self) -> &Path {
        &self.bpf_linker
    }

    /// Where its libraries and their source lie.
    pub fn sysroot(&self) -> Result<PathBuf> {
        run::output(self.compiler.command("rustc").arg("--print=sysroot")).map(PathBuf::from)
    }

    /// An objcopy that knows BPF: Debian's, that of the component llvm-tools, or the one in PATH.
    pub fn objcopy(&self) -> Result<PathBuf> {
        let bin = self.sysroot()?.join("lib/rustlib").join(self.line("host: ")?).join("bin");
        let known = [Path::new(DEBIAN_LLVM).join("bin"), bin];
        let known =
            known.into_iter().map(|dir| dir.join("llvm-objcopy")).find(|path| path.is_file());
        match known {
            Some(path) => Ok(path),
            None if run::in_path("llvm-objcopy") => Ok("llvm-objcopy".into()),
            None => anyhow::bail!(
                "no llvm-objcopy: install the package llvm, or `rustup +nightly component add llvm-tools`"
            ),
        }
    }

    /// What decides the bytes of the object, one line each.
    pub fn identity(&self) -> Result<String> {
        let rustc = run::output(self.compiler.command("rustc").arg("-V"))?;
        let llvm = self.line("LLVM version: ")?;
        let linker = run::output(Command::new(&self.bpf_linker).arg("-V"))?;
        let linker_llvm = match self.compiler {
            Compiler::Debian => {
                let config = Path::new(DEBIAN_LLVM).join("bin/llvm-config");
                run::output(Command::new(config).arg("--version"))?
            }
            Compiler::Nightly => "unknown".to_owned(),
        };
        Ok(format!("{rustc}, LLVM {llvm}\n{linker}, LLVM {linker_llvm}\n"))
    }

    /// The packages it comes from, one line each; empty where it comes from none.
    pub fn packages(&self) -> Result<String> {
        match self.compiler {
            Compiler::Debian => {
                let format = "-f=${Package} ${Version}\n";
                let mut query = Command::new("dpkg-query");
                run::output(query.arg("-W").arg(format).args(&DEBIAN_PACKAGES[..5]))
                    .map(|lines| lines + "\n")
            }
            Compiler::Nightly => Ok(String::new()),
        }
    }

    fn line(&self, key: &str) -> Result<String> {
        let version = run::output(self.compiler.command("rustc").arg("-vV"))?;
        version
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(str::to_owned)
            .with_context(|| format!("`rustc -vV` has no line {key:?}"))
    }
}

/// bpf-linker in PATH, or where `cargo install` puts it.
pub fn bpf_linker() -> Result<Option<PathBuf>> {
    let installed = run::cargo_home()?.join("bin/bpf-linker");
    let candidates = [PathBuf::from("bpf-linker"), installed];
    Ok(candidates.into_iter().find(|path| run::succeeds(Command::new(path).arg("-V"))))
}

/// Whether dpkg has the package installed. It asks dpkg and tries nothing.
pub fn is_installed(package: &str) -> bool {
    run::output(Command::new("dpkg-query").args(["-W", "-f=${db:Status-Status}", package]))
        .is_ok_and(|status| status == "installed")
}
