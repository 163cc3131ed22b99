//! Sizes as people write them: `512`, `4k`, `1m`, `4k-128k`.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, written as digits with an optional binary unit: `k`, `m`, `g` or `t`, in
/// either case, alone or as `kib`/`kb`. All units are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

/// Two sizes, the smaller first, written `4k-128k`; one size alone is a range of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BytesRange {
    /// Smallest size.
    pub min: Bytes,
    /// Largest size.
    pub max: Bytes,
}

/// Why a text is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not digits with a unit.
    #[error("{0:?} is not a size; write digits and an optional unit, such as 512, 4k or 1m")]
    Malformed(String),
    /// More than 64 bits hold.
    #[error("{0:?} is larger than any device")]
    TooLarge(String),
    /// The second size of a range is the smaller one.
    #[error("{0:?} is not a range of sizes; write the smaller size first, such as 4k-128k")]
    Reversed(String),
}

impl FromStr for Bytes {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let malformed = || QuantityError::Malformed(text.to_owned());
        let trimmed = text.trim();
        let unit_at = trimmed
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(trimmed.len());
        let (digits, unit) = trimmed.split_at(unit_at);
        if digits.is_empty() {
            return Err(malformed());
        }
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kb" | "kib" => 10,
            "m" | "mb" | "mib" => 20,
            "g" | "gb" | "gib" => 30,
            "t" | "tb" | "tib" => 40,
            _ => return Err(malformed()),
        };
        digits
            .parse::<u64>()
            .ok()
            .and_then(|count| count.checked_mul(1 << shift))
            .map(Bytes)
            .ok_or_else(|| QuantityError::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (unit, shift) in [("t", 40), ("g", 30), ("m", 20), ("k", 10)] {
            if self.0 > 0 && self.0.is_multiple_of(1 << shift) {
                return write!(out, "{}{unit}", self.0 >> shift);
            }
        }
        write!(out, "{}", self.0)
    }
}

impl FromStr for BytesRange {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (min, max) = match text.split_once(['-', ':']) {
            Some((min, max)) => (min.parse()?, max.parse()?),
            None => {
                let size = text.parse()?;
                (size, size)
            }
        };
        if min > max {
            return Err(QuantityError::Reversed(text.to_owned()));
        }
        Ok(Self { min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bytes(text: &str) -> Result<u64, QuantityError> {
        text.parse::<Bytes>().map(|b| b.0)
    }

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(bytes("512"), Ok(512));
        assert_eq!(bytes("4k"), Ok(4096));
        assert_eq!(bytes("1m"), Ok(1_048_576));
        assert_eq!(bytes(" 2G "), Ok(2_147_483_648));
        assert_eq!(bytes("3 KiB"), Ok(3072));
        assert_eq!(bytes("1t"), Ok(1_099_511_627_776));
        assert_eq!(bytes("0"), Ok(0));
    }

    #[test]
    fn nonsense_is_named() {
        for text in ["", "k", "4x", "-1", "4.5k", "4kk", "0x10"] {
            assert_eq!(bytes(text), Err(QuantityError::Malformed(text.to_owned())));
        }
        for text in ["16777216t", "99999999999999999999"] {
            assert_eq!(bytes(text), Err(QuantityError::TooLarge(text.to_owned())));
        }
    }

    #[test]
    fn ranges_have_an_order() {
        let range: BytesRange = "4k-128k".parse().unwrap();
        assert_eq!((range.min.0, range.max.0), (4096, 131_072));
        let one: BytesRange = "4k".parse().unwrap();
        assert_eq!((one.min.0, one.max.0), (4096, 4096));
        assert_eq!(
            "8k-4k".parse::<BytesRange>(),
            Err(QuantityError::Reversed("8k-4k".to_owned()))
        );
    }

    proptest! {
        #[test]
        fn what_is_printed_reads_back(count in any::<u64>(), shift in 0..64u32) {
            let size = Bytes(count >> shift << (shift / 2));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
