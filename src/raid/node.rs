//! A volume's part on one reactor, without I/O: events in, effects out.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use super::array::{Array, ArrayConfig, Control};
use super::batch::Crossing;
use super::batching::Batching;
use super::counters::Counters;
use super::geometry::Geometry;
use super::message::{Done, Job, Logged, Message, NodeId, Note, Of};
use super::metadata::MetadataConfig;
use super::ppl::{Logs, LogsConfig, LogsParts};
use super::router::{Part, Router};
use super::shard::{Shard, ShardConfig};
use super::status::StatusCell;
use super::straight::STRAIGHT;
use super::view::View;
use crate::bdev::{Bdev, Completion, Op, Request, Status};
use crate::memory::Pool;

/// What a node wants from the outside.
#[derive(Debug)]
pub enum Effect {
    /// Hand this request to the member in this bay; give its completion to
    /// [`Node::member_done`].
    Member(usize, Request),
    /// Tell the member in this bay that so many blocks, from this one on, will be asked for soon.
    Expect(usize, u64, u32),
    /// Deliver this message to [`Node::receive`] of that node. Order between two nodes matters.
    Send(NodeId, Message),
    /// A host's request is done.
    Complete {
        /// What goes back to the host.
        completion: Completion,
        /// What it was.
        op: Op,
        /// Bytes of its range.
        bytes: u64,
    },
    /// Open this device as the member in this bay; answer with [`Node::attached`].
    Open(usize, Arc<dyn Bdev>),
    /// Close the member in this bay: nothing of it is in flight.
    Close(usize),
}

/// What a node is made of.
#[derive(Debug)]
pub struct NodeConfig {
    /// Which node, `0..nodes`.
    pub id: NodeId,
    /// Nodes of the volume.
    pub nodes: usize,
    /// Shape of the array, dealt out to as many shards as there are nodes.
    pub geometry: Geometry,
    /// Logical block in bytes.
    pub block_bytes: u32,
    /// The view that all nodes begin with.
    pub view: Arc<View>,
    /// Stripes of the cache.
    pub stripes: usize,
    /// Pages of the cache, of at least a stripe's bytes each.
    pub pool: Pool,
    /// Largest request to a member in bytes.
    pub member_request_bytes: u32,
    /// Whether all members are memory that this core copies to and from.
    pub in_memory: bool,
    /// How stripes are gathered and batched.
    pub batching: Batching,
    /// What all nodes of the volume share: the same for all of them.
    pub crossing: Arc<Crossing>,
    /// Names of the members, `None` where one is missing. Used on node 0.
    pub members: Vec<Option<String>>,
    /// Slots whose members have a volatile cache.
    pub write_caches: u64,
    /// Where the data of each slot's member begins, in bytes.
    pub data_offsets: Vec<u64>,
    /// The unit of write intent in rows, if the members have metadata.
    pub rows_per_region: Option<u64>,
    /// Slots whose members have a bad-block log.
    pub bad_block_logs: u64,
    /// What the members say of the array, if they do. Used on node 0.
    pub metadata: Option<MetadataConfig>,
    /// The members' partial parity logs, in an array with that policy: the same for all nodes.
    pub logs: Option<LogsConfig>,
}

/// Tokens of member requests: who waits for the completion.
const SHARD: u64 = 1 << 63;
const ARRAY: u64 = 1 << 62;
const LOGS: u64 = 1 << 61;
const KIND: u64 = SHARD | ARRAY | LOGS | STRAIGHT;

/// A volume's part on one reactor.
#[derive(Debug)]
pub struct Node {
    id: NodeId,
    nodes: usize,
    view: Arc<View>,
    shard: Shard,
    router: Router,
    array: Option<Array>,
    logs: Option<Logs>,
    block_bytes: u32,
    bays: Vec<Bay>,
    /// Requests to members, of all bays, in flight.
    asking: usize,
    /// Messages to this node itself.
    loopback: VecDeque<Message>,
    effects: Vec<Effect>,
}

#[derive(Clone, Debug, Default)]
struct Bay {
    open: bool,
    closing: bool,
    /// The block in which its data begins.
    data_start: u64,
    /// Counts the additions to this bay.
    generation: u32,
    in_flight: u32,
    /// The failure of this generation was reported.
    failed: bool,
}

impl Node {
    pub(super) fn with_status(config: NodeConfig, status: StatusCell) -> Self {
        let NodeConfig {
            id,
            nodes,
            geometry,
            block_bytes,
            view,
            stripes,
            pool,
            member_request_bytes,
            in_memory,
            batching,
            crossing,
            members,
            write_caches,
            data_offsets,
            rows_per_region,
            bad_block_logs,
            metadata,
            logs,
        } = config;
        assert_eq!(members.len(), geometry.members());
        let array = (id == 0).then(|| {
            Array::new(ArrayConfig {
                geometry,
                block_bytes,
                nodes,
                view: view.clone(),
                members: &members,
                metadata,
                status,
            })
        });
        // One more than there are slots, for a member that is to replace another.
        let bays = members
            .iter()
            .chain([&None])
            .zip(data_offsets.into_iter().chain([0]))
            .map(|(name, offset)| Bay {
                open: name.is_some(),
                data_start: offset / u64::from(block_bytes),
                ..Bay::default()
            })
            .collect();
        Self {
            id,
            nodes,
            shard: Shard::new(ShardConfig {
                id,
                geometry,
                block_bytes,
                view: view.clone(),
                stripes,
                member_request_bytes,
                in_memory,
                pool,
                batching,
                crossing,
                rows_per_region,
                bad_block_logs,
                ppl: logs.is_some(),
                write_caches,
            }),
            router: Router::new(id, geometry, block_bytes, view.clone(), write_caches),
            logs: logs.map(|config| {
                Logs::new(LogsParts {
                    id,
                    nodes,
                    geometry,
                    block_bytes,
                    request_bytes: member_request_bytes,
                    write_caches,
                    view: &view,
                    config,
                })
            }),
            view,
            array,
            block_bytes,
            bays,
            asking: 0,
            loopback: VecDeque::new(),
            effects: Vec::with_capacity(256),
        }
    }

    /// A node on its own; [`Node::status`] says what a volume would (for the simulator).
    pub fn new(config: NodeConfig) -> Self {
        Self::with_status(config, StatusCell::new())
    }

    /// Pages that a node of an array of this many members needs at least.
    pub fn pages_min(members: usize) -> usize {
        Shard::pages_min(members)
    }

    /// Takes a host's request in. Writes join their stripes, and begin at [`Node::run`].
    ///
    /// # Errors
    /// The request, when as many are under way as can be.
    pub fn submit(&mut self, mut request: Request) -> Result<(), Request> {
        if self.router.is_full() {
            return Err(request);
        }
        match self.router.straight(&mut request) {
            Some(bay) => self.ask_member(bay, request),
            None => match self.router.as_job(request) {
                Ok((owner, job)) => self.hand_over(owner, job),
                Err(request) => {
                    self.router.submit(request);
                    self.route();
                }
            },
        }
        Ok(())
    }

    /// A request to a member is done.
    pub fn member_done(&mut self, bay: usize, completion: Completion) {
        self.bays[bay].in_flight -= 1;
        self.asking -= 1;
        if completion.token & KIND == STRAIGHT {
            self.straight_done(bay, completion);
        } else {
            self.others_done(bay, completion);
        }
        self.close_if_drained(bay);
    }

    fn straight_done(&mut self, bay: usize, completion: Completion) {
        match self.router.straight_done(completion) {
            Ok((completion, bytes)) => self.effects.push(Effect::Complete {
                completion,
                op: Op::Read,
                bytes,
            }),
            Err(why) => {
                if let Some(why) = why {
                    self.report(bay, why);
                }
                self.route();
            }
        }
    }

    fn others_done(&mut self, bay: usize, completion: Completion) {
        let Completion {
            token,
            status,
            data,
        } = completion;
        if token & ARRAY != 0 {
            let array = self.array.as_mut().expect("the array is here");
            array.metadata_done(bay, status);
        } else if token & LOGS != 0 {
            let logs = self.logs.as_mut().expect("the logs are here");
            logs.member_done(bay, token & !LOGS, status, data);
            self.tell_of_logs();
        } else if token & SHARD != 0 {
            self.shard.member_done(bay, token & !SHARD, status, data);
            self.collect();
        } else {
            if let Some(why) = self.router.member_done(token, bay, status, data) {
                self.report(bay, why);
            }
            self.route();
        }
    }

    /// A message from another node.
    pub fn receive(&mut self, from: NodeId, message: Message, now: Instant) {
        match message {
            Message::Job(job) => {
                self.shard.accept(job);
                self.collect();
            }
            Message::Done(done) => match done.of {
                Of::Part { request, piece } => {
                    self.router.done(request, piece, done.status, done.data);
                    self.route();
                }
                Of::Whole { token } => self.whole_done(token, done),
            },
            Message::Home(home) => {
                self.shard.come_home(from, home);
                self.collect();
            }
            Message::Note(Note {
                bay,
                generation,
                record,
            }) => {
                let logs = self.logs.as_mut().expect("the array has some");
                logs.note(from, bay, generation, record);
            }
            Message::Logged(logged) => self.logged(logged),
            Message::Ended { bay, ended } => {
                let logs = self.logs.as_mut().expect("the array has some");
                logs.ended(bay, ended);
            }
            Message::Struck(logged) => {
                if self.bays[logged.bay].generation == logged.generation {
                    self.shard.struck(logged);
                    self.collect();
                }
            }
            // Whoever waits for pages tries again at the end of the turn.
            Message::Freed => {}
            Message::Granted(region) => self.shard.granted(region),
            Message::Sweep { at_once } => {
                self.shard.sweep(at_once);
                while let Some(region) = self.shard.given_back() {
                    self.send(0, Message::Relinquish(region));
                }
            }
            Message::Adopt(view) => self.adopt(view),
            Message::Settled(epoch) => {
                if let Some(logs) = &mut self.logs {
                    logs.settled(epoch);
                }
                if epoch == self.view.epoch {
                    let view = self.view.clone();
                    self.shard.settled(&view);
                    self.router.settled(&view);
                    self.collect();
                    self.route();
                }
            }
            Message::Attach {
                bay,
                generation,
                bdev,
                data_offset,
                bad_block_log,
                log,
            } => {
                assert_eq!(
                    self.bays[bay].in_flight, 0,
                    "a bay is drained before it is filled"
                );
                self.bays[bay] = Bay {
                    generation,
                    data_start: data_offset / u64::from(self.block_bytes),
                    ..Bay::default()
                };
                let write_cache = bdev.info().write_cache;
                self.shard.open(bay, bdev.info(), bad_block_log);
                self.router.set_write_cache(bay, write_cache);
                if let Some(logs) = &mut self.logs {
                    logs.open(bay, generation, log, write_cache);
                }
                self.effects.push(Effect::Open(bay, bdev));
            }
            to_array @ (Message::Confirm(_)
            | Message::Failed { .. }
            | Message::Attached { .. }
            | Message::Bad { .. }
            | Message::Good { .. }
            | Message::Drained { .. }
            | Message::Intend(_)
            | Message::Relinquish(_)
            | Message::Worked { .. }) => {
                if let Some(array) = &mut self.array {
                    array.receive(from, to_array, now);
                }
            }
        }
    }

    /// The device of [`Effect::Open`] is open, or why it is not.
    pub fn attached(&mut self, bay: usize, error: Option<String>) {
        self.bays[bay].open = error.is_none();
        if error.is_some() {
            self.send(0, Message::Drained { bay });
        }
        self.send(0, Message::Attached { bay, error });
    }

    /// A request of the control thread. To node 0.
    pub fn control(&mut self, control: Control) {
        let array = self.array.as_mut().expect("control goes to node 0");
        array.control(control);
    }

    /// The end of a turn: everything that can go on does. Says whether anything did.
    pub fn run(&mut self, now: Instant) -> bool {
        let mut worked = false;
        loop {
            if let Some(array) = &mut self.array {
                array.tick(now);
                let requests = array
                    .metadata
                    .as_mut()
                    .map(|m| std::mem::take(&mut m.requests));
                for (bay, request) in requests.into_iter().flatten() {
                    let token = ARRAY | request.token;
                    self.ask_member_raw(bay, Request { token, ..request });
                }
                let array = self.array.as_mut().expect("looked at above");
                while let Some((to, message)) = array.outbox.pop_front() {
                    match to {
                        0 => self.loopback.push_back(message),
                        _ => self.effects.push(Effect::Send(to, message)),
                    }
                }
            }
            let ran = self.shard.run(now);
            self.collect();
            let talked = !self.loopback.is_empty();
            while let Some(message) = self.loopback.pop_front() {
                self.receive(self.id, message, now);
            }
            worked |= ran | talked;
            if self.shard.holds_back() || !ran && !talked && !self.write_logs() {
                return worked;
            }
        }
    }

    /// What the node wants, in order. Take all of it after each event or turn.
    pub fn effects(&mut self) -> &mut Vec<Effect> {
        &mut self.effects
    }

    /// When [`Node::run`] has something to do without any event.
    pub fn deadline(&self) -> Option<Instant> {
        let array = self.array.as_ref().and_then(|a| a.deadline());
        let shard = self.shard.deadline();
        array.into_iter().chain(shard).min()
    }

    /// What this node has done.
    pub fn counters(&self) -> Counters {
        let mut counters = self.shard.counters();
        if let Some(logs) = &self.logs {
            logs.count(&mut counters);
        }
        counters
    }

    /// Host requests under way.
    pub fn in_flight(&self) -> usize {
        self.router.in_flight()
    }

    /// Whether any member has been asked for something that it has not answered.
    pub(super) fn is_asking(&self) -> bool {
        self.asking > 0
    }

    /// Whether nothing at all is under way: no host request, no round, no member I/O.
    pub fn is_idle(&self) -> bool {
        let members = self.asking == 0;
        let logs = self.logs.as_ref().is_none_or(Logs::is_idle);
        members && logs && self.router.in_flight() == 0 && self.shard.is_idle()
    }

    /// The view in force here.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What the outside may see of the volume; `None` at all nodes but the array's, which is node 0.
    pub fn status(&self) -> Option<super::status::Status> {
        self.array.as_ref().map(Array::seen)
    }

    fn adopt(&mut self, view: Arc<View>) {
        if view.epoch <= self.view.epoch {
            return;
        }
        self.view = view.clone();
        self.shard.adopt(&view);
        self.collect();
        self.router.adopt(&view);
        self.route();
        if let Some(logs) = &mut self.logs {
            logs.adopt(&view);
            self.tell_of_logs();
        }
        self.send(0, Message::Confirm(view.epoch));
        let members = self.bays.len() - 1;
        for bay in 0..self.bays.len().min(64) {
            if !view.occupies(bay, members) && self.bays[bay].open {
                self.bays[bay].closing = true;
                self.close_if_drained(bay);
            }
        }
    }

    /// Tells the array, once, that a member failed.
    fn report(&mut self, bay: usize, status: Status) {
        let at = &mut self.bays[bay];
        if at.failed {
            return;
        }
        at.failed = true;
        let generation = at.generation;
        let message = Message::Failed {
            bay,
            generation,
            status,
        };
        self.send(0, message);
    }

    fn close_if_drained(&mut self, bay: usize) {
        let at = &mut self.bays[bay];
        if at.closing && at.in_flight == 0 {
            at.closing = false;
            at.open = false;
            self.effects.push(Effect::Close(bay));
            self.send(0, Message::Drained { bay });
        }
    }

    fn send(&mut self, to: NodeId, message: Message) {
        if to == self.id {
            self.loopback.push_back(message);
        } else {
            self.effects.push(Effect::Send(to, message));
        }
    }

    /// Hands a request for its data to a member.
    #[inline]
    fn ask_member(&mut self, bay: usize, mut request: Request) {
        if request.op == Op::Read && self.view.bad.is_some() {
            let block = u64::from(self.block_bytes);
            let start = request.lba * block;
            let end = start + u64::from(request.blocks) * block;
            if self.view.is_bad(self.view.slot_in(bay), start, end) {
                return self.answer(bay, request, Status::MediumError);
            }
        }
        if request.op != Op::Flush {
            request.lba += self.bays[bay].data_start;
        }
        self.ask_member_raw(bay, request);
    }

    /// Hands a request to a member; one that is not open answers at once.
    #[inline]
    fn ask_member_raw(&mut self, bay: usize, request: Request) {
        let at = &mut self.bays[bay];
        if at.open {
            at.in_flight += 1;
            self.asking += 1;
            self.effects.push(Effect::Member(bay, request));
        } else {
            self.answer(bay, request, Status::Gone);
        }
    }

    /// Answers a request in the place of a member.
    #[cold]
    fn answer(&mut self, bay: usize, request: Request, status: Status) {
        self.bays[bay].in_flight += 1;
        self.asking += 1;
        let completion = Completion {
            token: request.token,
            status,
            data: request.data,
        };
        self.member_done(bay, completion);
    }

    /// Carries out what the shard left. After most events that is nothing, or requests and finished jobs
    /// only; so these two are looked at by themselves.
    fn collect(&mut self) {
        if !self.shard.out.requests.is_empty() {
            if let Some((bay, lba, blocks)) = self.shard.out.expected.take() {
                let lba = lba + self.bays[bay].data_start;
                self.effects.push(Effect::Expect(bay, lba, blocks));
            }
            let mut requests = std::mem::take(&mut self.shard.out.requests);
            for (bay, mut request) in requests.drain(..) {
                request.token |= SHARD;
                self.ask_member(bay, request);
            }
            put_back(&mut self.shard.out.requests, requests);
        }
        if !self.shard.out.done.is_empty() {
            let mut done = std::mem::take(&mut self.shard.out.done);
            for (job, status) in done.drain(..) {
                self.job_done(job, status);
            }
            put_back(&mut self.shard.out.done, done);
        }
        if !self.shard.out.news.is_empty() {
            self.spread();
        }
    }

    /// Tells who wants to know that a job of the shard has ended.
    fn job_done(&mut self, job: Job, status: Status) {
        let Job {
            origin,
            op,
            len,
            data,
            ..
        } = job;
        let done = Done {
            of: origin.of,
            op,
            len,
            status,
            data,
        };
        match origin.of {
            Of::Whole { token } if origin.node == self.id => self.whole_done(token, done),
            _ => self.send(origin.node, Message::Done(done)),
        }
    }

    /// A host's request that was a job as it is has ended.
    fn whole_done(&mut self, token: u64, done: Done) {
        self.router.job_done();
        self.effects.push(Effect::Complete {
            completion: Completion {
                token,
                status: done.status,
                data: done.data,
            },
            op: done.op,
            bytes: done.len,
        });
    }

    /// Passes on what the shard has to tell of members, regions, logs and its window.
    fn spread(&mut self) {
        let mut news = std::mem::take(&mut self.shard.out.news);
        for (owner, home) in news.homes.drain(..) {
            self.send(owner, Message::Home(home));
        }
        for (bay, status) in news.failures.drain(..) {
            self.report(bay, status);
        }
        for (bay, stripe) in news.bad.drain(..) {
            let generation = self.bays[bay].generation;
            let message = Message::Bad {
                bay,
                generation,
                stripe,
            };
            self.send(0, message);
        }
        for (bay, stripe) in news.good.drain(..) {
            let generation = self.bays[bay].generation;
            let message = Message::Good {
                bay,
                generation,
                stripe,
            };
            self.send(0, message);
        }
        for (bay, record) in news.records.drain(..) {
            let generation = self.bays[bay].generation;
            match (&mut self.logs, Logs::keeper(bay, self.nodes)) {
                (Some(logs), keeper) if keeper == self.id => {
                    logs.note(keeper, bay, generation, record);
                }
                (_, keeper) => {
                    let note = Note {
                        bay,
                        generation,
                        record,
                    };
                    self.send(keeper, Message::Note(note));
                }
            }
        }
        for (bay, ended) in news.ended.drain(..) {
            match (&mut self.logs, Logs::keeper(bay, self.nodes)) {
                (Some(logs), keeper) if keeper == self.id => logs.ended(bay, ended),
                (_, keeper) => self.send(keeper, Message::Ended { bay, ended }),
            }
        }
        for region in news.intents.drain(..) {
            self.send(0, Message::Intend(region));
        }
        if let Some((epoch, found)) = news.worked.take() {
            self.send(0, Message::Worked { epoch, found });
        }
        // Nothing that was done here makes the shard tell more.
        assert!(
            self.shard.out.news.is_empty(),
            "news are passed on, not answered"
        );
        self.shard.out.news = news;
    }

    /// What a stripe of this node writes is in a log.
    fn logged(&mut self, logged: Logged) {
        if self.bays[logged.bay].generation == logged.generation {
            self.shard.logged(logged);
            self.collect();
        }
    }

    /// Writes what the logs have gathered. Says whether there was anything.
    fn write_logs(&mut self) -> bool {
        let Some(logs) = &mut self.logs else {
            return false;
        };
        logs.run();
        self.tell_of_logs()
    }

    /// Carries out what the logs left. Says whether there was anything.
    fn tell_of_logs(&mut self) -> bool {
        let logs = self.logs.as_mut().expect("somebody looked");
        let means = logs.means();
        let mut requests = std::mem::take(&mut means.requests);
        let mut outbox = std::mem::take(&mut means.outbox);
        let mut failures = std::mem::take(&mut means.failures);
        let freed = logs.freed();
        let any = !requests.is_empty() || !outbox.is_empty() || !failures.is_empty();
        for (bay, request) in requests.drain(..) {
            let token = LOGS | request.token;
            self.ask_member_raw(bay, Request { token, ..request });
        }
        for (node, message) in outbox.drain(..) {
            match message {
                Message::Logged(logged) if node == self.id => self.logged(logged),
                message => self.send(node, message),
            }
        }
        for (bay, status) in failures.drain(..) {
            self.report(bay, status);
        }
        for node in freed {
            if node != self.id {
                self.send(node, Message::Freed);
            }
        }
        let logs = self.logs.as_mut().expect("somebody looked");
        logs.means().give_back(requests, outbox, failures);
        any
    }

    /// Hands a job to the owner of its rows.
    fn hand_over(&mut self, owner: NodeId, job: Job) {
        if owner == self.id {
            self.shard.accept(job);
            self.collect();
        } else {
            self.send(owner, Message::Job(job));
        }
    }

    /// Carries out what the router left.
    fn route(&mut self) {
        while let Some(part) = self.router.next_part() {
            match part {
                Part::Member(bay, request) => self.ask_member(bay, request),
                Part::Owner(owner, job) => self.hand_over(owner, job),
                Part::Complete(effect) => self.effects.push(effect),
            }
        }
    }
}

/// Gives back the room of a list that was worked off. What came meanwhile stays.
fn put_back<T>(list: &mut Vec<T>, mut emptied: Vec<T>) {
    emptied.append(list);
    *list = emptied;
}
