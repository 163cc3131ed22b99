//! What becomes of each Connect.

use zerocopy::IntoBytes;

use super::commands::flush;
use super::host::{Answer, Host, connect, connect_data, icreq};
use super::world::{HOST, NQN, Plan, World};
use crate::nvme::Nqn;
use crate::nvme::command::Command;
use crate::nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, FabricsCommand};
use crate::nvme::property::Property;
use crate::nvmf::{SubsystemOptions, TransportOptions};

/// Connect Invalid Parameters.
const INVALID: u16 = 0x182;
/// In dword 0: the field is in the data, not in the command.
const IN_DATA: u64 = 1 << 16;

fn dialled(world: &mut World) -> Host {
    let mut host = world.dial();
    host.initialize(world, &icreq(false, false));
    host
}

fn attempt(world: &mut World, command: Connect, data: &ConnectData) -> Answer {
    dialled(world).connect(world, command, data)
}

fn outcome(answer: &Answer) -> (u16, u64) {
    (answer.status().code(), answer.completion.result64())
}

fn named(subsystem: &str, host: &str) -> ConnectData {
    let mut data = connect_data(CNTLID_DYNAMIC);
    data.subnqn = [0; 256];
    data.subnqn[..subsystem.len()].copy_from_slice(subsystem.as_bytes());
    data.hostnqn = [0; 256];
    data.hostnqn[..host.len()].copy_from_slice(host.as_bytes());
    data
}

#[test]
fn an_admin_queue_is_refused_by_field() {
    let mut world = World::new();
    let good = connect(0, 32);
    let data = connect_data(CNTLID_DYNAMIC);
    let mut endless = data;
    endless.subnqn = [b'a'; 256];
    let cases = [
        (
            "record format",
            Connect { recfmt: 1, ..good },
            data,
            (0x180, 0),
        ),
        (
            "SQSIZE 0",
            Connect { sqsize: 0, ..good },
            data,
            (INVALID, 44),
        ),
        (
            "SQSIZE too large",
            Connect {
                sqsize: 128,
                ..good
            },
            data,
            (INVALID, 44),
        ),
        (
            "a controller of its own choice",
            good,
            connect_data(5),
            (INVALID, IN_DATA | 16),
        ),
        (
            "another subsystem",
            good,
            named("nqn.2026-11.io.example:b", HOST),
            (INVALID, IN_DATA | 256),
        ),
        ("no name", good, named("", HOST), (INVALID, IN_DATA | 256)),
        (
            "a name without end",
            good,
            endless,
            (INVALID, IN_DATA | 256),
        ),
        (
            "a host without name",
            good,
            named(NQN, ""),
            (INVALID, IN_DATA | 512),
        ),
        (
            "a host of no name",
            good,
            named(NQN, "me"),
            (INVALID, IN_DATA | 512),
        ),
    ];
    for (name, command, data, expected) in cases {
        let answer = attempt(&mut world, command, &data);
        assert_eq!(outcome(&answer), expected, "{name}");
        assert!(answer.status().do_not_retry(), "{name}");
    }
    assert!(world.target.controllers(NQN).expect("there").is_empty());
    let answer = attempt(
        &mut world,
        Connect {
            sqsize: 127,
            ..good
        },
        &data,
    );
    assert_eq!(outcome(&answer).0, 0);
}

#[test]
fn an_io_queue_is_refused_by_field() {
    let mut world = World::new();
    let (_admin, cntlid) = Host::admin(&mut world);
    let good = connect(1, 32);
    let data = connect_data(cntlid);
    let mut other_id = data;
    other_id.hostid = [0x22; 16];
    let mut other_host = data;
    other_host.hostnqn = Nqn::new("nqn.2026-11.io.example:other")
        .expect("a name")
        .to_field();
    let cases = [
        (
            "no such controller",
            good,
            connect_data(cntlid + 1),
            (INVALID, IN_DATA | 16),
        ),
        (
            "any controller",
            good,
            connect_data(CNTLID_DYNAMIC),
            (INVALID, IN_DATA | 16),
        ),
        ("another host", good, other_host, (INVALID, IN_DATA | 512)),
        (
            "another host identifier",
            good,
            other_id,
            (INVALID, IN_DATA),
        ),
        (
            "queue too high",
            Connect { qid: 128, ..good },
            data,
            (INVALID, 42),
        ),
        (
            "SQSIZE 0",
            Connect { sqsize: 0, ..good },
            data,
            (INVALID, 44),
        ),
        (
            "SQSIZE too large",
            Connect {
                sqsize: 128,
                ..good
            },
            data,
            (INVALID, 44),
        ),
        (
            "record format",
            Connect { recfmt: 7, ..good },
            data,
            (0x180, 0),
        ),
    ];
    for (name, command, data, expected) in cases {
        let answer = attempt(&mut world, command, &data);
        assert_eq!(outcome(&answer), expected, "{name}");
    }
    let answer = attempt(
        &mut world,
        Connect {
            qid: 127,
            sqsize: 127,
            ..good
        },
        &data,
    );
    assert_eq!(outcome(&answer), (0, cntlid.into()));
}

#[test]
fn the_data_of_a_connect_must_be_there() {
    let mut world = World::new();
    let command = FabricsCommand::Connect(connect(0, 32)).to_command();
    let mut host = dialled(&mut world);
    assert_eq!(
        host.run(&mut world, command, &[0; 1000]).status().code(),
        0x00f
    );
    let answer = host.run(&mut world, command, &[]);
    assert_eq!(answer.status().code(), 0x00f);
    // It may also be asked for.
    let data = connect_data(CNTLID_DYNAMIC);
    let answer = host.push(&mut world, command, data.as_bytes());
    assert_eq!(answer.status().code(), 0);
}

#[test]
fn only_hosts_on_the_list() {
    let mut world = World::new();
    world.target.set_allow_any_host(NQN, false).expect("there");
    let data = connect_data(CNTLID_DYNAMIC);
    let answer = attempt(&mut world, connect(0, 32), &data);
    assert_eq!(outcome(&answer), (0x184, 0));
    world.target.add_host(NQN, HOST, None).expect("there");
    let mut admin = dialled(&mut world);
    assert_eq!(
        outcome(&admin.connect(&mut world, connect(0, 32), &data)).0,
        0
    );
    // A host that is taken off the list loses what it has.
    world.target.remove_host(NQN, HOST).expect("there");
    world.settle();
    assert!(admin.pipe.is_closed());
    assert!(world.target.controllers(NQN).expect("there").is_empty());
}

#[test]
fn an_io_queue_needs_an_enabled_controller() {
    let mut world = World::new();
    let mut admin = dialled(&mut world);
    let answer = admin.connect(&mut world, connect(0, 32), &connect_data(CNTLID_DYNAMIC));
    let cntlid = answer.completion.result64() as u16;
    let early = attempt(&mut world, connect(1, 32), &connect_data(cntlid));
    assert_eq!(outcome(&early).0, 0x00c);
    admin.enable(&mut world);
    let mut io = Host::io(&mut world, cntlid, 1);
    // Disabled, it loses its I/O queues.
    admin.property_set(&mut world, Property::Configuration, 0);
    world.settle();
    assert!(io.pipe.is_closed());
    assert!(io.poll().is_none());
    let late = attempt(&mut world, connect(1, 32), &connect_data(cntlid));
    assert_eq!(outcome(&late).0, 0x00c);
    admin.enable(&mut world);
    Host::io(&mut world, cntlid, 1);
}

#[test]
fn a_queue_has_one_connect() {
    let mut world = World::new();
    let (mut admin, _) = Host::admin(&mut world);
    let answer = admin.connect(&mut world, connect(0, 32), &connect_data(CNTLID_DYNAMIC));
    assert_eq!(outcome(&answer), (0x00c, 0));
    let mut identify = Command::new(0x06, 0);
    identify.cdw10 = 1.into();
    let answer = admin.fetch(&mut world, identify, 4096);
    assert_eq!(answer.status().code(), 0);
}

#[test]
fn controllers_have_numbers_of_their_own() {
    let mut world = World::with(Plan::default());
    let mut options = SubsystemOptions::new("nqn.2026-11.io.example:few");
    options.allow_any_host = true;
    options.min_cntlid = 3;
    options.max_cntlid = 4;
    world.target.create_subsystem(options).expect("new");
    let address = crate::nvmf::ListenAddress(world.local);
    world
        .target
        .add_listener("nqn.2026-11.io.example:few", address)
        .expect("shared");
    let mut hosts = Vec::new();
    let mut seen = Vec::new();
    for n in 0..3 {
        let host = format!("nqn.2026-11.io.example:host{n}");
        let mut admin = dialled(&mut world);
        let data = named("nqn.2026-11.io.example:few", &host);
        seen.push(outcome(&admin.connect(&mut world, connect(0, 32), &data)));
        hosts.push(admin);
    }
    // Controller busy is worth another try.
    assert_eq!(seen, [(0, 3), (0, 4), (0x181, 0)]);
    hosts.remove(0);
    world.settle();
    let data = named("nqn.2026-11.io.example:few", "nqn.2026-11.io.example:host9");
    let answer = attempt(&mut world, connect(0, 32), &data);
    assert_eq!(outcome(&answer), (0, 3));
}

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    let mut world = World::with(Plan {
        setup: crate::nvmf::TargetSetup {
            connections: 3,
            ..Default::default()
        },
        ..Plan::default()
    });
    let (_admin, mut io) = Host::queue(&mut world);
    let waiting = world.dial();
    let away = world.dial();
    assert!(away.pipe.is_closed());
    assert!(!waiting.pipe.is_closed());
    drop(waiting);
    world.settle();
    let mut next = dialled(&mut world);
    assert!(next.poll().is_none());
    assert_eq!(io.run(&mut world, flush(), &[]).status().code(), 0);
}

#[test]
fn new_connections_go_where_there_is_least_to_do() {
    let mut world = World::with(Plan {
        groups: 3,
        options: TransportOptions::default(),
        ..Plan::default()
    });
    let (_admin, cntlid) = Host::admin(&mut world);
    let _queues: Vec<Host> = (1..=6)
        .map(|qid| Host::io(&mut world, cntlid, qid))
        .collect();
    let stats = world.target.stats();
    let io: Vec<u32> = stats.iter().map(|s| s.current_io_qpairs).collect();
    assert_eq!(io, [2, 2, 2]);
    assert_eq!(stats.iter().map(|s| s.current_admin_qpairs).sum::<u32>(), 1);
    let queues = world.target.qpairs(NQN).expect("there");
    assert_eq!(queues.len(), 7);
    let controllers = world.target.controllers(NQN).expect("there");
    assert_eq!(controllers.len(), 1);
    assert_eq!(controllers[0].num_io_qpairs, 6);
    assert_eq!(controllers[0].hostnqn, HOST);
    assert_eq!(controllers[0].hostid.as_bytes(), &[0x11; 16]);
}
