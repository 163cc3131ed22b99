//! The volume as a block device: made by the control thread, opened by every reactor.

use std::collections::BTreeSet;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use uuid::Uuid;

use super::array::{Answer, Control, NewMember};
use super::assembled::Assembled;
use super::batch::Crossing;
use super::batching::Batching;
use super::channel::VolumeChannel;
use super::counters::Counters;
use super::error::VolumeError;
use super::geometry::{Geometry, Layout};
use super::message::Message;
use super::metadata::{MetadataConfig, Stored};
use super::node::{Node, NodeConfig};
use super::ppl::{LogPlace, LogsConfig};
use super::process::ProcessOptions;
use super::status::{State, Status, StatusCell};
use super::view::{View, Work};
use crate::bdev::{self, Bdev, Info, OpenError};
use crate::lock;
use crate::md::{Superblock, Time, ppl};
use crate::memory::{Arena, Pool};
use crate::reactor::{self, Mailbox, MailboxSender, Port, Waker};

/// What a volume is made with, besides its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeConfig {
    /// Name of the device.
    pub name: String,
    /// Its identity; a random one if not given.
    pub uuid: Option<Uuid>,
    /// Chunk in bytes: a power of two from 4 KiB to 1 MiB. SPDK's `strip_size_kb`.
    pub chunk_bytes: u32,
    /// Stripe in bytes: a power of two from 4 KiB to the chunk.
    pub stripe_bytes: u32,
    /// Where parity goes.
    pub layout: Layout,
    /// Rows that follow one another with one owner.
    pub shard_run: u32,
    /// Stripes in the cache of each reactor.
    pub stripes: usize,
    /// The pace of rebuilds, resyncs and checks.
    pub pace: ProcessOptions,
    /// How stripes are gathered and batched.
    pub batching: Batching,
}

impl VolumeConfig {
    /// The defaults: stripes of 4 KiB, left-symmetric, runs of 16 rows, 1024 stripes a reactor.
    pub fn new(name: &str, chunk_bytes: u32) -> Self {
        Self {
            name: name.to_owned(),
            uuid: None,
            chunk_bytes,
            stripe_bytes: 4096,
            layout: Layout::default(),
            shard_run: 16,
            stripes: 1024,
            pace: ProcessOptions::default(),
            batching: Batching::default(),
        }
    }
}

/// Pages in which metadata is written: a superblock for each of 64 members, and some for bitmaps.
const METADATA_PAGES: usize = 96;
/// Largest request to a volume in bytes.
const REQUEST_BYTES: u32 = 16 << 20;
/// Messages in each ring between two reactors.
const RING: usize = 1024;
/// Requests of the control thread that wait for node 0.
const CONTROLS: usize = 64;

/// A RAID5 volume. Shared between threads; its I/O goes through one channel per reactor.
#[derive(Debug)]
pub struct Volume {
    info: Arc<Info>,
    config: VolumeConfig,
    geometry: Geometry,
    /// What each reactor takes when it opens the volume.
    parts: Mutex<Vec<Option<NodeParts>>>,
    status: StatusCell,
    counters: CountersCell,
    control: MailboxSender<Control>,
}

/// The counters of every node, published by the nodes now and then.
pub(super) type CountersCell = Arc<Mutex<Vec<Counters>>>;

/// A reactor's part of a volume, before it is opened.
#[derive(Debug)]
pub(super) struct NodeParts {
    pub node: Node,
    pub members: Vec<Option<Arc<dyn Bdev>>>,
    pub port: Port<Message>,
    pub control: Option<Mailbox<Control>>,
}

/// A change that was asked for and may still be under way.
#[derive(Debug)]
pub struct Ticket {
    answer: mpsc::Receiver<Result<(), VolumeError>>,
}

impl Ticket {
    /// Waits until the change is in force on every reactor.
    ///
    /// # Errors
    /// Why it was refused; [`VolumeError::Timeout`] when the reactors do not answer in time;
    /// [`VolumeError::Ended`] when the volume is gone before they do.
    pub fn wait(self, limit: Duration) -> Result<(), VolumeError> {
        match self.answer.recv_timeout(limit) {
            Ok(answer) => answer,
            Err(RecvTimeoutError::Timeout) => Err(VolumeError::Timeout(limit.as_secs())),
            Err(RecvTimeoutError::Disconnected) => Err(VolumeError::Ended),
        }
    }

    /// The answer, if there is one already. [`VolumeError::Ended`] is one: nobody is left who could
    /// give another.
    pub fn poll(&self) -> Option<Result<(), VolumeError>> {
        match self.answer.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(VolumeError::Ended)),
        }
    }
}

impl Volume {
    /// Makes a volume over `members`, in the order of their slots; one may be missing. Where they
    /// have no metadata (`assembled`), the smallest member decides how much of each is used, and
    /// all of them are taken to be in sync. `wakers` are those of all reactors: the
    /// volume works once each of them has opened it.
    ///
    /// # Errors
    /// [`VolumeError`] naming what is wrong with the configuration or with a member.
    pub fn new(
        config: VolumeConfig,
        members: Vec<Option<Arc<dyn Bdev>>>,
        assembled: Option<Assembled>,
        wakers: &[Waker],
        arena: &Arena,
    ) -> Result<Arc<Self>, VolumeError> {
        let (block_bytes, smallest) = check_members(&members)?;
        let member_bytes = assembled.as_ref().map_or(smallest, |a| a.member_bytes);
        config.batching.check()?;
        if config.shard_run == 0 {
            return Err(VolumeError::ShardRun);
        }
        let nodes = wakers.len();
        let geometry = Geometry::new(
            members.len(),
            member_bytes,
            config.chunk_bytes,
            config.stripe_bytes,
            config.layout,
        )?
        .with_shards(nodes, config.shard_run);
        let infos = || members.iter().flatten().map(|m| m.info());
        let write_cache = infos().any(|i| i.write_cache);
        let member_request = infos()
            .map(|i| i.max_blocks.saturating_mul(block_bytes))
            .fold(config.batching.request_bytes, u32::min);
        let crossing = Arc::new(Crossing::new(
            &vec![config.stripes; nodes],
            config.batching.preread_limit,
        ));
        let block = u64::from(block_bytes);
        let info = Arc::new(Info {
            name: config.name.clone(),
            product: "Raid Volume",
            uuid: config.uuid.unwrap_or_else(Uuid::new_v4),
            block_size: block_bytes,
            blocks: geometry.volume_bytes() / block,
            io_boundary: 0,
            write_unit: (geometry.row_bytes() / block) as u32,
            max_blocks: REQUEST_BYTES / block_bytes,
            write_cache,
            deallocates: infos().all(|i| i.deallocates),
            in_memory: false,
        });
        let (view, stored) = match assembled {
            Some(Assembled { stored, view, .. }) => {
                let bad = stored.bad_ranges();
                (View { bad, ..view }, Some(stored))
            }
            None => (View::first(members.iter().position(Option::is_none)), None),
        };
        let view = Arc::new(view);
        let data_offsets: Vec<u64> = match &stored {
            Some(stored) => {
                let superblocks = stored.superblocks.iter();
                let offset = |s: &Option<_>| {
                    s.as_ref()
                        .map_or(0, |s: &crate::md::Superblock| s.data_offset * 512)
                };
                superblocks.map(offset).collect()
            }
            None => vec![0; members.len()],
        };
        let log = |s: &Option<Superblock>| s.as_ref().is_some_and(|s| s.bad_block_log.size > 0);
        let superblocks = stored.iter().flat_map(|s| s.superblocks.iter().enumerate());
        let bad_block_logs =
            superblocks.fold(0, |mask, (slot, s)| mask | u64::from(log(s)) << slot);
        let rows_per_region = stored.as_ref().map(|s| s.rows_per_region(&geometry));
        let logs = match &stored {
            Some(stored) => logs_of(stored, &config, block_bytes, arena)?,
            None => None,
        };
        let metadata = stored.map(|stored| -> Result<_, VolumeError> {
            let pool = Pool::new(arena, 4096, METADATA_PAGES);
            Ok(MetadataConfig {
                stored,
                pool: pool.map_err(|e| VolumeError::Memory(e.to_string()))?,
                booted: (Instant::now(), Time::from_system(SystemTime::now())),
            })
        });
        let mut metadata = metadata.transpose()?;
        let status = StatusCell::new();
        let (control, mailbox) = reactor::mailbox(&wakers[0], CONTROLS);
        let mut mailbox = Some(mailbox);
        let mut parts = Vec::with_capacity(nodes);
        for (id, port) in reactor::mesh(wakers, RING).into_iter().enumerate() {
            let pages = (2 * config.stripes).max(4 * Node::pages_min(members.len()));
            let pool = Pool::new(arena, config.stripe_bytes as usize, pages)
                .map_err(|e| VolumeError::Memory(e.to_string()))?;
            let caches = members.iter().enumerate().fold(0, |mask, (slot, member)| {
                let cached = member.as_ref().is_some_and(|m| m.info().write_cache);
                mask | u64::from(cached) << slot
            });
            let mut node = Node::with_status(
                NodeConfig {
                    id,
                    nodes,
                    geometry,
                    block_bytes,
                    view: view.clone(),
                    stripes: config.stripes,
                    pool,
                    member_request_bytes: member_request,
                    in_memory: infos().all(|i| i.in_memory),
                    batching: config.batching,
                    crossing: crossing.clone(),
                    members: members
                        .iter()
                        .map(|m| m.as_ref().map(|m| m.info().name.clone()))
                        .collect(),
                    write_caches: caches,
                    data_offsets: data_offsets.clone(),
                    rows_per_region,
                    bad_block_logs,
                    metadata: metadata.take(),
                    logs: logs.clone(),
                },
                status.clone(),
            );
            if id == 0 {
                node.control(Control::Pace(config.pace));
            }
            parts.push(Some(NodeParts {
                node,
                members: members.clone(),
                port,
                control: mailbox.take(),
            }));
        }
        Ok(Arc::new(Self {
            info,
            config,
            geometry,
            parts: Mutex::new(parts),
            status,
            counters: Arc::new(Mutex::new(vec![Counters::default(); nodes])),
            control,
        }))
    }

    /// What it was made with.
    pub fn config(&self) -> &VolumeConfig {
        &self.config
    }

    /// Its shape.
    pub fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// State, members and rebuild, as of now.
    pub fn status(&self) -> Status {
        self.status.read()
    }

    /// What all reactors have done; up to a tenth of a second old.
    pub fn counters(&self) -> Counters {
        let nodes = lock::exclusive(&self.counters);
        nodes.iter().fold(Counters::default(), |mut sum, node| {
            sum.add(node);
            sum
        })
    }

    /// Takes a member out; hosts go on working without it.
    ///
    /// # Errors
    /// [`VolumeError::Changing`] when too many changes wait already. The ticket tells whether this
    /// one was refused.
    pub fn remove_member(&self, member: &str) -> Result<Ticket, VolumeError> {
        let member = member.to_owned();
        self.ask(|answer| Control::Remove { member, answer })
    }

    /// Puts a device into the slot that is free and rebuilds it. The ticket's answer comes when
    /// every reactor has opened it; [`Volume::status`] shows how far the rebuild is.
    ///
    /// # Errors
    /// [`VolumeError::Changing`] when too many changes wait already;
    /// [`VolumeError::MixedBlocks`]. The ticket tells whether this one was refused.
    pub fn add_member(
        &self,
        bdev: Arc<dyn Bdev>,
        metadata: Option<NewMember>,
    ) -> Result<Ticket, VolumeError> {
        self.check_blocks(&*bdev)?;
        let metadata = metadata.map(Box::new);
        self.ask(|answer| Control::Add {
            bdev,
            metadata,
            answer,
        })
    }

    /// Makes a device the mirror of a member, and puts it in its place once it is. The ticket's
    /// answer comes when every reactor has opened it; [`Volume::status`] shows how far it has come.
    ///
    /// # Errors
    /// As [`Volume::add_member`].
    pub fn replace_member(
        &self,
        member: &str,
        bdev: Arc<dyn Bdev>,
        metadata: Option<NewMember>,
    ) -> Result<Ticket, VolumeError> {
        self.check_blocks(&*bdev)?;
        let member = member.to_owned();
        let metadata = metadata.map(Box::new);
        self.ask(|answer| Control::Replace {
            member,
            bdev,
            metadata,
            answer,
        })
    }

    /// Begins a check or a repair.
    ///
    /// # Errors
    /// [`VolumeError::Changing`] when too many changes wait already. The ticket tells whether this
    /// one was refused.
    pub fn start(&self, work: Work) -> Result<Ticket, VolumeError> {
        self.ask(|answer| Control::Start(work, answer))
    }

    /// Leaves a check or repair, and puts a rebuild or resync off; or goes on with it.
    ///
    /// # Errors
    /// As [`Volume::start`].
    pub fn pause(&self, pause: bool) -> Result<Ticket, VolumeError> {
        self.ask(|answer| Control::Pause(pause, answer))
    }

    /// Takes parity for right that may not match what is left of a degraded array.
    ///
    /// # Errors
    /// As [`Volume::start`].
    pub fn accept_parity(&self) -> Result<Ticket, VolumeError> {
        self.ask(Control::AcceptParity)
    }

    /// Has the members say that the array is clean, once nothing is written to it any more. The
    /// ticket's answer comes when they do.
    ///
    /// # Errors
    /// As [`Volume::start`].
    pub fn close(&self) -> Result<Ticket, VolumeError> {
        self.ask(Control::Close)
    }

    /// Rebuilds, resyncs and checks at this pace from now on.
    ///
    /// # Errors
    /// [`VolumeError::Changing`] when too many changes wait already.
    pub fn set_pace(&self, options: ProcessOptions) -> Result<(), VolumeError> {
        let sent = self.control.send(Control::Pace(options));
        sent.map_err(|_| VolumeError::Changing)
    }

    fn check_blocks(&self, bdev: &dyn Bdev) -> Result<(), VolumeError> {
        let info = bdev.info();
        if info.block_size != self.info.block_size {
            return Err(VolumeError::MixedBlocks {
                name: info.name.clone(),
                found: info.block_size,
                wanted: self.info.block_size,
            });
        }
        Ok(())
    }

    fn ask(&self, control: impl FnOnce(Answer) -> Control) -> Result<Ticket, VolumeError> {
        let (sender, answer) = mpsc::channel();
        let sent = self.control.send(control(sender));
        sent.map_err(|_| VolumeError::Changing)?;
        Ok(Ticket { answer })
    }
}

impl Bdev for Volume {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self) -> Result<Box<dyn bdev::Channel>, OpenError> {
        let refuse = |reason: String| OpenError {
            name: self.info.name.clone(),
            reason,
        };
        let Some(id) = reactor::current() else {
            return Err(refuse("only a reactor can open a RAID volume".into()));
        };
        let mut parts = lock::exclusive(&self.parts);
        let part = parts.get_mut(id.index()).and_then(Option::take);
        let Some(part) = part else {
            return Err(refuse(format!("{id} has it open already")));
        };
        drop(parts);
        let channel = VolumeChannel::new(self.info.clone(), part, self.counters.clone())?;
        Ok(Box::new(channel))
    }

    fn statistics(&self) -> serde_json::Value {
        serde_json::json!({ "stripe_cache": self.counters().to_json() })
    }

    fn driver_specific(&self) -> serde_json::Value {
        let status = self.status();
        let state = match status.state {
            State::Online => "online",
            State::Offline => "offline",
        };
        let c = self.counters();
        let mut cache = c.to_json();
        cache["state"] = state.into();
        serde_json::json!({ "stripe_cache": cache })
    }
}

/// The partial parity logs of an array that has them.
fn logs_of(
    stored: &Stored,
    config: &VolumeConfig,
    block_bytes: u32,
    arena: &Arena,
) -> Result<Option<LogsConfig>, VolumeError> {
    let superblocks = stored.superblocks.iter().flatten();
    let places: Vec<_> = superblocks.filter_map(LogPlace::of).collect();
    if places.is_empty() {
        return Ok(None);
    }
    if let Some(place) = places
        .iter()
        .find(|place| !place.suits(config.stripe_bytes, block_bytes))
    {
        return Err(VolumeError::Log {
            sectors: place.sectors,
            stripe: config.stripe_bytes,
        });
    }
    let pages = stored.superblocks.len() + 1;
    let pool = Pool::new(arena, ppl::HEADER_BYTES, pages)
        .map_err(|e| VolumeError::Memory(e.to_string()))?;
    Ok(LogsConfig::of(stored, pool))
}

/// The block size of all members and the bytes of the smallest.
fn check_members(members: &[Option<Arc<dyn Bdev>>]) -> Result<(u32, u64), VolumeError> {
    let missing = members.iter().filter(|m| m.is_none()).count();
    if missing > 1 {
        return Err(VolumeError::TooManyMissing {
            missing,
            members: members.len(),
        });
    }
    let mut names = BTreeSet::new();
    let mut shape: Option<(u32, u64, u64)> = None;
    for member in members.iter().flatten() {
        let info = member.info();
        if !names.insert(&info.name) {
            return Err(VolumeError::Twice(info.name.clone()));
        }
        if ![512, 4096].contains(&info.block_size) {
            return Err(VolumeError::BlockSize {
                name: info.name.clone(),
                block_bytes: info.block_size,
            });
        }
        let (wanted, least, most) = *shape.get_or_insert((info.block_size, u64::MAX, 0));
        if info.block_size != wanted {
            return Err(VolumeError::MixedBlocks {
                name: info.name.clone(),
                found: info.block_size,
                wanted,
            });
        }
        shape = Some((wanted, least.min(info.bytes()), most.max(info.bytes())));
    }
    let (block, least, most) = shape.ok_or(VolumeError::Members(members.len()))?;
    if least != most {
        tracing::warn!(
            smallest = least,
            largest = most,
            "members differ in size: the smallest decides, the rest of the others is not used"
        );
    }
    Ok((block, least))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Nobody waits for what nobody can tell any more.
    #[test]
    fn a_ticket_of_a_volume_that_is_gone_says_so() {
        let (sender, answer) = mpsc::channel();
        let ticket = Ticket { answer };
        assert_eq!(ticket.poll(), None);
        drop(sender);
        assert_eq!(ticket.poll(), Some(Err(VolumeError::Ended)));
        let hour = Duration::from_secs(3600);
        assert_eq!(ticket.wait(hour), Err(VolumeError::Ended));
    }
}
