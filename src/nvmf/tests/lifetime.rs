//! How connections and associations end: silence, keep-alive, lost queues, takeover.

use std::sync::Arc;
use std::time::Duration;

use super::commands::{flush, read, write};
use super::device::Puppet;
use super::host::{Host, connect, connect_data, icreq};
use super::world::{NQN, Plan, World};
use crate::nvme::command::Command;
use crate::nvme::fabrics::CNTLID_DYNAMIC;
use crate::nvme::property::Property;
use crate::nvmf::SubsystemOptions;

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

fn queues(world: &World) -> Vec<u16> {
    let queues = world.target.qpairs(NQN).expect("there");
    queues.iter().map(|q| q.qid).collect()
}

#[test]
fn silence_after_the_dial_is_not_borne_for_long() {
    let mut world = World::new();
    let (_admin, _io) = Host::queue(&mut world);
    let silent = world.dial();
    let mut half = world.dial();
    half.pipe.put(&icreq(false, false).encode()[..100]);
    let mut connected_late = world.dial();
    world.pass(seconds(9));
    assert!(!silent.pipe.is_closed() && !half.pipe.is_closed());
    connected_late.initialize(&mut world, &icreq(false, false));
    world.pass(seconds(2));
    assert!(silent.pipe.is_closed() && half.pipe.is_closed());
    // ICReq buys ten seconds more, for a Connect.
    assert!(!connected_late.pipe.is_closed());
    world.pass(seconds(9));
    assert!(connected_late.pipe.is_closed());
    // An association that asked for no keep-alive may be silent as long as it likes.
    assert_eq!(queues(&world), [0, 1]);
}

#[test]
fn bytes_one_by_one_do_not_buy_time() {
    let mut world = World::new();
    let mut slow = world.dial();
    let bytes = icreq(false, false).encode().to_vec();
    for byte in &bytes[..110] {
        slow.pipe.put(&[*byte]);
        world.pass(Duration::from_millis(100));
    }
    assert!(slow.pipe.is_closed());
}

#[test]
fn half_a_pdu_and_then_nothing() {
    let mut world = World::new();
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut in_header = Host::io(&mut world, cntlid, 1);
    let mut in_data = Host::io(&mut world, cntlid, 2);
    let mut asked = Host::io(&mut world, cntlid, 3);
    let idle = Host::io(&mut world, cntlid, 4);
    in_header.pipe.put(&[4, 0, 72]);
    let command = write(0, 1).with_sgl(crate::nvme::SglDescriptor::in_capsule(512));
    let capsule = crate::nvme::tcp::CapsuleCmd { command };
    in_data.pipe.put(&capsule.encode(&in_data.format, 512));
    in_data.pipe.put(&[0; 100]);
    asked.submit_large(write(0, 64), 64 * 512);
    asked.expect_r2t(&mut world);
    world.pass(seconds(29));
    assert_eq!(queues(&world), [0, 1, 2, 3, 4]);
    world.pass(seconds(2));
    assert_eq!(queues(&world), [0, 4]);
    assert!(!idle.pipe.is_closed());
    let stats = world.target.stats();
    assert_eq!(stats.iter().map(|s| s.connection_faults).sum::<u64>(), 3);
}

#[test]
fn output_that_nobody_reads() {
    let mut world = World::new();
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut deaf = Host::io(&mut world, cntlid, 1);
    let mut slow = Host::io(&mut world, cntlid, 2);
    for host in [&mut deaf, &mut slow] {
        host.pipe.set_room(2000);
        host.submit_read(read(0, 64), 64 * 512);
    }
    // Who reads a little now and then is borne.
    for _ in 0..10 {
        world.pass(seconds(10));
        slow.poll();
    }
    assert!(deaf.pipe.is_closed());
    assert!(!slow.pipe.is_closed());
    assert_eq!(queues(&world), [0, 2]);
}

#[test]
fn a_host_that_keeps_no_promise_to_be_alive_is_given_up() {
    let mut world = World::new();
    let mut admin = world.dial();
    admin.initialize(&mut world, &icreq(false, false));
    let mut command = connect(0, 32);
    command.kato_ms = 4500;
    let answer = admin.connect(&mut world, command, &connect_data(CNTLID_DYNAMIC));
    let cntlid = answer.completion.result64() as u16;
    admin.enable(&mut world);
    let io = Host::io(&mut world, cntlid, 1);
    let keep_alive = Command::new(0x18, 0);
    for _ in 0..4 {
        // Rounded up to whole seconds: 5 s.
        world.pass(Duration::from_millis(4700));
        assert_eq!(admin.run(&mut world, keep_alive, &[]).status().code(), 0);
    }
    // A longer time can be asked for later.
    let mut set = Command::new(0x09, 0);
    set.cdw10 = 0x0f.into();
    set.cdw11 = 20_000.into();
    assert_eq!(admin.run(&mut world, set, &[]).status().code(), 0);
    let mut get = Command::new(0x0a, 0);
    get.cdw10 = 0x0f.into();
    let answer = admin.run(&mut world, get, &[]);
    assert_eq!(answer.completion.result64(), 20_000);
    world.pass(seconds(19));
    assert_eq!(queues(&world), [0, 1]);
    world.pass(seconds(2));
    assert!(admin.pipe.is_closed() && io.pipe.is_closed());
    assert!(queues(&world).is_empty());
    assert!(world.target.controllers(NQN).expect("there").is_empty());
}

#[test]
fn without_its_admin_queue_an_association_is_over() {
    let mut world = World::new();
    let (admin, cntlid) = Host::admin(&mut world);
    let first = Host::io(&mut world, cntlid, 1);
    let second = Host::io(&mut world, cntlid, 2);
    // Without an I/O queue it is not.
    drop(first);
    world.settle();
    assert_eq!(queues(&world), [0, 2]);
    drop(admin);
    world.settle();
    assert!(second.pipe.is_closed());
    assert!(queues(&world).is_empty());
}

#[test]
fn commands_of_a_lost_queue_run_to_their_end() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (admin, cntlid) = Host::admin(&mut world);
    let mut io = Host::io(&mut world, cntlid, 1);
    puppet.hold(true);
    for n in 0..5 {
        io.submit(write(n, 1), &[1; 512]);
    }
    let mut asked = Host::io(&mut world, cntlid, 2);
    asked.submit_large(write(9, 1), 512);
    asked.expect_r2t(&mut world);
    drop((admin, io, asked));
    world.settle();
    // The queue with commands at the device is still there, in a way.
    assert_eq!(queues(&world), [1]);
    let pending: u64 = world.target.stats().iter().map(|s| s.pending_bdev_io).sum();
    assert_eq!(pending, 5);
    puppet.hold(false);
    world.settle();
    assert!(queues(&world).is_empty());
    assert_eq!(puppet.seen().len(), 5);
    // Whoever comes next finds what was written, and all memory back in place.
    let (_admin, mut io) = Host::queue(&mut world);
    let answer = io.fetch(&mut world, read(0, 6), 6 * 512);
    assert_eq!(answer.data[..5 * 512], [1; 5 * 512]);
    assert_eq!(answer.data[5 * 512..], [0; 512]);
    drop(io);
    world.settle();
    assert!(world.memory_is_whole());
}

#[test]
fn a_queue_that_is_connected_again_takes_over() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut before = Host::io(&mut world, cntlid, 1);
    puppet.hold(true);
    before.submit(write(0, 1), &[1; 512]);
    world.settle();
    let mut after = world.dial();
    after.initialize(&mut world, &icreq(false, false));
    let command = crate::nvme::fabrics::FabricsCommand::Connect(connect(1, 32)).to_command();
    use zerocopy::IntoBytes;
    let cid = after.submit(command, connect_data(cntlid).as_bytes());
    assert!(
        after.is_silent(&mut world),
        "the old queue still has a write"
    );
    assert!(before.pipe.is_closed());
    puppet.hold(false);
    assert_eq!(after.finish(&mut world, cid).status().code(), 0);
    assert_eq!(after.run(&mut world, flush(), &[]).status().code(), 0);
    assert_eq!(queues(&world), [0, 1]);
}

#[test]
fn a_takeover_that_takes_too_long_is_busy() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut before = Host::io(&mut world, cntlid, 1);
    puppet.hold(true);
    before.submit(write(0, 1), &[1; 512]);
    world.settle();
    let mut after = world.dial();
    after.initialize(&mut world, &icreq(false, false));
    use zerocopy::IntoBytes;
    let command = crate::nvme::fabrics::FabricsCommand::Connect(connect(1, 32)).to_command();
    let cid = after.submit(command, connect_data(cntlid).as_bytes());
    world.pass(seconds(6));
    let status = after.finish(&mut world, cid).status();
    assert_eq!(status.code(), 0x181);
    assert!(!status.do_not_retry());
    puppet.hold(false);
}

#[test]
fn the_same_host_over_the_same_path_takes_over() {
    let mut world = World::new();
    let (admin, mut io) = Host::queue(&mut world);
    // Another path of the same host is another association.
    let mut elsewhere = world.dial_from("127.0.0.9:1000".parse().expect("an address"));
    elsewhere.initialize(&mut world, &icreq(false, false));
    let data = connect_data(CNTLID_DYNAMIC);
    let answer = elsewhere.connect(&mut world, connect(0, 32), &data);
    assert_eq!(answer.status().code(), 0);
    assert_eq!(io.run(&mut world, flush(), &[]).status().code(), 0);
    // The same path from another port is the same host, come back.
    let mut again = world.dial_from("127.0.0.1:50001".parse().expect("an address"));
    again.initialize(&mut world, &icreq(false, false));
    let answer = again.connect(&mut world, connect(0, 32), &data);
    assert_eq!(answer.status().code(), 0);
    assert!(admin.pipe.is_closed() && io.pipe.is_closed());
    assert!(!elsewhere.pipe.is_closed());
    assert_eq!(world.target.controllers(NQN).expect("there").len(), 2);
}

#[test]
fn duplicates_where_they_are_allowed() {
    let mut world = World::new();
    let other = "nqn.2026-11.io.example:twice";
    let mut options = SubsystemOptions::new(other);
    options.allow_any_host = true;
    options.allow_duplicate_associations = true;
    world.target.create_subsystem(options).expect("new");
    let address = crate::nvmf::ListenAddress(world.local);
    world.target.add_listener(other, address).expect("shared");
    let mut data = connect_data(CNTLID_DYNAMIC);
    data.subnqn = crate::nvme::Nqn::new(other).expect("a name").to_field();
    let hosts: Vec<Host> = (0..2)
        .map(|_| {
            let mut host = world.dial();
            host.initialize(&mut world, &icreq(false, false));
            let answer = host.connect(&mut world, connect(0, 32), &data);
            assert_eq!(answer.status().code(), 0);
            host
        })
        .collect();
    assert!(hosts.iter().all(|h| !h.pipe.is_closed()));
}

#[test]
fn shutdown_is_complete_at_once_and_commands_end() {
    let mut world = World::new();
    let (mut admin, mut io) = Host::queue(&mut world);
    assert_eq!(io.run(&mut world, flush(), &[]).status().code(), 0);
    // CC with SHN = 01b; CSTS.SHST becomes 10b, and RDY stays.
    let cc = admin.property_get(&mut world, Property::Configuration) as u32;
    admin.property_set(&mut world, Property::Configuration, cc | 1 << 14);
    assert_eq!(admin.property_get(&mut world, Property::Status), 0b1001);
    // Requests for events end with a reset.
    let event = admin.submit(Command::new(0x0c, 0), &[]);
    assert!(admin.is_silent(&mut world));
    let reset = admin.cid();
    let mut command = Command::new(0x7f, 0x00).with_cid(reset);
    command.cdw11 = 0x14.into();
    admin.send(&command, &[]);
    let mut ended = Vec::new();
    for _ in 0..2 {
        let crate::nvme::tcp::ControllerPdu::CapsuleResp(response) = admin.next(&mut world).pdu
        else {
            panic!("two responses come");
        };
        let completion = response.completion;
        ended.push((completion.cid.get(), completion.status().code()));
    }
    ended.sort_unstable();
    assert_eq!(ended, [(event, 0x008), (reset, 0)]);
    assert_eq!(admin.property_get(&mut world, Property::Status), 0b1000);
    admin.enable(&mut world);
    assert_eq!(admin.property_get(&mut world, Property::Status), 0b0001);
}
