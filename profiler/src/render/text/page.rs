//! Lines of a summary under construction: widths and colours.

use super::Style;

/// Width that prose is broken at: fits terminals of 80 to 120 columns with a margin.
const WIDTH: usize = 96;

/// Ends what a [`Mark`] began. Marks are characters of the private use area until the page is
/// done, so that every control character in a line is one of the target's and can be replaced.
const END: char = '\u{e000}';

/// How a piece of text is marked on a terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// What to read first.
    Strong,
    /// What is wrong.
    Bad,
    /// What to read last.
    Faint,
}

impl Mark {
    const ALL: [Self; 3] = [Self::Strong, Self::Bad, Self::Faint];

    const fn begin(self) -> char {
        match self {
            Self::Strong => '\u{e001}',
            Self::Bad => '\u{e002}',
            Self::Faint => '\u{e003}',
        }
    }

    const fn escape(self) -> &'static str {
        match self {
            Self::Strong => "\x1b[1m",
            Self::Bad => "\x1b[1;31m",
            Self::Faint => "\x1b[2m",
        }
    }
}

/// `text`, marked.
pub fn marked(mark: Mark, text: &str) -> String {
    format!("{}{text}{END}", mark.begin())
}

/// The text so far.
#[derive(Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// Everything written, as a terminal or a file wants it.
    pub fn finish(self, style: Style) -> String {
        let mut text = self.text;
        for mark in Mark::ALL {
            text = match style {
                Style::Plain => text.replace(mark.begin(), ""),
                Style::Terminal => text.replace(mark.begin(), mark.escape()),
            };
        }
        text.replace(END, if style == Style::Terminal { "\x1b[0m" } else { "" })
    }

    /// One line as it is, whatever its width: names are never cut or broken. Control characters
    /// in a name must not reach a terminal.
    pub fn line(&mut self, line: &str) {
        self.text.push_str(&line.replace(char::is_control, "\u{fffd}"));
        self.text.push('\n');
    }

    /// An empty line and a title.
    pub fn heading(&mut self, title: &str) {
        if !self.text.is_empty() {
            self.text.push('\n');
        }
        self.line(&marked(Mark::Strong, title));
    }

    /// A paragraph, broken at spaces; see [`broken`].
    pub fn prose(&mut self, start: &str, text: &str) {
        for line in broken(start, text) {
            self.line(&line);
        }
    }

    /// A paragraph that must not be overlooked.
    pub fn warning(&mut self, text: &str) {
        for line in broken("", text) {
            self.line(&marked(Mark::Bad, &line));
        }
    }
}

/// Lines of at most [`WIDTH`] characters, where words allow it. The first begins with `start`, the
/// others with spaces as wide. Text between backquotes is one word: a command that is broken cannot
/// be copied.
pub fn broken(start: &str, text: &str) -> Vec<String> {
    let indent = " ".repeat(start.chars().count());
    let mut lines = Vec::new();
    let mut line = start.to_owned();
    let mut empty = true;
    for word in words(text) {
        if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
            lines.push(std::mem::replace(&mut line, indent.clone()));
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    lines.push(line);
    lines
}

fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quoted) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '`' => quoted = !quoted,
            ' ' if !quoted && !starts_with_unit(&text[at + 1..]) => {
                words.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    words.push(&text[start..]);
    words.retain(|word| !word.is_empty());
    words
}

/// Whether the next word is the unit of the number before it, which it must stay with.
fn starts_with_unit(text: &str) -> bool {
    let word = text.split(' ').next().unwrap_or_default().trim_end_matches(['.', ',', ';', ')']);
    ["%", "ns", "µs", "ms", "s"].contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_broken_at_spaces_but_not_within_commands() {
        let long = "word ".repeat(18) + "`stallscope record -p 1`, and more";
        let lines = broken("- ", &long);
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(lines[1].starts_with("  `stallscope record -p 1`, and"), "{lines:#?}");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn a_number_is_not_parted_from_its_unit() {
        // The number alone would still fit.
        let full = "x".repeat(WIDTH - " 0.1".len());
        assert_eq!(broken("", &format!("{full} 0.1 %. More")), [full, "0.1 %. More".to_owned()]);
    }

    #[test]
    fn names_cannot_send_escape_sequences() {
        let mut page = Page::default();
        page.heading("evil\x1b[2Jname");
        assert_eq!(page.finish(Style::Terminal), "\x1b[1mevil\u{fffd}[2Jname\x1b[0m\n");
    }
}
