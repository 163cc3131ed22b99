//! The first stripe of an array with partial parity logs that owes a resync.
//!
//! While such an array is written to, `resync_offset` 0 is taken to mean that all parity was right before what is
//! in the logs (`ppl_init_log` in `raid5-ppl.c`). One that owes a resync from its very start must say something
//! else, and it has to be true: that one stripe is in sync. So that is made true first.

use std::ops::Range;

use super::layout::Layout;
use super::replay::{LogMember, Lost, ReplayError};
use super::{PAGE, SECTOR};

/// Sectors of each member that the first stripe has: the least `resync_offset` of an array with partial parity logs
/// that owes a resync.
pub const FIRST_STRIPE: u64 = PAGE as u64 / SECTOR;

/// Makes the parity of the first stripe match its data. `members` are in the places of their slots. It is durable on
/// return. If a block of data is missing, that can't be told from parity and is returned as lost; what has no parity
/// has nothing to match.
///
/// # Errors
/// [`ReplayError`] if a member can't be read or written, or the shape is not one of ours.
pub fn sync_first_stripe(
    members: &mut [Option<LogMember<'_>>],
) -> Result<Option<Lost>, ReplayError> {
    let any = members.iter().flatten().next().ok_or(ReplayError::Shape)?;
    let layout = Layout::of(any.superblock).ok_or(ReplayError::Shape)?;
    let parity = layout.parity(0);
    let sectors: Range<u64> = 0..FIRST_STRIPE;
    let failed = |slot| move |error| ReplayError::Disk { slot, error };
    let mut sum = vec![0; PAGE];
    for role in 0..layout.data() {
        let array = role * layout.chunk();
        let place = layout.locate(array).ok_or(ReplayError::Shape)?;
        let member = members[place.slot].as_mut();
        let Some(member) = member.filter(|m| m.has(sectors.clone())) else {
            return Ok(Some(Lost {
                slot: place.slot,
                sectors,
                parity,
                array: array..array + FIRST_STRIPE,
            }));
        };
        let data = member.read(0, PAGE).map_err(failed(place.slot))?;
        sum.iter_mut().zip(data).for_each(|(p, d)| *p ^= d);
    }
    if let Some(member) = &mut members[parity] {
        member.write(0, &sum).map_err(failed(parity))?;
        member.disk.flush().map_err(failed(parity))?;
    }
    Ok(None)
}
