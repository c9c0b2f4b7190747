//! A flame graph for a browser and for a post-mortem.

mod drawing;
mod palette;
mod words;

use std::io::Write;

use super::folded;
use crate::analysis::Report;

/// Writes a picture; where there is nothing to draw, one that says so and what was seen instead.
pub fn render(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    let stacks = folded::stacks(report);
    let picture =
        if stacks.is_empty() { words::picture(report) } else { drawing::picture(report, &stacks)? };
    out.write_all(picture.as_bytes())?;
    Ok(())
}
