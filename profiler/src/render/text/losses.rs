//! What did not reach the report whole.

use std::cmp::Reverse;

use profiler_common::counter::Counter;

use super::page::Page;
use crate::{
    analysis::{
        Report,
        report::{KERNEL_HIDDEN, UserStacks},
    },
    recording::Why,
    render::quantity::{count, share, time},
};

/// Reasons of incomplete stacks that are told, the most frequent first.
const REASONS_SHOWN: usize = 3;

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
    whole &= stacks(&quality.user_stacks, whole, page);
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

/// Writes how many stacks are complete, unless that is said with everything else, and what the others
/// lack. Returns whether all are.
fn stacks(stacks: &UserStacks, all_else_whole: bool, page: &mut Page) -> bool {
    let UserStacks { complete, truncated, broken, missing, by_frame_pointer, why } = stacks;
    let cut = truncated + broken + missing;
    let all = cut + complete;
    if cut > 0 {
        let text = format!(
            "{} of {} user stacks are complete: {} truncated at the root, {} broken on the way, {} \
             missing.",
            share(*complete, all),
            count(all),
            count(*truncated),
            count(*broken),
            count(*missing),
        );
        page.prose("  ", &text);
    } else if !all_else_whole && all > 0 {
        page.prose("  ", &format!("All {} user stacks are complete.", count(all)));
    }
    let mut reasons: Vec<_> = why.iter().collect();
    reasons.sort_by_key(|(name, n)| (Reverse(**n), *name));
    for (name, n) in reasons.into_iter().take(REASONS_SHOWN) {
        // A reason of a newer recorder has a name and no meaning here.
        let known = Why::ALL.iter().find(|why| why.name() == name);
        let meaning = known.map_or("a reason that this version does not know", |w| w.meaning());
        page.prose("    ", &format!("{} {name}: {meaning}", count(*n)));
    }
    if *by_frame_pointer > 0 {
        let text = format!(
            "{} user stacks lead through code without unwind information, by frame pointer.",
            count(*by_frame_pointer)
        );
        page.prose("  ", &text);
    }
    cut == 0
}
