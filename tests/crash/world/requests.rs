//! The host's requests, and whether they end as they may.

use stripewise::bdev::{Completion, Data, Op, Request, Status};
use stripewise::memory::{Arena, Pool, Segments, SegmentsMut};

use super::World;
use crate::disk::SECTOR;
use crate::host;
use crate::shape::Consistency;

/// A host's request in flight.
#[derive(Debug)]
pub(super) struct Sent {
    op: Op,
    /// Its first sector.
    first: u64,
    /// A look at what a crash has left: what is read must stay.
    look: bool,
}

/// Buffers for hosts' requests, for all worlds of a thread.
pub(super) fn payload() -> Pool {
    thread_local! {
        static PAYLOAD: Pool = {
            let arena = Arena::ordinary(1024 * 4096).expect("memory");
            Pool::new(&arena, 4096, 1024).expect("room")
        };
    }
    PAYLOAD.with(Pool::clone)
}

impl World {
    pub(super) fn write(&mut self, lba: u64, blocks: u32, fua: bool) {
        let per_block = u64::from(self.shape.block) / SECTOR as u64;
        let sectors = lba * per_block..(lba + u64::from(blocks)) * per_block;
        let value = self.next;
        let contents = host::fill(sectors, value);
        let mut contents = &contents[..];
        let mut buffers = self.buffers(blocks);
        for buffer in &mut buffers {
            let (head, tail) = contents.split_at(buffer.len());
            buffer.copy_from_slice(head);
            contents = tail;
        }
        let segments: Segments = buffers.into_iter().map(|b| b.freeze()).collect();
        self.send(Op::Write { fua }, lba, blocks, Data::Write(segments), false);
    }

    pub(super) fn read(&mut self, lba: u64, blocks: u32, look: bool) {
        let buffers = self.buffers(blocks);
        self.send(Op::Read, lba, blocks, Data::Read(buffers), look);
    }

    fn buffers(&self, blocks: u32) -> SegmentsMut {
        let mut left = (blocks * self.shape.block) as usize;
        let mut all = SegmentsMut::new();
        while left > 0 {
            let mut buffer = self.payload.take().expect("few requests are in flight");
            buffer.truncate(left.min(4096));
            left -= buffer.len();
            all.push(buffer);
        }
        all
    }

    pub(super) fn send(&mut self, op: Op, lba: u64, blocks: u32, data: Data, look: bool) {
        let token = self.next;
        self.next += 1;
        let per_block = u64::from(self.shape.block) / SECTOR as u64;
        let first = lba * per_block;
        let sectors = first..first + u64::from(blocks) * per_block;
        if op.modifies() {
            self.quiet = false;
            let value = match op {
                Op::WriteZeroes { .. } => 0,
                _ => token,
            };
            self.host.write_sent(token, sectors, value);
        } else if op == Op::Flush {
            self.host.flush_sent(token);
        } else {
            self.host.read_sent(token, sectors);
        }
        self.sent.insert(token, Sent { op, first, look });
        let node = self.random.below(self.machine.nodes() as u64) as usize;
        let request = Request {
            token,
            op,
            lba,
            blocks,
            data,
        };
        self.machine.submit(node, request, &self.disks);
    }

    pub(super) fn ended(&mut self, completion: Completion) {
        let Completion {
            token,
            status,
            data,
        } = completion;
        let Sent { op, first, look } = self.sent.remove(&token).expect("it was sent");
        let done = status == Status::Ok;
        self.told = true;
        self.tally.failed += u64::from(!done);
        self.saw_bad |= self.machine.view().bad.is_some();
        let view = self.machine.view();
        let fair = match status {
            Status::Ok => true,
            Status::MediumError => self.is_doubtful() || self.saw_bad,
            // Two members can't store it, or what they stored can't be told.
            Status::WriteFault => self.disks.iter().any(|disk| !disk.broken.is_empty()),
            Status::Offline => !view.online,
            _ => false,
        };
        assert!(
            fair,
            "{op:?} of sector {first} ended with {status}: {}",
            self.describe()
        );
        match (op, data) {
            (Op::Flush, _) => self.host.flush_ended(token, done),
            (Op::Read, Data::Read(segments)) => {
                let mut bytes = Vec::new();
                segments.iter().for_each(|s| bytes.extend_from_slice(s));
                self.host.read_ended(token, done.then_some(&bytes));
                if look && done {
                    self.host.check(first, &bytes);
                } else if look {
                    self.refuse(first, bytes.len() / SECTOR);
                }
            }
            _ => self.host.write_ended(token, done, op.is_fua()),
        }
    }

    /// These sectors could not be read.
    fn refuse(&mut self, first: u64, sectors: usize) {
        if sectors * SECTOR > self.shape.block as usize {
            let per_block = u64::from(self.shape.block) / SECTOR as u64;
            let lba = first / per_block;
            let blocks = (sectors * SECTOR) as u64 / u64::from(self.shape.block);
            (lba..lba + blocks).for_each(|lba| self.read(lba, 1, true));
            return;
        }
        assert!(
            self.may_refuse(first),
            "sector {first} is refused without need"
        );
        let owed = self.shape.owes && self.is_doubtful();
        if matches!(self.shape.consistency, Consistency::Ppl(_)) && !self.was_bad && !owed {
            // Without bad blocks from before it could only be lost where somebody wrote.
            let mut all = first..first + sectors as u64;
            let written = all.any(|at| self.host.is_undecided(at));
            assert!(written, "sector {first} is lost, and nobody wrote there");
        }
        self.tally.refused += 1;
        self.refused.extend(first..first + sectors as u64);
    }

    /// Whether there is a reason why a sector can't be told.
    fn may_refuse(&self, sector: u64) -> bool {
        let geometry = self.shape.geometry();
        let place = geometry.place(sector * SECTOR as u64);
        let slot = geometry.member(place.row, place.role);
        let (row, chunk) = (place.row, u64::from(self.shape.chunk));
        let view = self.machine.view();
        let doubtful = view.doubtful(slot, row) && self.marked.contains(&row);
        // Known not to be on its member, or missing with it, and parity or another one is, too.
        let lacks = |slot| {
            let bad = view.is_bad(slot, row * chunk, (row + 1) * chunk);
            bad || !view.readable(slot, row)
        };
        let lacking = (0..self.shape.members).filter(|&slot| lacks(slot)).count();
        doubtful || (lacks(slot) && lacking > 1)
    }
}
