//! Diffie-Hellman groups: which there are, and the computation in them.
//!
//! The groups are those of RFC 7919: powers of 2 modulo a safe prime. The primes are computed from
//! the formula of the RFC, which is shorter than they are.

use std::sync::OnceLock;

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use zeroize::Zeroizing;

codes! {
    /// Groups (Base, "DH-HMAC-CHAP Protocol Descriptor", DHgID).
    pub enum DhGroup: u8 {
        Null = 0x00, "no Diffie-Hellman exchange";
        Ffdhe2048 = 0x01, "ffdhe2048";
        Ffdhe3072 = 0x02, "ffdhe3072";
        Ffdhe4096 = 0x03, "ffdhe4096";
        Ffdhe6144 = 0x04, "ffdhe6144";
        Ffdhe8192 = 0x05, "ffdhe8192";
    }
}

/// Bits of a word of the primes.
const WORD: usize = 64;

impl DhGroup {
    /// The word for it in SPDK's JSON-RPC.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Null => "null",
            other => other.name(),
        }
    }

    /// Bytes of a public value and of the shared secret; 0 without an exchange.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Ffdhe2048 => 2048 / 8,
            Self::Ffdhe3072 => 3072 / 8,
            Self::Ffdhe4096 => 4096 / 8,
            Self::Ffdhe6144 => 6144 / 8,
            Self::Ffdhe8192 => 8192 / 8,
        }
    }

    /// Bytes of a private exponent: the fewest with which the group keeps its strength (RFC 7919,
    /// appendix A: 225, 275, 325, 375 and 400 bits). A longer one would only take longer.
    #[must_use]
    pub const fn exponent_size(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Ffdhe2048 => 29,
            Self::Ffdhe3072 => 35,
            Self::Ffdhe4096 => 41,
            Self::Ffdhe6144 => 47,
            Self::Ffdhe8192 => 50,
        }
    }

    /// The public value that goes with a private exponent; nothing without an exchange. Takes
    /// long: not for a thread that others wait for.
    #[must_use]
    pub fn public_value(self, exponent: &[u8]) -> Vec<u8> {
        match self.field() {
            None => Vec::new(),
            Some(field) => {
                let base = BoxedUint::from_be_slice(&[2], field.bits_precision());
                let base = base.expect("of so many bits");
                power(field, base, exponent).to_vec()
            }
        }
    }

    /// The secret that both sides can compute, each from its own exponent and the public value of the
    /// other; empty without an exchange. `None` where the value is none: of another size, or one of
    /// those with which the secret would be known to everybody (0, 1 and the largest). Takes
    /// long, and as long whatever the exponent is.
    #[must_use]
    pub fn shared_secret(self, exponent: &[u8], value: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        if value.len() != self.size() {
            return None;
        }
        let Some(field) = self.field() else {
            return Some(Zeroizing::default());
        };
        let bits = field.bits_precision();
        let value = BoxedUint::from_be_slice(value, bits).ok()?;
        let one = BoxedUint::one_with_precision(bits);
        let largest = field.modulus().as_ref().wrapping_sub(&one);
        if value <= one || value >= largest {
            return None;
        }
        Some(power(field, value, exponent))
    }

    /// The numbers that are computed with.
    fn field(self) -> Option<&'static BoxedMontyParams> {
        static FIELDS: [OnceLock<BoxedMontyParams>; 5] = [const { OnceLock::new() }; 5];
        // X of RFC 7919: the least with which the number is a safe prime.
        let (at, increment) = match self {
            Self::Null => return None,
            Self::Ffdhe2048 => (0, 560_316),
            Self::Ffdhe3072 => (1, 2_625_351),
            Self::Ffdhe4096 => (2, 5_736_041),
            Self::Ffdhe6144 => (3, 15_705_020),
            Self::Ffdhe8192 => (4, 10_965_728),
        };
        Some(FIELDS[at].get_or_init(|| {
            let prime = prime(self.size() * 8, increment);
            let bits = self.size() as u32 * 8;
            let prime = BoxedUint::from_be_slice(&prime, bits).expect("of so many bits");
            BoxedMontyParams::new(
                Odd::new(prime)
                    .into_option()
                    .expect("its last bits are ones"),
            )
        }))
    }
}

/// `base` to the power of `exponent`, in as many bytes as the modulus has.
fn power(field: &BoxedMontyParams, base: BoxedUint, exponent: &[u8]) -> Zeroizing<Vec<u8>> {
    let bits = exponent.len() as u32 * 8;
    let exponent = BoxedUint::from_be_slice(exponent, bits).expect("of so many bits");
    let exponent = Zeroizing::new(exponent);
    let base = BoxedMontyForm::new(base, field);
    let power = Zeroizing::new(base.pow_bounded_exp(&exponent, bits));
    let number = Zeroizing::new(power.retrieve());
    Zeroizing::new(number.to_be_bytes().into_vec())
}

/// 2^b - 2^(b-64) + ([2^(b-130) e] + X) * 2^64 - 1 for a multiple b of 64, the most significant byte
/// first: 64 ones, as many bits of e, to which X is added, as there is room for, and 64 ones.
fn prime(bits: usize, increment: u64) -> Vec<u8> {
    let mut words = napiers_number(bits / WORD);
    // It has two bits before the point and is to be shifted by 66 bits in all.
    words.remove(0);
    let last = words.len() - 1;
    for at in 0..last {
        words[at] = words[at] >> 2 | words[at + 1] << (WORD - 2);
    }
    // The last term, -1, leaves 64 ones behind and takes one from here.
    add(&mut words, &[increment - 1]);
    words[last] = u64::MAX;
    words.insert(0, u64::MAX);
    words
        .iter()
        .rev()
        .flat_map(|word| word.to_be_bytes())
        .collect()
}

/// e in so many words, the least significant first; the last one is before the point. The last few
/// bits are wrong.
fn napiers_number(words: usize) -> Vec<u64> {
    let mut sum = vec![0; words];
    let mut term = vec![0; words];
    term[words - 1] = 1;
    let mut n = 1;
    while term.iter().any(|&word| word != 0) {
        add(&mut sum, &term);
        divide(&mut term, n);
        n += 1;
    }
    sum
}

fn add(to: &mut [u64], number: &[u64]) {
    let mut carry = false;
    for (at, word) in to.iter_mut().enumerate() {
        let (sum, over) = word.overflowing_add(number.get(at).copied().unwrap_or(0));
        let (sum, over_again) = sum.overflowing_add(carry.into());
        (*word, carry) = (sum, over || over_again);
    }
}

fn divide(number: &mut [u64], by: u64) {
    let mut rest = 0;
    for word in number.iter_mut().rev() {
        let dividend = u128::from(rest) << WORD | u128::from(*word);
        // Smaller than 2^64, because the rest is smaller than the divisor.
        *word = (dividend / u128::from(by)) as u64;
        rest = (dividend % u128::from(by)) as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvme::dhchap::Hash;

    fn sha256(bytes: &[u8]) -> String {
        let tag = Hash::Sha256.digest(bytes);
        tag.as_bytes().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// For each group the SHA-256 of its prime, as OpenSSL 3.0.19 has it (`openssl genpkey -genparam
    /// -pkeyopt group:`); of 2 to the power of 010203...40h, and of 0303...03h to the same power, as
    /// Python has them.
    const KNOWN: [(DhGroup, [&str; 3]); 5] = [
        (
            DhGroup::Ffdhe2048,
            [
                "9cd3b7f336872f46c09428d1bbc19877a4d440512cda8d1c1cf0cd6e33698966",
                "1908b0773912e53f8b481d76c9723f551e22e7edcee9e562bf0cc763a9ce3958",
                "2c7000f81bc4928a3c6e23da30d1465027028ab6b41811f1f72962f5ce51d9c3",
            ],
        ),
        (
            DhGroup::Ffdhe3072,
            [
                "0eaf67db3a839156d5013494a5318a772b5697d270d721f37f092efc69ea5a17",
                "e9f81f609bb558fd1ea247cff217d7681f14a9b132cb0c93203a873ad800ca24",
                "1277a5ee962719fd0e5df67326fae38c261c552d0efcabf71f955abad9070a95",
            ],
        ),
        (
            DhGroup::Ffdhe4096,
            [
                "4648414224ac881b3d0dc59b466f96d06a558278776807797ecf1f66ff397b3e",
                "a53688d3a4d42b2c60ebff8551c83d059a0415eea23c365d1e190ebaff879f1c",
                "07c5ce93c315597af74a328fb1fc97e145d373e63cd2aa8ee2cb0dcdd804fa83",
            ],
        ),
        (
            DhGroup::Ffdhe6144,
            [
                "227ac9066b3ddd9e193670cda2388fa884f65ba0cf98b742d1fe77a6687c79c7",
                "21ff5bd61a7d69b1817b7ae910dc291ab6c5f4d60aa562b30c987dda2f0f9157",
                "e75e80782deac1c0a0a25856aae9c67e9e50d943dd1f9da4a5256984dac84883",
            ],
        ),
        (
            DhGroup::Ffdhe8192,
            [
                "770b14efaf6f049929c523113b3fa99a8d11dab1b18af3609590122075d19833",
                "b2f1e92b44e0a45ee7b23938bfd9be352a84ab3878fa0afae756e3c4f6999e9e",
                "5c9b1ac37d5dfc6e2bdd7208fa9bd48998fb4c6d30c1be24acb0b31eaf7a2ce1",
            ],
        ),
    ];

    #[test]
    fn the_primes_are_those_of_the_rfc_and_powers_are_right() {
        let exponent: Vec<u8> = (1..=64).collect();
        for (group, [prime, of_two, of_threes]) in KNOWN {
            let field = group.field().unwrap();
            let modulus = field.modulus().as_ref().to_be_bytes();
            assert_eq!(sha256(&modulus), prime, "{group}");
            assert_eq!(sha256(&group.public_value(&exponent)), of_two, "{group}");
            let secret = group.shared_secret(&exponent, &vec![3; group.size()]);
            assert_eq!(sha256(&secret.unwrap()), of_threes, "{group}");
        }
    }

    #[test]
    fn both_sides_come_to_the_same_secret() {
        let group = DhGroup::Ffdhe2048;
        let (ours, theirs) = ([0x5a; 29], [0xc3; 29]);
        let one = group.shared_secret(&ours, &group.public_value(&theirs));
        let other = group.shared_secret(&theirs, &group.public_value(&ours));
        assert_eq!(one.as_deref(), other.as_deref());
        assert_eq!(one.unwrap().len(), 256);
    }

    #[test]
    fn values_that_give_the_secret_away_are_refused() {
        let group = DhGroup::Ffdhe2048;
        let exponent = [7; 29];
        let prime = group.field().unwrap().modulus().as_ref().to_be_bytes();
        let small = |value: u8| {
            let mut bytes = vec![0; group.size()];
            bytes[255] = value;
            bytes
        };
        let mut largest = prime.to_vec();
        largest[255] -= 1;
        let mut below = prime.to_vec();
        below[255] -= 2;
        for refused in [small(0), small(1), largest, prime.to_vec(), vec![0xff; 256]] {
            assert!(group.shared_secret(&exponent, &refused).is_none());
        }
        for (size, len) in [(0, "none"), (255, "short"), (257, "long")] {
            let value = vec![5; size];
            assert!(group.shared_secret(&exponent, &value).is_none(), "{len}");
        }
        for taken in [small(2), below] {
            assert!(group.shared_secret(&exponent, &taken).is_some());
        }
        assert_eq!(DhGroup::Null.shared_secret(&[], &[]).unwrap().len(), 0);
        assert!(DhGroup::Null.shared_secret(&[], &[1]).is_none());
    }
}
