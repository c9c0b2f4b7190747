//! Lines for a person at a terminal, with nothing in them that a terminal obeys.
//!
//! Names of processes, threads and files are whatever their owners wanted them to be.

use std::io::Write as _;

/// Words of others with every control character replaced.
pub fn printable(words: &str) -> String {
    words.replace(char::is_control, "\u{fffd}")
}

/// Says something on standard error, in one or more lines. A standard error that is closed or full
/// is no reason to end.
pub fn say(text: &str) {
    let lines: Vec<String> = text.lines().map(printable).collect();
    let _ = writeln!(std::io::stderr(), "{}", lines.join("\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_replaced() {
        let check = |words: &str, expected: &str| assert_eq!(printable(words), expected);
        check("worker-1 \u{e9}t\u{e9}", "worker-1 \u{e9}t\u{e9}");
        check("\u{1b}[2Jgone", "\u{fffd}[2Jgone");
        check("two\nlines\r\u{9b}", "two\u{fffd}lines\u{fffd}\u{fffd}");
    }
}
