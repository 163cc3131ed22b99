//! Hosts prove who they are: DH-HMAC-CHAP on each queue, before anything else is done there.
//!
//! Three parts. The [`Gate`] is the session's: it keeps every other command out until the host is
//! admitted, and carries messages between the host and the control side. The [`Exchange`] is the
//! protocol, a state machine from message to message. The [`Authenticator`] runs the exchanges on a
//! thread of their own: raising a number of thousands of bits to a power takes longer than
//! a reactor or the control thread may be away. Secrets never come near a reactor.

mod authenticator;
mod exchange;
mod gate;

pub use authenticator::{Authenticator, Job, Judgement};
pub use exchange::{Parties, Then, Verdict};
pub use gate::Gate;
