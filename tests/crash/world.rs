//! One life of an array: its disks, the machine that runs it, and the host, from a start to a
//! crash.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc;

use stripewise::bdev::{Completion, Data, Op, Request, Status};
use stripewise::md::member::{write_empty_ppl, zero_superblock};
use stripewise::md::superblock::IN_SYNC;
use stripewise::md::{AreaError, BadBlocks, Member, Role, free_number, join};
use stripewise::memory::{Arena, Pool, Segments, SegmentsMut};
use stripewise::raid::{Control, NewMember, VolumeError, Work};

use crate::disk::{self, Disk, Luck, SECTOR};
use crate::history::{Act, Failure};
use crate::host::{self, Host};
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

/// A host's request in flight.
#[derive(Debug)]
struct Sent {
    op: Op,
    /// Its first sector.
    first: u64,
    /// A look at what a crash has left: what is read must stay.
    look: bool,
}

pub struct World {
    pub random: Random,
    pub shape: Shape,
    pub disks: Vec<Disk>,
    pub machine: Machine,
    pub host: Host,
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

/// Buffers for hosts' requests, for all worlds of a thread.
pub fn payload() -> Pool {
    thread_local! {
        static PAYLOAD: Pool = {
            let arena = Arena::ordinary(1024 * 4096).expect("memory");
            Pool::new(&arena, 4096, 1024).expect("room")
        };
    }
    PAYLOAD.with(Pool::clone)
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

    /// What the disks and the machine say of the array.
    pub fn describe(&self) -> String {
        let (view, slots) = (self.machine.view(), self.machine.slots());
        format!("{}{view:?}\nslots {slots:?}", start::describe(&self.disks))
    }

    fn write(&mut self, lba: u64, blocks: u32, fua: bool) {
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

    fn read(&mut self, lba: u64, blocks: u32, look: bool) {
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

    fn send(&mut self, op: Op, lba: u64, blocks: u32, data: Data, look: bool) {
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

    fn ended(&mut self, completion: Completion) {
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

    fn control(&mut self, control: impl FnOnce(stripewise::raid::Answer) -> Control) {
        let (sender, answer) = mpsc::channel();
        self.answers.push(answer);
        self.machine.control(control(sender), &self.disks);
    }

    /// The member of a slot fails, or is taken out; unless another one is missing.
    fn fail(&mut self, slot: usize, failure: Failure) {
        let whole = self.machine.view().degraded.is_none();
        let Some(disk) = self.machine.slots()[slot].filter(|_| whole) else {
            return;
        };
        if self
            .disks
            .iter()
            .any(|disk| disk.gone || !disk.broken.is_empty())
        {
            return;
        }
        self.away = Some(disk);
        self.was_degraded = true;
        self.quiet = false;
        match failure {
            Failure::Gone => self.disks[disk].gone = true,
            Failure::Worn => self.disks[disk].broken = 0..usize::MAX,
            Failure::Broken => self.disks[disk].broken = self.shape.first_page(),
            Failure::Removed => self.control(|answer| Control::Remove {
                member: disk::name(disk),
                answer,
            }),
        }
    }

    /// The host takes what it is given for what can't be told.
    fn accept(&mut self) {
        let geometry = self.shape.geometry();
        let view = self.machine.view();
        for sector in 0..self.shape.sectors() {
            let place = geometry.place(sector * SECTOR as u64);
            if view.doubtful(geometry.member(place.row, place.role), place.row) {
                self.host.accept(sector);
            }
        }
        self.control(Control::AcceptParity);
    }

    /// The disk that was away comes back, if a slot is free.
    fn bring_back(&mut self) {
        let lost = self.machine.view().lost();
        let used = self.machine.slots();
        let is_free = |at: &usize| lost.is_some() && !used.contains(&Some(*at));
        let Some(at) = self.away.filter(is_free) else {
            return;
        };
        // Whoever pulled it out may have pulled its power, too.
        let luck = self.random.pick(&Luck::ALL);
        let mut disk = self.disks[at].crash(std::iter::empty(), luck, &mut self.random);
        disk.broken = 0..0;
        self.disks[at] = disk;
        let returning = lost.and_then(|lost| self.returning(at, lost));
        self.tally.returned += u64::from(returning.is_some());
        let new = returning.unwrap_or_else(|| self.newcomer(at));
        self.add(at, new);
    }

    /// What becomes of a disk that was the member of a slot, if it lacks only what the bitmap says:
    /// as the control thread has it.
    fn returning(&self, at: usize, slot: usize) -> Option<NewMember> {
        let own = start::member(&self.disks[at])?.superblock;
        let slots = self.machine.slots();
        let others = slots.iter().flatten();
        let others = others.filter_map(|at| start::member(&self.disks[*at]));
        let others: Vec<Member> = others.collect();
        let knows = |other: &Member| {
            let role = own.role_of(other.superblock.dev_number);
            matches!(role, Role::Slot(_) | Role::Spare)
        };
        let cleared = |other: &Member| {
            let header = start::bitmap(other).map(|(header, _)| header);
            header.is_some_and(|h| own.events >= h.events_cleared)
        };
        let whole = own.role() == Role::Slot(slot as u16) && own.recovering().is_none();
        let returns = whole && others.iter().all(knows) && others.iter().all(cleared);
        returns.then(|| NewMember {
            bad_blocks: BadBlocks::for_log(&own.bad_block_log),
            superblock: own,
            returns: true,
        })
    }

    /// What a member says that is there.
    fn other(&self) -> Member {
        let slots = self.machine.slots();
        let mut members = slots.iter().flatten();
        let member = members.find_map(|at| start::member(&self.disks[*at]));
        member.expect("an array has members")
    }

    /// Another disk takes the place of the one that is missing, if one is.
    fn replace(&mut self) {
        if self.machine.view().lost().is_some() {
            let at = self.blank();
            let new = self.newcomer(at);
            self.add(at, new);
        }
    }

    fn add(&mut self, at: usize, new: NewMember) {
        self.quiet = false;
        let bdev = self.disks[at].device(at);
        self.control(|answer| Control::Add {
            bdev,
            metadata: Some(Box::new(new)),
            answer,
        });
    }

    /// Another disk is to take the place of a member that works.
    fn swap(&mut self, slot: usize) {
        let Some(disk) = self.machine.slots()[slot] else {
            return;
        };
        let at = self.blank();
        let new = self.newcomer(at);
        self.quiet = false;
        let bdev = self.disks[at].device(at);
        self.control(|answer| Control::Replace {
            member: disk::name(disk),
            bdev,
            metadata: Some(Box::new(new)),
            answer,
        });
    }

    /// A disk that was never a member.
    fn blank(&mut self) -> usize {
        let at = self.disks.len();
        self.disks.push(self.shape.blank(at));
        at
    }

    /// What becomes of a disk that is to have everything anew.
    fn newcomer(&mut self, at: usize) -> NewMember {
        let other = self.other();
        let taken = |n| matches!(other.superblock.role_of(n), Role::Slot(_));
        let number = free_number(self.shape.members as u32, taken).expect("there are many");
        let header = start::bitmap(&other).map(|(header, _)| header);
        let superblock = join(&other.superblock, header, self.shape.device(at), number);
        let superblock = superblock.expect("it is large enough");
        let disk = &mut self.disks[at];
        let prepared = zero_superblock(disk).map_err(AreaError::from);
        let prepared = prepared.and_then(|_| write_empty_ppl(disk, &superblock));
        prepared.expect("disks can be written");
        NewMember {
            bad_blocks: BadBlocks::for_log(&superblock.bad_block_log),
            superblock,
            returns: false,
        }
    }

    /// On an array that lacks nothing, looks at the disks themselves: everywhere the data that the
    /// host may expect, and parity that adds up.
    pub fn check_disks(&mut self) {
        let view = self.machine.view();
        assert!(view.degraded.is_none() && view.unsynced.is_none());
        let geometry = self.shape.geometry();
        let chunk = self.shape.chunk as usize;
        let slots = self.machine.slots();
        let members = slots.iter().map(|at| {
            let disk = &self.disks[at.expect("lacks nothing")];
            let superblock = start::superblock(disk).expect("a member");
            &disk.content()[superblock.data_offset as usize * SECTOR..]
        });
        let members: Vec<&[u8]> = members.collect();
        let view = view.clone();
        let is_bad = |slot, byte: usize| {
            let sector = byte / SECTOR * SECTOR;
            view.is_bad(slot, sector as u64, (sector + SECTOR) as u64)
        };
        for row in 0..self.shape.rows {
            let start = row as usize * chunk;
            for i in (start..start + chunk).step_by(SECTOR) {
                if (0..members.len()).any(|slot| is_bad(slot, i)) {
                    continue;
                }
                let mut sum = [0; SECTOR];
                for member in &members {
                    add(&mut sum, &member[i..i + SECTOR]);
                }
                assert_eq!(sum, [0; SECTOR], "parity of row {row}, byte {}", i - start);
            }
            for role in 0..geometry.data() {
                let slot = geometry.member(row, role);
                let first = (row * geometry.data() as u64 + role as u64) * (chunk / SECTOR) as u64;
                for (i, sector) in members[slot][start..start + chunk]
                    .chunks(SECTOR)
                    .enumerate()
                {
                    if !is_bad(slot, start + i * SECTOR) {
                        self.host.check(first + i as u64, sector);
                    }
                }
            }
        }
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

/// XOR, word by word, independent of the engine's.
fn add(sum: &mut [u8; SECTOR], bytes: &[u8]) {
    let words = bytes.as_chunks().0.iter().copied().map(u64::from_ne_bytes);
    for (sum, word) in sum.as_chunks_mut().0.iter_mut().zip(words) {
        *sum = (u64::from_ne_bytes(*sum) ^ word).to_ne_bytes();
    }
}
