//! What did not reach the report whole.

use profiler_common::counter::Counter;

use super::page::Page;
use crate::{
    analysis::{Report, report::KERNEL_HIDDEN},
    render::quantity::{count, share, time},
};

/// Writes every counter that is not zero with its meaning, stacks that are not whole, and the cost.
pub fn write(report: &Report, page: &mut Page) {
    page.heading("What was lost");
    let quality = &report.quality;
    let mut whole = true;
    for (name, n) in quality.counters.iter().filter(|(_, n)| **n > 0) {
        whole = false;
        // A counter of a newer recorder has a name and no meaning here.
        let known = Counter::ALL.iter().find(|counter| counter.name() == name);
        let meaning = known.map_or("a counter that this version does not know", |c| c.meaning());
        page.prose("  ", &format!("{} {name}: {meaning}", count(*n)));
    }
    let stacks = quality.user_stacks;
    let cut = stacks.truncated + stacks.broken + stacks.missing;
    if cut > 0 {
        whole = false;
        let all = cut + stacks.complete;
        let text = format!(
            "{} of {} user stacks are not whole ({}): {} truncated at the root, {} broken on the way, \
             {} missing.",
            count(cut),
            count(all),
            share(cut, all),
            count(stacks.truncated),
            count(stacks.broken),
            count(stacks.missing),
        );
        page.prose("  ", &text);
    }
    let hidden = report.sites.iter().any(|site| {
        site.frames.iter().any(|frame| frame.missing.as_deref() == Some(KERNEL_HIDDEN))
    });
    if hidden {
        whole = false;
        page.prose(
            "  ",
            "The names of the kernel's functions, hidden from the recorder: with them the reasons of \
             some waits. Record with sudo or CAP_SYSLOG; `stallscope doctor`.",
        );
    }
    if quality.unfinished {
        whole = false;
        page.prose("  ", "The end: the recording is unfinished.");
    }
    if whole {
        page.prose(
            "  ",
            &format!(
                "Nothing: {} intervals of {} and longer, every stack whole, every counter zero.",
                count(quality.intervals),
                time(quality.min_block_ns),
            ),
        );
    }
    let cost = &quality.observer;
    let bpf = cost.bpf_ns.map_or(String::new(), |ns| format!(", its kernel programs {}", time(ns)));
    page.prose(
        "  ",
        &format!(
            "The recorder used {} of CPU and {} MiB{bpf}; stacks taken at {}.",
            time(cost.cpu_ns),
            cost.max_rss_bytes.div_ceil(1 << 20),
            quality.hook,
        ),
    );
}
