//! The world of one seed: nodes, disks, the messages between them, a host, and the order of events.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stripewise::bdev::{self, Bdev, Completion, Data, Info, Op, OpenError, Request, Status};
use stripewise::memory::{Arena, Pool, Segments, SegmentsMut};
use stripewise::raid::{
    BatchScope, Batching, Control, Counters, Crossing, Effect, Geometry, Layout, LogsConfig,
    Message, NewMember, Node, NodeConfig, ProcessOptions, Unsynced, View, VolumeError, Work,
};
use stripewise::xor;

use crate::disk::Disk;
use crate::host::Model;
use crate::logged::{Logged, page_pool};
use crate::metadata;
use crate::random::Random;

/// What goes wrong in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Faults {
    /// Nothing.
    None,
    /// Blocks that can't be read, at most one member's in each row.
    Latent,
    /// One member fails; another takes its place and is rebuilt.
    Loss,
    /// One member is removed by command and added back.
    Removal,
    /// All of these at any time, on any member. Requests may fail; nothing may be wrong.
    Chaos,
    /// Long writes that fail and can be done in pieces.
    Flaky,
    /// Parity that does not match, being resynced or repaired.
    Parity,
    /// Members that work are replaced.
    Replacement,
}

impl Faults {
    pub const ALL: [Faults; 8] = [
        Faults::None,
        Faults::Latent,
        Faults::Loss,
        Faults::Removal,
        Faults::Chaos,
        Faults::Flaky,
        Faults::Parity,
        Faults::Replacement,
    ];
}

/// The device that is added to an array; the nodes only hand it on.
#[derive(Debug)]
struct SimBdev {
    info: Info,
}

impl Bdev for SimBdev {
    fn info(&self) -> &Info {
        &self.info
    }

    fn open(&self) -> Result<Box<dyn bdev::Channel>, OpenError> {
        unreachable!("the simulator serves disks itself")
    }
}

/// A host request in flight.
#[derive(Debug)]
struct Sent {
    op: Op,
    lba: u64,
    blocks: u32,
    /// Member requests that had been served when it was sent.
    since: u64,
    /// What a compare must say; `None` while other writes may change the block.
    equal: Option<bool>,
}

/// A member request in flight: node, slot, disk, request.
type OnDisk = (usize, usize, usize, Request);

pub struct World {
    pub(crate) random: Random,
    pub(crate) faults: Faults,
    pub(crate) geometry: Geometry,
    pub(crate) block: u32,
    pub(crate) nodes: Vec<Node>,
    /// The disk that each node has open in each bay.
    pub(crate) open: Vec<Vec<Option<usize>>>,
    pub(crate) disks: Vec<Disk>,
    on_disk: Vec<OnDisk>,
    /// Member requests served.
    served: u64,
    mail: BTreeMap<(usize, usize), VecDeque<Message>>,
    pub(crate) model: Model,
    payload: Pool,
    sent: BTreeMap<u64, Sent>,
    next_request: u64,
    /// Ranges just written, to be read back through another node at once.
    to_read_back: Vec<(u64, u32)>,
    /// Many writes are as small as a stripe's block: members are memory, and have no logs.
    small_writes: bool,
    /// Rows that follow one another with one owner.
    run: u32,
    /// Where the host's stream has come to.
    stream: u64,
    /// A node that hears late of what the array decides.
    slow: usize,
    now: Instant,
    answers: Vec<mpsc::Receiver<Result<(), VolumeError>>>,
    /// Members lost or removed so far, and whether a spare was added for the last one.
    lost: u32,
    spare_wanted: bool,
    failures: u64,
    /// The members have partial parity logs.
    pub(crate) logged: Option<Logged>,
    /// Rows whose parity did not match when they were looked at last.
    pub(crate) unequal: BTreeSet<u64>,
    /// The members say what the array is, and have a bitmap.
    metadata: Option<bool>,
    /// Where the data of the disks begins.
    pub(crate) data: u64,
    /// Members replaced so far.
    replaced: u32,
    /// A member that was removed and may come back.
    removed: Option<(usize, usize)>,
}

impl World {
    /// A world; the members of its array have partial parity logs, or not.
    pub fn new(seed: u64, faults: Faults, logs: bool) -> Self {
        let mut random = Random(seed ^ (faults as u64) << 56);
        let members = 3 + random.below(4) as usize;
        let chunk = 4096u32 << random.below(3);
        let stripe = 4096 << random.below(u64::from(chunk.ilog2() - 11));
        let block = random.pick(&[512, 4096]);
        let rows = 4 + random.below(28);
        let node_count = random.pick(&[1, 2, 2, 3, 4, 8]);
        let run = 1 + random.below(3) as u32;
        let layout = random.pick(&Layout::ALL);
        let member_bytes = rows * u64::from(chunk) + random.below(4096);
        let geometry = Geometry::new(members, member_bytes, chunk, stripe, layout)
            .expect("the shape is in range")
            .with_shards(node_count, run);
        let in_memory = seed % 8 == 2;
        let small_writes = in_memory && !logs;
        let names: Vec<_> = (0..members).map(|m| Some(format!("disk{m}"))).collect();
        let metadata = match random.below(4) {
            0 | 1 => None,
            2 => Some(None),
            _ => Some(Some(4096u32 << random.below(6))),
        };
        let logged = logs.then(|| Logged::new(&mut random, &geometry));
        let metadata = metadata.filter(|_| !logs).or(logs.then_some(None));
        let mut stored = metadata.map(|bitmap| metadata::stored(&geometry, bitmap));
        let mut data = metadata.map_or(0, |_| metadata::DATA);
        if let (Some(logged), Some(stored)) = (&logged, &mut stored) {
            stored
                .superblocks
                .iter_mut()
                .flatten()
                .for_each(|s| logged.add_to(s));
            data = logged.data();
        }
        let log_pool = page_pool(members + 1);
        let logs_config = stored.as_ref().and_then(|s| LogsConfig::of(s, log_pool));
        let unsynced = (faults == Faults::Parity && random.one_in(2)).then(|| Unsynced {
            from: 0,
            regions: None,
            fresh: random.one_in(2),
        });
        let repair = faults == Faults::Parity && unsynced.is_none();
        let view = Arc::new(View {
            unsynced,
            ..View::first(None)
        });
        let rows_per_region = stored.as_ref().map(|s| s.rows_per_region(&geometry));
        let mut config = stored.map(metadata::config);
        let write_caches = random.next() & ((1 << members) - 1);
        let batching = Batching {
            scope: random.pick(&[
                BatchScope::Off,
                BatchScope::Row,
                BatchScope::Rows,
                BatchScope::Owners,
                BatchScope::Owners,
                BatchScope::Owners,
            ]),
            request_bytes: 4096 << random.below(6),
            preread_limit: 1 + random.below(6) as u32,
            partial_wait: Duration::from_micros(random.pick(&[0, 100, 2000])),
            join_wait: Duration::from_micros(random.pick(&[0, 300, 3000])),
        };
        // Some have room for whole runs of rows, others for hardly anything.
        let roomy = random.one_in(2);
        let room = |random: &mut Random, few, more| match roomy {
            true => more + random.below(more),
            false => random.below(few),
        };
        // What is cached is not patched.
        let most = if small_writes { 4 } else { usize::MAX };
        let stripes: Vec<_> = (0..node_count)
            .map(|_| most.min(2 + room(&mut random, 30, 200) as usize))
            .collect();
        let crossing = Arc::new(Crossing::new(&stripes, batching.preread_limit));
        let nodes = (0..node_count)
            .map(|id| {
                let pages = Node::pages_min(members) + 1 + room(&mut random, 40, 600) as usize;
                let arena = Arena::ordinary(pages * stripe as usize).expect("memory");
                Node::new(NodeConfig {
                    id,
                    nodes: node_count,
                    geometry,
                    block_bytes: block,
                    view: view.clone(),
                    stripes: stripes[id],
                    pool: Pool::new(&arena, stripe as usize, pages).expect("room"),
                    member_request_bytes: batching.request_bytes,
                    in_memory,
                    batching,
                    crossing: crossing.clone(),
                    members: names.clone(),
                    write_caches,
                    data_offsets: vec![data; members],
                    rows_per_region,
                    bad_block_logs: metadata.map_or(0, |_| (1 << members) - 1),
                    metadata: config.take(),
                    logs: logs_config.clone(),
                })
            })
            .collect();
        let arena = Arena::ordinary(4096 * 4096).expect("memory");
        let blocks = geometry.volume_bytes() / u64::from(block);
        let mut world = Self {
            faults,
            geometry,
            block,
            nodes,
            open: vec![(0..members).map(Some).chain([None]).collect(); node_count],
            disks: (0..members)
                .map(|slot| {
                    let bytes = member_bytes / u64::from(block) * u64::from(block);
                    let mut disk = Disk::new(data + bytes, block, 0);
                    if let Some(logged) = &logged {
                        disk.write_cache = write_caches & (1 << slot) != 0;
                        disk.sound = data / u64::from(block);
                        logged.format(&mut disk, &geometry, slot as u32);
                    }
                    disk
                })
                .collect(),
            on_disk: Vec::new(),
            served: 0,
            mail: BTreeMap::new(),
            model: Model::new(blocks, block),
            payload: Pool::new(&arena, 4096, 4096).expect("room"),
            sent: BTreeMap::new(),
            next_request: 1,
            to_read_back: Vec::new(),
            small_writes,
            run,
            stream: 0,
            slow: random.below(5) as usize,
            now: Instant::now(),
            answers: Vec::new(),
            lost: 0,
            spare_wanted: false,
            failures: 0,
            logged,
            unequal: BTreeSet::new(),
            metadata: metadata.map(|bitmap| bitmap.is_some()),
            data,
            replaced: 0,
            removed: None,
            random,
        };
        if faults == Faults::Parity {
            world.spoil_parity();
        }
        let chunk = u64::from(chunk);
        let pace = ProcessOptions {
            window_bytes: chunk * (1 + world.random.below(4)),
            bytes_per_second: world.random.pick(&[0, 0, 1 << 20]),
            ..ProcessOptions::default()
        };
        world.nodes[0].control(Control::Pace(pace));
        if repair {
            let (sender, answer) = mpsc::channel();
            world.nodes[0].control(Control::Start(Work::Repair, sender));
            world.answers.push(answer);
        }
        world
    }

    /// Runs it to its end; returns what its nodes have counted.
    pub fn run(mut self) -> Counters {
        let steps = 300 + self.random.below(1500);
        for step in 0..steps {
            self.step(step, steps);
        }
        self.quiesce();
        self.read_all();
        self.check_disks();
        self.close();
        let may_fail = self.faults == Faults::Chaos;
        assert!(
            may_fail || self.failures == 0,
            "{} requests failed",
            self.failures
        );
        let mut counters = Counters::default();
        for node in &self.nodes {
            counters.add(&node.counters());
        }
        assert_eq!(counters.preread_active, 0, "charges are left over");
        assert_eq!(counters.waiting, 0, "stripes still wait");
        counters
    }

    /// One random thing happens.
    fn step(&mut self, step: u64, steps: u64) {
        match self.random.below(16) {
            0..=3 if self.sent.len() < 40 => self.send_request(),
            4..=7 => self.serve_one(),
            8..=11 => self.deliver_one(),
            12..=14 => {
                let node = self.random.below(self.nodes.len() as u64) as usize;
                let jump = match self.random.one_in(100) {
                    true => 1_100_000,
                    false => 500,
                };
                self.now += Duration::from_micros(self.random.below(jump));
                self.nodes[node].run(self.now);
                self.carry_out(node);
            }
            _ => self.something_breaks(step, steps),
        }
        self.check_status();
    }

    /// Makes the parity of some rows wrong.
    fn spoil_parity(&mut self) {
        let chunk = u64::from(self.geometry.chunk_bytes());
        for row in 0..self.geometry.rows() {
            if self.random.one_in(2) {
                let at = self.data + row * chunk + self.random.below(chunk);
                self.disks[self.geometry.parity_member(row)].bytes[at as usize] ^= 0x40;
            }
        }
    }

    /// Who waits for a replacement must see it until the new member is in its slot. (Where it is given up, it
    /// is not seen any more before all nodes know.)
    fn check_status(&self) {
        let status = self.nodes[0].status().expect("node 0 is the array's");
        let replaces = self.nodes[0].view().replacement.is_some();
        if replaces && self.faults == Faults::Replacement {
            let kind = status.process.map(|process| process.kind);
            assert_eq!(kind, Some("replace"), "a member is being replaced");
        }
    }

    /// Has the array closed, and looks at what its members say then.
    fn close(&mut self) {
        let (sender, answer) = mpsc::channel();
        self.nodes[0].control(Control::Close(sender));
        self.answers.push(answer);
        self.quiesce();
        let view = self.nodes[0].view();
        if let (Some(bitmap), true) = (self.metadata, view.online) {
            let disk = |slot| self.open[0][view.bay(slot)].map(|d| &self.disks[d]);
            let slots: Vec<_> = (0..self.geometry.members()).map(disk).collect();
            metadata::check(&self.geometry, view, &slots, bitmap);
        }
    }

    fn something_breaks(&mut self, step: u64, steps: u64) {
        let members = self.geometry.members() as u64;
        let chaos = self.faults == Faults::Chaos;
        if matches!(self.faults, Faults::Latent | Faults::Chaos) && self.random.one_in(2) {
            let block = u64::from(self.block);
            let lba = self.data / block + self.random.below(self.geometry.member_bytes() / block);
            // One member for all rows, unless anything goes.
            let disk = match chaos {
                true => self.random.below(self.disks.len() as u64) as usize,
                false => 0,
            };
            self.disks[disk].latent.insert(lba);
            if self.metadata.is_some() && self.random.one_in(4) {
                // It can't be written again at once either, and is noted as bad.
                self.disks[disk]
                    .bad_pages
                    .insert(lba, 1 + self.random.below(3) as u32);
            }
        }
        let replaces = match self.faults {
            Faults::Replacement => self.random.one_in(4),
            Faults::Chaos => self.random.one_in(40),
            _ => false,
        };
        if replaces && self.replaced < 4 {
            self.replace();
        }
        if self.faults == Faults::Flaky {
            let disk = self.random.below(members) as usize;
            let page = self.geometry.stripe_bytes() / self.block;
            self.disks[disk].long_fault = Some(page.into());
        }
        if chaos && self.small_writes && self.nodes[0].view().is_whole() && self.random.one_in(4) {
            // Any write, once: what is small goes on where a round has no second try.
            let disk = self.random.below(members) as usize;
            self.disks[disk].long_fault = Some(0);
        }
        let first = self.lost == 0 && step > steps / 8 && self.random.one_in(4);
        let again = chaos && self.lost > 0 && self.lost < 5 && self.random.one_in(20);
        let wanted = matches!(self.faults, Faults::Loss | Faults::Removal | Faults::Chaos);
        if wanted && (first || again) {
            self.lost += 1;
            self.spare_wanted = true;
            let slot = self.random.below(members) as usize;
            let bay = self.nodes[0].view().bay(slot);
            let by_command = match self.faults {
                Faults::Loss => false,
                Faults::Removal => true,
                _ => self.random.one_in(2),
            };
            if by_command {
                self.removed = self.open[0][bay].map(|disk| (slot, disk));
                let (sender, answer) = mpsc::channel();
                self.answers.push(answer);
                self.nodes[0].control(Control::Remove {
                    member: format!("disk{}", self.open[0][bay].unwrap_or(slot)),
                    answer: sender,
                });
            } else if let Some(disk) = self.open[0][bay] {
                match self.random.one_in(2) {
                    true => self.disks[disk].gone = true,
                    false => self.disks[disk].write_faults = 1 + self.random.below(3) as u32,
                }
            }
        }
        if self.spare_wanted && self.random.one_in(8) {
            self.add_spare();
        }
    }

    /// A disk full of old bytes joins the array. Refused while its slot is still in use: it is
    /// tried again later.
    fn add_spare(&mut self) {
        let comes_back = self.comes_back();
        let (bdev, metadata) = self.new_disk(comes_back);
        let (sender, answer) = mpsc::channel();
        self.nodes[0].control(Control::Add {
            bdev,
            metadata,
            answer: sender,
        });
        match answer.try_recv() {
            Ok(Err(_)) if comes_back.is_some() => {}
            Ok(Err(_)) => drop(self.disks.pop()),
            Ok(Ok(())) => unreachable!("no node has opened it yet"),
            Err(_) => {
                self.spare_wanted = false;
                self.answers.push(answer);
            }
        }
    }

    /// A disk full of old bytes, or one that was there before, and what is to be written to it.
    fn new_disk(&mut self, known: Option<usize>) -> (Arc<dyn Bdev>, Option<Box<NewMember>>) {
        let number = known.unwrap_or(self.disks.len());
        let bytes = self.data + self.geometry.member_bytes();
        let info = Info {
            name: format!("disk{number}"),
            product: "simulated",
            uuid: Default::default(),
            block_size: self.block,
            blocks: bytes / u64::from(self.block),
            io_boundary: 0,
            write_unit: 0,
            max_blocks: u32::MAX,
            write_cache: self.random.one_in(2),
            deallocates: true,
            in_memory: false,
        };
        if known.is_none() {
            let mut disk = Disk::new(bytes, self.block, 0xa5);
            if let Some(logged) = &self.logged {
                disk.write_cache = info.write_cache;
                disk.sound = self.data / u64::from(self.block);
                logged.format(&mut disk, &self.geometry, number as u32);
            }
            self.disks.push(disk);
        }
        let metadata = self.metadata.map(|bitmap| {
            let returns = known.is_some();
            let mut new = metadata::new_member(&self.geometry, bitmap, number as u32, returns);
            if let Some(logged) = &self.logged {
                logged.add_to(&mut new.superblock);
            }
            Box::new(new)
        });
        (Arc::new(SimBdev { info }), metadata)
    }

    /// Another disk is to replace one of the members.
    fn replace(&mut self) {
        let slot = self.random.below(self.geometry.members() as u64) as usize;
        let Some(old) = self.open[0][self.nodes[0].view().bay(slot)] else {
            return;
        };
        let (bdev, metadata) = self.new_disk(None);
        let (sender, answer) = mpsc::channel();
        self.nodes[0].control(Control::Replace {
            member: format!("disk{old}"),
            bdev,
            metadata,
            answer: sender,
        });
        match answer.try_recv() {
            Ok(Err(_)) => drop(self.disks.pop()),
            Ok(Ok(())) => unreachable!("no node has opened it yet"),
            Err(_) => {
                self.replaced += 1;
                self.answers.push(answer);
            }
        }
    }

    /// The disk that was removed from the slot which is free now, if it can come back with no more
    /// than what it has missed.
    fn comes_back(&mut self) -> Option<usize> {
        let lost = self.nodes[0].view().lost()?;
        let (slot, disk) = self.removed.filter(|_| self.metadata == Some(true))?;
        let fits = slot == lost && !self.disks[disk].gone && self.random.one_in(2);
        fits.then_some(disk)
    }

    fn send_request(&mut self) {
        // What was acknowledged must be seen from everywhere, at once.
        if let Some((lba, blocks)) = self.to_read_back.pop() {
            return self.send_read(lba, blocks);
        }
        let mut total = self.geometry.volume_bytes() / u64::from(self.block);
        // Often to the same few blocks, so that requests meet.
        if self.random.one_in(2) {
            total = total.min(64);
        }
        let most = total.min(match self.random.below(6) {
            0 => 1,
            1 => 8,
            2 => 4 * u64::from(self.geometry.chunk_bytes()) / u64::from(self.block),
            _ => 64,
        });
        let blocks = (1 + self.random.below(most)) as u32;
        let lba = match self.random.one_in(3) {
            // Aligned to its own size, so that full stripes happen.
            true => self.random.below(total / u64::from(blocks)) * u64::from(blocks),
            false => self.random.below(total - u64::from(blocks) + 1),
        };
        let fua = self.random.one_in(4);
        if self.random.one_in(4) {
            return self.send_rows(fua);
        }
        if self.small_writes && self.random.one_in(2) {
            let blocks = self.geometry.stripe_bytes() / self.block;
            let lba = lba / u64::from(blocks) * u64::from(blocks);
            return self.send_write(lba, blocks, fua);
        }
        match self.random.below(12) {
            0..=3 => self.send_read(lba, blocks),
            4..=8 => self.send_write(lba, blocks, fua),
            9 => self.send(
                Op::WriteZeroes {
                    fua,
                    deallocate: self.random.0 & 1 == 0,
                },
                lba,
                blocks,
                None,
                Data::None,
            ),
            10 => self.send(Op::Flush, 0, 0, None, Data::None),
            _ => self.send_compare(lba, fua),
        }
    }

    /// Writes whole rows around an edge between two owners, or the next few blocks of a stream:
    /// in one request or in two that meet there.
    fn send_rows(&mut self, fua: bool) {
        let block = u64::from(self.block);
        let total = self.geometry.volume_bytes() / block;
        if self.random.one_in(3) {
            let blocks = (1 + self.random.below(16)).min(total - self.stream);
            self.send_write(self.stream, blocks as u32, false);
            self.stream = (self.stream + blocks) % total;
            return;
        }
        let row = self.geometry.row_bytes() / block;
        let run = u64::from(self.run);
        let edge = run * (1 + self.random.below(self.geometry.rows().div_ceil(run)));
        let first = edge.saturating_sub(1 + self.random.below(2));
        let end = (edge + 1 + self.random.below(2)).min(self.geometry.rows());
        if first >= end {
            return;
        }
        let (lba, middle, end) = (first * row, (edge * row).min(end * row), end * row);
        let zeros = self.random.one_in(4);
        let middle = if self.random.one_in(2) { lba } else { middle };
        for part in [lba..middle, middle..end] {
            let blocks = (part.end - part.start) as u32;
            if blocks > 0 && zeros {
                let deallocate = self.random.one_in(2);
                let op = Op::WriteZeroes { fua, deallocate };
                self.send(op, part.start, blocks, None, Data::None);
            } else if blocks > 0 && blocks * self.block <= 1 << 20 {
                self.send_write(part.start, blocks, fua);
            }
        }
    }

    fn send_read(&mut self, lba: u64, blocks: u32) {
        let Some(buffers) = self.buffers(blocks) else {
            return;
        };
        self.send(Op::Read, lba, blocks, None, Data::Read(buffers));
    }

    fn send_write(&mut self, lba: u64, blocks: u32, fua: bool) {
        let value = self.next_request;
        let contents = (lba..lba + u64::from(blocks)).map(|at| self.model.bytes(at, value));
        let contents: Vec<_> = contents.collect();
        let Some(data) = self.filled(&contents.concat()) else {
            return;
        };
        self.send(Op::Write { fua }, lba, blocks, None, Data::Write(data));
    }

    fn send_compare(&mut self, lba: u64, fua: bool) {
        let certain = self.model.certain(lba);
        let right = self.random.one_in(2);
        let expected = match (certain, right) {
            (Some(value), true) => value,
            _ => u64::MAX - 1,
        };
        let equal = certain.map(|_| right);
        let mut contents = self.model.bytes(lba, expected);
        let and_write = self.random.one_in(2);
        if and_write {
            contents.extend(self.model.bytes(lba, self.next_request));
        }
        let Some(data) = self.filled(&contents) else {
            return;
        };
        let op = match and_write {
            true => Op::CompareAndWrite { fua },
            false => Op::Compare,
        };
        self.send(op, lba, 1, equal, Data::Write(data));
    }

    fn send(&mut self, op: Op, lba: u64, blocks: u32, equal: Option<bool>, data: Data) {
        let token = self.next_request;
        let node = self.random.below(self.nodes.len() as u64) as usize;
        // A compare knows the answer only if nothing else is about to write.
        if op.modifies() {
            let value = if matches!(op, Op::WriteZeroes { .. }) {
                0
            } else {
                token
            };
            for sent in self.sent.values_mut() {
                let overlap =
                    lba < sent.lba + u64::from(sent.blocks) && sent.lba < lba + u64::from(blocks);
                if overlap {
                    sent.equal = None;
                }
            }
            self.model.write_sent(token, lba, blocks, value);
        }
        if op == Op::Read {
            self.model.read_sent(token, lba, blocks);
        }
        let sent = Sent {
            op,
            lba,
            blocks,
            since: self.served,
            equal,
        };
        self.sent.insert(token, sent);
        self.next_request += 1;
        let request = Request {
            token,
            op,
            lba,
            blocks,
            data,
        };
        self.nodes[node]
            .submit(request)
            .expect("few requests are in flight");
        self.carry_out(node);
    }

    /// Buffers for blocks, cut at odd places now and then.
    fn buffers(&mut self, blocks: u32) -> Option<SegmentsMut> {
        let mut left = (blocks * self.block) as usize;
        let mut all = SegmentsMut::new();
        while left > 0 {
            let mut buffer = self.payload.take()?;
            let most = match self.random.one_in(6) {
                true => 512 * (1 + self.random.below(8)) as usize,
                false => 4096,
            };
            buffer.truncate(left.min(most));
            left -= buffer.len();
            all.push(buffer);
        }
        Some(all)
    }

    fn filled(&mut self, mut contents: &[u8]) -> Option<Segments> {
        let mut buffers = self.buffers((contents.len() / self.block as usize) as u32)?;
        for buffer in &mut buffers {
            let (head, tail) = contents.split_at(buffer.len());
            buffer.copy_from_slice(head);
            contents = tail;
        }
        Some(buffers.into_iter().map(|b| b.freeze()).collect())
    }

    fn serve_one(&mut self) {
        if self.on_disk.is_empty() {
            return;
        }
        let at = self.random.below(self.on_disk.len() as u64) as usize;
        let (node, slot, disk, request) = self.on_disk.swap_remove(at);
        self.served += 1;
        self.disks[disk].clock = self.served;
        let touched = self.before_serving(disk, &request);
        let completion = self.disks[disk].serve(request);
        self.after_serving(touched);
        self.nodes[node].member_done(slot, completion);
        self.carry_out(node);
    }

    fn deliver_one(&mut self) {
        let ways: Vec<_> = self
            .mail
            .iter()
            .filter(|(_, q)| !q.is_empty())
            .map(|(k, _)| *k)
            .collect();
        if ways.is_empty() {
            return;
        }
        let (from, to) = self.random.pick(&ways);
        if to == self.slow && from == 0 && !self.random.one_in(24) {
            return;
        }
        let message = self.mail.get_mut(&(from, to)).and_then(VecDeque::pop_front);
        let message = message.expect("not empty");
        self.nodes[to].receive(from, message, self.now);
        self.carry_out(to);
    }

    fn carry_out(&mut self, node: usize) {
        loop {
            let effects = std::mem::take(self.nodes[node].effects());
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Member(slot, request) => {
                        let disk = self.open[node][slot].expect("only members that are open");
                        self.on_disk.push((node, slot, disk, request));
                    }
                    Effect::Expect(..) => {}
                    Effect::Send(to, message) => {
                        self.mail.entry((node, to)).or_default().push_back(message);
                    }
                    Effect::Complete { completion, .. } => self.completed(completion),
                    Effect::Open(slot, bdev) => {
                        let number = bdev.info().name.trim_start_matches("disk").parse();
                        self.open[node][slot] = Some(number.expect("named by number"));
                        let fails = self.faults == Faults::Chaos && self.random.one_in(20);
                        if fails {
                            self.open[node][slot] = None;
                            self.spare_wanted = true;
                        }
                        self.nodes[node].attached(slot, fails.then(|| "no luck".to_owned()));
                    }
                    Effect::Close(slot) => {
                        let waiting = self.on_disk.iter().any(|d| d.0 == node && d.1 == slot);
                        assert!(!waiting, "closed with requests in flight");
                        self.open[node][slot] = None;
                    }
                }
            }
        }
    }

    fn completed(&mut self, completion: Completion) {
        let Completion {
            token,
            status,
            data,
        } = completion;
        let sent = self
            .sent
            .remove(&token)
            .expect("each request completes once");
        let Sent {
            op,
            lba,
            blocks,
            since,
            equal,
        } = sent;
        assert_eq!(
            data.len(),
            op.payload(blocks, self.block),
            "the buffers of a {op:?} come back"
        );
        let failed = !matches!(status, Status::Ok | Status::Miscompare);
        if failed {
            self.failures += 1;
            let fair = [Status::MediumError, Status::Offline, Status::WriteFault];
            assert!(fair.contains(&status), "{op:?} ended with {status}");
        }
        match op {
            Op::Read => {
                let bytes = match data {
                    Data::Read(segments) => {
                        segments.iter().map(|s| &s[..]).collect::<Vec<_>>().concat()
                    }
                    other => panic!("a read came back with {other:?}"),
                };
                self.model
                    .read_ended(token, (!failed).then_some(&bytes[..]));
            }
            Op::Write { .. } | Op::WriteZeroes { .. } => {
                self.model.write_ended(token, lba, blocks, Some(!failed));
                if self.random.one_in(2) {
                    self.to_read_back.push((lba, blocks));
                }
            }
            Op::CompareAndWrite { .. } => {
                let done = match status {
                    Status::Miscompare => None,
                    _ => Some(!failed),
                };
                self.model.write_ended(token, lba, blocks, done);
            }
            Op::Compare | Op::Flush => {}
            Op::XdWriteRead { .. } | Op::XpWrite { .. } => unreachable!("hosts have no such"),
        }
        let safe = [Faults::None, Faults::Latent, Faults::Flaky];
        if status == Status::Ok && safe.contains(&self.faults) {
            self.check_promises(op, lba, blocks, since);
        }
        if let Some(equal) = equal.filter(|_| !failed) {
            let said = status == Status::Ok;
            assert_eq!(said, equal, "{op:?} of block {lba}");
        }
    }

    /// What a request wants beside its bytes, it got from the members that hold them, some time
    /// after it was sent: it is forced to the medium, or keeps its space. (Of an array that loses
    /// no member: a rebuild forces nothing.)
    fn check_promises(&self, op: Op, lba: u64, blocks: u32, since: u64) {
        let block = u64::from(self.block);
        for lba in lba..lba + u64::from(blocks) {
            let place = self.geometry.place(lba * block);
            let chunk = u64::from(self.geometry.chunk_bytes());
            let at = (self.data + place.row * chunk + u64::from(place.within)) / block;
            let slot = self.geometry.member(place.row, place.role);
            let (stripe, _) = self.geometry.stripe_of(place);
            let start = self.data + self.geometry.member_offset(stripe);
            let end = start + u64::from(self.geometry.stripe_bytes());
            let disk = &self.disks[slot];
            // What can't be stored is noted as bad instead.
            if disk
                .bad_pages
                .range(start / block..end / block)
                .next()
                .is_some()
            {
                continue;
            }
            let forced = disk.forced[at as usize] > since;
            assert!(
                forced || !op.is_fua(),
                "{op:?} of block {lba} is not durable"
            );
            let kept = disk.kept[at as usize] > since;
            let may_go = !matches!(
                op,
                Op::WriteZeroes {
                    deallocate: false,
                    ..
                }
            );
            assert!(kept || may_go, "{op:?} gave back the space of block {lba}");
        }
    }

    /// Lets everything that is under way come to its end.
    fn quiesce(&mut self) {
        for round in 0.. {
            self.now += Duration::from_millis(1);
            if self.spare_wanted && round % 8 == 0 && self.nodes[0].view().online && round < 4000 {
                self.add_spare();
            }
            for node in 0..self.nodes.len() {
                self.nodes[node].run(self.now);
                self.carry_out(node);
            }
            for _ in
                0..1 + self.on_disk.len() + self.mail.values().map(VecDeque::len).sum::<usize>()
            {
                self.serve_one();
                self.deliver_one();
            }
            self.check_status();
            let quiet = self.on_disk.is_empty() && self.mail.values().all(VecDeque::is_empty);
            let rebuilding = self.nodes[0].deadline().is_some();
            if quiet && self.nodes.iter().all(Node::is_idle) {
                self.now = self
                    .nodes
                    .iter()
                    .filter_map(Node::deadline)
                    .fold(self.now, Instant::max);
            }
            if quiet && !rebuilding && self.nodes.iter().all(Node::is_idle) {
                let mut ran = false;
                for node in 0..self.nodes.len() {
                    ran |= self.nodes[node].run(self.now);
                    self.carry_out(node);
                }
                // A lost member is replaced before the end, unless nobody noticed the loss.
                let waiting = self.spare_wanted
                    && self.nodes[0].view().online
                    && self.nodes[0].view().degraded.is_some();
                let silent = self.mail.values().all(VecDeque::is_empty);
                if !ran && silent && self.on_disk.is_empty() && !waiting {
                    break;
                }
            }
            assert!(
                round < 20_000,
                "it hangs: {} requests, {} on disk, {:#?}",
                self.sent.len(),
                self.on_disk.len(),
                self.nodes[0].view()
            );
        }
        assert!(
            self.sent.is_empty(),
            "requests never ended: {:?}",
            self.sent
        );
        for answer in self.answers.drain(..) {
            let answered = answer.try_recv();
            assert!(
                !matches!(answered, Err(mpsc::TryRecvError::Empty)),
                "a command was never answered"
            );
        }
        let epochs: Vec<_> = self.nodes.iter().map(|n| n.view().clone()).collect();
        assert!(
            epochs.windows(2).all(|w| w[0] == w[1]),
            "the nodes disagree: {epochs:?}"
        );
    }

    /// Reads the whole volume as a host.
    fn read_all(&mut self) {
        let total = self.geometry.volume_bytes() / u64::from(self.block);
        let mut lba = 0;
        while lba < total {
            let blocks = (total - lba).min(64) as u32;
            self.send_read(lba, blocks);
            self.quiesce();
            lba += u64::from(blocks);
        }
    }

    /// On a healthy array, looks at the disks themselves: the data that the model expects, and
    /// parity that adds up.
    fn check_disks(&mut self) {
        let view = self.nodes[0].view().clone();
        if !view.online || view.degraded.is_some() || view.bad.is_some() {
            return;
        }
        assert_eq!(view.unsynced, None, "the resync has come to its end");
        let disk = |slot| {
            let open = self.open[0][view.bay(slot)].expect("healthy");
            &self.disks[open].bytes[self.data as usize..]
        };
        let disks: Vec<&[u8]> = (0..self.geometry.members()).map(disk).collect();
        let chunk = self.geometry.chunk_bytes() as usize;
        for row in 0..self.geometry.rows() {
            let at = row as usize * chunk;
            let blocks: Vec<_> = disks.iter().map(|d| &d[at..at + chunk]).collect();
            assert!(xor::equal_xor(&blocks), "parity of row {row}");
            for role in 0..self.geometry.data() {
                let member = self.geometry.member(row, role);
                let first = (row * self.geometry.data() as u64 + role as u64) * chunk as u64
                    / u64::from(self.block);
                for (i, bytes) in disks[member][at..at + chunk]
                    .chunks_exact(self.block as usize)
                    .enumerate()
                {
                    self.model.check(first + i as u64, bytes);
                }
            }
        }
    }
}
