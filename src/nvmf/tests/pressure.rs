//! Little memory, many commands, hosts that do not play along: everybody is served in the end, and
//! nobody suffers for another.

use std::sync::Arc;

use proptest::prelude::*;

use super::commands::{flush, halves, pattern, read, write};
use super::device::Puppet;
use super::host::Host;
use super::world::{Plan, World};
use crate::memory::Class;
use crate::nvme::tcp::ControllerPdu;
use crate::nvmf::{PayloadSizes, TransportOptions};

fn class(slot_size: usize, slots: usize) -> Class {
    Class { slot_size, slots }
}

/// One group with hardly any memory.
fn poor() -> Plan {
    Plan {
        groups: 1,
        options: TransportOptions {
            max_io_size: 64 << 10,
            ..TransportOptions::default()
        },
        sizes: PayloadSizes {
            at_once: vec![class(8192, 2)],
            bulk: vec![class(4096, 4), class(16384, 4)],
        },
        ..Plan::default()
    }
}

/// What one command of the test does, and what is left to do for it.
struct Open {
    cid: u16,
    data: Vec<u8>,
    is_read: bool,
}

/// Serves R2Ts and takes answers until every command has had its one.
fn serve(world: &mut World, hosts: &mut [(Host, Vec<Open>)]) {
    for _ in 0..20_000 {
        if hosts.iter().all(|(_, open)| open.is_empty()) {
            return;
        }
        world.turn();
        for (host, open) in hosts.iter_mut() {
            while let Some(received) = host.poll() {
                match received.pdu {
                    ControllerPdu::R2t(request) => {
                        let of = open.iter().find(|o| o.cid == request.cccid);
                        let data = of.expect("an open command").data.clone();
                        host.answer(&request, &data, 3000);
                    }
                    ControllerPdu::C2hData(data) => {
                        let of = open.iter_mut().find(|o| o.cid == data.cccid);
                        let of = of.expect("an open command");
                        assert!(of.is_read);
                        assert_eq!(data.len as usize, received.data.len());
                    }
                    ControllerPdu::CapsuleResp(response) => {
                        let cid = response.completion.cid.get();
                        let at = open.iter().position(|o| o.cid == cid);
                        open.swap_remove(at.expect("one answer for each command"));
                        assert_eq!(response.completion.status().code(), 0);
                    }
                    other => panic!("unexpected {other:?}"),
                }
            }
        }
    }
    panic!("commands are left for ever");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Any mix of commands on three queues, with memory for a few at a time.
    #[test]
    fn nobody_waits_for_ever(
        plan in proptest::collection::vec((0..3usize, 0..5u8, 1..128u32), 1..90)
    ) {
        let mut world = World::with(poor());
        let (_admin, cntlid) = Host::admin(&mut world);
        let mut hosts: Vec<(Host, Vec<Open>)> = (1..=3)
            .map(|qid| (Host::io(&mut world, cntlid, qid), Vec::new()))
            .collect();
        for (n, (queue, kind, blocks)) in plan.into_iter().enumerate() {
            let (host, open) = &mut hosts[queue];
            if open.len() >= 30 {
                // A host that sends more than the queue takes has to wait for itself.
                continue;
            }
            let slba = n as u64 * 128;
            let data = pattern(n, blocks as usize * 512);
            let open_one = |cid, data, is_read| Open { cid, data, is_read };
            match kind {
                0 => {
                    let cid = host.submit_read(read(slba, blocks), blocks * 512);
                    open.push(open_one(cid, Vec::new(), true));
                }
                1 => {
                    let cid = host.submit_large(write(slba, blocks), data.len());
                    open.push(open_one(cid, data, false));
                }
                2 => {
                    let blocks = blocks.min(16);
                    let data = pattern(n, blocks as usize * 512);
                    let cid = host.submit(write(slba, blocks), &data);
                    open.push(open_one(cid, data, false));
                }
                3 => {
                    let (first, second) = halves(slba, 1);
                    let cid = host.submit_large(first, 512);
                    open.push(open_one(cid, vec![0; 512], false));
                    let cid = host.submit_large(second, 512);
                    open.push(open_one(cid, pattern(n, 512), false));
                }
                _ => {
                    let cid = host.submit(flush(), &[]);
                    open.push(open_one(cid, Vec::new(), false));
                }
            }
        }
        serve(&mut world, &mut hosts);
        world.settle();
        prop_assert!(world.memory_is_whole());
    }
}

#[test]
fn who_reads_nothing_holds_up_nobody() {
    let mut world = World::with(poor());
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut deaf: Vec<Host> = (1..=4)
        .map(|qid| Host::io(&mut world, cntlid, qid))
        .collect();
    for host in &mut deaf {
        host.pipe.set_room(100);
        for _ in 0..20 {
            host.submit_read(read(0, 16), 8192);
        }
    }
    world.settle();
    let mut host = Host::io(&mut world, cntlid, 5);
    let data = pattern(1, 16 * 512);
    for _ in 0..10 {
        assert_eq!(
            host.push(&mut world, write(0, 16), &data).status().code(),
            0
        );
        assert_eq!(host.fetch(&mut world, read(0, 16), 8192).data, data);
        assert_eq!(
            host.run(&mut world, write(0, 8), &data[..4096])
                .status()
                .code(),
            0
        );
    }
}

#[test]
fn who_never_sends_what_it_was_asked_for_holds_up_nobody() {
    let mut world = World::with(poor());
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut idle: Vec<Host> = (1..=4)
        .map(|qid| Host::io(&mut world, cntlid, qid))
        .collect();
    for host in &mut idle {
        for n in 0..20 {
            host.submit_large(write(n * 16, 16), 8192);
        }
        host.expect_r2t(&mut world);
    }
    let mut host = Host::io(&mut world, cntlid, 5);
    let data = pattern(1, 8192);
    assert_eq!(
        host.push(&mut world, write(0, 16), &data).status().code(),
        0
    );
    assert_eq!(host.fetch(&mut world, read(0, 16), 8192).data, data);
}

#[test]
fn a_flood_on_one_queue_leaves_others_their_turn() {
    let puppet = Puppet::new("Test0", 10_000, |_| {});
    let mut world = World::bare(&Plan {
        groups: 1,
        ..Plan::default()
    });
    world.export(Arc::new(puppet));
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut flood = Host::io(&mut world, cntlid, 1);
    let mut quiet = Host::io(&mut world, cntlid, 2);
    for _ in 0..5000 {
        flood.submit(flush(), &[]);
    }
    let cid = quiet.submit(flush(), &[]);
    world.turn();
    world.turn();
    let answered = quiet.poll().expect("an answer in two turns");
    let ControllerPdu::CapsuleResp(response) = answered.pdu else {
        panic!("{answered:?} is no response");
    };
    assert_eq!(response.completion.cid.get(), cid);
    assert!(flood.pipe.unread() > 0, "the flood is not over");
}

#[test]
fn a_command_that_can_never_have_memory_is_refused() {
    let mut plan = poor();
    // Cut into single blocks, 64 KiB need 128 buffers; there are 8.
    plan.options.max_io_size = 64 << 10;
    let mut world = World::bare(&plan);
    let puppet = Puppet::new("Test0", 1000, |info| info.io_boundary = 1);
    world.export(Arc::new(puppet));
    let (_admin, mut io) = Host::queue(&mut world);
    let answer = io.fetch(&mut world, read(0, 128), 64 << 10);
    assert_eq!(answer.status().code(), 0x006);
    assert_eq!(io.fetch(&mut world, read(0, 8), 4096).data, vec![0; 4096]);
    let cid = io.submit_large(write(0, 128), 64 << 10);
    assert_eq!(io.finish(&mut world, cid).status().code(), 0x006);
    let small = pattern(0, 16 * 512);
    let answer = io.run(&mut world, write(0, 16), &small);
    assert_eq!(answer.status().code(), 0x006);
    assert_eq!(io.run(&mut world, flush(), &[]).status().code(), 0);
}
