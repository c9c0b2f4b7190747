//! Boots Debian's own kernels in qemu and tries the tool there.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context, Result, bail};

use crate::{
    boot::{self, Check},
    kernel_package::{self, KERNELS, Kernel},
    run, setup,
};

const PACKAGES: [&str; 4] = ["qemu-system-x86", "busybox-static", "cpio", "gcc"];

/// The target that the static build is for; naming it keeps the flags away from build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Tries the named kernels, all if none is named, and prints a table: each pass, or its reason.
pub fn run(names: &[String]) -> Result<()> {
    setup::debian_packages(&PACKAGES)?;
    let programs = static_programs()?;
    let initramfs = boot::initramfs(&programs)?;
    let chosen =
        KERNELS.iter().filter(|kernel| names.is_empty() || names.iter().any(|n| n == kernel.name));
    let mut rows = Vec::new();
    for kernel in chosen {
        let start = Instant::now();
        let verdict = try_kernel(kernel, &initramfs);
        rows.push((kernel.name, start.elapsed().as_secs_f64(), verdict));
    }
    println!();
    let mut failed = 0;
    for (name, seconds, verdict) in &rows {
        match verdict {
            Ok(checks) => println!("pass  {name:<5} {seconds:>6.1} s  {}", checks.join(", ")),
            Err(reason) => {
                failed += 1;
                println!("FAIL  {name:<5} {seconds:>6.1} s  {reason:#}");
            }
        }
    }
    if failed > 0 {
        bail!("{failed} of {} kernels failed", rows.len());
    }
    Ok(())
}

/// The checks that passed, or why one did not.
fn try_kernel(kernel: &Kernel, initramfs: &Path) -> Result<Vec<String>> {
    println!("\n==> Linux {}", kernel.name);
    let image = kernel_package::image(kernel).context("cannot get the kernel")?;
    let console = boot::run(&image, initramfs)?;
    let mut passed = Vec::new();
    for Check { name, failure } in boot::checks(&console)? {
        match failure {
            None => passed.push(name),
            Some(reason) => bail!("{name}: {reason}"),
        }
    }
    Ok(passed)
}

/// The tool and the workload, linked statically: the initramfs has no libraries.
fn static_programs() -> Result<Vec<PathBuf>> {
    let target_dir = run::target_dir().join("vm-build");
    let mut build = run::cargo(&["build", "--locked", "-p", "stallscope", "-p", "workloads"]);
    run::run(
        build
            .args(["--target", TARGET, "--target-dir"])
            .arg(&target_dir)
            .env("RUSTFLAGS", "-C target-feature=+crt-static"),
    )?;
    let folder = target_dir.join(TARGET).join("debug");
    let mut programs = ["stallscope", "workload"].map(|name| folder.join(name)).to_vec();
    programs.push(c_cell(&target_dir)?);
    Ok(programs)
}

/// The program of the test matrix in C whose functions have every kind of frame.
fn c_cell(folder: &Path) -> Result<PathBuf> {
    const SOURCES: [&str; 6] =
        ["shapes.c", "cell.c", "frames.c", "waits.c", "signals.c", "stacks.c"];
    let program = folder.join("shapes");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(run::root().join("workloads/cells"))
        .args(SOURCES)
        .args(["-O2", "-fomit-frame-pointer", "-D_GNU_SOURCE", "-static", "-pthread", "-o"])
        .arg(&program);
    run::run(&mut gcc)?;
    Ok(program)
}
