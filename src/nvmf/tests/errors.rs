//! Error information: commands that failed, on whatever queue.

use std::time::Duration;

use zerocopy::FromBytes;

use super::commands::{flush, halves, read, write};
use super::host::Host;
use super::party::Party;
use super::world::World;
use crate::nvme::admin::{AdminCommand, GetLogPage};
use crate::nvme::log_page::{ErrorEntry, Health};
use crate::nvme::reservation::ReservationType;
use crate::nvme::{Command, SglDescriptor};

fn page(admin: &mut Host, world: &mut World, lid: u8, len: u32) -> Vec<u8> {
    world.settle();
    let page = AdminCommand::GetLogPage(GetLogPage::new(lid, len.into()));
    let answer = admin.fetch(world, page.to_command(0), len);
    assert!(answer.status().is_success(), "{answer:?}");
    answer.data
}

fn entries(admin: &mut Host, world: &mut World) -> Vec<ErrorEntry> {
    let page = page(admin, world, 0x01, 8192);
    let all = page.chunks_exact(64);
    let all = all.map(|bytes| ErrorEntry::read_from_bytes(bytes).expect("64 bytes"));
    all.take_while(|entry| entry.error_count.get() > 0)
        .collect()
}

fn count(admin: &mut Host, world: &mut World) -> u128 {
    let page = page(admin, world, 0x02, 512);
    let health = Health::read_from_bytes(&page).expect("512 bytes");
    health.error_entries.get()
}

#[test]
fn what_failed_is_told_with_its_command() {
    let mut world = World::new();
    let (mut admin, cntlid) = Host::admin(&mut world);
    let mut io = Host::io(&mut world, cntlid, 3);
    assert!(entries(&mut admin, &mut world).is_empty());
    assert_eq!(count(&mut admin, &mut world), 0);
    // Refused as it came: 16384 blocks are there.
    let beyond = io.submit_read(read(16384, 1), 512);
    assert_eq!(io.finish(&mut world, beyond).status().code(), 0x080);
    // Refused by the device: not equal.
    let compare = super::commands::compare(5, 1).with_sgl(SglDescriptor::in_capsule(512));
    let unequal = io.submit(compare, &[1; 512]);
    assert_eq!(io.finish(&mut world, unequal).status().code(), 0x285);
    assert_eq!(
        io.run(&mut world, write(5, 1), &[1; 512]).status().code(),
        0
    );
    let unknown = admin.submit(Command::new(0xc1, 7), &[]);
    assert_eq!(admin.finish(&mut world, unknown).status().code(), 0x001);
    let entries = entries(&mut admin, &mut world);
    let told: Vec<_> = entries
        .iter()
        .map(|e| {
            let about = (e.lba.get(), e.nsid.get(), e.opcode);
            (
                e.error_count.get(),
                e.sqid.get(),
                e.cid.get(),
                e.status_field.get(),
                about,
            )
        })
        .collect();
    // The status field has Do Not Retry in bit 15 and the code from bit 1.
    let expected = [
        (3, 0, unknown, 0x8002, (0, 7, 0xc1)),
        (2, 3, unequal, 0x850a, (5, 1, 0x05)),
        (1, 3, beyond, 0x8100, (16384, 1, 0x02)),
    ];
    assert_eq!(told, expected);
    assert!(entries.iter().all(|e| (e.trtype, e.version) == (3, 1)));
    assert_eq!(count(&mut admin, &mut world), 3);
    // Another controller has nothing to do with it.
    let mut other = Party::new(&mut world, 2);
    assert_eq!(count(&mut other.admin, &mut world), 0);
}

#[test]
fn health_counts_what_was_moved() {
    let mut world = World::new();
    let (mut admin, cntlid) = Host::admin(&mut world);
    let mut io = Host::io(&mut world, cntlid, 1);
    let mut short_lived = Host::io(&mut world, cntlid, 2);
    for n in 0..63 {
        // 63 times 16 blocks of 512 bytes: 1008, which is more than one unit of 1000.
        let status = io.run(&mut world, write(16 * n, 16), &[1; 8192]).status();
        assert_eq!(status.code(), 0);
    }
    assert_eq!(
        short_lived.fetch(&mut world, read(0, 1), 512).data,
        [1; 512]
    );
    let beyond = io.submit_read(read(16384, 1), 512);
    assert_eq!(io.finish(&mut world, beyond).status().code(), 0x080);
    let (first, second) = halves(0, 1);
    let one = short_lived.submit(first, &[1; 512]);
    let two = short_lived.submit(second, &[2; 512]);
    assert_eq!(short_lived.finish(&mut world, one).status().code(), 0);
    assert_eq!(short_lived.finish(&mut world, two).status().code(), 0);
    drop(short_lived);
    world.pass(Duration::from_secs(5));
    let page = page(&mut admin, &mut world, 0x02, 512);
    let health = Health::read_from_bytes(&page).expect("512 bytes");
    assert_eq!((health.host_reads.get(), health.host_writes.get()), (2, 64));
    assert_eq!(health.data_units_read.get(), 1);
    assert_eq!(health.data_units_written.get(), 2);
}

#[test]
fn a_host_whose_commands_all_fail_is_counted_right() {
    let mut world = World::new();
    let mut a = Party::new(&mut world, 1);
    let mut b = Party::new(&mut world, 2);
    assert_eq!(a.register(&mut world, 1), 0);
    let kind = ReservationType::WriteExclusive;
    assert_eq!(a.acquire(&mut world, kind, 1), 0);
    for _ in 0..300 {
        assert_eq!(b.run(&mut world, flush(), &[]), 0x083);
    }
    assert_eq!(b.register(&mut world, 0), 0x002);
    let (first, _) = halves(0, 1);
    let lonely = b.io.submit(first, &[0; 512]);
    assert_eq!(b.run(&mut world, flush(), &[]), 0x083);
    assert_eq!(b.io.finish(&mut world, lonely).status().code(), 0x00a);
    world.pass(Duration::from_secs(1));
    assert_eq!(count(&mut b.admin, &mut world), 303);
    let entries = entries(&mut b.admin, &mut world);
    // Of a burst, the newest are told one by one: two reports at once, the rest together.
    assert!((16..=128).contains(&entries.len()), "{}", entries.len());
    assert_eq!(entries[0].error_count.get(), 303);
    assert_eq!(entries[2].status_field.get(), 0x8004);
    assert_eq!(entries[2].opcode, 0x0d);
    assert_eq!(count(&mut a.admin, &mut world), 0);
}
