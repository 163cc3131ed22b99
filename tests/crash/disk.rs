//! A virtual disk with a volatile write cache, and what a crash may leave of it.
//!
//! The medium changes sector by sector (512 bytes). What was written and not forced to the medium
//! may be on it or not, each sector for itself, in any order; only what was forced is there for
//! certain. A disk without a cache forces every write.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use stripewise::bdev::{self, Bdev, Completion, Data, Info, Op, OpenError, Request, Status};
use stripewise::md::{self, DiskError};
use uuid::Uuid;

use crate::random::Random;

/// Bytes that are written at once, or not at all.
pub const SECTOR: usize = 512;

#[derive(Clone, Debug)]
pub struct Disk {
    pub block: u32,
    /// It has a volatile cache.
    pub cached: bool,
    /// It answers nothing but [`Status::Gone`].
    pub gone: bool,
    /// Bytes that can't be written any more.
    pub broken: Range<usize>,
    /// What is there for certain after a crash, unless something below has overwritten it.
    medium: Vec<u8>,
    /// What a read returns.
    content: Vec<u8>,
    /// What may be on the medium of each sector, oldest first.
    unsure: BTreeMap<u64, Vec<Version>>,
    /// Counts requests served.
    clock: u64,
}

/// What a write left in a cache of one sector.
#[derive(Clone, Debug)]
struct Version {
    /// Which write.
    write: u64,
    /// It was acknowledged, so that a flush makes it durable.
    done: bool,
    bytes: [u8; SECTOR],
}

/// How lucky one is with what was not forced to the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Luck {
    /// All of it is lost.
    Nothing,
    /// What was acknowledged is there, what was in flight is not.
    Acknowledged,
    /// All of it is there.
    Everything,
    /// Each write is there, or lost, or torn.
    Torn,
}

impl Luck {
    pub const ALL: [Luck; 4] = [
        Luck::Nothing,
        Luck::Acknowledged,
        Luck::Everything,
        Luck::Torn,
    ];
}

/// What became of a write.
#[derive(Clone, Copy)]
enum Fate {
    Lost,
    Whole,
    Torn,
}

impl Disk {
    pub fn new(bytes: usize, block: u32, cached: bool, fill: u8) -> Self {
        Self {
            block,
            cached,
            gone: false,
            broken: 0..0,
            medium: vec![fill; bytes],
            content: vec![fill; bytes],
            unsure: BTreeMap::new(),
            clock: 0,
        }
    }

    /// What a read returns.
    pub fn content(&self) -> &[u8] {
        &self.content
    }

    /// Writes from outside of the array, for good.
    pub fn put(&mut self, at: usize, bytes: &[u8]) {
        self.medium[at..at + bytes.len()].copy_from_slice(bytes);
        self.content[at..at + bytes.len()].copy_from_slice(bytes);
    }

    /// The number of the next request: one that is handed in now sees what those before it did.
    pub fn clock(&self) -> u64 {
        self.clock
    }

    /// Bytes that a crash may take back.
    pub fn unsure(&self) -> usize {
        self.unsure.len() * SECTOR
    }

    /// Serves a request that was handed in when the clock said `since`, the whole of it at this
    /// moment.
    pub fn serve(&mut self, request: Request, since: u64) -> Completion {
        let Request {
            token,
            op,
            lba,
            blocks,
            mut data,
        } = request;
        assert_eq!(
            data.len(),
            op.payload(blocks, self.block),
            "{op:?} of {blocks} blocks"
        );
        self.clock += 1;
        let status = self.work(op, lba, blocks, &mut data, since);
        Completion {
            token,
            status,
            data,
        }
    }

    fn work(&mut self, op: Op, lba: u64, blocks: u32, data: &mut Data, since: u64) -> Status {
        let block = self.block as usize;
        let start = lba as usize * block;
        let end = start + blocks as usize * block;
        if end > self.content.len() {
            return Status::OutOfRange;
        }
        let fails =
            self.gone || (op.modifies() && start < self.broken.end && self.broken.start < end);
        if let Some(bytes) = written(op, blocks, self.block, data) {
            let forced = !fails && (op.is_fua() || !self.cached);
            for (i, sector) in bytes.chunks_exact(SECTOR).enumerate() {
                let at = (start / SECTOR + i) as u64;
                if forced {
                    self.unsure.remove(&at);
                    self.medium[start + i * SECTOR..][..SECTOR].copy_from_slice(sector);
                } else {
                    self.unsure.entry(at).or_default().push(Version {
                        write: self.clock,
                        done: !fails,
                        bytes: sector.try_into().expect("a sector"),
                    });
                }
            }
            if !fails {
                self.content[start..end].copy_from_slice(&bytes);
            }
        }
        if fails {
            return if self.gone {
                Status::Gone
            } else {
                Status::WriteFault
            };
        }
        match (op, data) {
            (Op::Read, Data::Read(segments)) => {
                let mut from = &self.content[start..end];
                for segment in segments.iter_mut() {
                    let (head, tail) = from.split_at(segment.len());
                    segment.copy_from_slice(head);
                    from = tail;
                }
            }
            (Op::Flush, Data::None) => self.flush(since),
            (Op::Write { .. }, Data::Write(_)) | (Op::WriteZeroes { .. }, Data::None) => {}
            (op, data) => panic!("members are never asked to {op:?} with {data:?}"),
        }
        Status::Ok
    }

    /// Forces what was acknowledged before the clock said `since`.
    fn flush(&mut self, since: u64) {
        let medium = &mut self.medium;
        self.unsure.retain(|&at, versions| {
            let forced = |v: &Version| v.done && v.write <= since;
            if let Some(last) = versions.iter().rposition(forced) {
                let start = at as usize * SECTOR;
                medium[start..start + SECTOR].copy_from_slice(&versions[last].bytes);
                versions.drain(..=last);
            }
            !versions.is_empty()
        });
    }

    /// The same disk after a crash, while these requests were in flight.
    pub fn crash<'a>(
        &self,
        in_flight: impl Iterator<Item = &'a Request>,
        luck: Luck,
        random: &mut Random,
    ) -> Self {
        let mut medium = self.medium.clone();
        let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
        let fate = |luck, random: &mut Random| match luck {
            Luck::Nothing => Fate::Lost,
            Luck::Everything | Luck::Acknowledged => Fate::Whole,
            Luck::Torn => random.pick(&[Fate::Lost, Fate::Whole, Fate::Torn]),
        };
        let reached = |fate, random: &mut Random| match fate {
            Fate::Lost => false,
            Fate::Whole => true,
            Fate::Torn => random.one_in(2),
        };
        for (&at, versions) in &self.unsure {
            for version in versions {
                let known = fates.get(&version.write).copied();
                let fate = known.unwrap_or_else(|| fate(luck, random));
                fates.insert(version.write, fate);
                if reached(fate, random) {
                    medium[at as usize * SECTOR..][..SECTOR].copy_from_slice(&version.bytes);
                }
            }
        }
        let luck = match luck {
            Luck::Acknowledged => Luck::Nothing,
            other => other,
        };
        for request in in_flight {
            let Request {
                op,
                lba,
                blocks,
                data,
                ..
            } = request;
            let Some(bytes) = written(*op, *blocks, self.block, data) else {
                continue;
            };
            let fate = fate(luck, random);
            let start = *lba as usize * self.block as usize;
            for (i, sector) in bytes.chunks_exact(SECTOR).enumerate() {
                if reached(fate, random) {
                    medium[start + i * SECTOR..][..SECTOR].copy_from_slice(sector);
                }
            }
        }
        Self {
            content: medium.clone(),
            medium,
            unsure: BTreeMap::new(),
            gone: false,
            // What can't be written at all had lost its power, perhaps.
            broken: match self.broken.end {
                usize::MAX => 0..0,
                _ => self.broken.clone(),
            },
            ..*self
        }
    }

    /// The disk as a device of this number; machines only hand it on.
    pub fn device(&self, number: usize) -> Arc<dyn Bdev> {
        Arc::new(Device(Info {
            name: name(number),
            product: "simulated",
            uuid: Uuid::nil(),
            block_size: self.block,
            blocks: self.content.len() as u64 / u64::from(self.block),
            io_boundary: 0,
            write_unit: 0,
            max_blocks: u32::MAX,
            write_cache: self.cached,
            deallocates: true,
        }))
    }
}

/// A disk as it is looked at while no machine runs.
pub struct Reader<'a>(pub &'a Disk);

impl md::Disk for Reader<'_> {
    fn bytes(&self) -> u64 {
        self.0.content.len() as u64
    }

    fn block_size(&self) -> u32 {
        self.0.block
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        into.copy_from_slice(&self.0.content[offset as usize..][..into.len()]);
        Ok(())
    }

    fn write(&mut self, _: u64, _: &[u8]) -> Result<(), DiskError> {
        unreachable!("it is only looked at")
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// A disk as it is prepared for its array. What is written is durable.
impl md::Disk for Disk {
    fn bytes(&self) -> u64 {
        Reader(self).bytes()
    }

    fn block_size(&self) -> u32 {
        self.block
    }

    fn read(&mut self, offset: u64, into: &mut [u8]) -> Result<(), DiskError> {
        Reader(self).read(offset, into)
    }

    fn write(&mut self, offset: u64, from: &[u8]) -> Result<(), DiskError> {
        self.put(offset as usize, from);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// The bytes that a request writes, if it does.
fn written(op: Op, blocks: u32, block: u32, data: &Data) -> Option<Vec<u8>> {
    match (op, data) {
        (Op::Write { .. }, Data::Write(segments)) => {
            Some(segments.iter().flat_map(|s| s.iter().copied()).collect())
        }
        (Op::WriteZeroes { .. }, _) => Some(vec![0; (blocks * block) as usize]),
        _ => None,
    }
}

/// The name of the disk of this number.
pub fn name(number: usize) -> String {
    format!("disk{number}")
}

/// The number of the disk of this name.
pub fn number(name: &str) -> usize {
    let number = name.strip_prefix("disk").and_then(|n| n.parse().ok());
    number.expect("disks are named by number")
}

#[derive(Debug)]
struct Device(Info);

impl Bdev for Device {
    fn info(&self) -> &Info {
        &self.0
    }

    fn open(&self) -> Result<Box<dyn bdev::Channel>, OpenError> {
        unreachable!("the machine serves disks itself")
    }
}
