//! Builds the kernel side from source, or proves that the committed object is what it gives.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::{object_diff, run, rustc, toolchain::Toolchain};

const TARGET: &str = "bpfel-unknown-none";

/// Builds the kernel side and commits it to the working tree, with the record of what built it.
pub fn build() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let object = compile(&toolchain)?;
    let Prebuilt { object: committed, built_by } = Prebuilt::paths();
    let folder = committed.parent().expect("the prebuilt object lies in a folder");
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    fs::copy(&object, &committed)
        .with_context(|| format!("cannot copy {} to {}", object.display(), committed.display()))?;
    let record = toolchain.identity()? + &toolchain.packages()?;
    fs::write(&built_by, &record)
        .with_context(|| format!("cannot write {}", built_by.display()))?;
    println!("wrote {} ({} bytes), built by\n{record}", committed.display(), read(&object)?.len());
    Ok(())
}

/// Fails unless the committed object is what the source gives: byte for byte with the toolchain
/// that built it, else in everything that the verifier sees.
pub fn check() -> Result<()> {
    let toolchain = Toolchain::find()?;
    let Prebuilt { object: committed, built_by } = Prebuilt::paths();
    let ours = read(&committed)?;
    let record = fs::read_to_string(&built_by).with_context(|| {
        format!("cannot read {}: run `cargo xtask ebpf` first", built_by.display())
    })?;
    let built = read(&compile(&toolchain)?)?;
    if built == ours {
        println!("{}: identical to a build from source", committed.display());
        return Ok(());
    }
    let differences = object_diff::differences(&ours, &built)?;
    let identity = toolchain.identity()?;
    let same_toolchain = record.starts_with(&identity);
    if !same_toolchain {
        println!("built here by\n{identity}but {} says\n{record}", built_by.display());
        println!("so only what the verifier sees is compared: code, data, maps and relocations");
        if differences.is_empty() {
            println!("{}: equivalent to a build from source", committed.display());
            return Ok(());
        }
    }
    let differences = if differences.is_empty() {
        vec!["debug information only".to_owned()]
    } else {
        differences
    };
    bail!(
        "{} is not what the source gives ({}); the source changed, or another compiler was used: \
         run `cargo xtask ebpf` and commit the object",
        committed.display(),
        differences.join("; ")
    )
}

/// The committed object and the record of what built it.
struct Prebuilt {
    object: PathBuf,
    built_by: PathBuf,
}

impl Prebuilt {
    fn paths() -> Self {
        let folder = run::root().join("profiler-ebpf/prebuilt");
        Self { object: folder.join("profiler-ebpf.o"), built_by: folder.join("BUILT-BY") }
    }
}

/// Builds under `target/` and returns the path of the object, without DWARF.
fn compile(toolchain: &Toolchain) -> Result<PathBuf> {
    let manifest = run::root().join("profiler-ebpf/Cargo.toml");
    let target_dir = run::target_dir().join("ebpf");
    let with_manifest = |verb: &str| {
        let mut cargo = toolchain.cargo();
        cargo.arg(verb).arg("--manifest-path").arg(&manifest).arg("--locked");
        cargo
    };
    // Unpacks the sources, so that the paths to remap are there to be listed.
    run::run(&mut with_manifest("fetch"))?;
    let mut build = with_manifest("build");
    build
        .args(["-Z", "build-std=core", "--release", "--target", TARGET, "--target-dir"])
        .arg(&target_dir)
        .env("CARGO_ENCODED_RUSTFLAGS", rustflags(toolchain)?);
    run::run(rustc::stand_in_for(&mut build, &run::root())?)?;

    let linked = target_dir.join(TARGET).join("release/profiler-ebpf");
    let stripped = target_dir.join("profiler-ebpf.o");
    // DWARF is nine tenths of the object and nothing reads it; BTF and its line information stay.
    run::run(Command::new(toolchain.objcopy()?).arg("--strip-debug").arg(&linked).arg(&stripped))?;
    Ok(stripped)
}

/// The flags, in cargo's own encoding.
fn rustflags(toolchain: &Toolchain) -> Result<OsString> {
    let mut linker = OsString::from("-Clinker=");
    linker.push(toolchain.bpf_linker());
    let mut flags = vec![
        linker,
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
        // What aya's own build passes: which registers a `PtRegs` has.
        "--cfg=bpf_target_arch=\"x86_64\"".into(),
    ];
    for (from, to) in remapped_paths(toolchain)? {
        let mut flag = OsString::from("--remap-path-prefix=");
        flag.push(from);
        flag.push("=");
        flag.push(to);
        flags.push(flag);
    }
    Ok(flags.join(std::ffi::OsStr::new("\x1f")))
}

/// Folders of this machine and what they are called in the object. The last one that fits wins.
fn remapped_paths(toolchain: &Toolchain) -> Result<Vec<(PathBuf, &'static str)>> {
    let cargo_home = run::cargo_home()?;
    let mut paths = vec![
        (toolchain.sysroot()?, "/rust"),
        (cargo_home.clone(), "/cargo"),
        // The linker runs in profiler-ebpf/ and so finds our sources under this name: it puts the
        // lines into the BTF, and the verifier's log quotes them.
        (run::root(), ".."),
    ];
    // The folder of a registry is named after its address, which a mirror changes.
    let registries = cargo_home.join("registry/src");
    for registry in fs::read_dir(&registries)
        .with_context(|| format!("cannot list {}", registries.display()))?
    {
        paths.push((registry?.path(), "/cargo/registry"));
    }
    Ok(paths)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}
