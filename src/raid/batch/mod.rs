//! Batches: stripes that follow one another, overwritten whole, written with one request a member.
//!
//! Stripes of one owner need no lock: their shard finds them at the end of its turn. Where the rows
//! of one owner end and another's begin, two shards may join what they have, and that is the one
//! place of the engine where two cores touch the same state:
//!
//! - [`StripeLink`] is all of a stripe that another core may see, behind a lock and reachable in
//!   no other way;
//! - [`Board`] tells a shard which link to look at; it is a hint and never believed;
//! - [`Budget`] counts the stripes of a shard that may read before they write; it changes only
//!   under the lock of the link that is charged.
//!
//! An *open* link is read under its lock. A *closed* one is an owned value ([`Closed`]): the batch
//! can't change any more, so its owner reads it without a lock. What md's batches got wrong, and
//! where each of those races is shut out here, is told in `docs/batching.md`.

mod board;
mod budget;
mod crossing;
mod link;
#[cfg(all(test, loom))]
mod loom_tests;
mod sync;
#[cfg(all(test, not(loom)))]
mod tests;

pub(super) use board::Side;
pub(super) use budget::Charge;
pub use crossing::Crossing;
pub(super) use crossing::{Body, Links};
pub(super) use link::{BatchOp, Closed, Followers, Joined, LinkId, Mine, Needs, Offer, Refusal};
