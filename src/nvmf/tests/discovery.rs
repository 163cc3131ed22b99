//! The discovery controller.

use super::host::{Host, connect, connect_data, icreq};
use super::world::{HOST, NQN, World};
use crate::nvme::admin::{AdminCommand, GetLogPage, Identify};
use crate::nvme::fabrics::CNTLID_DYNAMIC;
use crate::nvme::log_page::discovery_entries;
use crate::nvme::{Command, Nqn};
use crate::nvmf::{DISCOVERY_NQN, ListenAddress, Referral, SubsystemOptions};

fn discovery(world: &mut World) -> Host {
    let mut host = world.dial();
    host.initialize(world, &icreq(false, false));
    let mut data = connect_data(CNTLID_DYNAMIC);
    data.subnqn = Nqn::discovery().to_field();
    let answer = host.connect(world, connect(0, 32), &data);
    assert_eq!(answer.status().code(), 0, "{answer:?}");
    host.enable(world);
    host
}

fn page(host: &mut Host, world: &mut World, offset: u64, len: u32) -> Vec<u8> {
    let page = GetLogPage {
        offset,
        ..GetLogPage::new(0x70, len.into())
    };
    let command = AdminCommand::GetLogPage(page).to_command(0);
    let answer = host.fetch(world, command, len);
    assert_eq!(answer.status().code(), 0);
    answer.data
}

/// Generation, and name and address of each entry.
fn entries(host: &mut Host, world: &mut World) -> (u64, Vec<(String, String)>) {
    let page = page(host, world, 0, 8192);
    let (header, entries) = discovery_entries(&page).expect("a header");
    assert_eq!(header.numrec.get() as usize, entries.len());
    let entries = entries.iter().map(|entry| {
        assert_eq!((entry.trtype, entry.adrfam, entry.subtype), (3, 1, 2));
        assert_eq!((entry.cntlid.get(), entry.asqsz.get()), (0xffff, 128));
        let name = entry.subsystem().expect("a name");
        let address = entry.tcp_address().expect("an address");
        (name.as_str().to_owned(), address.to_string())
    });
    (header.genctr.get(), entries.collect())
}

#[test]
fn it_tells_where_subsystems_are() {
    let mut world = World::new();
    let mut host = discovery(&mut world);
    let here = world.local.to_string();
    let (generation, list) = entries(&mut host, &mut world);
    assert_eq!(list, [(NQN.to_owned(), here.clone())]);
    // In pieces, as tools read it: first the counts, then entry by entry.
    let whole = page(&mut host, &mut world, 0, 2048);
    let mut pieces = page(&mut host, &mut world, 0, 16);
    pieces.extend(page(&mut host, &mut world, 16, 1008));
    pieces.extend(page(&mut host, &mut world, 1024, 1024));
    assert_eq!(pieces, whole);
    // A subsystem without listener is nowhere; with one, there is another generation.
    let other = "nqn.2026-11.io.example:0";
    world
        .target
        .create_subsystem(SubsystemOptions::new(other))
        .expect("new");
    world
        .target
        .add_listener(other, ListenAddress(world.local))
        .expect("shared");
    world.settle();
    // It lets nobody in, so nobody is told.
    let (now, list) = entries(&mut host, &mut world);
    assert_eq!(list.len(), 1);
    assert!(now > generation);
    world.target.add_host(other, HOST, None).expect("there");
    world.settle();
    let (later, list) = entries(&mut host, &mut world);
    assert!(later > now);
    let expected = [(other.to_owned(), here.clone()), (NQN.to_owned(), here)];
    assert_eq!(list, expected);
    world
        .target
        .delete_subsystem(&mut world.registry, other)
        .expect("there");
    world.settle();
    assert_eq!(entries(&mut host, &mut world).1.len(), 1);
}

#[test]
fn a_persistent_host_is_told_of_changes() {
    let mut world = World::new();
    let mut host = discovery(&mut world);
    let mut set = Command::new(0x09, 0);
    set.cdw10 = 0x0b.into();
    set.cdw11 = (1 << 31).into();
    assert_eq!(host.run(&mut world, set, &[]).status().code(), 0);
    let event = host.submit(Command::new(0x0c, 0), &[]);
    // What this host may not see is no news to it.
    let hidden = "nqn.2026-11.io.example:hidden";
    world
        .target
        .create_subsystem(SubsystemOptions::new(hidden))
        .expect("new");
    world
        .target
        .add_listener(hidden, ListenAddress(world.local))
        .expect("shared");
    assert!(host.is_silent(&mut world));
    world
        .target
        .set_allow_any_host(hidden, true)
        .expect("there");
    let told = host.finish(&mut world, event);
    // A notice (2h) that the log has changed (F0h): see page 70h.
    assert_eq!(told.completion.result64(), 0x0070_f002);
    assert_eq!(entries(&mut host, &mut world).1.len(), 2);
}

#[test]
fn it_is_a_discovery_controller_and_no_more() {
    let mut world = World::new();
    let mut host = discovery(&mut world);
    let identify = |cns| {
        let identify = Identify {
            cns,
            ..Identify::default()
        };
        AdminCommand::Identify(identify).to_command(0)
    };
    let answer = host.fetch(&mut world, identify(0x01), 4096);
    // CNTRLTYPE, and the name.
    assert_eq!(answer.data[111], 2);
    assert_eq!(&answer.data[768..768 + 36], DISCOVERY_NQN.as_bytes());
    for cns in [0x00, 0x02, 0x03, 0x06] {
        let answer = host.fetch(&mut world, identify(cns), 4096);
        assert_eq!(answer.status().code(), 0x002);
    }
    for (opcode, dword, expected) in [
        (0x18, 0, 0),
        (0x08, 0, 0x001),
        (0x0a, 0x0b, 0),
        (0x0a, 0x07, 0x002),
        (0x09, 0x07, 0x002),
    ] {
        let mut command = Command::new(opcode, 0);
        command.cdw10 = dword.into();
        let answer = host.run(&mut world, command, &[]);
        assert_eq!(answer.status().code(), expected, "{opcode:#x} {dword:#x}");
    }
    let command = AdminCommand::GetLogPage(GetLogPage::new(0x02, 512)).to_command(0);
    let answer = host.fetch(&mut world, command, 512);
    assert_eq!(answer.status().code(), 0x109);
    // It has no I/O queues.
    let queues = world.target.qpairs(DISCOVERY_NQN).expect("there");
    let mut data = connect_data(queues[0].cntlid);
    data.subnqn = Nqn::discovery().to_field();
    let mut io = world.dial();
    io.initialize(&mut world, &icreq(false, false));
    let answer = io.connect(&mut world, connect(1, 32), &data);
    let refused = (answer.status().code(), answer.completion.result64());
    assert_eq!(refused, (0x182, 42));
}

#[test]
fn several_at_once_and_none_for_ever() {
    let mut world = World::new();
    let first = discovery(&mut world);
    let mut second = discovery(&mut world);
    assert!(!first.pipe.is_closed());
    world.pass(std::time::Duration::from_secs(60));
    let answer = second.run(&mut world, Command::new(0x18, 0), &[]);
    assert_eq!(answer.status().code(), 0);
    world.pass(std::time::Duration::from_secs(61));
    // Two minutes without a word, where no keep-alive was agreed on.
    assert!(first.pipe.is_closed());
    assert!(!second.pipe.is_closed());
}

#[test]
fn it_tells_of_other_discovery_services() {
    let mut world = World::new();
    let mut host = discovery(&mut world);
    let (generation, before) = entries(&mut host, &mut world);
    let there = ListenAddress("192.0.2.9:8009".parse().expect("an address"));
    for (subnqn, secure_channel) in [
        (Nqn::discovery(), true),
        ("nqn.2026-11.io.example:far".parse().expect("a name"), false),
    ] {
        let referral = Referral {
            address: there,
            subnqn,
            secure_channel,
        };
        world.target.add_referral(referral).expect("new");
    }
    world.settle();
    let bytes = page(&mut host, &mut world, 0, 8192);
    let (header, all) = discovery_entries(&bytes).expect("a header");
    assert!(header.genctr.get() > generation);
    let [_, service, far] = all else {
        panic!("{} and {} entries", before.len(), all.len());
    };
    // SUBTYPE 1 is a referral and 2 an NVM subsystem; bits 1:0 of TREQ are 1 where a secure channel
    // is required and 2 where it is not (Base, Discovery Log Page Entry).
    assert_eq!((service.subtype, service.treq & 3), (1, 1));
    assert_eq!(service.tcp_address(), Some(there.0));
    assert!(service.subsystem().expect("a name").is_discovery());
    assert_eq!((far.subtype, far.treq & 3), (2, 2));
    let discovery = Nqn::discovery();
    world
        .target
        .remove_referral(there, &discovery)
        .expect("there");
    let again = world
        .target
        .remove_referral(there, &discovery)
        .expect_err("gone");
    assert!(again.to_string().contains("192.0.2.9:8009"), "{again}");
    world.settle();
    assert_eq!(entries(&mut host, &mut world).1.len(), 2);
}
