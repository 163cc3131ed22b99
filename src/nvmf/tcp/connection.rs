//! The connection itself.

use std::io::IoSliceMut;

use smallvec::SmallVec;

use super::output::{Gathered, Output};
use super::scratch::Scratch;
use super::sink::Sink;
use super::slots::{Slot, SlotId, Slots, Transfer};
use crate::memory::SegmentsMut;
use crate::nvme::tcp::digest::{Crc32c, crc32c};
use crate::nvme::tcp::pdu::offset;
use crate::nvme::tcp::{
    ADMIN_IN_CAPSULE_DATA, C2hData, CapsuleCmd, CapsuleResp, DataAlignment, Decoder, Event,
    FatalError, FromHost, H2cData, HostPdu, IcReq, IcResp, PayloadEnd, PduFormat, R2t, Rules,
    Wanted,
};
use crate::nvme::{Command, Completion, Status};

/// Bytes that a connection reads at once before it is a queue, and as a queue.
const FIRST_SCRATCH: usize = 4 << 10;
const QUEUE_SCRATCH: usize = 32 << 10;

/// Bytes of headers that are read behind a payload when much payload is due: what arrives here has
/// to be copied.
const BULK_SCRATCH: usize = 4 << 10;

/// Pieces of payload memory of one read; one more is for what comes behind.
const DIRECT: usize = 15;

/// Byte offsets in an H2CData.
const CCCID: u32 = 8;
const TTAG: u32 = 10;
const DATAO: u32 = 12;

/// Pieces of memory of one read.
pub type Targets<'a> = SmallVec<[IoSliceMut<'a>; 16]>;

/// How connections are served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Largest H2CData (MAXH2CDATA).
    pub max_h2c_data: u32,
    /// Whether the last C2HData may stand for the response.
    pub c2h_success: bool,
}

/// What has come from the host.
#[derive(Debug)]
pub enum Arrival {
    /// A command. It is answered in the end with [`Connection::respond`] or one of its kin. If
    /// there are bytes in its capsule, [`Connection::take_in_capsule`] or [`Connection::drain`]
    /// must be called before anything else can come.
    Command {
        /// Its place.
        slot: SlotId,
        /// The command.
        command: Command,
        /// Bytes of data in the capsule.
        in_capsule: u32,
    },
    /// All data of a command.
    Data {
        /// The command.
        slot: SlotId,
        /// Its data.
        data: Sink,
        /// Whether every data digest matched, if there are any.
        intact: bool,
    },
}

/// Why a connection is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We have said why with a termination request; only that is to be sent.
    Terminated,
    /// The host has, or has sent something to which there is no answer.
    ByHost,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Destination {
    /// Nobody has said where the payload goes.
    Unknown,
    /// Nobody wants it.
    Nowhere,
    /// It is a command's.
    Slot(SlotId),
}

/// One queue's connection.
#[derive(Debug)]
pub struct Connection {
    settings: Settings,
    decoder: Decoder<FromHost>,
    scratch: Scratch,
    /// Where the payload of the current PDU goes.
    destination: Destination,
    /// The payload of the current PDU has ended, and nobody has been told.
    ended: Option<PayloadEnd>,
    /// Format of PDUs to the host; known with ICReq.
    format: Option<PduFormat>,
    slots: Slots,
    /// A command that has come when there was no room for it.
    blocked: Option<(Command, u32)>,
    /// Bytes that the host was asked for and has not sent.
    requested: u64,
    output: Output,
    /// Entries of the submission queue; 0 before Connect.
    entries: u32,
    /// Commands taken from the submission queue, modulo its size.
    head: u32,
    flow_control: bool,
    end: Option<End>,
    /// Why it ended, for the log.
    fault: Option<String>,
    /// Grows whenever the host does something.
    progress: u64,
}

impl Connection {
    /// A new connection, on which nothing has come.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            decoder: Decoder::new(),
            scratch: Scratch::new(FIRST_SCRATCH),
            destination: Destination::Unknown,
            ended: None,
            format: None,
            slots: Slots::new(1),
            blocked: None,
            requested: 0,
            output: Output::default(),
            entries: 0,
            head: 0,
            flow_control: true,
            end: None,
            fault: None,
            progress: 0,
        }
    }

    /// Whether ICReq has come.
    pub fn is_initialized(&self) -> bool {
        self.format.is_some()
    }

    /// How the connection ended, if it did. What is left to send is to be sent all the same.
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// What was wrong, if something was.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// Grows whenever bytes go in or out.
    pub fn progress(&self) -> u64 {
        self.progress
    }

    /// Whether it is the host's turn: it has sent a part of something, was asked for data, or has
    /// not read what was sent.
    pub fn host_owes(&self) -> bool {
        let between = self.decoder.is_idle() && self.scratch.filled().is_empty();
        !between || self.requested > 0 || !self.output.is_empty()
    }

    /// Bytes to send.
    pub fn unsent(&self) -> u64 {
        self.output.unsent()
    }

    /// Becomes a queue of `entries` entries whose capsules carry at most `in_capsule` bytes. The
    /// Connect that asked for it is the only command there.
    pub fn open(&mut self, entries: u32, in_capsule: u32, flow_control: bool) {
        self.entries = entries;
        self.head %= entries;
        self.flow_control = flow_control;
        self.slots.grow(entries as usize);
        self.scratch.grow(QUEUE_SCRATCH);
        if let Some(&rules) = self.decoder.rules() {
            self.decoder.establish(Rules {
                max_capsule_data: in_capsule,
                ..rules
            });
        }
    }

    /// Where the next bytes of the host go. Empty when none can be taken now.
    pub fn targets(&mut self) -> Targets<'_> {
        let mut targets = Targets::new();
        if self.end.is_some() || self.blocked.is_some() {
            return targets;
        }
        if let Wanted::Payload(left) = self.decoder.wanted()
            && self.scratch.filled().is_empty()
            && let Destination::Slot(slot) = self.destination
        {
            let transfer = self.slots.must(slot).transfer.as_mut();
            let transfer = transfer.expect("a payload has a transfer");
            let from = transfer.received as usize;
            let windows = transfer.sink.windows(from, left as usize);
            targets.extend(windows.take(DIRECT).map(IoSliceMut::new));
        }
        let room = self.scratch.room();
        let limit = if self.requested > 0 {
            BULK_SCRATCH
        } else {
            room.len()
        };
        let limit = limit.min(room.len());
        if limit > 0 {
            targets.push(IoSliceMut::new(&mut room[..limit]));
        }
        targets
    }

    /// So many bytes have been put into [`Connection::targets`].
    pub fn received(&mut self, bytes: usize) {
        self.progress += 1;
        let mut left = bytes;
        if let Wanted::Payload(due) = self.decoder.wanted()
            && self.scratch.filled().is_empty()
            && let Destination::Slot(slot) = self.destination
        {
            let transfer = self.slots.must(slot).transfer.as_mut();
            let transfer = transfer.expect("a payload has a transfer");
            let from = transfer.received as usize;
            let windows = transfer.sink.windows(from, due as usize);
            for window in windows.take(DIRECT) {
                let len = window.len().min(left);
                if len > 0 {
                    self.ended = self.decoder.payload(&window[..len]);
                    left -= len;
                }
            }
            let taken = bytes - left;
            transfer.received += taken as u32;
            if transfer.requested {
                self.requested -= taken as u64;
            }
        }
        self.scratch.fill(left);
    }

    /// The next thing that has come, if it is complete.
    pub fn arrival(&mut self) -> Option<Arrival> {
        while self.end.is_none() {
            if let Some((command, in_capsule)) = self.blocked.take()
                && let Some(arrival) = self.command(command, in_capsule)
            {
                return Some(arrival);
            }
            if self.blocked.is_some() {
                return None;
            }
            if let Some(end) = self.ended.take() {
                if let Some(arrival) = self.payload_ended(end) {
                    return Some(arrival);
                }
                continue;
            }
            if self.scratch.filled().is_empty() {
                return None;
            }
            match self.decoder.wanted() {
                Wanted::Payload(due) => self.take_payload(due)?,
                Wanted::Framing(_) => match self.decoder.feed(self.scratch.filled()) {
                    Err(error) => {
                        self.fault = Some(error.to_string());
                        match error.fatal() {
                            Some(fatal) => self.terminate(fatal),
                            None => self.end = Some(End::ByHost),
                        }
                    }
                    Ok(fed) => {
                        self.scratch.consume(fed.used);
                        match fed.event {
                            None => {}
                            Some(Event::PayloadEnd(end)) => self.ended = Some(end),
                            Some(Event::Pdu { pdu, payload }) => {
                                if let Some(arrival) = self.pdu(pdu, payload) {
                                    return Some(arrival);
                                }
                            }
                        }
                    }
                },
            }
        }
        None
    }

    /// Puts payload that arrived in the scratch where it belongs; `None` if that is not known yet.
    fn take_payload(&mut self, due: u32) -> Option<()> {
        let filled = self.scratch.filled();
        let piece = &filled[..filled.len().min(due as usize)];
        match self.destination {
            Destination::Unknown => return None,
            Destination::Nowhere => {}
            Destination::Slot(slot) => {
                let transfer = self.slots.must(slot).transfer.as_mut();
                let transfer = transfer.expect("a payload has a transfer");
                let mut copied = 0;
                for window in transfer
                    .sink
                    .windows(transfer.received as usize, piece.len())
                {
                    window.copy_from_slice(&piece[copied..copied + window.len()]);
                    copied += window.len();
                }
                assert_eq!(copied, piece.len(), "a transfer has memory for its data");
                transfer.received += piece.len() as u32;
                if transfer.requested {
                    self.requested -= piece.len() as u64;
                }
            }
        }
        self.ended = self.decoder.payload(piece);
        let len = piece.len();
        self.scratch.consume(len);
        Some(())
    }

    fn pdu(&mut self, pdu: HostPdu, payload: u32) -> Option<Arrival> {
        self.destination = Destination::Unknown;
        match pdu {
            HostPdu::IcReq(request) => self.initialize(&request),
            HostPdu::CapsuleCmd(CapsuleCmd { command }) => return self.command(command, payload),
            HostPdu::H2cData(data) => match self.check_data(&data) {
                Ok(slot) => self.destination = Destination::Slot(slot),
                Err(fatal) => {
                    self.fault = Some(format!(
                        "H2CData for command {} (tag {}) of {} bytes at {}: {fatal}",
                        data.cccid, data.ttag, data.len, data.offset
                    ));
                    self.terminate(fatal);
                }
            },
            HostPdu::TermReq(request) => {
                self.fault = Some(format!("the host ended it: {request}"));
                self.end = Some(End::ByHost);
            }
        }
        None
    }

    fn initialize(&mut self, request: &IcReq) {
        let response = IcResp {
            alignment: DataAlignment::default(),
            header_digest: request.header_digest,
            data_digest: request.data_digest,
            max_h2c_data: self.settings.max_h2c_data,
        };
        self.decoder.establish(Rules {
            format: response.host_format(),
            max_capsule_data: ADMIN_IN_CAPSULE_DATA,
            max_data: self.settings.max_h2c_data,
        });
        self.format = Some(response.controller_format(request));
        self.output.head(&response.encode());
    }

    fn command(&mut self, command: Command, in_capsule: u32) -> Option<Arrival> {
        let cid = command.cid.get();
        let Some((slot, conflicting)) = self.slots.insert(cid) else {
            self.blocked = Some((command, in_capsule));
            return None;
        };
        self.head += 1;
        if self.entries > 0 {
            self.head %= self.entries;
        }
        if conflicting {
            self.destination = Destination::Nowhere;
            let status = Status::COMMAND_ID_CONFLICT.with_do_not_retry();
            self.respond(slot, status, 0);
            return None;
        }
        Some(Arrival::Command {
            slot,
            command,
            in_capsule,
        })
    }

    /// Checks that data is what was asked for; gives the command.
    fn check_data(&mut self, data: &H2cData) -> Result<SlotId, FatalError> {
        let slot = SlotId(data.ttag);
        let asked = |s: &mut Slot| s.transfer.as_ref().is_some_and(|t| t.requested);
        let tagged = self.slots.get(slot);
        let Some(tagged) = tagged.filter(|s| s.cid == data.cccid && !s.conflicting) else {
            let named = self.slots.find(data.cccid);
            let expected = named.is_some_and(|slot| asked(self.slots.must(slot)));
            let offset = if expected { TTAG } else { CCCID };
            return Err(FatalError::InvalidHeaderField { offset });
        };
        let Some(transfer) = tagged.transfer.as_ref().filter(|t| t.requested) else {
            return Err(FatalError::InvalidHeaderField { offset: CCCID });
        };
        if data.end() > u64::from(transfer.total) {
            return Err(FatalError::DataOutOfRange);
        }
        if data.offset != transfer.received {
            return Err(FatalError::InvalidHeaderField { offset: DATAO });
        }
        if data.last != (data.end() == u64::from(transfer.total)) {
            return Err(FatalError::InvalidHeaderField {
                offset: offset::FLAGS,
            });
        }
        Ok(slot)
    }

    /// A payload is complete; perhaps the data of its command is.
    fn payload_ended(&mut self, end: PayloadEnd) -> Option<Arrival> {
        let destination = std::mem::replace(&mut self.destination, Destination::Unknown);
        let Destination::Slot(slot) = destination else {
            return None;
        };
        let place = &mut self.slots.must(slot).transfer;
        let transfer = place.as_mut().expect("a payload has a transfer");
        transfer.corrupt |= matches!(end, PayloadEnd::Corrupt { .. });
        if transfer.received < transfer.total {
            return None;
        }
        let transfer = place.take()?;
        Some(Arrival::Data {
            slot,
            data: transfer.sink,
            intact: !transfer.corrupt,
        })
    }

    /// The data in the capsule of the last command goes into `sink`, which is as large.
    pub fn take_in_capsule(&mut self, slot: SlotId, sink: Sink) {
        assert_eq!(self.destination, Destination::Unknown, "no data is due");
        self.destination = Destination::Slot(slot);
        self.begin(slot, sink, false);
    }

    /// The data in the capsule of the last command, if there is any, is not wanted.
    pub fn drain(&mut self) {
        self.destination = Destination::Nowhere;
    }

    /// Asks for the data of a command, all of it at once; it goes into `sink`, which is as large.
    pub fn request(&mut self, slot: SlotId, sink: Sink) {
        let len = self.begin(slot, sink, true);
        self.requested += u64::from(len);
        let request = R2t {
            cccid: self.slots.must(slot).cid,
            ttag: slot.0,
            offset: 0,
            len,
        };
        let head = request.encode(&self.format());
        self.output.head(&head);
    }

    fn begin(&mut self, slot: SlotId, sink: Sink, requested: bool) -> u32 {
        let total = sink.len() as u32;
        let slot = self.slots.must(slot);
        assert!(slot.transfer.is_none(), "a command has one transfer");
        slot.transfer = Some(Transfer {
            sink,
            received: 0,
            total,
            requested,
            corrupt: false,
        });
        total
    }

    /// Answers a command.
    pub fn respond(&mut self, slot: SlotId, status: Status, result: u64) {
        let head = if self.flow_control {
            self.head as u16
        } else {
            0
        };
        self.respond_with_head(slot, status, result, head);
    }

    /// Answers the Connect that made this a queue: there, the head says as well that flow control
    /// is off.
    pub fn respond_connected(&mut self, slot: SlotId, result: u64) {
        let head = if self.flow_control {
            self.head as u16
        } else {
            0xffff
        };
        self.respond_with_head(slot, Status::SUCCESS, result, head);
    }

    fn respond_with_head(&mut self, slot: SlotId, status: Status, result: u64, head: u16) {
        self.capsule(slot, status, result, head);
        self.output.answers(slot);
    }

    fn capsule(&mut self, slot: SlotId, status: Status, result: u64, head: u16) {
        let cid = self.slots.must(slot).cid;
        let completion = Completion::new(cid, status)
            .with_result64(result)
            .with_sqhd(head);
        let capsule = CapsuleResp { completion };
        self.output.head(&capsule.encode(&self.format()));
    }

    /// Answers a command with success and payload buffers.
    pub fn respond_with_payload(&mut self, slot: SlotId, payload: SegmentsMut) {
        let len = payload.iter().map(|s| s.len()).sum::<usize>() as u32;
        let format = self.format();
        let digest = format
            .data_digest
            .then(|| Crc32c::of_pieces(payload.iter().map(|s| &**s)));
        let success = self.data_head(slot, len, true);
        for buffer in payload {
            self.output.payload(buffer.freeze());
        }
        self.data_tail(slot, digest, success, 0);
    }

    /// Answers a command with success, a result and data.
    pub fn respond_with_bytes(&mut self, slot: SlotId, bytes: Vec<u8>, result: u64) {
        let format = self.format();
        let digest = format.data_digest.then(|| crc32c(&bytes));
        let success = self.data_head(slot, bytes.len() as u32, result == 0);
        self.output.bytes(bytes);
        self.data_tail(slot, digest, success, result);
    }

    /// Puts the header in front of data; says whether the data stands for the response.
    fn data_head(&mut self, slot: SlotId, len: u32, plain: bool) -> bool {
        let success = plain && self.settings.c2h_success && !self.flow_control;
        let data = C2hData {
            cccid: self.slots.must(slot).cid,
            offset: 0,
            len,
            last: true,
            success,
        };
        let head = data.encode(&self.format());
        self.output.head(&head);
        success
    }

    fn data_tail(&mut self, slot: SlotId, digest: Option<u32>, success: bool, result: u64) {
        if let Some(digest) = digest {
            self.output.head(&digest.to_le_bytes());
        }
        if !success {
            let head = if self.flow_control {
                self.head as u16
            } else {
                0
            };
            self.capsule(slot, Status::SUCCESS, result, head);
        }
        self.output.answers(slot);
    }

    /// Ends the connection with a termination request.
    fn terminate(&mut self, fatal: FatalError) {
        let request = self.decoder.term_req(fatal);
        self.output.head(&request);
        self.end = Some(End::Terminated);
    }

    /// The next bytes to send; empty when there are none.
    pub fn gather(&self) -> Gathered<'_> {
        self.output.gather()
    }

    /// So many bytes of [`Connection::gather`] have been sent. Tells of every command whose answer
    /// has left with them; its place is free again.
    pub fn sent(&mut self, bytes: usize, mut answered: impl FnMut(SlotId)) {
        self.progress += 1;
        let slots = &mut self.slots;
        self.output.sent(bytes, |slot| {
            slots.remove(slot);
            answered(slot);
        });
    }

    /// Whether a command that has come waits for a place.
    pub fn is_blocked(&self) -> bool {
        self.blocked.is_some()
    }

    /// The identifier of a command that is not answered yet.
    pub fn cid(&mut self, slot: SlotId) -> u16 {
        self.slots.must(slot).cid
    }

    /// The place of the command with this identifier, if it is not answered yet.
    pub fn find(&self, cid: u16) -> Option<SlotId> {
        self.slots.find(cid)
    }

    fn format(&self) -> PduFormat {
        self.format.expect("commands come behind ICReq")
    }
}
