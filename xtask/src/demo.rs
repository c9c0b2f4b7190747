//! The demo: needs stable Rust and nothing else.

use anyhow::{Context, Result};

use crate::run;

/// Builds the tool as this user, then runs `stallscope demo` as root with its output in
/// `target/demo/`.
pub fn run() -> Result<()> {
    run::run(&mut run::cargo(&["build", "--release", "-p", "stallscope"]))?;
    let target = run::target_dir();
    let out = target.join("demo");
    std::fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    run::run(
        run::as_root(target.join("release/stallscope")).args(["demo", "--force", "-o"]).arg(&out),
    )
}
