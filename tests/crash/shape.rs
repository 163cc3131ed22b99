//! The shape of an array, and its members when it is new.

use std::ops::Range;
use std::time::Duration;

use stripewise::md::{
    Bitmap, BitmapHeader, Created, FIRST_STRIPE, NewArray, NewDevice, Policy, PplArea, SetName,
    Time, create,
};
use stripewise::raid::{BatchScope, Batching, Geometry, Layout, ProcessOptions};
use stripewise::xor;
use uuid::Uuid;

use crate::disk::{Disk, SECTOR};
use crate::host::{self, INITIAL};
use crate::random::Random;

/// How an array learns after a crash where parity may be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Consistency {
    Resync,
    /// With a bit for so many bytes of a member.
    Bitmap(u32),
    /// With a partial parity log of so many sectors on each member.
    Ppl(u16),
}

/// Chooses that, for an array of this chunk.
pub type Choice = fn(&mut Random, u32) -> Consistency;

#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub members: usize,
    pub chunk: u32,
    pub stripe: u32,
    pub block: u32,
    pub rows: u64,
    pub nodes: usize,
    /// Rows that follow one another with one owner.
    pub run: u32,
    pub layout: Layout,
    pub consistency: Consistency,
    /// Members have a bad-block log.
    pub logs: bool,
    /// Parity is right nowhere at first, and the superblocks say so.
    pub owes: bool,
    /// Disks that have a volatile cache.
    pub cached: u64,
    pub batching: Batching,
    pub pace: ProcessOptions,
}

/// Where everything begins on a disk, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The bitmap or partial parity log.
    pub marks: u64,
    /// The bad-block log.
    pub bad_blocks: u64,
    pub data: u64,
}

/// The superblock of a disk, in bytes.
const SUPERBLOCK: u64 = 4096;
const PAGE: u64 = 4096;
/// The identity of the array.
pub const SET: Uuid = Uuid::from_u128(0x57e1_9e00);

impl Shape {
    pub fn new(random: &mut Random, consistency: Choice) -> Self {
        let chunk = random.pick(&[4096, 4096, 8192, 16384]);
        let some = random.next();
        let window = u64::from(chunk) * random.pick(&[1, 1, 2, 8]);
        Self {
            members: 3 + random.below(4) as usize,
            chunk,
            stripe: random.pick(&[4096, chunk]),
            block: random.pick(&[512, 4096]),
            rows: 4 + random.below(6),
            nodes: 1 + random.below(3) as usize,
            run: 1 + random.below(2) as u32,
            layout: random.pick(&Layout::ALL),
            consistency: consistency(random, chunk),
            logs: random.one_in(2),
            owes: false,
            cached: random.pick(&[u64::MAX, u64::MAX, 0, some]),
            batching: Batching {
                scope: random.pick(&[BatchScope::Off, BatchScope::Rows, BatchScope::Owners]),
                request_bytes: random.pick(&[4096, 65536]),
                preread_limit: 1 + random.below(4) as u32,
                partial_wait: Duration::from_micros(random.pick(&[0, 1000])),
                join_wait: Duration::from_micros(random.pick(&[0, 1000])),
            },
            pace: ProcessOptions {
                window_bytes: window,
                bytes_per_second: random.pick(&[0, 0, window * 10]),
                ..ProcessOptions::default()
            },
        }
    }

    pub fn geometry(&self) -> Geometry {
        let bytes = self.rows * u64::from(self.chunk);
        Geometry::new(self.members, bytes, self.chunk, self.stripe, self.layout)
            .expect("the shape is in range")
            .with_shards(self.nodes, self.run)
    }

    /// Sectors of the volume.
    pub fn sectors(&self) -> u64 {
        self.geometry().volume_bytes() / SECTOR as u64
    }

    /// Where everything begins on a disk.
    pub fn places(&self) -> Places {
        let marks = SUPERBLOCK + PAGE;
        let bad_blocks = match self.consistency {
            Consistency::Ppl(sectors) => (marks + u64::from(sectors) * 512).next_multiple_of(PAGE),
            Consistency::Resync | Consistency::Bitmap(_) => marks + PAGE,
        };
        Places {
            marks,
            bad_blocks,
            data: bad_blocks + 2 * PAGE,
        }
    }

    /// A disk of the size that the array wants, full of what somebody else has left there.
    pub fn blank(&self, number: usize) -> Disk {
        let bytes = self.places().data + self.geometry().member_bytes();
        let cached = self.cached >> (number % 64) & 1 == 1;
        Disk::new(bytes as usize, self.block, cached, 0xa5)
    }

    /// The bytes of the first page of a disk's data.
    pub fn first_page(&self) -> Range<usize> {
        let start = self.places().data as usize;
        start..start + 4096
    }

    /// A disk as a device of an array.
    pub fn device(&self, number: usize) -> NewDevice {
        NewDevice {
            sectors: (self.places().data + self.geometry().member_bytes()) / SECTOR as u64,
            uuid: Uuid::from_u128(0x0d15_c000 + number as u128),
        }
    }

    /// The disks of a new array that holds [`INITIAL`] everywhere, in sync and clean unless it owes a
    /// resync.
    pub fn create(&self) -> Vec<Disk> {
        let geometry = self.geometry();
        let places = self.places();
        let slots = (0..self.members).map(|n| Some(self.device(n)));
        let name = SetName::new("crash:0").expect("short");
        let created = create(&NewArray {
            chunk: self.chunk / SECTOR as u32,
            layout: self.layout as u32,
            data_offset: Some(places.data / SECTOR as u64),
            bad_block_log: self.logs,
            assume_clean: !self.owes,
            ..NewArray::new(SET, name, Time::from_seconds(1), slots.collect())
        });
        let mut created = created.expect("the shape is in range");
        self.refine(&mut created);
        let mut disks: Vec<_> = (0..self.members).map(|n| self.blank(n)).collect();
        for (number, disk) in disks.iter_mut().enumerate() {
            created.write(number, disk).expect("disks have room");
        }
        let chunk = u64::from(self.chunk);
        for row in 0..self.rows {
            let mut parity = vec![0; chunk as usize];
            for role in 0..geometry.data() {
                let first = (row * geometry.data() as u64 + role as u64) * chunk / SECTOR as u64;
                let sectors = first..first + chunk / SECTOR as u64;
                let data = host::fill(sectors, INITIAL);
                xor::xor_assign(&mut parity, &[&data]);
                let slot = geometry.member(row, role);
                disks[slot].put((places.data + row * chunk) as usize, &data);
            }
            let slot = geometry.parity_member(row);
            if !self.owes {
                disks[slot].put((places.data + row * chunk) as usize, &parity);
            }
        }
        if self.owes {
            let mut members: Vec<_> = disks.drain(..).map(Some).collect();
            created.sync_first_stripe(&mut members).expect("disks work");
            disks.extend(members.into_iter().flatten());
        }
        disks
    }

    /// Gives a new array its bitmap or logs, which so small ones do not have by themselves.
    fn refine(&self, created: &mut Created) {
        let places = self.places();
        let behind = |place: u64| ((place - SUPERBLOCK) / SECTOR as u64) as i32;
        let marks = behind(places.marks);
        for superblock in created.superblocks.iter_mut().flatten() {
            superblock.policy = match self.consistency {
                Consistency::Resync => Policy::Resync,
                Consistency::Bitmap(_) => Policy::Bitmap { offset: marks },
                Consistency::Ppl(size) => Policy::Ppl {
                    offset: marks as i16,
                    size,
                    multiple: PplArea::new(size).expect("room").is_ring(),
                },
            };
            if self.owes && matches!(self.consistency, Consistency::Ppl(_)) {
                superblock.resync_offset = FIRST_STRIPE;
            }
            if self.logs {
                superblock.bad_block_log.offset = behind(places.bad_blocks);
            }
            if let Consistency::Bitmap(bytes) = self.consistency {
                let mut bits = Bitmap::new(superblock.size, bytes).expect("in range");
                if self.owes {
                    bits.set_all();
                }
                created.bitmap = Some((BitmapHeader::new(superblock, bytes, 8), bits));
            }
        }
    }
}
