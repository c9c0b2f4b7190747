//! What threads wait on, held against what it is.

use std::{collections::BTreeSet, process::Command, time::Duration};

use serde_json::Value;

use crate::support::{
    exact::observe,
    process::{Workload, workload},
    report::{Report, list, number},
};

const LENGTH: Duration = Duration::from_secs(3);

/// How many of the waits must be on the right thing, in parts of a hundred.
const RIGHT_PERCENT: f64 = 99.0;

/// Too few waits to tell anything.
const FEW: u64 = 5;

#[test]
fn waits_are_on_what_they_are_on() {
    let mut workload = Workload::start(&["objects"]);
    let observed = observe(&mut workload, &[], LENGTH);
    check(&observed.report, &observed.truth);
}

/// Addresses, paths and other sides are those of its own namespaces.
#[test]
fn waits_of_a_target_in_namespaces_of_its_own_are_too() {
    let script =
        r#"mount -t tmpfs none /mnt && ip link set lo up && TMPDIR=/mnt exec "$0" objects"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "--net", "sh", "-c", script]).arg(workload());
    let mut workload = Workload::start_as(command);
    let observed = observe(&mut workload, &[], LENGTH);
    check(&observed.report, &observed.truth);
}

#[test]
fn what_is_redacted_is_not_in_the_recording() {
    let mut workload = Workload::start(&["objects"]);
    let observed = observe(&mut workload, &["--redact"], Duration::from_secs(1));
    let private = format!("objects-{}", workload.pid());
    for fact in observed.recording.objects.values() {
        assert!(!format!("{fact:?}").contains(&private), "{fact:?}");
    }
    let command = &observed.recording.session.target.command;
    assert_eq!(command[1..], ["[redacted]"], "{command:?}");
    let files = observed.report.sites_in("objects::read_fifo");
    let names: Vec<&Value> = files.flat_map(|site| list(&site["objects"])).collect();
    let is_numbered =
        |object: &&Value| object["name"].as_str().is_some_and(|name| name.starts_with("[path "));
    assert!(!names.is_empty() && names.iter().all(is_numbered), "{names:#?}");
}

fn check(report: &Report, truth: &Value) {
    for (function, truth) in truth.as_object().unwrap() {
        let name = format!("objects::{function}");
        let sites: Vec<&Value> = report.sites_in(&name).collect();
        let waits = sites.iter().filter(|site| site["state"] != "runnable");
        let count: u64 = waits.map(|site| number(&site["count"])).sum();
        let objects = || sites.iter().flat_map(|site| list(&site["objects"]));
        let right: u64 = objects()
            .filter(|object| is_right(object, truth))
            .map(|object| number(&object["count"]))
            .sum();
        println!("{function}: {right} of {count} are right");
        assert!(count >= FEW, "{function}: {sites:#?}");
        // Of many things only the first few are named.
        let of = if list(&truth["names"]).len() > FEW as usize && truth["kind"] == "process" {
            objects().map(|object| number(&object["count"])).sum()
        } else {
            count
        };
        let percent = 100.0 * right as f64 / of as f64;
        let found: Vec<&Value> = objects().collect();
        assert!(percent >= RIGHT_PERCENT, "{function}: {percent:.2} %: {found:#?}, {truth}");
        check_wakers(function, &sites, of, &truth["waker"]);
    }
}

/// The right one ended the waits, of which there are `count`. One may be open at the end.
fn check_wakers(function: &str, sites: &[&Value], count: u64, truth: &Value) {
    let wakers = || sites.iter().flat_map(|site| list(&site["wakers"]));
    let is_right = |waker: &&Value| {
        let pids = list(&truth["pids"]);
        waker["kind"] == truth["kind"]
            && (pids.is_empty() || pids.contains(&waker["pid"]) && waker["name"] == truth["name"])
    };
    let right: u64 = wakers().filter(is_right).map(|waker| number(&waker["count"])).sum();
    println!("{function}: {right} of {count} were ended by the right one");
    let percent = 100.0 * right as f64 / (count - 1) as f64;
    let found: Vec<&Value> = wakers().collect();
    assert!(percent >= RIGHT_PERCENT, "{function}: {percent:.2} %: {found:#?}, {truth}");
}

/// The thread that ends the waits waits for something itself, and so on: the chain is told, and with
/// stacks where each of them ended the waits.
#[test]
fn what_the_waker_waited_for_is_told() {
    let mut workload = Workload::start(&["objects"]);
    let observed = observe(&mut workload, &["--wakers", "stack"], LENGTH);
    let report = &observed.report;
    let names = |frames: &Value| -> Vec<String> {
        let names = list(frames).iter().map(|frame| frame["function"].to_string());
        names.collect()
    };
    let has = |frames: &Value, function: &str| names(frames).iter().any(|f| f.contains(function));
    // What is waited for, where its waker waits meanwhile, and where it ends the wait.
    for (waits, meanwhile, ends) in [
        ("read_v4", "clock_nanosleep", "write_paced"),
        ("read_v6", "clock_nanosleep", "write_paced"),
        ("lock_file", "clock_nanosleep", "hold_file"),
        ("lock_mutex", "clock_nanosleep", "MutexGuard"),
    ] {
        let function = format!("objects::{waits}");
        let sites: Vec<&Value> = report.sites_in(&function).collect();
        let total: u64 = sites.iter().map(|site| number(&site["total_ns"])).sum();
        let wakers: Vec<&Value> = sites.iter().flat_map(|site| list(&site["wakers"])).collect();
        let ended_there = wakers.iter().filter(|waker| has(&waker["frames"], ends));
        let ended_ns: u64 = ended_there.map(|waker| number(&waker["total_ns"])).sum();
        assert!(ended_ns * 100 >= total * 99, "{waits}: {ended_ns} of {total}: {wakers:#?}");
        let chains = wakers.iter().flat_map(|waker| list(&waker["chains"]));
        let meanwhile_ns: u64 = chains
            .filter(|chain| {
                let first = number(&list(&chain["sites"])[0]) as usize;
                has(&list(&report.0["sites"])[first]["frames"], meanwhile)
            })
            .map(|chain| number(&chain["total_ns"]))
            .sum();
        println!("{waits}: {total} ns, of which the waker waited {meanwhile_ns}");
        assert!(meanwhile_ns * 10 >= total * 9, "{waits}: {meanwhile_ns} of {total}: {wakers:#?}");
    }
    for counter in ["wakers_dropped", "stacks_broken", "stacks_truncated"] {
        assert_eq!(report.counter(counter), 0, "{counter}");
    }
}

#[test]
fn without_wakers_nothing_is_told_of_them() {
    let mut workload = Workload::start(&["objects"]);
    let observed = observe(&mut workload, &["--wakers", "none"], Duration::from_secs(1));
    assert!(observed.recording.wakers.is_empty());
    let sites = list(&observed.report.0["sites"]);
    assert!(sites.iter().all(|site| list(&site["wakers"]).is_empty()));
}

fn is_right(object: &Value, truth: &Value) -> bool {
    let names = list(&truth["names"]);
    let pids = |of: &[Value]| of.iter().map(number).collect::<BTreeSet<u64>>();
    let found: BTreeSet<u64> =
        list(&object["peers"]).iter().map(|peer| number(&peer["pid"])).collect();
    object["kind"] == truth["kind"]
        && (names.is_empty() || names.contains(&object["name"]))
        && found == pids(list(&truth["peers"]))
        && object["reused"] == false
}
