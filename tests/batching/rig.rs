//! Two nodes, three disks and the messages between them. Nothing moves by itself: a test says which
//! node runs, who gets its mail, which requests the disks serve, and when time passes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use stripewise::bdev::{self, Bdev, Completion, Data, Info, Op, OpenError, Request, Status};
use stripewise::memory::{Arena, Pool};
use stripewise::raid::{
    Batching, Control, Counters, Crossing, Effect, Geometry, Layout, Message, Node, NodeConfig,
    View, VolumeError,
};

use crate::disk::Disk;

/// Bytes of a block and a page, and of a chunk unless it is said: a row is one stripe of two blocks then.
pub const PAGE: usize = 4096;
/// Rows of the array: node 0's and node 1's, in turns.
pub const ROWS: u64 = 6;
/// Unless it is said, two of data, and one of parity: the last, in all rows.
pub const MEMBERS: usize = 3;

pub const ZERO: Duration = Duration::ZERO;
pub const WAIT: Duration = Duration::from_millis(1);

/// What a rig is made of.
#[derive(Clone, Copy)]
pub struct Plan {
    pub members: usize,
    /// How long each node waits for its neighbour's part of a request.
    pub waits: [Duration; 2],
    /// Rows that follow one another with one owner.
    pub run: u32,
    /// Pages of a chunk, and stripes of a row.
    pub chunk: u64,
    /// Stripes in the cache of each node.
    pub stripes: usize,
    /// Stripes of each node that may read before they write.
    pub preread_limit: u32,
    /// The member that is missing at first.
    pub missing: Option<usize>,
    /// Members are memory that the nodes copy to and from.
    pub in_memory: bool,
}

/// Node 1 waits for node 0, which takes what it finds.
pub const PLAN: Plan = Plan {
    members: MEMBERS,
    waits: [ZERO, WAIT],
    run: 1,
    chunk: 1,
    stripes: 32,
    preread_limit: 4,
    missing: None,
    in_memory: false,
};

/// A request to a member that waits to be served.
pub struct Asked {
    pub node: usize,
    pub slot: usize,
    pub request: Request,
    disk: usize,
}

/// What is asked of a member: node, slot, what, and the blocks.
pub type Ask = (usize, usize, Op, std::ops::Range<u64>);

pub struct Rig {
    nodes: Vec<Node>,
    pub disks: Vec<Disk>,
    /// The disk that each node has open in each slot.
    open: Vec<Vec<Option<usize>>>,
    asked: Vec<Asked>,
    /// What members were told to expect: node, slot, and the blocks.
    pub expected: Vec<(usize, usize, std::ops::Range<u64>)>,
    mail: [VecDeque<(usize, Message)>; 2],
    /// A read of each node's host that is served last, so that no other request is the only one.
    company: Vec<Asked>,
    /// The member that is asked for it.
    companion: usize,
    /// Pages of a chunk.
    chunk: u64,
    /// Members beside that of parity.
    data: u64,
    ended: BTreeMap<u64, Completion>,
    sent: u64,
    payload: Pool,
    now: Instant,
    answers: Vec<mpsc::Receiver<Result<(), VolumeError>>>,
}

/// The device that is added to an array; the nodes only hand it on.
#[derive(Debug)]
struct Spare(Info);

impl Bdev for Spare {
    fn info(&self) -> &Info {
        &self.0
    }

    fn open(&self) -> Result<Box<dyn bdev::Channel>, OpenError> {
        unreachable!("the rig serves disks itself")
    }
}

impl Rig {
    pub fn new(plan: Plan) -> Self {
        let members = plan.members;
        let bytes = ROWS * plan.chunk * PAGE as u64;
        let page = PAGE as u32;
        let chunk = plan.chunk as u32 * page;
        let geometry = Geometry::new(members, bytes, chunk, page, Layout::ParityLast)
            .unwrap()
            .with_shards(2, plan.run);
        let member = |slot| (plan.missing != Some(slot)).then(|| format!("disk{slot}"));
        let names: Vec<_> = (0..members).map(member).collect();
        let crossing = Arc::new(Crossing::new(&[plan.stripes; 2], plan.preread_limit));
        let view = Arc::new(View::first(plan.missing));
        let node = |id: usize| {
            let pages = Node::pages_min(members) + 64;
            let arena = Arena::ordinary(pages * PAGE).unwrap();
            let batching = Batching {
                preread_limit: plan.preread_limit,
                partial_wait: ZERO,
                join_wait: plan.waits[id],
                ..Batching::default()
            };
            Node::new(NodeConfig {
                id,
                nodes: 2,
                geometry,
                block_bytes: page,
                view: view.clone(),
                stripes: plan.stripes,
                pool: Pool::new(&arena, PAGE, pages).unwrap(),
                member_request_bytes: batching.request_bytes,
                in_memory: plan.in_memory,
                batching,
                crossing: crossing.clone(),
                members: names.clone(),
                write_caches: 0,
                data_offsets: vec![0; members],
                rows_per_region: None,
                bad_block_logs: 0,
                metadata: None,
                logs: None,
            })
        };
        let open = (0..members).map(|slot| names[slot].is_some().then_some(slot));
        let arena = Arena::ordinary(256 * PAGE).unwrap();
        let mut rig = Self {
            nodes: (0..2).map(node).collect(),
            disks: (0..members).map(|_| Disk::new(bytes, page, 0)).collect(),
            open: vec![open.chain([None]).collect(); 2],
            asked: Vec::new(),
            expected: Vec::new(),
            mail: [VecDeque::new(), VecDeque::new()],
            ended: BTreeMap::new(),
            sent: 0,
            payload: Pool::new(&arena, PAGE, 256).unwrap(),
            now: Instant::now(),
            answers: Vec::new(),
            company: Vec::new(),
            companion: usize::from(plan.missing == Some(0)),
            chunk: plan.chunk,
            data: members as u64 - 1,
        };
        rig.keep_company();
        rig
    }

    /// Reads a block of the last row.
    fn keep_company(&mut self) {
        for node in 0..2 {
            let buffer = self.payload.take().expect("few requests are in flight");
            let data = Data::Read([buffer].into_iter().collect());
            let lba = (self.data * (ROWS - 1) + self.companion as u64) * self.chunk;
            self.submit(node, Op::Read, lba, 1, data);
            self.company.extend(self.asked.pop());
        }
    }

    /// Writes blocks full of a byte each. The request comes in at `node`.
    pub fn write(&mut self, node: usize, lba: u64, fill: &[u8], fua: bool) -> u64 {
        let buffer = |&byte: &u8| {
            let mut buffer = self.payload.take().expect("few requests are in flight");
            buffer.fill(byte);
            buffer.freeze()
        };
        let data = Data::Write(fill.iter().map(buffer).collect());
        self.submit(node, Op::Write { fua }, lba, fill.len() as u32, data)
    }

    pub fn zero(&mut self, node: usize, lba: u64, blocks: u32, deallocate: bool) -> u64 {
        let op = Op::WriteZeroes {
            fua: false,
            deallocate,
        };
        self.submit(node, op, lba, blocks, Data::None)
    }

    /// Reads a block, and gives the byte that it is full of.
    pub fn read(&mut self, node: usize, lba: u64) -> Result<u8, Status> {
        let token = self.read_later(node, lba);
        self.settle();
        let ended = &self.ended[&token];
        let Data::Read(buffers) = &ended.data else {
            panic!("a read's buffers come back");
        };
        let bytes: &[u8] = &buffers[0];
        match ended.status {
            Status::Ok => Ok(uniform(bytes)),
            status => Err(status),
        }
    }

    /// Asks for a block.
    pub fn read_later(&mut self, node: usize, lba: u64) -> u64 {
        let buffer = self.payload.take().expect("few requests are in flight");
        let buffers = [buffer].into_iter().collect();
        self.submit(node, Op::Read, lba, 1, Data::Read(buffers))
    }

    fn submit(&mut self, node: usize, op: Op, lba: u64, blocks: u32, data: Data) -> u64 {
        self.sent += 1;
        let token = self.sent;
        let request = Request {
            token,
            op,
            lba,
            blocks,
            data,
        };
        self.nodes[node].submit(request).unwrap();
        self.carry_out(node);
        token
    }

    /// A disk full of old bytes takes the place of the missing member.
    pub fn add_spare(&mut self) {
        let blocks = ROWS * self.chunk;
        let bytes = blocks * PAGE as u64;
        let name = format!("disk{}", self.disks.len());
        self.disks.push(Disk::new(bytes, PAGE as u32, 0xa5));
        let (sender, answer) = mpsc::channel();
        self.answers.push(answer);
        self.nodes[0].control(Control::Add {
            bdev: Arc::new(Spare(Info {
                name,
                product: "scripted",
                uuid: Default::default(),
                block_size: PAGE as u32,
                blocks,
                io_boundary: 0,
                write_unit: 0,
                max_blocks: u32::MAX,
                write_cache: false,
                deallocates: true,
                in_memory: false,
            })),
            metadata: None,
            answer: sender,
        });
        self.carry_out(0);
    }

    /// One turn of a node.
    pub fn run(&mut self, node: usize) {
        self.nodes[node].run(self.now);
        self.carry_out(node);
    }

    /// A node gets all its mail.
    pub fn deliver(&mut self, to: usize) {
        while let Some((from, message)) = self.mail[to].pop_front() {
            self.nodes[to].receive(from, message, self.now);
            self.carry_out(to);
        }
    }

    /// The members serve what they are asked, if it is meant.
    pub fn serve(&mut self, meant: impl Fn(&Asked) -> bool) {
        while let Some(at) = self.asked.iter().position(&meant) {
            self.serve_at(at);
        }
    }

    fn serve_at(&mut self, at: usize) {
        let Asked {
            node,
            slot,
            request,
            disk,
        } = self.asked.remove(at);
        let completion = self.disks[disk].serve(request);
        self.nodes[node].member_done(slot, completion);
        self.carry_out(node);
    }

    /// The oldest request is served, if there is one, and everybody has a turn.
    pub fn step(&mut self) -> bool {
        if !self.asked.is_empty() {
            self.serve_at(0);
        }
        for node in 0..2 {
            self.deliver(node);
            self.run(node);
        }
        let still = self.asked.is_empty() && self.mail.iter().all(VecDeque::is_empty);
        let idle = match self.company.len() {
            0 => self.nodes.iter().all(Node::is_idle),
            others => self.ended.len() + others == self.sent as usize,
        };
        !still || !idle
    }

    /// Everything that can go on does, to its end, and time passes.
    pub fn settle(&mut self) {
        self.asked.append(&mut self.company);
        let mut more = || {
            self.pass(WAIT / 4);
            self.step()
        };
        assert!((0..10_000).any(|_| !more()), "it hangs");
        assert_eq!(self.ended.len() as u64, self.sent);
        for answer in self.answers.drain(..) {
            assert!(answer.try_recv().expect("answered").is_ok());
        }
        let all = self.counters();
        assert_eq!(all.preread_active, 0, "charges are left over");
        assert_eq!(all.waiting, 0, "stripes still wait");
        self.keep_company();
    }

    pub fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// What the members are asked and have not served, in order of slot and block.
    pub fn asked(&self) -> Vec<Ask> {
        let ask = |asked: &Asked| {
            let Request {
                op, lba, blocks, ..
            } = asked.request;
            let blocks = lba..lba + u64::from(blocks);
            (asked.node, asked.slot, op, blocks)
        };
        let mut all: Vec<_> = self.asked.iter().map(ask).collect();
        all.sort_by_key(|(_, slot, _, blocks)| (*slot, blocks.start));
        all
    }

    /// How a request ended, if it has.
    pub fn ended(&self, token: u64) -> Option<Status> {
        self.ended.get(&token).map(|completion| completion.status)
    }

    /// How long it takes at most until a node has something to do.
    pub fn left(&self, node: usize) -> Option<Duration> {
        self.nodes[node].deadline().map(|at| at - self.now)
    }

    pub fn view(&self, node: usize) -> &View {
        self.nodes[node].view()
    }

    pub fn counters(&self) -> Counters {
        let mut sum = Counters::default();
        self.nodes.iter().for_each(|node| sum.add(&node.counters()));
        sum
    }

    /// The bytes that the pages of a stripe are full of, by slot.
    pub fn on_disks<const N: usize>(&self, stripe: u64) -> [u8; N] {
        assert_eq!(N as u64, self.data + 1, "members");
        let page = stripe as usize * PAGE..(stripe as usize + 1) * PAGE;
        std::array::from_fn(|slot| {
            let disk = self.open[0][slot].expect("no member is missing");
            uniform(&self.disks[disk].bytes[page.clone()])
        })
    }

    fn carry_out(&mut self, node: usize) {
        loop {
            let effects = std::mem::take(self.nodes[node].effects());
            if effects.is_empty() {
                return;
            }
            for effect in effects {
                match effect {
                    Effect::Member(slot, request) => self.asked.push(Asked {
                        node,
                        slot,
                        request,
                        disk: self.open[node][slot].expect("only members that are open"),
                    }),
                    Effect::Expect(slot, lba, blocks) => {
                        let blocks = lba..lba + u64::from(blocks);
                        self.expected.push((node, slot, blocks));
                    }
                    Effect::Send(to, message) => self.mail[to].push_back((node, message)),
                    Effect::Complete { completion, .. } => {
                        let token = completion.token;
                        let again = self.ended.insert(token, completion);
                        assert!(again.is_none(), "request {token} ends once");
                    }
                    Effect::Open(slot, bdev) => {
                        let number = bdev.info().name.trim_start_matches("disk").parse();
                        self.open[node][slot] = Some(number.expect("named by number"));
                        self.nodes[node].attached(slot, None);
                    }
                    Effect::Close(slot) => self.open[node][slot] = None,
                }
            }
        }
    }
}

/// The byte that these are all equal to.
fn uniform(bytes: &[u8]) -> u8 {
    assert!(bytes.iter().all(|byte| *byte == bytes[0]), "a torn page");
    bytes[0]
}
