//! The two directions of a connection, and the PDUs of each.

use super::capsule::{CapsuleCmd, CapsuleResp};
use super::data::{C2hData, H2cData, R2t};
use super::error::PduError;
use super::init::{IcReq, IcResp};
use super::pdu::{PduType, Sender};
use super::term::TermReq;

/// A PDU that a host sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostPdu {
    /// The first of a connection.
    IcReq(IcReq),
    /// A command; its payload is the in-capsule data.
    CapsuleCmd(CapsuleCmd),
    /// Data of a command.
    H2cData(H2cData),
    /// The host ends the connection.
    TermReq(TermReq),
}

/// A PDU that a controller sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControllerPdu {
    /// The first of a connection.
    IcResp(IcResp),
    /// A completion.
    CapsuleResp(CapsuleResp),
    /// Data of a command.
    C2hData(C2hData),
    /// A request for data.
    R2t(R2t),
    /// The controller ends the connection.
    TermReq(TermReq),
}

mod sealed {
    pub trait Sealed {}
}

/// One direction of a connection: [`FromHost`] or [`FromController`].
pub trait Direction: sealed::Sealed {
    /// The PDUs of this direction.
    type Pdu: core::fmt::Debug + Clone + Copy + PartialEq + Eq;

    /// Who sends them.
    const SENDER: Sender;

    /// Reads a header that is complete and whose common fields are right.
    #[doc(hidden)]
    fn parse(kind: PduType, header: &[u8], payload: u32) -> Result<Self::Pdu, PduError>;
}

/// From a host to a controller: what a target receives.
#[derive(Debug)]
pub enum FromHost {}

/// From a controller to a host: what an initiator receives.
#[derive(Debug)]
pub enum FromController {}

impl sealed::Sealed for FromHost {}
impl sealed::Sealed for FromController {}

impl Direction for FromHost {
    type Pdu = HostPdu;

    const SENDER: Sender = Sender::Host;

    fn parse(kind: PduType, header: &[u8], payload: u32) -> Result<HostPdu, PduError> {
        match kind {
            PduType::IcReq => IcReq::parse(header).map(HostPdu::IcReq),
            PduType::CapsuleCmd => Ok(HostPdu::CapsuleCmd(CapsuleCmd::parse(header))),
            PduType::H2cData => H2cData::parse(header, payload).map(HostPdu::H2cData),
            PduType::H2cTermReq => Ok(HostPdu::TermReq(TermReq::parse(header))),
            other => Err(PduError::Type {
                code: other.code(),
                sender: Self::SENDER,
            }),
        }
    }
}

impl Direction for FromController {
    type Pdu = ControllerPdu;

    const SENDER: Sender = Sender::Controller;

    fn parse(kind: PduType, header: &[u8], payload: u32) -> Result<ControllerPdu, PduError> {
        match kind {
            PduType::IcResp => IcResp::parse(header).map(ControllerPdu::IcResp),
            PduType::CapsuleResp => Ok(ControllerPdu::CapsuleResp(CapsuleResp::parse(header))),
            PduType::C2hData => C2hData::parse(header, payload).map(ControllerPdu::C2hData),
            PduType::R2t => R2t::parse(header).map(ControllerPdu::R2t),
            PduType::C2hTermReq => Ok(ControllerPdu::TermReq(TermReq::parse(header))),
            other => Err(PduError::Type {
                code: other.code(),
                sender: Self::SENDER,
            }),
        }
    }
}
