//! The summary: what an engineer in an incident reads first.
//!
//! Answers come first, then the places, then where all the time went, then what is missing.

mod instead;
mod locks;
mod losses;
mod nameless;
mod page;
mod polls;
mod pools;
mod sites;
mod snapshot;
mod spots;
mod verdict;
mod wakers;
mod windows;

use std::io::Write;

use super::quantity::{count, time};
use crate::analysis::{
    Report,
    report::{EndReason, Pool},
};

pub use instead::lines as nothing_lines;
use page::Page;
pub use snapshot::snapshot;

/// How the summary may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Text only, for a file or a pipe.
    Plain,
    /// With colours, for a terminal.
    Terminal,
}

/// Writes the summary as a file holds it.
pub fn render(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    summary(report, out, Style::Plain)
}

/// Writes the summary.
pub fn summary(report: &Report, out: &mut dyn Write, style: Style) -> anyhow::Result<()> {
    let mut page = Page::default();
    verdict::headline(report, &mut page);
    page.line("");
    let about = [
        target(report),
        window(report),
        format!("{} CPUs", count(report.host.cpus.into())),
        format!("kernel {}", report.host.kernel),
    ];
    page.prose("", &about.join(", "));
    if report.quality.unfinished {
        page.warning(
            "The recording was not finished in good order: the recorder was killed or could not \
             write. What it holds up to then is here; totals are a lower bound.",
        );
    }
    match report.quality.end {
        Some(EndReason::MaxSize) => page.warning(
            "The recording ended early: its file reached --max-size. Up to then it is whole.",
        ),
        Some(EndReason::WriteFailed) => page.warning(
            "The recording ended early: its disk was full or could not be written. Up to then it \
             is whole.",
        ),
        Some(EndReason::Duration | EndReason::Interrupt | EndReason::TargetEnded) | None => {}
    }
    verdict::details(report, &mut page);
    nameless::write(report, &mut page);
    sites::write(report, &mut page);
    locks::write(report, &mut page);
    windows::write(report, &mut page);
    polls::write(report, &mut page);
    pools::write(report, &mut page);
    losses::write(report, &mut page);
    out.write_all(page.finish(style).as_bytes())?;
    Ok(())
}

/// `orders-api (pid 4242)`.
pub fn target(report: &Report) -> String {
    let exe = &report.target.exe;
    format!("{} (pid {})", exe.rsplit('/').next().unwrap_or(exe), report.target.pid)
}

/// `tokio-runtime-worker (tokio, 4 workers)`.
pub fn pool(pool: &Pool) -> String {
    match (pool.runtime.as_str(), pool.workers) {
        ("none", _) => format!("{} (no runtime)", pool.name),
        (runtime, 1) => format!("{} ({runtime}, 1 worker)", pool.name),
        (runtime, workers) => format!("{} ({runtime}, {workers} workers)", pool.name),
    }
}

/// `10.0 s from 2026-03-01T12:00:00Z`.
pub fn window(report: &Report) -> String {
    format!("{} from {}", time(report.window.duration_ns), start(report))
}

/// `2026-03-01T12:00:00Z`.
fn start(report: &Report) -> String {
    let start = &report.window.start;
    start.split_once('.').map_or(start.clone(), |(second, _)| format!("{second}Z"))
}
