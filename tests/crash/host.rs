//! The host's side: what every sector of the volume may hold, by what was sent, acknowledged and
//! forced to the medium.
//!
//! A sector holds a *value*: 0 for zeros, else the number of the write that stored it. Its bytes
//! say value and place over and over, so that torn, misplaced and made-up ones are seen.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::disk::SECTOR;

/// What the volume holds before anybody has written to it.
pub const INITIAL: u64 = 1;
/// Bytes that are repeated.
const PATTERN: usize = 16;
/// Whatever there is: parity was accepted that may not match.
const ANYTHING: u64 = u64::MAX;

/// A write to one sector.
#[derive(Clone, Debug)]
struct Write {
    value: u64,
    /// The request that it is part of; 0 for what was there before.
    request: u64,
    sent: u64,
    /// When it ended, well or not.
    ended: Option<u64>,
    /// It was acknowledged, and no crash has put that in doubt.
    done: bool,
    /// It is durable.
    forced: bool,
}

#[derive(Clone, Debug)]
pub struct Host {
    sectors: Vec<Vec<Write>>,
    /// Writes in flight: their sectors.
    writes: BTreeMap<u64, Range<u64>>,
    /// Flushes in flight: when they were sent.
    flushes: BTreeMap<u64, u64>,
    /// Reads in flight: their first sector, and the values that each may return.
    reads: BTreeMap<u64, (u64, Vec<BTreeSet<u64>>)>,
    clock: u64,
    /// Stops of the machine so far.
    stops: u64,
    /// The last one has left nothing in caches.
    durable: bool,
}

impl Write {
    /// It is over before `later` begins, so that nothing of it is left once `later` is there.
    fn is_under(&self, later: &Write) -> bool {
        self.ended.is_some_and(|end| end < later.sent)
    }
}

/// The bytes of a sector that holds `value`.
pub fn bytes(sector: u64, value: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    if value != 0 {
        bytes[..8].copy_from_slice(&value.to_le_bytes());
        bytes[8..PATTERN].copy_from_slice(&(!sector).to_le_bytes());
        let mut done = PATTERN;
        while done < SECTOR {
            bytes.copy_within(..done, done);
            done *= 2;
        }
    }
    bytes
}

/// The bytes of sectors that hold `value`.
pub fn fill(sectors: Range<u64>, value: u64) -> Vec<u8> {
    let mut all = Vec::new();
    sectors.for_each(|sector| all.extend_from_slice(&bytes(sector, value)));
    all
}

impl Host {
    /// A volume that holds [`INITIAL`] in every sector, for good.
    pub fn new(sectors: u64) -> Self {
        Self {
            sectors: vec![vec![Self::settled(INITIAL)]; sectors as usize],
            writes: BTreeMap::new(),
            flushes: BTreeMap::new(),
            reads: BTreeMap::new(),
            clock: 1,
            stops: 0,
            durable: true,
        }
    }

    fn settled(value: u64) -> Write {
        Write {
            value,
            request: 0,
            sent: 0,
            ended: Some(0),
            done: true,
            forced: true,
        }
    }

    /// Stops of the machine so far.
    pub fn stops(&self) -> u64 {
        self.stops
    }

    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    /// A write, or zeros, was sent.
    pub fn write_sent(&mut self, request: u64, sectors: Range<u64>, value: u64) {
        let sent = self.tick();
        for at in sectors.clone() {
            self.sectors[at as usize].push(Write {
                value,
                request,
                sent,
                ended: None,
                done: false,
                forced: false,
            });
        }
        for (first, values) in self.reads.values_mut() {
            for at in sectors.clone() {
                let at = at.checked_sub(*first).map(|i| i as usize);
                if let Some(values) = at.and_then(|at| values.get_mut(at)) {
                    values.insert(value);
                }
            }
        }
        self.writes.insert(request, sectors);
    }

    /// A write ended: acknowledged, or it may have happened or not. What is forced and
    /// acknowledged is durable.
    pub fn write_ended(&mut self, request: u64, done: bool, forced: bool) {
        let now = self.tick();
        let sectors = self.writes.remove(&request).expect("it was sent");
        for at in sectors {
            let writes = &mut self.sectors[at as usize];
            let write = writes.iter_mut().find(|w| w.request == request);
            let write = write.expect("it was sent");
            write.ended = Some(now);
            write.done = done;
            write.forced = done && forced;
            prune(writes);
        }
    }

    /// A flush was sent.
    pub fn flush_sent(&mut self, request: u64) {
        let now = self.tick();
        self.flushes.insert(request, now);
    }

    /// A flush ended: what was acknowledged before it was sent is durable, if it went well.
    pub fn flush_ended(&mut self, request: u64, done: bool) {
        let sent = self.flushes.remove(&request).expect("it was sent");
        if !done {
            return;
        }
        for writes in &mut self.sectors {
            for write in writes.iter_mut() {
                write.forced |= write.done && write.ended.is_some_and(|end| end < sent);
            }
            prune(writes);
        }
    }

    /// A read was sent.
    pub fn read_sent(&mut self, request: u64, sectors: Range<u64>) {
        let first = sectors.start;
        let values = sectors.map(|at| {
            let writes = &self.sectors[at as usize];
            // What is acknowledged by now is seen, or what comes after it.
            let over = |w: &Write| writes.iter().any(|later| later.done && w.is_under(later));
            let seen = writes.iter().filter(|w| !over(w));
            seen.map(|w| w.value).collect()
        });
        self.reads.insert(request, (first, values.collect()));
    }

    /// A read ended with these bytes, or failed.
    pub fn read_ended(&mut self, request: u64, read: Option<&[u8]>) {
        let (first, values) = self.reads.remove(&request).expect("it was sent");
        let Some(read) = read else { return };
        for ((at, values), sector) in (first..).zip(values).zip(read.chunks_exact(SECTOR)) {
            let Some(value) = self.value(at, sector) else {
                continue;
            };
            let seen = values.contains(&value);
            assert!(
                seen,
                "sector {at} was read as {value}, not one of {values:?}"
            );
        }
    }

    /// The value that these bytes of a sector hold; `None` if it may hold anything.
    fn value(&self, at: u64, bytes: &[u8]) -> Option<u64> {
        let writes = &self.sectors[at as usize];
        if writes.iter().any(|w| w.value == ANYTHING) {
            return None;
        }
        let value = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        let second = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        assert!(
            self::bytes(at, value)[..] == *bytes,
            "sector {at} holds made-up or misplaced bytes: value {value}, sector {}, of {writes:?}",
            !second,
        );
        Some(value)
    }

    /// Whether a write to a sector was under way, or not forced, when the machine stopped.
    pub fn is_undecided(&self, sector: u64) -> bool {
        self.sectors[sector as usize].iter().any(|w| !w.forced)
    }

    /// From now on a sector may hold anything, until it is written.
    pub fn accept(&mut self, sector: u64) {
        self.sectors[sector as usize] = vec![Self::settled(ANYTHING)];
    }

    /// The machine has stopped: nothing is in flight any more. If all have lost their `power`,
    /// nothing is certain but what was forced.
    pub fn stop(&mut self, power: bool) {
        let now = self.tick();
        self.stops += 1;
        self.durable = power;
        for writes in &mut self.sectors {
            for write in writes.iter_mut() {
                write.ended.get_or_insert(now);
                write.done &= write.forced || !power;
            }
            prune(writes);
        }
        self.writes.clear();
        self.flushes.clear();
        self.reads.clear();
    }

    /// Looks at what the volume holds after a stop, before anybody has written to it again. From
    /// now on it must hold that: a stop leaves nothing undecided.
    pub fn check(&mut self, first: u64, read: &[u8]) {
        let now = self.tick();
        for (i, sector) in read.chunks_exact(SECTOR).enumerate() {
            let at = first + i as u64;
            let Some(value) = self.value(at, sector) else {
                continue;
            };
            let writes = &mut self.sectors[at as usize];
            assert!(
                writes.iter().any(|w| w.value == value),
                "sector {at} holds {value}, of {writes:?}"
            );
            assert!(writes.iter().all(|w| w.ended.is_some()), "nobody writes");
            if self.durable {
                *writes = vec![Self::settled(value)];
            } else {
                // Another may still come out of a cache.
                writes.push(Write {
                    sent: now,
                    ended: Some(now),
                    forced: false,
                    ..Self::settled(value)
                });
            }
        }
    }
}

/// Forgets what is overwritten for good.
fn prune(writes: &mut Vec<Write>) {
    let forced: Vec<u64> = writes.iter().filter(|w| w.forced).map(|w| w.sent).collect();
    let Some(last) = forced.into_iter().max() else {
        return;
    };
    writes.retain(|w| w.ended.is_none_or(|end| end >= last));
}
