//! Installs what is missing to rebuild the kernel side and to run the tests, and says what.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};

use crate::{
    run,
    toolchain::{self, BPF_LINKER_VERSION, Compiler, DEBIAN_LLVM, DEBIAN_PACKAGES},
};

const BY_HAND: &str = "this machine has no packages that setup knows; install by hand:
  rustup toolchain install nightly --component rust-src,llvm-tools
  cargo install bpf-linker --version 0.13.0 --locked
(bpf-linker's README says which LLVM it needs where no prebuilt one is used)";

/// What builds and runs the programs of the live tests, with Debian's package of each.
const TEST_COMMANDS: [(&str, &str); 6] = [
    ("gcc", "gcc"),
    ("g++", "g++"),
    ("clang-22", "clang-22"),
    ("ld.lld-22", "lld-22"),
    ("node", "nodejs"),
    ("/usr/bin/python3", "python3"),
];

/// A target of Rust without a shared C library, for which the live tests build programs as well.
const MUSL: &str = "x86_64-unknown-linux-musl";

/// Everything that is needed to rebuild the kernel side and to run the tests.
pub fn run() -> Result<()> {
    let mut installed = Vec::new();
    installed.extend(rustup_components()?);
    installed.extend(musl_target()?);
    installed.extend(compiler()?);
    installed.extend(bpf_linker()?);
    installed.extend(test_commands()?);
    installed.extend(musl_target()?);
    if installed.is_empty() {
        println!("setup: nothing to do, everything is installed");
    } else {
        println!("setup: installed {}", installed.join(", "));
    }
    Ok(())
}

/// Installs those of `packages` that are missing, for the chore that needs them.
pub fn debian_packages(packages: &[&str]) -> Result<Vec<String>> {
    let missing: Vec<&str> =
        packages.iter().copied().filter(|package| !toolchain::is_installed(package)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    if !run::in_path("apt-get") {
        bail!("needs the Debian packages {}, and there is no apt-get here", missing.join(" "));
    }
    println!("setup: installing the packages {}", missing.join(" "));
    run::run(run::as_root("apt-get").args(["-q", "update"]))?;
    let unknown: Vec<&str> = missing.iter().copied().filter(|package| !is_known(package)).collect();
    if !unknown.is_empty() {
        bail!("apt knows no package {}", unknown.join(", "));
    }
    let mut install = run::as_root("env");
    install.arg("DEBIAN_FRONTEND=noninteractive");
    run::run(
        install.args(["apt-get", "-q", "-y", "--no-install-recommends", "install"]).args(&missing),
    )?;
    Ok(missing.into_iter().map(str::to_owned).collect())
}

fn rustup_components() -> Result<Vec<String>> {
    let wanted = [("rustfmt", "fmt"), ("clippy", "clippy")];
    let missing: Vec<&str> = wanted
        .into_iter()
        .filter(|(_, command)| !run::succeeds(&mut run::cargo(&[command, "--version"])))
        .map(|(component, _)| component)
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    if !run::in_path("rustup") {
        bail!("`cargo fmt` or `cargo clippy` is missing: install {}", missing.join(" and "));
    }
    println!("setup: installing the components {}", missing.join(" "));
    run::run(Command::new("rustup").args(["component", "add"]).args(&missing))?;
    Ok(missing.into_iter().map(str::to_owned).collect())
}

/// A compiler with the source of `core`, and the LLVM that bpf-linker is built with.
fn compiler() -> Result<Vec<String>> {
    let complete = match Compiler::find() {
        Some(Compiler::Debian) => toolchain::bpf_linker()?.is_some(),
        Some(Compiler::Nightly) => true,
        None => false,
    };
    if complete {
        return Ok(Vec::new());
    }
    debian_packages(&DEBIAN_PACKAGES).map_err(|error| error.context(BY_HAND))
}

fn bpf_linker() -> Result<Vec<String>> {
    if toolchain::bpf_linker()?.is_some() {
        return Ok(Vec::new());
    }
    if Compiler::find() != Some(Compiler::Debian) {
        bail!("bpf-linker is not in PATH; {BY_HAND}");
    }
    println!("setup: installing bpf-linker {BPF_LINKER_VERSION}");
    // Both are needed: llvm-sys reads the one, bpf-linker's own build the other, and without it
    // links whatever llvm-config comes first in PATH.
    let mut install = run::cargo(&["install", "bpf-linker", "--version", BPF_LINKER_VERSION]);
    run::run(
        install
            .args(["--locked", "--no-default-features", "--features", "llvm-22"])
            .env("LLVM_PREFIX", DEBIAN_LLVM)
            .env("LLVM_SYS_221_PREFIX", DEBIAN_LLVM)
            .env_remove("CARGO_TARGET_DIR"),
    )?;
    Ok(vec![format!("bpf-linker {BPF_LINKER_VERSION}")])
}

fn test_commands() -> Result<Vec<String>> {
    let missing = TEST_COMMANDS.into_iter().filter(|(command, _)| !run::in_path(command));
    let packages: Vec<&str> = missing.map(|(_, package)| package).collect();
    debian_packages(&packages)
}

/// What tests compile static programs for.
fn musl_target() -> Result<Vec<String>> {
    let mut libraries = Command::new("rustc");
    libraries.args(["--print", "target-libdir", "--target", MUSL]);
    if Path::new(&run::output(&mut libraries)?).is_dir() {
        return Ok(Vec::new());
    }
    if !run::in_path("rustup") {
        bail!("rustc has no libraries for {MUSL}, and there is no rustup here: install them");
    }
    println!("setup: installing the target {MUSL}");
    run::run(Command::new("rustup").args(["target", "add", MUSL]))?;
    Ok(vec![MUSL.to_owned()])
}

/// Whether apt has a version of the package to offer.
fn is_known(package: &str) -> bool {
    run::output(Command::new("apt-cache").args(["show", "--no-all-versions", package]))
        .is_ok_and(|text| !text.is_empty())
}
