//! Runs everything that has to pass.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::{ebpf, run, setup, verifier};

type Step = (&'static str, fn() -> Result<()>);

const STEPS: [Step; 8] = [
    ("setup", setup::run),
    ("kernel side", kernel_side),
    ("format", format),
    ("lints", lints),
    ("docs", docs),
    ("unit and golden tests", unit_tests),
    ("verifier budget", verifier::check),
    ("live tests", live_tests),
];

/// The steps in order; the first one that fails ends the run. A table of times comes last.
pub fn run() -> Result<()> {
    let mut times = Vec::new();
    let done = STEPS.iter().try_for_each(|(name, step)| {
        println!("\n==> {name}");
        let start = Instant::now();
        let done = step();
        times.push((*name, start.elapsed(), done.is_ok()));
        done.with_context(|| format!("{name} failed"))
    });
    print_table(&times);
    done
}

fn print_table(times: &[(&str, Duration, bool)]) {
    println!();
    for (name, time, passed) in times {
        let verdict = if *passed { "pass" } else { "FAIL" };
        println!("{verdict}  {name:<24} {:>7.1} s", time.as_secs_f64());
    }
    let total: Duration = times.iter().map(|(_, time, _)| *time).sum();
    println!("      {:<24} {:>7.1} s", "in all", total.as_secs_f64());
}

/// The tests below embed the committed object. It is the one that the source gives, so they run on
/// the rebuilt object.
fn kernel_side() -> Result<()> {
    ebpf::check()
}

fn format() -> Result<()> {
    run::run(&mut run::cargo(&["fmt", "--all", "--check"]))?;
    for workspace in ["profiler-ebpf", "workloads/corpus/tokio-1.54", "workloads/corpus/others"] {
        let manifest = format!("{workspace}/Cargo.toml");
        run::run(&mut run::cargo(&["fmt", "--manifest-path", &manifest, "--check"]))?;
    }
    Ok(())
}

fn lints() -> Result<()> {
    for features in [&[][..], &["--features", "stallscope/live"]] {
        let mut clippy = run::cargo(&["clippy", "--workspace", "--all-targets", "--locked"]);
        run::run(clippy.args(features).args(["--", "-D", "warnings"]))?;
    }
    Ok(())
}

fn docs() -> Result<()> {
    let mut doc = run::cargo(&["doc", "--workspace", "--no-deps", "--locked"]);
    run::run(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

fn unit_tests() -> Result<()> {
    run::run(&mut run::cargo(&["test", "--workspace", "--locked"]))
}

/// The first ones one at a time: they load the machine and measure time. Built as this user, run as
/// root.
fn live_tests() -> Result<()> {
    // Both packages in both commands, so that cargo unifies the same features.
    let live = ["-p", "stallscope", "-p", "workloads", "--features", "stallscope/live", "--locked"];
    run::run(run::cargo(&["build", "--bins"]).args(live))?;
    for binary in ["unwind", "corpus"] {
        let builds = ["--", "every_program_builds"];
        run::run(run::cargo(&["test", "--test", binary]).args(live).args(builds))?;
    }
    // The programs of the matrix only sleep: two of them leave each other alone.
    let binaries = [
        ("live", "--test-threads=1"),
        ("unwind", "--test-threads=2"),
        ("corpus", "--test-threads=1"),
    ];
    for (binary, threads) in binaries {
        let mut test = run::cargo(&["test", "--test", binary]);
        test.args(live).args(["--", threads]);
        if !run::is_root() {
            println!("(not root: using sudo for the live tests)");
            test.env(runner_variable()?, "sudo -E");
        }
        run::run(&mut test)?;
    }
    Ok(())
}

/// The variable that names the program under which cargo runs what it built for this machine.
fn runner_variable() -> Result<String> {
    let version = run::output(std::process::Command::new("rustc").arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    let host = host.context("`rustc -vV` names no host")?.to_uppercase().replace('-', "_");
    Ok(format!("CARGO_TARGET_{host}_RUNNER"))
}
