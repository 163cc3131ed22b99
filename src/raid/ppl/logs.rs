//! The logs that one node keeps: those of every so many-th bay.

use super::flush::Flushes;
use super::log::{Left, Log};
use super::{Ended, LogPlace, LogsConfig, Record};
use crate::bdev::{Data, Op, Request, Status};
use crate::md::ppl::{HEADER_BYTES, RING_PARITY_BYTES};
use crate::memory::{Pool, Segments};
use crate::raid::counters::Counters;
use crate::raid::geometry::Geometry;
use crate::raid::message::{Message, NodeId};
use crate::raid::view::View;

/// Buffers of a write to a ring: a header and stripes of 4 KiB.
const PAGES: usize = 1 + RING_PARITY_BYTES as usize / HEADER_BYTES;

#[derive(Debug)]
pub(in crate::raid) struct Logs {
    id: NodeId,
    nodes: usize,
    signature: u32,
    /// By bay; those of other nodes, and of members that were never there, are `None`.
    logs: Box<[Option<Log>]>,
    flushes: Flushes,
    /// Rounds have ended since the last look at what is to be flushed.
    ended: bool,
    /// Bays whose members have a volatile cache.
    write_caches: u64,
    /// Bays that have a member, by the latest view.
    present: u64,
    epoch: u64,
    /// The latest view that every node, and every superblock, knows of.
    settled: u64,
    means: Means,
}

/// What the logs work with, and what they want.
#[derive(Debug)]
pub(in crate::raid) struct Means {
    pub geometry: Geometry,
    block_bytes: u32,
    /// Most bytes of one member request.
    request_bytes: u32,
    /// Pages for headers.
    pub pool: Pool,
    /// Lists that outgrew their inline room, for the next writes.
    lists: Vec<Segments>,
    /// Requests to members, by bay. Where they begin is absolute.
    pub requests: Vec<(usize, Request)>,
    /// Messages to nodes, this one included.
    pub outbox: Vec<(NodeId, Message)>,
    /// Members that failed, by bay.
    pub failures: Vec<(usize, Status)>,
    /// Nodes of which pages are free again; see [`Means::node_bit`].
    pub freed: u64,
    pub entries: u64,
    pub writes: u64,
    pub pages: u64,
    pub waits: u64,
}

/// What the logs of a node are made of.
#[derive(Debug)]
pub(in crate::raid) struct LogsParts<'a> {
    pub id: NodeId,
    /// Nodes of the volume.
    pub nodes: usize,
    pub geometry: Geometry,
    pub block_bytes: u32,
    /// Most bytes of one member request.
    pub request_bytes: u32,
    /// Bays whose members have a volatile cache.
    pub write_caches: u64,
    /// The view that all nodes begin with.
    pub view: &'a View,
    pub config: LogsConfig,
}

impl Means {
    /// Tokens of the requests.
    const WRITE: u64 = 0;
    pub(super) const FLUSH: u64 = 1;

    /// The bit of a node: of more than one, where there are more than 64.
    pub(super) fn node_bit(node: NodeId) -> u64 {
        1 << (node % 64)
    }

    /// Most bytes that are one request.
    pub(super) fn request_bytes(&self) -> u64 {
        self.request_bytes.into()
    }

    /// An empty list.
    pub(super) fn list(&mut self) -> Segments {
        self.lists.pop().unwrap_or_default()
    }

    /// A list that is not needed any more.
    pub(super) fn keep(&mut self, mut list: Segments) {
        if list.spilled() {
            list.clear();
            self.lists.push(list);
        }
    }

    /// Takes back lists that were emptied outside.
    pub(in crate::raid) fn give_back(
        &mut self,
        mut requests: Vec<(usize, Request)>,
        mut outbox: Vec<(NodeId, Message)>,
        mut failures: Vec<(usize, Status)>,
    ) {
        requests.append(&mut self.requests);
        outbox.append(&mut self.outbox);
        failures.append(&mut self.failures);
        self.requests = requests;
        self.outbox = outbox;
        self.failures = failures;
    }

    /// Writes to a member, so that it is on the medium when it has ended. Returns how many requests
    /// that takes.
    pub(super) fn write(&mut self, bay: usize, at: u64, mut bytes: Segments) -> u32 {
        let most = self.request_bytes as usize;
        let total: usize = bytes.iter().map(|b| b.len()).sum();
        if total <= most {
            self.ask(bay, at, bytes);
            return 1;
        }
        let (mut requests, mut at) = (0, at);
        let (mut piece, mut len) = (self.list(), 0);
        for mut buf in bytes.drain(..) {
            loop {
                let room = most - len;
                if buf.len() <= room {
                    len += buf.len();
                    piece.push(buf);
                    break;
                }
                if room > 0 {
                    piece.push(buf.slice(..room));
                    buf = buf.slice(room..);
                }
                self.ask(bay, at, piece);
                requests += 1;
                at += most as u64;
                (piece, len) = (self.list(), 0);
            }
        }
        self.ask(bay, at, piece);
        self.keep(bytes);
        requests + 1
    }

    fn ask(&mut self, bay: usize, at: u64, bytes: Segments) {
        let block = u64::from(self.block_bytes);
        let len: usize = bytes.iter().map(|b| b.len()).sum();
        let request = Request {
            token: Self::WRITE,
            op: Op::Write { fua: true },
            lba: at / block,
            blocks: len as u32 / self.block_bytes,
            data: Data::Write(bytes),
        };
        self.requests.push((bay, request));
    }
}

impl Logs {
    /// The logs of a node, all of them empty.
    pub(in crate::raid) fn new(parts: LogsParts<'_>) -> Self {
        let LogsParts {
            id,
            nodes,
            geometry,
            block_bytes,
            request_bytes,
            write_caches,
            view,
            config,
        } = parts;
        let LogsConfig {
            signature,
            places,
            pool,
        } = config;
        let mut logs = Self {
            id,
            nodes,
            signature,
            logs: places.iter().chain([&None]).map(|_| None).collect(),
            flushes: Flushes::default(),
            ended: false,
            write_caches: 0,
            present: 0,
            epoch: 0,
            settled: view.epoch,
            means: Means {
                geometry,
                block_bytes,
                request_bytes,
                pool,
                lists: Vec::new(),
                requests: Vec::new(),
                outbox: Vec::new(),
                failures: Vec::new(),
                freed: 0,
                entries: 0,
                writes: 0,
                pages: 0,
                waits: 0,
            },
        };
        // A log has a header and its parity in hand, and a moment longer those that were written.
        let kept = (0..=geometry.members()).filter(|&bay| Self::keeper(bay, nodes) == id);
        for _ in 0..3 * kept.count() {
            logs.means.lists.push(Segments::with_capacity(PAGES));
        }
        // At first each member is in the bay of its slot's number.
        for (bay, place) in places.into_iter().enumerate() {
            logs.open(bay, 0, place, write_caches & (1 << bay) != 0);
        }
        logs.adopt(view);
        logs
    }

    /// The node that keeps the log of a bay's member.
    pub(in crate::raid) fn keeper(bay: usize, nodes: usize) -> NodeId {
        bay % nodes
    }

    /// A bay has a member, and that an empty log.
    pub(in crate::raid) fn open(
        &mut self,
        bay: usize,
        generation: u32,
        place: Option<LogPlace>,
        write_cache: bool,
    ) {
        self.write_caches &= !(1 << bay);
        self.write_caches |= u64::from(write_cache) << bay;
        self.flushes.failed &= !(1 << bay);
        if Self::keeper(bay, self.nodes) == self.id {
            let log = place.and_then(|place| Log::new(bay, generation, place, self.signature));
            self.logs[bay] = log;
        }
    }

    /// A node's stripe is to be noted in the log of a bay's member of this generation.
    pub(in crate::raid) fn note(
        &mut self,
        from: NodeId,
        bay: usize,
        generation: u32,
        record: Record,
    ) {
        match &mut self.logs[bay] {
            // The sender will know from its view that the member it means is lost.
            Some(log) if log.generation != generation => {}
            Some(log) if log.is_alive() => log.note(from, record),
            _ => self.means.failures.push((bay, Status::Gone)),
        }
    }

    /// The round of a noted stripe has ended.
    pub(in crate::raid) fn ended(&mut self, bay: usize, ended: Ended) {
        let left = Left {
            bays: ended.bays & self.write_caches & self.present,
            flush: self.flushes.begun,
            epoch: match ended.bays {
                0 => 0,
                _ => self.epoch,
            },
            strike: ended.strike,
        };
        if let Some(log) = &mut self.logs[bay] {
            log.ended(ended.number, left, self.settled, &mut self.means);
            self.ended |= left.bays != 0;
        }
    }

    /// A new view: the logs of members that are lost are closed.
    pub(in crate::raid) fn adopt(&mut self, view: &View) {
        self.epoch = view.epoch;
        let members = self.means.geometry.members();
        let bays = 0..self.logs.len().min(64);
        self.present = bays
            .filter(|&bay| view.occupies(bay, members))
            .fold(0, |mask, bay| mask | 1 << bay);
        for (bay, log) in self.logs.iter_mut().enumerate() {
            let Some(log) = log else { continue };
            // A member that is to replace another is attached a little before the view has it.
            let lost = self.present & (1 << bay) == 0;
            if !view.online || lost {
                log.close(&mut self.means);
            } else {
                log.forsake(self.present, view.epoch);
            }
        }
    }

    /// Every node, and every superblock, knows of the view of this epoch.
    pub(in crate::raid) fn settled(&mut self, epoch: u64) {
        self.settled = self.settled.max(epoch);
        for log in self.logs.iter_mut().flatten() {
            log.drop_ended(None, self.settled, &mut self.means);
        }
    }

    /// A member has answered.
    pub(in crate::raid) fn member_done(
        &mut self,
        bay: usize,
        token: u64,
        status: Status,
        data: Data,
    ) {
        if status != Status::Ok {
            self.means.failures.push((bay, status));
        }
        if token == Means::FLUSH {
            let flushed = self.flushes.answered(bay, status);
            if flushed.is_some() {
                self.ended = true;
                for log in self.logs.iter_mut().flatten() {
                    log.drop_ended(flushed, self.settled, &mut self.means);
                }
            }
            return;
        }
        if let Data::Write(written) = data {
            self.means.keep(written);
        }
        let log = self.logs[bay].as_mut();
        log.expect("it has asked").written(status, &mut self.means);
    }

    /// The end of a turn: what has gathered is written.
    pub(in crate::raid) fn run(&mut self) {
        for log in self.logs.iter_mut().flatten() {
            log.run(&mut self.means);
        }
        if self.ended && !self.flushes.is_active() {
            self.ended = false;
            let logs = self.logs.iter().flatten();
            let bays = logs.fold(0, |bays, log| bays | log.unflushed());
            self.flushes.begin(bays & self.present, &mut self.means);
        }
    }

    /// What they want from the outside.
    pub(in crate::raid) fn means(&mut self) -> &mut Means {
        &mut self.means
    }

    /// Nodes whose pages are free again since this was last asked.
    pub(in crate::raid) fn freed(&mut self) -> impl Iterator<Item = NodeId> + use<> {
        let freed = std::mem::take(&mut self.means.freed);
        let nodes = if freed == 0 { 0 } else { self.nodes };
        (0..nodes).filter(move |&node| freed & Means::node_bit(node) != 0)
    }

    /// Adds what the logs have done.
    pub(in crate::raid) fn count(&self, counters: &mut Counters) {
        counters.ppl_entries = self.means.entries;
        counters.ppl_writes = self.means.writes;
        counters.ppl_pages = self.means.pages;
        counters.ppl_waits = self.means.waits;
    }

    /// Whether nothing is under way, and nobody waits.
    pub(in crate::raid) fn is_idle(&self) -> bool {
        !self.flushes.is_active() && self.logs.iter().flatten().all(Log::is_idle)
    }
}
