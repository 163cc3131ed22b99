//! Controllers that are reset or pulled out, media that are bad or slow.

use std::time::{Duration, Instant};

use stripewise::bdev::nvme::pcie::Options;
use stripewise::memory::{Pool, Segments, SegmentsMut};

use super::conformance::User;
use super::machine::{Drive, Machine, PATIENCE, finish, only};
use super::{Data, Op, Request, Status};

fn write(token: u64, pool: &Pool, lba: u64) -> Request {
    let mut buffer = pool.take().unwrap();
    buffer.truncate(4096);
    buffer.fill(token as u8);
    Request {
        token,
        op: Op::Write { fua: false },
        lba,
        blocks: 8,
        data: Data::Write(Segments::from_iter([buffer.freeze()])),
    }
}

fn read(token: u64, pool: &Pool, lba: u64) -> Request {
    let mut buffer = pool.take().unwrap();
    buffer.truncate(4096);
    Request {
        token,
        op: Op::Read,
        lba,
        blocks: 8,
        data: Data::Read(SegmentsMut::from_iter([buffer])),
    }
}

#[test]
fn resets_in_the_middle_of_io_lose_nothing() {
    let machine = Machine::start(&[Drive::default()]);
    let controller = machine.attach(0, Options::new("Nvme0"));
    let bdev = only(&controller);
    let mut channel = bdev.open().unwrap();
    let pool = machine.pool();
    std::thread::scope(|scope| {
        let resets = scope.spawn(|| (0..5).try_for_each(|_| controller.reset()));
        let (mut sent, mut done) = (0, Vec::new());
        let start = Instant::now();
        while sent < 500 || !resets.is_finished() || channel.in_flight() > 0 {
            assert!(start.elapsed() < PATIENCE, "{channel:?}");
            while channel.in_flight() < 64 && (sent < 500 || !resets.is_finished()) {
                channel.submit(write(sent, &pool, sent % 1000 * 8)).unwrap();
                sent += 1;
            }
            channel.kick();
            channel.poll(Instant::now(), &mut done);
            for completion in done.drain(..) {
                assert_eq!(completion.status, Status::Ok);
            }
        }
        resets.join().unwrap().unwrap();
        // The newest write of each place.
        let mut user = User::new(&*bdev, &pool);
        for token in sent.saturating_sub(1000)..sent {
            let bytes = user.read(token % 1000 * 8, 8).unwrap();
            assert!(
                bytes.iter().all(|&b| b == token as u8),
                "write {token} of {sent}"
            );
        }
    });
}

#[test]
fn a_controller_that_is_pulled_out_in_the_middle_of_io_ends_all_of_it() {
    let slow = Drive {
        image: ",throttling.iops-total=20".to_owned(),
        ..Drive::default()
    };
    let mut machine = Machine::start(&[slow, Drive::default()]);
    let controller = machine.attach(0, Options::new("Nvme0"));
    let other = machine.attach(1, Options::new("Nvme1"));
    assert!(machine.has(0));
    let mut channel = only(&controller).open().unwrap();
    let pool = machine.pool();
    for token in 0..100 {
        channel.submit(read(token, &pool, token * 8)).unwrap();
    }
    channel.kick();
    machine.unplug(0);
    assert!(!machine.has(0));
    let done = finish(&mut *channel);
    assert_eq!(done.len(), 100);
    assert!(done.iter().any(|c| c.status == Status::Gone));
    assert!(
        done.iter()
            .all(|c| matches!(c.status, Status::Ok | Status::Gone))
    );
    assert!(controller.failure().is_some());
    assert!(only(&controller).open().is_err());
    drop((done, channel));
    controller.detach();
    // The other one does not care.
    let mut user = User::new(&*only(&other), &pool);
    assert_eq!(user.write(5, &[1; 512]), Status::Ok);
}

#[test]
fn media_errors_are_those_of_their_blocks() {
    let debug = |kind: &str| Drive {
        image: format!(
            ",file.driver=blkdebug,file.inject-error.0.event={kind}_aio,\
             file.inject-error.0.iotype={kind},file.inject-error.0.errno=5,\
             file.inject-error.0.sector=16,file.inject-error.0.once=off"
        ),
        ..Drive::default()
    };
    let machine = Machine::start(&[debug("read"), debug("write")]);
    let pool = machine.pool();
    let reads = machine.attach(0, Options::new("Nvme0"));
    let mut user = User::new(&*only(&reads), &pool);
    assert_eq!(user.write(16, &[3; 512]), Status::Ok);
    assert_eq!(user.read(16, 1), Err(Status::MediumError));
    assert_eq!(user.read(8, 16), Err(Status::MediumError));
    assert!(user.read(15, 1).is_ok() && user.read(17, 1).is_ok());
    let writes = machine.attach(1, Options::new("Nvme1"));
    let mut user = User::new(&*only(&writes), &pool);
    assert_eq!(user.write(16, &[3; 512]), Status::WriteFault);
    assert_eq!(user.write(17, &[3; 512]), Status::Ok);
    assert_eq!(user.read(16, 2).unwrap()[512..], [3; 512]);
}

#[test]
fn a_drive_that_hangs_is_reset_and_given_up_in_time() {
    let slow = Drive {
        image: ",throttling.iops-total=1".to_owned(),
        ..Drive::default()
    };
    let mut machine = Machine::start(&[slow]);
    let options = Options {
        timeout: Duration::from_millis(300),
        ..Options::new("Nvme0")
    };
    let controller = machine.attach(0, options);
    let bdev = only(&controller);
    let mut channel = bdev.open().unwrap();
    let pool = machine.pool();
    for token in 0..16 {
        channel.submit(read(token, &pool, token * 8)).unwrap();
    }
    let done = finish(&mut *channel);
    assert_eq!(done.len(), 16);
    let ends = |status| done.iter().filter(|c| c.status == status).count();
    assert_eq!(ends(Status::Ok) + ends(Status::Gone), 16, "{done:?}");
    // Its drive gets well again, and the controller with it.
    machine.unthrottle(0);
    let mut user = User::new(&*bdev, &pool);
    assert_eq!(user.write(5, &[1; 512]), Status::Ok);
    assert_eq!(controller.failure(), None);
}
