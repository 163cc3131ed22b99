//! How much is logged, while the process runs.

use std::fmt;
use std::str::FromStr;

/// How much is logged, by SPDK's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    /// Nothing.
    Disabled,
    /// Errors.
    Error,
    /// Warnings too.
    Warning,
    /// What an operator may want to know too. We make no difference to [`LogLevel::Info`].
    Notice,
    /// What is done too.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    const ALL: [(Self, &'static str); 6] = [
        (Self::Disabled, "DISABLED"),
        (Self::Error, "ERROR"),
        (Self::Warning, "WARNING"),
        (Self::Notice, "NOTICE"),
        (Self::Info, "INFO"),
        (Self::Debug, "DEBUG"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        let named = Self::ALL.iter().find(|(level, _)| *level == self);
        named.expect("all levels have names").1
    }

    /// The directive of tracing's filters that lets through as much.
    pub fn directive(self) -> &'static str {
        match self {
            Self::Disabled => "off",
            Self::Error => "error",
            Self::Warning => "warn",
            Self::Notice | Self::Info => "info",
            Self::Debug => "debug",
        }
    }
}

/// There is no such level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no log level; use ERROR, WARNING, NOTICE, INFO, DEBUG or DISABLED")]
pub struct UnknownLevel(String);

impl FromStr for LogLevel {
    type Err = UnknownLevel;

    fn from_str(text: &str) -> Result<Self, UnknownLevel> {
        let named = Self::ALL
            .iter()
            .find(|(_, name)| name.eq_ignore_ascii_case(text));
        named
            .map(|&(level, _)| level)
            .ok_or_else(|| UnknownLevel(text.to_owned()))
    }
}

/// Whoever set up logging gives this, so that the level can be changed.
pub struct LogSwitch {
    level: LogLevel,
    set: Box<dyn Fn(LogLevel) + Send>,
}

impl LogSwitch {
    /// A switch that stands at `level` and is turned by calling `set`.
    pub fn new(level: LogLevel, set: impl Fn(LogLevel) + Send + 'static) -> Self {
        Self {
            level,
            set: Box::new(set),
        }
    }

    /// Where it stands.
    pub fn level(&self) -> LogLevel {
        self.level
    }

    /// Turns it.
    pub fn set(&mut self, level: LogLevel) {
        self.level = level;
        (self.set)(level);
    }
}

impl fmt::Debug for LogSwitch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogSwitch")
            .field("level", &self.level)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_named_in_any_case() {
        assert_eq!("notice".parse(), Ok(LogLevel::Notice));
        assert_eq!("DISABLED".parse(), Ok(LogLevel::Disabled));
        for (level, name) in LogLevel::ALL {
            assert_eq!(name.parse(), Ok(level));
            assert_eq!(level.name(), name);
        }
        let error = "loud".parse::<LogLevel>().unwrap_err().to_string();
        assert!(
            error.contains("loud") && error.contains("WARNING"),
            "{error}"
        );
    }
}
