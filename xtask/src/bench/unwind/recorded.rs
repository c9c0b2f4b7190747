//! What a recording says of the intervals in a span of time.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader},
    ops::Range,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// The intervals with a user stack that ended in the span.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Recorded {
    /// How many.
    pub stacks: u64,
    /// Frames of all of them.
    pub frames: u64,
    /// How many of them end at the outermost frame.
    pub complete: u64,
    /// When the first of these ended, in nanoseconds of the monotonic clock.
    pub first_complete: Option<u64>,
}

/// A line of `stallscope inspect events`, as far as it is of use here.
#[derive(Deserialize)]
enum Line {
    UserStack {
        id: u32,
        frames: Vec<serde::de::IgnoredAny>,
        end: String,
    },
    Interval {
        in_: u64,
        open_at_end: bool,
        user_stack: Option<u32>,
    },
    #[serde(untagged)]
    Other(serde::de::IgnoredAny),
}

/// Reads the recording. `span` is in nanoseconds of the monotonic clock.
pub fn read(stallscope: &Path, recording: &Path, span: &Range<u64>) -> Result<Recorded> {
    let mut child = Command::new(stallscope)
        .args(["inspect", "events"])
        .arg(recording)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start stallscope")?;
    // Line by line: what this process once took would count as the memory of what it starts next.
    let recorded = parse(BufReader::new(child.stdout.take().expect("its stdout is a pipe")), span);
    let status = child.wait().context("cannot wait for stallscope")?;
    if !status.success() {
        bail!("stallscope inspect events failed: {status}");
    }
    recorded
}

fn parse(events: impl BufRead, span: &Range<u64>) -> Result<Recorded> {
    let mut stacks = HashMap::new();
    let mut recorded = Recorded::default();
    for line in events.lines() {
        let line = line.context("cannot hear stallscope")?;
        let line = serde_json::from_str(&line).with_context(|| format!("no event: {line}"))?;
        match line {
            Line::UserStack { id, frames, end } => {
                stacks.insert(id, (frames.len() as u64, end == "Complete"));
            }
            Line::Interval { in_, open_at_end: false, user_stack: Some(stack) }
                if span.contains(&in_) =>
            {
                let (frames, complete) = stacks.get(&stack).context("an unknown stack")?;
                recorded.stacks += 1;
                recorded.frames += frames;
                if *complete {
                    recorded.complete += 1;
                    let first = recorded.first_complete.get_or_insert(in_);
                    *first = in_.min(*first);
                }
            }
            Line::Interval { .. } | Line::Other(_) => {}
        }
    }
    Ok(recorded)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a failed test may panic")]

    use super::*;

    #[test]
    fn only_intervals_with_a_stack_that_end_in_the_span_count() {
        let interval = |end: u64, open: bool, stack: &str| {
            format!(
                r#"{{"Interval":{{"pid":1,"in_":{end},"open_at_end":{open},"user_stack":{stack}}}}}"#
            )
        };
        let events = [
            r#"{"Session":{"start":5}}"#.to_owned(),
            r#"{"UserStack":{"id":0,"frames":[{},{},{}],"end":"Complete"}}"#.to_owned(),
            r#"{"UserStack":{"id":1,"frames":[{}],"end":"Broken"}}"#.to_owned(),
            interval(9, false, "0"),
            interval(10, false, "0"),
            interval(11, false, "1"),
            interval(12, false, "null"),
            interval(13, true, "0"),
            interval(20, false, "0"),
        ];
        let recorded = parse(events.join("\n").as_bytes(), &(10..20)).unwrap();
        assert_eq!(
            recorded,
            Recorded { stacks: 2, frames: 4, complete: 1, first_complete: Some(10) }
        );
    }
}
