//! A small target for tests, written with the codec alone: it holds a host to the letter of the
//! protocol (and panics where the host breaks it), and can be told to answer in odd manners.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use zerocopy::{FromBytes, IntoBytes};

use crate::nvme::admin::AdminCommand;
use crate::nvme::fabrics::{ConnectData, ConnectResult, FabricsCommand};
use crate::nvme::feature::{FeatureId, NumberOfQueues};
use crate::nvme::identify::{Cns, IdentifyController, IdentifyNamespace, NamespaceList};
use crate::nvme::io::IoCommand;
use crate::nvme::opcode::{AdminOpcode, IoOpcode};
use crate::nvme::property::{Capabilities, ControllerStatus, Property, Version};
use crate::nvme::tcp::digest::{Crc32c, crc32c};
use crate::nvme::tcp::{
    C2hData, CapsuleResp, DataAlignment, Decoder, Event, FromHost, H2cData, HostPdu, IcResp,
    PayloadEnd, PduFormat, R2t, Rules, Wanted,
};
use crate::nvme::{Command, Completion, Sgl, Status};

/// How the target behaves.
#[derive(Clone, Debug)]
pub(crate) struct Manner {
    /// Grant header digests to a host that asks.
    pub header_digest: bool,
    /// Grant data digests to a host that asks.
    pub data_digest: bool,
    /// CPDA.
    pub alignment: u8,
    /// Data that fits into a capsule.
    pub in_capsule: u32,
    /// MAXH2CDATA.
    pub max_h2c_data: u32,
    /// Data asked for with one R2T.
    pub r2t: u32,
    /// Data sent with one C2HData.
    pub c2h: u32,
    /// Use the SUCCESS flag where the host allows it.
    pub success: bool,
    /// Answer what is there at once in an order made of this number; 0 for the order of arrival.
    pub shuffle: u64,
    /// MDTS.
    pub mdts: u8,
    /// Most I/O queues.
    pub io_queues: u16,
    /// CAP.MQES.
    pub max_queue_entries: u16,
    /// Looks at CSTS before it is ready.
    pub looks: u32,
    /// Status of I/O commands that touch this block.
    pub bad_block: Option<(u64, Status)>,
    /// ONCS.
    pub optional: u16,
    /// NGUID of the namespaces.
    pub nguid: [u8; 16],
    /// There is a volatile write cache (VWC).
    pub write_cache: bool,
    /// Status of Flush.
    pub flushes: Status,
    /// The I/O commands that it was sent.
    pub heard: Arc<Mutex<Vec<IoCommand>>>,
}

/// What a target may do that no target should, once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Misdeed {
    /// Bytes that are no PDU instead of the answers.
    Garbage,
    /// An answer to a command that is not in flight.
    WrongCid,
    /// Half of the answers, and the end of the connection.
    Truncated,
    /// The last bit of the answers is another: a digest, where there are digests.
    Flipped,
    /// No answers from now on.
    Mute,
    /// The end of the connection instead of the answers.
    Closed,
}

impl Misdeed {
    pub const ALL: [Self; 6] = [
        Self::Garbage,
        Self::WrongCid,
        Self::Truncated,
        Self::Flipped,
        Self::Mute,
        Self::Closed,
    ];

    /// Does it to the answers that are to be sent. Says whether the connection goes on.
    fn spoil(self, format: &PduFormat, output: &mut Vec<u8>, mute: &mut bool) -> bool {
        match self {
            Self::Garbage => *output = vec![0xee; 100],
            Self::WrongCid => {
                let completion = Completion::new(0x7777, Status::SUCCESS);
                *output = CapsuleResp { completion }.encode(format).to_vec();
            }
            Self::Truncated => output.truncate(output.len() / 2),
            Self::Flipped => {
                if let Some(last) = output.last_mut() {
                    *last ^= 1;
                }
            }
            Self::Mute => *mute = true,
            Self::Closed => output.clear(),
        }
        !matches!(self, Self::Truncated | Self::Closed)
    }
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            header_digest: true,
            data_digest: true,
            alignment: 0,
            in_capsule: 8192,
            max_h2c_data: 131_072,
            r2t: 131_072,
            c2h: 131_072,
            success: true,
            shuffle: 0,
            mdts: 5,
            io_queues: 8,
            max_queue_entries: 127,
            looks: 2,
            bad_block: None,
            optional: 0,
            nguid: [0; 16],
            write_cache: false,
            flushes: Status::SUCCESS,
            heard: Arc::default(),
        }
    }
}

/// A namespace of 4096-byte blocks, shared by all connections.
pub(crate) type Disk = Arc<Mutex<Vec<u8>>>;

pub(crate) const BLOCK: usize = 4096;

/// A zeroed disk.
pub(crate) fn disk(blocks: usize) -> Disk {
    Arc::new(Mutex::new(vec![0; blocks * BLOCK]))
}

/// The controller's end of one connection.
#[derive(Debug)]
pub(crate) struct FakeTarget {
    manner: Manner,
    disk: Disk,
    decoder: Decoder<FromHost>,
    format: PduFormat,
    max_r2t: u64,
    queue: Option<(u16, bool)>,
    sqsize: u16,
    in_flight: HashMap<u16, Option<Transfer>>,
    receiving: Option<(HostPdu, Vec<u8>)>,
    replies: Vec<(Completion, Vec<u8>)>,
    output: Vec<u8>,
    looks: u32,
    /// Commands executed.
    pub executed: u64,
    /// Set when the host sent a termination request.
    pub terminated: bool,
}

/// A write whose data is being asked for.
#[derive(Debug)]
struct Transfer {
    command: Command,
    data: Vec<u8>,
    wanted: usize,
    asked: usize,
    tag: u16,
}

impl FakeTarget {
    pub fn new(manner: Manner, disk: Disk) -> Self {
        Self {
            looks: manner.looks,
            manner,
            disk,
            decoder: Decoder::new(),
            format: PduFormat::default(),
            max_r2t: 0,
            queue: None,
            sqsize: 0,
            in_flight: HashMap::new(),
            receiving: None,
            replies: Vec::new(),
            output: Vec::new(),
            executed: 0,
            terminated: false,
        }
    }

    /// Takes bytes from the host.
    pub fn input(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Wanted::Payload(left) = self.decoder.wanted() {
                let (piece, rest) = bytes.split_at(bytes.len().min(left as usize));
                bytes = rest;
                let end = self.decoder.payload(piece);
                let (_, data) = self.receiving.as_mut().expect("a PDU with data");
                data.extend_from_slice(piece);
                if let Some(end) = end {
                    self.data_ends(end);
                }
                continue;
            }
            let fed = self.decoder.feed(bytes).expect("a host that knows PDUs");
            bytes = &bytes[fed.used..];
            match fed.event {
                Some(Event::Pdu { pdu, payload: 0 }) => self.handle(pdu, Vec::new()),
                Some(Event::Pdu { pdu, .. }) => self.receiving = Some((pdu, Vec::new())),
                Some(Event::PayloadEnd(end)) => self.data_ends(end),
                None => {}
            }
        }
    }

    /// The bytes for the host.
    pub fn output(&mut self) -> Vec<u8> {
        let mut state = self.manner.shuffle;
        let mut replies = std::mem::take(&mut self.replies);
        while !replies.is_empty() {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let at = match self.manner.shuffle {
                0 => 0,
                _ => (state >> 33) as usize % replies.len(),
            };
            let (completion, data) = replies.remove(at);
            self.reply(completion, &data);
        }
        if self.manner.shuffle != 0 {
            self.manner.shuffle = state | 1;
        }
        std::mem::take(&mut self.output)
    }

    fn data_ends(&mut self, end: PayloadEnd) {
        assert!(!matches!(end, PayloadEnd::Corrupt { .. }), "{end:?}");
        let (pdu, data) = self.receiving.take().expect("a PDU with data");
        self.handle(pdu, data);
    }

    fn handle(&mut self, pdu: HostPdu, data: Vec<u8>) {
        match pdu {
            HostPdu::IcReq(request) => {
                let response = IcResp {
                    alignment: DataAlignment::from_code(self.manner.alignment).expect("CPDA"),
                    header_digest: request.header_digest && self.manner.header_digest,
                    data_digest: request.data_digest && self.manner.data_digest,
                    max_h2c_data: self.manner.max_h2c_data,
                };
                self.output.extend_from_slice(&response.encode());
                self.format = response.controller_format(&request);
                self.max_r2t = request.max_r2t;
                self.decoder.establish(Rules {
                    format: response.host_format(),
                    max_capsule_data: 8192,
                    max_data: self.manner.max_h2c_data,
                });
            }
            HostPdu::CapsuleCmd(capsule) => self.command(capsule.command, data),
            HostPdu::H2cData(header) => self.data(&header, &data),
            HostPdu::TermReq(_) => self.terminated = true,
        }
    }

    fn command(&mut self, command: Command, data: Vec<u8>) {
        let cid = command.cid.get();
        let known = self.in_flight.insert(cid, None);
        assert!(known.is_none(), "command {cid} is in flight twice");
        if self.queue.is_some() {
            let most = usize::from(self.sqsize);
            assert!(self.in_flight.len() <= most, "the queue overflows");
        }
        match command.data.parse() {
            Sgl::Transport { len } if self.is_write(&command) => {
                let transfer = Transfer {
                    command,
                    data: Vec::new(),
                    wanted: len as usize,
                    asked: 0,
                    tag: cid ^ 0x5555,
                };
                self.in_flight.insert(cid, Some(transfer));
                self.ask(cid);
            }
            Sgl::InCapsule { offset: 0, len } => {
                assert_eq!(len as usize, data.len());
                let admin = self.queue.is_none_or(|(id, _)| id == 0) || command.is_fabrics();
                assert!(
                    admin || len <= self.manner.in_capsule,
                    "too much in a capsule"
                );
                self.execute(&command, &data);
            }
            _ => {
                assert!(data.is_empty(), "data that no descriptor describes");
                self.execute(&command, &data);
            }
        }
    }

    fn is_write(&self, command: &Command) -> bool {
        let sends = [IoOpcode::Write.code(), IoOpcode::Compare.code()];
        self.queue.is_some_and(|(id, _)| id > 0) && sends.contains(&command.opcode)
    }

    fn ask(&mut self, cid: u16) {
        let transfer = self.in_flight.get_mut(&cid).and_then(Option::as_mut);
        let transfer = transfer.expect("a write with data");
        let len = (transfer.wanted - transfer.asked).min(self.manner.r2t as usize);
        let request = R2t {
            cccid: cid,
            ttag: transfer.tag,
            offset: transfer.asked as u32,
            len: len as u32,
        };
        transfer.asked += len;
        self.output.extend_from_slice(&request.encode(&self.format));
    }

    fn data(&mut self, header: &H2cData, data: &[u8]) {
        let transfer = self
            .in_flight
            .get_mut(&header.cccid)
            .and_then(Option::as_mut);
        let transfer = transfer.expect("data of a write that asked for it");
        assert_eq!(header.ttag, transfer.tag);
        assert_eq!(header.offset as usize, transfer.data.len());
        assert!(
            header.end() <= transfer.asked as u64,
            "data outside its R2T"
        );
        transfer.data.extend_from_slice(data);
        let last = transfer.data.len() == transfer.asked;
        assert_eq!(header.last, last, "LAST_PDU at the end of each R2T only");
        if transfer.data.len() == transfer.wanted {
            let transfer = self.in_flight.insert(header.cccid, None).flatten();
            let Transfer { command, data, .. } = transfer.expect("looked up above");
            self.execute(&command, &data);
        } else if last {
            self.ask(header.cccid);
        }
    }

    fn execute(&mut self, command: &Command, data: &[u8]) {
        self.executed += 1;
        let cid = command.cid.get();
        let waits = AdminOpcode::AsyncEventRequest.code();
        if matches!(self.queue, Some((0, _))) && command.opcode == waits {
            // Nothing ever happens.
            return;
        }
        let (status, result, data) = match self.queue {
            _ if command.is_fabrics() => self.fabrics(command, data),
            None => (Status::COMMAND_SEQUENCE_ERROR, 0, Vec::new()),
            Some((0, _)) => self.admin(command),
            Some(_) => self.io(command, data),
        };
        let completion = Completion::new(cid, status).with_result64(result);
        self.replies.push((completion, data));
    }

    fn fabrics(&mut self, command: &Command, data: &[u8]) -> (Status, u64, Vec<u8>) {
        let ok = |result| (Status::SUCCESS, result, Vec::new());
        match FabricsCommand::parse(command).expect("a fabrics command") {
            FabricsCommand::Connect(connect) => {
                let data = ConnectData::read_from_bytes(data).expect("1024 bytes");
                let wanted = if connect.qid == 0 { 0xffff } else { 7 };
                assert_eq!(data.cntlid.get(), wanted);
                assert!(data.subsystem().is_ok() && data.host().is_ok());
                assert!(connect.sqsize > 0 && connect.recfmt == 0);
                self.sqsize = connect.sqsize;
                self.queue = Some((connect.qid, connect.disable_sq_flow_control));
                let result = ConnectResult {
                    cntlid: 7,
                    authentication_required: false,
                    secure_channel_required: false,
                };
                ok(result.dword().into())
            }
            FabricsCommand::PropertyGet { offset, .. } => match Property::from_code(offset) {
                Some(Property::Capabilities) => {
                    let capabilities = Capabilities {
                        max_queue_entries: self.manner.max_queue_entries,
                        timeout: 10,
                        command_sets: Capabilities::CSS_NVM,
                        ..Capabilities::from_value(0)
                    };
                    ok(capabilities.value())
                }
                Some(Property::Version) => ok(Version::V2_0.value().into()),
                Some(Property::Status) => {
                    let ready = self.looks == 0;
                    self.looks = self.looks.saturating_sub(1);
                    let status = ControllerStatus {
                        ready,
                        ..ControllerStatus::from_value(0)
                    };
                    ok(status.value().into())
                }
                other => panic!("nobody needs {other:?}"),
            },
            FabricsCommand::PropertySet { .. } => ok(0),
            other => panic!("nobody needs {other:?}"),
        }
    }

    fn admin(&mut self, command: &Command) -> (Status, u64, Vec<u8>) {
        let data = |bytes: &[u8]| (Status::SUCCESS, 0, bytes.to_vec());
        match AdminCommand::parse(command).expect("an admin command") {
            AdminCommand::Identify(identify) => match Cns::from_code(identify.cns) {
                Some(Cns::Controller) => {
                    let mut identify = IdentifyController::new();
                    identify.cntlid = 7.into();
                    identify.mdts = self.manner.mdts;
                    identify.ioccsz = ((64 + self.manner.in_capsule) / 16).into();
                    identify.iorcsz = 1.into();
                    identify.kas = 10.into();
                    identify.oncs = self.manner.optional.into();
                    if self.manner.write_cache {
                        identify.vwc = IdentifyController::VWC_PRESENT;
                    }
                    identify.sgls = (IdentifyController::SGLS_SUPPORTED
                        | IdentifyController::SGLS_OFFSET)
                        .into();
                    data(identify.as_bytes())
                }
                Some(Cns::ActiveNamespaces) => data(NamespaceList::from_ids([1, 3]).as_bytes()),
                Some(Cns::Namespace) => {
                    let blocks = self.disk.lock().unwrap().len() / BLOCK;
                    let blocks = match command.nsid.get() {
                        1 | 3 => blocks as u64,
                        _ => 0,
                    };
                    let mut identify = IdentifyNamespace::new(blocks, 12);
                    identify.nguid = self.manner.nguid;
                    data(identify.as_bytes())
                }
                other => panic!("nobody needs {other:?}"),
            },
            AdminCommand::SetFeatures(set)
                if set.fid == FeatureId::AsyncEventConfiguration.code() =>
            {
                (Status::SUCCESS, 0, Vec::new())
            }
            AdminCommand::GetLogPage(page) => {
                let mut bytes = vec![0; page.len as usize];
                // Composite temperature, in kelvins.
                bytes[1..3].copy_from_slice(&300u16.to_le_bytes());
                data(&bytes)
            }
            AdminCommand::SetFeatures(set) => {
                let wanted = NumberOfQueues::from_dword(set.value).expect("a number of queues");
                let granted = NumberOfQueues {
                    submission: wanted.submission.min(self.manner.io_queues),
                    completion: wanted.completion.min(self.manner.io_queues),
                };
                (Status::SUCCESS, granted.dword().into(), Vec::new())
            }
            AdminCommand::KeepAlive => (Status::SUCCESS, 0, Vec::new()),
            other => panic!("nobody needs {other:?}"),
        }
    }

    fn io(&mut self, command: &Command, data: &[u8]) -> (Status, u64, Vec<u8>) {
        let command = IoCommand::parse(command).expect("an I/O command");
        self.manner.heard.lock().unwrap().push(command);
        if command == IoCommand::Flush {
            return (self.manner.flushes, 0, Vec::new());
        }
        let mut disk = self.disk.lock().unwrap();
        let done = |data| (Status::SUCCESS, 0, data);
        let Some(range) = command.range() else {
            return done(Vec::new());
        };
        let end = range.slba + u64::from(range.blocks);
        if let Some((block, status)) = self.manner.bad_block
            && (range.slba..end).contains(&block)
        {
            return (status, 0, Vec::new());
        }
        let bytes = range.slba as usize * BLOCK..end as usize * BLOCK;
        let Some(place) = disk.get_mut(bytes) else {
            return (Status::LBA_OUT_OF_RANGE, 0, Vec::new());
        };
        match command {
            IoCommand::Read { .. } => done(place.to_vec()),
            IoCommand::Write { .. } => {
                place.copy_from_slice(data);
                done(Vec::new())
            }
            IoCommand::WriteZeroes { .. } => {
                place.fill(0);
                done(Vec::new())
            }
            IoCommand::Compare { .. } if place == data => done(Vec::new()),
            IoCommand::Compare { .. } => (Status::COMPARE_FAILURE, 0, Vec::new()),
            other => panic!("nobody needs {other:?}"),
        }
    }

    fn reply(&mut self, completion: Completion, data: &[u8]) {
        let cid = completion.cid.get();
        self.in_flight.remove(&cid);
        let ok = completion.status().is_success();
        let flow_control_off = self.queue.is_some_and(|(_, off)| off);
        let success = self.manner.success && flow_control_off && ok && !data.is_empty();
        let mut offset = 0;
        for piece in data.chunks(self.manner.c2h as usize) {
            let last = offset + piece.len() == data.len();
            let header = C2hData {
                cccid: cid,
                offset: offset as u32,
                len: piece.len() as u32,
                last,
                success: last && success,
            };
            offset += piece.len();
            self.output.extend_from_slice(&header.encode(&self.format));
            self.output.extend_from_slice(piece);
            if self.format.data_digest {
                let digest = Crc32c::of_pieces([piece]);
                assert_eq!(digest, crc32c(piece));
                self.output.extend_from_slice(&digest.to_le_bytes());
            }
        }
        if !success {
            let response = CapsuleResp { completion };
            self.output
                .extend_from_slice(&response.encode(&self.format));
        }
    }
}

/// The fake on a TCP port of loopback, in a thread of its own, until it is dropped.
#[derive(Debug)]
pub(crate) struct FakeServer {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// All connections are dropped when so many commands have been executed in all; then counting
    /// stops.
    die_at: Arc<AtomicU64>,
    /// What is done to the answers of the connection that executes the command with this number.
    misdeed: Arc<Mutex<Option<(u64, Misdeed)>>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeServer {
    pub fn start(manner: Manner, disk: Disk) -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"), manner, disk)
    }

    /// At this address, where it was before.
    pub fn start_at(address: SocketAddr, manner: Manner, disk: Disk) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        listener.set_nonblocking(true).expect("nonblocking");
        let address = listener.local_addr().expect("an address");
        let stop = Arc::new(AtomicBool::new(false));
        let die_at = Arc::new(AtomicU64::new(u64::MAX));
        let misdeed = Arc::new(Mutex::new(None));
        let (stopped, dies, misdoes) = (stop.clone(), die_at.clone(), misdeed.clone());
        let thread = std::thread::spawn(move || {
            serve(&listener, &manner, &disk, &stopped, &dies, &misdoes);
        });
        Self {
            address,
            stop,
            die_at,
            misdeed,
            thread: Some(thread),
        }
    }

    /// Drops all connections once `commands` more have been executed.
    pub fn die_after(&self, commands: u64) {
        self.die_at.store(commands, Ordering::SeqCst);
    }
}

impl FakeServer {
    /// Does that to the answer of the command after `commands` more.
    pub fn misbehave(&self, commands: u64, misdeed: Misdeed) {
        *self.misdeed.lock().unwrap() = Some((commands, misdeed));
    }

    /// Whether it has been done.
    pub fn has_misbehaved(&self) -> bool {
        self.misdeed.lock().unwrap().is_none()
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        if let Some(Err(panic)) = ended
            && !std::thread::panicking()
        {
            std::panic::resume_unwind(panic);
        }
    }
}

struct Guest {
    stream: TcpStream,
    target: FakeTarget,
    output: Vec<u8>,
    mute: bool,
}

impl Guest {
    /// Moves what there is. Says whether the connection goes on.
    fn turn(
        &mut self,
        bytes: &mut [u8],
        idle: &mut bool,
        misdeed: &mut Option<(u64, Misdeed)>,
    ) -> bool {
        let before = self.target.executed;
        // What is not answered need not have been done: a misdeed undoes it.
        let untouched = misdeed.map(|_| self.target.disk.lock().unwrap().clone());
        match self.stream.read(bytes) {
            Ok(0) => return false,
            Ok(count) => {
                self.target.input(&bytes[..count]);
                *idle = false;
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        let executed = self.target.executed - before;
        self.output.extend(self.target.output());
        let mut goes_on = true;
        if let Some((left, what)) = misdeed {
            if executed > *left {
                goes_on = what.spoil(&self.target.format, &mut self.output, &mut self.mute);
                *self.target.disk.lock().unwrap() = untouched.expect("there is a misdeed to do");
                *misdeed = None;
            } else {
                *left -= executed;
            }
        }
        if self.mute {
            self.output.clear();
        }
        match self.stream.write(&self.output) {
            Ok(count) => drop(self.output.drain(..count)),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return false,
        }
        goes_on && !self.target.terminated
    }
}

fn serve(
    listener: &TcpListener,
    manner: &Manner,
    disk: &Disk,
    stop: &AtomicBool,
    die_at: &AtomicU64,
    misdeed: &Mutex<Option<(u64, Misdeed)>>,
) {
    let mut connections: Vec<Guest> = Vec::new();
    let mut bytes = vec![0; 1 << 18];
    while !stop.load(Ordering::SeqCst) {
        if let Ok((stream, _)) = listener.accept() {
            stream.set_nonblocking(true).expect("nonblocking");
            stream.set_nodelay(true).expect("no delay");
            connections.push(Guest {
                stream,
                target: FakeTarget::new(manner.clone(), disk.clone()),
                output: Vec::new(),
                mute: false,
            });
        }
        let mut idle = true;
        let mut executed = 0;
        connections.retain_mut(|guest| {
            let before = guest.target.executed;
            let goes_on = guest.turn(&mut bytes, &mut idle, &mut misdeed.lock().unwrap());
            executed += guest.target.executed - before;
            goes_on
        });
        let left = die_at.load(Ordering::SeqCst);
        if left != u64::MAX && executed > 0 {
            if executed >= left {
                die_at.store(u64::MAX, Ordering::SeqCst);
                connections.clear();
            } else {
                die_at.store(left - executed, Ordering::SeqCst);
            }
        }
        if idle {
            std::thread::yield_now();
        }
    }
}
