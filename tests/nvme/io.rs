//! Controllers come up, and what is written is what the image holds.

use std::fs;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use serde_json::json;
use stripewise::bdev::nvme::pcie::Options;
use stripewise::memory::{BufMut, Segments, SegmentsMut};

use super::conformance::{User, buffers, conforms};
use super::machine::{Drive, Machine, finish, only};
use super::{Data, Op, Request, Status};

#[test]
fn a_controller_says_what_it_is() {
    let machine = Machine::start(&[Drive::default()]);
    let controller = machine.attach(0, Options::new("Nvme0"));
    let identity = controller.identity();
    assert_eq!(identity.serial, "QT0");
    assert_eq!(identity.model, "QEMU NVMe Ctrl");
    assert_eq!(identity.vendor, 0x1b36);
    assert_eq!(identity.version, 0x0001_0400);
    let bdev = only(&controller);
    let info = bdev.info();
    assert_eq!(
        (info.name.as_str(), info.block_size, info.blocks),
        ("Nvme0n1", 512, 8192)
    );
    assert!(info.write_cache);
    // QEMU's Write Zeroes knows no deallocation (DLFEAT bit 3).
    assert!(!info.deallocates);
    let facts = bdev.driver_specific();
    assert_eq!(facts["nvme"][0]["pci_address"], "0000:00:04.0");
    assert_eq!(facts["nvme"][0]["vs"]["nvme_version"], "1.4");
    // QEMU has Format NVM and Namespace Attachment, and names its subsystem by the serial number.
    let shown = &facts["nvme"][0]["ctrlr_data"];
    assert_eq!(shown["subnqn"], "nqn.2019-08.org.qemu:QT0");
    let oacs = json!({"security": 0, "format": 1, "firmware": 0, "ns_manage": 1});
    assert_eq!(shown["oacs"], oacs);
    assert_eq!(
        facts["nvme"][0]["ns_data"],
        json!({"id": 1, "can_share": false})
    );
    // QEMU's temperature: 50 degrees.
    assert_eq!(controller.health().unwrap().temperature.get(), 323);
    let uuid = info.uuid;
    controller.detach();
    // Again, and it is the same.
    let controller = machine.attach(0, Options::new("Nvme0"));
    assert_eq!(only(&controller).info().uuid, uuid);
}

#[test]
fn conforms_with_512_byte_blocks() {
    let machine = Machine::start(&[Drive::default()]);
    let controller = machine.attach(0, Options::new("Nvme0"));
    conforms(only(&controller), &machine.pool());
}

#[test]
fn conforms_with_4096_byte_blocks() {
    let drive = Drive {
        block_size: 4096,
        bytes: 8 << 20,
        ..Drive::default()
    };
    let machine = Machine::start(&[drive]);
    let controller = machine.attach(0, Options::new("Nvme0"));
    assert_eq!(only(&controller).info().block_size, 4096);
    conforms(only(&controller), &machine.pool());
}

#[test]
fn conforms_with_small_transfers_small_queues_and_foreign_buffers() {
    let drive = Drive {
        controller: ",mdts=1".to_owned(),
        ..Drive::default()
    };
    let machine = Machine::start(&[drive]);
    let options = Options {
        entries: 4,
        shadow_doorbells: false,
        ..Options::new("Nvme0")
    };
    let controller = machine.attach(0, options);
    conforms(only(&controller), &machine.pool());
    let (_arena, foreign) = buffers();
    conforms(only(&controller), &foreign);
}

/// A byte that tells where it is.
fn pattern(at: usize) -> u8 {
    (at ^ (at >> 8) ^ (at >> 16)) as u8
}

#[test]
fn every_size_and_alignment_is_stored_and_read_by_sgls() {
    every_size_and_alignment(true);
}

#[test]
fn every_size_and_alignment_is_stored_and_read_by_prps() {
    every_size_and_alignment(false);
}

fn every_size_and_alignment(sgls: bool) {
    let machine = Machine::start(&[Drive::default()]);
    let options = Options {
        sgls,
        ..Options::new("Nvme0")
    };
    let controller = machine.attach(0, options);
    let bdev = only(&controller);
    let mut channel = bdev.open().unwrap();
    let pool = machine.pool();
    let mut expected = vec![0; 4 << 20];
    let mut seed = 0_usize;
    // Sizes round every power of two, from buffers that begin anywhere in a page, cut anywhere.
    let sizes = (0..7).flat_map(|shift| [(1 << shift) - 1, 1 << shift, (1 << shift) + 1]);
    for blocks in sizes.filter(|&blocks| blocks > 0) {
        for offset in [0, 4, 512, 1, 2048, 4092, 4095] {
            for cut in [None, Some(512), Some(1), Some(4096 - offset)] {
                seed += 1;
                let bytes = blocks * 512;
                let lba = seed * 67 % (8192 - blocks);
                let carve = || -> Vec<BufMut> {
                    let mut buffer = pool.take().unwrap().split_off(offset);
                    buffer.truncate(bytes);
                    let mut rest = pool.take().unwrap();
                    rest.truncate(bytes - buffer.len());
                    let tail = cut
                        .filter(|&cut| cut < buffer.len())
                        .map(|cut| buffer.split_off(cut));
                    [Some(buffer), tail, Some(rest)]
                        .into_iter()
                        .flatten()
                        .collect()
                };
                let mut at = lba * 512;
                let mut segments = Segments::new();
                for mut buffer in carve() {
                    for byte in buffer.iter_mut() {
                        *byte = pattern(at + seed);
                        expected[at] = *byte;
                        at += 1;
                    }
                    segments.push(buffer.freeze());
                }
                let write = Op::Write { fua: false };
                let request = |token, op, data| Request {
                    token,
                    op,
                    lba: lba as u64,
                    blocks: blocks as u32,
                    data,
                };
                let data = Data::Write(segments);
                channel.submit(request(1, write, data)).unwrap();
                assert_eq!(finish(&mut *channel)[0].status, Status::Ok);
                let read = SegmentsMut::from_iter(carve());
                channel
                    .submit(request(2, Op::Read, Data::Read(read)))
                    .unwrap();
                let done = finish(&mut *channel).remove(0);
                assert_eq!(done.status, Status::Ok);
                let Data::Read(read) = done.data else {
                    panic!("{done:?}")
                };
                let read: Vec<u8> = read.iter().flat_map(|buffer| buffer.to_vec()).collect();
                let range = lba * 512..(lba + blocks) * 512;
                assert!(
                    read == expected[range],
                    "{blocks} at {offset}, cut at {cut:?}"
                );
            }
        }
    }
    drop(channel);
    controller.detach();
    assert!(fs::read(machine.image(0)).unwrap() == expected);
    // Many of these transfers no PRPs can tell.
    assert_eq!(machine.sgls() > 100, sgls, "{}", machine.sgls());
}

#[test]
fn queues_wrap_many_times() {
    wrap_queues(false);
}

#[test]
fn queues_wrap_many_times_with_doorbells_in_memory() {
    wrap_queues(true);
}

/// Thousands of writes through a small queue.
fn wrap_queues(shadow_doorbells: bool) {
    let machine = Machine::start(&[Drive::default()]);
    let options = Options {
        entries: 7,
        shadow_doorbells,
        ..Options::new("Nvme0")
    };
    let controller = machine.attach(0, options);
    let mut channel = only(&controller).open().unwrap();
    let pool = machine.pool();
    let mut done = Vec::new();
    let mut expected = vec![0; 8192];
    let mut sent = 0;
    while sent < 3000 || channel.in_flight() > 0 {
        while sent < 3000 && channel.in_flight() < 20 {
            let mut buffer = pool.take().unwrap();
            buffer.truncate(512);
            buffer.fill(sent as u8);
            // Blocks of those in flight are not the same: 3000 is no multiple of 8192.
            let lba = sent * 2731 % 8192;
            expected[lba] = sent as u8;
            let request = Request {
                token: sent as u64,
                op: Op::Write { fua: false },
                lba: lba as u64,
                blocks: 1,
                data: Data::Write(Segments::from_iter([buffer.freeze()])),
            };
            channel.submit(request).unwrap();
            sent += 1;
        }
        channel.kick();
        channel.poll(Instant::now(), &mut done);
        assert!(done.iter().all(|c| c.status == Status::Ok));
        for completion in &mut done {
            completion.data = Data::None;
        }
    }
    let mut tokens: Vec<u64> = done.iter().map(|c| c.token).collect();
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(0..3000));
    drop(channel);
    controller.detach();
    let image = fs::read(machine.image(0)).unwrap();
    for (lba, value) in expected.iter().enumerate() {
        assert_eq!(image[lba * 512], *value, "block {lba}");
    }
}

#[test]
fn four_controllers_work_at_once_each_for_itself() {
    let machine = Arc::new(Machine::start(&vec![Drive::default(); 4]));
    let pool = machine.pool();
    let controllers: Vec<_> = (0..4)
        .map(|index| machine.attach(index, Options::new(&format!("Nvme{index}"))))
        .collect();
    thread::scope(|scope| {
        for (index, controller) in controllers.iter().enumerate() {
            let (bdev, pool) = (only(controller), pool.clone());
            scope.spawn(move || {
                let mut user = User::new(&*bdev, &pool);
                for lba in 0..200 {
                    let bytes = vec![(lba as usize * 4 + index) as u8; 512 * (1 + index)];
                    assert_eq!(user.write(lba * 7, &bytes), Status::Ok);
                    assert_eq!(user.read(lba * 7, 1 + index as u32).unwrap(), bytes);
                }
            });
        }
    });
    for controller in controllers {
        controller.detach();
    }
    for index in 0..4 {
        let image = fs::read(machine.image(index as u8)).unwrap();
        for lba in 0..200 {
            assert_eq!(image[lba * 7 * 512], (lba * 4 + index) as u8);
        }
    }
}

#[test]
fn several_channels_of_one_controller_see_one_device() {
    let machine = Machine::start(&[Drive::default()]);
    let controller = machine.attach(0, Options::new("Nvme0"));
    let bdev = only(&controller);
    let pool = machine.pool();
    thread::scope(|scope| {
        for reactor in 0..4_u64 {
            let (bdev, pool) = (bdev.clone(), pool.clone());
            scope.spawn(move || {
                let mut user = User::new(&*bdev, &pool);
                for turn in 0..100 {
                    let lba = turn * 4 + reactor;
                    assert_eq!(user.write(lba, &[lba as u8; 512]), Status::Ok);
                }
            });
        }
    });
    let mut user = User::new(&*bdev, &pool);
    for lba in 0..400 {
        assert_eq!(user.read(lba, 1).unwrap(), [lba as u8; 512]);
    }
}
