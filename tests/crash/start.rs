//! What starts from the disks that are there after a crash.

use stripewise::md::{
    AssemblyError, BitmapHeader, Found, Member, RecoveryError, Superblock, assemble, recover,
};
use stripewise::raid::Assembled;

use crate::disk::{self, Disk, Reader};
use crate::shape::SET;

/// An array that may be started.
#[derive(Clone, Debug)]
pub struct Start {
    pub assembled: Assembled,
    /// The disk of each slot.
    pub disks: Vec<Option<usize>>,
    /// Sectors of the volume that were found to be lost.
    pub lost: Vec<u64>,
    /// Some were known to be bad before.
    pub was_bad: bool,
}

/// Why an array is not started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Assembly(#[from] AssemblyError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
}

/// All that a disk says of the array, if it is a member.
pub fn member(disk: &Disk) -> Option<Member> {
    Member::read(&mut Reader(disk)).ok()
}

/// The superblock of a disk, if it has one.
pub fn superblock(disk: &Disk) -> Option<Superblock> {
    Some(member(disk)?.superblock)
}

/// The bitmap's header, and the bits that are set.
pub fn bitmap(member: &Member) -> Option<(&BitmapHeader, Vec<u64>)> {
    let stored = member.bitmap.as_ref()?.as_ref().ok()?;
    Some((&stored.header, stored.believed().iter().collect()))
}

/// Decides what may be started from these disks, without those that are gone, and makes it ready.
pub fn start(disks: &mut [Disk], force: bool) -> Result<Start, StartError> {
    let there = disks.iter().enumerate().filter(|(_, disk)| !disk.gone);
    let mut found: Vec<Found> = there
        .filter_map(|(at, disk)| {
            Some(Found {
                name: disk::name(at),
                member: member(disk)?,
            })
        })
        .collect();
    let mut assembly = assemble(SET, &found, force)?;
    let slots = assembly.slots.iter();
    let slots = slots.map(|seat| Some(disk::number(&found[seat.as_ref()?.found].name)));
    let slots: Vec<_> = slots.collect();
    let mut members: Vec<_> = slots.iter().map(|at| Some(disks[(*at)?].clone())).collect();
    let bad = |found: &Found| {
        found
            .member
            .bad_blocks
            .as_ref()
            .is_ok_and(|b| !b.is_empty())
    };
    let was_bad = found.iter().any(bad);
    let recovered = recover(&mut assembly, &mut found, &mut members, force);
    for (at, member) in slots.iter().zip(members) {
        if let (Some(at), Some(member)) = (at, member) {
            disks[*at] = member;
        }
    }
    let recovered = recovered?;
    let lost = recovered.iter().flat_map(|replay| &replay.lost);
    let lost = lost.flat_map(|lost| lost.array.clone()).collect();
    Ok(Start {
        lost,
        was_bad,
        disks: slots,
        assembled: Assembled::of(&assembly, &found).expect("blocks are aligned"),
    })
}

/// What the disks say of the array, a line for each.
pub fn describe(disks: &[Disk]) -> String {
    let line = |(at, disk): (usize, &Disk)| {
        let gone = if disk.gone { " (gone)" } else { "" };
        let unsure = disk.unsure();
        let Some(member) = member(disk) else {
            return format!("disk {at}{gone}: no member\n");
        };
        let bitmap = bitmap(&member).map(|(h, bits)| (h.events, h.events_cleared, bits));
        let s = &member.superblock;
        let roles = s.roles.iter().take(12).map(|&role| role as i16);
        format!(
            "disk {at}{gone}: number {} of {:?}, events {}, in sync to {:#x}, rebuilt to {:?}, \
             bitmap {bitmap:?}, {unsure} bytes unsure\n",
            s.dev_number,
            roles.collect::<Vec<_>>(),
            s.events,
            s.resync_offset,
            s.recovering()
        )
    };
    disks.iter().enumerate().map(line).collect()
}
