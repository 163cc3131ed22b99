//! A virtual disk: bytes, and what goes wrong with them.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use stripewise::bdev::{Completion, Data, Op, Request, Status};

#[derive(Debug)]
pub struct Disk {
    /// What it holds.
    pub bytes: Vec<u8>,
    block: u32,
    /// Blocks that can't be read until they are written.
    pub latent: BTreeSet<u64>,
    /// Answers nothing but [`Status::Gone`].
    pub gone: bool,
    /// Writes that fail from now on.
    pub write_faults: u32,
    /// The next write of more blocks than this fails, once.
    pub long_fault: Option<u64>,
    /// Blocks that can't be written so many times, nor what is written together with them.
    pub bad_pages: BTreeMap<u64, u32>,
    /// Counts what its world likes to count.
    pub clock: u64,
    /// By that clock: when each block was last written for good, whatever cache the disk has, and
    /// when last without giving its space back.
    pub forced: Vec<u64>,
    pub kept: Vec<u64>,
    /// What was written is lost with the power, unless it was forced or flushed.
    pub write_cache: bool,
    /// What blocks in the cache hold on the medium.
    pub unflushed: BTreeMap<u64, Vec<u8>>,
    /// Long writes of blocks below this do not fail.
    pub sound: u64,
}

impl Disk {
    pub fn new(bytes: u64, block: u32, fill: u8) -> Self {
        let blocks = (bytes / u64::from(block)) as usize;
        Self {
            bytes: vec![fill; bytes as usize],
            block,
            latent: BTreeSet::new(),
            gone: false,
            write_faults: 0,
            long_fault: None,
            bad_pages: BTreeMap::new(),
            clock: 0,
            forced: vec![0; blocks],
            kept: vec![0; blocks],
            write_cache: false,
            unflushed: BTreeMap::new(),
            sound: 0,
        }
    }

    /// Serves a request, the whole of it at this moment.
    pub fn serve(&mut self, request: Request) -> Completion {
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
        let status = self.work(op, lba, blocks, &mut data);
        Completion {
            token,
            status,
            data,
        }
    }

    /// Whether a write of these blocks succeeds; notes what it does to them.
    fn takes(&mut self, op: Op, blocks: Range<u64>) -> bool {
        if self.write_faults > 0 {
            self.write_faults -= 1;
            return false;
        }
        let long = match blocks.start < self.sound {
            true => 0,
            false => blocks.end - blocks.start,
        };
        if self.long_fault.take_if(|most| long > *most).is_some() {
            return false;
        }
        for (_, left) in self.bad_pages.range_mut(blocks.clone()) {
            if *left > 0 {
                *left -= 1;
                return false;
            }
        }
        self.latent.retain(|b| !blocks.contains(b));
        for block in blocks.clone().filter(|_| self.write_cache) {
            match op.is_fua() {
                true => drop(self.unflushed.remove(&block)),
                false => {
                    let at = block as usize * self.block as usize;
                    let held = &self.bytes[at..at + self.block as usize];
                    self.unflushed.entry(block).or_insert_with(|| held.to_vec());
                }
            }
        }
        let at = blocks.start as usize..blocks.end as usize;
        if op.is_fua() {
            self.forced[at.clone()].fill(self.clock);
        }
        if !matches!(
            op,
            Op::WriteZeroes {
                deallocate: true,
                ..
            }
        ) {
            self.kept[at].fill(self.clock);
        }
        true
    }

    fn work(&mut self, op: Op, lba: u64, blocks: u32, data: &mut Data) -> Status {
        if self.gone {
            return Status::Gone;
        }
        let block = self.block as usize;
        let range = lba as usize * block..(lba as usize + blocks as usize) * block;
        if range.end > self.bytes.len() {
            return Status::OutOfRange;
        }
        let touched = lba..lba + u64::from(blocks);
        match (op, data) {
            (Op::Read, Data::Read(segments)) => {
                if self.latent.range(touched).next().is_some() {
                    return Status::MediumError;
                }
                let mut from = &self.bytes[range];
                for segment in segments.iter_mut() {
                    let (head, tail) = from.split_at(segment.len());
                    segment.copy_from_slice(head);
                    from = tail;
                }
                Status::Ok
            }
            (Op::Write { .. }, Data::Write(segments)) => {
                if !self.takes(op, touched) {
                    return Status::WriteFault;
                }
                let mut at = range.start;
                for segment in segments.iter() {
                    self.bytes[at..at + segment.len()].copy_from_slice(segment);
                    at += segment.len();
                }
                Status::Ok
            }
            (Op::XdWriteRead { .. }, Data::Read(segments)) => {
                if self.latent.range(touched.clone()).next().is_some() {
                    return Status::MediumError;
                }
                if !self.takes(op, touched) {
                    return Status::WriteFault;
                }
                let mut stored = self.bytes[range].iter_mut();
                for byte in segments.iter_mut().flat_map(|s| s.iter_mut()) {
                    let stored = stored.next().expect("as many as are asked for");
                    (*stored, *byte) = (*byte, *stored ^ *byte);
                }
                Status::Ok
            }
            (Op::XpWrite { .. }, Data::Write(segments)) => {
                if self.latent.range(touched.clone()).next().is_some() {
                    return Status::MediumError;
                }
                if !self.takes(op, touched) {
                    return Status::WriteFault;
                }
                let change = segments.iter().flat_map(|s| s.iter());
                for (stored, change) in self.bytes[range].iter_mut().zip(change) {
                    *stored ^= change;
                }
                Status::Ok
            }
            (Op::WriteZeroes { .. }, Data::None) => {
                if !self.takes(op, touched) {
                    return Status::WriteFault;
                }
                self.bytes[range].fill(0);
                Status::Ok
            }
            (Op::Flush, Data::None) => {
                self.unflushed.clear();
                Status::Ok
            }
            (op, data) => panic!("members are never asked to {op:?} with {data:?}"),
        }
    }
}
