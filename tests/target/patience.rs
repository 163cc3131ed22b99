//! Hosts that stop in the middle: they are waited for, but not for ever, and nobody else waits with
//! them.

use stripewise::nvme::SglDescriptor;
use stripewise::nvme::fabrics::{CNTLID_DYNAMIC, Connect, FabricsCommand};
use stripewise::nvme::tcp::H2cData;
use zerocopy::IntoBytes;

use super::host::{Association, Name, Queue, connect, connect_data, icreq, nvm};
use super::plan::Plan;
use super::process::{Site, Target, wait_for};
use super::witness::{self, Witness};

const BLOCK: u32 = 4096;
const LBA: u64 = witness::BLOCKS;

/// Queues and files as they were.
fn wait_for_counts(target: &Target<'_>, admin: u64, io: u64, files: usize) {
    wait_for("connections to go", || {
        let now = (
            target.stat("current_admin_qpairs"),
            target.stat("current_io_qpairs"),
        );
        (now == (admin, io) && target.open_files() <= files).then_some(())
    });
    wait_for("requests to end", || {
        let left = target.stat("pending_bdev_io") + target.transport_stat("pending_data_buffer");
        (left == 0).then_some(())
    });
}

#[test]
fn half_said_things_are_not_waited_for_without_end() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let plain = icreq(false, false);
    let association = Association::new(site.address(), Name::of(1), plain);
    let mut idle = association.io(9, 8);
    let io = |qid| association.io(qid, 8);
    let files = target.open_files();

    let silent = Queue::dial(site.address());
    let mut half_icreq = Queue::dial(site.address());
    half_icreq.send(&plain.encode()[..64]);
    let mut some_icreq = Queue::dial(site.address());
    some_icreq.send(&plain.encode()[..3]);
    let no_connect = Queue::open(site.address(), &plain);
    let mut half_connect = Queue::open(site.address(), &plain);
    let data = connect_data(&Name::of(2), CNTLID_DYNAMIC);
    let command = FabricsCommand::Connect(connect(0, 32)).to_command();
    let command = command.with_sgl(SglDescriptor::in_capsule(1024));
    let bytes = half_connect.capsule(&command, data.as_bytes());
    half_connect.send(&bytes[..500]);
    let write = nvm::write(LBA, 1).with_sgl(SglDescriptor::in_capsule(BLOCK));
    let mut half_header = io(1);
    let bytes = half_header.capsule(&write, &[0xee; BLOCK as usize]);
    half_header.send(&bytes[..40]);
    let mut half_capsule = io(2);
    half_capsule.send(&bytes[..2000]);
    let no_data = {
        let mut queue = io(3);
        queue.begin_push(nvm::write(LBA, 16), 16 * BLOCK);
        queue
    };
    let half_data = |qid, cut: usize| {
        let mut queue = io(qid);
        let request = queue.begin_push(nvm::write(LBA, 16), 16 * BLOCK);
        let pdu = H2cData {
            cccid: request.cid,
            ttag: request.tag,
            offset: 0,
            len: 2 * BLOCK,
            last: false,
        };
        let bytes = queue.data_pdu(&pdu, &[0xee; 2 * BLOCK as usize]);
        queue.send(&bytes[..bytes.len().min(cut)]);
        queue
    };
    let in_a_piece = half_data(4, 3000);
    let between_pieces = half_data(5, usize::MAX);
    let keep_alive = {
        let mut queue = Queue::open(site.address(), &plain);
        let command = Connect {
            kato_ms: 1000,
            ..connect(0, 32)
        };
        let data = connect_data(&Name::of(3), CNTLID_DYNAMIC);
        assert_eq!(queue.connect(command, &data).status, (0, 0));
        queue
    };

    witness.check("the others have stopped");
    let mut stopped = [
        ("silence after TCP connect", silent),
        ("half an ICReq", half_icreq),
        ("three bytes", some_icreq),
        ("no Connect", no_connect),
        ("half a Connect", half_connect),
        ("half a header", half_header),
        ("half a capsule", half_capsule),
        ("no data after a request for it", no_data),
        ("half a piece of data", in_a_piece),
        ("some of the data", between_pieces),
        ("no keep-alive", keep_alive),
    ];
    for (what, queue) in &mut stopped {
        wait_for(&format!("the end of a connection: {what}"), || {
            queue.has_ended().then_some(())
        });
        witness.check(what);
    }
    assert!(target.transport_stat("connection_faults") >= stopped.len() as u64);
    wait_for_counts(&target, 2, 2, files);

    // Nothing of it was written, and a queue on which nothing happens is not cut off.
    let (response, data) = idle.fetch(nvm::read(LBA, 16), 16 * BLOCK);
    assert_eq!(response.status, (0, 0));
    assert!(data.iter().all(|&byte| byte == 0), "half a write was done");
    witness.finish();
}

#[test]
fn who_does_not_read_holds_up_nobody_else() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let files = target.open_files();
    let slow = Association::new(site.address(), Name::of(1), icreq(false, false));
    let blocks = 256;
    let mut queues: Vec<Queue> = (1..=4).map(|qid| slow.io(qid, 128)).collect();
    for queue in &mut queues {
        for cid in 0..127 {
            let command = nvm::read(LBA, blocks).with_sgl(SglDescriptor::transport(blocks * BLOCK));
            queue.send_command(&command.with_cid(cid), &[]);
        }
    }
    for _ in 0..5 {
        witness.check("others do not read");
    }
    // Somebody who reads as much, but does read.
    let other = Association::new(site.address(), Name::of(2), icreq(false, false));
    let mut io = other.io(1, 8);
    for _ in 0..8 {
        let (response, data) = io.fetch(nvm::read(LBA, blocks), blocks * BLOCK);
        assert_eq!(response.status, (0, 0));
        assert_eq!(data.len(), (blocks * BLOCK) as usize);
    }
    // The admin queue of the slow host isn't behind its I/O.
    let mut admin = slow.admin;
    let (response, _) = admin.run(stripewise::nvme::Command::new(0x18, 0), &[]);
    assert_eq!(response.status, (0, 0), "keep-alive");
    drop((admin, queues, io, other));
    wait_for_counts(&target, 1, 1, files);
    witness.finish();
}
