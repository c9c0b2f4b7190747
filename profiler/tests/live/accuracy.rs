//! What is reported is what the workload measured with the clock.

use std::time::Duration;

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{
    exact::{self, observe, percent_off},
    process::{Workload, run, workload},
    report::{Report, number},
};

/// How far a call site may be off, in parts of a hundred.
const WITHIN_PERCENT: f64 = 2.0;

const LENGTH: Duration = Duration::from_secs(5);

#[test]
fn waiting_and_run_queue_time_of_each_call_site_is_what_it_measured() {
    let mut workload = Workload::start(&["truth"]);
    let observed = observe(&mut workload, &[], LENGTH);
    check_sites(&observed.report, &observed.truth);
}

#[test]
fn the_same_where_stacks_are_taken_at_switch_out() {
    let mut workload = Workload::start(&["truth"]);
    let observed = observe(&mut workload, &["--hook", "switch-out"], LENGTH);
    check_sites(&observed.report, &observed.truth);
}

#[test]
fn the_same_of_a_command_from_its_first_instruction() {
    let out = tempdir().unwrap();
    let json = out.path().join("out.json");
    let command = workload();
    let ended = run(&[
        "record",
        "-o",
        json.to_str().unwrap(),
        "--",
        command.to_str().unwrap(),
        "truth",
        "--for",
        "5",
    ]);
    let ended = ended.expect_success();
    let said = ended.stdout.lines().find(|line| line.starts_with('{'));
    let truth = serde_json::from_str(said.unwrap_or_else(|| panic!("{}", ended.stdout))).unwrap();
    let (report, _) = exact::read(&json);
    check_sites(&report, &truth);
}

/// Each site's reported time against what the workload measured.
fn check_sites(report: &Report, truth: &Value) {
    let sites = truth.as_object().unwrap();
    assert!(!sites.is_empty(), "the workload called no site");
    let off: Vec<String> = sites
        .iter()
        .filter_map(|(function, sum)| {
            let percent = percent_off(report.time_in(function), number(&sum["total_ns"]));
            println!("{function}: {percent:+.3} % in {} calls", sum["count"]);
            (percent.abs() > WITHIN_PERCENT).then(|| format!("{function} {percent:+.2} %"))
        })
        .collect();
    assert!(off.is_empty(), "{}", off.join(", "));
}
