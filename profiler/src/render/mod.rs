//! A report to bytes: one function a format, one list of formats.
//!
//! Adds no meaning and opens no file.

mod folded;
mod json;
mod names;
mod quantity;
mod svg;
mod text;

use std::{io::Write, path::Path};

use crate::analysis::Report;

pub use quantity::{count, share, time};
pub use text::{Style, snapshot, summary};

/// A format that a report can be written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Flame graph, for a browser.
    Svg,
    /// Folded stacks: one line a stack, for scripts and flame graph tools.
    Folded,
    /// The whole report, schema `stallscope.report/1`.
    Json,
    /// The summary that the terminal shows.
    Text,
}

/// Writes a report in one format. The report is taken as it is: selecting comes before.
pub type Render = fn(&Report, &mut dyn Write) -> anyhow::Result<()>;

impl Format {
    /// Every format.
    pub const ALL: &'static [Self] = &[Self::Svg, Self::Folded, Self::Json, Self::Text];

    /// The file name extension that asks for it.
    pub const fn extension(self) -> &'static str {
        match self {
            Self::Svg => "svg",
            Self::Folded => "folded",
            Self::Json => "json",
            Self::Text => "txt",
        }
    }

    /// The format that the extension of `path` asks for.
    pub fn of(path: &Path) -> Option<Self> {
        let extension = path.extension()?.to_str()?;
        Self::ALL.iter().copied().find(|format| format.extension() == extension)
    }

    /// The function that writes it.
    pub const fn render(self) -> Render {
        match self {
            Self::Svg => svg::render,
            Self::Folded => folded::render,
            Self::Json => json::render,
            Self::Text => text::render,
        }
    }

    /// Whether it shows a choice of states where none were selected.
    ///
    /// A picture of everything is mostly idle threads. The summary and the JSON weigh the states
    /// against each other and need them all.
    pub const fn is_picture(self) -> bool {
        matches!(self, Self::Svg | Self::Folded)
    }
}
