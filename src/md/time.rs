//! Points in time, as a superblock has them.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `ctime` and `utime`: seconds since 1970 in the low 40 bits, microseconds in the 24 above. md itself
/// leaves the microseconds 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub u64);

const SECONDS: u64 = (1 << 40) - 1;

impl Time {
    /// A point in time; what is before 1970 becomes 1970.
    pub fn from_system(time: SystemTime) -> Self {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Self::from_seconds(since.as_secs())
    }

    /// Whole seconds since 1970, of which 40 bits are kept.
    pub fn from_seconds(seconds: u64) -> Self {
        Self(seconds & SECONDS)
    }

    /// Whole seconds since 1970.
    pub fn seconds(self) -> u64 {
        self.0 & SECONDS
    }

    /// Microseconds of the second.
    pub fn micros(self) -> u32 {
        (self.0 >> 40) as u32
    }
}

/// The date in UTC, as C's `ctime` has it: `Tue Nov 14 22:13:20 2023`.
impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
        const MONTHS: [&str; 12] = [
            "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
        ];
        let (days, second) = (self.seconds() / 86400, self.seconds() % 86400);
        let (year, month, day) = civil(days);
        let [hour, minute, second] = [second / 3600, second / 60 % 60, second % 60];
        let (name, month) = (DAYS[(days % 7) as usize], MONTHS[month]);
        write!(
            out,
            "{name} {month} {day:>2} {hour:02}:{minute:02}:{second:02} {year}"
        )
    }
}

/// Year, month from 0 and day from 1 of a number of days since 1 January 1970, in the Gregorian calendar.
fn civil(days: u64) -> (u64, usize, u64) {
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    // Whole cycles of 400 years have 146097 days each.
    let mut year = 1970 + days / 146_097 * 400;
    let mut rest = days % 146_097;
    while rest >= 365 + u64::from(leap(year)) {
        rest -= 365 + u64::from(leap(year));
        year += 1;
    }
    let february = 28 + u64::from(leap(year));
    let months = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while rest >= months[month] {
        rest -= months[month];
        month += 1;
    }
    (year, month, rest + 1)
}
