//! Rewrites the golden files with what the code writes now.

use anyhow::Result;

use crate::run;

/// Runs the golden tests with `BLESS=1`; `git diff` then shows what changed.
pub fn run() -> Result<()> {
    run::run(run::cargo(&["test", "-p", "stallscope", "--test", "golden"]).env("BLESS", "1"))
}
