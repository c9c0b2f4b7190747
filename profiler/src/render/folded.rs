//! Folded stacks: one line a stack, root first, for scripts and flame graph tools.

use std::{collections::BTreeMap, io::Write};

use super::names::name;
use crate::analysis::{
    Report,
    report::{Frame, FrameKind, Origin, Site, StackQuality, State},
};

/// One field of a folded line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Field {
    /// What stands in the line.
    pub text: String,
    /// What it stands for.
    pub kind: FieldKind,
}

/// What a field stands for, in the order of a picture's legend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FieldKind {
    /// A frame of the program's own code.
    Own,
    /// Inlined code of the program's own.
    OwnInlined,
    /// A frame of somebody else's code.
    Library,
    /// Somebody else's code, inlined.
    LibraryInlined,
    /// Generated or interpreted code.
    Generated,
    /// A kernel function.
    Kernel,
    /// An absence: a frame without a name, a stack that is cut or was not taken.
    Absent,
    /// The pool, the role or the state.
    Group,
}

/// Writes one line a stack, in order of the lines' text.
pub fn render(report: &Report, out: &mut dyn Write) -> anyhow::Result<()> {
    for (fields, micros) in stacks(report) {
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                out.write_all(b";")?;
            }
            out.write_all(field.text.as_bytes())?;
        }
        writeln!(out, " {micros}")?;
    }
    Ok(())
}

/// Every distinct folded stack with its time in whole microseconds, never zero.
///
/// Sites that differ only in what a line does not show (source lines, reasons) are added up before
/// rounding.
pub fn stacks(report: &Report) -> Vec<(Vec<Field>, u64)> {
    let mut total_ns = BTreeMap::<Vec<Field>, u64>::new();
    for site in &report.sites {
        *total_ns.entry(fields(report, site)).or_default() += value_ns(site);
    }
    let rounded = total_ns.into_iter().map(|(fields, ns)| (fields, (ns + 500) / 1000));
    rounded.filter(|(_, micros)| *micros > 0).collect()
}

/// A runnable site never waits: all of its time is run-queue time.
pub fn value_ns(site: &Site) -> u64 {
    match site.state {
        State::Runnable => site.runnable_ns,
        State::Idle | State::Blocked | State::Allowed | State::Unknown => site.total_ns,
    }
}

fn fields(report: &Report, site: &Site) -> Vec<Field> {
    let pool = report.pools.iter().find(|pool| pool.id == site.pool);
    let mut fields = Vec::with_capacity(site.frames.len() + 4);
    fields.push(field(pool.map_or("?", |pool| &pool.name), FieldKind::Group));
    fields.push(field(site.role.name(), FieldKind::Group));
    if report.states.len() > 1 {
        fields.push(field(site.state.name(), FieldKind::Group));
    }
    let marker = match site.stack {
        _ if site.frames.is_empty() => Some("[no stack]"),
        StackQuality::Complete => None,
        StackQuality::Truncated => Some("[truncated]"),
        StackQuality::Broken => Some("[broken]"),
        StackQuality::Missing => Some("[no user stack]"),
    };
    fields.extend(marker.map(|text| field(text, FieldKind::Absent)));
    fields.extend(site.frames.iter().map(|frame| field(&annotated(frame), kind(frame))));
    fields
}

/// The text of a field: what would end the field or the line becomes `:`.
fn field(text: &str, kind: FieldKind) -> Field {
    Field { text: text.replace([';', '\r', '\n'], ":"), kind }
}

fn kind(frame: &Frame) -> FieldKind {
    if frame.function.is_none() {
        return FieldKind::Absent;
    }
    match (frame.kind, frame.origin == Origin::Own) {
        (FrameKind::Kernel, _) => FieldKind::Kernel,
        (FrameKind::Jit | FrameKind::Interpreted, _) => FieldKind::Generated,
        (FrameKind::Native, true) => FieldKind::Own,
        (FrameKind::Native, false) => FieldKind::Library,
        (FrameKind::Inlined, true) => FieldKind::OwnInlined,
        (FrameKind::Inlined, false) => FieldKind::LibraryInlined,
    }
}

fn annotated(frame: &Frame) -> String {
    let suffix = match frame.kind {
        FrameKind::Native => "",
        FrameKind::Inlined => "_[i]",
        FrameKind::Jit | FrameKind::Interpreted => "_[j]",
        FrameKind::Kernel => "_[k]",
    };
    name(frame) + suffix
}
