//! The host's side: what every sector of the volume may hold, by what was sent, acknowledged and
//! forced to the medium.
//!
//! A sector holds a *value*: 0 for zeros, else the number of the write that stored it. Its bytes
//! say value and place over and over, so that torn, misplaced and made-up ones are seen.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::disk::SECTOR;

/// What the volume holds before anybody has written to it.
pub const INITIAL: u64 = 1;
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
    /// Reads and flushes in flight: when they were sent.
    others: BTreeMap<u64, u64>,
    clock: u64,
    crashes: u64,
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
        for (i, word) in bytes.chunks_exact_mut(8).enumerate() {
            let says = if i % 2 == 0 { value } else { !sector };
            word.copy_from_slice(&says.to_le_bytes());
        }
    }
    bytes
}

impl Host {
    /// A volume that holds [`INITIAL`] in every sector, for good.
    pub fn new(sectors: u64) -> Self {
        Self {
            sectors: vec![vec![Self::settled(INITIAL)]; sectors as usize],
            writes: BTreeMap::new(),
            others: BTreeMap::new(),
            clock: 1,
            crashes: 0,
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

    /// Crashes so far.
    pub fn crashes(&self) -> u64 {
        self.crashes
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

    /// A read or a flush was sent.
    pub fn sent(&mut self, request: u64) {
        let now = self.tick();
        self.others.insert(request, now);
    }

    /// A flush ended: what was acknowledged before it was sent is durable, if it went well.
    pub fn flush_ended(&mut self, request: u64, done: bool) {
        let sent = self.others.remove(&request).expect("it was sent");
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

    /// A read ended with these bytes from `first` on, or failed.
    pub fn read_ended(&mut self, request: u64, first: u64, read: Option<&[u8]>) {
        let sent = self.others.remove(&request).expect("it was sent");
        let Some(read) = read else { return };
        for (i, sector) in read.chunks_exact(SECTOR).enumerate() {
            let at = first + i as u64;
            let Some(value) = self.value(at, sector) else {
                continue;
            };
            let writes = &self.sectors[at as usize];
            // What was acknowledged when the read was sent is seen, or what came after it.
            let settled = |w: &&Write| w.done && w.ended.is_some_and(|end| end < sent);
            let over = |w: &Write| writes.iter().filter(settled).any(|l| w.is_under(l));
            let may = writes.iter().any(|w| w.value == value && !over(w));
            assert!(may, "sector {at} was read as {value}, of {writes:?}");
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

    /// From now on a sector may hold anything, until it is written.
    pub fn accept(&mut self, sector: u64) {
        self.sectors[sector as usize] = vec![Self::settled(ANYTHING)];
    }

    /// The machine has stopped: nothing is in flight any more, and nothing is certain but what was
    /// forced.
    pub fn crash(&mut self) {
        let now = self.tick();
        self.crashes += 1;
        for writes in &mut self.sectors {
            for write in writes.iter_mut() {
                write.ended.get_or_insert(now);
                write.done &= write.forced;
            }
            prune(writes);
        }
        self.writes.clear();
        self.others.clear();
    }

    /// Looks at what the volume holds after a crash, before anybody has written to it again. From
    /// now on it must hold that: a crash leaves nothing undecided.
    pub fn check(&mut self, first: u64, read: &[u8]) {
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
            *writes = vec![Self::settled(value)];
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
