//! Says what this kernel and these rights allow, and which command mends what they do not.

mod facts;
mod findings;
#[cfg(test)]
mod tests;

use std::fmt::Write as _;

use facts::Facts;
use findings::{Finding, Verdict, findings};

/// Prints what `stallscope record` will be able to do here. Changes nothing.
pub fn run() -> anyhow::Result<()> {
    use std::io::Write as _;
    let text = print(&findings(&Facts::gather()?));
    // Also when nobody reads to the end: `stallscope doctor | head`.
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written?),
    }
}

fn print(findings: &[Finding]) -> String {
    const INDENT: &str = "         ";
    let mut text = String::new();
    for Finding { topic, found, verdict } in findings {
        let (mark, loss, mend) = match verdict {
            Verdict::Good => ("ok", None, None),
            Verdict::Limit { loss, mend } => ("limit", Some(loss), Some(mend)),
            Verdict::Fault { loss, mend } => ("fault", Some(loss), Some(mend)),
        };
        let _ = writeln!(text, "{mark:<6} {topic:<21} {found}");
        if let (Some(loss), Some(mend)) = (loss, mend) {
            let _ = writeln!(text, "{INDENT}lost: {loss}");
            let _ = writeln!(text, "{INDENT}mend: {mend}");
        }
    }
    let limits: Vec<_> = findings
        .iter()
        .filter_map(|finding| match &finding.verdict {
            Verdict::Limit { loss, .. } => Some(loss.as_str()),
            Verdict::Good | Verdict::Fault { .. } => None,
        })
        .collect();
    let faults =
        findings.iter().filter(|finding| matches!(finding.verdict, Verdict::Fault { .. })).count();
    let _ = match (faults, limits.len()) {
        (0, 0) => writeln!(text, "\nrecording works"),
        (0, _) => writeln!(text, "\nrecording works, but {}", limits.join("; ")),
        (1, _) => writeln!(text, "\nrecording will not work until the fault above is mended"),
        _ => writeln!(text, "\nrecording will not work until the {faults} faults above are mended"),
    };
    text
}
