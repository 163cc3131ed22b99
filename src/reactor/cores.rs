//! Core masks: which cores of the machine get a reactor.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Cores beyond this one cannot be named; the kernel's affinity sets have as many bits.
const LAST_CORE: usize = 1023;

/// A set of cores, at least one, written as SPDK writes it: `0x3` or `3` (a hexadecimal bit mask)
/// or `[0,1,4-6]` (a list with ranges).
///
/// ```
/// # use stripewise::reactor::CoreMask;
/// let list: CoreMask = "[0,1,4-6]".parse().unwrap();
/// assert_eq!(list, "0x73".parse().unwrap());
/// assert_eq!(list.to_string(), "0x73");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoreMask {
    cores: BTreeSet<usize>,
}

/// A core mask that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CoreMaskError {
    /// It is neither a hexadecimal number nor a list.
    #[error(
        "core mask {0:?} is not understood; write a hexadecimal bit mask such as 0x3, or a list such as [0,1,4-6]"
    )]
    Syntax(String),
    /// No core is in it.
    #[error("core mask {0:?} names no core; name at least one, such as 0x1")]
    Empty(String),
    /// A range whose end comes before its beginning.
    #[error("core mask {text:?}: the range {first}-{last} runs backwards; write {last}-{first}")]
    Backwards {
        /// The mask.
        text: String,
        /// As written first.
        first: usize,
        /// As written last.
        last: usize,
    },
    /// A core number beyond what the kernel can be asked for.
    #[error("core mask {text:?} names core {core}; the largest that can be named is 1023")]
    TooLarge {
        /// The mask.
        text: String,
        /// The number, or the largest of a range.
        core: usize,
    },
    /// A core that the machine has not, or that this process may not run on.
    #[error(
        "core {core} of core mask {mask} is not there: this process may run on {available}; take it out of the mask (-m), or let the process run on it (taskset, cpuset)"
    )]
    NotThere {
        /// The core.
        core: usize,
        /// The mask.
        mask: CoreMask,
        /// What could be used instead, as a list.
        available: String,
    },
    /// The operating system did not tell which cores there are.
    #[error("the cores that this process may run on cannot be told; is /proc mounted?")]
    Unknown,
}

impl CoreMask {
    /// The mask of one core, or of several.
    ///
    /// # Errors
    /// [`CoreMaskError::Empty`] and [`CoreMaskError::TooLarge`].
    pub fn of(cores: impl IntoIterator<Item = usize>) -> Result<Self, CoreMaskError> {
        let cores: BTreeSet<usize> = cores.into_iter().collect();
        Self::checked(cores, "[]")
    }

    /// Every core that the calling thread may run on.
    ///
    /// # Errors
    /// [`CoreMaskError::Unknown`].
    pub fn available() -> Result<Self, CoreMaskError> {
        let ids = core_affinity::get_core_ids().ok_or(CoreMaskError::Unknown)?;
        Self::of(ids.into_iter().map(|core| core.id)).map_err(|_| CoreMaskError::Unknown)
    }

    /// The cores, in ascending order.
    pub fn cores(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.cores.iter().copied()
    }

    /// How many cores.
    pub fn count(&self) -> usize {
        self.cores.len()
    }

    /// Whether all cores of this mask are in `available`.
    ///
    /// # Errors
    /// [`CoreMaskError::NotThere`], naming the first that is not.
    pub fn check(&self, available: &CoreMask) -> Result<(), CoreMaskError> {
        match self.cores.difference(&available.cores).next() {
            None => Ok(()),
            Some(&core) => Err(CoreMaskError::NotThere {
                core,
                mask: self.clone(),
                available: available.list(),
            }),
        }
    }

    fn checked(cores: BTreeSet<usize>, text: &str) -> Result<Self, CoreMaskError> {
        match cores.last() {
            None => Err(CoreMaskError::Empty(text.to_owned())),
            Some(&core) if core > LAST_CORE => Err(CoreMaskError::TooLarge {
                text: text.to_owned(),
                core,
            }),
            Some(_) => Ok(Self { cores }),
        }
    }

    fn from_hex(digits: &str, text: &str) -> Result<Self, CoreMaskError> {
        let mut cores = BTreeSet::new();
        for (place, digit) in digits.chars().rev().enumerate() {
            let bits = digit
                .to_digit(16)
                .ok_or_else(|| CoreMaskError::Syntax(text.to_owned()))?;
            cores.extend((0..4).filter(|b| bits >> b & 1 == 1).map(|b| place * 4 + b));
        }
        if digits.is_empty() {
            return Err(CoreMaskError::Syntax(text.to_owned()));
        }
        Self::checked(cores, text)
    }

    fn from_list(items: &str, text: &str) -> Result<Self, CoreMaskError> {
        let syntax = || CoreMaskError::Syntax(text.to_owned());
        let number = |s: &str| -> Result<usize, CoreMaskError> {
            let s = s.trim();
            if s.is_empty() || !s.bytes().all(|b| b.is_ascii_digit()) {
                return Err(syntax());
            }
            // Digits only, so the one way to fail is to be too large.
            let core = s.parse().unwrap_or(usize::MAX);
            if core > LAST_CORE {
                return Err(CoreMaskError::TooLarge {
                    text: text.to_owned(),
                    core,
                });
            }
            Ok(core)
        };
        let mut cores = BTreeSet::new();
        if items.trim().is_empty() {
            return Err(CoreMaskError::Empty(text.to_owned()));
        }
        for item in items.split(',') {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last) = (number(first)?, number(last)?);
            if first > last {
                return Err(CoreMaskError::Backwards {
                    text: text.to_owned(),
                    first,
                    last,
                });
            }
            cores.extend(first..=last);
        }
        Self::checked(cores, text)
    }

    /// As a list with ranges, for people: `0,1,4-6` is "cores 0-1, 4-6".
    fn list(&self) -> String {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for core in self.cores() {
            match runs.last_mut() {
                Some((_, last)) if *last + 1 == core => *last = core,
                _ => runs.push((core, core)),
            }
        }
        let runs: Vec<String> = runs
            .iter()
            .map(|&(first, last)| match last - first {
                0 => first.to_string(),
                _ => format!("{first}-{last}"),
            })
            .collect();
        let noun = if self.count() == 1 { "core" } else { "cores" };
        format!("{noun} {}", runs.join(", "))
    }
}

impl FromStr for CoreMask {
    type Err = CoreMaskError;

    fn from_str(text: &str) -> Result<Self, CoreMaskError> {
        let trimmed = text.trim();
        if let Some(rest) = trimmed.strip_prefix('[') {
            let items = rest
                .strip_suffix(']')
                .ok_or_else(|| CoreMaskError::Syntax(text.to_owned()))?;
            return Self::from_list(items, text);
        }
        let digits = trimmed
            .strip_prefix("0x")
            .or_else(|| trimmed.strip_prefix("0X"))
            .unwrap_or(trimmed);
        Self::from_hex(digits, text)
    }
}

impl fmt::Display for CoreMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.cores.last().copied().unwrap_or(0);
        f.write_str("0x")?;
        for place in (0..=last / 4).rev() {
            let digit: u32 = (0..4)
                .filter(|b| self.cores.contains(&(place * 4 + b)))
                .map(|b| 1 << b)
                .sum();
            write!(f, "{digit:x}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cores(text: &str) -> Vec<usize> {
        text.parse::<CoreMask>().unwrap().cores().collect()
    }

    #[test]
    fn both_forms_name_the_same_cores() {
        assert_eq!(cores("0x3"), [0, 1]);
        assert_eq!(cores("3"), [0, 1]);
        assert_eq!(cores("10"), [4]);
        assert_eq!(cores("0XfF"), [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(cores("[0,1,4-6]"), [0, 1, 4, 5, 6]);
        assert_eq!(cores(" [ 7 , 2 - 3 , 3 ] "), [2, 3, 7]);
        assert_eq!(cores("0x10000000000000000"), [64]);
        assert_eq!(cores("[1023]"), [1023]);
    }

    #[test]
    fn it_is_shown_as_a_hexadecimal_mask() {
        for (text, shown) in [
            ("[0]", "0x1"),
            ("[4]", "0x10"),
            ("[0,1,4-6]", "0x73"),
            ("[64]", "0x10000000000000000"),
            ("0x00ff", "0xff"),
        ] {
            let mask: CoreMask = text.parse().unwrap();
            assert_eq!(mask.to_string(), shown);
        }
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for text in [
            "", "0x", "0xg", "[", "[0", "0]", "[0,]", "[a]", "[-1]", "[1-]", "-1", "[+1]", "é",
        ] {
            let error = text.parse::<CoreMask>().unwrap_err();
            assert_eq!(error, CoreMaskError::Syntax(text.to_owned()), "{text}");
        }
        for text in ["0", "0x0", "[]", "[ ]"] {
            let error = text.parse::<CoreMask>().unwrap_err();
            assert_eq!(error, CoreMaskError::Empty(text.to_owned()), "{text}");
        }
        let error = "[6-4]".parse::<CoreMask>().unwrap_err();
        assert!(error.to_string().contains("write 4-6"), "{error}");
        for text in ["[1024]", "[0-4000000000]", "[99999999999999999999999]"] {
            let error = text.parse::<CoreMask>().unwrap_err();
            assert!(matches!(error, CoreMaskError::TooLarge { .. }), "{error}");
        }
        let long = format!("0x1{}", "0".repeat(256));
        let error = long.parse::<CoreMask>().unwrap_err();
        assert!(matches!(error, CoreMaskError::TooLarge { core: 1024, .. }));
    }

    #[test]
    fn a_core_that_is_not_there_is_named_with_those_that_are() {
        let available = CoreMask::of([0, 1, 2, 3, 8]).unwrap();
        let mask: CoreMask = "[0,5]".parse().unwrap();
        let text = mask.check(&available).unwrap_err().to_string();
        assert!(text.contains("core 5 of core mask 0x21"), "{text}");
        assert!(text.contains("cores 0-3, 8;"), "{text}");
        let mask: CoreMask = "[0,8]".parse().unwrap();
        assert_eq!(mask.check(&available), Ok(()));
    }
}
