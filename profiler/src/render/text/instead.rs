//! What was seen where nothing was blocked, and where to look next.

use super::{page::broken, pools::state_times};
use crate::{
    analysis::{
        Report,
        report::{Role, Thread},
    },
    render::quantity::{shares, time},
};

/// A finding is worth its advice above this share of the time.
const NOTABLE_PERCENT: u64 = 5;

/// Why there is nothing to show, what was seen instead and what to do next; broken for reading.
pub fn lines(report: &Report) -> Vec<String> {
    let mut lines = broken("", &reason(report));
    lines.extend(details(report));
    lines
}

/// Why there is nothing to show.
pub fn reason(report: &Report) -> String {
    let times = state_times(judged_threads(report).into_iter());
    if times.iter().any(|(name, ns)| *name == "blocked" && *ns > 0) {
        let states = report.states.iter().map(|state| state.name()).collect::<Vec<_>>().join(", ");
        return format!("Nothing to show: what was selected (states {states}) holds no time.");
    }
    if is_recognised(report) {
        return format!(
            "Nothing was blocked: no worker waited inside a task for {} or longer.",
            time(report.quality.min_block_ns)
        );
    }
    "No async runtime or thread pool was recognised, so no wait can be called blocked.".to_owned()
}

/// What was seen instead and what to do next; broken for reading.
pub fn details(report: &Report) -> Vec<String> {
    let threads = judged_threads(report);
    let times = state_times(threads.iter().copied());
    let wall_ns = threads.iter().map(|thread| thread.wall_ns).sum::<u64>();
    if wall_ns == 0 {
        return broken("", "No thread's time was accounted for; is the recording unfinished?");
    }
    let shares = shares(&times.map(|(_, ns)| ns));
    let mut seen = times.iter().zip(shares).filter(|((_, ns), _)| *ns > 0).collect::<Vec<_>>();
    seen.sort_by_key(|((_, ns), _)| std::cmp::Reverse(*ns));
    let seen = seen.into_iter().map(|((name, _), share)| format!("{name} {share}"));
    let whose = if is_recognised(report) { "workers" } else { "threads" };
    let seen = seen.collect::<Vec<_>>().join(", ");
    let mut lines =
        broken("", &format!("Seen instead, of the {whose}' {}: {seen}.", time(wall_ns)));
    if let Some(ns) = report.quality.throttled_ns.filter(|ns| *ns > 0) {
        let text = format!("The target's cgroup was throttled for {} (CPU quota).", time(ns));
        lines.extend(broken("", &text));
    }
    lines.push(String::new());
    lines.push("Where to look next:".to_owned());
    for advice in advice(report, is_recognised(report), &times, wall_ns) {
        lines.extend(broken("  - ", &advice));
    }
    lines
}

fn is_recognised(report: &Report) -> bool {
    report.pools.iter().any(|pool| pool.runtime != "none")
}

/// The workers of recognised pools; every thread where there are none.
fn judged_threads(report: &Report) -> Vec<&Thread> {
    let all = report.pools.iter().flat_map(|pool| &pool.threads);
    let workers = all.clone().filter(|t| t.role == Role::Worker).collect::<Vec<_>>();
    if workers.is_empty() { all.collect() } else { workers }
}

fn advice(
    report: &Report,
    recognised: bool,
    times: &[(&'static str, u64)],
    wall_ns: u64,
) -> Vec<String> {
    let pid = report.target.pid;
    let notable = |name: &str| {
        let ns = times.iter().find(|(state, _)| *state == name).map_or(0, |(_, ns)| *ns);
        u128::from(ns) * 100 > u128::from(wall_ns) * u128::from(NOTABLE_PERCENT)
    };
    let mut advice = Vec::new();
    let mut say = |when: bool, text: String| advice.extend(when.then_some(text));
    say(
        report.quality.throttled_ns.is_some_and(|ns| ns > 0),
        format!("throttled: raise the CPU quota; `cat /proc/{pid}/cgroup` names the cgroup"),
    );
    say(
        notable("runnable"),
        "runnable: too few CPUs for the load; `stallscope report FILE.stall --state runnable -o cpu.svg`"
            .to_owned(),
    );
    say(
        notable("running"),
        format!(
            "running: a long poll starves tasks as a block does; \
             `sudo stallscope record -p {pid} --on-cpu 99` names the tasks"
        ),
    );
    say(
        notable("short"),
        format!(
            "short: waits too short to be named; `sudo stallscope record -p {pid} --min-block 0`"
        ),
    );
    say(
        notable("unknown"),
        "unknown: stacks or symbols are missing; `stallscope doctor`, and `--debug-dir` for split \
         debug information"
            .to_owned(),
    );
    say(
        notable("allowed"),
        if recognised {
            "allowed: waits in the right place can still be too long; \
             `stallscope report FILE.stall --state allowed -o allowed.svg`"
                .to_owned()
        } else {
            "allowed: the longest waits follow, whether they are wrong only you can tell".to_owned()
        },
    );
    say(
        notable("idle"),
        "idle: the workers had nothing to do, so latency comes from what the tasks await: another \
         service, a timer, a lock of the runtime"
            .to_owned(),
    );
    if advice.is_empty() {
        advice.push("record for longer, and under load".to_owned());
    }
    advice
}
