//! Remote namespaces against a target that is right, one that misbehaves, and one that goes away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::{Phase, Recovery, TcpController, TcpNamespace, TcpOptions, association, discovery};
use crate::bdev::conformance::{User, buffers, conforms};
use crate::bdev::{Bdev, Data, Op, Status};
use crate::initiator::fake::{BLOCK, FakeServer, Manner, Misdeed, disk};
use crate::initiator::trial::seeds;
use crate::nvme::Nqn;
use crate::nvme::identify::IdentifyController;
use crate::nvme::io::{BlockRange, IoCommand};

/// Nothing in these tests takes as long.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a good target can do besides.
const ALL: u16 = IdentifyController::ONCS_WRITE_ZEROES | IdentifyController::ONCS_COMPARE;

fn options() -> TcpOptions {
    TcpOptions {
        subsystem: Nqn::new("nqn.2026-11.io.stripewise:test").unwrap(),
        host: Nqn::new("nqn.2026-11.io.stripewise:host").unwrap(),
        host_id: [1; 16],
        header_digest: false,
        data_digest: false,
        keep_alive: Duration::from_secs(10),
        io_timeout: Duration::from_millis(500),
        admin_timeout: Duration::from_millis(500),
        queue_depth: 32,
        io_queues: 4,
        recovery: Recovery {
            reconnect_delay: Duration::from_millis(20),
            loss_timeout: None,
            fast_io_fail: None,
        },
    }
}

fn manner() -> Manner {
    Manner {
        optional: ALL,
        ..Manner::default()
    }
}

fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Attaches a controller and gives its first namespace.
fn attach(server: &FakeServer, options: TcpOptions) -> (TcpController, Arc<TcpNamespace>) {
    let controller = TcpController::attach("N", options, server.address).unwrap();
    wait_for("the controller to come", || {
        !controller.namespaces().is_empty()
    });
    let namespace = controller.namespaces()[0].clone();
    assert_eq!(namespace.info().name, "Nn1");
    (controller, namespace)
}

proptest! {
    /// Whatever a controller says of itself. `scripts/fuzz association` looks further.
    #[test]
    fn any_controller_is_taken_as_it_can_be_used_or_refused(
        choices in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        association(&choices);
    }

    /// Whatever a discovery service says. `scripts/fuzz discovery` looks further.
    #[test]
    fn any_discovery_page_is_read_to_an_end(
        entries in prop_oneof![0..6u64, any::<u64>().prop_map(|n| n >> (n % 64))],
        bytes in prop::collection::vec(any::<u8>(), 0..6000),
    ) {
        discovery(&bytes);
        // The read at which the page changes, the generation, the number of entries.
        let mut page = vec![entries as u8; 1];
        page.extend([0; 8]);
        page.extend(entries.to_le_bytes());
        page.resize(1 + 1024, 0);
        page.extend(&bytes);
        discovery(&page);
    }
}

#[test]
fn kept_controllers_and_discovery_pages_are_taken_or_refused() {
    seeds("association")
        .iter()
        .for_each(|seed| association(seed));
    seeds("discovery").iter().for_each(|seed| discovery(seed));
}

#[test]
fn conforms_with_a_target_that_can_do_all() {
    let (_arena, pool) = buffers();
    let server = FakeServer::start(manner(), disk(3000));
    let (_controller, namespace) = attach(&server, options());
    conforms(namespace, &pool);
}

#[test]
fn conforms_with_a_target_of_few_talents() {
    let (_arena, pool) = buffers();
    let few = Manner {
        // Zeros have to be written, data is asked for and sent in small pieces, and requests of
        // more than two blocks take several commands.
        optional: 0,
        in_capsule: 0,
        r2t: 4096,
        c2h: 4096,
        mdts: 1,
        shuffle: 7,
        max_queue_entries: 3,
        success: false,
        ..Manner::default()
    };
    let server = FakeServer::start(few, disk(1024));
    let options = TcpOptions {
        header_digest: true,
        data_digest: true,
        ..options()
    };
    let (_controller, namespace) = attach(&server, options);
    assert_eq!(namespace.info().max_blocks, 2);
    conforms(namespace, &pool);
}

#[test]
fn comparing_tells_what_differs() {
    let (_arena, pool) = buffers();
    for (optional, expected) in [
        (ALL, [Status::Ok, Status::Miscompare]),
        (0, [Status::Unsupported; 2]),
    ] {
        let server = FakeServer::start(
            Manner {
                optional,
                ..manner()
            },
            disk(64),
        );
        let (_controller, namespace) = attach(&server, options());
        let mut user = User::new(&*namespace, &pool);
        let written = vec![7; 5 * BLOCK];
        assert_eq!(user.write(3, &written), Status::Ok);
        let data = user.write_data(&written);
        assert_eq!(user.run(Op::Compare, 3, 5, data).0, expected[0]);
        let data = user.write_data(&written);
        assert_eq!(user.run(Op::Compare, 4, 5, data).0, expected[1]);
    }
}

/// Whatever a target does, and at whatever step, the request is done in the end, once.
#[test]
fn a_target_that_misbehaves_once_costs_a_connection_and_no_request() {
    let (_arena, pool) = buffers();
    for misdeed in Misdeed::ALL {
        // From the first command of the bring-up to I/O that is under way.
        for step in [0, 1, 3, 5, 7, 9, 11, 12, 13, 14, 15, 16, 17, 18] {
            let disk = disk(64);
            let server = FakeServer::start(manner(), disk.clone());
            server.misbehave(step, misdeed);
            let options = TcpOptions {
                header_digest: true,
                data_digest: true,
                io_timeout: Duration::from_millis(100),
                admin_timeout: Duration::from_millis(100),
                ..options()
            };
            let (_controller, namespace) = attach(&server, options);
            let mut user = User::new(&*namespace, &pool);
            for round in 0..12u8 {
                let bytes = vec![round + 1; 3 * BLOCK];
                let at = u64::from(round) * 4;
                assert_eq!(user.write(at, &bytes), Status::Ok, "{misdeed:?} at {step}");
                assert!(user.read(at, 3) == Ok(bytes), "{misdeed:?} at {step}");
            }
            assert!(server.has_misbehaved(), "{misdeed:?} at {step}");
            assert_eq!(user.channel.in_flight(), 0);
        }
    }
}

#[test]
fn a_failing_block_is_told_as_such_and_the_queue_goes_on() {
    let (_arena, pool) = buffers();
    let unreadable = crate::nvme::Status::UNRECOVERED_READ_ERROR;
    let server = FakeServer::start(
        Manner {
            bad_block: Some((5, unreadable)),
            ..manner()
        },
        disk(64),
    );
    let (_controller, namespace) = attach(&server, options());
    let mut user = User::new(&*namespace, &pool);
    assert_eq!(user.read(4, 2), Err(Status::MediumError));
    assert_eq!(user.read(6, 2), Ok(vec![0; 2 * BLOCK]));
    assert_eq!(user.iostat("Nn1").num_errors, 1);
}

/// What is to be durable is said to be, in the controller's words; and what a flush came to is heard.
#[test]
fn a_volatile_write_cache_is_flushed_and_written_past_as_asked() {
    let (_arena, pool) = buffers();
    for (write_cache, optional) in [(true, ALL), (true, 0), (false, ALL)] {
        let server_manner = Manner {
            optional,
            write_cache,
            ..manner()
        };
        let heard = server_manner.heard.clone();
        let server = FakeServer::start(server_manner, disk(64));
        let (_controller, namespace) = attach(&server, options());
        assert_eq!(namespace.info().write_cache, write_cache);
        let mut user = User::new(&*namespace, &pool);
        for fua in [false, true] {
            let data = user.write_data(&[7; BLOCK]);
            assert_eq!(user.run(Op::Write { fua }, 3, 1, data).0, Status::Ok);
            let deallocate = false;
            let zeros = Op::WriteZeroes { fua, deallocate };
            assert_eq!(user.run(zeros, 4, 2, Data::None).0, Status::Ok);
        }
        assert_eq!(user.run(Op::Flush, 0, 0, Data::None).0, Status::Ok);
        let range = |slba, blocks| BlockRange { slba, blocks };
        let write = |slba, blocks, fua| IoCommand::Write {
            range: range(slba, blocks),
            fua,
        };
        let zeros = |fua| match optional {
            // Zeros that are written are as durable as they were to be.
            0 => write(4, 2, fua),
            _ => IoCommand::WriteZeroes {
                range: range(4, 2),
                fua,
                deallocate: false,
            },
        };
        let both = |fua| [write(3, 1, fua), zeros(fua)];
        let mut expected = [both(false), both(true)].concat();
        expected.extend(write_cache.then_some(IoCommand::Flush));
        assert_eq!(*heard.lock().unwrap(), expected);
    }
    let failing = Manner {
        write_cache: true,
        flushes: crate::nvme::Status::WRITE_FAULT,
        ..manner()
    };
    let server = FakeServer::start(failing, disk(64));
    let (_controller, namespace) = attach(&server, options());
    let mut user = User::new(&*namespace, &pool);
    let flushed = user.run(Op::Flush, 0, 0, Data::None);
    assert_eq!(flushed.0, Status::WriteFault);
}

#[test]
fn io_waits_for_a_controller_that_is_away_and_fails_when_that_takes_too_long() {
    let (_arena, pool) = buffers();
    let disk = disk(64);
    let server = FakeServer::start(manner(), disk.clone());
    let address = server.address;
    let options = TcpOptions {
        recovery: Recovery {
            reconnect_delay: Duration::from_millis(20),
            loss_timeout: None,
            fast_io_fail: Some(Duration::from_millis(700)),
        },
        ..options()
    };
    let (controller, namespace) = attach(&server, options);
    let mut user = User::new(&*namespace, &pool);
    assert_eq!(user.write(0, &[1; BLOCK]), Status::Ok);

    // It is back in time: the write has waited.
    drop(server);
    let back = std::thread::spawn({
        let disk = disk.clone();
        move || {
            std::thread::sleep(Duration::from_millis(100));
            FakeServer::start_at(address, manner(), disk)
        }
    });
    assert_eq!(user.write(1, &[2; BLOCK]), Status::Ok);
    let server = back.join().unwrap();
    assert!(controller.status().generation >= 2);

    // It is not: the write fails, and so does the next, at once.
    drop(server);
    assert_eq!(user.write(2, &[3; BLOCK]), Status::Gone);
    assert_eq!(controller.phase(), Phase::Failing);
    assert_eq!(user.read(0, 1), Err(Status::Gone));

    // It is welcome all the same.
    let _server = FakeServer::start_at(address, manner(), disk);
    wait_for("the controller to return", || {
        controller.phase() == Phase::Ready
    });
    assert_eq!(user.read(1, 1), Ok(vec![2; BLOCK]));
}

#[test]
fn a_controller_that_stays_away_is_given_up() {
    let (_arena, pool) = buffers();
    let server = FakeServer::start(manner(), disk(64));
    let options = TcpOptions {
        recovery: Recovery {
            reconnect_delay: Duration::from_millis(20),
            loss_timeout: Some(Duration::from_millis(200)),
            fast_io_fail: None,
        },
        ..options()
    };
    let (controller, namespace) = attach(&server, options);
    let mut user = User::new(&*namespace, &pool);
    drop(server);
    assert_eq!(user.write(0, &[1; BLOCK]), Status::Gone);
    assert_eq!(controller.phase(), Phase::Gone);
    assert!(namespace.open().is_err());
}

#[test]
fn another_address_is_used_when_the_first_fails() {
    let (_arena, pool) = buffers();
    let disk = disk(64);
    let first = FakeServer::start(manner(), disk.clone());
    let second = FakeServer::start(manner(), disk.clone());
    let (controller, namespace) = attach(&first, options());
    controller.add_address(second.address);
    wait_for("the address to be known", || {
        controller.status().addresses == [first.address, second.address]
    });
    let mut user = User::new(&*namespace, &pool);
    assert_eq!(user.write(0, &[1; BLOCK]), Status::Ok);
    let address = first.address;
    drop(first);
    assert_eq!(user.read(0, 1), Ok(vec![1; BLOCK]));
    assert_eq!(controller.status().addresses, [second.address, address]);
}

#[test]
fn another_namespace_at_the_same_address_is_not_taken() {
    let (_arena, pool) = buffers();
    let with = |nguid| Manner {
        nguid: [nguid; 16],
        ..manner()
    };
    let server = FakeServer::start(with(1), disk(64));
    let address = server.address;
    let options = TcpOptions {
        recovery: Recovery {
            fast_io_fail: Some(Duration::from_millis(300)),
            ..options().recovery
        },
        ..options()
    };
    let (controller, namespace) = attach(&server, options);
    let mut user = User::new(&*namespace, &pool);
    drop(server);
    let stranger = FakeServer::start_at(address, with(2), disk(64));
    assert_eq!(user.write(0, &[1; BLOCK]), Status::Gone);
    let trouble = controller.status().trouble.unwrap_or_default();
    assert!(trouble.contains("not the one that was there"), "{trouble}");
    drop(stranger);
    let _server = FakeServer::start_at(address, with(1), disk(64));
    wait_for("the right one", || controller.phase() == Phase::Ready);
    assert_eq!(user.write(0, &[1; BLOCK]), Status::Ok);
}

#[test]
fn a_reset_costs_no_request() {
    let (_arena, pool) = buffers();
    let server = FakeServer::start(manner(), disk(64));
    let (controller, namespace) = attach(&server, options());
    let mut user = User::new(&*namespace, &pool);
    for round in 0..5u8 {
        controller.reset();
        assert_eq!(user.write(0, &[round; BLOCK]), Status::Ok);
        assert_eq!(user.read(0, 1), Ok(vec![round; BLOCK]));
    }
    wait_for("the resets", || controller.status().generation > 1);
}

#[test]
fn health_is_asked_for_and_refused_while_it_is_away() {
    let server = FakeServer::start(manner(), disk(64));
    let (controller, _namespace) = attach(&server, options());
    let answer = || {
        let asked = controller.ask_health();
        let mut answer = None;
        wait_for("an answer", || {
            answer = asked.poll();
            answer.is_some()
        });
        answer.unwrap()
    };
    assert_eq!(answer().unwrap().temperature.get(), 300);
    drop(server);
    wait_for("the loss", || controller.phase() == Phase::Away);
    assert!(answer().is_err());
}

#[test]
fn channels_have_queues_of_their_own_as_many_as_are_granted() {
    let (_arena, pool) = buffers();
    let server = FakeServer::start(
        Manner {
            io_queues: 2,
            ..manner()
        },
        disk(64),
    );
    let (_controller, namespace) = attach(&server, options());
    let mut one = User::new(&*namespace, &pool);
    let two = User::new(&*namespace, &pool);
    let refused = namespace.open().unwrap_err().to_string();
    assert!(refused.contains("num_io_queues"), "{refused}");
    drop(two);
    let mut again = User::new(&*namespace, &pool);
    assert_eq!(one.write(0, &[1; BLOCK]), Status::Ok);
    assert_eq!(again.read(0, 1), Ok(vec![1; BLOCK]));
    let flushed = again.run(Op::Flush, 0, 0, Data::None);
    assert_eq!(flushed.0, Status::Ok);
}
