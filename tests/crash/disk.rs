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
    /// Writes of [`md::Disk`] before the machine stops.
    pub writes_left: u32,
    /// Bytes that can't be written any more.
    pub broken: Range<usize>,
    /// Its cache can't be emptied any more.
    pub stuck: bool,
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
    /// It is the first sector of its write.
    is_first: bool,
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
    /// Each write is there but for its first sector.
    Headless,
}

impl Luck {
    pub const ALL: [Luck; 5] = [
        Luck::Nothing,
        Luck::Acknowledged,
        Luck::Everything,
        Luck::Torn,
        Luck::Headless,
    ];
}

/// What became of a write.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Lost,
    Whole,
    Torn,
    Headless,
}

impl Fate {
    fn draw(luck: Luck, random: &mut Random) -> Self {
        match luck {
            Luck::Nothing => Fate::Lost,
            Luck::Everything | Luck::Acknowledged => Fate::Whole,
            Luck::Torn => random.pick(&[Fate::Lost, Fate::Whole, Fate::Torn, Fate::Headless]),
            Luck::Headless => Fate::Headless,
        }
    }

    /// Whether a sector of it is there, the first or another.
    fn reaches(self, is_first: bool, random: &mut Random) -> bool {
        match self {
            Fate::Headless => !is_first,
            Fate::Lost => false,
            Fate::Whole => true,
            Fate::Torn => random.one_in(2),
        }
    }
}

impl Disk {
    pub fn new(bytes: usize, block: u32, cached: bool, fill: u8) -> Self {
        Self {
            block,
            cached,
            gone: false,
            writes_left: u32::MAX,
            broken: 0..0,
            stuck: false,
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

    /// Stores data of a new array.
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
            match fails {
                false => self.store(start, &bytes, op.is_fua() || !self.cached),
                // Nobody knows what came of it.
                true => self.remember(start, &bytes, false),
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
            (Op::Flush, _) if self.stuck => return Status::WriteFault,
            (Op::Read, Data::Read(segments)) => {
                let mut from = &self.content[start..end];
                for segment in segments.iter_mut() {
                    let (head, tail) = from.split_at(segment.len());
                    segment.copy_from_slice(head);
                    from = tail;
                }
            }
            (Op::Flush, Data::None) => self.force(since),
            (Op::Write { .. }, Data::Write(_)) | (Op::WriteZeroes { .. }, Data::None) => {}
            (op, data) => panic!("members are never asked to {op:?} with {data:?}"),
        }
        Status::Ok
    }

    /// Stores bytes: for good, or in the cache.
    fn store(&mut self, start: usize, bytes: &[u8], forced: bool) {
        let end = start + bytes.len();
        self.content[start..end].copy_from_slice(bytes);
        if forced {
            self.medium[start..end].copy_from_slice(bytes);
            for at in start / SECTOR..end / SECTOR {
                self.unsure.remove(&(at as u64));
            }
        } else {
            self.remember(start, bytes, true);
        }
    }

    /// From now on, these bytes may be on the medium.
    fn remember(&mut self, start: usize, bytes: &[u8], done: bool) {
        for (i, sector) in bytes.chunks_exact(SECTOR).enumerate() {
            let versions = self.unsure.entry((start / SECTOR + i) as u64).or_default();
            versions.push(Version {
                write: self.clock,
                done,
                is_first: i == 0,
                bytes: sector.try_into().expect("a sector"),
            });
        }
    }

    /// Forces what was acknowledged before the clock said `since`.
    fn force(&mut self, since: u64) {
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

    /// The same disk after its power was lost, while these requests were in flight.
    pub fn crash<'a>(
        &self,
        in_flight: impl Iterator<Item = &'a Request>,
        luck: Luck,
        random: &mut Random,
    ) -> Self {
        let mut left = self.restarted();
        let mut fates: BTreeMap<u64, Fate> = BTreeMap::new();
        for (&at, versions) in &self.unsure {
            for version in versions {
                let fate = fates.entry(version.write);
                let fate = *fate.or_insert_with(|| Fate::draw(luck, random));
                if fate.reaches(version.is_first, random) {
                    left.medium[at as usize * SECTOR..][..SECTOR].copy_from_slice(&version.bytes);
                }
            }
        }
        left.unsure.clear();
        let luck = match luck {
            Luck::Acknowledged => Luck::Nothing,
            other => other,
        };
        left.finish(in_flight, luck, true, random);
        left.content.clone_from(&left.medium);
        left
    }

    /// The same disk after the process that used it was killed, while these requests were in
    /// flight: what is in the cache stays there.
    pub fn abandon<'a>(
        &self,
        in_flight: impl Iterator<Item = &'a Request>,
        random: &mut Random,
    ) -> Self {
        let mut left = self.restarted();
        left.clock += 1;
        // What it did not answer, it has done by now or will never do.
        for (&at, versions) in &mut left.unsure {
            versions.retain(|version| version.done || random.one_in(2));
            versions.iter_mut().for_each(|version| version.done = true);
            if let Some(last) = versions.last() {
                left.content[at as usize * SECTOR..][..SECTOR].copy_from_slice(&last.bytes);
            }
        }
        left.finish(in_flight, Luck::Torn, false, random);
        left
    }

    fn restarted(&self) -> Self {
        Self {
            gone: false,
            stuck: false,
            // What can't be written at all had lost its power, perhaps.
            broken: match self.broken.end {
                usize::MAX => 0..0,
                _ => self.broken.clone(),
            },
            ..self.clone()
        }
    }

    /// Does something of what was in flight, all of it for good if `forced`.
    fn finish<'a>(
        &mut self,
        in_flight: impl Iterator<Item = &'a Request>,
        luck: Luck,
        forced: bool,
        random: &mut Random,
    ) {
        for request in in_flight {
            let Some(bytes) = written(request.op, request.blocks, self.block, &request.data) else {
                continue;
            };
            let fate = Fate::draw(luck, random);
            let start = request.lba as usize * self.block as usize;
            for (i, sector) in bytes.chunks_exact(SECTOR).enumerate() {
                if fate.reaches(i == 0, random) {
                    let forced = forced || request.op.is_fua() || !self.cached;
                    self.store(start + i * SECTOR, sector, forced);
                }
            }
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
            in_memory: false,
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

/// A disk that is written to before a machine runs: by who makes an array, or a start ready. It
/// is its own cache's user, and may stop at any write.
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
        let stopped = DiskError::Failed {
            doing: "writing",
            offset,
            reason: "the machine stopped".to_owned(),
        };
        self.writes_left = self.writes_left.checked_sub(1).ok_or(stopped)?;
        self.clock += 1;
        self.store(offset as usize, from, !self.cached);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), DiskError> {
        self.force(self.clock);
        Ok(())
    }
}

/// The bytes that a request writes, if it does.
fn written(op: Op, blocks: u32, block: u32, data: &Data) -> Option<Vec<u8>> {
    match (op, data) {
        (Op::Write { .. }, Data::Write(segments)) => {
            let mut bytes = Vec::new();
            segments.iter().for_each(|s| bytes.extend_from_slice(s));
            Some(bytes)
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
