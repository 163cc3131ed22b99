//! Who takes over from whom where hosts have to prove who they are: a name and an identifier are no
//! proof, and everybody can say them.

use std::sync::Arc;
use std::time::Duration;

use super::authentication::{
    REQUIRED, begin, fetch, identify, keys, prove, reply, say, sending, unproven,
};
use super::commands::{flush, read, write};
use super::device::Puppet;
use super::host::{Host, connect, connect_data, icreq};
use super::world::{HOST, NQN, Plan, World};
use crate::nvme::Nqn;
use crate::nvme::dhchap::{DhGroup, Hash};
use crate::nvme::fabrics::{CNTLID_DYNAMIC, ConnectData};
use crate::nvmf::{Algorithms, ListenAddress, QpairState, SubsystemOptions};

const HASH: Hash = Hash::Sha256;
const GROUP: DhGroup = DhGroup::Null;

/// A target whose one host has keys, and its device.
fn world() -> (World, Puppet) {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let only = Algorithms {
        hashes: vec![HASH],
        groups: vec![GROUP],
    };
    world.target.set_authentication(only).expect("some");
    let added = world.target.add_host(NQN, HOST, Some(keys(0, Some(1))));
    added.expect("there");
    (world, puppet)
}

fn proven(world: &mut World, qid: u16, cntlid: u16) -> (Host, u16) {
    let (mut host, cntlid) = unproven(world, qid, cntlid);
    prove(&mut host, world, HASH, GROUP, 0);
    (host, cntlid)
}

/// An enabled controller with one I/O queue.
fn admitted(world: &mut World) -> (Host, Host, u16) {
    let (mut admin, cntlid) = proven(world, 0, CNTLID_DYNAMIC);
    admin.enable(world);
    let (io, _) = proven(world, 1, cntlid);
    (admin, io, cntlid)
}

fn works(io: &mut Host, world: &mut World) -> bool {
    !io.pipe.is_closed() && io.run(world, flush(), &[]).status().is_success()
}

/// Sends the proof of a host that is to be told later that it is believed.
fn send_proof(host: &mut Host, world: &mut World) -> u16 {
    let asked = begin(host, world, HASH, GROUP);
    let message = reply(&asked, 0, None);
    let cid = host.submit(sending(message.len()), &message);
    // It is judged on another thread.
    for _ in 0..200 {
        world.settle();
        std::thread::sleep(Duration::from_millis(1));
    }
    cid
}

fn controllers(world: &World) -> Vec<u16> {
    let controllers = world.target.controllers(NQN).expect("there");
    controllers.iter().map(|c| c.cntlid).collect()
}

#[test]
fn strangers_end_nothing() {
    let (world, _puppet) = &mut world();
    let (admin, mut io, cntlid) = admitted(world);
    let (silent, other) = unproven(world, 0, CNTLID_DYNAMIC);
    let (mut wrong, _) = unproven(world, 0, CNTLID_DYNAMIC);
    assert_ne!(cntlid, other);
    let refused = wrong.fetch(world, identify(), 4096);
    assert_eq!(refused.status().code(), REQUIRED);
    assert!(works(&mut io, world));
    // One of them has another secret, the other goes by itself.
    let asked = begin(&mut wrong, world, HASH, GROUP);
    say(&mut wrong, world, &reply(&asked, 2, None));
    assert_eq!(fetch(&mut wrong, world)[..2], [0, 0xf1]);
    world.settle();
    assert!(wrong.pipe.is_closed());
    drop((wrong, silent));
    world.settle();
    assert!(works(&mut io, world));
    assert!(!admin.pipe.is_closed());
    assert_eq!(controllers(world), [cntlid]);
    // Whoever says nothing has its time.
    let (silent, _) = unproven(world, 0, CNTLID_DYNAMIC);
    world.pass(Duration::from_secs(61));
    assert!(silent.pipe.is_closed());
    assert!(works(&mut io, world));
    assert_eq!(controllers(world), [cntlid]);
}

#[test]
fn who_has_proven_who_it_is_takes_over() {
    let (world, puppet) = &mut world();
    let (before, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let (admin, mut io, _) = admitted(world);
    assert!(before.pipe.is_closed(), "it was there first");
    puppet.hold(true);
    io.submit(write(0, 1), &[1; 512]);
    world.settle();
    let (mut again, cntlid) = unproven(world, 0, CNTLID_DYNAMIC);
    let (late, other) = unproven(world, 0, CNTLID_DYNAMIC);
    assert!(!admin.pipe.is_closed() && !io.pipe.is_closed());
    let cid = send_proof(&mut again, world);
    assert!(admin.pipe.is_closed() && io.pipe.is_closed());
    // The old queue still has a write, which must not come after those of the new one.
    assert!(again.is_silent(world));
    puppet.hold(false);
    assert_eq!(again.finish(world, cid).status().code(), 0);
    fetch(&mut again, world);
    again.enable(world);
    let (mut io, _) = proven(world, 1, cntlid);
    assert_eq!(io.fetch(world, read(0, 1), 512).data, [1; 512]);
    // Nothing speaks against who came later, and nothing for it.
    assert!(!late.pipe.is_closed());
    assert_eq!(controllers(world), [cntlid, other]);
}

#[test]
fn of_two_that_prove_it_the_later_connect_stays() {
    let (world, puppet) = &mut world();
    let (_admin, mut io, _) = admitted(world);
    puppet.hold(true);
    io.submit(write(0, 1), &[1; 512]);
    let (mut first, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let (mut second, cntlid) = unproven(world, 0, CNTLID_DYNAMIC);
    let of_second = send_proof(&mut second, world);
    assert!(first.pipe.is_closed(), "it is older");
    assert!(first.poll().is_none());
    puppet.hold(false);
    assert_eq!(second.finish(world, of_second).status().code(), 0);
    world.settle();
    assert_eq!(controllers(world), [cntlid]);
    // The other way round: the first waits for what it takes over from, and then has to go itself.
    puppet.hold(true);
    fetch(&mut second, world);
    second.enable(world);
    let (mut io, _) = proven(world, 1, cntlid);
    io.submit(write(0, 1), &[2; 512]);
    let (mut first, _) = unproven(world, 0, CNTLID_DYNAMIC);
    let (mut second, cntlid) = unproven(world, 0, CNTLID_DYNAMIC);
    send_proof(&mut first, world);
    assert!(first.is_silent(world) && !first.pipe.is_closed());
    let of_second = send_proof(&mut second, world);
    assert!(first.pipe.is_closed() && first.poll().is_none());
    puppet.hold(false);
    assert_eq!(second.finish(world, of_second).status().code(), 0);
    world.settle();
    assert!(!second.pipe.is_closed());
    assert_eq!(controllers(world), [cntlid]);
}

#[test]
fn a_proof_is_of_no_use_where_what_was_before_does_not_end() {
    let (world, puppet) = &mut world();
    let (_admin, mut io, _) = admitted(world);
    puppet.hold(true);
    io.submit(write(0, 1), &[1; 512]);
    let (mut again, _) = unproven(world, 0, CNTLID_DYNAMIC);
    send_proof(&mut again, world);
    world.pass(Duration::from_secs(4));
    assert!(!again.pipe.is_closed());
    world.pass(Duration::from_secs(2));
    assert!(again.pipe.is_closed() && again.poll().is_none());
    puppet.hold(false);
    world.settle();
    assert!(controllers(world).is_empty());
}

#[test]
fn a_queue_is_not_pushed_out_by_a_stranger() {
    let (world, puppet) = &mut world();
    let (mut admin, mut io, cntlid) = admitted(world);
    let (mut stranger, _) = unproven(world, 1, cntlid);
    let refused = stranger.fetch(world, read(0, 1), 512);
    assert_eq!(refused.status().code(), REQUIRED);
    assert!(works(&mut io, world));
    let info = &world.target.controllers(NQN).expect("there")[0];
    assert_eq!(info.num_io_qpairs, 1);
    let state = |world: &World| -> Vec<(u16, QpairState)> {
        let queues = world.target.qpairs(NQN).expect("there");
        queues.iter().map(|q| (q.qid, q.state)).collect()
    };
    use QpairState::{Authenticating, Enabled};
    assert_eq!(
        state(world),
        [(0, Enabled), (1, Enabled), (1, Authenticating)]
    );
    // The host itself may connect it again, and what was in flight comes first.
    puppet.hold(true);
    io.submit(write(0, 1), &[3; 512]);
    world.settle();
    let (mut again, _) = unproven(world, 1, cntlid);
    let cid = send_proof(&mut again, world);
    assert!(io.pipe.is_closed() && again.is_silent(world));
    puppet.hold(false);
    assert_eq!(again.finish(world, cid).status().code(), 0);
    fetch(&mut again, world);
    assert_eq!(again.fetch(world, read(0, 1), 512).data, [3; 512]);
    assert!(!stranger.pipe.is_closed());
    // With the admin queue, all of them go.
    assert_eq!(admin.fetch(world, identify(), 4096).status().code(), 0);
    drop(admin);
    world.settle();
    assert!(again.pipe.is_closed() && stranger.pipe.is_closed());
    assert!(state(world).is_empty());
}

#[test]
fn identifiers_are_not_held_by_strangers() {
    let (world, _puppet) = &mut world();
    let few = "nqn.2026-11.io.example:few";
    let mut options = SubsystemOptions::new(few);
    options.allow_any_host = true;
    options.min_cntlid = 3;
    options.max_cntlid = 4;
    world.target.create_subsystem(options).expect("new");
    let address = ListenAddress(world.local);
    world.target.add_listener(few, address).expect("shared");
    let added = world.target.add_host(few, HOST, Some(keys(0, None)));
    added.expect("there");
    let data = |host: &str| ConnectData {
        subnqn: Nqn::new(few).expect("a name").to_field(),
        hostnqn: Nqn::new(host).expect("a name").to_field(),
        ..connect_data(CNTLID_DYNAMIC)
    };
    let mut come = |host: &str| {
        let mut admin = world.dial();
        admin.initialize(world, &icreq(false, false));
        let answer = admin.connect(world, connect(0, 32), &data(host));
        let code = answer.status().code();
        (admin, code, answer.completion.result64() as u16)
    };
    let (first, _, cntlid) = come(HOST);
    assert_eq!(cntlid, 3);
    let (second, _, cntlid) = come(HOST);
    assert_eq!(cntlid, 4);
    // Two that need not prove anything: the strangers make room for them, the oldest first.
    let (one, code, cntlid) = come("nqn.2026-11.io.example:one");
    assert_eq!((code, cntlid), (0, 3));
    assert!(first.pipe.is_closed() && !second.pipe.is_closed());
    let (third, code, cntlid) = come(HOST);
    assert_eq!((code, cntlid), (0, 4));
    assert!(second.pipe.is_closed());
    let (two, code, cntlid) = come("nqn.2026-11.io.example:two");
    assert_eq!((code, cntlid), (0, 4));
    assert!(third.pipe.is_closed());
    // These stay.
    let (_, code, _) = come(HOST);
    assert_eq!(code, 0x181);
    assert!(!one.pipe.is_closed() && !two.pipe.is_closed());
}
