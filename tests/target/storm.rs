//! Thousands of connections.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stripewise::nvme::Nqn;
use stripewise::nvme::fabrics::{CNTLID_DYNAMIC, ConnectData};

use super::host::{Association, Name, Queue, connect, connect_data, icreq, nvm};
use super::plan::Plan;
use super::process::{Site, wait_for};
use super::witness::Witness;

/// Connections that a target takes.
const LIMIT: usize = 4096;

#[test]
fn thousands_of_connects_leave_nothing_behind() {
    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let files = target.open_files();
    let plain = icreq(false, false);
    let storm = || {
        for round in 0..250 {
            drop(Queue::dial(site.address()));
            let mut queue = Queue::dial(site.address());
            queue.send(&plain.encode());
            drop(queue);
            drop(Queue::open(site.address(), &plain));
            let mut queue = Queue::open(site.address(), &plain);
            let data = connect_data(&Name::of(round as u8 % 100), CNTLID_DYNAMIC);
            assert_eq!(queue.connect(connect(0, 32), &data).status, (0, 0));
            drop(queue);
        }
        witness.check("connects by the thousand");
        wait_for("connections to go", || {
            let io = target.stat("current_io_qpairs");
            let admin = target.stat("current_admin_qpairs");
            (target.open_files() <= files && (admin, io) == (1, 1)).then_some(())
        });
    };
    storm();
    // The arena and the RAM disks are touched little by little: they don't count.
    let mappings = target.mappings();
    let large = |first: &String| {
        mappings
            .get(first)
            .is_some_and(|(size, _)| *size >= 8 << 10)
    };
    let resident = || -> u64 {
        let now = target.mappings().into_iter();
        now.filter(|(first, _)| !large(first))
            .map(|(_, (_, kib))| kib)
            .sum()
    };
    let before = resident();
    storm();
    storm();
    let after = resident();
    // A kibibyte for each connection would be 2000.
    assert!(
        after < before + 1024,
        "{before} KiB have become {after} KiB"
    );
    let host = Association::new(site.address(), Name::of(1), plain);
    assert_eq!(host.io(1, 8).fetch(nvm::read(0, 1), 4096).0.status, (0, 0));
    drop(host);
    witness.finish();
}

#[test]
fn connections_beyond_the_limit_are_turned_away() {
    // Ours and those of the target, which inherits the limit.
    let limit = getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, wanted).expect("the limit may be raised to its maximum");
    let most = limit.maximum.unwrap_or(u64::MAX);
    assert!(
        most >= 2 * LIMIT as u64,
        "ulimit -Hn is {most}: too few open files for this test"
    );

    let site = Site::new();
    let target = site.serve(&Plan::default().config(&site), "0x1");
    let witness = Witness::new(&target);
    let files = target.open_files();
    let plain = icreq(false, false);
    let discovery = ConnectData::new(
        [9; 16],
        CNTLID_DYNAMIC,
        &Nqn::discovery(),
        &Nqn::new(&Name::of(1).nqn).expect("a name"),
    );
    // The witness has two connections.
    let mut held = Vec::new();
    for count in 0..LIMIT - 2 {
        let mut queue = Queue::open(site.address(), &plain);
        let response = queue.connect(connect(0, 32), &discovery);
        assert_eq!(response.status, (0, 0), "connection {count}");
        held.push(queue);
    }
    witness.check("all places are taken");
    for _ in 0..50 {
        Queue::dial(site.address()).expect_end();
    }
    witness.check("others are turned away");
    // One goes, one may come.
    drop(held.pop());
    wait_for("a place", || {
        let mut queue = Queue::dial(site.address());
        queue.try_send(&plain.encode()).ok()?;
        queue.try_receive().ok()?
    });
    drop(held);
    wait_for("connections to go", || {
        (target.open_files() <= files).then_some(())
    });
    let host = Association::new(site.address(), Name::of(1), plain);
    assert_eq!(host.io(1, 8).fetch(nvm::read(0, 1), 4096).0.status, (0, 0));
    witness.finish();
}
