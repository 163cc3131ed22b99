//! Admin commands of an I/O controller.

use std::sync::Arc;

use zerocopy::FromBytes;

use super::commands::flush;
use super::device::Puppet;
use super::host::{Answer, Host};
use super::world::{HOST, NQN, Plan, World};
use crate::nvme::Command;
use crate::nvme::admin::{AdminCommand, GetLogPage, Identify};
use crate::nvme::identify::{
    IdentifyController, IdentifyNamespace, IndependentNamespace, NamespaceDescriptor,
    NamespaceList, descriptors,
};
use crate::nvme::property::{Capabilities, Property};
use crate::nvmf::{NamespaceOptions, TransportOptions};

fn identify(cns: u8, csi: u8, nsid: u32) -> Command {
    let identify = Identify {
        cns,
        csi,
        ..Identify::default()
    };
    AdminCommand::Identify(identify).to_command(nsid)
}

pub(super) fn ask(admin: &mut Host, world: &mut World, cns: u8, nsid: u32) -> Answer {
    admin.fetch(world, identify(cns, 0, nsid), 4096)
}

pub(super) fn log(admin: &mut Host, world: &mut World, lid: u8, offset: u64, len: u32) -> Answer {
    let page = GetLogPage {
        offset,
        ..GetLogPage::new(lid, len.into())
    };
    admin.fetch(world, AdminCommand::GetLogPage(page).to_command(0), len)
}

pub(super) fn simple(opcode: u8, dword10: u32, dword11: u32) -> Command {
    Command {
        cdw10: dword10.into(),
        cdw11: dword11.into(),
        ..Command::new(opcode, 0)
    }
}

pub(super) const SET: u8 = 0x09;
const GET: u8 = 0x0a;

fn code(admin: &mut Host, world: &mut World, command: Command) -> u16 {
    admin.run(world, command, &[]).status().code()
}

#[test]
fn a_linux_host_finds_what_it_insists_on() {
    let mut world = World::with(Plan {
        options: TransportOptions {
            max_io_size: 256 << 10,
            in_capsule_data_size: 4096,
            max_queue_depth: 64,
            ..TransportOptions::default()
        },
        ..Plan::default()
    });
    let (mut admin, cntlid) = Host::admin(&mut world);
    let cap = Capabilities::from_value(admin.property_get(&mut world, Property::Capabilities));
    assert_eq!(cap.max_queue_entries, 63);
    assert!(cap.contiguous_queues && cap.timeout > 0);
    assert_eq!(
        admin.property_get(&mut world, Property::Version),
        0x0002_0000
    );
    let answer = ask(&mut admin, &mut world, 0x01, 0);
    let id = IdentifyController::read_from_bytes(&answer.data).expect("4096 bytes");
    assert_eq!(id.cntlid.get(), cntlid);
    assert_ne!(id.kas.get(), 0);
    // 64 bytes of command and 4096 of data, in units of 16.
    assert_eq!(id.ioccsz.get(), 260);
    assert_eq!(id.iorcsz.get(), 1);
    assert_eq!(id.icdoff.get(), 0);
    assert_eq!(id.maxcmd.get(), 64);
    // Supported, offsets in capsules, transport descriptors.
    assert_eq!(id.sgls.get() & 0b11, 1);
    assert_eq!(id.sgls.get() >> 20 & 0b11, 0b11);
    // 2^6 pages of 4 KiB.
    assert_eq!(id.mdts, 6);
    assert_eq!(id.nn.get(), 32);
    assert_eq!((id.sqes, id.cqes), (0x66, 0x44));
    assert_eq!(id.cmic & 0b11, 0b11);
    assert_eq!(id.oncs.get(), 0b10_1101);
    assert_eq!(id.fuses.get(), 1);
    assert_eq!(id.vwc & 1, 1);
    assert_eq!((id.awun.get(), id.awupf.get(), id.acwu.get()), (0, 0, 0));
    assert_eq!((id.aerl, id.cntrltype), (3, 1));
    assert_eq!(id.oaes.get(), 1 << 8);
    assert_eq!(id.elpe, 127);
    assert_eq!(id.ctratt.get() & 1, 1);
    assert_eq!(id.subsystem().expect("a name").as_str(), NQN);
    assert_eq!(&id.mn[..11], b"Stripewise ");
}

#[test]
fn hosts_are_told_how_long_to_wait_before_they_repeat_a_command() {
    let mut world = World::new();
    let delays = |world: &mut World| {
        let (mut admin, _) = Host::admin(world);
        let answer = ask(&mut admin, world, 0x01, 0);
        let id = IdentifyController::read_from_bytes(&answer.data).expect("4096 bytes");
        [id.crdt1, id.crdt2, id.crdt3].map(|delay| delay.get())
    };
    assert_eq!(delays(&mut world), [0, 0, 0]);
    world.target.set_retry_delays([1, 20, 300]);
    assert_eq!(delays(&mut world), [1, 20, 300]);
}

#[test]
fn namespaces_are_described_as_their_devices_are() {
    let mut world = World::new();
    let raid = Puppet::new("Raid0", 60_000, |info| {
        info.io_boundary = 128;
        info.write_unit = 384;
        info.deallocates = false;
        info.write_cache = false;
    });
    let nsid = world.export(Arc::new(raid));
    assert_eq!(nsid, 2);
    let (mut admin, _) = Host::admin(&mut world);
    let answer = ask(&mut admin, &mut world, 0x00, 1);
    let id = IdentifyNamespace::read_from_bytes(&answer.data).expect("4096 bytes");
    assert_eq!(
        (id.nsze.get(), id.ncap.get(), id.nuse.get()),
        (16384, 16384, 16384)
    );
    assert_eq!(id.block_size(), Some(512));
    assert_eq!((id.nmic & 1, id.rescap), (1, 0xfe));
    assert_eq!(u128::from_be_bytes(id.nguid), 7);
    assert_eq!(id.dlfeat, 0b1001);
    assert_eq!((id.nsfeat, id.noiob.get(), id.npwg.get()), (0, 0, 0));
    let answer = ask(&mut admin, &mut world, 0x00, 2);
    let id = IdentifyNamespace::read_from_bytes(&answer.data).expect("4096 bytes");
    assert_eq!(id.noiob.get(), 128);
    assert_eq!(id.nsfeat, 1 << 4);
    let preferred = [id.npwg, id.npwa, id.npdg, id.npda, id.nows];
    assert!(preferred.iter().all(|field| field.get() == 383));
    assert_eq!((id.nawun.get(), id.nawupf.get(), id.nacwu.get()), (0, 0, 0));
    assert_eq!(id.dlfeat, 0);
    // A number that may be, but is not there; and one that may not be.
    let answer = ask(&mut admin, &mut world, 0x00, 3);
    assert_eq!(answer.data, vec![0; 4096]);
    assert_eq!(ask(&mut admin, &mut world, 0x00, 33).status().code(), 0x00b);
    assert_eq!(ask(&mut admin, &mut world, 0x00, 0).status().code(), 0x00b);
    let list = |answer: Answer| -> Vec<u32> {
        let list = NamespaceList::read_from_bytes(&answer.data).expect("4096 bytes");
        list.iter().collect()
    };
    assert_eq!(list(ask(&mut admin, &mut world, 0x02, 0)), [1, 2]);
    assert_eq!(list(ask(&mut admin, &mut world, 0x02, 1)), [2]);
    assert_eq!(
        ask(&mut admin, &mut world, 0x02, u32::MAX).status().code(),
        0x00b
    );
    let answer = ask(&mut admin, &mut world, 0x03, 1);
    let names: Vec<_> = descriptors(&answer.data)
        .map(|d| d.expect("right"))
        .collect();
    let uuid = uuid::Uuid::from_u128(7);
    let expected = [
        NamespaceDescriptor::Nguid(*uuid.as_bytes()),
        NamespaceDescriptor::Uuid(uuid),
        NamespaceDescriptor::CommandSet(0),
    ];
    assert_eq!(names, expected);
    assert_eq!(ask(&mut admin, &mut world, 0x03, 3).status().code(), 0x00b);
    let answer = ask(&mut admin, &mut world, 0x08, 2);
    let id = IndependentNamespace::read_from_bytes(&answer.data).expect("4096 bytes");
    assert_eq!((id.nmic & 1, id.nstat & 1, id.nsfeat), (1, 1, 1 << 5));
    for cns in [0x05, 0x06, 0x07] {
        assert_eq!(ask(&mut admin, &mut world, cns, 1).status().code(), 0);
        // Another command set than that of NVM.
        let command = identify(cns, 2, 1);
        let answer = admin.fetch(&mut world, command, 4096);
        assert_eq!(answer.status().code(), 0x002);
    }
    let answer = ask(&mut admin, &mut world, 0x1c, 0);
    assert_eq!(
        answer.data[..16],
        [1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    );
    assert_eq!(ask(&mut admin, &mut world, 0x10, 0).status().code(), 0x002);
    assert_eq!(ask(&mut admin, &mut world, 0xc0, 0).status().code(), 0x002);
    // Less room than the answer needs.
    let answer = admin.fetch(&mut world, identify(0x01, 0, 0), 4092);
    assert_eq!(answer.status().code(), 0x00f);
}

#[test]
fn identities_may_be_chosen() {
    let mut world = World::bare(&Plan::default());
    let device = Puppet::new("Test0", 100, |_| {});
    world.registry.add(Arc::new(device)).expect("new");
    let options = NamespaceOptions {
        bdev_name: "Test0".into(),
        nsid: Some(9),
        nguid: Some([0xab; 16]),
        eui64: Some([0xcd; 8]),
        uuid: Some(uuid::Uuid::from_u128(0x1234)),
        ..NamespaceOptions::default()
    };
    let added = world
        .target
        .add_namespace(&mut world.registry, NQN, options);
    assert_eq!(added.expect("a namespace"), 9);
    let (mut admin, _) = Host::admin(&mut world);
    let answer = ask(&mut admin, &mut world, 0x03, 9);
    let names: Vec<_> = descriptors(&answer.data)
        .map(|d| d.expect("right"))
        .collect();
    let expected = [
        NamespaceDescriptor::Eui64([0xcd; 8]),
        NamespaceDescriptor::Nguid([0xab; 16]),
        NamespaceDescriptor::Uuid(uuid::Uuid::from_u128(0x1234)),
        NamespaceDescriptor::CommandSet(0),
    ];
    assert_eq!(names, expected);
}

#[test]
fn log_pages() {
    let mut world = World::new();
    let (mut admin, _) = Host::admin(&mut world);
    let supported = log(&mut admin, &mut world, 0x00, 0, 1024).data;
    let pages: Vec<usize> = (0..256)
        .filter(|&lid| supported[lid * 4] & 1 == 1)
        .collect();
    assert_eq!(
        pages,
        [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x12, 0x13, 0x80]
    );
    for lid in pages {
        let answer = log(&mut admin, &mut world, lid as u8, 0, 512);
        assert_eq!(answer.status().code(), 0, "page {lid:#x}");
        assert_eq!(answer.data.len(), 512);
    }
    let health = log(&mut admin, &mut world, 0x02, 0, 512).data;
    assert_eq!((health[0], health[3]), (0, 100));
    let effects = log(&mut admin, &mut world, 0x05, 0, 4096).data;
    let io: Vec<usize> = (0..256)
        .filter(|op| effects[1024 + op * 4] & 1 == 1)
        .collect();
    assert_eq!(
        io,
        [0x00, 0x01, 0x02, 0x05, 0x08, 0x09, 0x0d, 0x0e, 0x11, 0x15]
    );
    // Part of a page; behind its end there are zeros; beyond it there is nothing.
    let part = log(&mut admin, &mut world, 0x05, 1024, 64).data;
    assert_eq!(part, effects[1024..1088]);
    let tail = log(&mut admin, &mut world, 0x02, 508, 8).data;
    assert_eq!(tail, [0; 8]);
    assert_eq!(
        log(&mut admin, &mut world, 0x02, 516, 4).status().code(),
        0x002
    );
    assert_eq!(
        log(&mut admin, &mut world, 0x0c, 0, 64).status().code(),
        0x109
    );
    assert_eq!(
        log(&mut admin, &mut world, 0x70, 0, 64).status().code(),
        0x109
    );
    // More than the largest transfer.
    let answer = log(&mut admin, &mut world, 0x02, 0, (1 << 20) + 4);
    assert_eq!(answer.status().code(), 0x002);
}

#[test]
fn features() {
    let mut world = World::new();
    let (mut admin, _) = Host::admin(&mut world);
    // Number of Queues: as many as there may be, 0's based, whatever is asked for.
    let answer = admin.run(&mut world, simple(SET, 0x07, 0x0003_0003), &[]);
    assert_eq!(
        (answer.status().code(), answer.completion.result64()),
        (0, 0x007e_007e)
    );
    assert_eq!(
        code(&mut admin, &mut world, simple(SET, 0x07, 0xffff_0000)),
        0x002
    );
    for fid in [0x01, 0x02, 0x04, 0x05, 0x06, 0x07, 0x0a, 0x0b, 0x0f, 0x19] {
        assert_eq!(
            code(&mut admin, &mut world, simple(GET, fid, 0)),
            0,
            "get {fid:#x}"
        );
    }
    for (fid, value) in [
        (0x01, 0x7),
        (0x04, 400),
        (0x05, 9),
        (0x0a, 1),
        (0x0b, 0x100),
    ] {
        assert_eq!(code(&mut admin, &mut world, simple(SET, fid, value)), 0);
        let answer = admin.run(&mut world, simple(GET, fid, 0), &[]);
        assert_eq!(answer.completion.result64(), u64::from(value), "{fid:#x}");
    }
    let answer = admin.run(&mut world, simple(GET, 0x06, 0), &[]);
    assert_eq!(answer.completion.result64(), 1);
    assert_eq!(code(&mut admin, &mut world, simple(SET, 0x06, 1)), 0);
    assert_eq!(code(&mut admin, &mut world, simple(SET, 0x06, 0)), 0x10e);
    // The host's identifier, as it was in Connect.
    let answer = admin.fetch(&mut world, simple(GET, 0x81, 1), 16);
    assert_eq!(answer.data, [0x11; 16]);
    // Host Behavior Support, there and back.
    let mut behavior = vec![0; 512];
    behavior[0] = 1;
    let answer = admin.run(&mut world, simple(SET, 0x16, 0), &behavior);
    assert_eq!(answer.status().code(), 0);
    let answer = admin.fetch(&mut world, simple(GET, 0x16, 0), 512);
    assert_eq!(answer.data, behavior);
    behavior[1] = 2;
    let answer = admin.run(&mut world, simple(SET, 0x16, 0), &behavior);
    assert_eq!(answer.status().code(), 0x002);
    let answer = admin.run(&mut world, simple(SET, 0x16, 0), &behavior[..511]);
    assert_eq!(answer.status().code(), 0x00f);
    let answer = admin.run(&mut world, simple(SET, 0x0e, 0), &[9, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(answer.status().code(), 0);
    let answer = admin.fetch(&mut world, simple(GET, 0x0e, 0), 8);
    assert_eq!(answer.data, [9, 0, 0, 0, 0, 0, 2, 0]);
    // Nothing is saved; unknown ones, and those of other transports, are not there.
    assert_eq!(
        code(&mut admin, &mut world, simple(SET, 1 << 31 | 0x01, 0)),
        0x10d
    );
    for fid in [0x00, 0x03, 0x08, 0x09, 0x0c, 0x0d, 0xc0] {
        assert_eq!(code(&mut admin, &mut world, simple(GET, fid, 0)), 0x002);
        assert_eq!(code(&mut admin, &mut world, simple(SET, fid, 0)), 0x002);
    }
}

#[test]
fn commands_that_a_fabrics_controller_has_not() {
    let mut world = World::new();
    let (mut admin, _) = Host::admin(&mut world);
    // Create and Delete I/O queues, Format, and what is in no list.
    for opcode in [0x00, 0x01, 0x04, 0x05, 0x80, 0x03, 0xc1] {
        assert_eq!(code(&mut admin, &mut world, Command::new(opcode, 0)), 0x001);
    }
    let fused = Command {
        flags: 0x41,
        ..Command::new(0x18, 0)
    };
    assert_eq!(code(&mut admin, &mut world, fused), 0x002);
    // Disconnect is for I/O queues; there is no authentication; FCTYPE 2 is none.
    for (kind, expected) in [(0x08, 0x185), (0x05, 0x001), (0x06, 0x001), (0x02, 0x002)] {
        assert_eq!(
            code(&mut admin, &mut world, Command::new(0x7f, kind)),
            expected
        );
    }
}

#[test]
fn properties() {
    let mut world = World::new();
    let mut host = world.dial();
    host.initialize(&mut world, &super::host::icreq(false, false));
    host.connect(
        &mut world,
        super::host::connect(0, 32),
        &super::host::connect_data(0xffff),
    );
    assert_eq!(host.property_get(&mut world, Property::Status), 0);
    // Before it is enabled, a controller has properties and no more.
    assert_eq!(code(&mut host, &mut world, Command::new(0x18, 0)), 0x00c);
    let set = host.property_set(&mut world, Property::Version, 1);
    assert_eq!(set.status().code(), 0x002);
    // CC with a page size, an arbitration, a command set or an entry size that cannot be.
    for cc in [
        1 << 7 | 1,
        1 << 11 | 1,
        1 << 4 | 1,
        7 << 16 | 1,
        3 << 14 | 1,
    ] {
        let set = host.property_set(&mut world, Property::Configuration, cc);
        assert_eq!(set.status().code(), 0x002, "{cc:#x}");
    }
    assert_eq!(host.property_get(&mut world, Property::Status), 0);
    host.enable(&mut world);
    assert_eq!(host.property_get(&mut world, Property::Status), 1);
    assert_eq!(
        host.property_get(&mut world, Property::Configuration),
        0x0046_0001
    );
    // 8 bytes of a property that has 4, and one that is not there.
    let mut get = Command::new(0x7f, 0x04);
    get.cdw10 = 1.into();
    get.cdw11 = 0x14.into();
    assert_eq!(code(&mut host, &mut world, get), 0x002);
    get.cdw10 = 0.into();
    get.cdw11 = 0x1000.into();
    assert_eq!(code(&mut host, &mut world, get), 0x002);
}

#[test]
fn abort_finds_what_waits_and_says_when_it_does_not() {
    let mut world = World::new();
    let (mut admin, _) = Host::admin(&mut world);
    let event = admin.submit(Command::new(0x0c, 0), &[]);
    assert!(admin.is_silent(&mut world));
    let abort = |sqid: u16, cid: u16| simple(0x08, u32::from(cid) << 16 | u32::from(sqid), 0);
    let answer = admin.run(&mut world, abort(1, event), &[]);
    assert_eq!(
        (answer.status().code(), answer.completion.result64()),
        (0, 1)
    );
    let answer = admin.run(&mut world, abort(0, event + 100), &[]);
    assert_eq!(answer.completion.result64(), 1);
    let cid = admin.submit(abort(0, event), &[]);
    let aborted = admin.finish(&mut world, event);
    assert_eq!(aborted.status().code(), 0x007);
    let answer = admin.finish(&mut world, cid);
    assert_eq!(
        (answer.status().code(), answer.completion.result64()),
        (0, 0)
    );
}

#[test]
fn hosts_are_told_of_namespaces_that_come_and_go() {
    let mut world = World::new();
    let (mut admin, cntlid) = Host::admin(&mut world);
    let mut io = Host::io(&mut world, cntlid, 1);
    assert_eq!(code(&mut admin, &mut world, simple(SET, 0x0b, 0x100)), 0);
    let event = admin.submit(Command::new(0x0c, 0), &[]);
    let nsid = world.export(Arc::new(Puppet::new("Test1", 100, |_| {})));
    let told = admin.finish(&mut world, event);
    // A notice (2h) that namespaces have changed (00h): see page 04h.
    assert_eq!(told.completion.result64(), 0x0004_0002);
    let on_second = Command {
        nsid: nsid.into(),
        ..flush()
    };
    assert_eq!(io.run(&mut world, on_second, &[]).status().code(), 0);
    // Not again before the page was read.
    let event = admin.submit(Command::new(0x0c, 0), &[]);
    world
        .target
        .remove_namespace(&mut world.registry, NQN, 1)
        .expect("there");
    assert!(admin.is_silent(&mut world));
    // Read with the event retained, the page stays, and so does the silence.
    let retained = GetLogPage {
        retain_event: true,
        ..GetLogPage::new(0x04, 4096)
    };
    let retained = AdminCommand::GetLogPage(retained).to_command(0);
    let retained = admin.fetch(&mut world, retained, 4096).data;
    assert!(admin.is_silent(&mut world));
    let changed = log(&mut admin, &mut world, 0x04, 0, 4096);
    assert_eq!(changed.data, retained);
    let list = NamespaceList::read_from_bytes(&changed.data).expect("4096 bytes");
    assert_eq!(list.iter().collect::<Vec<_>>(), [1, 2]);
    // Both changes are in the page that was read, and there is nothing to tell but that.
    let told = admin.finish(&mut world, event);
    assert_eq!(told.completion.result64(), 0x0004_0002);
    let changed = log(&mut admin, &mut world, 0x04, 0, 4096);
    assert_eq!(changed.data, vec![0; 4096]);
    assert_eq!(io.run(&mut world, flush(), &[]).status().code(), 0x00b);
    let more = (0..5).map(|_| admin.submit(Command::new(0x0c, 0), &[]));
    let last = more.last().expect("five");
    let refused = admin.finish(&mut world, last);
    assert_eq!(refused.status().code(), 0x105);
}

#[test]
fn admin_commands_do_not_wait_behind_io() {
    let puppet = Puppet::new("Test0", 4000, |_| {});
    let mut world = World::bare(&Plan {
        groups: 1,
        ..Plan::default()
    });
    world.export(Arc::new(puppet.clone()));
    let (mut admin, cntlid) = Host::admin(&mut world);
    let mut io = Host::io(&mut world, cntlid, 1);
    puppet.hold(true);
    // More than the queue takes, and than there is memory for.
    for _ in 0..60 {
        io.submit_read(super::commands::read(0, 2048), 1 << 20);
    }
    world.settle();
    assert_eq!(code(&mut admin, &mut world, Command::new(0x18, 0)), 0);
    assert_eq!(ask(&mut admin, &mut world, 0x01, 0).status().code(), 0);
    let _second = Host::io(&mut world, cntlid, 2);
    let queues = world.target.qpairs(NQN).expect("there");
    assert!(queues.iter().all(|q| q.hostnqn == HOST));
    assert_eq!(queues.len(), 3);
}
