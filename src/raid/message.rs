//! What the nodes of a volume tell one another.

use std::sync::Arc;

use super::batch::Body;
use super::ppl::{Ended, LogPlace, Record};
use super::view::View;
use super::window::Found;
use crate::bdev::{Bdev, Data, Op, Status};

/// A node of a volume: its part on one reactor. Equal to the reactor's index.
pub type NodeId = usize;

/// A message from one node to another. Between two nodes messages keep their order.
#[derive(Debug)]
pub enum Message {
    /// Do this part of a host's request: you own its rows.
    Job(Job),
    /// A job is done.
    Done(Done),
    /// A run of yours that this node wrote together with its own comes home.
    Home(Home),
    /// Replace your view, and confirm it.
    Adopt(Arc<View>),
    /// A node has adopted this epoch. To the array's node.
    Confirm(u64),
    /// Every node has confirmed this epoch.
    Settled(u64),
    /// A member failed under a node. To the array's node.
    Failed {
        /// The member's bay.
        bay: usize,
        /// Which member in that bay: counts the additions.
        generation: u32,
        /// What it answered.
        status: Status,
    },
    /// A member can't store its part of a stripe, which is to be noted in its bad-block log. To
    /// the array's node.
    Bad {
        /// The member's bay.
        bay: usize,
        /// Which member in that bay.
        generation: u32,
        /// The stripe.
        stripe: u64,
    },
    /// A member holds again what it should of a stripe. To the array's node.
    Good {
        /// The member's bay.
        bay: usize,
        /// Which member in that bay.
        generation: u32,
        /// The stripe.
        stripe: u64,
    },
    /// Open this device as the member in a bay.
    Attach {
        /// The bay.
        bay: usize,
        /// Which member in that bay.
        generation: u32,
        /// The device.
        bdev: Arc<dyn Bdev>,
        /// Where its data begins, in bytes.
        data_offset: u64,
        /// Whether it has a bad-block log.
        bad_block_log: bool,
        /// Where its partial parity log is, if it has one.
        log: Option<LogPlace>,
    },
    /// The device is open (or why it is not). To the array's node.
    Attached {
        /// The bay.
        bay: usize,
        /// The reason when it could not be opened.
        error: Option<String>,
    },
    /// A node has closed the member in this bay: nothing of it is in flight. To the array's node.
    Drained {
        /// The bay.
        bay: usize,
    },
    /// A node wants to write to a region. To the array's node.
    Intend(u64),
    /// The members say that a region is being written to.
    Granted(u64),
    /// Give back regions that you have not written to since the last such message; all that you
    /// can, if at once.
    Sweep {
        /// All that can be.
        at_once: bool,
    },
    /// A node gives a region back. To the array's node.
    Relinquish(u64),
    /// Note what a stripe of the sender's writes. To the node that keeps the log.
    Note(Note),
    /// What a stripe of yours writes is noted.
    Logged(Logged),
    /// The round of a stripe that was noted has ended. To the node that keeps the log in this bay.
    Ended {
        /// The bay.
        bay: usize,
        /// What is known of the stripe.
        ended: Ended,
    },
    /// The entry of a stripe of yours is gone from the medium, as was asked for.
    Struck(Logged),
    /// Pages of yours that logs had are free again.
    Freed,
    /// A node's rows of the window of this epoch are done. To the array's node.
    Worked {
        /// The epoch that granted the window.
        epoch: u64,
        /// What it found there.
        found: Found,
    },
}

/// A part of a host's request, on its way to the owner of its rows. All its bytes lie in one run
/// of rows.
#[derive(Debug)]
pub struct Job {
    /// Where it came from.
    pub origin: Origin,
    /// What to do.
    pub op: Op,
    /// First byte of the volume.
    pub offset: u64,
    /// Number of bytes of the volume.
    pub len: u64,
    /// The buffers of this part.
    pub data: Data,
    /// The host's request goes on before, or behind, the rows of this owner, and may wait there.
    pub reach: (bool, bool),
    /// It begins where an earlier one of its node ended.
    pub streams: bool,
    /// It is the only request of its node: nothing will come while it waits.
    pub alone: bool,
}

/// Where a job came from, and what it is there.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// The node that the host's request came in at.
    pub node: NodeId,
    /// What the job is of that.
    pub of: Of,
}

/// What a job is of a host's request.
#[derive(Clone, Copy, Debug)]
pub enum Of {
    /// A part.
    Part {
        /// The request at its node.
        request: u32,
        /// The part of the request.
        piece: u32,
    },
    /// All of it, as the host gave it.
    Whole {
        /// The host's name for it.
        token: u64,
    },
}

/// What is to be noted in a log.
#[derive(Debug)]
pub struct Note {
    /// The bay of the log's member.
    pub(super) bay: usize,
    /// Which member in that bay.
    pub(super) generation: u32,
    pub(super) record: Record,
}

/// A stripe that a log speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logged {
    /// The bay of the log's member.
    pub(super) bay: usize,
    /// Which member in that bay.
    pub(super) generation: u32,
    /// The stripe's place in the cache of its owner.
    pub(super) stripe: u32,
    /// The stripe.
    pub(super) number: u64,
}

/// A run that was another node's follower.
#[derive(Debug)]
pub struct Home {
    /// The link of the run, at its owner.
    pub(super) index: u32,
    pub(super) generation: u32,
    /// Slots whose member did not get (all of) it.
    pub(super) missing: u64,
    /// The lists of its buffers, empty.
    pub(super) body: Body,
}

/// A job that ended.
#[derive(Debug)]
pub struct Done {
    /// What it was of a host's request at the node that is told.
    pub of: Of,
    /// What was done.
    pub op: Op,
    /// Number of bytes of the volume.
    pub len: u64,
    /// How it went.
    pub status: Status,
    /// The job's buffers.
    pub data: Data,
}
