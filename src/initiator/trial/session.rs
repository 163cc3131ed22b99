//! One queue pair against a target that does what it likes, held to a model of what may come of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::initiator::queue::Stage;
use crate::initiator::{CommandError, Done, Payload, Queue, QueueError, QueueSettings};
use crate::memory::{Arena, BufMut, Pool};
use crate::nvme::fabrics::ConnectData;
use crate::nvme::tcp::digest::crc32c;
use crate::nvme::tcp::{
    C2hData, CapsuleResp, DataAlignment, Decoder, Event, FatalError, FromHost, HostPdu, IcReq,
    IcResp, PduFormat, R2t, Rules, Sender, Wanted,
};
use crate::nvme::{Command, Completion, Nqn, Sgl, Status};

use super::Choices;

/// Bytes of a buffer, and buffers of all commands together.
const BUFFER: usize = 4096;
const BUFFERS: usize = 64;

/// Bytes of a capsule's data, and most bytes of one H2CData.
const IN_CAPSULE: u32 = 512;

const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    static POOL: Pool = {
        let arena = Arena::ordinary(BUFFER * BUFFERS).expect("memory");
        Pool::new(&arena, BUFFER, BUFFERS).expect("a pool of all of it")
    };
}

/// What came of a command, in what can be compared: token, outcome, the bytes it read.
type Seen = (u64, Result<(), CommandError>, Vec<u8>);

/// Plays a session. The same is played again with the target's bytes cut into pieces of another
/// length: nothing else may come of it.
///
/// # Panics
/// Where the queue does what it must not.
pub fn session(input: &[u8]) {
    let mut choices = Choices::new(input);
    let piece = usize::from(choices.u8()) + 1;
    let whole = Trial::play(choices.clone(), usize::MAX);
    let cut = Trial::play(choices, piece);
    assert_eq!(whole, cut, "pieces of {piece} bytes");
}

/// A command, as the target sees it.
#[derive(Debug)]
struct Owed {
    /// Data to the controller: what it is. Empty for others.
    outbound: Vec<u8>,
    /// Data from the controller: how much is wanted, and what was sent so far.
    wanted: usize,
    inbound: Vec<u8>,
    /// Whether the data is kept, and not thrown away.
    kept: bool,
    /// Bytes of `outbound` that were carried in the capsule or asked for.
    asked: usize,
    /// A piece of `inbound` had another digest.
    damaged: bool,
    /// What the command must come to, once it is answered.
    due: Option<Result<(), CommandError>>,
}

/// An R2T whose data is not all there.
#[derive(Debug)]
struct Open {
    token: u64,
    tag: u16,
    next: u32,
    end: u32,
}

struct Trial<'c> {
    choices: Choices<'c>,
    piece: usize,
    queue: Queue,
    now: Instant,
    done: Vec<Done>,
    seen: Vec<Seen>,
    /// Commands in flight, by token.
    owed: BTreeMap<u64, Owed>,
    tokens: u64,
    /// What the host sends, as a target understands it.
    host: Decoder<FromHost>,
    request: Option<IcReq>,
    format: PduFormat,
    receiving: Option<HostPdu>,
    payload: Vec<u8>,
    open: BTreeMap<u16, Vec<Open>>,
    /// The host has said its last word.
    terminated: bool,
    /// Bytes of the target's own making are in the stream: nobody knows what must come of them.
    wild: bool,
    error: Option<QueueError>,
}

impl<'c> Trial<'c> {
    fn play(mut choices: Choices<'c>, piece: usize) -> (Vec<Seen>, Option<QueueError>) {
        let flags = choices.u8();
        let name = |name: &str| Nqn::new(name).expect("a name");
        let subsystem = name("nqn.2026-11.io.stripewise:test");
        let host = name("nqn.2026-11.io.stripewise:host");
        let now = Instant::now();
        let settings = QueueSettings {
            id: u16::from(flags >> 2 & 1),
            depth: u16::from(flags >> 4) + 1,
            header_digest: flags & 1 != 0,
            data_digest: flags & 2 != 0,
            in_capsule: if flags & 8 != 0 { IN_CAPSULE } else { 0 },
            keep_alive: Duration::ZERO,
            patience: PATIENCE,
            identity: Box::new(ConnectData::new([1; 16], 7, &subsystem, &host)),
        };
        let mut trial = Self {
            choices,
            piece,
            queue: Queue::new(settings, now),
            now,
            done: Vec::new(),
            seen: Vec::new(),
            owed: BTreeMap::new(),
            tokens: 0,
            host: Decoder::new(),
            request: None,
            format: PduFormat::default(),
            receiving: None,
            payload: Vec::new(),
            open: BTreeMap::new(),
            terminated: false,
            wild: false,
            error: None,
        };
        while !trial.choices.are_made() && trial.error.is_none() {
            trial.step();
            trial.settle();
        }
        trial.end();
        (trial.seen, trial.error)
    }

    fn step(&mut self) {
        match self.choices.u8() % 16 {
            0 | 1 => self.submit_read(),
            2 | 3 => self.submit_write(),
            4 => self.greet(),
            5 => self.admit(),
            6 | 7 => self.answer(),
            8 | 9 => self.send_data(),
            10 | 11 => self.ask(),
            12 => self.hear(),
            13 => self.wait(),
            14 => self.terminate(),
            _ => self.say_anything(),
        }
    }

    // ---- the host

    fn buffer(len: usize, fill: u8) -> Option<BufMut> {
        let mut buffer = POOL.with(Pool::take)?;
        buffer.truncate(len);
        for (at, place) in buffer.iter_mut().enumerate() {
            *place = (at as u8).wrapping_add(fill).wrapping_mul(fill | 1);
        }
        Some(buffer)
    }

    /// Two buffers that make up 1 to 8192 bytes.
    fn buffers(&mut self) -> Option<[BufMut; 2]> {
        let (first, second) = (self.choices.u16() % 4096 + 1, self.choices.u16() % 4097);
        let fill = self.choices.u8();
        Some([
            Self::buffer(first.into(), fill)?,
            Self::buffer(second.into(), !fill)?,
        ])
    }

    fn submit_read(&mut self) {
        let Some(buffers) = self.buffers() else {
            return;
        };
        let len = buffers.iter().map(|b| b.len()).sum();
        let kept = self.choices.u8() & 3 != 0;
        let payload = match kept {
            true => Payload::Read(buffers.into_iter().collect()),
            false => Payload::Discard(len as u32),
        };
        self.submit(0x02, payload, |owed| {
            owed.kept = kept;
            owed.wanted = len;
        });
    }

    fn submit_write(&mut self) {
        let Some(buffers) = self.buffers() else {
            return;
        };
        let bytes: Vec<u8> = buffers.iter().flat_map(|b| b.to_vec()).collect();
        let buffers = buffers.map(BufMut::freeze);
        self.submit(
            0x01,
            Payload::Write(buffers.into_iter().collect()),
            |owed| {
                owed.outbound = bytes;
            },
        );
    }

    fn submit(&mut self, opcode: u8, payload: Payload, fill_in: impl FnOnce(&mut Owed)) {
        let mut command = Command::new(opcode, 1);
        command.cdw15 = (self.tokens as u32).into();
        let room = self.queue.has_room();
        let taken = self.queue.submit(self.tokens, &command, payload, self.now);
        assert_eq!(taken.is_ok(), room);
        if !room {
            return;
        }
        let mut owed = Owed {
            outbound: Vec::new(),
            wanted: 0,
            inbound: Vec::new(),
            kept: true,
            asked: 0,
            damaged: false,
            due: None,
        };
        fill_in(&mut owed);
        if owed.outbound.len() <= self.queue.settings.in_capsule as usize {
            owed.asked = owed.outbound.len();
        }
        self.owed.insert(self.tokens, owed);
        self.tokens += 1;
    }

    /// The command in flight in a slot.
    fn in_slot(&mut self, slot: u16) -> Option<&mut Owed> {
        if Stage::Connecting(slot) == self.queue.stage {
            return None;
        }
        let token = self.queue.slots.get(slot)?.token;
        self.owed.get_mut(&token)
    }

    // ---- the target speaks

    /// Gives bytes to the queue.
    fn say(&mut self, bytes: &[u8]) {
        for mut piece in bytes.chunks(self.piece) {
            while !piece.is_empty() {
                let given = self.queue.receive(&mut self.done, self.now, |slices| {
                    let mut count = 0;
                    for slice in slices {
                        let some = slice.len().min(piece.len() - count);
                        slice[..some].copy_from_slice(&piece[count..count + some]);
                        count += some;
                    }
                    count
                });
                match given {
                    Ok(count) => piece = &piece[count..],
                    Err(error) => {
                        assert_eq!(self.queue.error(), Some(&error));
                        self.error = Some(error);
                        return;
                    }
                }
            }
        }
    }

    /// Says something that a good target may say here, or may not.
    fn say_what_is(&mut self, fair: bool, bytes: &[u8]) {
        self.say(bytes);
        if !self.wild {
            assert_eq!(self.error.is_none(), fair, "{:?}", self.error);
        }
    }

    fn greet(&mut self) {
        self.hear_all();
        let alignment = DataAlignment::from_code(self.choices.u8() & 31).expect("5 bits");
        let flags = self.choices.u8();
        let response = IcResp {
            alignment,
            header_digest: flags & 1 != 0,
            data_digest: flags & 2 != 0,
            max_h2c_data: 4096 + u32::from(flags >> 4) * 4,
        };
        let settings = &self.queue.settings;
        let digests = (settings.header_digest, settings.data_digest);
        let first = self.queue.stage == Stage::Greeting;
        let fair = first && digests == (response.header_digest, response.data_digest);
        self.say_what_is(fair, &response.encode());
        if let Some(request) = self.request.take_if(|_| fair && self.error.is_none()) {
            self.format = response.controller_format(&request);
            self.host.establish(Rules {
                format: response.host_format(),
                max_capsule_data: 1024,
                max_data: response.max_h2c_data,
            });
        }
    }

    /// Answers Connect, if that is what the host waits for.
    fn admit(&mut self) {
        if let Stage::Connecting(slot) = self.queue.stage {
            let choice = self.choices.u8();
            let status = match choice {
                255 => Status::CONNECT_INVALID_PARAMETERS,
                _ => Status::SUCCESS,
            };
            let wants_proof = choice == 254;
            let result = if wants_proof { 1 << 17 } else { 7 };
            let completion = Completion::new(slot, status).with_result(result);
            let capsule = CapsuleResp { completion }.encode(&self.format);
            self.say_what_is(choice < 254, &capsule);
            if self.error.is_none() && !self.wild {
                assert_eq!(self.queue.controller(), Some(7));
            }
        }
    }

    fn answer(&mut self) {
        let slot = u16::from(self.choices.u8()) % (self.queue.settings.depth + 1);
        let status = match self.choices.u8() {
            code @ 0..64 => Status::new(code >> 5, code),
            _ => Status::SUCCESS,
        };
        if Stage::Connecting(slot) == self.queue.stage {
            return;
        }
        let owed = self.in_slot(slot).filter(|owed| owed.due.is_none());
        let fair = owed.is_some();
        if let Some(owed) = owed {
            owed.due = Some(owed.outcome(status));
        }
        let completion = Completion::new(slot, status);
        let capsule = CapsuleResp { completion }.encode(&self.format);
        let fair = fair && self.may_speak();
        self.say_what_is(fair, &capsule);
    }

    /// Whether anything but a greeting may be said.
    fn may_speak(&self) -> bool {
        matches!(self.queue.stage, Stage::Connecting(_) | Stage::Live(_))
    }

    fn send_data(&mut self) {
        let slot = u16::from(self.choices.u8()) % (self.queue.settings.depth + 1);
        let (how, len) = (self.choices.u8(), u32::from(self.choices.u16()) % 9000 + 1);
        let digest = self.format.data_digest;
        let owed = self.in_slot(slot).filter(|owed| owed.due.is_none());
        let sent = owed.as_ref().map_or(0, |owed| owed.inbound.len());
        let wanted = owed.as_ref().map_or(0, |owed| owed.wanted);
        // As much as is wanted, from where it is wanted, but for one choice of a few.
        let len = match how & 3 {
            0 => len,
            _ => len.min((wanted - sent).max(1) as u32),
        };
        let offset = match how >> 2 & 7 {
            0 => sent as u32 ^ u32::from(how >> 5),
            _ => sent as u32,
        };
        let success = how & 0x80 != 0;
        let damaged = digest && how & 0x40 != 0;
        let bytes: Vec<u8> = (0..len).map(|i| (i ^ len).wrapping_mul(31) as u8).collect();
        let fair = offset as usize == sent && sent + bytes.len() <= wanted;
        let is_fair = owed.is_some() && fair;
        if let Some(owed) = owed.filter(|_| fair) {
            owed.inbound.extend_from_slice(&bytes);
            owed.damaged |= damaged;
            if success {
                owed.due = Some(owed.outcome(Status::SUCCESS));
            }
        }
        let header = C2hData {
            cccid: slot,
            offset,
            len,
            last: success,
            success,
        };
        let mut pdu = header.encode(&self.format).to_vec();
        pdu.extend_from_slice(&bytes);
        if digest {
            let digest = crc32c(&bytes) ^ u32::from(damaged);
            pdu.extend_from_slice(&digest.to_le_bytes());
        }
        let fair = is_fair && self.may_speak();
        self.say_what_is(fair, &pdu);
    }

    fn ask(&mut self) {
        let slot = u16::from(self.choices.u8()) % (self.queue.settings.depth + 1);
        let (how, len) = (self.choices.u8(), u32::from(self.choices.u16()) % 9000 + 1);
        let tag = u16::from(how) ^ 0x5500;
        let busy = self.queue.slots.get(slot).is_some_and(|s| s.unsent > 0);
        let owed = self.in_slot(slot).filter(|owed| owed.due.is_none());
        let asked = owed.as_ref().map_or(0, |owed| owed.asked);
        let all = owed.as_ref().map_or(0, |owed| owed.outbound.len());
        let len = match how & 3 {
            0 => len,
            _ => len.min((all - asked).max(1) as u32),
        };
        let offset = match how >> 2 & 7 {
            0 => asked as u32 ^ u32::from(how >> 5),
            _ => asked as u32,
        };
        let end = offset as usize + len as usize;
        let fair = offset as usize == asked && end <= all && !busy;
        let is_fair = owed.is_some() && fair;
        if let Some(owed) = owed.filter(|_| fair) {
            owed.asked = end;
        }
        let request = R2t {
            cccid: slot,
            ttag: tag,
            offset,
            len,
        };
        let fair = is_fair && self.may_speak();
        if fair {
            let next = Open {
                token: self.queue.slots.get(slot).map_or(0, |slot| slot.token),
                tag,
                next: offset,
                end: offset + len,
            };
            self.open.entry(slot).or_default().push(next);
        }
        self.say_what_is(fair, &request.encode(&self.format));
    }

    fn terminate(&mut self) {
        if self.choices.u8() != 0 {
            return;
        }
        let word = FatalError::SequenceError.encode(Sender::Controller, self.choices.bytes(20));
        self.say_what_is(false, &word);
    }

    /// Bytes that may be a PDU: the beginning of one with something changed, or none at all.
    fn say_anything(&mut self) {
        self.wild = true;
        let len = usize::from(self.choices.u8());
        let mut bytes = self.choices.bytes(len).to_vec();
        if self.choices.u8() & 1 != 0 {
            let header_len = usize::from(bytes.get(2).copied().unwrap_or_default());
            // A length that fits, and digests that are right, where there is room for them.
            if let Some(place) = bytes.get_mut(4..8) {
                place.copy_from_slice(&(len as u32).to_le_bytes());
            }
            if self.format.header_digest && header_len + 4 <= bytes.len() {
                let digest = crc32c(&bytes[..header_len]).to_le_bytes();
                bytes[header_len..header_len + 4].copy_from_slice(&digest);
            }
        }
        self.say(&bytes);
    }

    fn wait(&mut self) {
        self.now += Duration::from_millis(u64::from(self.choices.u8()) * 10);
        if let Err(error) = self.queue.tick(self.now) {
            assert!(matches!(error, QueueError::Timeout { .. }), "{error}");
            self.error = Some(error);
        }
    }

    // ---- the target listens

    /// Takes some of what the host sends.
    fn hear(&mut self) {
        let most = usize::from(self.choices.u16());
        self.take(most);
    }

    fn hear_all(&mut self) {
        while self.queue.has_output() {
            self.take(usize::MAX);
        }
    }

    fn take(&mut self, most: usize) {
        let mut taken = Vec::new();
        self.queue.transmit(&mut self.done, |slices| {
            for slice in slices {
                let left = most - taken.len();
                taken.extend_from_slice(&slice[..slice.len().min(left)]);
            }
            taken.len()
        });
        self.listen(&taken);
    }

    fn listen(&mut self, mut bytes: &[u8]) {
        // By which rules, only the queue knows then.
        if self.wild {
            return;
        }
        while !bytes.is_empty() {
            assert!(!self.terminated, "the last word is the last");
            if let Wanted::Payload(left) = self.host.wanted() {
                let (piece, rest) = bytes.split_at(bytes.len().min(left as usize));
                bytes = rest;
                self.payload.extend_from_slice(piece);
                if self.host.payload(piece).is_some() {
                    self.heard();
                }
                continue;
            }
            let fed = self.host.feed(bytes).expect("the host knows PDUs");
            bytes = &bytes[fed.used..];
            match fed.event {
                Some(Event::Pdu { pdu, payload }) => {
                    self.receiving = Some(pdu);
                    if payload == 0 {
                        self.heard();
                    }
                }
                Some(Event::PayloadEnd(end)) => {
                    assert_eq!(end, crate::nvme::tcp::PayloadEnd::Intact);
                    self.heard();
                }
                None => {}
            }
        }
    }

    /// A PDU of the host's is whole.
    fn heard(&mut self) {
        let data = std::mem::take(&mut self.payload);
        match self.receiving.take().expect("its header came before") {
            HostPdu::IcReq(request) => self.request = Some(request),
            HostPdu::CapsuleCmd(capsule) if capsule.command.is_fabrics() => {
                assert_eq!(data.len(), 1024);
            }
            HostPdu::CapsuleCmd(capsule) => {
                let token = u64::from(capsule.command.cdw15.get());
                let len = match capsule.command.data.parse() {
                    Sgl::InCapsule { len, .. } => {
                        assert_eq!(len as usize, data.len());
                        len as usize
                    }
                    Sgl::Transport { len } => len as usize,
                    Sgl::Unsupported(_) => 0,
                };
                // It may have been answered before it was sent.
                if let Some(owed) = self.owed.get(&token) {
                    assert_eq!(len, owed.outbound.len().max(owed.wanted));
                    assert!(data.is_empty() || data == owed.outbound);
                }
            }
            HostPdu::H2cData(header) => {
                let open = self.open.get_mut(&header.cccid);
                let open = open.expect("data was asked for");
                let first = open.first_mut().expect("data was asked for");
                assert_eq!((header.ttag, header.offset), (first.tag, first.next));
                first.next += data.len() as u32;
                // It may have been answered before all of it was sent.
                if let Some(owed) = self.owed.get(&first.token) {
                    let start = header.offset as usize;
                    assert!(owed.outbound[start..start + data.len()] == data);
                }
                assert_eq!(header.last, first.next == first.end);
                assert!(first.next <= first.end, "no more than was asked for");
                if header.last {
                    open.remove(0);
                }
            }
            HostPdu::TermReq(_) => {
                assert!(self.queue.error().is_some());
                self.terminated = true;
            }
        }
    }

    // ---- the end of commands

    /// Looks at what is done.
    fn settle(&mut self) {
        for done in std::mem::take(&mut self.done) {
            let owed = self.owed.remove(&done.token);
            let owed = owed.expect("a command comes back once");
            let outcome = done.outcome.map(drop);
            if !self.wild && outcome != Err(CommandError::Lost) {
                assert_eq!(Some(&outcome), owed.due.as_ref());
            }
            let mut read = Vec::new();
            match done.payload {
                Payload::Read(segments) => {
                    assert!(owed.kept);
                    read = segments.iter().flat_map(|s| s.to_vec()).collect();
                    assert_eq!(read.len(), owed.wanted);
                    if outcome.is_err() {
                        read.clear();
                    } else if !self.wild {
                        assert!(read == owed.inbound, "what was read is what was sent");
                    }
                }
                Payload::Discard(len) => assert!(!owed.kept && len as usize == owed.wanted),
                Payload::Write(segments) => {
                    let bytes: Vec<u8> = segments.iter().flat_map(|s| s.to_vec()).collect();
                    assert!(bytes == owed.outbound);
                }
                Payload::None => panic!("all commands here have data"),
            }
            self.seen.push((done.token, outcome, read));
        }
        if !self.queue.has_output() && self.error.is_none() && !self.wild {
            let answered = self.owed.values().any(|owed| owed.due.is_some());
            assert!(!answered, "a command that is answered comes back");
        }
    }

    /// Whatever has happened, all commands come back now.
    fn end(&mut self) {
        if self.error.is_some() {
            assert!(!self.queue.has_room());
            self.hear_all();
            self.settle();
        }
        self.queue.abandon(&mut self.done);
        self.settle();
        assert!(self.owed.is_empty(), "{:?}", self.owed);
        assert_eq!(self.queue.in_flight(), 0);
        assert!(!self.queue.has_output());
    }
}

impl Owed {
    /// What it comes to when it is answered now.
    fn outcome(&self, status: Status) -> Result<(), CommandError> {
        let (moved, wanted) = match self.outbound.len() {
            0 => (self.inbound.len(), self.wanted),
            all => (self.asked, all),
        };
        if !status.is_success() {
            Err(CommandError::Status(status))
        } else if self.damaged {
            Err(CommandError::DataDigest)
        } else if moved < wanted {
            Err(CommandError::Short {
                moved: moved as u32,
                wanted: wanted as u32,
            })
        } else {
            Ok(())
        }
    }
}
