//! NVMe over TCP: its protocol data units, their digests and their framing in a byte stream.
//!
//! A connection owns a socket and buffers; this module owns the meaning of the bytes. It never allocates
//! for a PDU and never copies a payload: [`framing::Decoder`] says where a payload begins and ends, and the
//! connection receives it where it belongs.
//!
//! | module | what |
//! |---|---|
//! | [`pdu`] | PDU types, the common header, how a header is encoded |
//! | [`init`], [`capsule`], [`data`], [`term`] | the PDUs |
//! | [`digest`] | CRC-32C of headers and of payloads in pieces |
//! | [`direction`], [`rules`] | which PDUs a peer may send, and within what limits |
//! | [`framing`] | an incremental decoder for one direction of a connection |
//! | [`error`] | what a peer can do wrong, and which termination request says so |

pub mod capsule;
pub mod data;
pub mod digest;
pub mod direction;
pub mod error;
pub mod framing;
pub mod init;
pub mod pdu;
pub mod rules;
pub mod term;

pub use capsule::{CapsuleCmd, CapsuleResp};
pub use data::{C2hData, H2cData, R2t};
pub use direction::{ControllerPdu, Direction, FromController, FromHost, HostPdu};
pub use error::PduError;
pub use framing::{Decoder, Event, Fed, MAX_FRAMING, PayloadEnd, Wanted};
pub use init::{IcReq, IcResp};
pub use pdu::{DataAlignment, EncodedHeader, PduFormat, PduType, Sender};
pub use rules::Rules;
pub use term::{FatalError, TermReq};

/// The TCP port for I/O controllers that IANA registered.
pub const IO_PORT: u16 = 4420;

/// The TCP port for discovery controllers that IANA registered.
pub const DISCOVERY_PORT: u16 = 8009;

/// Bytes of data that every controller takes in a capsule of fabrics and admin commands.
pub const ADMIN_IN_CAPSULE_DATA: u32 = 8192;

/// The least that a controller may give as MAXH2CDATA.
pub const MIN_MAXH2CDATA: u32 = 4096;

/// Bytes of a header digest or a data digest.
pub const DIGEST_SIZE: usize = 4;
