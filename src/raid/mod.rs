//! RAID5: geometry, the stripe engine, and the volume that it makes of its members.
//!
//! The core does no I/O. A [`Node`] is a volume's part on one reactor: requests, member
//! completions and messages go in, [`Effect`]s come out. It is made of a shard (the stripes of the
//! rows that it owns), a router (host requests of this reactor: reads go straight to the members,
//! the rest to the owners of the rows) and, on node 0, the array's own actor (which members are in
//! sync). The same code runs under a reactor ([`Volume`]) and under the simulator.
//!
//! The room knows memory, xor, bdev and the reactor's mesh, and nothing above.

#![forbid(unsafe_code)]

mod array;
mod assembled;
mod bad_blocks;
mod batch;
mod batch_io;
mod batching;
mod cache;
mod channel;
mod counters;
mod error;
mod gather;
mod geometry;
mod lanes;
mod member_io;
mod message;
mod metadata;
mod mutation;
mod node;
mod pages;
mod patch;
mod payload;
mod plan;
mod ppl;
mod process;
mod reading;
mod regions;
mod replacement;
mod round;
mod router;
mod settling;
mod shard;
mod status;
mod straight;
mod stripe;
mod swath;
mod view;
mod volume;
mod waiting;
mod window;

pub use array::{Answer, Control, NewMember};
pub use assembled::{Assembled, AssembledError};
pub use batch::Crossing;
pub use batching::{BatchScope, Batching};
pub use counters::Counters;
pub use error::VolumeError;
pub use geometry::{CHUNK_BYTES, Geometry, Layout, MEMBERS, Mask, Place, STRIPE_BYTES_MIN};
pub use message::{Done, Home, Job, Logged, Message, NodeId, Note, Of, Origin};
pub use metadata::{Marks, MetadataConfig, Stored};
pub use node::{Effect, Node, NodeConfig};
pub use plan::{Method, Plan, Situation};
pub use ppl::{Ended, LogPlace, LogsConfig};
pub use process::ProcessOptions;
pub use regions::Regions;
pub use status::{MetadataStatus, Process, SlotStatus, State, Status};
pub use view::{BadRange, Bays, Degraded, Replacement, Unsynced, View, Window, Work};
pub use volume::{Ticket, Volume, VolumeConfig};
pub use window::Found;
