//! The thread that keeps an association alive: bring-up, keep-alives, events, loss and return.
//!
//! It owns the admin queue and is never on the path of I/O. When a connection of the association
//! fails, be it this one or a channel's, all of them are ended and a new association is made: at
//! the next address first, then at the others in order, then after a pause again. A controller that
//! comes back must have the namespaces that it had; another one at the same address is not taken.

use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use zerocopy::FromBytes;

use super::admin::Admin;
use super::link::{Link, Order, Phase, Terms};
use super::options::TcpOptions;
use crate::initiator::{Done, Facts};
use crate::lock;
use crate::nvme::NSID_ALL;
use crate::nvme::admin::{AdminCommand, GetLogPage};
use crate::nvme::event::AsyncEvent;
use crate::nvme::log_page::{Health, LogPageId};

/// Most bytes of one command, whatever the controller takes: what the pools of this process have.
const MAX_TRANSFER: u32 = 1 << 20;

/// Longest sleep while an association is being made, and while it is kept.
const STEP: Duration = Duration::from_millis(10);
const WATCH: Duration = Duration::from_millis(100);

/// Shortest pause between two rounds of attempts.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);

/// Why an association is over.
enum End {
    Lost(String),
    Detached,
}

/// See the head of this file.
pub(super) struct Keeper {
    name: String,
    options: TcpOptions,
    link: Arc<Link>,
    /// The address in use, or last in use, first.
    addresses: Vec<SocketAddr>,
    generation: u64,
    /// When the last association was lost.
    lost: Option<Instant>,
    /// Who wait for the health log page.
    asking: Vec<mpsc::Sender<Result<Box<Health>, String>>>,
}

impl Keeper {
    pub(super) fn new(
        name: &str,
        options: TcpOptions,
        link: Arc<Link>,
        address: SocketAddr,
    ) -> Self {
        lock::exclusive(&link.status).addresses = vec![address];
        Self {
            name: name.to_owned(),
            options,
            link,
            addresses: vec![address],
            generation: 0,
            lost: None,
            asking: Vec::new(),
        }
    }

    /// Keeps the controller until it is given up or detached.
    pub(super) fn run(mut self) {
        while let Some(mut admin) = self.reach() {
            self.publish(&admin);
            match self.attend(&mut admin) {
                End::Detached => {
                    self.link.close(Phase::Gone);
                    admin.say_goodbye();
                    break;
                }
                End::Lost(reason) => self.lose(reason),
            }
        }
        self.link.close(Phase::Gone);
        self.refuse_asking("the controller is gone");
    }

    /// Makes an association, however long that takes; `None` when there shall be none any more.
    fn reach(&mut self) -> Option<Admin> {
        loop {
            for _ in 0..self.addresses.len() {
                let address = self.addresses[0];
                match self.attempt(address) {
                    Ok(Some(admin)) => return Some(admin),
                    Ok(None) => return None,
                    Err(reason) => {
                        tracing::debug!("controller {}: {address}: {reason}", self.name);
                        lock::exclusive(&self.link.status).trouble =
                            Some(format!("{address}: {reason}"));
                        self.addresses.rotate_left(1);
                    }
                }
            }
            lock::exclusive(&self.link.status).failed_rounds += 1;
            let delay = self.options.recovery.reconnect_delay;
            if delay.is_zero() && self.lost.is_some() {
                self.give_up();
                return None;
            }
            let pause = Instant::now() + delay.max(SHORTEST_PAUSE);
            while Instant::now() < pause {
                if !self.go_on(Instant::now()) {
                    return None;
                }
                self.wait(None, pause);
            }
        }
    }

    /// Tries one address.
    fn attempt(&mut self, address: SocketAddr) -> Result<Option<Admin>, String> {
        let mut admin = Admin::begin(&self.options, address)?;
        loop {
            let now = Instant::now();
            if !self.go_on(now) {
                return Ok(None);
            }
            admin.turn(now).map_err(|e| e.to_string())?;
            if admin.controller.facts().is_some() {
                self.check(&admin)?;
                return Ok(Some(admin));
            }
            self.wait(Some(&admin), now + STEP);
        }
    }

    /// That the controller is what it was, and enough for us.
    fn check(&self, admin: &Admin) -> Result<(), String> {
        let facts = admin.controller.facts().expect("it is ready");
        if facts.io_queues == 0 || !self.link.grant(facts.io_queues) {
            return Err(format!(
                "it grants {} I/O queues, and more are in use; raise its max_io_qpairs_per_ctrlr",
                facts.io_queues
            ));
        }
        if admin.depth(&self.options) == 0 {
            return Err("its queues hold no command".to_owned());
        }
        let known = lock::exclusive(&self.link.status).facts.clone();
        for before in known.iter().flat_map(|known| known.namespaces.iter()) {
            let now = facts.namespaces.iter().find(|n| n.id == before.id);
            let same = now.is_some_and(|now| {
                now.block_size == before.block_size
                    && now.nguid == before.nguid
                    && now.blocks >= before.blocks
            });
            if !same {
                return Err(format!(
                    "namespace {} is not the one that was there before (another NGUID, block size, or less blocks); detach the controller and attach it anew",
                    before.id
                ));
            }
        }
        Ok(())
    }

    /// Lets the channels use an association.
    fn publish(&mut self, admin: &Admin) {
        self.generation += 1;
        let facts = admin.controller.facts().expect("it is ready").clone();
        let depth = admin.depth(&self.options);
        let queue = admin.controller.io_settings(1, depth);
        let mut queue = queue.expect("it is ready, and its queues are as deep");
        queue.patience = self.options.io_timeout;
        let max_transfer = max_transfer(&facts);
        let address = self.addresses[0];
        let mut status = lock::exclusive(&self.link.status);
        status.generation = self.generation;
        status.addresses.clone_from(&self.addresses);
        status.trouble = None;
        status.failed_rounds = 0;
        // What its devices are made of stays.
        let namespaces = status.facts.as_ref().map(|f| f.namespaces.clone());
        let namespaces = namespaces.unwrap_or_else(|| facts.namespaces.clone());
        status.facts = Some(Arc::new(Facts {
            namespaces,
            ..facts
        }));
        drop(status);
        match self.lost.take() {
            Some(_) => tracing::warn!("controller {} is back, at {address}", self.name),
            None => tracing::info!("controller {} is attached at {address}", self.name),
        }
        self.link.open(Terms {
            generation: self.generation,
            address,
            queue,
            max_transfer,
        });
    }

    /// Looks after an association until it is over.
    fn attend(&mut self, admin: &mut Admin) -> End {
        // The health page is being asked for, or else the list that re-arms an event.
        let mut asked: Option<bool> = None;
        let mut relist = false;
        loop {
            let now = Instant::now();
            if let Err(error) = admin.turn(now) {
                return End::Lost(error.to_string());
            }
            if admin.controller.next_event() == Some(AsyncEvent::NAMESPACE_ATTRIBUTE_CHANGED) {
                tracing::warn!(
                    "controller {}: its namespaces have changed; detach it and attach it anew to use them as they are now",
                    self.name
                );
                relist = true;
            }
            while let Some(order) = self.link.next_order() {
                match order {
                    Order::Failed(generation, reason) if generation == self.generation => {
                        return End::Lost(reason);
                    }
                    Order::Failed(..) => {}
                    Order::Reset => return End::Lost("it was reset".to_owned()),
                    Order::Address(address) => self.know(address),
                    Order::Health(answer) => self.asking.push(answer),
                    Order::Detach => return End::Detached,
                }
            }
            if let Some(health) = asked
                && let Some(answer) = admin.controller.take_answer()
            {
                asked = None;
                if health {
                    self.tell_health(answer);
                }
            }
            if asked.is_none() && (relist || !self.asking.is_empty()) {
                let health = !relist;
                let (page, len) = match health {
                    true => (LogPageId::Health, size_of::<Health>()),
                    false => (LogPageId::ChangedNamespaces, 4096),
                };
                let page = GetLogPage {
                    lid: page.code(),
                    len: len as u64,
                    ..GetLogPage::default()
                };
                let nsid = if health { NSID_ALL } else { 0 };
                let command = AdminCommand::GetLogPage(page).to_command(nsid);
                if admin.controller.ask(&command, len, now).is_ok() {
                    asked = Some(health);
                    relist = false;
                    continue;
                }
            }
            self.wait(Some(admin), now + WATCH);
        }
    }

    fn tell_health(&mut self, answer: Done) {
        let health = match (answer.outcome, answer.payload) {
            (Ok(_), crate::initiator::Payload::Read(segments)) => {
                let bytes = segments.first().map_or(&[][..], |s| &s[..]);
                let health = Health::read_from_bytes(bytes);
                health
                    .map(Box::new)
                    .map_err(|_| "the health log page is too short".to_owned())
            }
            (Ok(_), _) => Err("the health log page did not come".to_owned()),
            (Err(error), _) => Err(error.to_string()),
        };
        for waiting in self.asking.drain(..) {
            // Who asked may have left.
            let _ = waiting.send(health.clone());
        }
    }

    fn refuse_asking(&mut self, reason: &str) {
        for waiting in self.asking.drain(..) {
            let _ = waiting.send(Err(reason.to_owned()));
        }
    }

    /// An association is over: I/O waits from now on.
    fn lose(&mut self, reason: String) {
        let address = self.addresses[0];
        tracing::warn!("controller {} at {address} is lost: {reason}", self.name);
        self.lost = Some(Instant::now());
        self.link.close(Phase::Away);
        lock::exclusive(&self.link.status).trouble = Some(reason);
        self.refuse_asking("the controller is away");
        // Whoever is lost is not the first to be tried.
        self.addresses.rotate_left(1);
    }

    fn give_up(&self) {
        tracing::error!("controller {} did not come back; it is given up", self.name);
    }

    /// Obeys while there is no association, and minds how long that has been. Says whether to go on.
    fn go_on(&mut self, now: Instant) -> bool {
        while let Some(order) = self.link.next_order() {
            match order {
                Order::Failed(..) | Order::Reset => {}
                Order::Address(address) => self.know(address),
                Order::Health(answer) => {
                    let _ = answer.send(Err("the controller is away".to_owned()));
                }
                Order::Detach => return false,
            }
        }
        let Some(lost) = self.lost else {
            return true;
        };
        let away = now.saturating_duration_since(lost);
        let recovery = &self.options.recovery;
        let over = |limit: Option<Duration>| limit.is_some_and(|limit| away >= limit);
        if !recovery.reconnect_delay.is_zero() && over(recovery.loss_timeout) {
            self.give_up();
            return false;
        }
        if over(recovery.fast_io_fail) && self.link.state().phase == Phase::Away {
            tracing::error!(
                "controller {} is away for {} s: its I/O fails from now on",
                self.name,
                away.as_secs()
            );
            self.link.close(Phase::Failing);
        }
        true
    }

    fn know(&mut self, address: SocketAddr) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
            lock::exclusive(&self.link.status)
                .addresses
                .clone_from(&self.addresses);
        }
    }

    /// Sleeps until there is an order, the admin connection has something, or it is time.
    fn wait(&self, admin: Option<&Admin>, until: Instant) {
        let left = until.saturating_duration_since(Instant::now());
        let timeout = Timespec {
            tv_sec: left.as_secs() as i64,
            tv_nsec: i64::from(left.subsec_nanos()),
        };
        let orders = PollFd::new(&*self.link, PollFlags::IN);
        // Whatever it says, everything is looked at afterwards.
        let _ = match admin {
            Some(admin) => {
                let writes = admin.socket.is_connecting() || admin.controller.has_output();
                let wanted = match writes {
                    true => PollFlags::IN | PollFlags::OUT,
                    false => PollFlags::IN,
                };
                poll(
                    &mut [orders, PollFd::new(&admin.socket, wanted)],
                    Some(&timeout),
                )
            }
            None => poll(&mut [orders], Some(&timeout)),
        };
        self.link.quiet();
    }
}

/// Most bytes of one command.
pub(super) fn max_transfer(facts: &Facts) -> u32 {
    let own = facts.max_transfer().unwrap_or(u64::from(MAX_TRANSFER));
    own.min(u64::from(MAX_TRANSFER)) as u32
}
