//! A reactor's way into a volume: its node, the channels of its members, and its end of the mesh.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::array::Control;
use super::message::{Message, NodeId};
use super::node::{Effect, Node};
use super::volume::{CountersCell, NodeParts};
use crate::bdev::{Channel, Completion, Info, IoStat, OpenError, Request};
use crate::lock;
use crate::reactor::{Mailbox, Port, ReactorId};

/// Messages taken from the mesh in one turn.
const MESSAGES: usize = 1024;
/// Times that members are polled in one turn while they answer at once.
const ROUNDS: usize = 8;
/// How often the counters are published.
const PUBLISH: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct VolumeChannel {
    info: Arc<Info>,
    node: Node,
    members: Vec<Member>,
    port: Port<Message>,
    control: Option<Mailbox<Control>>,
    /// Messages that found their ring full, in order.
    outbox: VecDeque<(NodeId, Message)>,
    /// Effects being carried out.
    effects: Vec<Effect>,
    /// Member completions being handed to the node.
    polled: Vec<Completion>,
    /// Host completions not yet collected.
    done: Vec<Completion>,
    stat: IoStat,
    counters: CountersCell,
    published: Option<Instant>,
    now: Option<Instant>,
}

/// A member of this reactor.
#[derive(Debug, Default)]
struct Member {
    channel: Option<Box<dyn Channel>>,
    /// Requests that found the channel full, in order.
    deferred: VecDeque<Request>,
}

impl VolumeChannel {
    pub(super) fn new(
        info: Arc<Info>,
        parts: NodeParts,
        counters: CountersCell,
    ) -> Result<Self, OpenError> {
        let NodeParts {
            node,
            members,
            port,
            control,
        } = parts;
        let open = |bdev: &Option<Arc<dyn crate::bdev::Bdev>>| -> Result<Member, OpenError> {
            let channel = bdev.as_ref().map(|b| b.open()).transpose()?;
            Ok(Member {
                channel,
                ..Member::default()
            })
        };
        Ok(Self {
            info,
            node,
            // One more, for a member that is to replace another.
            members: members
                .iter()
                .chain([&None])
                .map(open)
                .collect::<Result<_, _>>()?,
            port,
            control,
            outbox: VecDeque::new(),
            effects: Vec::with_capacity(256),
            polled: Vec::with_capacity(256),
            done: Vec::with_capacity(256),
            stat: IoStat::default(),
            counters,
            published: None,
            now: None,
        })
    }

    /// Takes in what other reactors and the control thread sent.
    fn listen(&mut self, now: Instant) -> bool {
        let mut heard = false;
        if let Some(mailbox) = &mut self.control {
            while let Some(control) = mailbox.receive() {
                self.node.control(control);
                heard = true;
            }
        }
        let node = &mut self.node;
        let take = |from: ReactorId, message| node.receive(from.index(), message, now);
        heard | (self.port.receive(MESSAGES, take) > 0)
    }

    /// Hands the members' completions to the node.
    fn poll_members(&mut self, now: Instant) -> bool {
        let mut worked = false;
        for bay in 0..self.members.len() {
            let member = &mut self.members[bay];
            let Some(channel) = &mut member.channel else {
                continue;
            };
            if channel.in_flight() > 0 {
                worked |= channel.poll(now, &mut self.polled);
            }
            for completion in self.polled.drain(..) {
                worked = true;
                self.node.member_done(bay, completion);
            }
            while let Some(request) = member.deferred.pop_front() {
                if let Err(request) = channel.submit(request) {
                    member.deferred.push_front(request);
                    break;
                }
            }
        }
        worked
    }

    /// Does what the node wants, until it wants no more.
    fn carry_out(&mut self) {
        loop {
            std::mem::swap(&mut self.effects, self.node.effects());
            if self.effects.is_empty() {
                return;
            }
            let mut effects = std::mem::take(&mut self.effects);
            for effect in effects.drain(..) {
                self.carry_out_one(effect);
            }
            self.effects = effects;
        }
    }

    fn carry_out_one(&mut self, effect: Effect) {
        match effect {
            Effect::Member(bay, request) => {
                let member = &mut self.members[bay];
                let channel = member.channel.as_mut();
                let channel = channel.expect("a node asks only members that are open");
                if !member.deferred.is_empty() {
                    member.deferred.push_back(request);
                } else if let Err(request) = channel.submit(request) {
                    member.deferred.push_back(request);
                }
            }
            Effect::Expect(bay, lba, blocks) => {
                if let Some(channel) = &mut self.members[bay].channel {
                    channel.expect(lba, blocks);
                }
            }
            Effect::Send(to, message) => self.outbox.push_back((to, message)),
            Effect::Complete {
                completion,
                op,
                bytes,
            } => {
                self.stat.count(op, bytes, completion.status);
                self.done.push(completion);
            }
            Effect::Open(bay, bdev) => {
                let opened = bdev.open();
                let error = opened.as_ref().err().map(ToString::to_string);
                self.members[bay].channel = opened.ok();
                self.node.attached(bay, error);
            }
            Effect::Close(bay) => {
                let member = &mut self.members[bay];
                assert!(member.deferred.is_empty(), "closed with requests waiting");
                member.channel = None;
            }
        }
    }

    /// Puts messages on their way, in order, as far as there is room. As soon as there are any: others have nothing to do
    /// until they come.
    fn talk(&mut self) {
        let mut held: u64 = 0;
        for _ in 0..self.outbox.len() {
            let (to, message) = self.outbox.pop_front().expect("counted above");
            let full = held & (1 << (to % 64)) != 0;
            let refused = match full {
                true => Some(message),
                false => self.port.send(ReactorId(to as u16), message).err(),
            };
            if let Some(message) = refused {
                held |= 1 << (to % 64);
                self.outbox.push_back((to, message));
            }
        }
        self.port.flush();
    }

    fn publish(&mut self, now: Instant) {
        let due = self.published.is_none_or(|at| now - at >= PUBLISH);
        if due {
            self.published = Some(now);
            let mut all = lock::exclusive(&self.counters);
            all[self.port.id().index()] = self.node.counters();
        }
    }

    fn kick_members(&mut self) {
        for member in &mut self.members {
            if let Some(channel) = &mut member.channel {
                channel.kick();
            }
        }
    }
}

impl Channel for VolumeChannel {
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.node.submit(request)
    }

    fn kick(&mut self) {
        if let Some(now) = self.now {
            self.node.run(now);
        }
        self.carry_out();
        self.kick_members();
        self.talk();
    }

    fn poll(&mut self, now: Instant, done: &mut Vec<Completion>) -> bool {
        self.now = Some(now);
        let mut worked = self.listen(now);
        for _ in 0..ROUNDS {
            let polled = self.node.is_asking() && self.poll_members(now);
            let ran = self.node.run(now);
            self.carry_out();
            self.kick_members();
            self.talk();
            worked |= polled | ran;
            if !polled && !ran || !self.node.is_asking() {
                break;
            }
        }
        self.publish(now);
        worked |= !self.done.is_empty();
        done.append(&mut self.done);
        worked
    }

    fn in_flight(&self) -> usize {
        self.node.in_flight()
    }

    fn deadline(&self) -> Option<Instant> {
        let members = self.members.iter().filter_map(|m| m.channel.as_ref());
        let earliest = members.filter_map(|c| c.deadline()).min();
        let waiting = (!self.outbox.is_empty()).then_some(self.now).flatten();
        [earliest, self.node.deadline(), waiting]
            .into_iter()
            .flatten()
            .min()
    }

    fn iostat(&self, report: &mut dyn FnMut(&str, &IoStat)) {
        report(&self.info.name, &self.stat);
        for channel in self.members.iter().filter_map(|m| m.channel.as_ref()) {
            channel.iostat(report);
        }
    }
}
