//! What could not be said by name, and where the names would come from.

use super::page::Page;
use crate::{
    analysis::{Report, report::NamelessModule},
    render::quantity::time,
};

/// Writes a paragraph about the file whose missing names concern the most waiting.
pub fn write(report: &Report, page: &mut Page) {
    let Some(module) = report.quality.nameless.first() else { return };
    let NamelessModule { module: path, build_id, inferred_ns, unknown_ns } = module;
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut parts = Vec::new();
    if *inferred_ns > 0 {
        parts.push(format!(
            "what {} of its waiting mean is inferred from the structure of its stacks",
            time(*inferred_ns)
        ));
    }
    if *unknown_ns > 0 {
        parts.push(format!("{} are unknown", time(*unknown_ns)));
    }
    let file = match build_id {
        Some(id) if id.len() > 2 => {
            format!("put its unstripped file at DIR/.build-id/{}/{}.debug", &id[..2], &id[2..])
        }
        _ => "it has no build-id: record one that has its symbols, or link it with one".to_owned(),
    };
    page.line("");
    page.prose(
        "",
        &format!(
            "{name} is stripped: {}. For names {file}: `stallscope report FILE.stall --debug-dir DIR`.",
            parts.join(", ")
        ),
    );
}
