//! The messages (Base, "Common Authentication Messages" and "DH-HMAC-CHAP Authentication
//! Messages"): those of the host read, those of the controller built.

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::group::DhGroup;
use super::hash::Hash;

/// AUTH_TYPE of messages of any protocol, and of those of DH-HMAC-CHAP.
const COMMON: u8 = 0x00;
const DHCHAP: u8 = 0x01;

/// AUTH_ID of each message.
const NEGOTIATE: u8 = 0x00;
const CHALLENGE: u8 = 0x01;
const REPLY: u8 = 0x02;
const SUCCESS1: u8 = 0x03;
const SUCCESS2: u8 = 0x04;
const FAILURE2: u8 = 0xf0;
const FAILURE1: u8 = 0xf1;

/// AuthID of DH-HMAC-CHAP in a protocol descriptor.
const PROTOCOL: u8 = 0x01;

/// The reason code of every failure; the explanation tells them apart.
const FAILED: u8 = 0x01;

/// Most identifiers in each of the two lists of a protocol descriptor.
const LIST: usize = 30;

codes! {
    /// Why an authentication has failed (Base, "AUTH_Failure1 Message", RCE).
    pub enum Explanation: u8 {
        Failed = 0x01, "authentication failed";
        ProtocolNotUsable = 0x02, "authentication protocol not usable";
        SecureChannelMismatch = 0x03, "secure channel concatenation mismatch";
        HashNotUsable = 0x04, "hash function not usable";
        GroupNotUsable = 0x05, "Diffie-Hellman group not usable";
        IncorrectPayload = 0x06, "incorrect payload";
        IncorrectMessage = 0x07, "incorrect protocol message";
    }
}

/// What every message begins with.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct Head {
    auth_type: u8,
    auth_id: u8,
    reserved2: U16,
    transaction: U16,
}

layout!(Head, 6 bytes, { auth_type at 0, auth_id at 1, reserved2 at 2, transaction at 4 });

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct NegotiateHead {
    head: Head,
    secure_channel: u8,
    descriptors: u8,
}

layout!(NegotiateHead, 8 bytes, { head at 0, secure_channel at 6, descriptors at 7 });

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct Descriptor {
    protocol: u8,
    reserved1: u8,
    hashes: u8,
    groups: u8,
    hash_list: [u8; LIST],
    group_list: [u8; LIST],
}

layout!(Descriptor, 64 bytes, {
    protocol at 0, reserved1 at 1, hashes at 2, groups at 3, hash_list at 4, group_list at 34,
});

#[derive(IntoBytes, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct ChallengeHead {
    head: Head,
    hash_len: u8,
    reserved7: u8,
    hash: u8,
    group: u8,
    value_len: U16,
    sequence: U32,
}

layout!(ChallengeHead, 16 bytes, {
    head at 0, hash_len at 6, reserved7 at 7, hash at 8, group at 9, value_len at 10, sequence at 12,
});

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct ReplyHead {
    head: Head,
    hash_len: u8,
    reserved7: u8,
    challenge_valid: u8,
    reserved9: u8,
    value_len: U16,
    sequence: U32,
}

layout!(ReplyHead, 16 bytes, {
    head at 0, hash_len at 6, reserved7 at 7, challenge_valid at 8, reserved9 at 9, value_len at 10,
    sequence at 12,
});

#[derive(IntoBytes, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct Success1Head {
    head: Head,
    hash_len: u8,
    reserved7: u8,
    response_valid: u8,
    reserved9: [u8; 7],
}

layout!(Success1Head, 16 bytes, {
    head at 0, hash_len at 6, reserved7 at 7, response_valid at 8, reserved9 at 9,
});

#[derive(FromBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct Success2 {
    head: Head,
    reserved6: [u8; 10],
}

layout!(Success2, 16 bytes, { head at 0, reserved6 at 6 });

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned, Clone, Copy, Debug)]
#[repr(C)]
struct Failure {
    head: Head,
    reason: u8,
    explanation: u8,
}

layout!(Failure, 8 bytes, { head at 0, reason at 6, explanation at 7 });

/// AUTH_Negotiate: what the host can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiate {
    /// Whether a secure channel is to follow (SC_C).
    pub wants_secure_channel: bool,
    /// The lists of the host for DH-HMAC-CHAP; `None` where it can only do something else.
    pub offer: Option<Offer>,
}

/// What a host can do of DH-HMAC-CHAP, as far as it is known here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offer {
    /// Hash functions.
    pub hashes: Vec<Hash>,
    /// Diffie-Hellman groups.
    pub groups: Vec<DhGroup>,
}

/// DH-HMAC-CHAP_Reply: the answer of the host, and perhaps a challenge of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// The answer, as long as a hash.
    pub response: &'a [u8],
    /// The challenge to the controller, as long, and its sequence number; `None` where the host does
    /// not ask the controller who it is.
    pub challenge: Option<(&'a [u8], u32)>,
    /// The host's public value.
    pub value: &'a [u8],
}

/// A message of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostMessage<'a> {
    /// AUTH_Negotiate.
    Negotiate(Negotiate),
    /// DH-HMAC-CHAP_Reply.
    Reply(Reply<'a>),
    /// DH-HMAC-CHAP_Success2: the controller has proven itself.
    Success2,
    /// AUTH_Failure2: it has not.
    Failure2 {
        /// Why, as a code of [`Explanation`].
        explanation: u8,
    },
}

impl<'a> HostMessage<'a> {
    /// Reads a message, and tells its transaction. Bytes that are reserved are not looked at.
    ///
    /// # Errors
    /// The explanation for AUTH_Failure1: [`Explanation::IncorrectMessage`] for what is no message of
    /// a host, [`Explanation::IncorrectPayload`] for one that is malformed.
    pub fn parse(bytes: &'a [u8]) -> Result<(u16, Self), Explanation> {
        let payload = Explanation::IncorrectPayload;
        let (head, _) = Head::ref_from_prefix(bytes).map_err(|_| payload)?;
        let message = match (head.auth_type, head.auth_id) {
            (COMMON, NEGOTIATE) => Self::Negotiate(negotiate(bytes).ok_or(payload)?),
            (DHCHAP, REPLY) => Self::Reply(reply(bytes).ok_or(payload)?),
            (DHCHAP, SUCCESS2) => {
                Success2::ref_from_bytes(bytes).map_err(|_| payload)?;
                Self::Success2
            }
            (COMMON, FAILURE2) => {
                let failure = Failure::ref_from_bytes(bytes).map_err(|_| payload)?;
                Self::Failure2 {
                    explanation: failure.explanation,
                }
            }
            _ => return Err(Explanation::IncorrectMessage),
        };
        Ok((head.transaction.get(), message))
    }
}

/// The transaction of a message, whatever it is; `None` where it is too short to have one.
#[must_use]
pub fn transaction_of(bytes: &[u8]) -> Option<u16> {
    let (head, _) = Head::ref_from_prefix(bytes).ok()?;
    Some(head.transaction.get())
}

fn negotiate(bytes: &[u8]) -> Option<Negotiate> {
    let (head, rest) = NegotiateHead::ref_from_prefix(bytes).ok()?;
    let descriptors = <[Descriptor]>::ref_from_bytes(rest).ok()?;
    if descriptors.len() != usize::from(head.descriptors) {
        return None;
    }
    let ours = descriptors.iter().find(|d| d.protocol == PROTOCOL);
    let offer = match ours {
        None => None,
        Some(ours) => {
            let hashes = ours.hash_list.get(..usize::from(ours.hashes))?;
            let groups = ours.group_list.get(..usize::from(ours.groups))?;
            Some(Offer {
                hashes: hashes.iter().filter_map(|&c| Hash::from_code(c)).collect(),
                groups: groups
                    .iter()
                    .filter_map(|&c| DhGroup::from_code(c))
                    .collect(),
            })
        }
    };
    Some(Negotiate {
        wants_secure_channel: head.secure_channel != 0,
        offer,
    })
}

fn reply(bytes: &[u8]) -> Option<Reply<'_>> {
    let (head, rest) = ReplyHead::ref_from_prefix(bytes).ok()?;
    let len = usize::from(head.hash_len);
    let (response, rest) = rest.split_at_checked(len)?;
    let (challenge, value) = rest.split_at_checked(len)?;
    if value.len() != usize::from(head.value_len.get()) {
        return None;
    }
    let challenge = match (head.challenge_valid, head.sequence.get()) {
        (0, _) => None,
        // The number 0 is for a challenge without a successor.
        (1, sequence) if sequence != 0 => Some((challenge, sequence)),
        _ => return None,
    };
    Some(Reply {
        response,
        challenge,
        value,
    })
}

fn head(auth_type: u8, auth_id: u8, transaction: u16) -> Head {
    Head {
        auth_type,
        auth_id,
        reserved2: 0.into(),
        transaction: transaction.into(),
    }
}

/// DH-HMAC-CHAP_Challenge.
#[derive(Clone, Copy, Debug)]
pub struct Challenge<'a> {
    /// The transaction of the host.
    pub transaction: u16,
    /// The hash function that was chosen.
    pub hash: Hash,
    /// The group that was chosen.
    pub group: DhGroup,
    /// Not 0, and another one each time.
    pub sequence: u32,
    /// Random bytes, as many as a hash has.
    pub challenge: &'a [u8],
    /// The controller's public value.
    pub value: &'a [u8],
}

impl Challenge<'_> {
    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let start = ChallengeHead {
            head: head(DHCHAP, CHALLENGE, self.transaction),
            hash_len: self.hash.size() as u8,
            reserved7: 0,
            hash: self.hash.code(),
            group: self.group.code(),
            value_len: (self.value.len() as u16).into(),
            sequence: self.sequence.into(),
        };
        [start.as_bytes(), self.challenge, self.value].concat()
    }
}

/// DH-HMAC-CHAP_Success1: the host has proven itself. With the controller's answer, where the host
/// has asked for it. The length of an answer is told in any case: Linux looks at it.
#[must_use]
pub fn success1(transaction: u16, hash: Hash, response: Option<&[u8]>) -> Vec<u8> {
    let start = Success1Head {
        head: head(DHCHAP, SUCCESS1, transaction),
        hash_len: hash.size() as u8,
        reserved7: 0,
        response_valid: response.is_some().into(),
        reserved9: [0; 7],
    };
    [start.as_bytes(), response.unwrap_or_default()].concat()
}

/// AUTH_Failure1: it is over.
#[must_use]
pub fn failure1(transaction: u16, explanation: Explanation) -> Vec<u8> {
    let failure = Failure {
        head: head(COMMON, FAILURE1, transaction),
        reason: FAILED,
        explanation: explanation.code(),
    };
    failure.as_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What Linux 6.1 sends: three hash functions and six groups.
    fn negotiate_of_linux() -> Vec<u8> {
        let mut bytes = vec![0; 72];
        bytes[4] = 0x34;
        bytes[5] = 0x12;
        bytes[7] = 1;
        bytes[8] = 1;
        bytes[10] = 3;
        bytes[11] = 6;
        bytes[12..15].copy_from_slice(&[1, 2, 3]);
        bytes[42..48].copy_from_slice(&[0, 1, 2, 3, 4, 5]);
        bytes
    }

    fn reply_of(len: u8, valid: u8, sequence: u32, value: usize) -> Vec<u8> {
        let mut bytes = vec![1, 2, 0, 0, 7, 0, len, 0, valid, 0];
        bytes.extend((value as u16).to_le_bytes());
        bytes.extend(sequence.to_le_bytes());
        bytes.extend(vec![0xaa; len.into()]);
        bytes.extend(vec![0xbb; len.into()]);
        bytes.extend(vec![0xcc; value]);
        bytes
    }

    #[test]
    fn what_linux_negotiates_is_read() {
        let bytes = negotiate_of_linux();
        let offer = Offer {
            hashes: Hash::ALL.to_vec(),
            groups: DhGroup::ALL.to_vec(),
        };
        let expected = HostMessage::Negotiate(Negotiate {
            wants_secure_channel: false,
            offer: Some(offer),
        });
        assert_eq!(HostMessage::parse(&bytes), Ok((0x1234, expected)));
    }

    #[test]
    fn protocols_hashes_and_groups_that_are_unknown_are_passed_over() {
        let mut bytes = negotiate_of_linux();
        bytes[12] = 9;
        bytes[42] = 0x77;
        let mut other = [0; 64];
        other[0] = 0xe0;
        other[2..4].fill(0xff);
        bytes.splice(8..8, other);
        bytes[7] = 2;
        let Ok((_, HostMessage::Negotiate(read))) = HostMessage::parse(&bytes) else {
            panic!("it is well-formed");
        };
        let offer = read.offer.unwrap();
        assert_eq!(offer.hashes, [Hash::Sha384, Hash::Sha512]);
        assert_eq!(offer.groups, DhGroup::ALL[1..]);
        bytes[72] = 0xe0;
        let read = HostMessage::parse(&bytes).unwrap().1;
        assert!(matches!(read, HostMessage::Negotiate(n) if n.offer.is_none()));
    }

    #[test]
    fn replies_are_taken_apart() {
        let bytes = reply_of(32, 1, 5, 3);
        let expected = Reply {
            response: &[0xaa; 32],
            challenge: Some((&[0xbb; 32], 5)),
            value: &[0xcc; 3],
        };
        let read = HostMessage::parse(&bytes);
        assert_eq!(read, Ok((7, HostMessage::Reply(expected))));
        let bytes = reply_of(48, 0, 0, 0);
        let expected = Reply {
            response: &[0xaa; 48],
            challenge: None,
            value: &[],
        };
        let read = HostMessage::parse(&bytes);
        assert_eq!(read, Ok((7, HostMessage::Reply(expected))));
    }

    #[test]
    fn malformed_messages_are_told_apart() {
        use Explanation::{IncorrectMessage, IncorrectPayload};
        let mut counted = negotiate_of_linux();
        counted[7] = 2;
        let mut hashes = negotiate_of_linux();
        hashes[10] = 31;
        let mut groups = negotiate_of_linux();
        groups[11] = 31;
        let mut lengthy = reply_of(32, 0, 0, 4);
        lengthy[10] = 5;
        let cases = [
            (vec![], IncorrectPayload),
            (vec![0; 5], IncorrectPayload),
            (vec![0; 6], IncorrectPayload),
            (counted, IncorrectPayload),
            (hashes, IncorrectPayload),
            (groups, IncorrectPayload),
            (negotiate_of_linux()[..71].to_vec(), IncorrectPayload),
            (reply_of(32, 0, 0, 0)[..79].to_vec(), IncorrectPayload),
            (reply_of(32, 2, 1, 0), IncorrectPayload),
            (reply_of(32, 1, 0, 0), IncorrectPayload),
            (lengthy, IncorrectPayload),
            (vec![1, 4, 0, 0, 7, 0], IncorrectPayload),
            ([vec![1, 4], vec![0; 15]].concat(), IncorrectPayload),
            (vec![0, 0xf0, 0, 0, 7, 0, 1], IncorrectPayload),
            // Messages of a controller, and none at all.
            ([vec![1, 1], vec![0; 46]].concat(), IncorrectMessage),
            ([vec![1, 3], vec![0; 14]].concat(), IncorrectMessage),
            (vec![0, 0xf1, 0, 0, 7, 0, 1, 1], IncorrectMessage),
            (vec![2, 0, 0, 0, 7, 0], IncorrectMessage),
            (vec![1, 0, 0, 0, 7, 0], IncorrectMessage),
        ];
        for (bytes, expected) in cases {
            assert_eq!(HostMessage::parse(&bytes), Err(expected), "{bytes:02x?}");
        }
        let success = [vec![1, 4, 0, 0, 7, 0], vec![0; 10]].concat();
        assert_eq!(HostMessage::parse(&success), Ok((7, HostMessage::Success2)));
        let failure = HostMessage::parse(&[0, 0xf0, 0, 0, 7, 0, 1, 1]);
        assert_eq!(failure, Ok((7, HostMessage::Failure2 { explanation: 1 })));
    }

    #[test]
    fn what_is_built_is_at_the_bytes_of_the_specification() {
        let challenge = Challenge {
            transaction: 0x1234,
            hash: Hash::Sha384,
            group: DhGroup::Ffdhe2048,
            sequence: 0x0102_0304,
            challenge: &[0xaa; 48],
            value: &[0xbb; 256],
        };
        let start = [1, 1, 0, 0, 0x34, 0x12, 48, 0, 2, 1, 0, 1, 4, 3, 2, 1];
        let expected = [&start[..], &[0xaa; 48], &[0xbb; 256]].concat();
        assert_eq!(challenge.encode(), expected);
        let start = [1, 3, 0, 0, 0x34, 0x12, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0];
        let expected = [&start[..], &[0xcc; 32]].concat();
        let built = success1(0x1234, Hash::Sha256, Some(&[0xcc; 32]));
        assert_eq!(built, expected);
        let start = [1, 3, 0, 0, 0x34, 0x12, 64, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(success1(0x1234, Hash::Sha512, None), start);
        let built = failure1(0x1234, Explanation::IncorrectPayload);
        assert_eq!(built, [0, 0xf1, 0, 0, 0x34, 0x12, 1, 6]);
    }

    proptest! {
        /// Any bytes are read without harm, above all those that begin well.
        #[test]
        fn any_bytes_are_read_without_harm(
            start in prop::sample::select(vec![[0, 0], [0, 0xf0], [1, 2], [1, 4], [9, 9]]),
            rest in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let bytes = [&start[..], &rest].concat();
            if let Ok((transaction, message)) = HostMessage::parse(&bytes) {
                prop_assert_eq!(transaction.to_le_bytes(), [bytes[4], bytes[5]]);
                if let HostMessage::Reply(reply) = message {
                    prop_assert_eq!(16 + 2 * reply.response.len() + reply.value.len(), bytes.len());
                }
            }
        }
    }
}
