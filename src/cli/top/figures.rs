//! Numbers as people read them, in few characters.

use std::time::Duration;

/// A rate or count: 0, 12, 1.2k, 34M.
pub(super) fn count(value: f64) -> String {
    scaled(value, 1000.0, &["", "k", "M", "G", "T"])
}

/// Bytes, in powers of 1024: 0, 512, 1.5Ki, 34Mi.
pub(super) fn bytes(value: f64) -> String {
    scaled(value, 1024.0, &["", "Ki", "Mi", "Gi", "Ti", "Pi"])
}

/// A time of nanoseconds: -, 85us, 1.2ms, 3.0s.
pub(super) fn nanoseconds(value: f64) -> String {
    match value {
        v if v <= 0.0 => "-".into(),
        v if v < 999_500.0 => format!("{:.0}us", (v / 1e3).max(1.0)),
        v if v < 999_500_000.0 => format!("{:.1}ms", v / 1e6),
        v => format!("{:.1}s", v / 1e9),
    }
}

/// A longer time: 12s, 3m05s, 2h07m.
pub(super) fn duration(value: Duration) -> String {
    match value.as_secs() {
        s if s < 60 => format!("{s}s"),
        s if s < 3600 => format!("{}m{:02}s", s / 60, s % 60),
        s => format!("{}h{:02}m", s / 3600, s / 60 % 60),
    }
}

/// A ratio from 0 to 1 as a bar of so many characters.
pub(super) fn bar(ratio: f64, width: usize) -> String {
    let full = (ratio.clamp(0.0, 1.0) * width as f64).round() as usize;
    "|".repeat(full) + &" ".repeat(width - full)
}

fn scaled(value: f64, base: f64, units: &[&str]) -> String {
    let mut value = value.max(0.0);
    let mut unit = 0;
    // What would be rounded to four digits goes to the next unit.
    while value >= base - 0.5 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    match value {
        v if unit == 0 || v >= 9.95 => format!("{v:.0}{}", units[unit]),
        v => format!("{v:.1}{}", units[unit]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, told) in [
            (0.0, "0"),
            (0.4, "0"),
            (12.0, "12"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (1234.0, "1.2k"),
            (173_456.0, "173k"),
            (1.05e6, "1.1M"),
            (-3.0, "0"),
        ] {
            assert_eq!(count(value), told, "{value}");
        }
        for (value, told) in [
            (0.0, "0"),
            (1023.0, "1023"),
            (1536.0, "1.5Ki"),
            (5.3 * 1024.0 * 1024.0 * 1024.0, "5.3Gi"),
        ] {
            assert_eq!(bytes(value), told, "{value}");
        }
        for (value, told) in [
            (0.0, "-"),
            (10.0, "1us"),
            (85_200.0, "85us"),
            (1_240_000.0, "1.2ms"),
            (3e9, "3.0s"),
        ] {
            assert_eq!(nanoseconds(value), told, "{value}");
        }
        for (seconds, told) in [(12, "12s"), (185, "3m05s"), (7620, "2h07m")] {
            assert_eq!(duration(Duration::from_secs(seconds)), told);
        }
        assert_eq!(bar(0.5, 4), "||  ");
        assert_eq!(bar(7.0, 2), "||");
    }
}
