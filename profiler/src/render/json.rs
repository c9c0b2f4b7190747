//! The whole report as JSON, schema `stallscope.report/1`.

use std::io::Write;

use anyhow::Context;

use crate::analysis::Report;

/// Writes one line: reports have thousands of frames, and `jq` makes them readable.
pub fn render(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, report).context("cannot write the report as JSON")?;
    out.write_all(b"\n")?;
    Ok(())
}
