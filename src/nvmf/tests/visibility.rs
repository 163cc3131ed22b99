//! Namespaces that only some hosts see.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::admin::{SET, ask, log, simple};
use super::commands::{flush, write};
use super::device::Puppet;
use super::host::{Host, connect, connect_data, icreq};
use super::world::{HOST, NQN, World};
use crate::nvme::fabrics::{CNTLID_DYNAMIC, ConnectData};
use crate::nvme::identify::NamespaceList;
use crate::nvme::{Command, Nqn};
use crate::nvmf::NamespaceOptions;

const OTHER: &str = "nqn.2026-11.io.example:other";
/// A notice (2h) that namespaces have changed (00h): see page 04h.
const CHANGED: u64 = 0x0004_0002;

/// Namespace 1 is everybody's, 2 is nobody's yet.
fn world() -> (World, Puppet) {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::new();
    world.registry.add(Arc::new(puppet.clone())).expect("new");
    let options = NamespaceOptions {
        bdev_name: "Test0".into(),
        no_auto_visible: true,
        ..NamespaceOptions::default()
    };
    let registry = &mut world.registry;
    let added = world.target.add_namespace(registry, NQN, options);
    assert_eq!(added.expect("a namespace"), 2);
    (world, puppet)
}

/// An enabled controller of another host, with one I/O queue.
fn other(world: &mut World) -> (Host, Host) {
    let data = |cntlid| ConnectData {
        hostnqn: Nqn::new(OTHER).expect("a name").to_field(),
        ..connect_data(cntlid)
    };
    let mut come = |qid, cntlid| {
        let mut host = world.dial();
        host.initialize(world, &icreq(false, false));
        let answer = host.connect(world, connect(qid, 32), &data(cntlid));
        assert!(answer.status().is_success(), "{answer:?}");
        if qid == 0 {
            host.enable(world);
        }
        (host, answer.completion.result64() as u16)
    };
    let (admin, cntlid) = come(0, CNTLID_DYNAMIC);
    (admin, come(1, cntlid).0)
}

fn active(admin: &mut Host, world: &mut World) -> Vec<u32> {
    let answer = ask(admin, world, 0x02, 0);
    let list = NamespaceList::read_from_bytes(&answer.data).expect("4096 bytes");
    list.iter().collect()
}

fn changed(admin: &mut Host, world: &mut World) -> Vec<u32> {
    let answer = log(admin, world, 0x04, 0, 4096);
    let list = NamespaceList::read_from_bytes(&answer.data).expect("4096 bytes");
    list.iter().collect()
}

fn second(command: Command) -> Command {
    Command {
        nsid: 2.into(),
        ..command
    }
}

fn listen(admin: &mut Host, world: &mut World) -> u16 {
    let set = admin.run(world, simple(SET, 0x0b, 0x100), &[]);
    assert_eq!(set.status().code(), 0);
    admin.submit(Command::new(0x0c, 0), &[])
}

#[test]
fn a_namespace_is_there_for_the_hosts_that_see_it_and_for_nobody_else() {
    let (mut world, puppet) = world();
    let world = &mut world;
    let (mut admin, mut io) = Host::queue(world);
    let (mut strange, mut theirs) = other(world);
    for (admin, io) in [(&mut admin, &mut io), (&mut strange, &mut theirs)] {
        assert_eq!(active(admin, world), [1]);
        // As for every number under which nothing is.
        assert_eq!(ask(admin, world, 0x00, 2).data, vec![0; 4096]);
        assert_eq!(ask(admin, world, 0x03, 2).status().code(), 0x00b);
        assert_eq!(ask(admin, world, 0x08, 2).status().code(), 0x00b);
        let refused = io.run(world, second(write(0, 1)), &[1; 512]);
        assert_eq!(refused.status().code(), 0x00b);
        assert!(refused.status().do_not_retry());
        assert_eq!(io.run(world, flush(), &[]).status().code(), 0);
    }
    assert!(puppet.seen().is_empty());
    let event = listen(&mut admin, world);
    listen(&mut strange, world);
    world.target.set_visible(NQN, 2, HOST, true).expect("there");
    assert_eq!(admin.finish(world, event).completion.result64(), CHANGED);
    assert_eq!(changed(&mut admin, world), [2]);
    assert_eq!(active(&mut admin, world), [1, 2]);
    assert_eq!(ask(&mut admin, world, 0x03, 2).status().code(), 0);
    let done = io.run(world, second(write(0, 1)), &[1; 512]);
    assert_eq!(done.status().code(), 0);
    // The other host hears and sees nothing.
    assert!(strange.is_silent(world));
    assert_eq!(active(&mut strange, world), [1]);
    let refused = theirs.run(world, second(write(0, 1)), &[1; 512]);
    assert_eq!(refused.status().code(), 0x00b);
    // Whoever else sees it makes no difference to those who do.
    admin.submit(Command::new(0x0c, 0), &[]);
    world
        .target
        .set_visible(NQN, 2, OTHER, true)
        .expect("there");
    world.settle();
    assert!(admin.is_silent(world));
    assert_eq!(active(&mut strange, world), [1, 2]);
    // Controllers that come later see the same.
    drop((admin, io));
    world.settle();
    let (mut admin, _io) = Host::queue(world);
    assert_eq!(active(&mut admin, world), [1, 2]);
}

#[test]
fn a_namespace_that_is_hidden_takes_no_more_commands() {
    let (mut world, puppet) = world();
    let world = &mut world;
    world.target.set_visible(NQN, 2, HOST, true).expect("there");
    world
        .target
        .set_visible(NQN, 2, OTHER, true)
        .expect("there");
    let (mut admin, mut io) = Host::queue(world);
    let (_strange, mut theirs) = other(world);
    let event = listen(&mut admin, world);
    puppet.hold(true);
    let running = io.submit(second(write(0, 1)), &[1; 512]);
    let waits = io.submit_large(second(write(1, 1)), 512);
    let request = io.expect_r2t(world);
    world
        .target
        .set_visible(NQN, 2, HOST, false)
        .expect("there");
    assert_eq!(admin.finish(world, event).completion.result64(), CHANGED);
    assert_eq!(changed(&mut admin, world), [2]);
    assert_eq!(active(&mut admin, world), [1]);
    io.answer(&request, &[2; 512], 512);
    assert_eq!(io.finish(world, waits).status().code(), 0x00b);
    let refused = io.run(world, second(flush()), &[]);
    assert_eq!(refused.status().code(), 0x00b);
    puppet.hold(false);
    assert_eq!(io.finish(world, running).status().code(), 0);
    assert_eq!(puppet.seen().len(), 1);
    let done = theirs.run(world, second(flush()), &[]);
    assert_eq!(done.status().code(), 0);
}
