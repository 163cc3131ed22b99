//! A target with its poll groups, all on the thread of the test and on its time.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::host::Host;
use super::pipe::Pipe;
use crate::bdev::{Bdev, Malloc, Registry};
use crate::memory::{Arena, Class};
use crate::nvmf::subsystem::SubsystemOptions;
use crate::nvmf::{
    ListenAddress, NamespaceOptions, PayloadSizes, PollGroup, Target, TargetSetup, TransportOptions,
};
use crate::reactor::{Events, Poller, Turn};

/// The subsystem that every world has.
pub const NQN: &str = "nqn.2026-11.io.example:a";
/// A host.
pub const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";

/// Groups and time, shared with what the target does while it waits.
pub struct Side {
    pub groups: Vec<PollGroup>,
    pub now: Instant,
}

impl Side {
    fn turn(&mut self) {
        for group in &mut self.groups {
            let turn = Turn {
                now: self.now,
                ready: &[],
            };
            let _ = group.poll(&turn);
        }
    }
}

pub struct World {
    pub target: Target,
    pub registry: Registry,
    pub side: Rc<RefCell<Side>>,
    pub local: SocketAddr,
}

/// How a world is made.
pub struct Plan {
    pub options: TransportOptions,
    pub sizes: PayloadSizes,
    pub setup: TargetSetup,
    pub groups: usize,
    pub block_size: u32,
    pub blocks: u64,
    pub ana_reporting: bool,
}

impl Default for Plan {
    fn default() -> Self {
        let class = |slot_size, slots| Class { slot_size, slots };
        Self {
            options: TransportOptions::default(),
            sizes: PayloadSizes {
                at_once: vec![class(4096, 16), class(8192, 8)],
                bulk: vec![class(4096, 64), class(16384, 32), class(131_072, 24)],
            },
            setup: TargetSetup::default(),
            groups: 2,
            block_size: 512,
            blocks: 16384,
            ana_reporting: false,
        }
    }
}

impl World {
    /// A target with one subsystem that any host may use, one namespace of RAM, one listener.
    pub fn new() -> Self {
        Self::with(Plan::default())
    }

    pub fn with(plan: Plan) -> Self {
        let mut world = Self::bare(&plan);
        let bdev = Malloc::new(
            "Malloc0",
            plan.block_size,
            plan.blocks,
            Some(Uuid::from_u128(7)),
        );
        world.export(bdev.expect("a RAM disk"));
        world
    }

    /// The same without a namespace.
    pub fn bare(plan: &Plan) -> Self {
        let events = Events::new().expect("an epoll set");
        let arena = Arena::ordinary(plan.groups * plan.sizes.bytes()).expect("memory");
        let mut target = Target::new(plan.setup.clone());
        let groups = (0..plan.groups)
            .map(|n| {
                let name = format!("group_{n}");
                let seed = target.add_group(&name, &events.waker(), &arena, &plan.sizes);
                seed.expect("there is room").grow()
            })
            .collect();
        let side = Rc::new(RefCell::new(Side {
            groups,
            now: Instant::now(),
        }));
        let shared = side.clone();
        target.meanwhile.0 = Some(Box::new(move || shared.borrow_mut().turn()));
        target
            .create_transport(plan.options.clone())
            .expect("a transport");
        let mut subsystem = SubsystemOptions::new(NQN);
        subsystem.allow_any_host = true;
        subsystem.ana_reporting = plan.ana_reporting;
        target.create_subsystem(subsystem).expect("a subsystem");
        let address = ListenAddress::parse("127.0.0.1", "0", None).expect("an address");
        let address = target.add_listener(NQN, address).expect("a listener");
        Self {
            target,
            registry: Registry::default(),
            side,
            local: address.0,
        }
    }

    /// Exports a device, and gives its number.
    pub fn export(&mut self, bdev: Arc<dyn Bdev>) -> u32 {
        let options = NamespaceOptions {
            bdev_name: bdev.info().name.clone(),
            ..NamespaceOptions::default()
        };
        self.registry.add(bdev).expect("a new name");
        let added = self.target.add_namespace(&mut self.registry, NQN, options);
        added.expect("a namespace")
    }

    /// Whether no payload memory is in use.
    pub fn memory_is_whole(&self) -> bool {
        let side = self.side.borrow();
        side.groups.iter().all(PollGroup::memory_is_whole)
    }

    /// A new connection on which nothing has happened.
    pub fn dial(&mut self) -> Host {
        self.dial_from("127.0.0.1:50000".parse().expect("an address"))
    }

    pub fn dial_from(&mut self, peer: SocketAddr) -> Host {
        let (here, there) = Pipe::pair();
        let now = self.now();
        self.target.serve(Box::new(there), self.local, peer, now);
        self.turn();
        Host::new(here)
    }

    pub fn now(&self) -> Instant {
        self.side.borrow().now
    }

    /// One turn of everything.
    pub fn turn(&mut self) {
        let now = self.now();
        let _ = self.target.poll(now);
        self.side.borrow_mut().turn();
    }

    /// Turns until nothing more can come of them.
    pub fn settle(&mut self) {
        for _ in 0..40 {
            self.turn();
        }
    }

    /// Time passes in steps, with a turn at each.
    pub fn pass(&mut self, time: Duration) {
        let step = Duration::from_millis(100);
        let mut left = time;
        while left > Duration::ZERO {
            let passed = left.min(step);
            self.side.borrow_mut().now += passed;
            left -= passed;
            self.turn();
        }
        self.settle();
    }
}
