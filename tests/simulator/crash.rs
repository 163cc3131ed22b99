//! What would be found if the power went now: after every write that a member serves, and in the
//! middle of those to a partial parity log.
//!
//! The log is replayed by the kernel's rules (`replay.rs`) on a copy of the rows in question. Then
//! parity must match, whatever of the members' caches had reached the medium. And without a member,
//! each of its blocks must hold what a host may find there, unless it was just being written.

use std::collections::BTreeSet;

use stripewise::bdev::{Data, Op, Request};
use stripewise::md::{BadBlocks, Features, Role, Superblock};
use stripewise::xor;

use crate::replay::{Entry, newest};
use crate::world::{Faults, World};

/// What a request that is about to be served touches.
#[derive(Debug, Default)]
pub struct Touched {
    rows: BTreeSet<u64>,
    /// The disk whose log is written.
    log: Option<usize>,
}

/// Which of the bytes that a member has taken are on its medium.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Medium {
    All,
    /// Of each member all, or only what was forced.
    Some(u64),
}

/// The members of a row, as whoever assembled them would have it.
struct Members {
    /// The disk of each slot, where it would be taken for in sync.
    disks: Vec<Option<usize>>,
    /// What each of these is known not to hold.
    bad: Vec<Option<BadBlocks>>,
}

impl World {
    /// Looks at a request; one to a log is torn in several ways, and what is then found is checked.
    pub fn before_serving(&mut self, disk: usize, request: &Request) -> Touched {
        let mut touched = Touched::default();
        let Some(logged) = &self.logged else {
            return touched;
        };
        // Parity that does not match to begin with is another matter.
        if self.faults == Faults::Parity {
            return touched;
        }
        if !request.op.modifies() || self.disks[disk].gone || !self.is_online() {
            return touched;
        }
        let block = u64::from(self.block);
        let at = request.lba * block;
        let end = at + u64::from(request.blocks) * block;
        if at >= self.data {
            let chunk = u64::from(self.geometry.chunk_bytes());
            touched.rows = ((at - self.data) / chunk..(end - self.data).div_ceil(chunk)).collect();
            return touched;
        }
        let area = logged.area();
        if !area.contains(&(at as usize)) {
            return touched;
        }
        assert!(
            end as usize <= area.end,
            "a log is written behind its end: {at}..{end}"
        );
        assert_eq!(request.op, Op::Write { fua: true }, "a log is forced");
        touched.log = Some(disk);
        let Data::Write(segments) = &request.data else {
            unreachable!("a write has data");
        };
        let new = segments.iter().map(|s| &s[..]).collect::<Vec<_>>().concat();
        let signature = logged.signature();
        let from = at as usize - area.start;
        for _ in 0..2 {
            let mut torn = self.disks[disk].bytes[area.clone()].to_vec();
            // A few sectors, about half, or all but a few.
            let share = 1 + self.random.below(7);
            for (sector, bytes) in new.chunks(512).enumerate() {
                if self.random.below(8) < share {
                    torn[from + sector * 512..][..512].copy_from_slice(bytes);
                }
            }
            let entries = newest(&torn, signature);
            self.check_log(disk, &entries.unwrap_or_default());
        }
        touched
    }

    /// Looks at what was touched.
    pub fn after_serving(&mut self, touched: Touched) {
        if !self.is_online() {
            return;
        }
        for row in touched.rows {
            let members = self.members(row);
            let slot = self.geometry.parity_member(row);
            let entries = members.disks[slot].map(|disk| self.entries(disk));
            self.check_row(row, &members, &entries.unwrap_or_default());
        }
        if let Some(disk) = touched.log {
            let entries = self.entries(disk);
            self.check_log(disk, &entries);
        }
    }

    fn is_online(&self) -> bool {
        self.nodes.iter().all(|node| node.view().online)
    }

    /// The entries of the newest header on a disk.
    fn entries(&self, disk: usize) -> Vec<Entry> {
        let logged = self.logged.as_ref().expect("only with logs");
        let area = &self.disks[disk].bytes[logged.area()];
        newest(area, logged.signature()).unwrap_or_default()
    }

    /// Checks the rows that a log speaks of, and those that need it to.
    fn check_log(&mut self, disk: usize, entries: &[Entry]) {
        let mut rows: BTreeSet<u64> = entries.iter().map(|e| e.row(&self.geometry)).collect();
        rows.extend(&self.unequal);
        for row in rows {
            let members = self.members(row);
            let slot = self.geometry.parity_member(row);
            if members.disks[slot] == Some(disk) {
                self.check_row(row, &members, entries);
            }
        }
    }

    /// Who would be taken for a member in sync in a row.
    fn members(&self, row: u64) -> Members {
        let logged = self.logged.as_ref().expect("only with logs");
        let open = self.open.iter().flatten().flatten().copied();
        let open: BTreeSet<usize> = open.filter(|&disk| !self.disks[disk].gone).collect();
        let found: Vec<(usize, Superblock)> = open
            .into_iter()
            .map(|disk| (disk, logged.read(&self.disks[disk])))
            .collect();
        let freshest = found.iter().max_by_key(|(_, s)| s.events);
        let (_, freshest) = freshest.expect("somebody is there");
        let sector = row * u64::from(self.geometry.chunk_bytes() / 512);
        let member = |slot: usize| {
            let fits = |(_, own): &&(usize, Superblock)| {
                // Others' superblocks may be there a little before its own.
                let fresh = own.events + 1 >= freshest.events;
                let role = freshest.roles.get(own.dev_number as usize);
                let whole = !own.features.contains(Features::RECOVERY_OFFSET)
                    || sector < own.recovery_offset;
                let original = !own.features.contains(Features::REPLACEMENT);
                // Who calls itself spare is one, though others may say already whom it is to replace.
                let same = own.role() == Role::Slot(slot as u16);
                fresh && whole && original && same && role == Some(&(slot as u16))
            };
            let mut all = found.iter().filter(fits);
            let one = all.next();
            assert!(all.next().is_none(), "slot {slot} has two members");
            one
        };
        let (disks, bad) = (0..self.geometry.members())
            .map(|slot| match member(slot) {
                Some((disk, superblock)) => (Some(*disk), self.bad_blocks(*disk, superblock)),
                None => (None, None),
            })
            .unzip();
        Members { disks, bad }
    }

    fn bad_blocks(&self, disk: usize, superblock: &Superblock) -> Option<BadBlocks> {
        let log = &superblock.bad_block_log;
        let has = superblock.features.contains(Features::BAD_BLOCKS);
        has.then(|| {
            let sector = superblock
                .super_offset
                .saturating_add_signed(log.offset.into());
            let bytes = &self.disks[disk].bytes[sector as usize * 512..];
            let bytes = &bytes[..usize::from(log.size) * 512];
            BadBlocks::parse(log, bytes).expect("a log")
        })
    }

    /// What the members have of a row. Nothing of one that is not in sync.
    fn chunks(&self, row: u64, members: &Members, medium: Medium) -> Vec<Vec<u8>> {
        let chunk = self.geometry.chunk_bytes() as usize;
        let start = self.data as usize + row as usize * chunk;
        let block = self.block as usize;
        let of = |(slot, disk): (usize, &Option<usize>)| {
            let Some(disk) = disk else {
                return vec![0; chunk];
            };
            let disk = &self.disks[*disk];
            let mut bytes = disk.bytes[start..start + chunk].to_vec();
            if matches!(medium, Medium::Some(kept) if kept & (1 << slot) == 0) {
                let blocks = (start / block) as u64..((start + chunk) / block) as u64;
                for (number, old) in disk.unflushed.range(blocks) {
                    let at = *number as usize * block - start;
                    bytes[at..at + block].copy_from_slice(old);
                }
            }
            bytes
        };
        members.disks.iter().enumerate().map(of).collect()
    }

    /// Checks one row, after a crash, and after one with the loss of a member.
    fn check_row(&mut self, row: u64, members: &Members, entries: &[Entry]) {
        let entries = entries.iter().filter(|e| e.row(&self.geometry) == row);
        let entries: Vec<_> = entries.collect();
        let slots = 0..members.disks.len();
        let missing: Vec<_> = slots.filter(|&s| members.disks[s].is_none()).collect();
        let all = self.chunks(row, members, Medium::All);
        match missing[..] {
            [] => {
                let pages = 0..self.geometry.stripes_per_row();
                let mut pages = pages.map(|page| self.bytes_of(page));
                let equal = pages.all(|page| sums_to_zero(&all, page).is_ok());
                match equal {
                    true => self.unequal.remove(&row),
                    false => self.unequal.insert(row),
                };
                self.check_with(row, members, &entries, all.clone(), None);
                let kept = self.random.next();
                let mut some = self.chunks(row, members, Medium::Some(kept));
                if some != all {
                    self.replay(row, members, &entries, &mut some, None);
                    self.check_parity(row, members, &entries, &some);
                }
                let lost = self.random.below(members.disks.len() as u64) as usize;
                self.check_with(row, members, &entries, all, Some(lost));
            }
            [lost] => self.check_with(row, members, &entries, all, Some(lost)),
            _ => {}
        }
    }

    /// The bytes of a chunk that belong to a stripe, by its place in the row.
    fn bytes_of(&self, page: u64) -> std::ops::Range<usize> {
        let bytes = self.geometry.stripe_bytes() as usize;
        page as usize * bytes..(page as usize + 1) * bytes
    }

    /// The slots whose members are known not to hold a page of a row.
    fn bad_in(&self, row: u64, members: &Members, page: u64) -> Vec<usize> {
        let stripe = row * self.geometry.stripes_per_row() + page;
        let start = (self.data + self.geometry.member_offset(stripe)) / 512;
        let sectors = start..start + u64::from(self.geometry.stripe_bytes() / 512);
        let is_bad = |bad: &Option<BadBlocks>| {
            bad.as_ref()
                .is_some_and(|bad| bad.overlaps(sectors.clone()))
        };
        let bad = members.bad.iter().enumerate();
        bad.filter(|(_, bad)| is_bad(bad)).map(|(s, _)| s).collect()
    }

    /// Replays entries on a row, without what is lost or known to be bad.
    fn replay(
        &self,
        row: u64,
        members: &Members,
        entries: &[&Entry],
        chunks: &mut [Vec<u8>],
        lost: Option<usize>,
    ) {
        let pages = 0..self.geometry.stripes_per_row();
        let bad: Vec<_> = pages.map(|page| self.bad_in(row, members, page)).collect();
        let stripe = self.geometry.stripe_bytes() as usize;
        let lacks =
            |slot: usize, within: usize| lost == Some(slot) || bad[within / stripe].contains(&slot);
        for entry in entries {
            entry.replay(&self.geometry, chunks, &lacks);
        }
    }

    /// Whether parity matches now that the log is replayed.
    fn check_parity(&self, row: u64, members: &Members, entries: &[&Entry], chunks: &[Vec<u8>]) {
        for page in 0..self.geometry.stripes_per_row() {
            if self.bad_in(row, members, page).is_empty() {
                sums_to_zero(chunks, self.bytes_of(page)).unwrap_or_else(|at| {
                    panic!("parity of row {row} would not match at byte {at}: {entries:?}")
                });
            }
        }
    }

    /// Whether it does after a replay, and whether what is known not to be held anywhere, or was on
    /// a lost member, is what it should be.
    fn check_with(
        &self,
        row: u64,
        members: &Members,
        entries: &[&Entry],
        mut chunks: Vec<Vec<u8>>,
        lost: Option<usize>,
    ) {
        self.replay(row, members, entries, &mut chunks, lost);
        if lost.is_none() {
            self.check_parity(row, members, entries, &chunks);
        }
        for page in 0..self.geometry.stripes_per_row() {
            let mut unknown = self.bad_in(row, members, page);
            unknown.extend(lost);
            if let [slot] = unknown[..] {
                self.check_computed(row, page, &chunks, slot, entries);
            }
        }
    }

    fn check_computed(
        &self,
        row: u64,
        page: u64,
        chunks: &[Vec<u8>],
        slot: usize,
        entries: &[&Entry],
    ) {
        let role = self.geometry.role(row, slot);
        if role == self.geometry.data() {
            return;
        }
        let bytes = self.bytes_of(page);
        let others = chunks
            .iter()
            .enumerate()
            .filter(|(other, _)| *other != slot);
        let others: Vec<&[u8]> = others.map(|(_, chunk)| &chunk[bytes.clone()]).collect();
        let mut computed = vec![0; bytes.len()];
        xor::xor_into(&mut computed, &others);
        let block = self.block as usize;
        let chunk = u64::from(self.geometry.chunk_bytes());
        let start = (row * self.geometry.data() as u64 + role as u64) * chunk;
        for (at, computed) in computed.chunks_exact(block).enumerate() {
            let within = bytes.start + at * block;
            let lba = (start + within as u64) / block as u64;
            let given_up = |e: &&Entry| e.gives_up(&self.geometry, slot, within);
            assert!(
                self.model.is_written(lba) || !entries.iter().any(given_up),
                "block {lba} (row {row}, slot {slot}) would be given up: {entries:?}"
            );
            assert!(
                self.model.allows(lba, computed),
                "block {lba} (row {row}, slot {slot}) would be lost: {entries:?}"
            );
        }
    }
}

/// Whether the members of a row add up to nothing; else the first byte where they do not.
fn sums_to_zero(chunks: &[Vec<u8>], bytes: std::ops::Range<usize>) -> Result<(), usize> {
    let mut sum = vec![0u8; bytes.len()];
    let all: Vec<&[u8]> = chunks.iter().map(|chunk| &chunk[bytes.clone()]).collect();
    xor::xor_into(&mut sum, &all);
    match xor::is_zero(&sum) {
        true => Ok(()),
        false => Err(bytes.start + sum.iter().position(|byte| *byte != 0).expect("one is not")),
    }
}
