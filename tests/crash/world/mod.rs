//! One life of an array: its disks, the machine that runs it, and the host, from a start to a
//! crash.

mod contents;
mod operator;
mod requests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;

use stripewise::bdev::{Data, Op};
use stripewise::md::superblock::IN_SYNC;
use stripewise::memory::Pool;
use stripewise::raid::{Control, VolumeError, Work};

use self::requests::{Sent, payload};
use crate::disk::{Disk, Luck};
use crate::history::Act;
use crate::host::Host;
use crate::machine::{Machine, Step};
use crate::random::Random;
use crate::shape::{Consistency, Shape};
use crate::start::{self, StartError};
use crate::tally::Tally;

/// Called before each step that leaves the disks, or what the host knows, another than they were.
/// Says whether to go on.
pub type Watch<'a> = &'a mut dyn FnMut(&World) -> bool;

/// How a machine stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// It and its disks lose their power; each disk with a luck of these.
    Power(&'static [Luck]),
    /// The same; the disks of these bits have the first luck, the others the second.
    Split(u64, [Luck; 2]),
    /// Its process is killed; the disks go on.
    Kill,
}

/// What a crash has left.
#[derive(Clone)]
pub struct Wreck {
    pub shape: Shape,
    pub disks: Vec<Disk>,
    pub host: Host,
    /// Nothing had been written since the array was last said to be clean.
    pub quiet: bool,
    /// The disk of each slot, as far as the machine knew.
    pub slots: Vec<Option<usize>>,
    /// A member was lost, or not in sync, at some time in this life.
    pub was_degraded: bool,
    /// Two were.
    pub was_offline: bool,
}

pub struct World {
    random: Random,
    pub shape: Shape,
    disks: Vec<Disk>,
    pub machine: Machine,
    host: Host,
    pub tally: Tally,
    payload: Pool,
    sent: BTreeMap<u64, Sent>,
    next: u64,
    /// The host was told something since the last step that was watched.
    told: bool,
    /// Nothing was written since the array was last said to be clean.
    quiet: bool,
    /// Rows in which parity did not match for certain when this life began.
    marked: BTreeSet<u64>,
    /// There were bad blocks before this life began, and in it.
    was_bad: bool,
    saw_bad: bool,
    /// Sectors that were refused.
    pub refused: Vec<u64>,
    /// The disk that failed or was removed last.
    away: Option<usize>,
    was_degraded: bool,
    answers: Vec<mpsc::Receiver<Result<(), VolumeError>>>,
}

impl World {
    /// A new array, started for the first time.
    pub fn new(shape: Shape, random: Random) -> Self {
        let wreck = Wreck {
            disks: shape.create(),
            host: Host::new(shape.sectors()),
            quiet: true,
            slots: (0..shape.members).map(Some).collect(),
            was_degraded: false,
            was_offline: false,
            shape,
        };
        Self::restart(wreck, false, random).unwrap_or_else(|why| panic!("{why:?}"))
    }

    /// Starts the array that a crash has left.
    pub fn restart(wreck: Wreck, force: bool, random: Random) -> Result<Self, StartError> {
        let Wreck {
            shape,
            mut disks,
            host,
            quiet,
            ..
        } = wreck;
        let start = start::start(&mut disks, force)?;
        let mut host = host;
        if !shape.logs {
            // It could not be noted, and was accepted.
            start.lost.iter().for_each(|&sector| {
                assert!(
                    host.is_undecided(sector),
                    "sector {sector} is lost without a write"
                );
                host.accept(sector);
            });
        }
        let mut tally = Tally::default();
        tally.started(&start);
        let marked = marked(&shape, &disks);
        let was_bad = start.was_bad;
        let saw_bad = start.assembled.stored.bad_ranges().is_some();
        let was_degraded = start.assembled.view.degraded.is_some();
        let next = 2 + 1_000_000 * host.stops();
        Ok(Self {
            random,
            shape,
            machine: Machine::new(&shape, start, &disks),
            disks,
            host,
            tally,
            payload: payload(),
            sent: BTreeMap::new(),
            next,
            told: true,
            quiet,
            marked,
            was_bad,
            saw_bad,
            refused: Vec::new(),
            away: None,
            was_degraded,
            answers: Vec::new(),
        })
    }

    /// What is left if the machine stops now.
    pub fn stop(&self, stop: Stop, random: &mut Random) -> Wreck {
        let disks = self.disks.iter().enumerate().map(|(at, disk)| {
            let asked = self.machine.asked.iter().filter(|a| a.disk == at);
            let asked = asked.map(|a| &a.request);
            let mut disk = match stop {
                Stop::Power(luck) => disk.crash(asked, random.pick(luck), random),
                Stop::Split(first, luck) => {
                    let second = usize::from(first >> at & 1 == 0);
                    disk.crash(asked, luck[second], random)
                }
                Stop::Kill => disk.abandon(asked, random),
            };
            if !self.shape.logs {
                // Without a log it would cost the member once more.
                disk.broken = 0..0;
            }
            disk
        });
        let disks = disks.collect();
        let mut host = self.host.clone();
        host.stop(stop != Stop::Kill);
        Wreck {
            shape: self.shape,
            disks,
            host,
            quiet: self.quiet,
            slots: self.machine.slots(),
            was_degraded: self.was_degraded,
            was_offline: !self.machine.view().online,
        }
    }

    /// Does these things, one after another. Says whether it has come to the end.
    pub fn run(&mut self, acts: &[Act], watch: Watch) -> bool {
        for &act in acts {
            self.begin(act);
            for steps in 0.. {
                self.hear();
                let waits = self.machine.is_still(&self.disks);
                if !self.machine.ended.is_empty() {
                    continue;
                }
                let waited = matches!(act, Act::Wait(most) if steps >= most);
                if waited || self.is_over(act, waits != Some(false)) {
                    break;
                }
                let ends = waits.is_some() && steps < 100_000;
                assert!(
                    ends,
                    "{act:?} never ends: {}{:?}",
                    self.describe(),
                    self.sent
                );

                if waits == Some(false) && !self.step(watch) {
                    return false;
                }
            }
        }
        true
    }

    fn step(&mut self, watch: Watch) -> bool {
        let step = self.machine.draw(&mut self.random);
        if let Step::Serve(at) = step
            && (self.machine.asked[at].matters() || self.told)
        {
            if !watch(self) {
                return false;
            }
            self.told = false;
        }
        self.machine.take(step, &mut self.disks);
        true
    }

    /// The host hears of its requests that have ended.
    fn hear(&mut self) {
        for completion in std::mem::take(&mut self.machine.ended) {
            self.ended(completion);
        }
    }

    fn begin(&mut self, act: Act) {
        match act {
            Act::Write { lba, blocks, fua } => self.write(lba, blocks, fua),
            Act::Zero { lba, blocks, fua } => {
                let op = Op::WriteZeroes {
                    fua,
                    deallocate: self.random.one_in(2),
                };
                self.send(op, lba, blocks, Data::None, false);
            }
            Act::Flush => self.send(Op::Flush, 0, 0, Data::None, false),
            Act::Fail(slot, failure) => self.fail(slot, failure),
            Act::Return => self.bring_back(),
            Act::Replace => self.replace(),
            Act::Swap(slot) => self.swap(slot),
            Act::Check => self.control(|answer| Control::Start(Work::Check, answer)),
            Act::Close => self.control(Control::Close),
            Act::Accept => self.accept(),
            Act::Read { lba, blocks } => self.read(lba, blocks, false),
            Act::Look { lba, blocks } => self.read(lba, blocks, true),
            Act::Wait(_) | Act::Drain | Act::Noticed | Act::Healthy | Act::Rest | Act::Quiet => {}
        }
    }

    /// Whether an act needs no more steps; `still`, if nothing happens until time passes.
    fn is_over(&mut self, act: Act, still: bool) -> bool {
        let view = self.machine.view();
        if !view.online {
            return self.sent.is_empty();
        }
        match act {
            Act::Drain | Act::Read { .. } | Act::Look { .. } => self.sent.is_empty(),
            Act::Noticed => view.lost().is_some() || view.bad.is_some(),
            Act::Healthy => view.degraded.is_none() && view.unsynced.is_none(),
            Act::Wait(_) => still,
            Act::Rest => still && self.is_at_rest(),
            Act::Quiet => {
                let over = still && self.is_at_rest() && self.is_quiet();
                self.quiet |= over && !self.is_doubtful();
                over
            }
            Act::Close | Act::Accept | Act::Return | Act::Replace | Act::Swap(_) | Act::Check => {
                // Some commands come at a bad time, and are refused.
                self.answers.retain(|answer| answer.try_recv().is_err());
                let over = self.answers.is_empty();
                self.quiet |= over && act == Act::Close && !self.is_doubtful();
                over
            }
            _ => true,
        }
    }

    /// Whether nothing has to be done any more that can be done.
    fn is_at_rest(&self) -> bool {
        let view = self.machine.view();
        let degraded = view.degraded.as_ref();
        let rebuilt = degraded.is_none_or(|d| !d.attached || self.is_doubtful());
        let synced = view.unsynced.is_none() || degraded.is_some();
        let whole = view.replacement.is_none() && rebuilt && synced;
        view.window.is_none() && whole && self.sent.is_empty()
    }

    /// Whether there are blocks that only parity could tell that may not match.
    pub fn is_doubtful(&self) -> bool {
        let view = self.machine.view();
        let degraded = view.degraded.as_ref();
        degraded.is_some_and(|d| (0..self.shape.rows).any(|row| view.doubtful(d.slot, row)))
    }

    /// Whether the disks say that the array is clean; and a healthy one, that its members agree.
    fn is_quiet(&self) -> bool {
        let healthy = self.machine.view().degraded.is_none();
        let doubtful = self.machine.view().unsynced.is_some();
        self.machine.slots().iter().flatten().all(|&at| {
            let member = start::member(&self.disks[at]).expect("a member");
            let marked = start::bitmap(&member).is_some_and(|(_, bits)| !bits.is_empty());
            (member.superblock.resync_offset == IN_SYNC || doubtful) && !(healthy && marked)
        })
    }

    pub fn disks(&self) -> &[Disk] {
        &self.disks
    }

    /// What the disks and the machine say of the array.
    pub fn describe(&self) -> String {
        let (view, slots) = (self.machine.view(), self.machine.slots());
        format!("{}{view:?}\nslots {slots:?}", start::describe(&self.disks))
    }
}

/// The rows that a member has a bit of; all, without a bitmap.
fn marked(shape: &Shape, disks: &[Disk]) -> BTreeSet<u64> {
    let Consistency::Bitmap(bytes) = shape.consistency else {
        return (0..shape.rows).collect();
    };
    let (bytes, chunk) = (u64::from(bytes), u64::from(shape.chunk));
    let bits = disks.iter().filter_map(start::member).flat_map(|member| {
        let bits = start::bitmap(&member).map(|(_, bits)| bits);
        bits.unwrap_or_default()
    });
    let rows = bits.flat_map(|bit| bit * bytes / chunk..=((bit + 1) * bytes - 1) / chunk);
    rows.collect()
}
