//! How far long work has come, on standard error: one line that is drawn again
//! on a terminal, and a line now and then elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use holdfast_runtime::Runtime;
use holdfast_store::log_engine::Progress;

/// Between two lines on a terminal.
const REDRAW_INTERVAL: Duration = Duration::from_millis(200);

/// Between two lines elsewhere.
const LINE_INTERVAL: Duration = Duration::from_secs(5);

/// Shows progress.
#[derive(Debug)]
pub(super) struct ProgressLine {
    runtime: Runtime,
    began: Duration,
    /// What was told last.
    last: Progress,
    shown: Duration,
    is_terminal: bool,
    is_drawn: bool,
}

impl ProgressLine {
    pub(super) fn new(runtime: Runtime) -> Self {
        let began = runtime.now();
        let is_terminal = std::io::stderr().is_terminal();
        Self {
            runtime,
            began,
            last: Progress::default(),
            shown: began,
            is_terminal,
            is_drawn: false,
        }
    }

    /// Shows it, if it is time to.
    pub(super) fn show(&mut self, progress: Progress) {
        let now = self.runtime.now();
        if progress.done_bytes < self.last.done_bytes {
            // The next part of the work: its speed is its own.
            self.began = now;
        }
        self.last = progress;
        let interval = if self.is_terminal { REDRAW_INTERVAL } else { LINE_INTERVAL };
        if now.saturating_sub(self.shown) < interval {
            return;
        }
        self.shown = now;
        self.is_drawn = true;
        let line = in_words(progress, now.saturating_sub(self.began));
        let mut out = std::io::stderr();
        // A closed standard error is nobody's fault.
        let _ = if self.is_terminal {
            write!(out, "\r\x1b[2K{line}").and_then(|()| out.flush())
        } else {
            writeln!(out, "{line}")
        };
    }

    /// Leaves the line to something else that is said.
    pub(super) fn make_way(&mut self) {
        if self.is_terminal && std::mem::take(&mut self.is_drawn) {
            let _ = writeln!(std::io::stderr());
        }
    }

    /// Leaves the line, and gives the time that the last part of the work took.
    pub(super) fn end(&mut self) -> Duration {
        self.make_way();
        self.runtime.now().saturating_sub(self.began)
    }
}

fn in_words(progress: Progress, elapsed: Duration) -> String {
    let Progress { done_bytes, total_bytes } = progress;
    let millis = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX).max(1);
    let bytes_per_second = (u128::from(done_bytes) * 1000 / u128::from(millis)).max(1);
    let left_bytes = total_bytes.saturating_sub(done_bytes);
    let left_seconds = u128::from(left_bytes) / bytes_per_second;
    let percent = u128::from(done_bytes) * 100 / u128::from(total_bytes.max(1));
    let speed = bytes_per_second / 1_000_000;
    format!("{percent:>3} %, {speed} MB/s, {left_seconds} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_long() {
        let progress = Progress { done_bytes: 250_000_000, total_bytes: 1_000_000_000 };
        let line = in_words(progress, Duration::from_secs(1));
        assert_eq!(line, " 25 %, 250 MB/s, 3 s left");
        let nothing = Progress { done_bytes: 0, total_bytes: 0 };
        assert_eq!(in_words(nothing, Duration::ZERO), "  0 %, 0 MB/s, 0 s left");
    }
}
