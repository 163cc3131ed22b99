//! A host that says exactly what a test tells it to. PDUs that are right are encoded by the
//! program's own codec; what comes back is taken apart here, byte by byte as the specification
//! draws it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use stripewise::nvme::fabrics::{CNTLID_DYNAMIC, Connect, ConnectData, FabricsCommand};
use stripewise::nvme::property::{Configuration, Property};
use stripewise::nvme::tcp::digest::crc32c;
use stripewise::nvme::tcp::{CapsuleCmd, H2cData, IcReq, PduFormat};
use stripewise::nvme::{Command, Nqn, SglDescriptor};
use zerocopy::IntoBytes;

use super::plan::NQN;
use super::process::PATIENCE;

/// The largest PDU that anything here answers with.
const MOST: u32 = 4 << 20;

/// What a controller has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pdu {
    IcResp {
        max_h2c_data: u32,
        digests: u8,
    },
    Response(Response),
    Data {
        cid: u16,
        offset: u32,
        last: bool,
        success: bool,
        data: Vec<u8>,
    },
    R2t(R2t),
    Term(Term),
}

/// A completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Response {
    pub cid: u16,
    /// Status code type and status code, as `(0x1, 0x82)`.
    pub status: (u8, u8),
    pub do_not_retry: bool,
    /// Dword 0.
    pub result: u32,
}

/// A request for data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct R2t {
    pub cid: u16,
    pub tag: u16,
    pub offset: u32,
    pub len: u32,
}

/// A termination request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Term {
    pub fes: u16,
    pub fei: u32,
    /// The header at fault.
    pub header: Vec<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

/// Who a host says that it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    pub nqn: String,
    pub id: [u8; 16],
}

impl Name {
    /// Host number `number`; each number is another host.
    pub fn of(number: u8) -> Self {
        Self {
            nqn: format!("nqn.2026-11.io.stripewise:host{number}"),
            id: [number + 1; 16],
        }
    }
}

/// An ICReq with these digests.
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

/// The data of a Connect to the subsystem under test.
pub fn connect_data(host: &Name, cntlid: u16) -> ConnectData {
    let subsystem = Nqn::new(NQN).expect("a name");
    let nqn = Nqn::new(&host.nqn).expect("a name");
    ConnectData::new(host.id, cntlid, &subsystem, &nqn)
}

/// One connection.
#[derive(Debug)]
pub struct Queue {
    stream: TcpStream,
    /// Digests of both directions; alignment is 4.
    pub format: PduFormat,
    next_cid: u16,
}

impl Queue {
    /// A TCP connection, on which nothing has happened.
    pub fn dial(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).expect("a connection");
        stream.set_nodelay(true).expect("a socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a socket");
        Self {
            stream,
            format: PduFormat::default(),
            next_cid: 0,
        }
    }

    /// The same, with ICReq and ICResp exchanged.
    pub fn open(address: SocketAddr, request: &IcReq) -> Self {
        let mut queue = Self::dial(address);
        queue.send(&request.encode());
        let Pdu::IcResp { digests, .. } = queue.receive() else {
            panic!("the answer to an ICReq is an ICResp");
        };
        assert_eq!(digests & 1 != 0, request.header_digest);
        assert_eq!(digests & 2 != 0, request.data_digest);
        queue.format = PduFormat {
            header_digest: request.header_digest,
            data_digest: request.data_digest,
            ..PduFormat::default()
        };
        queue
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the target reads");
    }

    /// The same where the target may have closed the connection already.
    pub fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a command as it is, with data in its capsule.
    pub fn send_command(&mut self, command: &Command, data: &[u8]) {
        let bytes = self.capsule(command, data);
        self.send(&bytes);
    }

    /// The bytes of a command capsule.
    pub fn capsule(&self, command: &Command, data: &[u8]) -> Vec<u8> {
        let capsule = CapsuleCmd { command: *command };
        let mut bytes = capsule.encode(&self.format, data.len() as u32).to_vec();
        self.append(&mut bytes, data);
        bytes
    }

    /// The bytes of an H2CData.
    pub fn data_pdu(&self, pdu: &H2cData, data: &[u8]) -> Vec<u8> {
        let mut bytes = pdu.encode(&self.format).to_vec();
        self.append(&mut bytes, data);
        bytes
    }

    fn append(&self, bytes: &mut Vec<u8>, data: &[u8]) {
        bytes.extend_from_slice(data);
        if self.format.data_digest && !data.is_empty() {
            bytes.extend_from_slice(&crc32c(data).to_le_bytes());
        }
    }

    /// A command identifier that is not in use.
    pub fn cid(&mut self) -> u16 {
        self.next_cid = self.next_cid.wrapping_add(1);
        self.next_cid
    }

    /// The next PDU.
    pub fn receive(&mut self) -> Pdu {
        self.try_receive()
            .expect("the target answers")
            .expect("the target keeps the connection")
    }

    /// The next PDU; `None` where the target has closed the connection.
    pub fn try_receive(&mut self) -> io::Result<Option<Pdu>> {
        let mut common = [0; 8];
        if !self.fill(&mut common)? {
            return Ok(None);
        }
        let plen = u32_at(&common, 4);
        assert!((8..=MOST).contains(&plen), "a PDU of {plen} bytes");
        let mut bytes = common.to_vec();
        bytes.resize(plen as usize, 0);
        if !self.fill(&mut bytes[8..])? {
            return Ok(None);
        }
        Ok(Some(self.parse(bytes)))
    }

    /// Fills `bytes`; false where the connection ends before the first of them.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<bool> {
        let mut filled = 0;
        while filled < bytes.len() {
            match self.stream.read(&mut bytes[filled..]) {
                Ok(0) if filled == 0 => return Ok(false),
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(len) => filled += len,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn parse(&self, bytes: Vec<u8>) -> Pdu {
        let (kind, flags, hlen, pdo) = (bytes[0], bytes[1], bytes[2], usize::from(bytes[3]));
        let format = match kind {
            0x01 | 0x03 => PduFormat::default(),
            _ => self.format,
        };
        assert_eq!(flags & 1 != 0, format.header_digest, "HDGSTF of {bytes:?}");
        let header = &bytes[..usize::from(hlen)];
        if format.header_digest {
            let digest = u32_at(&bytes, usize::from(hlen));
            assert_eq!(crc32c(header), digest, "the header digest");
        }
        match kind {
            0x01 => {
                assert_eq!((hlen, bytes.len()), (128, 128));
                Pdu::IcResp {
                    digests: bytes[11],
                    max_h2c_data: u32_at(&bytes, 12),
                }
            }
            0x03 => Pdu::Term(Term {
                fes: u16_at(&bytes, 8),
                fei: u32_at(&bytes, 10),
                header: bytes[24..].to_vec(),
            }),
            0x05 => {
                let status = u16_at(&bytes, 8 + 14);
                Pdu::Response(Response {
                    cid: u16_at(&bytes, 8 + 12),
                    status: ((status >> 9) as u8 & 7, (status >> 1) as u8),
                    do_not_retry: status >> 15 != 0,
                    result: u32_at(&bytes, 8),
                })
            }
            0x07 => {
                let len = u32_at(&bytes, 16) as usize;
                let data = bytes[pdo..pdo + len].to_vec();
                assert_eq!(flags & 2 != 0, format.data_digest, "DDGSTF");
                if format.data_digest {
                    let digest = u32_at(&bytes, pdo + len);
                    assert_eq!(crc32c(&data), digest, "the data digest");
                }
                Pdu::Data {
                    cid: u16_at(&bytes, 8),
                    offset: u32_at(&bytes, 12),
                    last: flags & 4 != 0,
                    success: flags & 8 != 0,
                    data,
                }
            }
            0x09 => Pdu::R2t(R2t {
                cid: u16_at(&bytes, 8),
                tag: u16_at(&bytes, 10),
                offset: u32_at(&bytes, 12),
                len: u32_at(&bytes, 16),
            }),
            other => panic!("a PDU of type {other:#04x} from a controller"),
        }
    }

    /// Runs a command to its end: its data goes in the capsule.
    pub fn run(&mut self, command: Command, data: &[u8]) -> (Response, Vec<u8>) {
        let sgl = match data.len() {
            0 => SglDescriptor::transport(0),
            len => SglDescriptor::in_capsule(len as u32),
        };
        self.run_as_it_is(command.with_sgl(sgl), data)
    }

    /// Runs a command whose data pointer is set.
    pub fn run_as_it_is(&mut self, command: Command, capsule: &[u8]) -> (Response, Vec<u8>) {
        let cid = self.cid();
        self.send_command(&command.with_cid(cid), capsule);
        self.finish(cid, &[])
    }

    /// Runs a command that gets `len` bytes.
    pub fn fetch(&mut self, command: Command, len: u32) -> (Response, Vec<u8>) {
        self.run_as_it_is(command.with_sgl(SglDescriptor::transport(len)), &[])
    }

    /// Runs a command whose data the target is to ask for.
    pub fn push(&mut self, command: Command, data: &[u8]) -> Response {
        let command = command.with_sgl(SglDescriptor::transport(data.len() as u32));
        let cid = self.cid();
        self.send_command(&command.with_cid(cid), &[]);
        self.finish(cid, data).0
    }

    /// Sends a command whose data the target is to ask for, and waits until it does.
    pub fn begin_push(&mut self, command: Command, len: u32) -> R2t {
        let command = command.with_sgl(SglDescriptor::transport(len));
        let cid = self.cid();
        self.send_command(&command.with_cid(cid), &[]);
        match self.receive() {
            Pdu::R2t(request) => {
                assert_eq!(request.cid, cid);
                request
            }
            other => panic!("{other:?} is no request for data"),
        }
    }

    /// Waits for the end of a command, the only one; sends what data the target asks for.
    pub fn finish(&mut self, cid: u16, to_send: &[u8]) -> (Response, Vec<u8>) {
        let mut got = Vec::new();
        loop {
            match self.receive() {
                Pdu::Response(response) => {
                    assert_eq!(response.cid, cid);
                    return (response, got);
                }
                Pdu::Data {
                    cid: of,
                    offset,
                    success,
                    data,
                    ..
                } => {
                    assert_eq!((of, offset as usize), (cid, got.len()));
                    got.extend(data);
                    if success {
                        let response = Response {
                            cid,
                            status: (0, 0),
                            do_not_retry: false,
                            result: 0,
                        };
                        return (response, got);
                    }
                }
                Pdu::R2t(request) => {
                    assert_eq!(request.cid, cid);
                    self.send_pieces(&request, to_send);
                }
                other => panic!("{other:?} is no answer to command {cid}"),
            }
        }
    }

    /// Answers a request for data in pieces of 4 KiB.
    fn send_pieces(&mut self, request: &R2t, data: &[u8]) {
        let end = request.offset + request.len;
        let mut offset = request.offset;
        for piece in data[offset as usize..end as usize].chunks(4096) {
            let len = piece.len() as u32;
            let pdu = H2cData {
                cccid: request.cid,
                ttag: request.tag,
                offset,
                len,
                last: offset + len == end,
            };
            let bytes = self.data_pdu(&pdu, piece);
            self.send(&bytes);
            offset += len;
        }
    }

    /// Connects, with this command and data.
    pub fn connect(&mut self, connect: Connect, data: &ConnectData) -> Response {
        let command = FabricsCommand::Connect(connect).to_command();
        self.run(command, data.as_bytes()).0
    }

    /// The termination request that comes next, before which there may be answers to other
    /// commands; the connection must then be closed by the target.
    pub fn expect_term(&mut self) -> Term {
        let term = loop {
            match self.receive() {
                Pdu::Term(term) => break term,
                Pdu::Response(_) | Pdu::Data { .. } | Pdu::R2t(_) => {}
                other => panic!("{other:?} is no termination request"),
            }
        };
        self.expect_end();
        term
    }

    /// The target closes the connection and says nothing before it does.
    pub fn expect_end(&mut self) {
        match self.try_receive() {
            Ok(None) => {}
            other => panic!("{other:?} where the connection should have ended"),
        }
    }

    /// Whether the target has closed the connection; does not wait.
    pub fn has_ended(&mut self) -> bool {
        self.stream.set_nonblocking(true).expect("a socket");
        let mut byte = [0];
        let ended = match self.stream.read(&mut byte) {
            Ok(0) => true,
            Ok(_) => panic!("something came where nothing was asked for"),
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        };
        self.stream.set_nonblocking(false).expect("a socket");
        ended
    }
}

/// A host with a controller.
#[derive(Debug)]
pub struct Association {
    address: SocketAddr,
    pub host: Name,
    pub admin: Queue,
    pub cntlid: u16,
    request: IcReq,
}

impl Association {
    /// Connects and enables the controller.
    pub fn new(address: SocketAddr, host: Name, request: IcReq) -> Self {
        let mut admin = Queue::open(address, &request);
        let connected = admin.connect(connect(0, 32), &connect_data(&host, CNTLID_DYNAMIC));
        assert_eq!(connected.status, (0, 0), "{connected:?}");
        let enable = FabricsCommand::PropertySet {
            size: Property::Configuration.size(),
            offset: Property::Configuration.code(),
            value: Configuration::nvm_host().0.into(),
        };
        let (enabled, _) = admin.run(enable.to_command(), &[]);
        assert_eq!(enabled.status, (0, 0), "{enabled:?}");
        Self {
            address,
            host,
            admin,
            cntlid: connected.result as u16,
            request,
        }
    }

    /// One more connection of this host, initialized and nothing else.
    pub fn dial(&self) -> Queue {
        Queue::open(self.address, &self.request)
    }

    /// An I/O queue of `entries` entries.
    pub fn io(&self, qid: u16, entries: u16) -> Queue {
        let mut queue = self.dial();
        let connected = queue.connect(
            connect(qid, entries),
            &connect_data(&self.host, self.cntlid),
        );
        assert_eq!(connected.status, (0, 0), "{connected:?}");
        queue
    }
}

/// Commands of the NVM command set, for namespace 1 unless said otherwise.
pub mod nvm {
    use super::Command;

    fn transfer(opcode: u8, nsid: u32, lba: u64, blocks: u32) -> Command {
        let mut command = Command::new(opcode, nsid);
        command.cdw10 = ((lba & 0xffff_ffff) as u32).into();
        command.cdw11 = ((lba >> 32) as u32).into();
        command.cdw12 = (blocks - 1).into();
        command
    }

    pub fn flush() -> Command {
        Command::new(0x00, 1)
    }

    pub fn write(lba: u64, blocks: u32) -> Command {
        transfer(0x01, 1, lba, blocks)
    }

    pub fn read(lba: u64, blocks: u32) -> Command {
        transfer(0x02, 1, lba, blocks)
    }

    pub fn read_of(nsid: u32, lba: u64, blocks: u32) -> Command {
        transfer(0x02, nsid, lba, blocks)
    }
}
