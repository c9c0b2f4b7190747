//! Compares a report with what a workload measured itself.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::sites::Sums;

/// The part of `stallscope.report/1` that is compared.
#[derive(Deserialize)]
struct Report {
    sites: Vec<ReportedSite>,
}

#[derive(Deserialize)]
struct ReportedSite {
    total_ns: u64,
    runnable_ns: u64,
    frames: Vec<Frame>,
}

#[derive(Deserialize)]
struct Frame {
    function: Option<String>,
}

/// Prints a line a site and fails if one is off by more than `within` percent.
pub fn run(report: &Path, truth: &Path, within: f64) -> Result<()> {
    let report: Report = serde_json::from_str(&read(report)?).context("the report is not one")?;
    let truth = read(truth)?;
    let sums = truth.lines().next_back().context("the workload printed nothing")?;
    let sums: Sums = serde_json::from_str(sums).context("the workload did not end with JSON")?;
    if sums.is_empty() {
        bail!("the workload called no site");
    }
    let mut off = Vec::new();
    for (name, sum) in sums {
        let reported = reported_ns(&report, &name);
        let percent = (reported as f64 - sum.total_ns as f64) / sum.total_ns as f64 * 100.0;
        println!("{name}: measured {} ns, reported {reported} ns, {percent:+.2} %", sum.total_ns);
        if percent.abs() > within {
            off.push(format!("{name} {percent:+.2} %"));
        }
    }
    if !off.is_empty() {
        bail!("off by more than {within} %: {}", off.join(", "));
    }
    Ok(())
}

/// Waiting and run-queue time of every site with the function in its stack.
fn reported_ns(report: &Report, function: &str) -> u64 {
    let calls = |frame: &Frame| frame.function.as_ref().is_some_and(|f| f.contains(function));
    report
        .sites
        .iter()
        .filter(|site| site.frames.iter().any(calls))
        .map(|site| site.total_ns + site.runnable_ns)
        .sum()
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}
