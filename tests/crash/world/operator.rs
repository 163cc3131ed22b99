//! What an operator does, and what befalls disks.

use std::sync::mpsc;

use stripewise::md::member::{write_empty_ppl, zero_superblock};
use stripewise::md::{AreaError, BadBlocks, Member, Role, free_number, join};
use stripewise::raid::{Answer, Control, NewMember};

use super::World;
use crate::disk::{self, Luck, SECTOR};
use crate::history::Failure;
use crate::start;

impl World {
    pub(super) fn control(&mut self, control: impl FnOnce(Answer) -> Control) {
        let (sender, answer) = mpsc::channel();
        self.answers.push(answer);
        self.machine.control(control(sender), &self.disks);
    }

    /// The member of a slot fails, or is taken out; unless another one is missing.
    pub(super) fn fail(&mut self, slot: usize, failure: Failure) {
        let whole = self.machine.view().degraded.is_none();
        let Some(disk) = self.machine.slots()[slot].filter(|_| whole) else {
            return;
        };
        if self
            .disks
            .iter()
            .any(|disk| disk.gone || disk.stuck || !disk.broken.is_empty())
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
            Failure::Stuck => self.disks[disk].stuck = true,
            Failure::Removed => self.control(|answer| Control::Remove {
                member: disk::name(disk),
                answer,
            }),
        }
    }

    /// The host takes what it is given for what can't be told.
    pub(super) fn accept(&mut self) {
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
    pub(super) fn bring_back(&mut self) {
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
        disk.stuck = false;
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
    pub(super) fn replace(&mut self) {
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
    pub(super) fn swap(&mut self, slot: usize) {
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
}
