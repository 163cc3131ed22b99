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

/// The parts of the program that can be logged in full, whatever the level is: its rooms.
pub const FLAGS: [&str; 11] = [
    "bdev",
    "control",
    "initiator",
    "md",
    "memory",
    "nvme",
    "nvmf",
    "raid",
    "reactor",
    "rpc",
    "serve",
];

/// There is no such flag.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no log flag; log_get_flags lists them, and \"all\" means all of them")]
pub struct UnknownFlag(String);

/// Whoever set up logging gives this, so that what is logged can be changed.
pub struct LogSwitch {
    level: LogLevel,
    /// By place in [`FLAGS`].
    flags: [bool; FLAGS.len()],
    set: Box<dyn Fn(&str) + Send>,
}

impl LogSwitch {
    /// A switch that stands at `level` and is turned by calling `set` with the directives of
    /// tracing's filters.
    pub fn new(level: LogLevel, set: impl Fn(&str) + Send + 'static) -> Self {
        Self {
            level,
            flags: [false; FLAGS.len()],
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
        self.apply();
    }

    /// Each flag, and whether it is set.
    pub fn flags(&self) -> impl Iterator<Item = (&'static str, bool)> {
        FLAGS.into_iter().zip(self.flags)
    }

    /// Has a part of the program, or "all", logged in full, or as the level says again.
    ///
    /// # Errors
    /// There is no such flag.
    pub fn set_flag(&mut self, flag: &str, on: bool) -> Result<(), UnknownFlag> {
        let meant = |name: &&str| flag == "all" || **name == *flag;
        if !FLAGS.iter().any(meant) {
            return Err(UnknownFlag(flag.to_owned()));
        }
        for (name, is_set) in FLAGS.iter().zip(&mut self.flags) {
            if meant(name) {
                *is_set = on;
            }
        }
        self.apply();
        Ok(())
    }

    fn apply(&self) {
        let mut directives = self.level.directive().to_owned();
        for (flag, _) in self.flags().filter(|(_, is_set)| *is_set) {
            directives.push_str(&format!(",stripewise::{flag}=debug"));
        }
        (self.set)(&directives);
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
    fn flags_are_added_to_the_level() {
        let (tell, told) = std::sync::mpsc::channel();
        let mut log = LogSwitch::new(LogLevel::Warning, move |d| tell.send(d.to_owned()).unwrap());
        assert!(log.flags().all(|(_, is_set)| !is_set));
        log.set_flag("raid", true).unwrap();
        assert_eq!(told.recv().unwrap(), "warn,stripewise::raid=debug");
        log.set(LogLevel::Error);
        assert_eq!(told.recv().unwrap(), "error,stripewise::raid=debug");
        log.set_flag("nvmf", true).unwrap();
        let both = "error,stripewise::nvmf=debug,stripewise::raid=debug";
        assert_eq!(told.recv().unwrap(), both);
        log.set_flag("all", false).unwrap();
        assert_eq!(told.recv().unwrap(), "error");
        log.set_flag("all", true).unwrap();
        assert!(log.flags().all(|(_, is_set)| is_set));
        let unknown = log.set_flag("lvol", true).unwrap_err().to_string();
        assert!(unknown.contains("lvol"), "{unknown}");
    }

    /// A flag is the name of a room: else it would log nothing.
    #[test]
    fn every_flag_is_a_room() {
        let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for flag in FLAGS {
            assert!(src.join(flag).join("mod.rs").exists(), "{flag}");
        }
    }

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
