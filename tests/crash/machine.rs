//! A machine that runs an array: its nodes, what they say to each other, what the disks are asked.
//! Nothing moves by itself, and a crash is that the machine is dropped.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use stripewise::bdev::{Completion, Op, Request};
use stripewise::md::Time;
use stripewise::memory::{Arena, Pool};
use stripewise::raid::{
    Assembled, Control, Crossing, Effect, LogsConfig, Message, MetadataConfig, Node, NodeConfig,
    View,
};

use crate::disk::{self, Disk};
use crate::random::Random;
use crate::shape::{Places, Shape};
use crate::start::Start;

/// A request to a disk, in flight.
#[derive(Debug)]
pub struct Asked {
    node: usize,
    bay: usize,
    pub disk: usize,
    /// What the disk's clock said when it was handed in.
    since: u64,
    /// Bytes of a block of the disk, and where it has what.
    block: u32,
    places: Places,
    pub request: Request,
}

pub struct Machine {
    nodes: Vec<Node>,
    /// The disk that each node has open in each bay.
    open: Vec<Vec<Option<usize>>>,
    pub asked: Vec<Asked>,
    mail: BTreeMap<(usize, usize), VecDeque<Message>>,
    places: Places,
    now: Instant,
    /// Requests for this are served when nothing else is left to be done.
    pub late: Option<Target>,
    /// Host requests that have ended.
    pub ended: Vec<Completion>,
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A disk serves a request.
    Serve(usize),
    /// A node gets a message of another.
    Deliver(usize, usize),
    /// A node has a turn, some time later.
    Turn(usize, Duration),
}

impl Machine {
    /// Starts the array.
    pub fn new(shape: &Shape, start: Start, disks: &[Disk]) -> Self {
        let geometry = shape.geometry();
        let pages = Node::pages_min(shape.members) + 40;
        let stripes = 24;
        let stripe = shape.stripe as usize;
        let bytes = shape.nodes * pages * stripe + 32 * 4096;
        let arena = Arena::ordinary(bytes).expect("memory");
        let batching = shape.batching;
        let crossing = Arc::new(Crossing::new(
            &vec![stripes; shape.nodes],
            batching.preread_limit,
        ));
        let Start {
            assembled,
            disks: slots,
            ..
        } = start;
        let Assembled { stored, view, .. } = assembled;
        let caches = slots.iter().enumerate().fold(0, |mask, (slot, disk)| {
            mask | u64::from(disk.is_some_and(|d| disks[d].cached)) << slot
        });
        let offsets = stored.superblocks.iter();
        let offsets = offsets.map(|s| s.as_ref().map_or(0, |s| s.data_offset * 512));
        let offsets: Vec<u64> = offsets.collect();
        let logs = stored.superblocks.iter().enumerate();
        let logs = logs.fold(0, |mask, (slot, s)| {
            let log = s.as_ref().is_some_and(|s| s.bad_block_log.size > 0);
            mask | u64::from(log) << slot
        });
        let view = View {
            bad: stored.bad_ranges(),
            ..view
        };
        let now = Instant::now();
        let view = Arc::new(view);
        let rows_per_region = Some(stored.rows_per_region(&geometry));
        let headers = Pool::new(&arena, 4096, shape.members + 1).expect("room");
        let partial_parity = LogsConfig::of(&stored, headers);
        // Few pages, so that commits wait for some now and then.
        let mut metadata = Some(MetadataConfig {
            stored,
            pool: Pool::new(&arena, 4096, 2 * shape.members).expect("room"),
            booted: (now, Time::from_seconds(1_700_000_000)),
        });
        let names = slots.iter().map(|disk| disk.map(disk::name));
        let names: Vec<_> = names.collect();
        let nodes = (0..shape.nodes).map(|id| {
            Node::new(NodeConfig {
                id,
                nodes: shape.nodes,
                geometry,
                block_bytes: shape.block,
                view: view.clone(),
                stripes,
                pool: Pool::new(&arena, stripe, pages).expect("room"),
                member_request_bytes: batching.request_bytes,
                in_memory: false,
                batching,
                crossing: crossing.clone(),
                members: names.clone(),
                write_caches: caches,
                data_offsets: offsets.clone(),
                rows_per_region,
                bad_block_logs: logs,
                metadata: metadata.take(),
                logs: partial_parity.clone(),
            })
        });
        let mut machine = Self {
            nodes: nodes.collect(),
            open: vec![slots.into_iter().chain([None]).collect(); shape.nodes],
            asked: Vec::new(),
            mail: BTreeMap::new(),
            places: shape.places(),
            now,
            late: None,
            ended: Vec::new(),
        };
        machine.nodes[0].control(Control::Pace(shape.pace));
        machine
    }

    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// The view of the array's own node.
    pub fn view(&self) -> &View {
        self.nodes[0].view()
    }

    /// The disk that the array's node has in each slot.
    pub fn slots(&self) -> Vec<Option<usize>> {
        let slots = 0..self.open[0].len() - 1;
        slots
            .map(|slot| self.open[0][self.view().bay(slot)])
            .collect()
    }

    /// Hands in a host's request.
    pub fn submit(&mut self, node: usize, request: Request, disks: &[Disk]) {
        let refused = self.nodes[node].submit(request);
        refused.expect("few requests are in flight");
        self.carry_out(node, disks);
    }

    pub fn control(&mut self, control: Control, disks: &[Disk]) {
        self.nodes[0].control(control);
        self.carry_out(0, disks);
    }

    /// Draws what happens next.
    pub fn draw(&self, random: &mut Random) -> Step {
        let mail = self.mail.iter().filter(|(_, queue)| !queue.is_empty());
        let ways: Vec<_> = mail.map(|(way, _)| *way).collect();
        let asked = 0..self.asked.len();
        let is_late = |at: &usize| Some(self.asked[*at].target()) == self.late;
        let (late, due): (Vec<_>, Vec<_>) = asked.partition(is_late);
        match random.below(8) {
            0..=3 if !due.is_empty() => Step::Serve(random.pick(&due)),
            4..=6 if !ways.is_empty() => {
                let (from, to) = random.pick(&ways);
                Step::Deliver(from, to)
            }
            _ if due.is_empty() && ways.is_empty() && !late.is_empty() && random.one_in(32) => {
                Step::Serve(random.pick(&late))
            }
            _ => {
                let node = random.below(self.nodes.len() as u64) as usize;
                let micros = match random.below(64) {
                    0 => 300_000,
                    1..4 => 20_000,
                    _ => random.below(100),
                };
                Step::Turn(node, Duration::from_micros(micros))
            }
        }
    }

    pub fn take(&mut self, step: Step, disks: &mut [Disk]) {
        match step {
            Step::Serve(at) => {
                let Asked {
                    node,
                    bay,
                    disk,
                    since,
                    request,
                    ..
                } = self.asked.swap_remove(at);
                let completion = disks[disk].serve(request, since);
                self.nodes[node].member_done(bay, completion);
                self.carry_out(node, disks);
            }
            Step::Deliver(from, to) => {
                let queue = self.mail.get_mut(&(from, to));
                let message = queue.and_then(VecDeque::pop_front).expect("there is mail");
                self.nodes[to].receive(from, message, self.now);
                self.carry_out(to, disks);
            }
            Step::Turn(node, later) => {
                self.now += later;
                self.nodes[node].run(self.now);
                self.carry_out(node, disks);
            }
        }
    }

    /// Whether nothing happens until time has passed. If so, it passes: as much as the first
    /// deadline wants. `None` if there is none.
    pub fn is_still(&mut self, disks: &[Disk]) -> Option<bool> {
        let idle = |m: &Self| m.asked.is_empty() && m.mail.values().all(VecDeque::is_empty);
        if !idle(self) {
            return Some(false);
        }
        let mut worked = false;
        for node in 0..self.nodes.len() {
            worked |= self.nodes[node].run(self.now);
            self.carry_out(node, disks);
        }
        if worked || !idle(self) {
            return Some(false);
        }
        let next = self.nodes.iter().filter_map(Node::deadline).min()?;
        // Who waits for turns wants time to pass, too.
        self.now = (self.now + Duration::from_micros(1)).max(next);
        Some(true)
    }

    fn carry_out(&mut self, node: usize, disks: &[Disk]) {
        loop {
            let effects = std::mem::take(self.nodes[node].effects());
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Member(bay, request) => {
                        let disk = self.open[node][bay].expect("only members that are open");
                        self.asked.push(Asked {
                            node,
                            bay,
                            disk,
                            since: disks[disk].clock(),
                            block: disks[disk].block,
                            places: self.places,
                            request,
                        });
                    }
                    Effect::Expect(..) => {}
                    Effect::Send(to, message) => {
                        self.mail.entry((node, to)).or_default().push_back(message);
                    }
                    Effect::Complete { completion, .. } => self.ended.push(completion),
                    Effect::Open(bay, bdev) => {
                        self.open[node][bay] = Some(disk::number(&bdev.info().name));
                        self.nodes[node].attached(bay, None);
                    }
                    Effect::Close(bay) => {
                        let mut asked = self.asked.iter();
                        let waits = asked.any(|a| (a.node, a.bay) == (node, bay));
                        assert!(!waits, "closed with requests in flight");
                        self.open[node][bay] = None;
                    }
                }
            }
        }
    }
}

/// What a request changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    Superblock,
    /// The bitmap or partial parity log.
    Marks,
    BadBlocks,
    Data,
    Flush,
    Nothing,
}

impl Asked {
    /// What it changes, by where it goes.
    pub fn target(&self) -> Target {
        let byte = self.request.lba * u64::from(self.block);
        match self.request.op {
            Op::Flush => Target::Flush,
            op if !op.modifies() => Target::Nothing,
            _ if byte < self.places.marks => Target::Superblock,
            _ if byte < self.places.bad_blocks => Target::Marks,
            _ if byte < self.places.data => Target::BadBlocks,
            _ => Target::Data,
        }
    }

    /// Whether it leaves the disk another than it was.
    pub fn matters(&self) -> bool {
        self.request.op.modifies() || self.request.op == Op::Flush
    }
}
