//! What an array begins with whose members say what it is: md's decision which of them make it up,
//! in the engine's own terms.

use std::sync::Arc;

use super::VolumeError;
use super::geometry::{Geometry, Layout};
use super::metadata::{Marks, Stored};
use super::mutation::{self, Mutation};
use super::regions::Regions;
use super::view::{Degraded, Unsynced, View};
use crate::md::superblock::IN_SYNC;
use crate::md::{Assembly, BadBlocks, Created, Found, Policy, SECTOR, Seat, Standing, Superblock};

/// How an array begins whose members say what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assembled {
    /// What they say.
    pub stored: Stored,
    /// What follows from it: which of them may be used.
    pub view: View,
    /// Bytes of each member that the array uses.
    pub member_bytes: u64,
}

/// Metadata that is right, and still can't be kept up to date.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AssembledError {
    /// It could only be written together with what lies beside it.
    #[error(
        "the {what} of slot {slot} begins in the middle of a block of {block} bytes; give its device blocks of 512 bytes"
    )]
    Alignment {
        /// What of it.
        what: &'static str,
        /// The member's slot.
        slot: usize,
        /// Bytes of its blocks.
        block: u32,
    },
    /// No volume has this shape.
    #[error(transparent)]
    Shape(#[from] VolumeError),
}

impl Assembled {
    /// The array that md has put together from `found`.
    ///
    /// # Errors
    /// [`AssembledError`].
    pub fn of(assembly: &Assembly, found: &[Found]) -> Result<Self, AssembledError> {
        let sb = &assembly.superblock;
        let geometry = geometry(sb)?;
        let member = |seat: &Option<Seat>| seat.map(|seat| &found[seat.found].member);
        for (slot, member) in assembly.slots.iter().map(member).enumerate() {
            if let Some(member) = member {
                check_alignment(slot, &member.superblock, member.block_size)?;
            }
        }
        let members = assembly.slots.iter().map(member);
        let bad_blocks = members.clone().map(|m| {
            let known = m.and_then(|m| m.bad_blocks.clone().ok());
            known.unwrap_or_else(|| BadBlocks::new(0))
        });
        let bitmap = assembly.bitmap.clone();
        let stored = Stored {
            superblocks: members
                .clone()
                .map(|m| Some(m?.superblock.clone()))
                .collect(),
            bad_blocks: bad_blocks.collect(),
            marks: bitmap.map(|(header, bits)| Marks { header, bits }),
            dirty: is_dirty(assembly, found),
        };
        let marked = stored.marked(&geometry).map(Arc::new);
        let chunk = u64::from(sb.chunk);
        let parity_only = assembly
            .degraded
            .is_some_and(|slot| holds_parity_only(&geometry, slot));
        let degraded = assembly.degraded.map(|slot| match &assembly.slots[slot] {
            Some(Seat {
                standing: Standing::Recovering { offset, guided },
                ..
            }) => {
                // Parity that a crash has left doubtful is made anew from the start.
                let rebuilt = match parity_only && assembly.dirty() {
                    true => 0,
                    false => offset / chunk,
                };
                Degraded {
                    slot,
                    attached: true,
                    rebuilt,
                    window: rebuilt,
                    stale: marked.clone().filter(|_| *guided),
                }
            }
            _ => Degraded::lost(slot),
        });
        let unsynced = Unsynced {
            from: assembly.resync_offset / chunk,
            regions: marked,
            fresh: false,
        };
        let is_synced = unsynced.regions.as_ref().is_some_and(|r| r.is_empty());
        let view = View {
            degraded,
            // Of what only parity is lost, nothing is made of it.
            unsynced: Some(unsynced).filter(|_| assembly.dirty() && !is_synced && !parity_only),
            ..View::first(None)
        };
        Ok(Self {
            stored,
            view,
            member_bytes: sb.size * SECTOR,
        })
    }

    /// A new array whose metadata has just been written to its members, in blocks of `block` bytes.
    ///
    /// # Errors
    /// [`AssembledError`].
    pub fn new(created: &Created, block: u32) -> Result<Self, AssembledError> {
        let any = created.superblocks.iter().flatten().next();
        let Some(sb) = any else {
            return Err(VolumeError::Members(0).into());
        };
        let slots = sb.raid_disks as usize;
        let superblocks: Vec<_> = created.superblocks.iter().take(slots).cloned().collect();
        for (slot, superblock) in superblocks.iter().enumerate() {
            if let Some(superblock) = superblock {
                check_alignment(slot, superblock, block)?;
            }
        }
        let log = |s: &Option<Superblock>| match s {
            Some(s) => BadBlocks::for_log(&s.bad_block_log),
            None => BadBlocks::new(0),
        };
        let bitmap = created.bitmap.clone();
        let is_clean = sb.resync_offset == IN_SYNC;
        let unsynced = Unsynced {
            from: 0,
            regions: None,
            fresh: true,
        };
        Ok(Self {
            view: View {
                unsynced: Some(unsynced).filter(|_| !is_clean),
                ..View::first(superblocks.iter().position(Option::is_none))
            },
            stored: Stored {
                bad_blocks: superblocks.iter().map(log).collect(),
                superblocks,
                marks: bitmap.map(|(header, bits)| Marks { header, bits }),
                dirty: false,
            },
            member_bytes: sb.size * SECTOR,
        })
    }
}

impl Stored {
    /// The regions whose bits are set; `None` without a bitmap.
    fn marked(&self, geometry: &Geometry) -> Option<Regions> {
        let bits = &self.marks.as_ref()?.bits;
        let rows = self.rows_per_region(geometry);
        let mut regions = Regions::new(geometry.rows(), rows);
        let sectors = rows * u64::from(geometry.chunk_bytes()) / SECTOR;
        // A bit is a region, or several bits are one.
        let marked = bits.iter().map(|bit| bits.sectors_of(bit).start / sectors);
        let exists = marked
            .filter(|&region| region < regions.len())
            .collect::<Vec<_>>();
        exists.into_iter().for_each(|region| regions.insert(region));
        Some(regions)
    }
}

/// The shape of the array, in as many owners as do not matter here.
fn geometry(sb: &Superblock) -> Result<Geometry, VolumeError> {
    let chunk = sb.chunk.saturating_mul(SECTOR as u32);
    let layout = Layout::ALL.get(sb.layout as usize);
    let layout = *layout.ok_or(VolumeError::Chunk(chunk))?;
    Geometry::new(
        sb.raid_disks as usize,
        sb.size * SECTOR,
        chunk,
        chunk,
        layout,
    )
}

/// Whether the superblocks say already all that a write relies on: that the array is being written
/// to, and who its members are.
fn is_dirty(assembly: &Assembly, found: &[Found]) -> bool {
    let seats = assembly.slots.iter().flatten();
    let mut superblocks = seats.map(|seat| &found[seat.found].member.superblock);
    let says = |s: &Superblock| s.events == assembly.events && s.resync_offset == 0;
    match mutation::on(Mutation::D7) {
        true => superblocks.any(says),
        false => assembly.degraded.is_none() && superblocks.all(says),
    }
}

/// Whether a slot holds no data: where parity does not move.
fn holds_parity_only(geometry: &Geometry, slot: usize) -> bool {
    match geometry.layout() {
        Layout::ParityFirst => slot == 0,
        Layout::ParityLast => slot + 1 == geometry.members(),
        _ => false,
    }
}

/// That everything which is written later begins with a block.
fn check_alignment(slot: usize, sb: &Superblock, block: u32) -> Result<(), AssembledError> {
    let behind = |offset: i64| sb.super_offset.saturating_add_signed(offset);
    let policy = match sb.policy {
        Policy::Resync => None,
        Policy::Bitmap { offset } => Some(("bitmap", behind(offset.into()))),
        Policy::Ppl { offset, .. } => Some(("partial parity log", behind(offset.into()))),
    };
    let log = sb.bad_block_log;
    let log = (log.size > 0).then(|| ("bad-block log", behind(log.offset.into())));
    let places = [
        Some(("superblock", sb.super_offset)),
        Some(("data", sb.data_offset)),
        policy,
        log,
    ];
    for (what, sector) in places.into_iter().flatten() {
        if !(sector * SECTOR).is_multiple_of(block.into()) {
            return Err(AssembledError::Alignment { what, slot, block });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::md::{
        Bitmap, Disk, Features, Member, NewArray, NewDevice, NewPolicy, SetName, Time, assemble,
        create,
    };
    use uuid::Uuid;

    const SET: Uuid = Uuid::from_u128(0x5e7);
    /// Sectors of a chunk, and so of a row.
    const CHUNK: u32 = 16;

    /// An array of four devices of 4 MiB, as it is made.
    fn array(policy: NewPolicy) -> NewArray {
        let device = |number| NewDevice {
            sectors: 8192,
            uuid: Uuid::from_u128(number),
        };
        let slots = (1..=4).map(|n| Some(device(n))).collect();
        let name = SetName::new("a").unwrap();
        NewArray {
            chunk: CHUNK,
            policy,
            assume_clean: true,
            ..NewArray::new(SET, name, Time::from_seconds(1), slots)
        }
    }

    fn with_bitmap(bytes: u32) -> NewArray {
        array(NewPolicy::Bitmap {
            chunk_bytes: Some(bytes),
        })
    }

    /// The devices of a new array, with what `change` makes of their superblocks by slot.
    fn found(array: &NewArray, change: impl Fn(usize, &mut Superblock)) -> Vec<Found> {
        let created = create(array).unwrap();
        let read = |slot| {
            let mut disk = vec![0u8; 4 << 20];
            created.write(slot, &mut disk).unwrap();
            let mut member = Member::read(&mut disk as &mut dyn Disk).unwrap();
            change(slot, &mut member.superblock);
            Found {
                name: format!("m{slot}"),
                member,
            }
        };
        (0..4).map(read).collect()
    }

    /// Sets these bits on every device.
    fn mark(found: &mut [Found], bits: &[u64]) {
        for found in found {
            let bitmap = found.member.bitmap.as_mut().unwrap();
            let bitmap = bitmap.as_mut().unwrap();
            bits.iter().for_each(|&bit| {
                bitmap.bits.set(bit);
            });
        }
    }

    fn assembled(found: &[Found]) -> Assembled {
        let assembly = assemble(SET, found, false).unwrap();
        Assembled::of(&assembly, found).unwrap()
    }

    fn dirty(_: usize, s: &mut Superblock) {
        s.resync_offset = 0;
    }

    #[test]
    fn a_clean_array_is_as_if_it_had_never_stopped() {
        let found = found(&with_bitmap(64 << 10), |_, _| {});
        let all = assembled(&found);
        assert_eq!(all.view, View::first(None));
        // 4 MiB less the 1 MiB in which the metadata lies.
        assert_eq!(all.member_bytes, 3 << 20);
        assert!(!all.stored.dirty);
        let superblocks: Vec<_> = found
            .iter()
            .map(|f| Some(f.member.superblock.clone()))
            .collect();
        assert_eq!(all.stored.superblocks, superblocks);
        assert_eq!(all.stored.marks.unwrap().bits.count(), 0);
    }

    #[test]
    fn bits_of_a_dirty_array_are_the_rows_whose_parity_is_made_again() {
        // 64 KiB are 8 rows of 8 KiB; 4 KiB are half a row.
        for (bytes, bits, rows) in [
            (64 << 10, &[2, 5][..], &[16..24, 40..48][..]),
            (4 << 10, &[7, 20, 21], &[3..4, 10..11]),
        ] {
            let mut found = found(&with_bitmap(bytes), dirty);
            mark(&mut found, bits);
            let view = assembled(&found).view;
            let unsynced = view.unsynced.unwrap();
            assert_eq!((unsynced.from, unsynced.fresh), (0, false));
            let wanted: Vec<u64> = rows.iter().cloned().flatten().collect();
            let all: Vec<u64> = (0..384).filter(|&row| unsynced.contains(row)).collect();
            assert_eq!(all, wanted, "bits of {bytes} bytes");
            assert_eq!(view.degraded, None);
        }
        // Nothing was under way.
        let found = found(&with_bitmap(64 << 10), dirty);
        let all = assembled(&found);
        assert_eq!(all.view, View::first(None));
        assert!(
            all.stored.dirty,
            "all superblocks say that it is written to"
        );
    }

    #[test]
    fn without_a_bitmap_all_behind_the_last_checkpoint_is_made_again() {
        for (offset, from) in [(0, 0), (5 * 16, 5), (5 * 16 + 15, 5)] {
            let found = found(&array(NewPolicy::Resync), |_, s| s.resync_offset = offset);
            let all = assembled(&found);
            let unsynced = Unsynced {
                from,
                regions: None,
                fresh: false,
            };
            assert_eq!(all.view.unsynced, Some(unsynced));
            assert_eq!(all.stored.dirty, offset == 0);
            assert_eq!(all.stored.marks, None);
        }
    }

    #[test]
    fn superblocks_have_to_say_who_is_missing_before_anything_is_written() {
        let mut found = found(&with_bitmap(64 << 10), dirty);
        found.remove(2);
        let all = assembled(&found);
        assert_eq!(all.view.degraded, Some(Degraded::lost(2)));
        assert_eq!(all.stored.superblocks[2], None);
        assert!(!all.stored.dirty);
        // So do they where some are one event behind the others.
        let behind = |slot, s: &mut Superblock| {
            dirty(slot, s);
            s.events += u64::from(slot == 1);
        };
        let found = self::found(&array(NewPolicy::Resync), behind);
        assert!(!assembled(&found).stored.dirty);
    }

    #[test]
    fn a_rebuild_goes_on_where_it_was() {
        let recovering = |slot: usize, s: &mut Superblock| {
            s.features.set(Features::RECOVERY_OFFSET, slot == 1);
            s.recovery_offset = if slot == 1 { 7 * 16 } else { 0 };
        };
        let found = found(&array(NewPolicy::Resync), recovering);
        let rebuilt = Degraded {
            slot: 1,
            attached: true,
            rebuilt: 7,
            window: 7,
            stale: None,
        };
        assert_eq!(assembled(&found).view.degraded, Some(rebuilt));
    }

    #[test]
    fn a_member_that_was_away_lacks_what_the_bitmap_says() {
        let mut found = found(&with_bitmap(64 << 10), |slot, s| {
            s.events = if slot == 3 { 10 } else { 20 };
            if slot != 3 {
                s.roles[3] = 0xfffe;
            }
        });
        for (slot, found) in found.iter_mut().enumerate() {
            let bitmap = found.member.bitmap.as_mut().unwrap().as_mut().unwrap();
            bitmap.header.events = if slot == 3 { 10 } else { 20 };
            bitmap.header.events_cleared = 10;
        }
        mark(&mut found, &[4]);
        let degraded = assembled(&found).view.degraded.unwrap();
        assert_eq!(
            (degraded.slot, degraded.attached, degraded.rebuilt),
            (3, true, 0)
        );
        let stale = degraded.stale.unwrap();
        let rows: Vec<u64> = (0..384).filter(|&row| stale.contains(row)).collect();
        assert_eq!(rows, Vec::from_iter(32..40));
    }

    #[test]
    fn parity_that_is_lost_alone_puts_no_data_in_doubt() {
        for (layout, slot) in [(4, 0), (5, 3)] {
            let shape = NewArray {
                layout,
                ..array(NewPolicy::Resync)
            };
            let mut lost = found(&shape, dirty);
            lost.remove(slot);
            let view = assembled(&lost).view;
            assert_eq!(
                (view.degraded, view.unsynced),
                (Some(Degraded::lost(slot)), None)
            );

            let recovering = |at: usize, s: &mut Superblock| {
                dirty(at, s);
                s.features.set(Features::RECOVERY_OFFSET, at == slot);
                s.recovery_offset = 7 * 16;
            };
            let view = assembled(&found(&shape, recovering)).view;
            let degraded = view.degraded.unwrap();
            assert_eq!(
                (degraded.attached, degraded.rebuilt, view.unsynced),
                (true, 0, None)
            );
        }
    }

    #[test]
    fn force_leaves_what_is_in_doubt_in_doubt() {
        let mut found = found(&with_bitmap(64 << 10), dirty);
        mark(&mut found, &[1]);
        found.remove(0);
        assert!(assemble(SET, &found, false).is_err());
        let assembly = assemble(SET, &found, true).unwrap();
        let view = Assembled::of(&assembly, &found).unwrap().view;
        let doubtful: Vec<u64> = (0..384).filter(|&row| view.doubtful(0, row)).collect();
        assert_eq!(doubtful, Vec::from_iter(8..16));
    }

    #[test]
    fn a_new_array_makes_its_parity_unless_it_is_right_already() {
        let unclean = NewArray {
            assume_clean: false,
            ..with_bitmap(64 << 10)
        };
        let new = Assembled::new(&create(&unclean).unwrap(), 512).unwrap();
        let unsynced = Unsynced {
            from: 0,
            regions: None,
            fresh: true,
        };
        assert_eq!(new.view.unsynced, Some(unsynced));
        assert_eq!(new.view.degraded, None);
        let bits = &new.stored.marks.unwrap().bits;
        assert_eq!(bits.count(), bits.bits());

        let clean = Assembled::new(&create(&with_bitmap(64 << 10)).unwrap(), 512).unwrap();
        assert_eq!(clean.view, View::first(None));

        let mut lacking = unclean.clone();
        lacking.slots[2] = None;
        lacking.spares = vec![unclean.slots[2].unwrap()];
        let lacking = Assembled::new(&create(&lacking).unwrap(), 4096).unwrap();
        assert_eq!(lacking.view, View::first(Some(2)));
        assert_eq!(lacking.stored.superblocks.len(), 4);
        assert_eq!(lacking.stored.superblocks[2], None);
    }

    #[test]
    fn metadata_that_shares_blocks_is_refused() {
        let found = |blocks: u32, change: fn(&mut Superblock)| {
            let mut found = found(&with_bitmap(64 << 10), |slot, s| {
                if slot == 1 {
                    change(s);
                }
            });
            found.iter_mut().for_each(|f| f.member.block_size = blocks);
            found
        };
        let odd: [(fn(&mut Superblock), _); 3] = [
            (|s| s.data_offset += 1, "data"),
            (|s| s.policy = Policy::Bitmap { offset: 9 }, "bitmap"),
            (|s| s.bad_block_log.offset += 1, "bad-block log"),
        ];
        for (change, what) in odd {
            for (block, refused) in [(512, false), (4096, true)] {
                let found = found(block, change);
                let assembly = assemble(SET, &found, false).unwrap();
                let error = AssembledError::Alignment {
                    what,
                    slot: 1,
                    block,
                };
                let outcome = Assembled::of(&assembly, &found).err();
                assert_eq!(outcome, refused.then_some(error));
            }
        }
    }

    #[test]
    fn a_bitmap_longer_than_the_rows_is_no_harm() {
        // The last half row of the members is used by nobody.
        let mut found = found(&with_bitmap(4 << 10), |slot, s| {
            dirty(slot, s);
            s.size -= 8;
        });
        let sectors = found[0].member.superblock.size;
        for found in &mut found {
            let bitmap = found.member.bitmap.as_mut().unwrap().as_mut().unwrap();
            bitmap.bits = Bitmap::new(sectors, 4096).unwrap();
            bitmap.bits.set_all();
        }
        let unsynced = assembled(&found).view.unsynced.unwrap();
        assert!(unsynced.contains(382) && !unsynced.contains(383));
    }
}
