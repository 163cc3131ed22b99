//! Fused Compare and Write.

use std::sync::Arc;

use super::commands::{flush, halves, pattern, read, write};
use super::device::Puppet;
use super::host::Host;
use super::world::{Plan, World};
use crate::bdev::{Op, Status as DeviceStatus};
use crate::nvme::tcp::ControllerPdu;
use crate::nvme::{Command, Fuse, SglDescriptor};

fn code(host: &mut Host, world: &mut World, cid: u16) -> u16 {
    host.finish(world, cid).status().code()
}

#[test]
fn equal_is_written_and_different_is_not() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let (first, second) = halves(5, 1);
    let (old, new) = (vec![0; 512], pattern(1, 512));
    let a = io.submit(first, &old);
    assert!(
        io.is_silent(&mut world),
        "a first half waits for its second"
    );
    let b = io.submit(second, &new);
    assert_eq!(code(&mut io, &mut world, a), 0);
    assert_eq!(code(&mut io, &mut world, b), 0);
    assert_eq!(io.fetch(&mut world, read(5, 1), 512).data, new);
    // The same again finds something else there.
    let a = io.submit(first, &old);
    let b = io.submit(second, &pattern(2, 512));
    assert_eq!(code(&mut io, &mut world, a), 0x285);
    assert_eq!(code(&mut io, &mut world, b), 0x009);
    assert_eq!(io.fetch(&mut world, read(5, 1), 512).data, new);
}

#[test]
fn the_data_of_the_halves_may_come_in_any_order() {
    for second_first in [false, true] {
        let mut world = World::new();
        let (_admin, mut io) = Host::queue(&mut world);
        let (first, second) = halves(5, 1);
        let (old, new) = (vec![0; 512], pattern(1, 512));
        let a = io.submit_large(first, 512);
        let b = io.submit_large(second, 512);
        let of_first = io.expect_r2t(&mut world);
        let of_second = io.expect_r2t(&mut world);
        assert_eq!((of_first.cccid, of_second.cccid), (a, b));
        if second_first {
            io.answer(&of_second, &new, 512);
            io.answer(&of_first, &old, 512);
        } else {
            io.answer(&of_first, &old, 512);
            assert!(io.is_silent(&mut world));
            io.answer(&of_second, &new, 512);
        }
        assert_eq!(code(&mut io, &mut world, a), 0);
        assert_eq!(code(&mut io, &mut world, b), 0);
        assert_eq!(io.fetch(&mut world, read(5, 1), 512).data, new);
    }
}

#[test]
fn a_half_alone_is_ended_and_nothing_else_is() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let (first, second) = halves(5, 1);
    // A command between the halves, even for another namespace.
    let stranger = Command {
        nsid: 3.into(),
        ..flush()
    };
    let a = io.submit(first, &[0; 512]);
    let between = io.submit(stranger, &[]);
    let b = io.submit(second, &[1; 512]);
    assert_eq!(code(&mut io, &mut world, a), 0x00a);
    assert_eq!(code(&mut io, &mut world, between), 0x00b);
    assert_eq!(code(&mut io, &mut world, b), 0x00a);
    // Two first halves: the second of them is the one that counts.
    let a = io.submit(first, &[0; 512]);
    let c = io.submit(first, &[0; 512]);
    let b = io.submit(second, &[1; 512]);
    assert_eq!(code(&mut io, &mut world, a), 0x00a);
    assert_eq!(code(&mut io, &mut world, c), 0);
    assert_eq!(code(&mut io, &mut world, b), 0);
    // A first half whose data was asked for has to get it before it can end.
    let a = io.submit_large(first, 512);
    let request = io.expect_r2t(&mut world);
    let between = io.submit(flush(), &[]);
    assert_eq!(code(&mut io, &mut world, between), 0);
    io.answer(&request, &[0; 512], 512);
    assert_eq!(code(&mut io, &mut world, a), 0x00a);
    assert_eq!(io.fetch(&mut world, read(5, 1), 512).data, vec![1; 512]);
}

#[test]
fn halves_that_do_not_fit_are_both_ended() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let (first, _) = halves(5, 1);
    let (_, elsewhere) = halves(6, 1);
    let a = io.submit(first, &[0; 512]);
    let b = io.submit(elsewhere, &[1; 512]);
    assert_eq!(code(&mut io, &mut world, a), 0x002);
    assert_eq!(code(&mut io, &mut world, b), 0x002);
    // Two blocks are more than is atomic.
    let (first, second) = halves(5, 2);
    let a = io.submit(first, &[0; 1024]);
    let b = io.submit(second, &[1; 1024]);
    assert_eq!(code(&mut io, &mut world, a), 0x014);
    assert_eq!(code(&mut io, &mut world, b), 0x009);
    // Only a Compare can be first, only a Write second.
    let wrong = write(5, 1).with_fuse(Fuse::First);
    let (first, second) = halves(5, 1);
    let a = io.submit(wrong, &[0; 512]);
    let b = io.submit(second, &[1; 512]);
    assert_eq!(code(&mut io, &mut world, a), 0x002);
    assert_eq!(code(&mut io, &mut world, b), 0x009);
    let a = io.submit(first, &[0; 512]);
    let b = io.submit_read(read(5, 1).with_fuse(Fuse::Second), 512);
    assert_eq!(code(&mut io, &mut world, a), 0x009);
    assert_eq!(code(&mut io, &mut world, b), 0x002);
    // A first half that is refused by itself takes its second with it.
    let (first, second) = halves(1 << 30, 1);
    let a = io.submit(first, &[0; 512]);
    let b = io.submit(second, &[1; 512]);
    assert_eq!(code(&mut io, &mut world, a), 0x080);
    assert_eq!(code(&mut io, &mut world, b), 0x009);
    assert_eq!(io.fetch(&mut world, read(5, 2), 1024).data, vec![0; 1024]);
}

#[test]
fn it_is_one_request_to_the_device() {
    let puppet = Puppet::new("Test0", 1000, |_| {});
    let mut world = World::bare(&Plan::default());
    world.export(Arc::new(puppet.clone()));
    let (_admin, mut io) = Host::queue(&mut world);
    let (first, mut second) = halves(7, 1);
    second.cdw12 = (second.cdw12.get() | 1 << 30).into();
    let a = io.submit(first, &[0; 512]);
    let b = io.submit(second, &[1; 512]);
    assert_eq!(code(&mut io, &mut world, a), 0);
    assert_eq!(code(&mut io, &mut world, b), 0);
    let op = Op::CompareAndWrite { fua: true };
    assert_eq!(puppet.seen(), [(op, 7, 1, vec![1024])]);
    puppet.fail_next(DeviceStatus::Offline);
    let a = io.submit(first, &[1; 512]);
    let b = io.submit(second, &[2; 512]);
    assert_eq!(code(&mut io, &mut world, a), 0x006);
    assert_eq!(code(&mut io, &mut world, b), 0x009);
}

#[test]
fn corrupt_data_of_one_half_ends_both() {
    use super::host::{connect, connect_data, icreq};
    let mut world = World::new();
    let (_admin, cntlid) = Host::admin(&mut world);
    let mut io = world.dial();
    io.initialize(&mut world, &icreq(false, true));
    io.connect(&mut world, connect(1, 8), &connect_data(cntlid));
    let (first, second) = halves(5, 1);
    let a = io.cid();
    let capsule = first.with_cid(a).with_sgl(SglDescriptor::in_capsule(512));
    io.send_corrupt(&capsule, &[0; 512]);
    let b = io.submit(second, &[1; 512]);
    let answers: Vec<(u16, u16)> = (0..2)
        .map(|_| match io.next(&mut world).pdu {
            ControllerPdu::CapsuleResp(response) => {
                let completion = response.completion;
                (completion.cid.get(), completion.status().code())
            }
            other => panic!("unexpected {other:?}"),
        })
        .collect();
    assert_eq!(answers, [(a, 0x022), (b, 0x009)]);
    assert_eq!(io.fetch(&mut world, read(5, 1), 512).data, vec![0; 512]);
}
