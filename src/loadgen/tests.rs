//! Whole runs against the fake target, over loopback.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::distribution::Distribution;
use super::fault::FaultKind;
use super::job::{Job, OnDisconnect, Verify};
use super::quantity::{Bytes, BytesRange};
use super::report::Ending;
use super::run::{Event, Run, RunError};
use super::workload::Pattern;
use crate::initiator::fake::{BLOCK, Disk, FakeServer, Manner, disk};
use crate::initiator::{ControllerError, ControllerSettings};
use crate::loadgen::association::AssociationError;
use crate::loadgen::plan::PlanError;
use crate::nvme::{Nqn, Status};

/// What a run that should end by its number of requests may take at most.
const AGES: Duration = Duration::from_secs(600);

fn job(server: &FakeServer, pattern: Pattern) -> Job {
    Job {
        address: server.address,
        controller: ControllerSettings {
            subsystem: Nqn::new("nqn.2026-11.io.stripewise:test").unwrap(),
            host: Nqn::new("nqn.2026-11.io.stripewise:host").unwrap(),
            host_id: [1; 16],
            header_digest: false,
            data_digest: false,
            keep_alive: Duration::from_secs(10),
            patience: Duration::from_secs(30),
            io_queues: 2,
            namespace: Some(1),
            events: false,
        },
        depth: 8,
        pattern,
        read_percent: 50,
        request: BytesRange {
            min: Bytes(4096),
            max: Bytes(16_384),
        },
        offset: None,
        size: None,
        distribution: Distribution::Uniform,
        seed: 1,
        flush_every: 0,
        fua: false,
        rate: None,
        runtime: AGES,
        ramp: Duration::ZERO,
        io_limit: Some(400),
        verify: Verify::Off,
        state: None,
        on_disconnect: OnDisconnect::Stop,
        core: None,
    }
}

fn run_to_end(job: Job) -> (Run, Vec<Event>) {
    let stop = AtomicBool::new(false);
    let mut run = Run::start(job, &stop).unwrap();
    let mut events = Vec::new();
    while run.turn(&stop).unwrap() {
        events.extend(run.events());
    }
    events.extend(run.events());
    (run, events)
}

/// A folder that goes away with the test, and a state file in it.
fn state() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    (folder, path)
}

/// Blocks of a disk that are not zeros.
fn written(disk: &Disk) -> Vec<usize> {
    let disk = disk.lock().unwrap();
    let blocks = disk.chunks_exact(BLOCK).enumerate();
    blocks
        .filter(|(_, block)| block.iter().any(|&byte| byte != 0))
        .map(|(index, _)| index)
        .collect()
}

#[test]
fn every_pattern_makes_the_requests_it_should() {
    use Pattern::{RandRead, RandRw, RandWrite, Read, Rw, Write};
    for pattern in [Read, Write, RandRead, RandWrite, Rw, RandRw] {
        let disk = disk(64);
        let server = FakeServer::start(Manner::default(), disk.clone());
        let (run, events) = run_to_end(job(&server, pattern));
        assert!(events.is_empty(), "{events:?}");
        let report = run.report();
        assert_eq!(report.ending, Ending::Finished);
        let (reads, writes) = (report.tally.read.count(), report.tally.write.count());
        assert_eq!(reads + writes, 400, "{pattern}");
        assert_eq!(reads > 0, pattern.is_mixed() || !pattern.writes());
        assert_eq!(writes > 0, pattern.writes());
        assert_eq!(written(&disk).is_empty(), !pattern.writes());
    }
}

#[test]
fn flushes_are_made_and_not_counted_as_io() {
    let server = FakeServer::start(Manner::default(), disk(64));
    let mut job = job(&server, Pattern::Write);
    job.flush_every = 3;
    let (run, _) = run_to_end(job);
    let tally = run.report().tally;
    assert_eq!((tally.flush.count(), tally.count()), (100, 300));
}

#[test]
fn a_good_target_verifies_in_any_manner() {
    for (digests, manner) in [
        (false, Manner::default()),
        (
            true,
            Manner {
                in_capsule: 0,
                r2t: 5000,
                c2h: 3000,
                success: false,
                shuffle: 7,
                ..Manner::default()
            },
        ),
    ] {
        let disk = disk(48);
        let server = FakeServer::start(manner, disk.clone());
        let mut job = job(&server, Pattern::RandRw);
        job.verify = Verify::All;
        job.controller.header_digest = digests;
        job.controller.data_digest = digests;
        let (run, _) = run_to_end(job);
        let findings = run.report().findings.unwrap();
        assert_eq!(findings.fault_count(), 0);
        assert!(findings.verified >= written(&disk).len() as u64);
    }
}

#[test]
fn a_later_run_finds_what_happened_to_the_blocks_meanwhile() {
    let (_folder, path) = state();
    let disk = disk(32);
    let server = FakeServer::start(Manner::default(), disk.clone());
    let mut first = job(&server, Pattern::Write);
    first.request.max = Bytes(4096);
    first.io_limit = Some(32);
    first.verify = Verify::Reads;
    first.state = Some(path);
    run_to_end(first.clone());
    let old = disk.lock().unwrap().clone();
    run_to_end(first.clone());
    {
        let mut disk = disk.lock().unwrap();
        let block = |index: usize| index * BLOCK..(index + 1) * BLOCK;
        disk[block(3)].fill(0);
        disk[block(5)].copy_from_slice(&old[block(5)]);
        disk.copy_within(block(8), block(7).start);
        disk[block(10)][2048..].copy_from_slice(&old[block(10)][2048..]);
    }
    let mut second = first;
    second.verify = Verify::Only;
    let (run, events) = run_to_end(second);
    let mut faults: Vec<(u64, FaultKind)> = events
        .iter()
        .map(|event| match event {
            Event::Fault(fault) => (fault.lba, fault.kind),
            other => panic!("{other:?}"),
        })
        .collect();
    faults.sort_unstable();
    let expected = [
        (3, FaultKind::Lost),
        (5, FaultKind::Stale),
        (7, FaultKind::Misplaced),
        (10, FaultKind::Torn),
    ];
    assert_eq!(faults, expected);
    let findings = run.report().findings.unwrap();
    assert_eq!((findings.verified, findings.fault_count()), (28, 4));
}

#[test]
fn what_was_acknowledged_before_the_target_died_verifies() {
    let (_folder, path) = state();
    let disk = disk(64);
    let server = FakeServer::start(Manner::default(), disk.clone());
    server.die_after(150);
    let mut first = job(&server, Pattern::RandWrite);
    first.verify = Verify::All;
    first.state = Some(path);
    let (run, events) = run_to_end(first.clone());
    assert_eq!(run.report().ending, Ending::Disconnected);
    assert!(matches!(events[0], Event::Disconnected(_)));
    assert!(run.report().tally.write.count() >= 100);
    drop(run);
    let mut second = first;
    second.verify = Verify::Only;
    let (run, events) = run_to_end(second);
    assert!(events.is_empty(), "{events:?}");
    assert!(run.report().findings.unwrap().verified > 0);
}

#[test]
fn a_run_survives_a_target_that_comes_back() {
    let disk = disk(64);
    let server = FakeServer::start(Manner::default(), disk.clone());
    server.die_after(150);
    let mut job = job(&server, Pattern::RandRw);
    job.verify = Verify::All;
    job.on_disconnect = OnDisconnect::Reconnect(Duration::from_secs(60));
    let (run, events) = run_to_end(job);
    let report = run.report();
    assert_eq!(report.ending, Ending::Finished);
    assert_eq!((report.reconnects, report.tally.failed), (Some(1), 0));
    assert_eq!(report.findings.unwrap().fault_count(), 0);
    assert!(matches!(
        events[..],
        [
            Event::Disconnected(_),
            Event::Reconnected { .. },
            Event::Checking
        ]
    ));
}

#[test]
fn a_run_that_is_killed_leaves_a_state_that_verifies() {
    let (_folder, path) = state();
    let disk = disk(64);
    let server = FakeServer::start(Manner::default(), disk);
    let mut first = job(&server, Pattern::RandWrite);
    first.io_limit = None;
    first.verify = Verify::Reads;
    first.state = Some(path);
    let stop = AtomicBool::new(false);
    let mut run = Run::start(first.clone(), &stop).unwrap();
    while run.progress().ios < 200 {
        assert!(run.turn(&stop).unwrap());
    }
    // Writes are in flight, and nothing is closed in order.
    drop(run);
    let mut second = first;
    second.verify = Verify::Only;
    let (run, events) = run_to_end(second);
    assert!(events.is_empty(), "{events:?}");
    assert!(run.report().findings.unwrap().verified > 0);
}

#[test]
fn failed_requests_are_counted_and_named() {
    let manner = Manner {
        bad_block: Some((9, Status::UNRECOVERED_READ_ERROR)),
        ..Manner::default()
    };
    let server = FakeServer::start(manner, disk(64));
    let mut job = job(&server, Pattern::Read);
    job.request.max = Bytes(4096);
    job.io_limit = Some(64);
    let (run, events) = run_to_end(job);
    let report = run.report();
    assert_eq!((report.tally.failed, report.tally.count()), (1, 63));
    assert!(matches!(events[..], [Event::Failed { lba: 9, .. }]));
}

#[test]
fn an_interrupted_run_ends_in_order() {
    let server = FakeServer::start(Manner::default(), disk(64));
    let mut job = job(&server, Pattern::RandRead);
    job.io_limit = None;
    let stop = AtomicBool::new(false);
    let mut run = Run::start(job, &stop).unwrap();
    while run.progress().ios < 100 {
        assert!(run.turn(&stop).unwrap());
    }
    stop.store(true, Ordering::SeqCst);
    let deadline = Instant::now() + Duration::from_secs(30);
    while run.turn(&stop).unwrap() {
        assert!(Instant::now() < deadline, "it does not stop");
    }
    let report = run.report();
    assert_eq!(report.ending, Ending::Interrupted);
    assert!(report.tally.count() >= 100 && report.tally.failed == 0);
}

#[test]
fn jobs_that_do_not_fit_are_refused_with_the_reason() {
    let (_folder, path) = state();
    let server = FakeServer::start(Manner::default(), disk(64));
    let refused = |change: &dyn Fn(&mut Job)| {
        let mut job = job(&server, Pattern::RandRw);
        change(&mut job);
        Run::start(job, &AtomicBool::new(false)).unwrap_err()
    };
    let sized = |min, max| BytesRange {
        min: Bytes(min),
        max: Bytes(max),
    };
    assert!(matches!(
        refused(&|j| j.request = sized(512, 512)),
        RunError::Plan(PlanError::NotBlocks {
            size: Bytes(512),
            block: 4096
        })
    ));
    assert!(matches!(
        refused(&|j| j.request = sized(4096, 1 << 18)),
        RunError::Plan(PlanError::TooLarge {
            most: Bytes(131_072),
            ..
        })
    ));
    assert!(matches!(
        refused(&|j| j.size = Some(Bytes(65 * 4096))),
        RunError::Plan(PlanError::Region { .. })
    ));
    assert!(matches!(
        refused(&|j| j.offset = Some(Bytes(1 << 40))),
        RunError::Plan(PlanError::Region { .. })
    ));
    assert!(matches!(
        refused(&|j| j.size = Some(Bytes(8192))),
        RunError::Workload(_)
    ));
    assert!(matches!(
        refused(&|j| j.verify = Verify::Only),
        RunError::Plan(PlanError::NoState)
    ));
    assert!(matches!(
        refused(&|j| j.controller.io_queues = 9),
        RunError::Association(AssociationError::Queues {
            granted: 8,
            wanted: 9,
            ..
        })
    ));
    assert!(matches!(
        refused(&|j| j.controller.namespace = Some(2)),
        RunError::Association(AssociationError::Controller {
            source: ControllerError::NoNamespace(2),
            ..
        })
    ));
    assert!(matches!(
        refused(&|j| j.core = Some(100_000)),
        RunError::Core(100_000)
    ));

    // A state file is of one device and one region.
    let mut first = job(&server, Pattern::RandWrite);
    first.verify = Verify::Reads;
    first.state = Some(path);
    first.offset = Some(Bytes(8 * 4096));
    first.size = Some(Bytes(16 * 4096));
    run_to_end(first.clone());
    let mut wider = first.clone();
    wider.size = Some(Bytes(17 * 4096));
    let refused = Run::start(wider, &AtomicBool::new(false)).unwrap_err();
    assert!(matches!(
        refused,
        RunError::Plan(PlanError::StateRegion {
            first: 8,
            end: 24,
            ..
        })
    ));
    let mut unsaid = first;
    (unsaid.offset, unsaid.size) = (None, None);
    let (run, _) = run_to_end(unsaid);
    assert_eq!(run.report().findings.unwrap().fault_count(), 0);
}
