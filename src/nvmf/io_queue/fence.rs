//! What reservations keep the host of a queue from.

use super::{Devices, FenceChange, IoQueue, Job, Outcome, SlotId, State, Status, Work};

impl IoQueue {
    /// What keeps hosts from a namespace has changed. Commands that are not with the device yet and may
    /// not go there any more end as soon as they can, and so does what is left of those that are. Says whether commands that are with the device
    /// have to end before the change is complete; see [`IoQueue::has_preempted`].
    pub fn set_fence(
        &mut self,
        change: &FenceChange,
        devices: &mut Devices,
        out: &mut Vec<Outcome>,
    ) -> bool {
        let nsid = change.nsid;
        self.bars.retain(|(of, _)| *of != nsid);
        let bars = change.fence.as_ref().and_then(|f| f.bars(&self.host));
        self.bars.extend(bars.map(|bars| (nsid, bars)));
        let aborted = change.aborted.contains(&self.host);
        let refuse = |job: &Job| bars.is_some_and(|b| b.refuse(job.work.command_group));
        let mut shut_out = None;
        for index in 0..self.jobs.len() {
            let Some(job) = &self.jobs[index] else {
                continue;
            };
            if job.on.nsid != nsid {
                continue;
            }
            let is_running = job.state == State::Running;
            // The request of a fused pair is that of its first half, which alone might be let through.
            let mate = job.mate.filter(|_| is_running);
            let mate = mate.and_then(|mate| self.jobs[mate.index()].as_ref());
            let status = if aborted {
                Status::ABORTED_PREEMPT
            } else if refuse(job) || mate.is_some_and(refuse) {
                Status::RESERVATION_CONFLICT
            } else {
                continue;
            };
            let (slot, status) = (SlotId(index as u16), status.with_do_not_retry());
            if !is_running {
                self.doom(slot, status, devices, out);
                continue;
            }
            let job = self.must(slot);
            job.preempted |= aborted;
            job.shut_out = Some(status);
            job.cut_short |= !job.ranges.is_empty();
            job.ranges.clear();
            shut_out = Some(job.on.device);
        }
        if let Some(device) = shut_out {
            let jobs = &self.jobs;
            devices.withdraw_from(device, |token| {
                let job = jobs.get(token.slot.index()).and_then(Option::as_ref);
                let is_meant = |job: &Job| job.on.nsid == nsid && job.shut_out.is_some();
                token.origin == self.origin && job.is_some_and(is_meant)
            });
        }
        self.has_preempted(nsid)
    }

    /// Whether commands of a host that was preempted are still with the device.
    pub fn has_preempted(&self, nsid: u32) -> bool {
        let mut jobs = self.jobs.iter().flatten();
        jobs.any(|job| job.preempted && job.on.nsid == nsid)
    }

    pub(super) fn is_barred(&self, nsid: u32, work: &Work) -> bool {
        let mut bars = self.bars.iter();
        bars.any(|&(of, bars)| of == nsid && bars.refuse(work.command_group))
    }
}
