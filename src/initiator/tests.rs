//! The queue and the controller against the fake target and against scripted bytes, on virtual
//! time and in memory.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use zerocopy::IntoBytes;

use super::fake::{BLOCK, Disk, FakeServer, FakeTarget, Manner, disk};
use super::trial::{seeds, session};
use super::{
    CommandError, Controller, ControllerError, ControllerSettings, Done, Payload, Queue,
    QueueError, QueueSettings, Socket,
};
use crate::memory::{Arena, BufMut, Pool, SegmentsMut};
use crate::nvme::fabrics::{ConnectData, ConnectParameter, ConnectResult};
use crate::nvme::io::{BlockRange, IoCommand};
use crate::nvme::tcp::digest::crc32c;
use crate::nvme::tcp::{
    C2hData, CapsuleResp, DataAlignment, FatalError, IcResp, PduError, PduFormat, R2t, Sender,
    TermReq,
};
use crate::nvme::{Command, Completion, Nqn, Status};

const PATIENCE: Duration = Duration::from_secs(5);

fn nqn(text: &str) -> Nqn {
    Nqn::new(text).unwrap()
}

fn queue_settings() -> QueueSettings {
    let subsystem = nqn("nqn.2026-11.io.stripewise:test");
    let host = nqn("nqn.2026-11.io.stripewise:host");
    QueueSettings {
        id: 1,
        depth: 8,
        header_digest: false,
        data_digest: false,
        in_capsule: 8192,
        keep_alive: Duration::ZERO,
        patience: PATIENCE,
        identity: Box::new(ConnectData::new([1; 16], 7, &subsystem, &host)),
    }
}

/// Buffers of these sizes, filled with bytes that tell them apart.
fn buffers(sizes: &[usize], fill: u8) -> SegmentsMut {
    let largest = sizes.iter().max().unwrap().next_multiple_of(4096).max(4096);
    let arena = Arena::ordinary(largest * sizes.len()).unwrap();
    let pool = Pool::new(&arena, largest, sizes.len()).unwrap();
    let mut byte = fill;
    let mut buffer = |size: &usize| {
        let mut buffer = pool.take().unwrap();
        buffer.truncate(*size);
        for place in buffer.iter_mut() {
            *place = byte;
            byte = byte.wrapping_mul(5).wrapping_add(3);
        }
        buffer
    };
    sizes.iter().map(&mut buffer).collect()
}

fn outbound(segments: SegmentsMut) -> Payload {
    Payload::Write(segments.into_iter().map(BufMut::freeze).collect())
}

fn bytes_of(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Read(segments) => segments.iter().flat_map(|s| s.to_vec()).collect(),
        Payload::Write(segments) => segments.iter().flat_map(|s| s.to_vec()).collect(),
        Payload::None | Payload::Discard(_) => Vec::new(),
    }
}

fn read_command(slba: u64, blocks: u32) -> Command {
    let range = BlockRange { slba, blocks };
    IoCommand::Read { range, fua: false }.to_command(1)
}

fn write_command(slba: u64, blocks: u32) -> Command {
    let range = BlockRange { slba, blocks };
    IoCommand::Write { range, fua: false }.to_command(1)
}

/// Gives bytes to a queue in one piece.
fn give(
    queue: &mut Queue,
    mut bytes: &[u8],
    done: &mut Vec<Done>,
    now: Instant,
) -> Result<(), QueueError> {
    while !bytes.is_empty() {
        let count = queue.receive(done, now, |slices| {
            let mut count = 0;
            for slice in slices {
                let some = slice.len().min(bytes.len() - count);
                slice[..some].copy_from_slice(&bytes[count..count + some]);
                count += some;
            }
            count
        })?;
        bytes = &bytes[count..];
    }
    Ok(())
}

/// Takes all that a queue wants to send, at most `most` bytes at once.
fn take(queue: &mut Queue, done: &mut Vec<Done>, most: usize) -> Vec<u8> {
    let mut taken = Vec::new();
    while queue.has_output() {
        queue.transmit(done, |slices| {
            let before = taken.len();
            for slice in slices {
                let left = most - (taken.len() - before);
                taken.extend_from_slice(&slice[..slice.len().min(left)]);
            }
            taken.len() - before
        });
    }
    taken
}

/// A queue and the fake target, joined by a pipe that moves at most `chunk` bytes at once.
struct Pair {
    queue: Queue,
    target: FakeTarget,
    chunk: usize,
    now: Instant,
    done: Vec<Done>,
}

impl Pair {
    fn new(settings: QueueSettings, manner: Manner, disk: Disk, chunk: usize) -> Self {
        let now = Instant::now();
        let mut pair = Self {
            queue: Queue::new(settings, now),
            target: FakeTarget::new(manner, disk),
            chunk,
            now,
            done: Vec::new(),
        };
        pair.pump().unwrap();
        assert_eq!(pair.queue.controller(), Some(7));
        pair
    }

    /// Moves bytes until nothing moves any more.
    fn pump(&mut self) -> Result<(), QueueError> {
        loop {
            let out = take(&mut self.queue, &mut self.done, self.chunk);
            for piece in out.chunks(self.chunk) {
                self.target.input(piece);
            }
            let back = self.target.output();
            if out.is_empty() && back.is_empty() {
                return Ok(());
            }
            for piece in back.chunks(self.chunk) {
                give(&mut self.queue, piece, &mut self.done, self.now)?;
            }
        }
    }

    fn submit(&mut self, token: u64, command: &Command, payload: Payload) {
        let taken = self.queue.submit(token, command, payload, self.now);
        assert!(taken.is_ok(), "the queue has room");
    }
}

fn manners() -> impl Strategy<Value = Manner> {
    let sizes = (
        0..=31u8,
        0..=8192u32,
        1024..=40_000u32,
        1..=40_000u32,
        1..=40_000u32,
    );
    let habits = (any::<bool>(), any::<u64>());
    (sizes, habits).prop_map(
        |((alignment, in_capsule, h2c, r2t, c2h), (success, shuffle))| Manner {
            alignment,
            in_capsule: in_capsule / 16 * 16,
            max_h2c_data: h2c * 4,
            r2t,
            c2h,
            success,
            shuffle,
            ..Manner::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a proper target's manners, every write arrives, every read brings what is there,
    /// and every command comes back once, with its payload.
    #[test]
    fn any_proper_target_is_understood(
        manner in manners(),
        digests in any::<(bool, bool)>(),
        chunk in prop::sample::select(vec![11usize, 100, 4096, 1 << 20]),
        commands in prop::collection::vec(
            (any::<bool>(), 0..60u64, 1..4u32, any::<prop::sample::Index>()), 1..25,
        ),
    ) {
        let disk = disk(64);
        let mut settings = queue_settings();
        (settings.header_digest, settings.data_digest) = digests;
        settings.in_capsule = manner.in_capsule;
        let mut pair = Pair::new(settings, manner, disk.clone(), chunk);
        let mut model = vec![0u8; 64 * BLOCK];
        let mut expected = std::collections::BTreeMap::new();
        for (token, (is_write, slba, blocks, cut)) in commands.iter().enumerate() {
            if !pair.queue.has_room() {
                pair.pump().unwrap();
            }
            let bytes = *blocks as usize * BLOCK;
            let cut = cut.index(bytes);
            let place = *slba as usize * BLOCK..*slba as usize * BLOCK + bytes;
            if *is_write {
                // Nothing else in flight: the order of commands is the target's choice.
                pair.pump().unwrap();
                let payload = outbound(buffers(&[cut, bytes - cut], token as u8));
                model[place].copy_from_slice(&bytes_of(&payload));
                pair.submit(token as u64, &write_command(*slba, *blocks), payload);
                pair.pump().unwrap();
                expected.insert(token as u64, None);
            } else {
                let payload = Payload::Read(buffers(&[cut, 0, bytes - cut], 0xee));
                pair.submit(token as u64, &read_command(*slba, *blocks), payload);
                expected.insert(token as u64, Some(model[place].to_vec()));
            }
        }
        pair.pump().unwrap();
        prop_assert_eq!(pair.queue.in_flight(), 0);
        prop_assert_eq!(pair.done.len(), commands.len());
        for done in &pair.done {
            prop_assert!(done.outcome.is_ok(), "{:?}", done.outcome);
            match expected.remove(&done.token) {
                Some(Some(bytes)) => prop_assert!(bytes_of(&done.payload) == bytes),
                Some(None) => prop_assert!(matches!(done.payload, Payload::Write(_))),
                None => prop_assert!(false, "command {} came back twice", done.token),
            }
        }
        prop_assert!(*disk.lock().unwrap() == model);
    }

    /// Whatever bytes a target sends, at whatever stage, nothing panics, and a failed queue gives
    /// every command back.
    #[test]
    fn garbage_ends_in_an_error_at_worst(
        stage in 0..3,
        digests in any::<(bool, bool)>(),
        noise in prop::collection::vec(any::<u8>(), 0..600),
        kind in prop::sample::select(vec![1u8, 3, 5, 7, 9, 200]),
        fields in any::<(u8, u16, u32, u32)>(),
        fix_length in any::<bool>(),
    ) {
        let now = Instant::now();
        let mut done = Vec::new();
        let mut settings = queue_settings();
        (settings.header_digest, settings.data_digest) = digests;
        let mut queue = match stage {
            0 => Queue::new(settings, now),
            _ => Pair::new(settings, Manner::default(), disk(8), 1 << 20).queue,
        };
        let mut owed = 0;
        if stage == 2 {
            let write = outbound(buffers(&[BLOCK * 4], 1));
            let read = Payload::Read(buffers(&[BLOCK], 1));
            prop_assert!(queue.submit(0, &read_command(0, 1), read, now).is_ok());
            prop_assert!(queue.submit(1, &write_command(0, 4), write, now).is_ok());
            prop_assert!(queue.submit(2, &read_command(0, 1), Payload::Discard(4096), now).is_ok());
            owed = 3;
        }
        take(&mut queue, &mut done, usize::MAX);
        // A header with plausible beginnings, then noise.
        let (flags, id, offset, len) = fields;
        let mut bytes = vec![kind, flags, 24, 24];
        bytes.extend_from_slice(&if fix_length { 24 } else { len }.to_le_bytes());
        bytes.extend_from_slice(&(id % 4).to_le_bytes());
        bytes.extend_from_slice(&id.to_le_bytes());
        bytes.extend_from_slice(&(offset % 8192).to_le_bytes());
        bytes.extend_from_slice(&(len % 8192).to_le_bytes());
        bytes.extend_from_slice(&noise);
        let result = give(&mut queue, &bytes, &mut done, now);
        prop_assert_eq!(result.is_err(), queue.error().is_some());
        take(&mut queue, &mut done, usize::MAX);
        queue.abandon(&mut done);
        prop_assert_eq!(done.len(), owed);
        prop_assert_eq!(queue.in_flight(), 0);
    }
}

proptest! {
    /// Whatever a target does, and in whatever order. `scripts/fuzz session` looks further.
    #[test]
    fn any_session_is_as_its_model_says(
        [piece, flags] in any::<[u8; 2]>(),
        choices in prop::collection::vec(any::<u8>(), 0..400),
    ) {
        session(&[&[piece, flags][..], &choices].concat());
        // The same of a queue that is connected: the target listens, greets with the digests that
        // are wanted, listens and admits the host.
        let connected = [12, 255, 255, 4, 0, flags & 3, 12, 255, 255, 5, 0];
        session(&[&[piece, flags][..], &connected, &choices].concat());
    }
}

#[test]
fn kept_sessions_are_as_their_model_says() {
    for seed in seeds("session") {
        session(&seed);
    }
}

/// A connected queue whose target is the test itself.
struct Script {
    queue: Queue,
    done: Vec<Done>,
    now: Instant,
    format: PduFormat,
}

impl Script {
    fn new(change: impl FnOnce(&mut QueueSettings)) -> Self {
        let mut settings = queue_settings();
        change(&mut settings);
        let format = PduFormat {
            header_digest: settings.header_digest,
            data_digest: settings.data_digest,
            ..PduFormat::default()
        };
        let pair = Pair::new(settings, Manner::default(), disk(8), 1 << 20);
        Self {
            queue: pair.queue,
            done: Vec::new(),
            now: pair.now,
            format,
        }
    }

    fn read(&mut self, token: u64) {
        let payload = Payload::Read(buffers(&[BLOCK], 0));
        let command = read_command(0, 1);
        assert!(
            self.queue
                .submit(token, &command, payload, self.now)
                .is_ok()
        );
        take(&mut self.queue, &mut self.done, usize::MAX);
    }

    /// A write too large for a capsule.
    fn write(&mut self, token: u64) {
        let payload = outbound(buffers(&[4 * BLOCK], 0));
        let command = write_command(0, 4);
        assert!(
            self.queue
                .submit(token, &command, payload, self.now)
                .is_ok()
        );
        take(&mut self.queue, &mut self.done, usize::MAX);
    }

    fn give(&mut self, bytes: &[u8]) -> Result<(), QueueError> {
        give(&mut self.queue, bytes, &mut self.done, self.now)
    }

    fn answer(&mut self, cid: u16, status: Status) -> Result<(), QueueError> {
        let completion = Completion::new(cid, status);
        let capsule = CapsuleResp { completion }.encode(&self.format);
        self.give(&capsule)
    }

    fn data(&mut self, cid: u16, offset: u32, bytes: &[u8], success: bool) -> Vec<u8> {
        let header = C2hData {
            cccid: cid,
            offset,
            len: bytes.len() as u32,
            last: success,
            success,
        };
        let mut pdu = header.encode(&self.format).to_vec();
        pdu.extend_from_slice(bytes);
        if self.format.data_digest {
            pdu.extend_from_slice(&crc32c(bytes).to_le_bytes());
        }
        pdu
    }

    fn ask(&mut self, cid: u16, offset: u32, len: u32) -> Result<(), QueueError> {
        let request = R2t {
            cccid: cid,
            ttag: 9,
            offset,
            len,
        };
        self.give(&request.encode(&self.format))
    }

    /// What the queue sends as its last word: fatal error status and information.
    fn last_word(&mut self) -> (u16, u32) {
        let bytes = take(&mut self.queue, &mut self.done, usize::MAX);
        assert_eq!(bytes[..3], [2, 0, 24], "H2CTermReq expected");
        let fes = u16::from_le_bytes([bytes[8], bytes[9]]);
        let fei = u32::from_le_bytes([bytes[10], bytes[11], bytes[12], bytes[13]]);
        (fes, fei)
    }

    fn breach(result: Result<(), QueueError>) -> FatalError {
        match result {
            Err(QueueError::Breach { reason, .. }) => reason,
            other => panic!("a breach expected, not {other:?}"),
        }
    }
}

// Slots are handed out from 0 up; the Connect of the queue had slot 0, which is warm again.

#[test]
fn an_answer_to_nothing_is_a_breach() {
    let mut script = Script::new(|_| {});
    let result = script.answer(3, Status::SUCCESS);
    let reason = FatalError::InvalidHeaderField { offset: 20 };
    assert_eq!(Script::breach(result), reason);
    assert_eq!(script.last_word(), (1, 20));
    assert!(!script.queue.has_room());
}

#[test]
fn an_error_status_comes_back_with_its_command() {
    let mut script = Script::new(|_| {});
    script.read(42);
    script.answer(0, Status::UNRECOVERED_READ_ERROR).unwrap();
    assert_eq!(script.done[0].token, 42);
    let expected = CommandError::Status(Status::UNRECOVERED_READ_ERROR);
    assert_eq!(script.done[0].outcome, Err(expected));
    assert_eq!(script.queue.controller(), Some(7));
}

#[test]
fn success_without_all_data_is_an_error_of_the_command() {
    let mut script = Script::new(|_| {});
    script.read(1);
    script.write(2);
    let half = script.data(0, 0, &[5; 2048], true);
    script.give(&half).unwrap();
    script.answer(1, Status::SUCCESS).unwrap();
    let outcomes: Vec<_> = script.done.iter().map(|d| d.outcome.clone()).collect();
    let short = |moved, wanted| Err(CommandError::Short { moved, wanted });
    assert_eq!(outcomes, [short(2048, 4096), short(0, 16_384)]);
    assert!(script.queue.error().is_none());
}

#[test]
fn data_out_of_order_or_range_is_a_breach() {
    for (offset, len) in [(4, 8), (0, 4100), (4096, 4)] {
        let mut script = Script::new(|_| {});
        script.read(1);
        let pdu = script.data(0, offset, &vec![0; len], false);
        let result = script.give(&pdu);
        assert_eq!(Script::breach(result), FatalError::DataOutOfRange);
        assert_eq!(script.last_word(), (4, 0));
    }
}

#[test]
fn data_for_a_write_or_for_nothing_is_a_breach() {
    let mut script = Script::new(|_| {});
    script.write(1);
    let pdu = script.data(0, 0, &[0; 16], false);
    let result = script.give(&pdu);
    let reason = FatalError::InvalidHeaderField { offset: 8 };
    assert_eq!(Script::breach(result), reason);
}

/// Bytes that a queue would receive at once.
fn room(queue: &mut Queue, now: Instant) -> usize {
    let mut room = 0;
    let mut look = |slices: &mut [std::io::IoSliceMut<'_>]| {
        room = slices.iter().map(|s| s.len()).sum();
        0
    };
    queue.receive(&mut Vec::new(), now, &mut look).unwrap();
    room
}

/// Large data that is kept is received straight to its place, and little behind it. What is thrown away need
/// not be received at all, but where it is checked: then there is as much room for it, though it has no place.
#[test]
fn much_is_received_at_once_whether_it_is_kept_or_not() {
    let len = 128 << 10;
    for (kept, checked) in [(true, false), (false, true), (false, false), (true, true)] {
        let mut script = Script::new(|s| s.data_digest = checked);
        let payload = match kept {
            true => Payload::Read(buffers(&[len], 0)),
            false => Payload::Discard(len as u32),
        };
        let command = read_command(0, (len / BLOCK) as u32);
        let submitted = script.queue.submit(1, &command, payload, script.now);
        assert!(submitted.is_ok());
        let pdu = script.data(0, 0, &vec![7; len], true);
        script.give(&pdu[..24]).unwrap();
        let room = room(&mut script.queue, script.now);
        if kept || checked {
            assert_eq!(script.queue.unseen(), 0, "kept {kept}, checked {checked}");
            assert!(room >= len, "kept {kept}: room for {room} bytes");
            assert!(!kept || room <= len + 4096, "room for {room} bytes");
            continue;
        }
        assert_eq!((script.queue.unseen(), room), (len, 4096));
        let before = script.done.len();
        script.queue.skipped(&vec![0; 100_000], &mut script.done);
        assert_eq!(script.queue.unseen(), len - 100_000);
        // The rest may be received, too.
        script.give(&pdu[24 + 100_000..][..72]).unwrap();
        assert_eq!(script.queue.unseen(), len - 100_072);
        script
            .queue
            .skipped(&vec![0; len - 100_072], &mut script.done);
        assert_eq!(script.done.len(), before + 1);
        assert!(script.done[before].outcome.is_ok());
        assert_eq!(script.queue.unseen(), 0);
    }
}

#[test]
fn damaged_data_fails_its_command_and_nothing_else() {
    let mut script = Script::new(|s| s.data_digest = true);
    script.read(1);
    script.read(2);
    let mut damaged = script.data(0, 0, &[5; 4096], true);
    damaged[100] ^= 1;
    script.give(&damaged).unwrap();
    let good = script.data(1, 0, &[6; 4096], true);
    script.give(&good).unwrap();
    assert_eq!(script.done[0].outcome, Err(CommandError::DataDigest));
    assert!(script.done[1].outcome.is_ok());
    assert_eq!(bytes_of(&script.done[1].payload), [6; 4096]);
}

#[test]
fn a_damaged_header_ends_the_queue() {
    let mut script = Script::new(|s| s.header_digest = true);
    script.read(1);
    let completion = Completion::new(0, Status::SUCCESS);
    let mut capsule = CapsuleResp { completion }.encode(&script.format).to_vec();
    capsule[9] ^= 1;
    let result = script.give(&capsule);
    assert!(
        matches!(result, Err(QueueError::Pdu(PduError::HeaderDigest { .. }))),
        "{result:?}"
    );
    assert_eq!(script.last_word().0, 3);
    script.queue.abandon(&mut script.done);
    assert_eq!(script.done[0].outcome, Err(CommandError::Lost));
}

#[test]
fn requests_for_data_must_be_in_order_and_one_at_a_time() {
    let outside = [(1, 100), (0, 16_385), (16_384, 1)];
    for (offset, len) in outside {
        let mut script = Script::new(|_| {});
        script.write(1);
        let result = script.ask(0, offset, len);
        assert_eq!(Script::breach(result), FatalError::DataOutOfRange);
    }
    let mut script = Script::new(|_| {});
    script.write(1);
    script.ask(0, 0, 8192).unwrap();
    // The first 8192 bytes have not left yet.
    let result = script.ask(0, 8192, 8192);
    assert_eq!(Script::breach(result), FatalError::LimitExceeded);

    let mut script = Script::new(|_| {});
    script.read(1);
    let result = script.ask(0, 0, 4);
    let reason = FatalError::InvalidHeaderField { offset: 8 };
    assert_eq!(Script::breach(result), reason);
}

/// A part of a payload goes to and comes from its own place in it, whatever moves it.
#[test]
fn a_command_may_move_a_part_of_its_payload() {
    for (in_capsule, pieces) in [(8192, 131_072), (0, 1000)] {
        let manner = Manner {
            in_capsule,
            r2t: pieces,
            c2h: pieces,
            ..Manner::default()
        };
        let disk = disk(64);
        let mut settings = queue_settings();
        settings.in_capsule = in_capsule;
        settings.data_digest = true;
        let mut pair = Pair::new(settings, manner, disk.clone(), 1 << 20);
        let block = BLOCK as u32;
        let payload = outbound(buffers(&[BLOCK / 2, 2 * BLOCK], 9));
        let expected = bytes_of(&payload);
        let write = write_command(3, 1);
        let part = 1000..1000 + block;
        let taken = pair
            .queue
            .submit_part(1, &write, payload, part.clone(), pair.now);
        assert!(taken.is_ok());
        pair.pump().unwrap();
        assert_eq!(
            disk.lock().unwrap()[3 * BLOCK..4 * BLOCK],
            expected[1000..1000 + BLOCK]
        );

        let payload = Payload::Read(buffers(&[BLOCK / 2, 2 * BLOCK], 77));
        let mut wanted = bytes_of(&payload);
        wanted[1000..1000 + BLOCK].copy_from_slice(&expected[1000..1000 + BLOCK]);
        let read = read_command(3, 1);
        let taken = pair.queue.submit_part(2, &read, payload, part, pair.now);
        assert!(taken.is_ok());
        pair.pump().unwrap();
        let done: Vec<Done> = pair.done.drain(..).collect();
        assert_eq!(done.len(), 2);
        assert!(done.iter().all(|d| d.outcome.is_ok()));
        assert!(bytes_of(&done[1].payload) == wanted);
    }
}

/// Connect is the queue's own command: whatever becomes of it, nobody is told.
#[test]
fn a_queue_that_is_lost_while_it_connects_gives_nothing_back() {
    let now = Instant::now();
    let mut queue = Queue::new(queue_settings(), now);
    let mut done = Vec::new();
    take(&mut queue, &mut done, 1 << 20);
    let greeting = granted(|_| ());
    give(&mut queue, &greeting, &mut done, now).unwrap();
    assert_eq!(queue.in_flight(), 1);
    queue.fail(QueueError::Closed);
    queue.abandon(&mut done);
    assert!(done.is_empty(), "{done:?}");
}

/// A command that waits for something to happen is not overdue, ever.
#[test]
fn a_command_that_is_left_there_is_waited_for() {
    let mut pair = Pair::new(queue_settings(), Manner::default(), disk(1), 1 << 20);
    let event = crate::nvme::admin::AdminCommand::AsyncEventRequest.to_command(0);
    assert!(pair.queue.leave(5, &event).is_ok());
    pair.queue.tick(pair.now + 100 * PATIENCE).unwrap();
    pair.queue.abandon(&mut pair.done);
    assert_eq!(pair.done[0].token, 5);
    assert_eq!(pair.done[0].outcome, Err(CommandError::Lost));
}

#[test]
fn an_early_answer_waits_for_the_data_to_leave() {
    let mut script = Script::new(|_| {});
    script.write(1);
    script.ask(0, 0, 16_384).unwrap();
    script.answer(0, Status::WRITE_FAULT).unwrap();
    assert_eq!(script.done.len(), 0);
    assert_eq!(script.queue.in_flight(), 1);
    let out = take(&mut script.queue, &mut script.done, 5000);
    assert_eq!(out.len(), 24 + 16_384);
    let expected = CommandError::Status(Status::WRITE_FAULT);
    assert_eq!(script.done[0].outcome, Err(expected));
    assert_eq!(script.queue.in_flight(), 0);
}

#[test]
fn a_termination_request_is_told() {
    let mut script = Script::new(|_| {});
    let fault = FatalError::LimitExceeded.encode(Sender::Controller, &[0; 72]);
    let result = script.give(&fault);
    let expected = QueueError::Terminated(TermReq { fes: 5, fei: 0 });
    assert_eq!(result, Err(expected));
    assert!(!script.queue.has_output(), "there is nothing to answer");
}

#[test]
fn silence_ends_the_queue_at_every_stage() {
    let timeout = |queue: &mut Queue, at| match queue.tick(at) {
        Err(QueueError::Timeout { what, .. }) => what,
        other => panic!("a timeout expected, not {other:?}"),
    };
    let now = Instant::now();
    let mut queue = Queue::new(queue_settings(), now);
    assert_eq!(queue.tick(now + PATIENCE), Ok(()));
    let late = now + PATIENCE + Duration::from_millis(1);
    assert_eq!(timeout(&mut queue, late), "the greeting");

    let mut queue = Queue::new(queue_settings(), now);
    give(&mut queue, &granted(|_| {}), &mut Vec::new(), now).unwrap();
    assert_eq!(timeout(&mut queue, late), "Connect");

    let mut script = Script::new(|_| {});
    script.read(1);
    let late = script.now + PATIENCE;
    assert_eq!(script.queue.tick(late), Ok(()));
    let late = late + Duration::from_millis(51);
    assert_eq!(timeout(&mut script.queue, late), "command 0");
}

fn granted(change: impl FnOnce(&mut IcResp)) -> Vec<u8> {
    let mut response = IcResp {
        alignment: DataAlignment::default(),
        header_digest: false,
        data_digest: false,
        max_h2c_data: 8192,
    };
    change(&mut response);
    response.encode().to_vec()
}

#[test]
fn a_greeting_must_grant_what_was_asked_and_no_more() {
    let greet = |change: fn(&mut QueueSettings), grant: fn(&mut IcResp)| {
        let now = Instant::now();
        let mut settings = queue_settings();
        change(&mut settings);
        let mut queue = Queue::new(settings, now);
        let request = take(&mut queue, &mut Vec::new(), usize::MAX);
        let digests = request[11];
        let result = give(&mut queue, &granted(grant), &mut Vec::new(), now);
        (digests, result)
    };
    assert_eq!(greet(|_| {}, |_| {}), (0, Ok(())));
    let refused = greet(|s| s.header_digest = true, |_| {});
    assert_eq!(refused, (1, Err(QueueError::NoDigest("header"))));
    let refused = greet(|s| s.data_digest = true, |_| {});
    assert_eq!(refused, (2, Err(QueueError::NoDigest("data"))));
    let (_, unasked) = greet(|_| {}, |g| g.data_digest = true);
    assert!(matches!(
        unasked,
        Err(QueueError::Pdu(PduError::Unsupported { .. }))
    ));
    let (_, tiny) = greet(|_| {}, |g| g.max_h2c_data = 4092);
    assert!(matches!(tiny, Err(QueueError::Pdu(PduError::Field { .. }))));
}

#[test]
fn a_refusal_names_the_reason() {
    let connect = |status, result| {
        let now = Instant::now();
        let mut queue = Queue::new(queue_settings(), now);
        let completion = Completion::new(0, status).with_result(result);
        let mut bytes = granted(|_| {});
        bytes.extend_from_slice(&CapsuleResp { completion }.encode(&PduFormat::default()));
        give(&mut queue, &bytes, &mut Vec::new(), now).unwrap_err()
    };
    let status = Status::CONNECT_INVALID_PARAMETERS;
    let refused = connect(status, ConnectParameter::SubsystemNqn.result());
    assert_eq!(
        refused,
        QueueError::Refused {
            queue: 1,
            status,
            parameter: Some(ConnectParameter::SubsystemNqn)
        }
    );
    assert!(refused.to_string().ends_with("because of SUBNQN"));
    let result = ConnectResult {
        cntlid: 1,
        authentication_required: true,
        secure_channel_required: false,
    };
    assert_eq!(
        connect(Status::SUCCESS, result.dword()),
        QueueError::Authentication
    );
}

#[test]
fn a_full_queue_gives_the_payload_back() {
    let mut script = Script::new(|s| s.depth = 2);
    script.read(1);
    script.read(2);
    assert!(!script.queue.has_room());
    let payload = outbound(buffers(&[BLOCK], 77));
    let before = bytes_of(&payload);
    let refused = script
        .queue
        .submit(3, &write_command(0, 1), payload, script.now);
    assert_eq!(bytes_of(&refused.unwrap_err()), before);
}

// The controller.

fn controller_settings() -> ControllerSettings {
    ControllerSettings {
        subsystem: nqn("nqn.2026-11.io.stripewise:test"),
        host: nqn("nqn.2026-11.io.stripewise:host"),
        host_id: [1; 16],
        header_digest: true,
        data_digest: true,
        keep_alive: Duration::from_secs(10),
        patience: PATIENCE,
        io_queues: 4,
        namespace: Some(1),
        events: false,
    }
}

/// A controller and the fake target, on virtual time.
struct Bench {
    controller: Controller,
    target: FakeTarget,
    now: Instant,
}

impl Bench {
    fn new(settings: ControllerSettings, manner: Manner) -> Self {
        let now = Instant::now();
        Self {
            controller: Controller::new(settings, now).unwrap(),
            target: FakeTarget::new(manner, disk(64)),
            now,
        }
    }

    /// One exchange, then `step` passes.
    fn turn(&mut self, step: Duration) -> Result<(), ControllerError> {
        let mut done = Vec::new();
        let queue = self.controller.queue_mut();
        let out = take(queue, &mut done, usize::MAX);
        self.target.input(&out);
        give(queue, &self.target.output(), &mut done, self.now)?;
        self.controller.advance(&mut done, self.now)?;
        self.now += step;
        Ok(())
    }

    fn bring_up(&mut self) -> Result<(), ControllerError> {
        for _ in 0..2000 {
            if self.controller.facts().is_some() {
                return Ok(());
            }
            self.turn(Duration::from_millis(5))?;
        }
        panic!("neither ready nor failed");
    }
}

#[test]
fn bring_up_learns_the_facts() {
    let mut bench = Bench::new(controller_settings(), Manner::default());
    bench.bring_up().unwrap();
    let facts = bench.controller.facts().unwrap();
    assert_eq!((facts.id, facts.io_queues), (7, 4));
    assert_eq!(facts.max_transfer(), Some(131_072));
    assert_eq!(facts.namespaces.len(), 1);
    let namespace = &facts.namespaces[0];
    assert_eq!(
        (namespace.id, namespace.blocks, namespace.block_size),
        (1, 64, 4096)
    );
    assert_eq!(bench.controller.max_depth(), Some(127));
    let deep = bench.controller.io_queue(1, 128, bench.now).unwrap_err();
    let (depth, most) = (128, 127);
    assert_eq!(deep, ControllerError::TooDeep { depth, most });
    assert!(bench.controller.io_queue(1, 127, bench.now).is_ok());
}

#[test]
fn all_active_namespaces_are_identified_where_none_is_named() {
    let mut settings = controller_settings();
    settings.namespace = None;
    let mut bench = Bench::new(settings, Manner::default());
    bench.bring_up().unwrap();
    let facts = bench.controller.facts().unwrap();
    let ids: Vec<u32> = facts.namespaces.iter().map(|n| n.id).collect();
    assert_eq!(ids, [1, 3]);
}

#[test]
fn a_missing_namespace_is_told() {
    let mut settings = controller_settings();
    settings.namespace = Some(9);
    let mut bench = Bench::new(settings, Manner::default());
    assert_eq!(bench.bring_up(), Err(ControllerError::NoNamespace(9)));
}

#[test]
fn a_controller_that_never_gets_ready_is_given_up() {
    let manner = Manner {
        looks: u32::MAX,
        ..Manner::default()
    };
    let mut bench = Bench::new(controller_settings(), manner);
    // CAP.TO of the fake is 10, in units of half a second.
    let patience = Duration::from_secs(5);
    assert_eq!(bench.bring_up(), Err(ControllerError::NotReady(patience)));
}

#[test]
fn keep_alives_are_sent_twice_in_the_time_that_the_controller_waits() {
    let mut bench = Bench::new(controller_settings(), Manner::default());
    bench.bring_up().unwrap();
    let before = bench.target.executed;
    // 60 seconds with a keep-alive every 5: sent on the first turn at or behind each.
    for _ in 0..600 {
        bench.turn(Duration::from_millis(100)).unwrap();
    }
    let sent = bench.target.executed - before;
    assert!((11..=12).contains(&sent), "{sent}");
}

#[test]
fn shut_down_is_answered() {
    let mut bench = Bench::new(controller_settings(), Manner::default());
    bench.bring_up().unwrap();
    bench.controller.shut_down(bench.now);
    for _ in 0..3 {
        bench.turn(Duration::from_millis(1)).unwrap();
    }
    assert!(bench.controller.is_shut_down());
}

#[test]
fn connect_data_has_the_size_of_the_specification() {
    assert_eq!(queue_settings().identity.as_bytes().len(), 1024);
}

// The socket.

/// Turns until `ready`, or for as long as a test may take.
fn turn_until(
    socket: &mut Socket,
    queue: &mut Queue,
    done: &mut Vec<Done>,
    mut ready: impl FnMut(&Queue, &Vec<Done>) -> bool,
) -> Result<(), QueueError> {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !ready(queue, done) {
        let now = Instant::now();
        assert!(now < deadline, "nothing happens");
        if !socket.turn(queue, done, now)? {
            std::thread::yield_now();
        }
    }
    Ok(())
}

#[test]
fn a_socket_carries_a_queue_until_the_target_dies() {
    let disk = disk(64);
    let server = FakeServer::start(Manner::default(), disk.clone());
    let mut socket = Socket::connect(server.address).unwrap();
    let mut queue = Queue::new(queue_settings(), Instant::now());
    let mut done = Vec::new();
    let live = |queue: &Queue, _: &Vec<Done>| queue.controller().is_some();
    turn_until(&mut socket, &mut queue, &mut done, live).unwrap();

    // Larger than what goes straight to the buffers.
    let payload = outbound(buffers(&[16 * BLOCK], 3));
    let bytes = bytes_of(&payload);
    let now = Instant::now();
    assert!(queue.submit(1, &write_command(8, 16), payload, now).is_ok());
    turn_until(&mut socket, &mut queue, &mut done, |_, done| {
        done.len() == 1
    })
    .unwrap();
    assert!(disk.lock().unwrap()[8 * BLOCK..24 * BLOCK] == bytes);
    let payload = Payload::Read(buffers(&[10 * BLOCK, 6 * BLOCK], 0));
    assert!(queue.submit(2, &read_command(8, 16), payload, now).is_ok());
    turn_until(&mut socket, &mut queue, &mut done, |_, done| {
        done.len() == 2
    })
    .unwrap();
    assert!(bytes_of(&done[1].payload) == bytes);

    server.die_after(1);
    let payload = Payload::Read(buffers(&[BLOCK], 0));
    assert!(queue.submit(3, &read_command(0, 1), payload, now).is_ok());
    let lost = turn_until(&mut socket, &mut queue, &mut done, |_, _| false).unwrap_err();
    assert!(
        matches!(lost, QueueError::Closed | QueueError::Io(_)),
        "{lost:?}"
    );
}

#[test]
fn a_port_without_a_target_is_an_error() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut queue = Queue::new(queue_settings(), Instant::now());
    let refused = match Socket::connect(address) {
        Err(error) => error.kind(),
        Ok(mut socket) => {
            let turned = turn_until(&mut socket, &mut queue, &mut Vec::new(), |_, _| false);
            match turned {
                Err(QueueError::Io(kind)) => kind,
                other => panic!("{other:?}"),
            }
        }
    };
    assert_eq!(refused, std::io::ErrorKind::ConnectionRefused);
}
