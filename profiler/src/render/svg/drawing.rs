//! The flame graph itself: inferno draws it, this says in which order and colours.

use std::{cmp::Reverse, collections::BTreeSet, fmt::Write};

use anyhow::Context;
use inferno::flamegraph::{
    self, Direction, Options, TextTruncateDirection,
    color::{BackgroundColor, Color, PaletteMap, StrokeColor},
};

use super::{palette, words};
use crate::{
    analysis::Report,
    render::{
        folded::{Field, FieldKind},
        quantity::time,
    },
};

/// Stands for the unit in inferno's hover texts until the numbers before it are made human. It is
/// of the private use area, where no name has a character.
const UNIT: char = '\u{e000}';

/// Frames narrower than this many percent are not drawn: less than a pixel on most screens.
const MIN_WIDTH_PERCENT: f64 = 0.05;

/// The background.
const PAPER: Color = Color { r: 0xf8, g: 0xf8, b: 0xf8 };

/// Height of the legend under the frames.
const LEGEND_HEIGHT: usize = 28;

/// One stack and its time in microseconds.
type Stack = (Vec<Field>, u64);

/// Draws `stacks`, which must not be empty.
pub fn picture(report: &Report, stacks: &[Stack]) -> anyhow::Result<String> {
    let (lines, kinds) = lines(stacks);
    let mut colors = PaletteMap::default();
    colors.insert("", palette::color(FieldKind::Group));
    for (text, kind) in &kinds {
        colors.insert(text, palette::color(*kind));
    }

    let mut options = Options::default();
    options.title = words::printable(&words::title(report));
    options.subtitle = Some(words::printable(&words::subtitle(report)));
    options.count_name = UNIT.to_string();
    options.name_type = String::new();
    options.min_width = MIN_WIDTH_PERCENT;
    options.bgcolors = Some(BackgroundColor::Flat(PAPER));
    // One colour a kind leaves neighbours of one kind to be told apart by a gap.
    options.stroke_color = StrokeColor::Color(PAPER);
    options.palette_map = Some(&mut colors);
    // Async stacks are sixty frames deep and browsers open at the top: with the root on top the
    // pool, the shares and the own code are seen without scrolling, and the line that explains the
    // frame under the pointer stays in sight.
    options.direction = Direction::Inverted;
    // The end of a Rust path names the function; its beginning repeats the parent's.
    options.text_truncate_direction = TextTruncateDirection::Left;
    // inferno's own order is that of the lines' bytes, in which ` ` and `-` sort before `;` and
    // tear a frame in two. A flame chart keeps the order it is given, last line first.
    options.flame_chart = true;

    let mut svg = Vec::new();
    flamegraph::from_lines(&mut options, lines.iter().rev().map(String::as_str), &mut svg)
        .context("cannot draw the flame graph")?;
    let svg = String::from_utf8(svg).context("cannot draw the flame graph")?;
    let present = kinds.into_iter().map(|(_, kind)| kind).collect();
    with_legend(&with_human_times(&svg), &present)
}

/// Folded lines, the heaviest sibling first, and the kind of every text in them.
fn lines(stacks: &[Stack]) -> (Vec<String>, BTreeSet<(String, FieldKind)>) {
    let mut kinds = BTreeSet::new();
    let mut rows = Vec::with_capacity(stacks.len());
    for (fields, micros) in stacks {
        let texts =
            fields.iter().enumerate().map(|(at, field)| drawable(field, at)).collect::<Vec<_>>();
        kinds.extend(texts.iter().cloned().zip(fields.iter().map(|field| field.kind)));
        rows.push((texts, *micros));
    }
    let mut lines = Vec::with_capacity(rows.len());
    let mut row_refs = rows.iter().collect::<Vec<_>>();
    heaviest_first(&mut row_refs, 0, &mut |texts, micros| {
        lines.push(format!("{} {micros}", texts.join(";")));
    });
    (lines, kinds)
}

/// The text of a field as inferno reads it back unchanged.
///
/// inferno takes a first field that begins with `# ` for a comment, trims lines, and takes a last
/// word of digits for the count of a comparison. A no-break space looks the same and is none.
fn drawable(field: &Field, at: usize) -> String {
    let mut text = words::printable(&field.text);
    let last_word = text.rsplit(' ').next().unwrap_or_default();
    let like_a_count = last_word.chars().all(|c| c.is_ascii_digit() || c == '.');
    if at == 0 || like_a_count {
        text = text.replace(' ', "\u{a0}");
    }
    text
}

/// Visits rows depth first, siblings by falling time and then by name.
fn heaviest_first(
    rows: &mut [&(Vec<String>, u64)],
    depth: usize,
    visit: &mut impl FnMut(&[String], u64),
) {
    rows.sort_by(|a, b| a.0.get(depth).cmp(&b.0.get(depth)));
    let mut siblings =
        rows.chunk_by_mut(|a, b| a.0.get(depth) == b.0.get(depth)).collect::<Vec<_>>();
    siblings.sort_by_key(|rows| Reverse(rows.iter().map(|row| row.1).sum::<u64>()));
    for rows in siblings {
        if rows.len() == 1 || rows[0].0.len() <= depth {
            for row in rows {
                visit(&row.0, row.1);
            }
        } else {
            heaviest_first(rows, depth + 1, visit);
        }
    }
}

/// Replaces every `1,234,567 UNIT` by `1.23 s`.
fn with_human_times(svg: &str) -> String {
    let mut human = String::with_capacity(svg.len());
    let mut parts = svg.split(UNIT).peekable();
    while let Some(part) = parts.next() {
        let number = part.trim_end_matches(|c: char| c == ' ' || c == ',' || c.is_ascii_digit());
        let digits = part[number.len()..].replace([' ', ','], "");
        match digits.parse::<u64>() {
            Ok(micros) if parts.peek().is_some() => {
                human.push_str(number);
                human.push_str(&time(micros * 1000));
            }
            _ => human.push_str(part),
        }
    }
    human
}

/// Makes room under the frames and explains the colours that occur.
///
/// inferno has no legend; of its output this knows the three places that state the height.
fn with_legend(svg: &str, kinds: &BTreeSet<FieldKind>) -> anyhow::Result<String> {
    let (head, _) = svg.split_once("\" onload=").context("the flame graph has no header")?;
    let height = head.rsplit('"').next().unwrap_or_default();
    let drawn = height.parse::<usize>().context("the flame graph has no height")?;
    let total = drawn + LEGEND_HEIGHT;
    let mut svg = svg
        .replacen(&format!("height=\"{height}\""), &format!("height=\"{total}\""), 1)
        .replacen(&format!("0 0 1200 {height}\""), &format!("0 0 1200 {total}\""), 1)
        .replacen(
            &format!("width=\"100%\" height=\"{height}\""),
            &format!("width=\"100%\" height=\"{total}\""),
            1,
        );
    svg.truncate(svg.trim_end().len() - "</svg>".len());
    let mut x = 10;
    for kind in kinds {
        let Color { r, g, b } = palette::color(*kind);
        let name = palette::name(*kind);
        write!(
            svg,
            "<rect x=\"{x}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"rgb({r},{g},{b})\" \
             stroke=\"#888888\" stroke-width=\"0.5\"/><text x=\"{}\" y=\"{}\">{name}</text>",
            drawn,
            x + 18,
            drawn + 10,
        )
        .expect("a String takes every write");
        // Monospaced text of inferno's font size is a little over seven pixels a character.
        x += 18 + 8 * name.len() + 16;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}
