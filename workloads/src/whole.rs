//! Whether the stacks of a report are whole, and the same by both of the recorder's walks.

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
    stack_check: Option<StackCheck>,
}

#[derive(Deserialize)]
struct UserStacks {
    complete: u64,
    truncated: u64,
    broken: u64,
}

#[derive(Deserialize)]
struct StackCheck {
    compared: u64,
    different: u64,
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

/// Prints what there is, and fails if a function is in no complete stack, if too few stacks are complete,
/// or, where the kernel side `walks`, if it did not or came to something else than the recorder.
pub fn run(report: &Path, functions: &[String], walks: bool) -> Result<()> {
    let text =
        fs::read_to_string(report).with_context(|| format!("cannot read {}", report.display()))?;
    let Report { quality, sites } = serde_json::from_str(&text).context("the report is not one")?;
    let UserStacks { complete, truncated, broken } = quality.user_stacks;
    let all = complete + truncated + broken;
    println!("{complete} of {all} user stacks are complete");
    if complete == 0 || complete * 1000 < all * COMPLETE_PER_MILLE {
        bail!("{truncated} stacks are truncated, {broken} broken");
    }
    let StackCheck { compared, different } =
        quality.stack_check.context("it was recorded without --check-stacks")?;
    println!("{compared} were walked in the kernel, {different} of them to something else");
    if different > 0 || walks != (compared > 0) {
        bail!("{compared} stacks were walked in the kernel, {different} are another stack");
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
