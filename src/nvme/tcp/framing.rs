//! An incremental decoder of one direction of a connection: bytes in pieces of any size, PDUs out.
//!
//! The decoder takes headers, padding and digests; the payload goes past it. A connection asks
//! [`Decoder::wanted`] what the next bytes of the stream are, gives framing bytes to [`Decoder::feed`],
//! receives payload bytes straight into the buffer where they belong, and shows them to
//! [`Decoder::payload`] for count and digest:
//!
//! ```
//! use stripewise::nvme::tcp::{Decoder, Event, FromHost, HostPdu, IcReq, PduError, Wanted};
//!
//! fn receive(decoder: &mut Decoder<FromHost>, mut input: &[u8]) -> Result<Vec<HostPdu>, PduError> {
//!     let mut pdus = Vec::new();
//!     while !input.is_empty() {
//!         match decoder.wanted() {
//!             Wanted::Framing(_) => {
//!                 let fed = decoder.feed(input)?;
//!                 input = &input[fed.used..];
//!                 if let Some(Event::Pdu { pdu, .. }) = fed.event {
//!                     pdus.push(pdu);
//!                 }
//!             }
//!             Wanted::Payload(left) => {
//!                 let (payload, rest) = input.split_at(input.len().min(left as usize));
//!                 let _end = decoder.payload(payload);
//!                 input = rest;
//!             }
//!         }
//!     }
//!     Ok(pdus)
//! }
//!
//! let request = IcReq { alignment: Default::default(), header_digest: false, data_digest: false, max_r2t: 1 };
//! let mut decoder = Decoder::new();
//! assert_eq!(receive(&mut decoder, &request.encode()), Ok(vec![HostPdu::IcReq(request)]));
//! ```
//!
//! Errors are found at the first byte that proves them, lowest field first, and end the decoder: nothing
//! behind a broken header can be trusted.

use core::marker::PhantomData;

use zerocopy::FromBytes;

use super::DIGEST_SIZE;
use super::digest::{Crc32c, crc32c};
use super::direction::Direction;
use super::error::PduError;
use super::pdu::{COMMON_HEADER_SIZE, CommonHeader, EncodedHeader, PduType, Sender};
use super::rules::{Rules, Shape, check_common};
use super::term::FatalError;

/// The most bytes that [`Wanted::Framing`] asks for: the padding of an H2CData or C2HData whose data is as far
/// behind its header as PDO, a byte and a multiple of 4, can put it.
pub const MAX_FRAMING: usize = 252 - 24;

/// What the next bytes of the stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// At most so many bytes, up to [`MAX_FRAMING`], for [`Decoder::feed`] before it can say more. 0 after
    /// an error.
    Framing(usize),
    /// So many bytes of payload, to be shown to [`Decoder::payload`].
    Payload(u32),
}

/// What came of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<P> {
    /// A header is complete and right.
    Pdu {
        /// What it says.
        pdu: P,
        /// Bytes of payload that follow it; 0 where the PDU ends here.
        payload: u32,
    },
    /// The payload of the last PDU and its digest are complete.
    PayloadEnd(PayloadEnd),
}

/// What [`Decoder::feed`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fed<P> {
    /// Bytes taken from the front of the input.
    pub used: usize,
    /// What came of them; `None` where more bytes are wanted.
    pub event: Option<Event<P>>,
}

/// How a payload ended. A digest that differs is not fatal to the connection: the command that the data
/// belongs to fails with Transient Transport Error (TCP, "Data Digest").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PayloadEnd {
    /// There was no digest to check.
    Unchecked,
    /// The digest matches.
    Intact,
    /// The digest differs.
    Corrupt {
        /// The digest received.
        received: u32,
        /// The digest of the payload received.
        computed: u32,
    },
}

#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Between two PDUs.
    Idle,
    /// In a common header.
    Common,
    /// In the rest of a header and its digest.
    Header(Shape),
    /// In the padding in front of a payload.
    Padding { left: u8, shape: Shape },
    /// In a payload.
    Payload { left: u32, data_digest: bool },
    /// In a data digest.
    DataDigest { filled: u8 },
    /// Beyond an error.
    Failed(PduError),
}

/// The largest header with its digest.
const HEADER_CAPACITY: usize = 128 + DIGEST_SIZE;

/// The decoder. It starts where a connection starts: only ICReq (or ICResp) and a termination request are
/// accepted until [`Decoder::establish`].
#[derive(Debug)]
pub struct Decoder<D> {
    stage: Stage,
    header: [u8; HEADER_CAPACITY],
    filled: u8,
    rules: Option<Rules>,
    data_digest: Crc32c,
    received_digest: [u8; DIGEST_SIZE],
    direction: PhantomData<D>,
}

impl<D: Direction> Decoder<D> {
    /// A decoder of a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self {
            stage: Stage::Idle,
            header: [0; HEADER_CAPACITY],
            filled: 0,
            rules: None,
            data_digest: Crc32c::new(),
            received_digest: [0; DIGEST_SIZE],
            direction: PhantomData,
        }
    }

    /// Accepts all other PDUs from now on, by these rules. To be called when ICReq or ICResp has come, and
    /// again where a limit changes (a queue learns its in-capsule data size with Connect).
    ///
    /// # Panics
    /// In the middle of a PDU.
    pub fn establish(&mut self, rules: Rules) {
        assert!(
            matches!(self.stage, Stage::Idle),
            "rules change between PDUs, not inside one"
        );
        self.rules = Some(rules);
    }

    /// The rules in force; `None` before the connection is initialized.
    #[must_use]
    pub fn rules(&self) -> Option<&Rules> {
        self.rules.as_ref()
    }

    /// What the next bytes of the stream are.
    #[must_use]
    pub fn wanted(&self) -> Wanted {
        let filled = usize::from(self.filled);
        match self.stage {
            Stage::Idle => Wanted::Framing(COMMON_HEADER_SIZE),
            Stage::Common => Wanted::Framing(COMMON_HEADER_SIZE - filled),
            Stage::Header(shape) => Wanted::Framing(usize::from(shape.header) - filled),
            Stage::Padding { left, .. } => Wanted::Framing(left.into()),
            Stage::Payload { left, .. } => Wanted::Payload(left),
            Stage::DataDigest { filled } => Wanted::Framing(DIGEST_SIZE - usize::from(filled)),
            Stage::Failed(_) => Wanted::Framing(0),
        }
    }

    /// Whether the stream is between two PDUs, where it may end in order.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// The header of the PDU that is being received, or of the last one: as much of it as has come,
    /// without its digest. It goes into a termination request.
    #[must_use]
    pub fn header(&self) -> &[u8] {
        let hlen = PduType::from_code(self.header[0])
            .map_or(COMMON_HEADER_SIZE, |kind| kind.header_len().into());
        &self.header[..usize::from(self.filled).min(hlen)]
    }

    /// The termination request with which the receiver answers a fatal error of the current or last PDU.
    #[must_use]
    pub fn term_req(&self, reason: FatalError) -> EncodedHeader {
        let receiver = match D::SENDER {
            Sender::Host => Sender::Controller,
            Sender::Controller => Sender::Host,
        };
        reason.encode(receiver, self.header())
    }

    /// Takes framing bytes from the front of `input`, stopping behind the first event and in front of a
    /// payload. Called in front of a payload it takes none.
    ///
    /// # Errors
    /// [`PduError`], and the same again on every later call. [`PduError::fatal`] is what to answer.
    pub fn feed(&mut self, input: &[u8]) -> Result<Fed<D::Pdu>, PduError> {
        let mut rest = input;
        let event = self
            .advance(&mut rest)
            .inspect_err(|&error| self.stage = Stage::Failed(error))?;
        Ok(Fed {
            used: input.len() - rest.len(),
            event,
        })
    }

    fn advance(&mut self, input: &mut &[u8]) -> Result<Option<Event<D::Pdu>>, PduError> {
        loop {
            match self.stage {
                Stage::Failed(error) => return Err(error),
                Stage::Idle if input.is_empty() => return Ok(None),
                Stage::Idle => {
                    self.filled = 0;
                    self.stage = Stage::Common;
                }
                Stage::Common => {
                    if !self.collect(input, COMMON_HEADER_SIZE) {
                        return Ok(None);
                    }
                    let (common, _) =
                        CommonHeader::ref_from_prefix(&self.header).expect("8 of 132 bytes");
                    self.stage =
                        Stage::Header(check_common(common, D::SENDER, self.rules.as_ref())?);
                }
                Stage::Header(shape) => {
                    if !self.collect(input, shape.header.into()) {
                        return Ok(None);
                    }
                    return self.finish_header(shape).map(Some);
                }
                Stage::Padding { left, shape } => {
                    let taken = input.len().min(left.into());
                    *input = &input[taken..];
                    if taken < usize::from(left) {
                        self.stage = Stage::Padding {
                            left: left - taken as u8,
                            shape,
                        };
                        return Ok(None);
                    }
                    self.start_payload(shape);
                }
                Stage::Payload { .. } => return Ok(None),
                Stage::DataDigest { filled } => {
                    let start = usize::from(filled);
                    let taken = input.len().min(DIGEST_SIZE - start);
                    let (digest, rest) = input.split_at(taken);
                    self.received_digest[start..start + taken].copy_from_slice(digest);
                    *input = rest;
                    if start + taken < DIGEST_SIZE {
                        self.stage = Stage::DataDigest {
                            filled: filled + taken as u8,
                        };
                        return Ok(None);
                    }
                    self.stage = Stage::Idle;
                    let received = u32::from_le_bytes(self.received_digest);
                    let computed = self.data_digest.value();
                    return Ok(Some(Event::PayloadEnd(if received == computed {
                        PayloadEnd::Intact
                    } else {
                        PayloadEnd::Corrupt { received, computed }
                    })));
                }
            }
        }
    }

    /// Moves bytes into the header until it holds `wanted`; says whether it does.
    fn collect(&mut self, input: &mut &[u8], wanted: usize) -> bool {
        let start = usize::from(self.filled);
        let taken = input.len().min(wanted - start);
        let (bytes, rest) = input.split_at(taken);
        self.header[start..start + taken].copy_from_slice(bytes);
        self.filled += taken as u8;
        *input = rest;
        start + taken == wanted
    }

    fn finish_header(&mut self, shape: Shape) -> Result<Event<D::Pdu>, PduError> {
        let hlen = usize::from(shape.kind.header_len());
        let (header, behind) = self.header.split_at(hlen);
        if shape.header_digest {
            let (received, _) = behind.split_first_chunk().expect("4 of at least 4 bytes");
            let received = u32::from_le_bytes(*received);
            let computed = crc32c(header);
            if received != computed {
                return Err(PduError::HeaderDigest {
                    pdu: shape.kind,
                    received,
                    computed,
                });
            }
        }
        let pdu = D::parse(shape.kind, header, shape.payload)?;
        if shape.payload == 0 {
            self.stage = Stage::Idle;
        } else if shape.pad > 0 {
            self.stage = Stage::Padding {
                left: shape.pad,
                shape,
            };
        } else {
            self.start_payload(shape);
        }
        Ok(Event::Pdu {
            pdu,
            payload: shape.payload,
        })
    }

    fn start_payload(&mut self, shape: Shape) {
        if shape.data_digest {
            self.data_digest = Crc32c::new();
        }
        self.stage = Stage::Payload {
            left: shape.payload,
            data_digest: shape.data_digest,
        };
    }

    /// Counts the next bytes of the payload, wherever they were received, and takes them into the digest.
    /// Returns how the payload ended if these were its last bytes and there is no digest to come;
    /// otherwise [`Decoder::feed`] tells.
    ///
    /// # Panics
    /// Where there is no payload, or less of it left.
    pub fn payload(&mut self, piece: &[u8]) -> Option<PayloadEnd> {
        let Stage::Payload { left, data_digest } = self.stage else {
            panic!("no payload is due: the decoder wants {:?}", self.wanted());
        };
        assert!(
            piece.len() as u64 <= u64::from(left),
            "{} bytes shown, {left} are left of the payload",
            piece.len()
        );
        if data_digest {
            self.data_digest.update(piece);
        }
        let left = left - piece.len() as u32;
        if left > 0 {
            self.stage = Stage::Payload { left, data_digest };
            return None;
        }
        if data_digest {
            self.stage = Stage::DataDigest { filled: 0 };
            return None;
        }
        self.stage = Stage::Idle;
        Some(PayloadEnd::Unchecked)
    }
}

impl<D: Direction> Default for Decoder<D> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests;
