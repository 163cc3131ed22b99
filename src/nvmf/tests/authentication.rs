//! Hosts that have to prove who they are, and those that try not to. Messages are built here byte by
//! byte, as the specification has them; that Linux takes and sends the same is what
//! `tests/hosts/authentication.sh` shows.

use std::sync::Arc;
use std::time::Duration;

use super::commands::{flush, read};
use super::host::{Answer, Host, connect, connect_data, icreq};
use super::world::{HOST, NQN, World};
use crate::nvme::dhchap::{DhGroup, Hash, Prover, Question, Secret};
use crate::nvme::fabrics::{Authentication, CNTLID_DYNAMIC, Connect, FabricsCommand};
use crate::nvme::property::Property;
use crate::nvme::{Command, Nqn};
use crate::nvmf::{Algorithms, AuthenticationState, HostKeys, Key, QpairState};

/// Three secrets, made with nvme-cli 2.3.
const SECRETS: [&str; 3] = [
    "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh+KfiaR:",
    "DHHC-1:01:bOHk6jHoMxpP5YJr/eF6XNOGuPAzh0iRniebpsVb9ydqVuR5:",
    "DHHC-1:00:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vcSEgBQ==:",
];

/// Authentication Required.
pub(super) const REQUIRED: u16 = 0x191;
const TRANSACTION: u16 = 0x1234;

fn secret(which: usize) -> Secret {
    Secret::parse(SECRETS[which].as_bytes()).expect("a secret")
}

fn key(which: usize) -> Arc<Key> {
    Arc::new(Key {
        name: format!("key{which}"),
        secret: secret(which),
    })
}

pub(super) fn keys(host: usize, controller: Option<usize>) -> HostKeys {
    HostKeys {
        host: key(host),
        controller: controller.map(key),
    }
}

fn nqn(text: &str) -> Nqn {
    Nqn::new(text).expect("a name")
}

/// A target whose one host has keys 0 and, for the controller, 1; and that chooses these.
pub(super) fn world(hash: Hash, group: DhGroup) -> World {
    let mut world = World::new();
    let only = Algorithms {
        hashes: vec![hash],
        groups: vec![group],
    };
    world.target.set_authentication(only).expect("some");
    let added = world.target.add_host(NQN, HOST, Some(keys(0, Some(1))));
    added.expect("there");
    world
}

/// A queue on which nothing was proven; and its controller.
pub(super) fn unproven(world: &mut World, qid: u16, cntlid: u16) -> (Host, u16) {
    let mut host = world.dial();
    host.initialize(world, &icreq(false, false));
    let answer = host.connect(world, connect(qid, 32), &connect_data(cntlid));
    assert_eq!(answer.status().code(), 0);
    let result = answer.completion.result64();
    assert_eq!(result >> 16, 0b10, "ATR, and nothing else");
    (host, result as u16)
}

fn wish(len: u32) -> Authentication {
    Authentication {
        protocol: 0xe9,
        specific0: 1,
        specific1: 1,
        len,
    }
}

pub(super) fn sending(len: usize) -> Command {
    FabricsCommand::AuthenticationSend(wish(len as u32)).to_command()
}

fn receiving(len: u32) -> Command {
    FabricsCommand::AuthenticationReceive(wish(len)).to_command()
}

fn send(host: &mut Host, world: &mut World, message: &[u8]) -> Answer {
    host.run(world, sending(message.len()), message)
}

pub(super) fn say(host: &mut Host, world: &mut World, message: &[u8]) {
    let answer = send(host, world, message);
    assert_eq!(answer.status().code(), 0, "{message:02x?}");
}

/// Fetches a message, which comes with zeros behind it.
pub(super) fn fetch(host: &mut Host, world: &mut World) -> Vec<u8> {
    let answer = host.fetch(world, receiving(2048), 2048);
    assert_eq!(answer.status().code(), 0);
    assert_eq!(answer.data.len(), 2048);
    answer.data
}

/// Fetches AUTH_Failure1 with this explanation, after which the connection is closed.
pub(super) fn expect_failure(
    host: &mut Host,
    world: &mut World,
    transaction: u16,
    explanation: u8,
) {
    let failure = fetch(host, world);
    let [low, high] = transaction.to_le_bytes();
    assert_eq!(failure[..8], [0, 0xf1, 0, 0, low, high, 1, explanation]);
    world.settle();
    assert!(host.pipe.is_closed());
}

fn negotiate_with(secure_channel: u8, protocol: u8, hashes: &[u8], groups: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 72];
    bytes[4..6].copy_from_slice(&TRANSACTION.to_le_bytes());
    bytes[6] = secure_channel;
    bytes[7] = 1;
    bytes[8] = protocol;
    bytes[10] = hashes.len() as u8;
    bytes[11] = groups.len() as u8;
    bytes[12..12 + hashes.len()].copy_from_slice(hashes);
    bytes[42..42 + groups.len()].copy_from_slice(groups);
    bytes
}

/// What Linux can do.
fn negotiate() -> Vec<u8> {
    negotiate_with(0, 1, &[1, 2, 3], &[0, 1, 2, 3, 4, 5])
}

fn short(auth_type: u8, auth_id: u8, rest: usize) -> Vec<u8> {
    let [low, high] = TRANSACTION.to_le_bytes();
    [&[auth_type, auth_id, 0, 0, low, high][..], &vec![0; rest]].concat()
}

fn success2() -> Vec<u8> {
    short(1, 4, 10)
}

/// What a host learns from a challenge.
pub(super) struct Asked {
    hash: Hash,
    sequence: u32,
    challenge: Vec<u8>,
    /// The host's public value, and the shared secret.
    value: Vec<u8>,
    shared: Vec<u8>,
}

/// Begins, and reads the challenge.
pub(super) fn begin(host: &mut Host, world: &mut World, hash: Hash, group: DhGroup) -> Asked {
    say(host, world, &negotiate());
    let message = fetch(host, world);
    let size = hash.size();
    let [low, high] = TRANSACTION.to_le_bytes();
    assert_eq!(message[..6], [1, 1, 0, 0, low, high]);
    assert_eq!(usize::from(message[6]), size);
    assert_eq!(message[8..10], [hash.code(), group.code()]);
    let len = usize::from(u16::from_le_bytes([message[10], message[11]]));
    assert_eq!(len, group.size());
    let value = &message[16 + size..][..len];
    let exponent = vec![0x5a; group.exponent_size()];
    let shared = group.shared_secret(&exponent, value).expect("a value");
    Asked {
        hash,
        sequence: u32::from_le_bytes(message[12..16].try_into().unwrap()),
        challenge: message[16..][..size].to_vec(),
        value: group.public_value(&exponent),
        shared: shared.to_vec(),
    }
}

fn answer(asked: &Asked, prover: Prover, challenge: &[u8], sequence: u32, which: usize) -> Vec<u8> {
    let (host, subsystem) = (nqn(HOST), nqn(NQN));
    let question = Question {
        hash: asked.hash,
        prover,
        challenge,
        sequence,
        transaction: TRANSACTION,
        host: &host,
        subsystem: &subsystem,
        shared_secret: &asked.shared,
    };
    let name = match prover {
        Prover::Host => &host,
        Prover::Controller => &subsystem,
    };
    let key = secret(which).key_of(name);
    question.answer(&key).as_bytes().to_vec()
}

/// A reply with the secret `which`, and with a challenge of its own or none.
pub(super) fn reply(asked: &Asked, which: usize, challenge: Option<(&[u8], u32)>) -> Vec<u8> {
    let proof = answer(asked, Prover::Host, &asked.challenge, asked.sequence, which);
    let mut bytes = short(1, 2, 0);
    bytes.extend([asked.hash.size() as u8, 0, challenge.is_some().into(), 0]);
    bytes.extend((asked.value.len() as u16).to_le_bytes());
    bytes.extend(challenge.map_or(0, |(_, sequence)| sequence).to_le_bytes());
    bytes.extend(proof);
    let none = vec![0; asked.hash.size()];
    bytes.extend(challenge.map_or(&none[..], |(challenge, _)| challenge));
    bytes.extend(&asked.value);
    bytes
}

/// Proves who the host is, with the secret `which`.
pub(super) fn prove(host: &mut Host, world: &mut World, hash: Hash, group: DhGroup, which: usize) {
    let asked = begin(host, world, hash, group);
    say(host, world, &reply(&asked, which, None));
    let success = fetch(host, world);
    assert_eq!(
        success[..9],
        short(1, 3, 3)[..9].to_vec().with(6, hash.size())
    );
}

trait With {
    fn with(self, at: usize, value: usize) -> Self;
}

impl With for Vec<u8> {
    fn with(mut self, at: usize, value: usize) -> Self {
        self[at] = value as u8;
        self
    }
}

pub(super) fn identify() -> Command {
    let mut identify = Command::new(0x06, 0);
    identify.cdw10 = 1.into();
    identify
}

#[test]
fn nothing_is_done_before_the_host_has_proven_who_it_is() {
    for hash in Hash::ALL.iter().copied() {
        let group = DhGroup::Null;
        let world = &mut world(hash, group);
        let (mut admin, cntlid) = unproven(world, 0, CNTLID_DYNAMIC);
        let refused = admin.fetch(world, identify(), 4096);
        assert_eq!(refused.status().code(), REQUIRED);
        assert!(refused.status().do_not_retry());
        let refused = admin.property_set(world, Property::Configuration, 0x0046_0001);
        assert_eq!(refused.status().code(), REQUIRED);
        prove(&mut admin, world, hash, group, 0);
        admin.enable(world);
        assert_eq!(admin.fetch(world, identify(), 4096).status().code(), 0);
        // Each queue has to.
        let (mut io, _) = unproven(world, 1, cntlid);
        for command in [flush(), read(0, 1)] {
            let refused = io.fetch(world, command, 512);
            assert_eq!(refused.status().code(), REQUIRED);
        }
        let queues = world.target.qpairs(NQN).expect("there");
        assert_eq!(queues[1].state, QpairState::Authenticating);
        prove(&mut io, world, hash, group, 0);
        assert_eq!(io.fetch(world, read(0, 1), 512).status().code(), 0);
        for queue in world.target.qpairs(NQN).expect("there") {
            let info = queue.authentication.expect("it had to");
            assert_eq!(queue.state, QpairState::Enabled);
            assert_eq!(info.state, AuthenticationState::Completed);
            assert_eq!(info.chosen, Some((hash, group)));
        }
    }
}

#[test]
fn the_controller_proves_itself_too_where_it_is_asked() {
    let (hash, group) = (Hash::Sha256, DhGroup::Ffdhe2048);
    let world = &mut world(hash, group);
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let asked = begin(&mut admin, world, hash, group);
    let challenge = [0xc2; 32];
    // The data of a message may be asked for, too.
    let message = reply(&asked, 0, Some((&challenge, 9)));
    let pushed = admin.push(world, sending(message.len()), &message);
    assert_eq!(pushed.status().code(), 0);
    let success = fetch(&mut admin, world);
    assert_eq!(success[..9], [1, 3, 0, 0, 0x34, 0x12, 32, 0, 1]);
    let expected = answer(&asked, Prover::Controller, &challenge, 9, 1);
    assert_eq!(success[16..48], expected);
    // It is the host's to say whether that is right.
    let refused = admin.fetch(world, identify(), 4096);
    assert_eq!(refused.status().code(), REQUIRED);
    say(&mut admin, world, &success2());
    admin.enable(world);
    assert!(!admin.pipe.is_closed());
}

#[test]
fn whoever_has_not_the_secret_is_shown_out() {
    for group in [DhGroup::Null, DhGroup::Ffdhe2048] {
        let hash = Hash::Sha512;
        let world = &mut world(hash, group);
        let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
        let asked = begin(&mut admin, world, hash, group);
        say(&mut admin, world, &reply(&asked, 2, None));
        expect_failure(&mut admin, world, TRANSACTION, 1);
        drop(admin);
        world.settle();
        assert!(world.target.controllers(NQN).expect("there").is_empty());
        // The right answer to another challenge is a wrong one.
        let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
        begin(&mut admin, world, hash, group);
        say(&mut admin, world, &reply(&asked, 0, None));
        expect_failure(&mut admin, world, TRANSACTION, 1);
    }
}

#[test]
fn a_controller_without_a_key_does_not_pretend() {
    let (hash, group) = (Hash::Sha256, DhGroup::Null);
    let world = &mut world(hash, group);
    let alone = Some(keys(0, None));
    world.target.set_host_keys(NQN, HOST, alone).expect("there");
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let asked = begin(&mut admin, world, hash, group);
    say(&mut admin, world, &reply(&asked, 0, Some((&[0xc2; 32], 9))));
    expect_failure(&mut admin, world, TRANSACTION, 1);
}

#[test]
fn a_host_that_does_not_believe_the_controller_ends_it() {
    let (hash, group) = (Hash::Sha256, DhGroup::Null);
    let world = &mut world(hash, group);
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let asked = begin(&mut admin, world, hash, group);
    say(&mut admin, world, &reply(&asked, 0, Some((&[0xc2; 32], 9))));
    fetch(&mut admin, world);
    say(&mut admin, world, &short(0, 0xf0, 2));
    world.settle();
    assert!(admin.pipe.is_closed());
    // Also one that cannot do what was chosen.
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    begin(&mut admin, world, hash, group);
    say(&mut admin, world, &short(0, 0xf0, 2));
    world.settle();
    assert!(admin.pipe.is_closed());
}

#[test]
fn offers_that_cannot_be_taken_are_answered_with_the_reason() {
    let world = &mut world(Hash::Sha384, DhGroup::Ffdhe2048);
    let mut counted = negotiate();
    counted[7] = 3;
    let cases = [
        (negotiate_with(1, 1, &[2], &[1]), 3),
        (negotiate_with(0, 0xe0, &[2], &[1]), 2),
        (negotiate_with(0, 1, &[1, 3, 9], &[1]), 4),
        (negotiate_with(0, 1, &[], &[1]), 4),
        (negotiate_with(0, 1, &[2], &[0, 2, 0x77]), 5),
        (negotiate_with(0, 1, &[2], &[]), 5),
        (counted, 6),
        (negotiate()[..40].to_vec(), 6),
    ];
    for (message, explanation) in cases {
        let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
        say(&mut admin, world, &message);
        expect_failure(&mut admin, world, TRANSACTION, explanation);
    }
}

#[test]
fn messages_out_of_their_order_end_it() {
    let (hash, group) = (Hash::Sha256, DhGroup::Null);
    let world = &mut world(hash, group);
    let some = Asked {
        hash,
        sequence: 1,
        challenge: vec![1; 32],
        value: Vec::new(),
        shared: Vec::new(),
    };
    let early = reply(&some, 0, None);
    // First of all.
    let firsts = [
        (early.clone(), 7),
        (success2(), 7),
        (short(0, 0xf0, 2), 7),
        (short(1, 1, 40), 7),
        (short(1, 3, 10), 7),
        (short(7, 0, 2), 7),
        (short(0, 0xf1, 2), 7),
        (short(1, 2, 2), 6),
        (short(1, 4, 9), 6),
        (short(0, 0, 0), 6),
    ];
    for (message, explanation) in firsts {
        let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
        say(&mut admin, world, &message);
        expect_failure(&mut admin, world, TRANSACTION, explanation);
    }
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    say(&mut admin, world, &[9]);
    expect_failure(&mut admin, world, 0, 6);
    // There is nothing to fetch.
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    expect_failure(&mut admin, world, 0, 7);
    // After the challenge: another transaction, other sizes, things of before.
    let other = |bytes: Vec<u8>| bytes.with(4, 0x99);
    let lengthy = |asked: &Asked| {
        let mut bytes = reply(asked, 0, None);
        bytes.extend([0; 4]);
        bytes.with(10, 4)
    };
    type Make<'a> = Box<dyn Fn(&Asked) -> Vec<u8> + 'a>;
    let seconds: [(Make<'_>, u8); 7] = [
        (Box::new(|_| negotiate()), 7),
        (Box::new(|_| success2()), 7),
        (Box::new(|asked| other(reply(asked, 0, None))), 6),
        (Box::new(|asked| reply(asked, 0, None)[1..].to_vec()), 7),
        (Box::new(|asked| reply(asked, 0, None).with(6, 48)), 6),
        (Box::new(|asked| reply(asked, 0, None).with(8, 1)), 6),
        (Box::new(lengthy), 6),
    ];
    for (at, (make, explanation)) in seconds.iter().enumerate() {
        let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
        let asked = begin(&mut admin, world, hash, group);
        say(&mut admin, world, &make(&asked));
        let failure = fetch(&mut admin, world);
        assert_eq!(failure[..2], [0, 0xf1], "{at}");
        assert_eq!(failure[6..8], [1, *explanation], "{at}");
        world.settle();
        assert!(admin.pipe.is_closed(), "{at}");
    }
    // A public value that would give the secret away.
    let group = DhGroup::Ffdhe2048;
    let world = &mut self::world(hash, group);
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let mut asked = begin(&mut admin, world, hash, group);
    asked.value = vec![0; 256].with(255, 1);
    asked.shared = asked.value.clone();
    say(&mut admin, world, &reply(&asked, 0, None));
    expect_failure(&mut admin, world, TRANSACTION, 6);
}

#[test]
fn commands_that_are_malformed_are_refused_and_change_nothing() {
    let (hash, group) = (Hash::Sha256, DhGroup::Null);
    let world = &mut world(hash, group);
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let good = wish(72);
    let wrong = [
        Authentication {
            protocol: 0xea,
            ..good
        },
        Authentication {
            specific0: 0,
            ..good
        },
        Authentication {
            specific1: 2,
            ..good
        },
        wish(0),
    ];
    for wish in wrong {
        let command = FabricsCommand::AuthenticationSend(wish).to_command();
        let refused = admin.run(world, command, &negotiate());
        assert_eq!(refused.status().code(), 0x002, "{wish:?}");
        let command = FabricsCommand::AuthenticationReceive(wish).to_command();
        let refused = admin.fetch(world, command, 72);
        assert_eq!(refused.status().code(), 0x002, "{wish:?}");
    }
    let refused = admin.run(world, sending(4097), &vec![0; 4097]);
    assert_eq!(refused.status().code(), 0x002);
    let refused = admin.run(world, sending(73), &negotiate());
    assert_eq!(refused.status().code(), 0x00f, "the length is another");
    let refused = admin.fetch(world, receiving(2048), 2047);
    assert_eq!(refused.status().code(), 0x00f, "there is no room for it");
    say(&mut admin, world, &negotiate());
    // A challenge of 48 bytes, for which there is no room; it stays to be fetched.
    let refused = admin.fetch(world, receiving(47), 47);
    assert_eq!(refused.status().code(), 0x002);
    let fetched = admin.fetch(world, receiving(48), 48);
    assert_eq!(fetched.data[..2], [1, 1]);
}

#[test]
fn one_message_at_a_time() {
    let (hash, group) = (Hash::Sha256, DhGroup::Null);
    let world = &mut world(hash, group);
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let first = admin.submit(sending(72), &negotiate());
    let second = admin.submit(sending(72), &negotiate());
    let third = admin.submit_read(receiving(2048), 2048);
    for hasty in [second, third] {
        let refused = admin.finish(world, hasty);
        assert_eq!(refused.status().code(), 0x00c);
    }
    assert_eq!(admin.finish(world, first).status().code(), 0);
    assert_eq!(fetch(&mut admin, world)[..2], [1, 1]);
}

#[test]
fn a_host_may_prove_itself_again_and_with_the_keys_of_then() {
    let (hash, group) = (Hash::Sha384, DhGroup::Null);
    let world = &mut world(hash, group);
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let first = begin(&mut admin, world, hash, group);
    say(&mut admin, world, &reply(&first, 0, None));
    fetch(&mut admin, world);
    admin.enable(world);
    let new = Some(keys(2, None));
    world.target.set_host_keys(NQN, HOST, new).expect("there");
    // Meanwhile it goes on.
    let again = begin(&mut admin, world, hash, group);
    assert!(first.sequence != 0 && again.sequence > first.sequence);
    assert_ne!(first.challenge, again.challenge);
    assert_eq!(admin.fetch(world, identify(), 4096).status().code(), 0);
    say(&mut admin, world, &reply(&again, 2, None));
    fetch(&mut admin, world);
    assert_eq!(admin.fetch(world, identify(), 4096).status().code(), 0);
    // With the key of before it is over.
    let again = begin(&mut admin, world, hash, group);
    say(&mut admin, world, &reply(&again, 0, None));
    expect_failure(&mut admin, world, TRANSACTION, 1);
}

#[test]
fn keys_that_are_taken_away_meanwhile_open_nothing() {
    let (hash, group) = (Hash::Sha256, DhGroup::Null);
    let world = &mut world(hash, group);
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let asked = begin(&mut admin, world, hash, group);
    world.target.set_host_keys(NQN, HOST, None).expect("there");
    say(&mut admin, world, &reply(&asked, 0, None));
    expect_failure(&mut admin, world, TRANSACTION, 1);
    // From now on it need not.
    let (mut admin, _) = Host::admin(world);
    let answer = send(&mut admin, world, &negotiate());
    assert_eq!(answer.status().code(), 0x001, "there is nothing to prove");
}

#[test]
fn a_host_with_keys_has_to_even_where_any_host_may_come() {
    let world = &mut world(Hash::Sha256, DhGroup::Null);
    world.target.set_allow_any_host(NQN, true).expect("there");
    unproven(world, 0, CNTLID_DYNAMIC);
    let again = world.target.add_host(NQN, HOST, None);
    assert!(again.unwrap_err().to_string().contains("set_keys"));
    unproven(world, 0, CNTLID_DYNAMIC);
}

#[test]
fn hosts_do_not_take_for_ever() {
    let (hash, group) = (Hash::Sha256, DhGroup::Null);
    let world = &mut world(hash, group);
    let (idle, _) = unproven(world, 0, CNTLID_DYNAMIC);
    world.pass(Duration::from_secs(59));
    assert!(!idle.pipe.is_closed());
    world.pass(Duration::from_secs(2));
    assert!(idle.pipe.is_closed());
    let (mut stuck, _) = unproven(world, 0, CNTLID_DYNAMIC);
    begin(&mut stuck, world, hash, group);
    world.pass(Duration::from_secs(61));
    assert!(stuck.pipe.is_closed());
    // Who is admitted has all the time, until it begins anew.
    let (mut good, _) = unproven(world, 0, CNTLID_DYNAMIC);
    prove(&mut good, world, hash, group, 0);
    world.pass(Duration::from_secs(300));
    assert!(!good.pipe.is_closed());
    begin(&mut good, world, hash, group);
    world.pass(Duration::from_secs(61));
    assert!(good.pipe.is_closed());
}

/// Linux asks for keep-alives every 5 s, but sends none before it is admitted, and computes longer
/// than that where it is slow and the group is large.
#[test]
fn keep_alives_are_due_when_the_host_is_admitted() {
    let (hash, group) = (Hash::Sha256, DhGroup::Null);
    let world = &mut world(hash, group);
    let mut host = world.dial();
    host.initialize(world, &icreq(false, false));
    let hasty = Connect {
        kato_ms: 5000,
        ..connect(0, 32)
    };
    host.connect(world, hasty, &connect_data(CNTLID_DYNAMIC));
    let asked = begin(&mut host, world, hash, group);
    world.pass(Duration::from_secs(30));
    say(&mut host, world, &reply(&asked, 0, None));
    fetch(&mut host, world);
    world.pass(Duration::from_secs(4));
    assert!(!host.pipe.is_closed());
    world.pass(Duration::from_secs(7));
    assert!(host.pipe.is_closed());
}

#[test]
fn a_host_that_leaves_in_the_middle_leaves_nothing() {
    let (hash, group) = (Hash::Sha256, DhGroup::Ffdhe2048);
    let world = &mut world(hash, group);
    for _ in 0..3 {
        let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
        admin.submit(sending(72), &negotiate());
        world.turn();
        drop(admin);
        world.settle();
    }
    assert!(world.target.controllers(NQN).expect("there").is_empty());
    let (mut admin, _) = unproven(world, 0, CNTLID_DYNAMIC);
    prove(&mut admin, world, hash, group, 0);
}
