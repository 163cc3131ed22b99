//! A host: it says exactly what a test tells it to, and reads what comes back.

use std::collections::VecDeque;
use std::time::Duration;

use zerocopy::IntoBytes;

use super::pipe::Pipe;
use super::world::{HOST, NQN, World};
use crate::nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, FabricsCommand};
use crate::nvme::property::{Configuration, Property};
use crate::nvme::tcp::digest::crc32c;
use crate::nvme::tcp::{
    CapsuleCmd, ControllerPdu, Decoder, Event, FromController, H2cData, IcReq, IcResp, PayloadEnd,
    PduFormat, R2t, Rules, TermReq, Wanted,
};
use crate::nvme::{Command, Completion, Nqn, SglDescriptor, Status};

/// A PDU from the controller, with its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub pdu: ControllerPdu,
    pub data: Vec<u8>,
}

/// One connection of a host.
pub struct Host {
    pub pipe: Pipe,
    decoder: Decoder<FromController>,
    /// Format of PDUs to the controller.
    pub format: PduFormat,
    inbox: VecDeque<Received>,
    partial: Option<Received>,
    next_cid: u16,
}

/// A command that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub completion: Completion,
    pub data: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> Status {
        self.completion.status()
    }
}

/// What an ICReq asks for.
pub fn icreq(header_digest: bool, data_digest: bool) -> IcReq {
    IcReq {
        alignment: Default::default(),
        header_digest,
        data_digest,
        max_r2t: 1,
    }
}

/// A Connect for queue `qid` of `entries` entries.
pub fn connect(qid: u16, entries: u16) -> Connect {
    Connect {
        qid,
        sqsize: entries - 1,
        ..Connect::default()
    }
}

/// The data of a Connect.
pub fn connect_data(cntlid: u16) -> ConnectData {
    let subsystem = Nqn::new(NQN).expect("a name");
    let host = Nqn::new(HOST).expect("a name");
    ConnectData::new([0x11; 16], cntlid, &subsystem, &host)
}

impl Host {
    pub fn new(pipe: Pipe) -> Self {
        Self {
            pipe,
            decoder: Decoder::new(),
            format: PduFormat::default(),
            inbox: VecDeque::new(),
            partial: None,
            next_cid: 0,
        }
    }

    /// An I/O queue of a new association, after everything that comes before.
    pub fn queue(world: &mut World) -> (Host, Host) {
        let (admin, cntlid) = Host::admin(world);
        let io = Host::io(world, cntlid, 1);
        (admin, io)
    }

    /// An enabled admin queue, and its controller's identifier.
    pub fn admin(world: &mut World) -> (Host, u16) {
        let mut admin = world.dial();
        admin.initialize(world, &icreq(false, false));
        let answer = admin.connect(world, connect(0, 32), &connect_data(CNTLID_DYNAMIC));
        assert!(answer.status().is_success(), "{answer:?}");
        let cntlid = answer.completion.result64() as u16;
        admin.enable(world);
        (admin, cntlid)
    }

    /// An I/O queue of 32 entries.
    pub fn io(world: &mut World, cntlid: u16, qid: u16) -> Host {
        Self::deep(world, cntlid, qid, 32)
    }

    /// An I/O queue of so many entries.
    pub fn deep(world: &mut World, cntlid: u16, qid: u16, entries: u16) -> Host {
        let mut io = world.dial();
        io.initialize(world, &icreq(false, false));
        let answer = io.connect(world, connect(qid, entries), &connect_data(cntlid));
        assert!(answer.status().is_success(), "{answer:?}");
        io
    }

    /// Sets CC.EN.
    pub fn enable(&mut self, world: &mut World) {
        let set = self.property_set(world, Property::Configuration, Configuration::nvm_host().0);
        assert!(set.status().is_success(), "{set:?}");
    }

    pub fn property_set(&mut self, world: &mut World, property: Property, value: u32) -> Answer {
        let command = FabricsCommand::PropertySet {
            size: property.size(),
            offset: property.code(),
            value: value.into(),
        };
        self.run(world, command.to_command(), &[])
    }

    pub fn property_get(&mut self, world: &mut World, property: Property) -> u64 {
        let command = FabricsCommand::PropertyGet {
            size: property.size(),
            offset: property.code(),
        };
        let answer = self.run(world, command.to_command(), &[]);
        assert!(answer.status().is_success(), "{answer:?}");
        answer.completion.result64()
    }

    /// ICReq and ICResp.
    pub fn initialize(&mut self, world: &mut World, request: &IcReq) -> IcResp {
        self.pipe.put(&request.encode());
        world.settle();
        let received = self.next(world);
        let ControllerPdu::IcResp(response) = received.pdu else {
            panic!("{received:?} is no ICResp");
        };
        response.check_against(request).expect("what was asked for");
        self.format = response.host_format();
        self.decoder.establish(Rules {
            format: response.controller_format(request),
            max_capsule_data: 0,
            max_data: u32::MAX,
        });
        response
    }

    pub fn connect(&mut self, world: &mut World, connect: Connect, data: &ConnectData) -> Answer {
        let command = FabricsCommand::Connect(connect).to_command();
        self.run(world, command, data.as_bytes())
    }

    /// The next command identifier.
    pub fn cid(&mut self) -> u16 {
        self.next_cid = self.next_cid.wrapping_add(1);
        self.next_cid
    }

    /// Puts a command on the wire as it is, with `data` in the capsule.
    pub fn send(&mut self, command: &Command, data: &[u8]) {
        let capsule = CapsuleCmd { command: *command };
        let mut bytes = capsule.encode(&self.format, data.len() as u32).to_vec();
        bytes.extend_from_slice(data);
        if self.format.data_digest && !data.is_empty() {
            bytes.extend_from_slice(&crc32c(data).to_le_bytes());
        }
        self.pipe.put(&bytes);
    }

    /// Puts a command on the wire whose data digest is wrong.
    pub fn send_corrupt(&mut self, command: &Command, data: &[u8]) {
        let capsule = CapsuleCmd { command: *command };
        let mut bytes = capsule.encode(&self.format, data.len() as u32).to_vec();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(&(!crc32c(data)).to_le_bytes());
        self.pipe.put(&bytes);
    }

    /// Sends a command with a fresh identifier and its data, if any, in the capsule; gives the
    /// identifier.
    pub fn submit(&mut self, command: Command, data: &[u8]) -> u16 {
        let cid = self.cid();
        let sgl = if data.is_empty() {
            SglDescriptor::transport(0)
        } else {
            SglDescriptor::in_capsule(data.len() as u32)
        };
        let command = if command.data.length.get() > 0 {
            command
        } else {
            Command {
                data: sgl,
                ..command
            }
        };
        self.send(&command.with_cid(cid), data);
        cid
    }

    /// Sends a command that gets `len` bytes; gives its identifier.
    pub fn submit_read(&mut self, command: Command, len: u32) -> u16 {
        let command = command.with_sgl(SglDescriptor::transport(len));
        self.submit(command, &[])
    }

    /// Sends a command whose data is to be asked for; gives its identifier.
    pub fn submit_large(&mut self, command: Command, len: usize) -> u16 {
        let command = command.with_sgl(SglDescriptor::transport(len as u32));
        self.submit(command, &[])
    }

    /// Sends an H2CData.
    pub fn send_data(&mut self, pdu: H2cData, data: &[u8]) {
        let mut bytes = pdu.encode(&self.format).to_vec();
        bytes.extend_from_slice(data);
        if self.format.data_digest {
            bytes.extend_from_slice(&crc32c(data).to_le_bytes());
        }
        self.pipe.put(&bytes);
    }

    /// Answers an R2T with data in pieces of `piece` bytes.
    pub fn answer(&mut self, request: &R2t, data: &[u8], piece: usize) {
        let wanted = &data[request.offset as usize..request.end() as usize];
        let mut offset = request.offset;
        for chunk in wanted.chunks(piece) {
            let end = offset + chunk.len() as u32;
            let pdu = H2cData {
                cccid: request.cccid,
                ttag: request.ttag,
                offset,
                len: chunk.len() as u32,
                last: u64::from(end) == request.end(),
            };
            self.send_data(pdu, chunk);
            offset = end;
        }
    }

    /// Runs a command to its end: `data` in the capsule, or what a read gives.
    pub fn run(&mut self, world: &mut World, command: Command, data: &[u8]) -> Answer {
        let cid = self.submit(command, data);
        self.finish(world, cid)
    }

    /// Runs a command that gets `len` bytes.
    pub fn fetch(&mut self, world: &mut World, command: Command, len: u32) -> Answer {
        let cid = self.submit_read(command, len);
        self.finish(world, cid)
    }

    /// Runs a command whose data is asked for.
    pub fn push(&mut self, world: &mut World, command: Command, data: &[u8]) -> Answer {
        let cid = self.submit_large(command, data.len());
        let request = self.expect_r2t(world);
        assert_eq!(request.cccid, cid);
        self.answer(&request, data, 4096);
        self.finish(world, cid)
    }

    /// Waits for the completion of a command, gathering its data. Those of others stay to be
    /// waited for.
    pub fn finish(&mut self, world: &mut World, cid: u16) -> Answer {
        let mut data = Vec::new();
        let mut others = VecDeque::new();
        let answer = loop {
            let received = self.next(world);
            match received.pdu {
                ControllerPdu::CapsuleResp(response) if response.completion.cid.get() == cid => {
                    break Answer {
                        completion: response.completion,
                        data,
                    };
                }
                ControllerPdu::C2hData(pdu) if pdu.cccid == cid => {
                    assert_eq!(pdu.offset as usize, data.len());
                    data.extend(received.data);
                    if pdu.success {
                        break Answer {
                            completion: Completion::new(cid, Status::SUCCESS),
                            data,
                        };
                    }
                }
                ControllerPdu::TermReq(request) => panic!("the controller ends it: {request}"),
                _ => others.push_back(received),
            }
        };
        others.append(&mut self.inbox);
        self.inbox = others;
        answer
    }

    /// The next R2T.
    pub fn expect_r2t(&mut self, world: &mut World) -> R2t {
        let received = self.next(world);
        match received.pdu {
            ControllerPdu::R2t(request) => request,
            other => panic!("{other:?} is no R2T"),
        }
    }

    /// The next termination request.
    pub fn expect_term(&mut self, world: &mut World) -> TermReq {
        let received = self.next(world);
        match received.pdu {
            ControllerPdu::TermReq(request) => request,
            other => panic!("{other:?} is no termination request"),
        }
    }

    /// The next PDU, which must come. Some things are done by other threads, in time that is real.
    pub fn next(&mut self, world: &mut World) -> Received {
        for turn in 0..22_000 {
            if let Some(received) = self.poll() {
                return received;
            }
            world.turn();
            if turn > 2000 {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
        panic!("nothing comes");
    }

    /// Whether nothing comes however many turns pass.
    pub fn is_silent(&mut self, world: &mut World) -> bool {
        world.settle();
        self.poll().is_none()
    }

    /// How many commands were answered since the last look.
    pub fn answered(&mut self) -> usize {
        let mut count = 0;
        while let Some(received) = self.poll() {
            count += usize::from(matches!(received.pdu, ControllerPdu::CapsuleResp(_)));
        }
        count
    }

    /// The next PDU, if it is there.
    pub fn poll(&mut self) -> Option<Received> {
        let bytes = self.pipe.take();
        let mut input = &bytes[..];
        while !input.is_empty() {
            match self.decoder.wanted() {
                Wanted::Framing(_) => {
                    let fed = self
                        .decoder
                        .feed(input)
                        .expect("the controller keeps the rules");
                    input = &input[fed.used..];
                    match fed.event {
                        Some(Event::Pdu { pdu, payload }) => {
                            let received = Received {
                                pdu,
                                data: Vec::new(),
                            };
                            if payload == 0 {
                                self.inbox.push_back(received);
                            } else {
                                self.partial = Some(received);
                            }
                        }
                        Some(Event::PayloadEnd(end)) => self.payload_ended(end),
                        None => {}
                    }
                }
                Wanted::Payload(left) => {
                    let (piece, rest) = input.split_at(input.len().min(left as usize));
                    input = rest;
                    let partial = self.partial.as_mut().expect("a payload has a PDU");
                    partial.data.extend_from_slice(piece);
                    if let Some(end) = self.decoder.payload(piece) {
                        self.payload_ended(end);
                    }
                }
            }
        }
        self.inbox.pop_front()
    }

    fn payload_ended(&mut self, end: PayloadEnd) {
        assert!(!matches!(end, PayloadEnd::Corrupt { .. }), "{end:?}");
        self.inbox.extend(self.partial.take());
    }
}
