//! Measurements that can be repeated; what they found lies in bench/results/.

mod unwind;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use clap::Subcommand;

use crate::run;

/// What can be measured.
#[derive(Subcommand)]
pub enum Bench {
    /// Making unwind tables, against what gimli alone takes to go over the same rows
    Tables {
        /// Programs and libraries; if none is named, some of each size that this machine has
        files: Vec<PathBuf>,
    },
    /// What recording costs: the kernel side against offcputime, attaching, the recorder
    Unwind(unwind::Plan),
}

/// Measures, prints and keeps the results.
pub fn run(bench: &Bench) -> Result<()> {
    match bench {
        Bench::Tables { files } => tables(files),
        Bench::Unwind(plan) => unwind::run(plan),
    }
}

fn tables(files: &[PathBuf]) -> Result<()> {
    let build = ["build", "--release", "-p", "stallscope", "--bins", "--example", "table_build"];
    run::run(&mut run::cargo(&build))?;
    let found = if files.is_empty() { usual_files()? } else { files.to_owned() };
    if found.is_empty() {
        bail!("none of the usual files is here: name some");
    }
    let program = run::target_dir().join("release/examples/table_build");
    run::run(Command::new(program).arg(results("tables.json")?).args(found))
}

/// Where a measurement's results are kept.
fn results(name: &str) -> Result<PathBuf> {
    let folder = run::root().join("bench/results");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.join(name))
}

/// From a C library to the largest that developers have, and a runtime with code of its own.
fn usual_files() -> Result<Vec<PathBuf>> {
    let sysroot = run::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let libraries = PathBuf::from("/usr/lib/x86_64-linux-gnu");
    let mut files = vec![run::target_dir().join("release/stallscope"), libraries.join("libc.so.6")];
    files.extend(largest(&libraries, "libLLVM"));
    files.extend(largest(&PathBuf::from(sysroot).join("lib"), "librustc_driver"));
    files.extend(run::path_of("node"));
    files.retain(|file| file.is_file());
    Ok(files)
}

/// The largest file of a folder whose name begins like this.
fn largest(folder: &Path, name: &str) -> Option<PathBuf> {
    let files = std::fs::read_dir(folder).ok()?.flatten();
    files
        .filter(|file| file.file_name().to_string_lossy().starts_with(name))
        .filter_map(|file| Some((std::fs::metadata(file.path()).ok()?.len(), file.path())))
        .max()
        .map(|(_, path)| path)
}
