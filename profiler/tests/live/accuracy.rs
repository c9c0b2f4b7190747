//! What is reported is what the workload measured with the clock.

use serde_json::Value;
use tempfile::tempdir;

use crate::support::{
    process::{Recorder, Workload},
    report::{Report, number},
};

/// How far a call site may be off, in parts of a hundred.
const WITHIN_PERCENT: f64 = 2.0;

#[test]
fn waiting_and_run_queue_time_of_each_call_site_is_what_it_measured() {
    let out = tempdir().unwrap();
    let json = out.path().join("truth.json");
    let mut workload = Workload::start(&["truth"]);
    let pid = workload.pid().to_string();
    let recorder = Recorder::start(&["-p", &pid, "-o", json.to_str().unwrap()]);
    workload.go();
    std::thread::sleep(std::time::Duration::from_secs(5));
    let truth = workload.stop();
    recorder.interrupt().expect_success();
    check_sites(&Report::read(&json), &truth);
}

/// Each site's reported time against what the workload measured.
fn check_sites(report: &Report, truth: &Value) {
    let sites = truth.as_object().unwrap();
    assert!(!sites.is_empty(), "the workload called no site");
    let off: Vec<String> = sites
        .iter()
        .filter_map(|(function, sum)| {
            let measured = number(&sum["total_ns"]) as f64;
            let reported = report.time_in(function) as f64;
            let percent = (reported - measured) / measured * 100.0;
            println!("{function}: {percent:+.3} % of {measured} ns");
            (percent.abs() > WITHIN_PERCENT).then(|| format!("{function} {percent:+.2} %"))
        })
        .collect();
    assert!(off.is_empty(), "{}", off.join(", "));
}
