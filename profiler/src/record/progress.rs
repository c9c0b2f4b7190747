//! The line on a terminal that says how a recording is going.

use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::collect::Tally;

/// The progress line; invisible where standard error is no terminal.
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// Begins the line.
    pub fn start() -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(4));
        let style = ProgressStyle::with_template("{elapsed} {wide_msg}")
            .expect("the template is constant and valid");
        bar.set_style(style);
        Self { bar }
    }

    /// Renews the line.
    pub fn show(&self, tally: Tally, dropped: u64, bytes: u64) {
        let waiting = Duration::from_nanos(tally.waiting.0);
        let lost = if dropped > 0 { format!(", {dropped} dropped") } else { String::new() };
        self.bar.set_message(format!(
            "{} intervals, {:.1} s waiting{lost}, {}",
            tally.intervals,
            waiting.as_secs_f64(),
            HumanBytes(bytes),
        ));
    }

    /// Ends the line.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}
