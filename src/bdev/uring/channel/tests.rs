//! Channels that lose their ring, or go away, with I/O in flight that does not come to an end: the
//! medium is a pipe, which is read when somebody writes to it.

use std::fs::File;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use uuid::Uuid;

use super::super::super::Info;
use super::super::super::conformance::buffers;
use super::super::file::Medium;
use super::super::tests::until;
use super::super::{FileApi, zeros};
use super::*;
use crate::memory::SegmentsMut;

const BLOCK: u32 = 512;

/// A channel to the reading end of a pipe, and the writing end.
fn stuck() -> (UringChannel, File) {
    let (reader, writer) = rustix::pipe::pipe().unwrap();
    let info = Info {
        name: "stuck".to_owned(),
        product: "pipe",
        uuid: Uuid::nil(),
        block_size: BLOCK,
        blocks: 1000,
        io_boundary: 0,
        write_unit: 0,
        max_blocks: 1000,
        write_cache: true,
        deallocates: true,
        in_memory: false,
    };
    let shared = Shared {
        medium: Medium::of(File::from(reader), info.bytes()),
        blocks: AtomicU64::new(info.blocks),
        info,
        api: FileApi::Uring,
        block_size_chosen: true,
        path: PathBuf::from("/a/pipe"),
        arenas: Vec::new(),
        zeros: zeros("stuck").unwrap(),
        punches: AtomicBool::new(true),
        zeroes: AtomicBool::new(true),
        unregistered: AtomicBool::new(false),
    };
    let channel = UringChannel::new(Arc::new(shared), &[]).unwrap();
    (channel, File::from(writer))
}

/// Hands in a read of one block, which the kernel takes at the next kick and does not end.
fn submit(channel: &mut UringChannel, pool: &Pool, token: u64) {
    let mut buffer = pool.take().unwrap();
    buffer.truncate(BLOCK as usize);
    let request = Request {
        token,
        op: Op::Read,
        lba: token,
        blocks: 1,
        data: Data::Read(SegmentsMut::from_iter([buffer])),
    };
    channel.submit(request).unwrap();
}

fn poll(channel: &mut UringChannel) -> Vec<Completion> {
    let mut done = Vec::new();
    channel.poll(Instant::now(), &mut done);
    done
}

/// Token and bytes of what is done, all of it as gone.
fn gone(done: &[Completion]) -> Vec<(u64, usize)> {
    assert!(done.iter().all(|c| c.status == Status::Gone), "{done:?}");
    done.iter().map(|c| (c.token, c.data.len())).collect()
}

/// Time for what must not happen.
fn some_time() {
    std::thread::sleep(Duration::from_millis(100));
}

/// The drop comes back although the reads do not, and their buffers come back when the kernel has
/// called them off: what is in the pipe later is not read by them.
#[test]
fn a_dropped_channel_leaves_reads_that_do_not_end() {
    let (_arena, pool) = buffers();
    let (mut channel, mut writer) = stuck();
    let mut reader = File::from(channel.shared.medium.as_fd().try_clone_to_owned().unwrap());
    (0..3).for_each(|token| submit(&mut channel, &pool, token));
    channel.kick();
    assert!(poll(&mut channel).is_empty());
    drop(channel);
    until("every buffer is free", || {
        pool.available() == pool.capacity()
    });
    writer.write_all(&[7; 3 * BLOCK as usize]).unwrap();
    let mut found = [0; 3 * BLOCK as usize];
    reader.read_exact(&mut found).unwrap();
    assert_eq!(found, [7; 3 * BLOCK as usize]);
}

/// The buffers are free when the kernel says that it is done, and not before.
#[test]
fn a_dropped_channel_keeps_its_buffers_from_others_until_the_release() {
    let (_arena, pool) = buffers();
    let (mut channel, _writer) = stuck();
    let (release, hold) = Release::new().unwrap();
    channel.release = release;
    (0..3).for_each(|token| submit(&mut channel, &pool, token));
    channel.kick();
    let shared = Arc::downgrade(&channel.shared);
    let start = Instant::now();
    drop(channel);
    // Whoever waits here waits for ever, or for as long as a disk may take.
    assert!(start.elapsed() < Duration::from_secs(20), "the drop waited");
    some_time();
    assert_eq!(pool.available(), pool.capacity() - 3);
    assert!(shared.upgrade().is_some(), "the zeros may be being written");
    drop(hold);
    until("every buffer is free", || {
        pool.available() == pool.capacity()
    });
    until("the device is closed", || shared.upgrade().is_none());
}

#[test]
fn a_channel_without_its_ring_answers_everything_as_gone() {
    let (_arena, pool) = buffers();
    let (mut channel, _writer) = stuck();
    let log = logged(|| {
        (0..3).for_each(|token| submit(&mut channel, &pool, token));
        channel.kick();
        channel.ring.as_ref().unwrap().sabotage();
        // Not taken by the kernel, as the kernel takes nothing any more.
        submit(&mut channel, &pool, 3);
        channel.kick();
        assert!(channel.ring.is_none());
        submit(&mut channel, &pool, 4);
        channel.kick();
        let mut done = Vec::new();
        until("all is answered", || {
            done.append(&mut poll(&mut channel));
            channel.in_flight() == 0
        });
        let mut gone = gone(&done);
        gone.sort_unstable();
        assert!(gone.into_iter().eq((0..5).map(|token| (token, 512))));
    });
    assert_eq!(pool.available(), pool.capacity());
    let mut errors = 0;
    channel.iostat(&mut |_, stat| errors = stat.num_errors);
    assert_eq!(errors, 5);
    assert_eq!(log.lines().count(), 1, "{log}");
    let parts = ["ERROR", "stuck", "/a/pipe", "not supported"];
    assert!(parts.iter().all(|part| log.contains(part)), "{log}");
}

/// As long as the kernel may write into the buffers of a request, they are not given back; what it
/// never got is answered at once.
#[test]
fn a_channel_without_its_ring_holds_requests_until_the_release() {
    let (_arena, pool) = buffers();
    let (mut channel, _writer) = stuck();
    let (release, hold) = Release::new().unwrap();
    channel.release = release;
    (0..3).for_each(|token| submit(&mut channel, &pool, token));
    channel.kick();
    channel.ring.as_ref().unwrap().sabotage();
    submit(&mut channel, &pool, 3);
    channel.kick();
    some_time();
    assert!(poll(&mut channel).is_empty());
    submit(&mut channel, &pool, 4);
    assert_eq!(gone(&poll(&mut channel)), [(4, 512)]);
    assert_eq!(channel.in_flight(), 4);
    drop(hold);
    assert_eq!(gone(&poll(&mut channel)).len(), 4);
    assert_eq!(channel.in_flight(), 0);
}

/// What `run` logs.
fn logged(run: impl FnOnce()) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    let subscriber = tracing_subscriber::fmt()
        .with_writer(Mutex::new(file.reopen().unwrap()))
        .with_ansi(false)
        .finish();
    tracing::subscriber::with_default(subscriber, run);
    std::fs::read_to_string(file.path()).unwrap()
}
