//! The controller's side of the protocol (Base, "DH-HMAC-CHAP Authentication").

use std::fmt;

use zeroize::Zeroizing;

use crate::nvme::Nqn;
use crate::nvme::dhchap::{
    Challenge, DhGroup, Explanation, Hash, HostMessage, Negotiate, Prover, Question, Reply,
    failure1, success1, transaction_of,
};
use crate::nvmf::algorithms::Algorithms;
use crate::nvmf::host::HostKeys;
use crate::nvmf::stats::{AuthenticationInfo, AuthenticationState};

/// Who talks to whom, with what secrets, and how they may.
#[derive(Clone, Debug)]
pub struct Parties {
    /// The host, as it says.
    pub host: Nqn,
    /// The subsystem.
    pub subsystem: Nqn,
    /// Their keys; none where they were taken away since the host connected.
    pub keys: Option<HostKeys>,
    /// What may be chosen from.
    pub algorithms: Algorithms,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The transaction that it was part of.
    pub transaction: u16,
    /// What the host is to fetch, if anything.
    pub message: Option<Vec<u8>>,
    /// What happens when it has, or at once.
    pub then: Then,
}

/// How it goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// The host has the word.
    Continue,
    /// The host is who it says.
    Admit,
    /// The connection ends.
    End(Explanation),
}

/// Random bytes, and numbers that are never 0 and never twice the same.
#[derive(Debug, Default)]
pub struct Nonces {
    last: u32,
}

impl Nonces {
    /// Fills with random bytes.
    fn fill(bytes: &mut [u8]) -> Result<(), Explanation> {
        getrandom::fill(bytes).map_err(|error| {
            tracing::error!("no random numbers for authentication: {error}");
            Explanation::Failed
        })
    }

    /// The next number; the first is random.
    fn next(&mut self) -> Result<u32, Explanation> {
        if self.last == 0 {
            let mut bytes = [0; 4];
            Self::fill(&mut bytes)?;
            // Far from its end, so that it grows as long as the process lives.
            self.last = u32::from_le_bytes(bytes) >> 1;
        }
        self.last = self.last.checked_add(1).unwrap_or(1);
        Ok(self.last)
    }
}

/// A challenge that the host has to answer.
struct Challenged {
    hash: Hash,
    group: DhGroup,
    sequence: u32,
    challenge: Vec<u8>,
    exponent: Zeroizing<Vec<u8>>,
}

/// Without what is secret.
impl fmt::Debug for Challenged {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Challenged")
            .field("hash", &self.hash)
            .field("group", &self.group)
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum State {
    /// The host may begin.
    Idle,
    /// The host is to answer.
    Challenged(Challenged),
    /// The host has proven itself, and is to say whether the controller has.
    Answered,
}

/// The authentication of one queue. May be repeated when it is over.
#[derive(Debug)]
pub struct Exchange {
    state: State,
    transaction: u16,
    info: AuthenticationInfo,
}

/// What the host is to fetch, and how it goes on.
type Answer = Result<(Option<Vec<u8>>, Then), Explanation>;

impl Exchange {
    /// One that has not begun.
    pub fn new() -> Self {
        Self {
            state: State::Idle,
            transaction: 0,
            info: AuthenticationInfo::default(),
        }
    }

    /// How far it has come.
    pub fn info(&self) -> AuthenticationInfo {
        self.info
    }

    /// Takes a message of the host. May take long; see the room.
    pub fn hear(&mut self, bytes: &[u8], parties: &Parties, nonces: &mut Nonces) -> Verdict {
        let answer = self.answer(bytes, parties, nonces);
        let (message, then) = answer.unwrap_or_else(|explanation| {
            let message = failure1(self.transaction, explanation);
            (Some(message), Then::End(explanation))
        });
        match then {
            Then::Continue => {}
            Then::Admit => self.info.state = AuthenticationState::Completed,
            Then::End(_) => self.info.state = AuthenticationState::Error,
        }
        Verdict {
            transaction: self.transaction,
            message,
            then,
        }
    }

    fn answer(&mut self, bytes: &[u8], parties: &Parties, nonces: &mut Nonces) -> Answer {
        let state = std::mem::replace(&mut self.state, State::Idle);
        if matches!(state, State::Idle) {
            self.transaction = transaction_of(bytes).unwrap_or(0);
        }
        let (transaction, message) = HostMessage::parse(bytes)?;
        let incorrect = Explanation::IncorrectMessage;
        match (state, message) {
            (State::Idle, HostMessage::Negotiate(offer)) => {
                self.info = AuthenticationInfo::default();
                self.negotiate(&offer, parties, nonces)
            }
            (State::Idle, _) | (_, HostMessage::Negotiate(_)) => Err(incorrect),
            _ if transaction != self.transaction => Err(Explanation::IncorrectPayload),
            (State::Challenged(challenged), HostMessage::Reply(reply)) => {
                self.judge(&challenged, &reply, parties)
            }
            (State::Answered, HostMessage::Success2) => Ok((None, Then::Admit)),
            (_, HostMessage::Failure2 { explanation }) => {
                let explanation = Explanation::from_code(explanation);
                Ok((None, Then::End(explanation.unwrap_or(Explanation::Failed))))
            }
            _ => Err(incorrect),
        }
    }

    fn negotiate(&mut self, wish: &Negotiate, parties: &Parties, nonces: &mut Nonces) -> Answer {
        if wish.wants_secure_channel {
            return Err(Explanation::SecureChannelMismatch);
        }
        let offer = wish.offer.as_ref();
        let offer = offer.ok_or(Explanation::ProtocolNotUsable)?;
        let allowed = &parties.algorithms;
        let hash = strongest(Hash::ALL, &allowed.hashes, &offer.hashes);
        let hash = hash.ok_or(Explanation::HashNotUsable)?;
        let group = strongest(DhGroup::ALL, &allowed.groups, &offer.groups);
        let group = group.ok_or(Explanation::GroupNotUsable)?;
        let mut challenge = vec![0; hash.size()];
        Nonces::fill(&mut challenge)?;
        let mut exponent = Zeroizing::new(vec![0; group.exponent_size()]);
        Nonces::fill(&mut exponent)?;
        let sequence = nonces.next()?;
        let message = Challenge {
            transaction: self.transaction,
            hash,
            group,
            sequence,
            challenge: &challenge,
            value: &group.public_value(&exponent),
        }
        .encode();
        self.info = AuthenticationInfo {
            state: AuthenticationState::Reply,
            chosen: Some((hash, group)),
        };
        self.state = State::Challenged(Challenged {
            hash,
            group,
            sequence,
            challenge,
            exponent,
        });
        Ok((Some(message), Then::Continue))
    }

    fn judge(&mut self, asked: &Challenged, reply: &Reply<'_>, parties: &Parties) -> Answer {
        if reply.response.len() != asked.hash.size() {
            return Err(Explanation::IncorrectPayload);
        }
        let secret = asked.group.shared_secret(&asked.exponent, reply.value);
        let secret = secret.ok_or(Explanation::IncorrectPayload)?;
        let keys = parties.keys.as_ref().ok_or(Explanation::Failed)?;
        let question = Question {
            hash: asked.hash,
            prover: Prover::Host,
            challenge: &asked.challenge,
            sequence: asked.sequence,
            transaction: self.transaction,
            host: &parties.host,
            subsystem: &parties.subsystem,
            shared_secret: &secret,
        };
        let key = keys.host.secret.key_of(&parties.host);
        if !question.answer(&key).matches(reply.response) {
            return Err(Explanation::Failed);
        }
        let Some((challenge, sequence)) = reply.challenge else {
            let message = success1(self.transaction, asked.hash, None);
            return Ok((Some(message), Then::Admit));
        };
        let key = keys.controller.as_ref().ok_or(Explanation::Failed)?;
        let key = key.secret.key_of(&parties.subsystem);
        let question = Question {
            prover: Prover::Controller,
            challenge,
            sequence,
            ..question
        };
        let answer = question.answer(&key);
        self.state = State::Answered;
        self.info.state = AuthenticationState::Success2;
        let message = success1(self.transaction, asked.hash, Some(answer.as_bytes()));
        Ok((Some(message), Then::Continue))
    }
}

/// The last of `all`, which are sorted by strength, that both sides can.
fn strongest<T: Copy + PartialEq>(all: &[T], ours: &[T], theirs: &[T]) -> Option<T> {
    let both = |one: &&T| ours.contains(one) && theirs.contains(one);
    all.iter().rev().find(both).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequence_numbers_grow_and_are_never_zero() {
        let mut nonces = Nonces::default();
        let first = nonces.next().unwrap();
        assert_ne!(first, 0);
        assert_eq!(nonces.next(), Ok(first + 1));
        let mut nonces = Nonces { last: u32::MAX - 1 };
        assert_eq!(nonces.next(), Ok(u32::MAX));
        assert_eq!(nonces.next(), Ok(1));
    }

    #[test]
    fn an_exchange_does_not_show_its_secret() {
        let shown = format!(
            "{:?}",
            Challenged {
                hash: Hash::Sha256,
                group: DhGroup::Ffdhe2048,
                sequence: 7,
                challenge: Vec::new(),
                exponent: Zeroizing::new(vec![0xab; 29]),
            }
        );
        let expected = "Challenged { hash: Sha256, group: Ffdhe2048, sequence: 7, .. }";
        assert_eq!(shown, expected);
    }

    #[test]
    fn the_strongest_of_both_is_chosen() {
        use Hash::{Sha256, Sha384, Sha512};
        let choose = |ours: &[Hash], theirs: &[Hash]| strongest(Hash::ALL, ours, theirs);
        assert_eq!(choose(Hash::ALL, &[Sha256, Sha384]), Some(Sha384));
        assert_eq!(choose(&[Sha256, Sha512], Hash::ALL), Some(Sha512));
        assert_eq!(choose(&[Sha512], &[Sha256]), None);
        assert_eq!(choose(Hash::ALL, &[]), None);
    }
}
