//! Hosts that differ from one another, and what they do with reservations.

use zerocopy::{FromBytes, IntoBytes};

use super::host::{Answer, Host, connect, icreq};
use super::world::{NQN, World};
use crate::nvme::fabrics::{CNTLID_DYNAMIC, ConnectData};
use crate::nvme::reservation::{
    AcquireAction, Keys, RegisterAction, Registrant, ReleaseAction, ReservationCommand,
    ReservationStatus, ReservationType,
};
use crate::nvme::{Command, Nqn};

/// One host: its admin queue and an I/O queue.
pub struct Party {
    pub admin: Host,
    pub io: Host,
    pub cntlid: u16,
    pub id: [u8; 16],
}

/// What a Reservation Report says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub generation: u32,
    pub kind: u8,
    pub persists: bool,
    /// Host, key, and whether it holds the reservation.
    pub registrants: Vec<([u8; 16], u64, bool)>,
}

fn connect_data(id: [u8; 16], cntlid: u16) -> ConnectData {
    let subsystem = Nqn::new(NQN).expect("a name");
    let name = format!("nqn.2014-08.org.example:host-{}", id[0]);
    ConnectData::new(id, cntlid, &subsystem, &Nqn::new(&name).expect("a name"))
}

impl Party {
    /// The host of this number, over a path of its own.
    pub fn new(world: &mut World, number: u8) -> Self {
        Self::over(world, number, number)
    }

    /// The host of this number, from an address that ends with `path`.
    pub fn over(world: &mut World, number: u8, path: u8) -> Self {
        let id = [number; 16];
        let peer = format!("127.0.1.{path}:50000").parse().expect("an address");
        let mut admin = world.dial_from(peer);
        admin.initialize(world, &icreq(false, false));
        let answer = admin.connect(world, connect(0, 32), &connect_data(id, CNTLID_DYNAMIC));
        assert!(answer.status().is_success(), "{answer:?}");
        let cntlid = answer.completion.result64() as u16;
        admin.enable(world);
        let io = Self::queue(world, id, cntlid, 1);
        Self {
            admin,
            io,
            cntlid,
            id,
        }
    }

    /// Another I/O queue of a controller.
    pub fn queue(world: &mut World, id: [u8; 16], cntlid: u16, qid: u16) -> Host {
        let mut io = world.dial();
        io.initialize(world, &icreq(false, false));
        let answer = io.connect(world, connect(qid, 32), &connect_data(id, cntlid));
        assert!(answer.status().is_success(), "{answer:?}");
        io
    }

    /// Runs a reservation command; gives the status.
    pub fn reserve(&mut self, world: &mut World, command: ReservationCommand, keys: Keys) -> u16 {
        let (command, data) = entry(command, keys);
        self.io.run(world, command, &data).status().code()
    }

    pub fn register(&mut self, world: &mut World, key: u64) -> u16 {
        self.reserve(world, register(), Keys::new(0, key))
    }

    pub fn acquire(&mut self, world: &mut World, kind: ReservationType, key: u64) -> u16 {
        let action = AcquireAction::Acquire;
        let command = ReservationCommand::Acquire { action, kind };
        self.reserve(world, command, Keys::new(key, 0))
    }

    pub fn preempt(
        &mut self,
        world: &mut World,
        kind: ReservationType,
        key: u64,
        victim: u64,
    ) -> u16 {
        let action = AcquireAction::Preempt;
        let command = ReservationCommand::Acquire { action, kind };
        self.reserve(world, command, Keys::new(key, victim))
    }

    pub fn release(&mut self, world: &mut World, kind: ReservationType, key: u64) -> u16 {
        let action = ReleaseAction::Release;
        let kind = kind.code();
        let command = ReservationCommand::Release { action, kind };
        self.reserve(world, command, Keys::new(key, 0))
    }

    pub fn clear(&mut self, world: &mut World, key: u64) -> u16 {
        let action = ReleaseAction::Clear;
        let command = ReservationCommand::Release { action, kind: 0 };
        self.reserve(world, command, Keys::new(key, 0))
    }

    pub fn report(&mut self, world: &mut World) -> Report {
        let command = ReservationCommand::Report {
            len: 4096,
            extended: true,
        };
        let answer = self.io.fetch(world, command.to_command(1), 4096);
        assert!(answer.status().is_success(), "{answer:?}");
        Report::read(&answer.data)
    }

    /// Runs a command and gives its status.
    pub fn run(&mut self, world: &mut World, command: Command, data: &[u8]) -> u16 {
        self.io.run(world, command, data).status().code()
    }

    /// Reads a block and gives the status.
    pub fn read(&mut self, world: &mut World) -> u16 {
        let read = super::commands::read(0, 1);
        self.io.fetch(world, read, 512).status().code()
    }

    /// Writes a block and gives the status.
    pub fn write(&mut self, world: &mut World) -> u16 {
        let write = super::commands::write(0, 1);
        self.run(world, write, &[self.id[0]; 512])
    }

    /// Runs a command of the admin queue.
    pub fn ask(&mut self, world: &mut World, command: Command) -> Answer {
        self.admin.run(world, command, &[])
    }
}

/// A registration that changes nothing but that.
pub fn register() -> ReservationCommand {
    ReservationCommand::Register {
        action: RegisterAction::Register,
        ignore_key: false,
        persist: None,
    }
}

/// The queue entry of a reservation command, and its data.
pub fn entry(command: ReservationCommand, keys: Keys) -> (Command, Vec<u8>) {
    let len = command.data_from_host() as usize;
    (command.to_command(1), keys.as_bytes()[..len].to_vec())
}

impl Report {
    pub fn read(bytes: &[u8]) -> Self {
        let (head, rest) = ReservationStatus::read_from_prefix(bytes).expect("a head");
        let count = usize::from(head.registrants.get());
        let mut registrants = Vec::new();
        for bytes in rest.chunks_exact(64).take(count) {
            let registrant = Registrant::read_from_bytes(bytes).expect("64 bytes");
            assert_eq!(registrant.cntlid.get(), 0xffff);
            let holds = registrant.status == 1;
            registrants.push((registrant.host, registrant.key.get(), holds));
        }
        Self {
            generation: head.generation.get(),
            kind: head.kind,
            persists: head.persists == 1,
            registrants,
        }
    }
}
