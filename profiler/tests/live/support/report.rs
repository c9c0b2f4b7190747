//! Reads of a report in JSON, and what must hold of every one.

use std::{fs, path::Path};

use serde_json::Value;

/// States whose sites must add up to the threads' times.
const NAMED: &[&str] = &["idle", "blocked", "allowed", "unknown"];

/// A report in JSON.
pub struct Report(pub Value);

impl Report {
    /// Reads a report and checks what must hold of every one: each thread's states add up to its
    /// wall time, and each pool's sites to its threads' states, to the nanosecond.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let report = Self(serde_json::from_str(&text).unwrap());
        report.check_sums();
        report
    }

    /// Every thread.
    pub fn threads(&self) -> impl Iterator<Item = &Value> {
        list(&self.0["pools"]).iter().flat_map(|pool| list(&pool["threads"]))
    }

    /// The thread of this id.
    pub fn thread(&self, tid: u64) -> &Value {
        self.threads().find(|thread| thread["tid"] == tid).unwrap_or_else(|| panic!("no {tid}"))
    }

    /// Every site.
    pub fn sites(&self) -> &[Value] {
        list(&self.0["sites"])
    }

    /// The sites with a function whose name contains `function` in their stack.
    pub fn sites_in<'report>(
        &'report self,
        function: &'report str,
    ) -> impl Iterator<Item = &'report Value> {
        self.sites().iter().filter(move |site| {
            list(&site["frames"])
                .iter()
                .any(|frame| frame["function"].as_str().is_some_and(|name| name.contains(function)))
        })
    }

    /// Waiting and run-queue time of those sites.
    pub fn time_in(&self, function: &str) -> u64 {
        self.sites_in(function)
            .map(|site| number(&site["total_ns"]) + number(&site["runnable_ns"]))
            .sum()
    }

    /// A counter of the report's quality.
    pub fn counter(&self, name: &str) -> u64 {
        let counter = &self.0["quality"]["counters"][name];
        assert!(counter.is_u64(), "no counter {name}");
        number(counter)
    }

    fn check_sums(&self) {
        for thread in self.threads() {
            let states = ["running", "runnable", "idle", "blocked", "allowed", "short", "unknown"];
            let sum: u64 = states.iter().map(|state| number(&thread[format!("{state}_ns")])).sum();
            assert_eq!(sum, number(&thread["wall_ns"]), "{thread}");
        }
        for pool in list(&self.0["pools"]) {
            for state in NAMED {
                let threads: u64 = list(&pool["threads"])
                    .iter()
                    .map(|thread| number(&thread[format!("{state}_ns")]))
                    .sum();
                let sites: u64 = self
                    .sites()
                    .iter()
                    .filter(|site| site["pool"] == pool["id"] && site["state"] == **state)
                    .map(|site| number(&site["total_ns"]))
                    .sum();
                assert_eq!(sites, threads, "{state} of pool {}", pool["name"]);
            }
        }
    }
}

/// An integer of a report.
pub fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not an integer"))
}

/// An array of a report.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap_or_else(|| panic!("{value} is not an array"))
}
