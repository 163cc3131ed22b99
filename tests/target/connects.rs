//! Who may connect, to what, and how often.

use serde_json::json;
use stripewise::nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData};

use super::host::{Association, Name, Queue, connect, connect_data, icreq, nvm};
use super::plan::{NQN, Plan};
use super::process::{Site, Target, wait_for};
use super::witness::Witness;

/// Connect Invalid Parameters.
const INVALID: (u8, u8) = (1, 0x82);

/// Dword 0 of Connect Invalid Parameters: a field of the data rather than of the command.
const IN_DATA: u32 = 1 << 16;

/// A target that admits the witness and hosts 1 and 2.
fn guarded(site: &Site) -> Target<'_> {
    let plan = Plan {
        allow_any_host: false,
        ..Plan::default()
    };
    let target = site.serve(&plan.config(site), "0x1");
    for number in [200, 1, 2] {
        let host = json!({"nqn": NQN, "host": Name::of(number).nqn});
        target.call("nvmf_subsystem_add_host", host);
    }
    target
}

/// What is wrong, the command, its data, the status, and dword 0 where it counts.
type Case<'a> = (&'a str, Connect, ConnectData, (u8, u8), u32);

#[test]
fn refused_connects_say_why() {
    let site = Site::new();
    let target = guarded(&site);
    let witness = Witness::new(&target);
    let plain = icreq(false, false);
    let association = Association::new(site.address(), Name::of(1), plain);
    let admin = connect(0, 32);
    let io = connect(1, 32);
    let own = |cntlid| connect_data(&Name::of(1), cntlid);
    let new = own(CNTLID_DYNAMIC);
    let mine = own(association.cntlid);
    let named = |subnqn: &str| {
        let mut data = new;
        data.subnqn = [0; 256];
        data.subnqn[..subnqn.len()].copy_from_slice(subnqn.as_bytes());
        data
    };
    let edited = |edit: fn(&mut ConnectData)| {
        let mut data = new;
        edit(&mut data);
        data
    };
    let cases: Vec<Case<'_>> = vec![
        (
            "an unknown subsystem",
            admin,
            named("nqn.2026-11.io.stripewise:other"),
            INVALID,
            IN_DATA | 256,
        ),
        (
            "a malformed subsystem",
            admin,
            named("volume"),
            INVALID,
            IN_DATA | 256,
        ),
        (
            "a subsystem that never ends",
            admin,
            edited(|d| d.subnqn = [b'n'; 256]),
            INVALID,
            IN_DATA | 256,
        ),
        (
            "a host without a name",
            admin,
            edited(|d| d.hostnqn = [0; 256]),
            INVALID,
            IN_DATA | 512,
        ),
        (
            "a host that never ends",
            admin,
            edited(|d| d.hostnqn = [b'n'; 256]),
            INVALID,
            IN_DATA | 512,
        ),
        (
            "a host that is not admitted",
            admin,
            connect_data(&Name::of(3), CNTLID_DYNAMIC),
            (1, 0x84),
            0,
        ),
        (
            "record format 1",
            Connect { recfmt: 1, ..admin },
            new,
            (1, 0x80),
            0,
        ),
        (
            "an admin queue of one entry",
            Connect { sqsize: 0, ..admin },
            new,
            INVALID,
            44,
        ),
        (
            "an admin queue of 65536 entries",
            Connect {
                sqsize: 65535,
                ..admin
            },
            new,
            INVALID,
            44,
        ),
        (
            "an admin queue of a given controller",
            admin,
            own(5),
            INVALID,
            IN_DATA | 16,
        ),
        (
            "an I/O queue of one entry",
            Connect { sqsize: 0, ..io },
            mine,
            INVALID,
            44,
        ),
        (
            "an I/O queue of 65536 entries",
            Connect {
                sqsize: 65535,
                ..io
            },
            mine,
            INVALID,
            44,
        ),
        (
            "an I/O queue of no controller",
            io,
            own(0x7fff),
            INVALID,
            IN_DATA | 16,
        ),
        (
            "an I/O queue of any controller",
            io,
            new,
            INVALID,
            IN_DATA | 16,
        ),
        (
            "an I/O queue of another's controller",
            io,
            connect_data(&Name::of(2), association.cntlid),
            INVALID,
            IN_DATA | 512,
        ),
        (
            "an I/O queue of another host identifier",
            io,
            {
                let mut data = mine;
                data.hostid[0] ^= 1;
                data
            },
            INVALID,
            IN_DATA,
        ),
        (
            "an I/O queue beyond the last",
            connect(60_000, 32),
            mine,
            INVALID,
            42,
        ),
    ];
    let mut kept = Queue::open(site.address(), &plain);
    for (what, command, data, status, result) in cases {
        // On a connection of its own, and on one that has been refused before.
        let mut fresh = Queue::open(site.address(), &plain);
        for queue in [&mut fresh, &mut kept] {
            let response = queue.connect(command, &data);
            assert_eq!(response.status, status, "{what}");
            if status == INVALID {
                assert_eq!(response.result, result, "{what}");
            }
            assert!(response.do_not_retry, "{what} may be retried");
        }
        witness.check(what);
    }
    // It can still become a queue.
    let response = kept.connect(io, &mine);
    assert_eq!(response.status, (0, 0));
    let (response, _) = kept.fetch(nvm::read(0, 1), 4096);
    assert_eq!(response.status, (0, 0));

    // Something else before Connect.
    let mut queue = Queue::open(site.address(), &plain);
    let (response, _) = queue.fetch(nvm::read(0, 1), 4096);
    assert_eq!((response.status, response.do_not_retry), ((0, 0x0c), true));
    witness.finish();
}

#[test]
fn an_io_queue_needs_an_enabled_controller() {
    let site = Site::new();
    let _target = guarded(&site);
    let plain = icreq(false, false);
    let mut admin = Queue::open(site.address(), &plain);
    let connected = admin.connect(connect(0, 32), &connect_data(&Name::of(1), CNTLID_DYNAMIC));
    assert_eq!(connected.status, (0, 0));
    let mut io = Queue::open(site.address(), &plain);
    let data = connect_data(&Name::of(1), connected.result as u16);
    assert_eq!(io.connect(connect(1, 32), &data).status, (0, 0x0c));
}

#[test]
fn a_host_that_comes_back_takes_over() {
    let site = Site::new();
    let target = guarded(&site);
    let witness = Witness::new(&target);
    let plain = icreq(false, false);
    let mut first = Association::new(site.address(), Name::of(1), plain);
    let mut first_io = first.io(1, 8);

    // One queue again: a second connection for it.
    let mut again = first.io(1, 8);
    first_io.expect_end();
    assert_eq!(again.fetch(nvm::read(0, 1), 4096).0.status, (0, 0));

    // All of it again.
    let second = Association::new(site.address(), Name::of(1), plain);
    let mut second_io = second.io(1, 8);
    first.admin.expect_end();
    again.expect_end();
    assert_eq!(second_io.fetch(nvm::read(0, 1), 4096).0.status, (0, 0));

    // Another host beside it.
    let other = Association::new(site.address(), Name::of(2), plain);
    assert_ne!(other.cntlid, second.cntlid);
    let mut other_io = other.io(1, 8);
    for io in [&mut other_io, &mut second_io] {
        assert_eq!(io.fetch(nvm::read(0, 1), 4096).0.status, (0, 0));
    }
    let queues = |of: u8| {
        let all = target.call("nvmf_subsystem_get_qpairs", json!({"nqn": NQN}));
        let all = all.as_array().expect("queues").clone();
        all.iter()
            .filter(|q| q["hostnqn"] == Name::of(of).nqn)
            .count()
    };
    assert_eq!((queues(1), queues(2), queues(200)), (2, 2, 2));

    // The admin queue goes, and its I/O queues with it.
    drop(second.admin);
    second_io.expect_end();
    wait_for("the controller to go", || (queues(1) == 0).then_some(()));
    assert_eq!(other_io.fetch(nvm::read(0, 1), 4096).0.status, (0, 0));
    witness.finish();
}

#[test]
fn a_host_that_is_no_longer_admitted_is_cut_off() {
    let site = Site::new();
    let target = guarded(&site);
    let witness = Witness::new(&target);
    let plain = icreq(false, false);
    let mut association = Association::new(site.address(), Name::of(1), plain);
    let mut io = association.io(1, 8);
    let host = json!({"nqn": NQN, "host": Name::of(1).nqn});
    target.call("nvmf_subsystem_remove_host", host.clone());
    io.expect_end();
    association.admin.expect_end();
    let mut queue = Queue::open(site.address(), &plain);
    let data = connect_data(&Name::of(1), CNTLID_DYNAMIC);
    assert_eq!(queue.connect(connect(0, 32), &data).status, (1, 0x84));
    target.call("nvmf_subsystem_add_host", host);
    assert_eq!(queue.connect(connect(0, 32), &data).status, (0, 0));
    witness.finish();
}
