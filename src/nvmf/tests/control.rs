//! Calls of the control side, with hosts connected.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::commands::{flush, read, write};
use super::device::Puppet;
use super::host::{Host, connect, connect_data, icreq};
use super::world::{NQN, Plan, World};
use crate::bdev::{Claim, RegistryError};
use crate::nvme::fabrics::CNTLID_DYNAMIC;
use crate::nvmf::{
    DISCOVERY_NQN, ListenAddress, NamespaceOptions, SubsystemKind, SubsystemOptions, TargetError,
    TargetSetup, TransportOptions,
};

fn impatient() -> Plan {
    Plan {
        setup: TargetSetup {
            confirmation: Duration::from_millis(50),
            ..TargetSetup::default()
        },
        ..Plan::default()
    }
}

fn named(bdev: &str) -> NamespaceOptions {
    NamespaceOptions {
        bdev_name: bdev.into(),
        ..NamespaceOptions::default()
    }
}

#[test]
fn a_namespace_goes_when_its_commands_have_ended() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&impatient());
    world.export(Arc::new(puppet.clone()));
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut io = Host::io(&mut world, cntlid, 1);
    let mut asked = Host::io(&mut world, cntlid, 2);
    puppet.hold(true);
    let running = io.submit(write(0, 1), &[1; 512]);
    let waits_for_data = asked.submit_large(write(1, 1), 512);
    let request = asked.expect_r2t(&mut world);
    let error = world.target.remove_namespace(&mut world.registry, NQN, 1);
    assert!(matches!(error, Err(TargetError::Timeout(_))), "{error:?}");
    // It is gone for hosts, and not yet free for others.
    assert_eq!(io.run(&mut world, flush(), &[]).status().code(), 0x00b);
    let claim = Claim::Namespaces(vec![NQN.into()]);
    assert_eq!(world.registry.claim_of("Test0"), Some(&claim));
    let again = world
        .target
        .add_namespace(&mut world.registry, NQN, named("Test0"));
    assert!(matches!(again, Err(TargetError::Busy(_))), "{again:?}");
    puppet.hold(false);
    world
        .target
        .remove_namespace(&mut world.registry, NQN, 1)
        .expect("its commands have ended");
    assert_eq!(world.registry.claim_of("Test0"), None);
    assert_eq!(io.finish(&mut world, running).status().code(), 0);
    asked.answer(&request, &[2; 512], 512);
    assert_eq!(
        asked.finish(&mut world, waits_for_data).status().code(),
        0x00b
    );
    let gone = world.target.remove_namespace(&mut world.registry, NQN, 1);
    assert!(matches!(gone, Err(TargetError::NotFound(_))));
    // Back again under the same number: what was written is there, what was refused is not.
    let nsid = world
        .target
        .add_namespace(&mut world.registry, NQN, named("Test0"));
    assert_eq!(nsid.expect("free"), 1);
    let answer = io.fetch(&mut world, read(0, 2), 1024);
    assert_eq!(answer.data[..512], [1; 512]);
    assert_eq!(answer.data[512..], [0; 512]);
}

#[test]
fn a_device_is_opened_once_however_often_it_is_exported() {
    let mut world = World::new();
    let other = "nqn.2026-11.io.example:other";
    world
        .target
        .create_subsystem(SubsystemOptions::new(other))
        .expect("new");
    let nsid = world
        .target
        .add_namespace(&mut world.registry, other, named("Malloc0"));
    assert_eq!(nsid.expect("shared"), 1);
    world
        .target
        .remove_namespace(&mut world.registry, NQN, 1)
        .expect("there");
    let claim = Claim::Namespaces(vec![other.into()]);
    assert_eq!(world.registry.claim_of("Malloc0"), Some(&claim));
    world
        .target
        .delete_subsystem(&mut world.registry, other)
        .expect("there");
    assert_eq!(world.registry.claim_of("Malloc0"), None);
    assert!(world.registry.remove("Malloc0").is_ok());
}

#[test]
fn namespaces_that_cannot_be_added() {
    let mut world = World::new();
    let mut add = |options: NamespaceOptions, nqn: &str| {
        let added = world
            .target
            .add_namespace(&mut world.registry, nqn, options);
        added.expect_err("refused").to_string()
    };
    assert!(add(named("Nobody"), NQN).contains("Nobody"));
    assert!(add(named("Malloc0"), "nqn.x").contains("nqn.x"));
    let numbered = |nsid| NamespaceOptions {
        nsid: Some(nsid),
        ..named("Malloc0")
    };
    assert!(add(numbered(1), NQN).contains("already exists"));
    assert!(add(numbered(33), NQN).contains("max_namespaces"));
    assert!(add(numbered(0), NQN).contains("1 to 32"));
    // A device that a reactor cannot open is given back.
    let broken = Puppet::new("Broken", 10, |_| {});
    broken.break_opening();
    world.registry.add(Arc::new(broken)).expect("new");
    let error = world
        .target
        .add_namespace(&mut world.registry, NQN, named("Broken"));
    assert!(
        error
            .expect_err("broken")
            .to_string()
            .contains("it is broken")
    );
    assert_eq!(world.registry.claim_of("Broken"), None);
    assert!(world.registry.remove("Broken").is_ok());
    let twice = world.registry.claim("Malloc0", "Raid0");
    assert!(matches!(twice, Err(RegistryError::Busy { .. })));
}

#[test]
fn deleting_a_subsystem_ends_its_associations() {
    let mut world = World::new();
    let (admin, io) = Host::queue(&mut world);
    world
        .target
        .delete_subsystem(&mut world.registry, NQN)
        .expect("there");
    world.settle();
    assert!(admin.pipe.is_closed() && io.pipe.is_closed());
    assert_eq!(world.registry.claim_of("Malloc0"), None);
    let mut host = world.dial();
    host.initialize(&mut world, &icreq(false, false));
    let answer = host.connect(&mut world, connect(0, 32), &connect_data(CNTLID_DYNAMIC));
    assert_eq!(answer.status().code(), 0x182);
    let gone = world.target.delete_subsystem(&mut world.registry, NQN);
    assert!(matches!(gone, Err(TargetError::NotFound(_))));
    let never = world
        .target
        .delete_subsystem(&mut world.registry, DISCOVERY_NQN);
    assert!(matches!(never, Err(TargetError::Invalid(_))));
}

#[test]
fn what_is_listed_is_what_there_is() {
    let mut world = World::new();
    let all = world.target.subsystems();
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].kind, SubsystemKind::Discovery);
    assert_eq!(all[0].options.nqn, DISCOVERY_NQN);
    assert_eq!(all[1].options.nqn, NQN);
    assert_eq!(all[1].listen_addresses, [ListenAddress(world.local)]);
    assert_eq!(all[1].namespaces[0].bdev_name, "Malloc0");
    assert_eq!(world.target.transports()[0].trtype, "TCP");
    let twice = world.target.create_transport(TransportOptions::default());
    let text = twice.expect_err("there is one").to_string();
    assert_eq!(text, "Transport type 'TCP' already exists");
    let bad = world.target.create_subsystem(SubsystemOptions::new("me"));
    assert!(bad.expect_err("no name").to_string().contains("nqn."));
    let again = world.target.create_subsystem(SubsystemOptions::new(NQN));
    assert!(matches!(again, Err(TargetError::Exists(_))));
    let host = world.target.add_host(NQN, "you", None);
    assert!(matches!(host, Err(TargetError::Invalid(_))));
}

#[test]
fn listeners() {
    let mut world = World::new();
    let here = ListenAddress(world.local);
    let again = world.target.add_listener(NQN, here);
    assert!(matches!(again, Err(TargetError::Exists(_))));
    // A port that somebody else has.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = ListenAddress(taken.local_addr().expect("bound"));
    let error = world.target.add_listener(NQN, address).expect_err("taken");
    let text = error.to_string();
    assert!(
        text.contains(&address.to_string()) && text.contains("choose another port"),
        "{text}"
    );
    assert_eq!(error.errno(), 98);
    // An address that no interface has.
    let far = ListenAddress::parse("192.0.2.1", "4420", None).expect("an address");
    let text = world
        .target
        .add_listener(NQN, far)
        .expect_err("far")
        .to_string();
    assert!(
        text.contains("192.0.2.1:4420") && text.contains("no interface"),
        "{text}"
    );
    // Without its listener, associations that came in there are over.
    let (admin, _io) = Host::queue(&mut world);
    world.target.remove_listener(NQN, here).expect("there");
    world.settle();
    assert!(admin.pipe.is_closed());
    let mut host = world.dial();
    host.initialize(&mut world, &icreq(false, false));
    let answer = host.connect(&mut world, connect(0, 32), &connect_data(CNTLID_DYNAMIC));
    let refused = (answer.status().code(), answer.completion.result64());
    assert_eq!(refused, (0x182, 1 << 16 | 256));
    assert!(
        TcpListener::bind(world.local).is_ok(),
        "the port is free again"
    );
    let gone = world.target.remove_listener(NQN, here);
    assert!(matches!(gone, Err(TargetError::NotFound(_))));
}

#[test]
fn options_that_do_not_fit_the_memory() {
    let mut target = crate::nvmf::Target::new(TargetSetup::default());
    let events = crate::reactor::Events::new().expect("an epoll set");
    let class = crate::memory::Class {
        slot_size: 4096,
        slots: 4,
    };
    let sizes = crate::nvmf::PayloadSizes {
        at_once: vec![class],
        bulk: vec![class],
    };
    let arena = crate::memory::Arena::ordinary(sizes.bytes()).expect("memory");
    let seed = target.add_group("g", &events.waker(), &arena, &sizes);
    let _seed = seed.expect("there is room");
    let none_left = target.add_group("h", &events.waker(), &arena, &sizes);
    assert!(matches!(none_left, Err(TargetError::Limit(_))));
    let error = target.create_transport(TransportOptions::default());
    assert!(
        error
            .expect_err("too large")
            .to_string()
            .contains("max_io_size")
    );
    let options = TransportOptions {
        max_io_size: 16384,
        ..TransportOptions::default()
    };
    target.create_transport(options).expect("it fits");
}

#[test]
fn stopping_lets_commands_end_and_takes_no_new_ones() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (admin, mut io) = Host::queue(&mut world);
    let done = io.submit(write(0, 1), &[1; 512]);
    world.turn();
    io.submit(write(1, 1), &[1; 512]);
    let soon = Instant::now() + Duration::from_secs(3600);
    assert!(world.target.stop(soon));
    let answer = io.poll().map(|r| r.pdu);
    let Some(crate::nvme::tcp::ControllerPdu::CapsuleResp(response)) = answer else {
        panic!("{answer:?} is no response");
    };
    assert_eq!(response.completion.cid.get(), done);
    assert!(admin.pipe.is_closed() && io.pipe.is_closed());
    assert_eq!(puppet.seen().len(), 1);
    let late = world
        .target
        .create_subsystem(SubsystemOptions::new("nqn.2026-11.io.example:z"));
    assert!(matches!(late, Err(TargetError::Busy(_))));
}

#[test]
fn stopping_does_not_wait_beyond_the_deadline() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (_admin, mut io) = Host::queue(&mut world);
    puppet.hold(true);
    io.submit(write(0, 1), &[1; 512]);
    world.settle();
    assert!(!world.target.stop(world.now()));
    assert!(io.pipe.is_closed());
}
