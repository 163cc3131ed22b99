//! JSON-RPC 2.0 on a UNIX socket or over TCP, in SPDK's dialect.
//!
//! The room turns bytes into calls and calls into operations of [`crate::control::System`]. It
//! never touches a reactor or a device itself, and it never waits: what takes time is handed back
//! as [`Answer::Later`].

#![forbid(unsafe_code)]

pub mod address;
pub mod error;
pub mod framing;
pub mod methods;
pub mod request;
pub mod server;
pub mod session;
pub mod socket;

pub use address::Address;
pub use error::RpcError;
pub use methods::{Answer, Pending};
pub use server::{Server, Ticket};
pub use socket::SocketError;

/// How a call ended.
pub type Outcome = Result<serde_json::Value, RpcError>;

#[cfg(test)]
pub(crate) mod testing;
