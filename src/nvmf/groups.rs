//! The control side's view of the poll groups: messages to them, and rounds of confirmations.

use std::collections::{BTreeMap, VecDeque};

use super::message::{GroupCommand, Ticket};
use super::stats::GroupStats;
use crate::reactor::MailboxSender;

/// All poll groups, by index.
#[derive(Debug, Default)]
pub struct Groups {
    groups: Vec<Group>,
    rounds: BTreeMap<Ticket, Round>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Group {
    name: String,
    inbox: MailboxSender<GroupCommand>,
    /// Commands that its mailbox had no room for.
    backlog: VecDeque<GroupCommand>,
    /// How busy it is expected to be: the weights of its connections.
    load: u32,
    stopped: bool,
}

/// Confirmations that are awaited from every group.
#[derive(Debug, Default)]
pub struct Round {
    left: usize,
    /// What went wrong, by group.
    pub failures: Vec<String>,
    /// Counts, where they were asked for.
    pub stats: Vec<GroupStats>,
}

/// The weight of a connection that serves I/O, or may.
pub const IO_WEIGHT: u32 = 4;
/// The weight of an admin queue.
pub const ADMIN_WEIGHT: u32 = 1;

impl Groups {
    /// Adds a group; gives its index.
    pub fn add(&mut self, name: String, inbox: MailboxSender<GroupCommand>) -> usize {
        self.groups.push(Group {
            name,
            inbox,
            backlog: VecDeque::new(),
            load: 0,
            stopped: false,
        });
        self.groups.len() - 1
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// The name of a group.
    pub fn name(&self, group: usize) -> &str {
        &self.groups[group].name
    }

    /// The group with the least to do, if there is any.
    pub fn least_loaded(&self) -> Option<usize> {
        (0..self.groups.len()).min_by_key(|&g| self.groups[g].load)
    }

    /// A connection of `weight` has come to a group.
    pub fn load(&mut self, group: usize, weight: u32) {
        self.groups[group].load += weight;
    }

    /// A connection of `weight` has left a group.
    pub fn unload(&mut self, group: usize, weight: u32) {
        self.groups[group].load -= weight;
    }

    /// Sends a command to one group.
    pub fn send(&mut self, group: usize, command: GroupCommand) {
        let group = &mut self.groups[group];
        group.backlog.push_back(command);
        group.flush();
    }

    /// Sends a command to every group.
    pub fn broadcast(&mut self, mut command: impl FnMut() -> GroupCommand) {
        for group in 0..self.groups.len() {
            self.send(group, command());
        }
    }

    /// Sends a command that is to be confirmed to every group.
    pub fn begin(&mut self, mut command: impl FnMut(Ticket) -> GroupCommand) -> Ticket {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let round = Round {
            left: self.groups.iter().filter(|g| !g.stopped).count(),
            ..Round::default()
        };
        self.rounds.insert(ticket, round);
        self.broadcast(|| command(ticket));
        ticket
    }

    /// A group has confirmed.
    pub fn confirmed(&mut self, ticket: Ticket, note: impl FnOnce(&mut Round)) {
        if let Some(round) = self.rounds.get_mut(&ticket) {
            round.left = round.left.saturating_sub(1);
            note(round);
        }
    }

    /// Whether every group has confirmed.
    pub fn is_complete(&self, ticket: Ticket) -> bool {
        self.rounds.get(&ticket).is_none_or(|round| round.left == 0)
    }

    /// Ends a round and gives what has come; what comes later is ignored.
    pub fn finish(&mut self, ticket: Ticket) -> Round {
        self.rounds.remove(&ticket).unwrap_or_default()
    }

    /// A group has finished for good.
    pub fn stopped(&mut self, group: usize) {
        self.groups[group].stopped = true;
    }

    /// Whether every group has finished for good.
    pub fn all_stopped(&self) -> bool {
        self.groups.iter().all(|g| g.stopped)
    }

    /// Whether mailboxes have taken everything.
    pub fn all_sent(&self) -> bool {
        self.groups.iter().all(|g| g.backlog.is_empty())
    }

    /// Sends what mailboxes had no room for. Says whether anything is left.
    pub fn flush(&mut self) -> bool {
        let mut left = false;
        for group in &mut self.groups {
            group.flush();
            left |= !group.backlog.is_empty();
        }
        left
    }
}

impl Group {
    fn flush(&mut self) {
        while let Some(command) = self.backlog.pop_front() {
            if let Err(command) = self.inbox.send(command) {
                if self.inbox.is_closed() {
                    // It has finished: nobody will take these any more.
                    self.backlog.clear();
                } else {
                    self.backlog.push_front(command);
                }
                return;
            }
        }
    }
}
