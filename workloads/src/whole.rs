//! Whether the stacks of a report are whole.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// How many stacks have to be complete, in parts of a thousand.
const COMPLETE_PER_MILLE: u64 = 999;

/// The part of `stallscope.report/1` that is looked at.
#[derive(Deserialize)]
struct Report {
    quality: Quality,
    sites: Vec<Site>,
}

#[derive(Deserialize)]
struct Quality {
    user_stacks: UserStacks,
}

#[derive(Deserialize)]
struct UserStacks {
    complete: u64,
    truncated: u64,
    broken: u64,
}

#[derive(Deserialize)]
struct Site {
    stack: Option<String>,
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Frame {
    function: Option<String>,
}

/// Prints how many stacks are complete, and fails if they are too few or a function is in none of them.
pub fn run(report: &Path, functions: &[String]) -> Result<()> {
    let text =
        fs::read_to_string(report).with_context(|| format!("cannot read {}", report.display()))?;
    let Report { quality, sites } = serde_json::from_str(&text).context("the report is not one")?;
    let UserStacks { complete, truncated, broken } = quality.user_stacks;
    let all = complete + truncated + broken;
    println!("{complete} of {all} user stacks are complete");
    if complete == 0 || complete * 1000 < all * COMPLETE_PER_MILLE {
        bail!("{truncated} stacks are truncated, {broken} broken");
    }
    for function in functions {
        let is_in = |site: &&Site| {
            site.frames.iter().any(|frame| frame.function.as_ref() == Some(function))
        };
        let complete = |site: &&Site| site.stack.as_deref() == Some("complete");
        if !sites.iter().filter(complete).any(|site| is_in(&site)) {
            bail!("{function} is in no complete stack");
        }
    }
    Ok(())
}
