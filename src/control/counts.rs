//! What went through devices, and from when on that is counted.

use std::collections::BTreeMap;

use super::system::System;
use crate::bdev::IoStat;
use crate::nvmf::Latencies;
use crate::reactor::{ReactorId, Reactors};

/// What went through a device on one reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCounts {
    /// The device.
    pub device: String,
    /// The reactor.
    pub reactor: ReactorId,
    /// The counts.
    pub stat: IoStat,
    /// How long hosts' commands were with it, if it is exported.
    pub latencies: Latencies,
}

/// What is to be forgotten of counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// Everything.
    All,
    /// The longest and shortest latencies.
    Extremes,
    /// The errors.
    Errors,
}

/// What was counted when counts were to be forgotten. Reactors count on: whoever counts I/O has
/// nothing else to do.
#[derive(Debug, Default)]
pub(super) struct Resets(BTreeMap<(String, ReactorId), IoStat>);

impl System {
    /// What went through each device on each reactor, since it was opened there or its counts were
    /// forgotten. Waits for reactors.
    pub fn iostat(&mut self) -> Vec<DeviceCounts> {
        let mut all = self.counted();
        for counts in &mut all {
            let key = (counts.device.clone(), counts.reactor);
            let Some(before) = self.resets.0.get(&key) else {
                continue;
            };
            match counts.stat.since(before) {
                Some(since) => counts.stat = since,
                // It was opened anew.
                None => drop(self.resets.0.remove(&key)),
            }
        }
        all
    }

    /// Forgets counts of these devices. Waits for reactors.
    pub fn reset_counts(&mut self, devices: &[String], what: Reset) {
        let is_asked = |c: &DeviceCounts| devices.contains(&c.device);
        for counts in self.counted().into_iter().filter(is_asked) {
            let before = self.resets.0.entry((counts.device, counts.reactor));
            match what {
                Reset::All => *before.or_default() = counts.stat,
                Reset::Errors => before.or_default().num_errors = counts.stat.num_errors,
                Reset::Extremes => {}
            }
        }
        if what != Reset::Errors {
            for device in devices {
                let all = what == Reset::All;
                self.target.reset_latencies(device, all);
            }
        }
    }

    /// What reactors have counted.
    fn counted(&mut self) -> Vec<DeviceCounts> {
        let reactors = self.reactors.as_ref().map(Reactors::ids);
        let ids: BTreeMap<String, ReactorId> = reactors
            .into_iter()
            .flatten()
            .map(|id| (id.to_string(), id))
            .collect();
        let groups = self.target.stats();
        let counts = groups.into_iter().filter_map(|group| {
            let reactor = *ids.get(&group.name)?;
            let mut latencies: BTreeMap<String, Latencies> = group.latencies.into_iter().collect();
            let devices = group.devices.into_iter();
            Some(devices.map(move |(device, stat)| DeviceCounts {
                latencies: latencies.remove(&device).unwrap_or_default(),
                device,
                reactor,
                stat,
            }))
        });
        counts.flatten().collect()
    }
}
