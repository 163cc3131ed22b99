//! One NVMe/TCP queue pair, seen from the host: bytes and time in, bytes out.
//!
//! The queue greets (ICReq), connects, and then carries commands: as many as its submission queue
//! holds, each in a slot whose number is the command identifier. It owns the payload of a command
//! while that is in flight, and gives it back with the outcome, exactly once. It never reads a
//! clock, touches a socket, or trusts the target: whatever bytes come in, the worst is a
//! [`QueueError`]; from then on the queue only waits for [`Queue::abandon`].

use std::io::{IoSlice, IoSliceMut};
use std::ops::Range;
use std::time::{Duration, Instant};

use smallvec::SmallVec;
use zerocopy::IntoBytes;

use super::error::{CommandError, QueueError};
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::payload::Payload;
use super::slot::{Slot, Slots};
use crate::nvme::fabrics::{Connect, ConnectData, ConnectParameter, ConnectResult, FabricsCommand};
use crate::nvme::tcp::digest::{Crc32c, crc32c};
use crate::nvme::tcp::{
    C2hData, CapsuleCmd, ControllerPdu, DataAlignment, Decoder, EncodedHeader, Event, FatalError,
    FromController, H2cData, IcReq, IcResp, PayloadEnd, PduFormat, R2t, Rules, Wanted,
};
use crate::nvme::{Command, Completion, SglDescriptor, Status};

/// Everything that one queue needs to know before it says hello.
#[derive(Clone, Debug)]
pub struct QueueSettings {
    /// Queue identifier; 0 is the admin queue.
    pub id: u16,
    /// Commands that may be in flight, at least 1. The submission queue gets one entry more.
    pub depth: u16,
    /// Ask for header digests, and refuse to go on without.
    pub header_digest: bool,
    /// Ask for data digests, and refuse to go on without.
    pub data_digest: bool,
    /// Most bytes of data that a command capsule may carry, from the controller's IOCCSZ.
    pub in_capsule: u32,
    /// Keep alive timeout that Connect of the admin queue asks for; zero for none.
    pub keep_alive: Duration,
    /// The queue is given up when an answer takes longer than this.
    pub patience: Duration,
    /// Who connects to what.
    pub identity: Box<ConnectData>,
}

/// A command that is over.
#[derive(Debug)]
pub struct Done {
    /// The owner's name for it.
    pub token: u64,
    /// The controller's answer. The status in it is success.
    pub outcome: Result<Completion, CommandError>,
    /// The data of the command, as it was handed in; after anything but success its content is
    /// undefined.
    pub payload: Payload,
}

/// How far the queue has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// ICReq is out.
    Greeting,
    /// Connect is out, as this command.
    Connecting(u16),
    /// Commands may be sent; this is the controller.
    Live(u16),
    /// All over.
    Failed(QueueError),
}

/// Whose data is being received.
#[derive(Clone, Copy, Debug)]
struct Inbound {
    slot: u16,
    /// The command succeeds with the end of the PDU; no response follows.
    success: bool,
}

/// Bytes that may wait to be understood.
const INBOX: usize = 256 * 1024;
/// A PDU with so much data is received straight into the payload, except for its beginning.
const LARGE: u32 = 32 * 1024;
/// Bytes received beyond the end of a large PDU: enough for the next header.
const PEEK: usize = 4096;
/// Data of up to so many bytes is copied behind its header, which is cheaper than a slice more.
const COPIED: u32 = 1024;
/// Pause between two searches for commands that take too long.
const SEARCH_EVERY: Duration = Duration::from_millis(50);
/// Byte offset of the command identifier in data PDUs, for the fatal error information.
const CCCID: u32 = 8;
/// Byte offset of the command identifier in a response capsule.
const RESPONSE_CID: u32 = 20;

/// One queue pair. See the head of this file.
#[derive(Debug)]
pub struct Queue {
    pub(super) settings: QueueSettings,
    pub(super) stage: Stage,
    pub(super) slots: Slots,
    decoder: Decoder<FromController>,
    inbox: Inbox,
    inbound: Option<Inbound>,
    /// Whether the last data PDU was large, and does not come by way of the inbox.
    large: bool,
    outbox: Outbox,
    /// How PDUs that we send look.
    format: PduFormat,
    /// MAXH2CDATA.
    max_h2c_data: u32,
    /// When the queue, or the last search for late commands, began.
    since: Instant,
}

impl Queue {
    /// A queue that is about to say hello.
    ///
    /// # Panics
    /// When the depth is 0.
    pub fn new(settings: QueueSettings, now: Instant) -> Self {
        assert!(settings.depth > 0, "a queue has room for a command");
        let mut outbox = Outbox::new(settings.depth);
        outbox.push(&greeting(&settings).encode());
        Self {
            stage: Stage::Greeting,
            slots: Slots::new(settings.depth),
            decoder: Decoder::new(),
            inbox: Inbox::new(INBOX),
            inbound: None,
            large: false,
            outbox,
            format: PduFormat::default(),
            max_h2c_data: 0,
            since: now,
            settings,
        }
    }

    /// The controller identifier, once the queue is connected and as long as it is of use.
    pub fn controller(&self) -> Option<u16> {
        match self.stage {
            Stage::Live(controller) => Some(controller),
            _ => None,
        }
    }

    /// Why the queue is of no use any more, if so.
    pub fn error(&self) -> Option<&QueueError> {
        match &self.stage {
            Stage::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Whether [`Queue::submit`] would take a command.
    pub fn has_room(&self) -> bool {
        matches!(self.stage, Stage::Live(_)) && !self.slots.is_full()
    }

    /// Commands in flight.
    pub fn in_flight(&self) -> usize {
        self.slots.in_flight()
    }

    /// Whether there is something to send.
    pub fn has_output(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Hands in a command; its identifier and data pointer are set here. Data must go the way
    /// that the opcode says.
    ///
    /// # Errors
    /// The payload, untouched, when the queue has no room.
    pub fn submit(
        &mut self,
        token: u64,
        command: &Command,
        payload: Payload,
        now: Instant,
    ) -> Result<(), Payload> {
        let all = u32::try_from(payload.len()).expect("a command moves less than 4 GiB");
        self.submit_part(token, command, payload, 0..all, now)
    }

    /// Hands in a command whose data is a part of the payload, in bytes; the rest of the payload is
    /// left alone.
    ///
    /// # Errors
    /// As [`Queue::submit`].
    ///
    /// # Panics
    /// When the payload has no such part.
    pub fn submit_part(
        &mut self,
        token: u64,
        command: &Command,
        payload: Payload,
        part: Range<u32>,
        now: Instant,
    ) -> Result<(), Payload> {
        assert!(
            part.start <= part.end && part.end as usize <= payload.len(),
            "bytes {part:?} of a payload of {}",
            payload.len()
        );
        self.enqueue(token, command, payload, part, Some(now))
    }

    /// Hands in a command without data that is answered when something happens, maybe never.
    ///
    /// # Errors
    /// As [`Queue::submit`].
    pub fn leave(&mut self, token: u64, command: &Command) -> Result<(), Payload> {
        self.enqueue(token, command, Payload::None, 0..0, None)
    }

    fn enqueue(
        &mut self,
        token: u64,
        command: &Command,
        payload: Payload,
        part: Range<u32>,
        since: Option<Instant>,
    ) -> Result<(), Payload> {
        if !self.has_room() {
            return Err(payload);
        }
        let wanted = part.end - part.start;
        let in_capsule = payload.is_outbound() && wanted <= self.settings.in_capsule;
        let carried = if in_capsule { wanted } else { 0 };
        let slot = self.slots.put(Slot {
            token,
            payload,
            base: part.start,
            wanted,
            moved: carried,
            unsent: 0,
            damaged: false,
            since,
            answer: None,
        });
        let slot = slot.expect("there is room");
        let mut command = command.with_cid(slot);
        if carried > 0 {
            command = command.with_sgl(SglDescriptor::in_capsule(carried));
        } else if wanted > 0 {
            command = command.with_sgl(SglDescriptor::transport(wanted));
        }
        let capsule = CapsuleCmd { command }.encode(&self.format, carried);
        self.push_pdu(&capsule, slot, 0..carried);
        Ok(())
    }

    /// Appends a PDU with a part of the payload of a command.
    fn push_pdu(&mut self, header: &EncodedHeader, id: u16, data: Range<u32>) {
        self.outbox.push(header);
        if data.is_empty() {
            return;
        }
        let slot = self.slots.get_mut(id);
        let slot = slot.expect("the command is in flight while its data leaves");
        let data = slot.base + data.start..slot.base + data.end;
        let (start, end) = (data.start as usize, data.end as usize);
        if data.end - data.start <= COPIED {
            let outbox = &mut self.outbox;
            slot.payload.visit(start, end, |bytes| outbox.push(bytes));
        } else {
            slot.unsent += data.end - data.start;
            self.outbox.push_payload(id, data.start, data.end);
        }
        if self.format.data_digest {
            let mut digest = Crc32c::new();
            slot.payload.visit(start, end, |bytes| digest.update(bytes));
            self.outbox.push(&digest.value().to_le_bytes());
        }
    }

    /// Gathers what waits to be sent and lets `write` send some of it; `write` tells how many
    /// bytes it took. Returns the same number. Commands that were answered before the last of
    /// their data had left are appended to `done`.
    pub fn transmit(
        &mut self,
        done: &mut Vec<Done>,
        write: impl FnOnce(&[IoSlice<'_>]) -> usize,
    ) -> usize {
        if self.outbox.is_empty() {
            return 0;
        }
        let slots = &self.slots;
        let slices = self.outbox.gather(|slot, start, end, out| {
            if let Some(slot) = slots.get(slot) {
                slot.payload.visit(start, end, out);
            }
        });
        let count = write(&slices);
        drop(slices);
        let mut answered = SmallVec::<[(u16, Completion); 4]>::new();
        self.outbox.sent(count, |id, bytes| {
            if let Some(slot) = self.slots.get_mut(id) {
                slot.unsent -= bytes;
                if slot.unsent == 0 {
                    answered.extend(slot.answer.take().map(|answer| (id, answer)));
                }
            }
        });
        for (id, answer) in answered {
            self.finish(id, answer, done);
        }
        count
    }

    /// Lets `read` receive bytes into one or more buffers, in order, and handles them; `read`
    /// tells how many bytes it received. Returns the same number. Commands that are over are
    /// appended to `done`.
    ///
    /// # Errors
    /// [`QueueError`] when the queue has become of no use, or was so before.
    pub fn receive(
        &mut self,
        done: &mut Vec<Done>,
        now: Instant,
        read: impl FnOnce(&mut [IoSliceMut<'_>]) -> usize,
    ) -> Result<usize, QueueError> {
        if let Stage::Failed(error) = &self.stage {
            return Err(error.clone());
        }
        let mut direct = 0;
        let mut slices = SmallVec::<[IoSliceMut<'_>; 2]>::new();
        if let Some(inbound) = self.inbound
            && let Wanted::Payload(left) = self.decoder.wanted()
            && self.inbox.is_empty()
            && let Some(slot) = self.slots.get_mut(inbound.slot)
            && let Some(room) = slot.room()
        {
            direct = room.len().min(left as usize);
            slices.push(IoSliceMut::new(&mut room[..direct]));
        }
        let beyond = if self.large { PEEK } else { INBOX };
        slices.push(IoSliceMut::new(self.inbox.room(beyond)));
        let count = read(&mut slices);
        drop(slices);
        self.inbox.arrived(count.saturating_sub(direct));
        self.landed(count.min(direct), done);
        match self.understand(done, now) {
            Ok(()) => Ok(count),
            Err(error) => Err(self.fail(error)),
        }
    }

    /// How many bytes come next that nobody looks at: data of a large PDU that is thrown away, without a digest.
    /// They need not be received by [`Queue::receive`]; [`Queue::skipped`] takes note of them.
    pub(super) fn unseen(&self) -> usize {
        match (self.decoder.wanted(), self.inbound) {
            (Wanted::Payload(left), Some(inbound)) if self.large && self.inbox.is_empty() => {
                let slot = self.slots.get(inbound.slot);
                let discarded = slot.is_some_and(|slot| slot.payload.is_discarded());
                left as usize * usize::from(discarded)
            }
            _ => 0,
        }
    }

    /// As many of the [`Queue::unseen`] bytes were received as these, which nobody looks at.
    pub(super) fn skipped(&mut self, bytes: &[u8], done: &mut Vec<Done>) {
        let inbound = self.inbound.expect("only data of a command is unseen");
        let slot = self.slots.get_mut(inbound.slot);
        let slot = slot.expect("the command is in flight while its data arrives");
        slot.moved += bytes.len() as u32;
        if let Some(end) = self.decoder.payload(bytes) {
            self.data_ends(end, done);
        }
    }

    /// Notes that data was received straight to where it belongs.
    fn landed(&mut self, count: usize, done: &mut Vec<Done>) {
        let Some(inbound) = self.inbound.filter(|_| count > 0) else {
            return;
        };
        let slot = self.slots.get_mut(inbound.slot);
        let slot = slot.expect("the command is in flight while its data arrives");
        let room = slot.room();
        let end = self
            .decoder
            .payload(&room.expect("the data has just landed there")[..count]);
        slot.moved += count as u32;
        if let Some(end) = end {
            self.data_ends(end, done);
        }
    }

    /// Handles all that waits in the inbox.
    fn understand(&mut self, done: &mut Vec<Done>, now: Instant) -> Result<(), QueueError> {
        while !self.inbox.is_empty() {
            let waiting = self.inbox.waiting();
            if let Wanted::Payload(left) = self.decoder.wanted() {
                let piece = &waiting[..waiting.len().min(left as usize)];
                let end = self.decoder.payload(piece);
                let some = piece.len();
                if let Some(inbound) = self.inbound {
                    let slot = self.slots.get_mut(inbound.slot);
                    let slot = slot.expect("the command is in flight while its data arrives");
                    slot.fill(piece);
                }
                self.inbox.take(some);
                if let Some(end) = end {
                    self.data_ends(end, done);
                }
            } else {
                let fed = self.decoder.feed(waiting)?;
                self.inbox.take(fed.used);
                match fed.event {
                    Some(Event::Pdu { pdu, .. }) => self.handle(pdu, done, now)?,
                    Some(Event::PayloadEnd(end)) => self.data_ends(end, done),
                    None => {}
                }
            }
        }
        Ok(())
    }

    fn handle(
        &mut self,
        pdu: ControllerPdu,
        done: &mut Vec<Done>,
        now: Instant,
    ) -> Result<(), QueueError> {
        match pdu {
            ControllerPdu::IcResp(response) => self.greeted(&response, now),
            ControllerPdu::CapsuleResp(response) => self.answered(response.completion, done),
            ControllerPdu::C2hData(data) => self.data_begins(&data),
            ControllerPdu::R2t(request) => self.asked(&request),
            ControllerPdu::TermReq(request) => Err(QueueError::Terminated(request)),
        }
    }

    /// The target has answered the greeting: connect.
    fn greeted(&mut self, response: &IcResp, now: Instant) -> Result<(), QueueError> {
        let request = greeting(&self.settings);
        response.check_against(&request)?;
        if request.header_digest && !response.header_digest {
            return Err(QueueError::NoDigest("header"));
        }
        if request.data_digest && !response.data_digest {
            return Err(QueueError::NoDigest("data"));
        }
        self.format = response.host_format();
        self.max_h2c_data = response.max_h2c_data;
        self.decoder.establish(Rules {
            format: response.controller_format(&request),
            max_capsule_data: 0,
            max_data: u32::MAX,
        });
        let id = self.settings.id;
        let connect = FabricsCommand::Connect(Connect {
            qid: id,
            sqsize: self.settings.depth,
            disable_sq_flow_control: id > 0,
            kato_ms: u32::try_from(self.settings.keep_alive.as_millis()).unwrap_or(u32::MAX),
            ..Connect::default()
        });
        let slot = self.slots.put(Slot {
            token: 0,
            payload: Payload::None,
            base: 0,
            wanted: 0,
            moved: 0,
            unsent: 0,
            damaged: false,
            since: Some(now),
            answer: None,
        });
        let slot = slot.expect("nothing is in flight yet");
        // The data of Connect always goes in the capsule.
        let data = self.settings.identity.as_bytes();
        let sgl = SglDescriptor::in_capsule(data.len() as u32);
        let command = connect.to_command().with_cid(slot).with_sgl(sgl);
        let capsule = CapsuleCmd { command };
        self.outbox
            .push(&capsule.encode(&self.format, data.len() as u32));
        self.outbox.push(data);
        if self.format.data_digest {
            let digest = crc32c(data);
            self.outbox.push(&digest.to_le_bytes());
        }
        self.stage = Stage::Connecting(slot);
        Ok(())
    }

    /// A command is answered.
    fn answered(&mut self, completion: Completion, done: &mut Vec<Done>) -> Result<(), QueueError> {
        let id = completion.cid.get();
        let unknown = |id| QueueError::Breach {
            what: format!("it answers command {id}, which is not in flight"),
            reason: FatalError::InvalidHeaderField {
                offset: RESPONSE_CID,
            },
        };
        let slot = self.slots.get_mut(id).ok_or_else(|| unknown(id))?;
        if slot.answer.is_some() {
            return Err(unknown(id));
        }
        if self.stage == Stage::Connecting(id) {
            self.slots.take(id);
            self.stage = Stage::Live(self.admitted(&completion)?);
        } else if slot.unsent > 0 {
            slot.answer = Some(completion);
        } else {
            self.finish(id, completion, done);
        }
        Ok(())
    }

    /// Connect is answered: the controller identifier.
    fn admitted(&self, completion: &Completion) -> Result<u16, QueueError> {
        let (status, result) = (completion.status(), completion.dw0.get());
        if !status.is_success() {
            let names_parameter = status.is(Status::CONNECT_INVALID_PARAMETERS);
            return Err(QueueError::Refused {
                queue: self.settings.id,
                status,
                parameter: ConnectParameter::from_result(result).filter(|_| names_parameter),
            });
        }
        let result = ConnectResult::from_dword(result);
        if result.authentication_required || result.secure_channel_required {
            return Err(QueueError::Authentication);
        }
        Ok(result.cntlid)
    }

    /// Data of a command follows.
    fn data_begins(&mut self, data: &C2hData) -> Result<(), QueueError> {
        let breach = |reason, what: String| Err(QueueError::Breach { what, reason });
        let inbound = |slot: &&mut Slot| slot.payload.is_inbound() && slot.answer.is_none();
        let Some(slot) = self.slots.get_mut(data.cccid).filter(inbound) else {
            let what = format!(
                "it sends data of command {}, which expects none",
                data.cccid
            );
            return breach(FatalError::InvalidHeaderField { offset: CCCID }, what);
        };
        if data.offset != slot.moved || data.end() > u64::from(slot.wanted) {
            let what = format!(
                "it sends bytes {}..{} of command {}, where {}..{} are due",
                data.offset,
                data.end(),
                data.cccid,
                slot.moved,
                slot.wanted
            );
            return breach(FatalError::DataOutOfRange, what);
        }
        // What is thrown away has no place of its own. What is checked comes by way of the inbox.
        let unseen = slot.payload.is_discarded() && !self.format.data_digest;
        self.large = data.len >= LARGE && (unseen || slot.room().is_some());
        self.inbound = Some(Inbound {
            slot: data.cccid,
            success: data.success,
        });
        Ok(())
    }

    /// The data of a PDU is complete.
    fn data_ends(&mut self, end: PayloadEnd, done: &mut Vec<Done>) {
        let Some(inbound) = self.inbound.take() else {
            return;
        };
        let slot = self.slots.get_mut(inbound.slot);
        let slot = slot.expect("the command is in flight while its data arrives");
        slot.damaged |= matches!(end, PayloadEnd::Corrupt { .. });
        if inbound.success {
            let completion = Completion::new(inbound.slot, Status::SUCCESS);
            self.finish(inbound.slot, completion, done);
        }
    }

    /// The target asks for data of a command.
    fn asked(&mut self, request: &R2t) -> Result<(), QueueError> {
        let breach = |reason, what: String| Err(QueueError::Breach { what, reason });
        let id = request.cccid;
        let outbound = |slot: &&Slot| slot.payload.is_outbound() && slot.answer.is_none();
        let Some(slot) = self.slots.get(id).filter(outbound) else {
            let what = format!("it asks for data of command {id}, which has none");
            return breach(FatalError::InvalidHeaderField { offset: CCCID }, what);
        };
        if slot.unsent > 0 {
            let what = format!("it asks twice at once for data of command {id}");
            return breach(FatalError::LimitExceeded, what);
        }
        if request.offset != slot.moved || request.end() > u64::from(slot.wanted) {
            let what = format!(
                "it asks for bytes {}..{} of command {id}, where {}..{} are due",
                request.offset,
                request.end(),
                slot.moved,
                slot.wanted
            );
            return breach(FatalError::DataOutOfRange, what);
        }
        let end = request.offset + request.len;
        let mut offset = request.offset;
        while offset < end {
            let len = self.max_h2c_data.min(end - offset);
            let data = H2cData {
                cccid: id,
                ttag: request.ttag,
                offset,
                len,
                last: offset + len == end,
            };
            self.push_pdu(&data.encode(&self.format), id, offset..offset + len);
            offset += len;
        }
        let slot = self.slots.get_mut(id);
        slot.expect("looked up above").moved = end;
        Ok(())
    }

    /// Gives a command back to its owner.
    fn finish(&mut self, id: u16, completion: Completion, done: &mut Vec<Done>) {
        let slot = self.slots.take(id);
        let slot = slot.expect("the command is in flight until it is finished");
        let (moved, wanted) = (slot.moved, slot.wanted);
        let outcome = if !completion.status().is_success() {
            Err(CommandError::Status(completion.status()))
        } else if slot.damaged {
            Err(CommandError::DataDigest)
        } else if moved < wanted {
            Err(CommandError::Short { moved, wanted })
        } else {
            Ok(completion)
        };
        done.push(Done {
            token: slot.token,
            outcome,
            payload: slot.payload,
        });
    }

    /// Looks for answers that are overdue. To be called now and then.
    ///
    /// # Errors
    /// [`QueueError::Timeout`], or what ended the queue before.
    pub fn tick(&mut self, now: Instant) -> Result<(), QueueError> {
        let patience = self.settings.patience;
        let late = |since: Instant| now.saturating_duration_since(since) > patience;
        let what = match &self.stage {
            Stage::Failed(error) => return Err(error.clone()),
            Stage::Greeting => late(self.since).then(|| "the greeting".to_owned()),
            Stage::Connecting(_) | Stage::Live(_) => {
                if now < self.since + SEARCH_EVERY {
                    return Ok(());
                }
                self.since = now;
                let overdue = |slot: &Slot| slot.since.is_some_and(late);
                let overdue = self.slots.iter().find(|(_, slot)| overdue(slot));
                overdue.map(|(id, _)| match self.stage {
                    Stage::Connecting(_) => "Connect".to_owned(),
                    _ => format!("command {id}"),
                })
            }
        };
        match what {
            Some(what) => Err(self.fail(QueueError::Timeout { what, patience })),
            None => Ok(()),
        }
    }

    /// Ends the queue, for instance because its socket is gone; the first reason stays. Where the
    /// target is to blame, a termination request waits to be sent. Returns the reason.
    pub fn fail(&mut self, error: QueueError) -> QueueError {
        if let Stage::Failed(first) = &self.stage {
            return first.clone();
        }
        if let Stage::Connecting(id) = self.stage {
            // Nobody has asked for Connect, so nobody is told of its end.
            self.slots.take(id);
        }
        if let Some(reason) = error.reason() {
            self.outbox.push(&self.decoder.term_req(reason));
        }
        self.stage = Stage::Failed(error.clone());
        error
    }

    /// Ends the queue and gives back every command in flight, as lost. Nothing is left to be sent.
    pub fn abandon(&mut self, done: &mut Vec<Done>) {
        self.fail(QueueError::Closed);
        self.outbox.clear();
        self.inbound = None;
        for slot in self.slots.drain() {
            done.push(Done {
                token: slot.token,
                outcome: Err(CommandError::Lost),
                payload: slot.payload,
            });
        }
    }
}

fn greeting(settings: &QueueSettings) -> IcReq {
    IcReq {
        alignment: DataAlignment::default(),
        header_digest: settings.header_digest,
        data_digest: settings.data_digest,
        max_r2t: 1,
    }
}
