//! Reservations: who is registered with a namespace, who holds it, and who may do what meanwhile.
//!
//! The control thread owns it all, in a [`Ledger`]: the [`Reservation`] of each namespace, and the
//! commands that wait for it. Hosts are told apart by their identifiers, so that all controllers of
//! a host count as one. A command goes through three steps, one command of a namespace after the
//! other:
//!
//! 1. [`Reservation::apply`] decides what it changes, and changes nothing yet.
//! 2. What is to outlive a loss of power is written, by a thread of its own ([`Writer`]).
//! 3. The new [`Fence`] is sent to all poll groups. When every one of them has confirmed, the host
//!    is answered. A poll group confirms a preempt-and-abort when the commands in flight of those
//!    who were preempted have ended.
//!
//! So what a host was told to be fenced off is, on every reactor. The control thread waits for
//! nothing meanwhile.

mod fence;
mod file;
mod ledger;
mod log;
mod state;
mod writer;

pub use fence::{Bars, Fence};
pub use file::ReservationFile;
pub use ledger::{Answer, Ledger, Next, Request, Wish};
pub use log::NotificationLog;
pub use state::{Change, Reservation};
pub use writer::{Errand, Writer};

/// A host, by the identifier that it has given in Connect.
pub type HostId = [u8; 16];
