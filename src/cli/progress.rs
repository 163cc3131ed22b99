//! How far a rebuild, resync, check or repair is, how fast it goes and how long it takes.

use std::time::{Duration, Instant};

/// A process as it was seen first, and as it is now.
#[derive(Debug)]
pub struct Progress {
    kind: String,
    begun: Instant,
    first: u64,
    now: Instant,
    blocks: u64,
    percent: u64,
}

impl Progress {
    /// A process that is seen for the first time.
    pub fn begin(kind: &str, blocks: u64, percent: u64, now: Instant) -> Self {
        Self {
            kind: kind.to_owned(),
            begun: now,
            first: blocks,
            now,
            blocks,
            percent,
        }
    }

    /// Whether it is a process of this kind.
    pub fn is_of(&self, kind: &str) -> bool {
        self.kind == kind
    }

    /// It is so far now.
    pub fn advance(&mut self, blocks: u64, percent: u64, now: Instant) {
        (self.blocks, self.percent, self.now) = (blocks, percent, now);
    }

    /// Blocks a second since it was seen first; nothing before there is a pace.
    pub fn pace(&self) -> Option<f64> {
        let done = self.blocks.checked_sub(self.first).filter(|&n| n > 0)?;
        let passed = self.now.duration_since(self.begun).as_secs_f64();
        (passed > 0.0).then(|| done as f64 / passed)
    }

    /// Percent that are done.
    pub fn percent(&self) -> u64 {
        self.percent
    }

    /// The line, with a bar of so many characters.
    pub fn line(&self, width: usize) -> String {
        let full = width * self.percent.min(100) as usize / 100;
        let tip = usize::from(full < width);
        let bar = "=".repeat(full) + &">".repeat(tip) + &" ".repeat(width - full - tip);
        let left = match self.left() {
            Some(left) => format!("{}:{:02} left", left.as_secs() / 60, left.as_secs() % 60),
            None => String::new(),
        };
        format!("{:>8} [{bar}] {:>3}%  {left:<12}", self.kind, self.percent)
    }

    /// How long it takes at the pace so far; nothing before there is a pace.
    pub fn left(&self) -> Option<Duration> {
        let all = self.blocks.checked_mul(100)?.checked_div(self.percent)?;
        let left = all.saturating_sub(self.blocks) as f64 / self.pace()?;
        Some(Duration::from_secs_f64(left.min(1e9)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills_and_the_time_left_is_told() {
        let start = Instant::now();
        let mut progress = Progress::begin("check", 100, 10, start);
        assert_eq!(
            progress.line(10),
            "   check [=>        ]  10%              "
        );
        // A tenth in ten seconds: half takes fifty more.
        progress.advance(500, 50, start + Duration::from_secs(40));
        assert_eq!(
            progress.line(10),
            "   check [=====>    ]  50%  0:50 left   "
        );
        progress.advance(1000, 100, start + Duration::from_secs(90));
        assert_eq!(
            progress.line(10),
            "   check [==========] 100%  0:00 left   "
        );
        assert_eq!(progress.pace(), Some(10.0));
        assert!(progress.is_of("check") && !progress.is_of("repair"));
    }

    #[test]
    fn nothing_is_known_before_anything_is_done() {
        let progress = Progress::begin("resync", 0, 0, Instant::now());
        assert_eq!(progress.line(4), "  resync [>   ]   0%              ");
    }
}
