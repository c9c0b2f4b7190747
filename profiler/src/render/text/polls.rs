//! Tasks that hold a worker for long at a time, and what they do meanwhile.

use super::page::Page;
use crate::{
    analysis::{Report, report::LongPolls},
    render::quantity::{count, shares, time},
};

/// How many tasks are listed; the JSON has them all.
const LISTED: usize = 5;

/// Writes the tasks with the most time in long polls.
pub fn write(report: &Report, page: &mut Page) {
    if report.long_polls.is_empty() {
        return;
    }
    let long = time(report.long_poll_ns);
    page.heading(&format!("Tasks that kept a worker for {long} and longer"));
    for polls in report.long_polls.iter().take(LISTED) {
        of_task(report, polls, page);
    }
    if let Some(rest) = report.long_polls.len().checked_sub(LISTED).filter(|rest| *rest > 0) {
        page.line(&format!("  and {} more tasks", count(rest as u64)));
    }
    if report.long_polls.iter().any(|polls| polls.certain < polls.count) {
        page.prose(
            "  ",
            &format!(
                "Where no single wait is that long, it was one poll or several of the same task in \
                 a row. Polls that only compute show with `--on-cpu 99`{}.",
                if report.on_cpu.is_some() { ", as here" } else { "" }
            ),
        );
    }
}

fn of_task(report: &Report, polls: &LongPolls, page: &mut Page) {
    let LongPolls { task, count: times, certain, total_ns, max_ns, .. } = polls;
    let pool = report.pools.iter().find(|pool| pool.id == polls.pool);
    let pool = pool.map_or("", |pool| pool.name.as_str());
    let task = task.as_deref().unwrap_or("[task not known]");
    page.line(&format!("  {:>9}  {task}, on {pool}", time(*total_ns)));
    let parts = [polls.waiting_ns, polls.runnable_ns, polls.running_ns];
    let [waiting, runnable, running] = [0, 1, 2].map(|part| shares(&parts)[part].clone());
    let surely = match certain {
        _ if certain == times => String::new(),
        certain => format!(", {} of them surely one poll", count(*certain)),
    };
    page.prose(
        "             ",
        &format!(
            "{} times{surely}, longest {}; {waiting} waiting, {runnable} wanting a CPU, {running} \
             on one",
            count(*times),
            time(*max_ns)
        ),
    );
}
