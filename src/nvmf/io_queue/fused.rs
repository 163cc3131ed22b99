//! Fused pairs: a Compare and the Write behind it, which is done only where the Compare is true.

use super::{
    Action, Carriage, Cuts, Data, Devices, IoQueue, MemoryNeed, Op, Outcome, SlotId, State, Status,
    Work,
};
use crate::memory::SegmentsMut;
use crate::nvme::Fuse;
use crate::nvmf::view::NamespaceBlocks;

/// What the last command arrived means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fusing {
    /// Nothing.
    No,
    /// It was a first half: the next must be its second.
    Waiting(SlotId),
    /// It was a first half that was refused.
    Refused,
}

/// What a command is to do, if it may.
type Examined = Result<(Work, Carriage, NamespaceBlocks), Status>;

impl IoQueue {
    /// A command has come behind another: ends a first half that stays alone. Gives the first half of the pair that
    /// this command completes.
    ///
    /// # Errors
    /// The status with which this command is refused, because it is no second half of what came before.
    pub(super) fn meet(
        &mut self,
        fuse: Fuse,
        examined: &Examined,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) -> Result<Option<SlotId>, Status> {
        let before = std::mem::replace(&mut self.fusing, Fusing::No);
        match (fuse, before) {
            (Fuse::Second, Fusing::No) => Err(Status::ABORTED_MISSING_FUSED),
            (Fuse::Second, Fusing::Refused) => Err(Status::ABORTED_FAILED_FUSED),
            (Fuse::Second, Fusing::Waiting(first)) => {
                let verdict = match examined {
                    Err(status) => Err((Status::ABORTED_FAILED_FUSED, *status)),
                    Ok((work, _, on)) => {
                        let half = self.must(first);
                        let status = Status::INVALID_FIELD.with_do_not_retry();
                        (half.on.nsid == on.nsid && half.work.range == work.range)
                            .then_some(())
                            .ok_or((status, status))
                    }
                };
                match verdict {
                    Ok(()) => Ok(Some(first)),
                    Err((of_first, of_second)) => {
                        self.doom(first, of_first, devices, out);
                        Err(of_second)
                    }
                }
            }
            (_, Fusing::Waiting(first)) => {
                self.doom(first, Status::ABORTED_MISSING_FUSED, devices, out);
                Ok(None)
            }
            (_, Fusing::No | Fusing::Refused) => Ok(None),
        }
    }

    /// The block of half of a fused pair has come. If the pair is complete with it, says which
    /// command is to be launched with which memory.
    pub fn half(
        &mut self,
        slot: SlotId,
        block: Vec<u8>,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) -> Option<(SlotId, MemoryNeed)> {
        let job = self.must(slot);
        if let Some(status) = job.doom {
            self.end(slot, status, SegmentsMut::new(), devices, out);
            return None;
        }
        let bytes = 2 * block.len();
        job.half = block;
        job.state = State::Parked;
        let mate = job.mate?;
        let first = match job.work.fuse {
            Fuse::First => slot,
            _ => mate,
        };
        if self.must(mate).state != State::Parked {
            return None;
        }
        self.must(first).state = State::Held;
        let need = MemoryNeed {
            bytes,
            cuts: Cuts::NONE,
            from_host: 0,
            carriage: Carriage::Transport,
        };
        Some((first, need))
    }

    /// A command has come that is not executed here: a first half before it stays alone.
    pub fn pass(&mut self, devices: &mut Devices, out: &mut Vec<Outcome>) {
        if let Fusing::Waiting(first) = std::mem::replace(&mut self.fusing, Fusing::No) {
            self.doom(first, Status::ABORTED_MISSING_FUSED, devices, out);
        }
    }

    pub(super) fn start_pair(
        &mut self,
        first: SlotId,
        second: SlotId,
        mut memory: SegmentsMut,
        devices: &mut Devices,
    ) {
        let job = self.must(second);
        let written = std::mem::take(&mut job.half);
        let Action::Write { fua } = job.work.action else {
            unreachable!("a second half is a Write");
        };
        let job = self.must(first);
        let (device, range) = (job.on.device, job.work.range);
        let mut bytes = std::mem::take(&mut job.half);
        bytes.extend(written);
        let mut rest = &bytes[..];
        for buffer in &mut memory {
            let (here, behind) = rest.split_at(buffer.len());
            buffer.copy_from_slice(here);
            rest = behind;
        }
        let data = memory.into_iter().map(|buffer| buffer.freeze()).collect();
        self.run(second, devices);
        self.run(first, devices);
        let op = Op::CompareAndWrite { fua };
        let data = Data::Write(data);
        self.submit(first, device, op, range.slba, range.blocks, data, devices);
    }

    /// The command has failed: so has the other half, or the one that is still to come.
    pub(super) fn part_from_mate(
        &mut self,
        slot: SlotId,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) {
        if self.fusing == Fusing::Waiting(slot) {
            self.fusing = Fusing::Refused;
        }
        if let Some(mate) = self.must(slot).mate.take() {
            self.must(mate).mate = None;
            self.doom(mate, Status::ABORTED_FAILED_FUSED, devices, out);
        }
    }
}
