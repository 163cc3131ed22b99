//! NVMe as the specification has it: the shapes of commands, completions, data structures and PDUs.
//!
//! This room owns the wire format and the typed reading of it, for the target, the initiator and a PCIe
//! driver alike. It does no I/O, knows no clock, keeps no queue and holds no policy: what a controller
//! answers is decided above. Everything here is plain data, little-endian on the wire.
//!
//! Section numbers refer to *NVM Express Base Specification 2.0* ("Base"), *NVM Command Set
//! Specification 1.0* ("NVM") and *NVMe over TCP Transport Specification 1.0* ("TCP"). Revision 2.1 of
//! the Base specification moved many sections and kept the layouts; a section that is named by its title
//! has the same in both.
//!
//! | module | what |
//! |---|---|
//! | [`command`], [`completion`], [`status`], [`opcode`], [`sgl`] | queue entries and what they are made of |
//! | [`admin`], [`io`], [`dsm`], [`fabrics`] | typed reading and building of each kind of command |
//! | [`identify`], [`log_page`], [`feature`], [`event`], [`property`] | what a controller says about itself |
//! | [`reservation`] | reservations: commands, reports, notifications |
//! | [`nqn`] | qualified names |
//! | [`dhchap`] | how hosts and controllers prove who they are |
//! | [`tcp`] | the PDUs of NVMe/TCP, their digests and their framing |
#![forbid(unsafe_code)]

#[macro_use]
mod macros;

pub mod admin;
pub mod command;
pub mod completion;
pub mod dhchap;
pub mod dsm;
pub mod event;
pub mod fabrics;
pub mod feature;
pub mod identify;
pub mod io;
pub mod log_page;
pub mod nqn;
pub mod opcode;
pub mod property;
pub mod reservation;
pub mod sgl;
pub mod status;
pub mod tcp;
mod text;

pub use command::{Command, DataTransfer, Fuse};
pub use completion::Completion;
pub use nqn::Nqn;
pub use sgl::{Sgl, SglDescriptor};
pub use status::Status;
pub use text::{ascii_field, ascii_text};

/// The namespace identifier that means "all namespaces" (Base, "Valid and Invalid NSIDs").
pub const NSID_ALL: u32 = 0xffff_ffff;

/// The largest namespace identifier that may name a single namespace; FFFFFFFEh is reserved.
pub const NSID_MAX: u32 = 0xffff_fffd;

/// Size in bytes of the qualified name fields on the wire, NUL included (Base 4.5).
pub const NQN_FIELD_SIZE: usize = 256;
