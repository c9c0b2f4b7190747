//! The words of a picture: title, subtitle, and the picture that has nothing but words.

use std::fmt::Write;

use profiler_common::counter::Counter;

use crate::{
    analysis::{
        Report,
        report::{Pool, State},
    },
    render::{
        folded::value_ns,
        quantity::{count, time},
        text,
    },
};

/// Height of a line of the picture of words.
const LINE: usize = 18;

/// `stallscope: orders-api (pid 4242): blocked off-CPU time, 24.0 s`.
pub fn title(report: &Report) -> String {
    let total_ns = report.sites.iter().map(value_ns).sum();
    format!("stallscope: {}: {}, {}", text::target(report), subject(report), time(total_ns))
}

/// What the widths measure.
fn subject(report: &Report) -> String {
    match report.states.as_slice() {
        [State::Runnable] => "time waiting for a CPU".to_owned(),
        [state] => format!("{} off-CPU time", state.name()),
        states => {
            let names = states.iter().map(|state| state.name()).collect::<Vec<_>>();
            format!("off-CPU time ({})", names.join(", "))
        }
    }
}

/// The pools in the picture, the window, and what is missing from it.
pub fn subtitle(report: &Report) -> String {
    let has_sites = |pool: &&Pool| report.sites.iter().any(|site| site.pool == pool.id);
    let nothing_drawn = report.sites.is_empty();
    let shown = report.pools.iter().filter(|pool| nothing_drawn || has_sites(pool));
    let pools = shown.map(text::pool).collect::<Vec<_>>();
    let pools = match pools.as_slice() {
        [] => "no pool".to_owned(),
        [pool] => format!("pool {pool}"),
        [first, second] => format!("pools {first} and {second}"),
        [first, rest @ ..] => format!("pool {first} and {} more", rest.len()),
    };
    format!("{pools} · {} · {}", text::window(report), quality(report))
}

fn quality(report: &Report) -> String {
    let mut parts = Vec::new();
    if report.quality.unfinished {
        parts.push("unfinished recording".to_owned());
    }
    // Stacks that are cut are counted below, once.
    let cut = [Counter::StacksTruncated.name(), Counter::StacksBroken.name()];
    let losses = report.quality.counters.iter().filter(|(name, _)| !cut.contains(&name.as_str()));
    let lost = losses.map(|(_, n)| n).sum::<u64>();
    if lost > 0 {
        parts.push(format!("{} losses counted", count(lost)));
    }
    let stacks = &report.quality.user_stacks;
    let cut = stacks.truncated + stacks.broken + stacks.missing;
    if cut > 0 {
        let all = cut + stacks.complete;
        parts.push(format!("{} of {} stacks cut or missing", count(cut), count(all)));
    }
    if parts.is_empty() { "nothing lost".to_owned() } else { parts.join(", ") }
}

/// A picture that says in words why there is nothing to draw.
pub fn picture(report: &Report) -> String {
    let mut lines = text::nothing_lines(report);
    lines.insert(0, String::new());
    lines.insert(0, subtitle(report));
    let height = 60 + LINE * lines.len();
    let mut svg = format!(
        "<?xml version=\"1.0\" standalone=\"no\"?>\n\
         <svg version=\"1.1\" width=\"1200\" height=\"{height}\" viewBox=\"0 0 1200 {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n\
         <rect x=\"0\" y=\"0\" width=\"100%\" height=\"{height}\" fill=\"#f8f8f8\"/>\n\
         <text x=\"24\" y=\"34\" font-family=\"sans-serif\" font-size=\"17\">{}</text>\n",
        escaped(&title(report)),
    );
    for (at, line) in lines.iter().enumerate().filter(|(_, line)| !line.is_empty()) {
        let y = 58 + LINE * at;
        writeln!(
            svg,
            "<text x=\"24\" y=\"{y}\" font-family=\"monospace\" font-size=\"13\" \
             xml:space=\"preserve\">{}</text>",
            escaped(line)
        )
        .expect("a String takes every write");
    }
    svg.push_str("</svg>\n");
    svg
}

/// XML text without the characters that mean something or that XML 1.0 forbids.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            _ => safe.push(c),
        }
    }
    safe
}

/// The text with a replacement character for every one that no XML document may hold, escaped or
/// not; one of them makes browsers refuse the whole picture.
pub fn printable(text: &str) -> String {
    let forbidden = |c: char| (c.is_control() && c != '\t') || matches!(c, '\u{fffe}' | '\u{ffff}');
    text.replace(forbidden, "\u{fffd}")
}
