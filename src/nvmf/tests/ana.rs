//! Hosts that come in at listeners which reach namespaces in different ways.

use std::net::SocketAddr;
use std::sync::Arc;

use zerocopy::FromBytes;

use super::admin::{SET, ask, log, simple};
use super::commands::{flush, halves, read, write};
use super::device::Puppet;
use super::host::{Host, connect, connect_data, icreq};
use super::party::{entry, register};
use super::world::{NQN, Plan, World};
use crate::nvme::Command;
use crate::nvme::admin::{AdminCommand, GetLogPage};
use crate::nvme::fabrics::CNTLID_DYNAMIC;
use crate::nvme::identify::{IdentifyController, IdentifyNamespace, IndependentNamespace};
use crate::nvme::reservation::Keys;
use crate::nvmf::{Access, ListenAddress};

/// Asymmetric Access Inaccessible: path related, and worth another try.
const INACCESSIBLE: u16 = 0x302;
/// A notice (2h) of an ANA change (03h): see page 0Ch.
const CHANGED: u64 = 0x000c_0302;

/// A target with two listeners and namespaces 1 and 2; the device of the first.
struct Paths {
    world: World,
    puppet: Puppet,
    here: SocketAddr,
    there: SocketAddr,
}

impl Paths {
    fn new() -> Self {
        let puppet = Puppet::new("Test0", 1000, |_| {});
        let mut world = World::bare(&Plan {
            ana_reporting: true,
            ..Plan::default()
        });
        world.export(Arc::new(puppet.clone()));
        world.export(Arc::new(Puppet::new("Test1", 500, |_| {})));
        let other = ListenAddress::parse("127.0.0.2", "0", None).expect("an address");
        let other = world.target.add_listener(NQN, other).expect("a listener");
        let here = world.local;
        Self {
            world,
            puppet,
            here,
            there: other.0,
        }
    }

    /// An enabled admin queue by this way, and its controller.
    fn admin(&mut self, way: SocketAddr) -> (Host, u16) {
        self.world.local = way;
        Host::admin(&mut self.world)
    }

    fn queue(&mut self, way: SocketAddr) -> (Host, Host) {
        self.world.local = way;
        Host::queue(&mut self.world)
    }

    fn set(&mut self, way: SocketAddr, group: Option<u32>, access: Access) {
        let way = ListenAddress(way);
        let set = self.world.target.set_access(NQN, way, group, access);
        set.expect("there");
        self.world.settle();
    }
}

fn group(id: u32, changes: u64, state: u8, namespaces: &[u32]) -> Vec<u8> {
    let mut bytes = vec![0; 32];
    bytes[..4].copy_from_slice(&id.to_le_bytes());
    bytes[4..8].copy_from_slice(&(namespaces.len() as u32).to_le_bytes());
    bytes[8..16].copy_from_slice(&changes.to_le_bytes());
    bytes[16] = state;
    bytes.extend(namespaces.iter().flat_map(|nsid| nsid.to_le_bytes()));
    bytes
}

/// What the page must be, and nothing behind it.
fn page(changes: u64, groups: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; 16];
    bytes[..8].copy_from_slice(&changes.to_le_bytes());
    bytes[8] = groups.len() as u8;
    bytes.extend(groups.concat());
    bytes.resize(512, 0);
    bytes
}

#[test]
fn controllers_tell_how_they_reach_namespaces() {
    let mut paths = Paths::new();
    let (mut admin, _) = paths.admin(paths.here);
    let world = &mut paths.world;
    let answer = ask(&mut admin, world, 0x01, 0);
    let id = IdentifyController::read_from_bytes(&answer.data).expect("4096 bytes");
    assert_eq!(id.cmic, 0b1011);
    assert_eq!(id.oaes.get(), 1 << 8 | 1 << 11);
    assert_eq!((id.anatt, id.anacap), (10, 0b111));
    assert_eq!((id.anagrpmax.get(), id.nanagrpid.get()), (32, 32));
    let describe = |admin: &mut Host, world: &mut World, nsid| {
        let answer = ask(admin, world, 0x00, nsid);
        IdentifyNamespace::read_from_bytes(&answer.data).expect("4096 bytes")
    };
    let id = describe(&mut admin, world, 2);
    assert_eq!((id.anagrpid.get(), id.nuse.get()), (2, 500));
    assert_eq!(id.nmic & 1, 1);
    let answer = ask(&mut admin, world, 0x08, 2);
    let id = IndependentNamespace::read_from_bytes(&answer.data).expect("4096 bytes");
    assert_eq!(id.anagrpid.get(), 2);
    let read = log(&mut admin, world, 0x0c, 0, 512);
    assert_eq!(
        read.data,
        page(0, &[group(1, 0, 1, &[1]), group(2, 0, 1, &[2])])
    );
    assert_eq!(log(&mut admin, world, 0x00, 0, 1024).data[4 * 0x0c], 1);
    // From there all of it is worse, and the second cannot be reached.
    paths.set(paths.there, None, Access::NonOptimized);
    paths.set(paths.there, Some(2), Access::Inaccessible);
    let (mut far, _) = paths.admin(paths.there);
    let world = &mut paths.world;
    let expected = page(0, &[group(1, 0, 2, &[1]), group(2, 0, 3, &[2])]);
    assert_eq!(log(&mut far, world, 0x0c, 0, 512).data, expected);
    assert_eq!(log(&mut far, world, 0x0c, 48, 464).data, expected[48..]);
    let id = describe(&mut far, world, 2);
    assert_eq!((id.nsze.get(), id.nuse.get()), (500, 0));
    let unchanged = page(0, &[group(1, 0, 1, &[1]), group(2, 0, 1, &[2])]);
    assert_eq!(log(&mut admin, world, 0x0c, 0, 512).data, unchanged);
    // Both in one group: the other is empty, and not told.
    let moved = world.target.set_namespace_group(NQN, 2, 1);
    moved.expect("there");
    world.settle();
    let read = log(&mut far, world, 0x0c, 0, 512);
    assert_eq!(read.data, page(1, &[group(1, 1, 2, &[1, 2])]));
    // Groups only.
    let groups_only = GetLogPage {
        lsp: 1,
        ..GetLogPage::new(0x0c, 512)
    };
    let command = AdminCommand::GetLogPage(groups_only).to_command(0);
    let read = far.fetch(world, command, 512);
    assert_eq!(read.data, page(1, &[group(1, 1, 2, &[])]));
}

#[test]
fn where_it_is_not_asked_for_nothing_is_told_of_it() {
    let mut world = World::new();
    let (mut admin, _) = Host::admin(&mut world);
    let answer = ask(&mut admin, &mut world, 0x01, 0);
    let id = IdentifyController::read_from_bytes(&answer.data).expect("4096 bytes");
    assert_eq!((id.cmic, id.oaes.get()), (0b11, 1 << 8));
    let rest = (id.anatt, id.anacap, id.anagrpmax.get(), id.nanagrpid.get());
    assert_eq!(rest, (0, 0, 0, 0));
    let answer = ask(&mut admin, &mut world, 0x00, 1);
    let id = IdentifyNamespace::read_from_bytes(&answer.data).expect("4096 bytes");
    assert_eq!(id.anagrpid.get(), 0);
    let pages = log(&mut admin, &mut world, 0x00, 0, 1024);
    assert_eq!(pages.data[4 * 0x0c], 0);
    let refused = log(&mut admin, &mut world, 0x0c, 0, 512);
    assert_eq!(refused.status().code(), 0x109);
    let at = ListenAddress(world.local);
    let refused = world.target.set_access(NQN, at, None, Access::Inaccessible);
    assert!(refused.unwrap_err().to_string().contains("ana_reporting"));
}

#[test]
fn hosts_are_told_of_changes_once_until_they_look() {
    let mut paths = Paths::new();
    let (mut admin, _) = paths.admin(paths.here);
    let (mut far, _) = paths.admin(paths.there);
    // From another address, or it would take over from the first.
    paths.world.local = paths.here;
    let mut deaf = paths
        .world
        .dial_from("127.0.0.9:1000".parse().expect("an address"));
    deaf.initialize(&mut paths.world, &icreq(false, false));
    let data = connect_data(CNTLID_DYNAMIC);
    deaf.connect(&mut paths.world, connect(0, 32), &data);
    deaf.enable(&mut paths.world);
    for (host, notices) in [(&mut admin, 0x900), (&mut far, 0x900), (&mut deaf, 0x100)] {
        let set = host.run(&mut paths.world, simple(SET, 0x0b, notices), &[]);
        assert_eq!(set.status().code(), 0);
    }
    let request = |host: &mut Host| host.submit(Command::new(0x0c, 0), &[]);
    let event = request(&mut admin);
    let (of_far, of_deaf) = (request(&mut far), request(&mut deaf));
    paths.set(paths.here, Some(1), Access::NonOptimized);
    let told = admin.finish(&mut paths.world, event);
    assert_eq!(told.completion.result64(), CHANGED);
    let event = request(&mut admin);
    paths.set(paths.here, Some(1), Access::Inaccessible);
    let world = &mut paths.world;
    assert!(admin.is_silent(world), "the page was not read");
    let keep = GetLogPage {
        retain_event: true,
        ..GetLogPage::new(0x0c, 512)
    };
    let command = AdminCommand::GetLogPage(keep).to_command(0);
    let expected = page(2, &[group(1, 2, 3, &[1]), group(2, 0, 1, &[2])]);
    assert_eq!(admin.fetch(world, command, 512).data, expected);
    assert!(
        admin.is_silent(world),
        "it is to be told again only when it is read for good"
    );
    assert_eq!(log(&mut admin, world, 0x0c, 0, 512).data, expected);
    assert_eq!(admin.finish(world, event).completion.result64(), CHANGED);
    log(&mut admin, world, 0x0c, 0, 512);
    // Not the way of the one, not wanted by the other.
    assert!(far.is_silent(world) && deaf.is_silent(world));
    // What is no change is not told, nor is one of a group that is empty.
    let event = request(&mut admin);
    paths.set(paths.here, Some(1), Access::Inaccessible);
    paths.set(paths.here, Some(9), Access::Inaccessible);
    assert!(admin.is_silent(&mut paths.world));
    // A namespace in another group is such a change, and no other.
    let moved = paths.world.target.set_namespace_group(NQN, 2, 9);
    moved.expect("there");
    let world = &mut paths.world;
    assert_eq!(admin.finish(world, event).completion.result64(), CHANGED);
    assert_eq!(far.finish(world, of_far).completion.result64(), CHANGED);
    assert!(deaf.is_silent(world));
    let read = log(&mut admin, world, 0x0c, 0, 512);
    let expected = page(3, &[group(1, 2, 3, &[1]), group(9, 1, 3, &[2])]);
    // The second group was emptied, which counts, too.
    assert_eq!(read.data, expected);
    // A namespace that comes is told as such.
    let event = request(&mut admin);
    world.export(Arc::new(Puppet::new("Test2", 100, |_| {})));
    assert_eq!(
        admin.finish(world, event).completion.result64(),
        0x0004_0002
    );
    log(&mut admin, world, 0x04, 0, 4096);
    request(&mut admin);
    assert!(admin.is_silent(world));
    let read = log(&mut admin, world, 0x0c, 0, 16);
    assert_eq!(read.data[0], 4);
    assert_eq!(
        deaf.finish(world, of_deaf).completion.result64(),
        0x0004_0002
    );
}

#[test]
fn what_is_not_to_be_reached_is_not_touched() {
    let mut paths = Paths::new();
    let puppet = paths.puppet.clone();
    let (_near_admin, mut near) = paths.queue(paths.here);
    let (mut far_admin, mut far) = paths.queue(paths.there);
    puppet.hold(true);
    let running = near.submit(write(0, 1), &[1; 512]);
    let waits = near.submit_large(write(1, 1), 512);
    let request = near.expect_r2t(&mut paths.world);
    paths.set(paths.here, Some(1), Access::Inaccessible);
    let world = &mut paths.world;
    assert_eq!(puppet.seen().len(), 1);
    // Other than a namespace that is gone, it may be tried elsewhere or later.
    let (first, second) = halves(5, 1);
    for (command, data) in [
        (write(2, 1), &[2; 512][..]),
        (flush(), &[]),
        (first, &[0; 512]),
    ] {
        let refused = near.run(world, command, data);
        assert_eq!(refused.status().code(), INACCESSIBLE);
        assert!(!refused.status().do_not_retry());
    }
    let missing = near.run(world, second, &[0; 512]);
    assert_eq!(missing.status().code(), 0x009);
    let (reserve, keys) = entry(register(), Keys::new(0, 0xa));
    let refused = near.run(world, reserve, &keys);
    assert_eq!(refused.status().code(), INACCESSIBLE);
    let refused = near.fetch(world, read(0, 1), 512);
    assert_eq!(refused.status().code(), INACCESSIBLE);
    near.answer(&request, &[3; 512], 512);
    assert_eq!(near.finish(world, waits).status().code(), INACCESSIBLE);
    assert!(
        puppet.seen().is_empty(),
        "nothing new was asked of the device"
    );
    puppet.hold(false);
    // What the device had already is done.
    assert_eq!(near.finish(world, running).status().code(), 0);
    // The second namespace, and the other way, are as before.
    let second = Command {
        nsid: 2.into(),
        ..flush()
    };
    assert_eq!(near.run(world, second, &[]).status().code(), 0);
    assert_eq!(far.fetch(world, read(0, 2), 1024).data[..512], [1; 512]);
    assert_eq!(far.run(world, write(1, 1), &[4; 512]).status().code(), 0);
    assert_eq!(ask(&mut far_admin, world, 0x00, 1).status().code(), 0);
    // Worse is good enough.
    paths.set(paths.here, None, Access::NonOptimized);
    let world = &mut paths.world;
    assert_eq!(near.fetch(world, read(1, 1), 512).data, [4; 512]);
}

/// What a controller tells is true of all of its queues, wherever they came in.
#[test]
fn the_way_of_the_admin_queue_decides() {
    let mut paths = Paths::new();
    let (_admin, cntlid) = paths.admin(paths.here);
    paths.world.local = paths.there;
    let mut io = Host::io(&mut paths.world, cntlid, 1);
    paths.set(paths.there, None, Access::Inaccessible);
    assert_eq!(io.run(&mut paths.world, flush(), &[]).status().code(), 0);
    paths.set(paths.here, None, Access::Inaccessible);
    let refused = io.run(&mut paths.world, flush(), &[]);
    assert_eq!(refused.status().code(), INACCESSIBLE);
}

#[test]
fn a_listener_that_is_made_anew_begins_anew() {
    let mut paths = Paths::new();
    let there = ListenAddress(paths.there);
    paths.set(paths.there, None, Access::Inaccessible);
    let target = &mut paths.world.target;
    target.remove_listener(NQN, there).expect("there");
    target.add_listener(NQN, there).expect("free");
    let (_admin, mut io) = paths.queue(paths.there);
    assert_eq!(io.run(&mut paths.world, flush(), &[]).status().code(), 0);
    let target = &mut paths.world.target;
    target.remove_listener(NQN, there).expect("there");
    let worse = target.add_listener_with(NQN, there, Access::Inaccessible);
    worse.expect("free");
    let (_admin, mut io) = paths.queue(paths.there);
    let refused = io.run(&mut paths.world, flush(), &[]);
    assert_eq!(refused.status().code(), INACCESSIBLE);
}
