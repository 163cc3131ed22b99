//! RAM members, all of whose memory is there before anything is measured.

use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::{BenchError, Target};
use crate::bdev::{Bdev, Data, Delay, Malloc, Op, Request, Status};
use crate::md::{NewArray, NewDevice, NewPolicy, SetName, Time, create};
use crate::memory::{Arena, FreeMemory, Pool};
use crate::raid::Assembled;

/// A member, or another device like one, of this name.
///
/// # Errors
/// [`BenchError::Member`].
pub(super) fn member(
    target: &Target,
    name: &str,
    arena: &Arena,
) -> Result<Arc<dyn Bdev>, BenchError> {
    let block = target.block_bytes;
    let blocks = target.member_bytes / u64::from(block.max(1));
    let ram = Malloc::new(name, block, blocks, None)?;
    fill(&ram, arena)?;
    Ok(match target.delay_us {
        0 => ram,
        us => Delay::new(ram, name, us, us, us, us)?,
    })
}

/// Refuses more members than memory: members lie on huge pages where enough of them are free, on
/// ordinary ones elsewhere.
///
/// # Errors
/// [`BenchError::Memory`].
pub(super) fn check_memory(wanted: u64) -> Result<(), BenchError> {
    let wanted = wanted.div_ceil(1 << 20);
    match FreeMemory::now().map(|free| free.ordinary + free.huge) {
        Some(free) if wanted > free => Err(BenchError::Memory { wanted, free }),
        _ => Ok(()),
    }
}

/// Writes all of a member once: memory that was never written is faster than any disk. Zeros are
/// the parity of zeros, however many members there are.
fn fill(member: &Malloc, arena: &Arena) -> Result<(), BenchError> {
    const PIECE: u64 = 1 << 20;
    let block = u64::from(member.info().block_size);
    let buffer = Pool::new(arena, PIECE as usize, 1)?.take();
    let buffer = buffer
        .expect("a new pool has what it was made for")
        .freeze();
    let mut channel = member.open().expect("memory opens");
    let mut done = Vec::new();
    let blocks = member.info().blocks;
    let mut lba = 0;
    while lba < blocks {
        let count = (PIECE / block).min(blocks - lba);
        let bytes = (count * block) as usize;
        let request = Request {
            token: 0,
            op: Op::Write { fua: false },
            lba,
            blocks: count as u32,
            data: Data::Write([buffer.slice(..bytes)].into_iter().collect()),
        };
        assert!(channel.submit(request).is_ok(), "one at a time");
        while channel.in_flight() > 0 {
            channel.kick();
            channel.poll(Instant::now(), &mut done);
        }
        assert!(done.drain(..).all(|c| c.status == Status::Ok));
        lba += count;
    }
    Ok(())
}

/// A new array of the members. What follows from its policy is written to them, and no more:
/// nobody assembles it again.
///
/// # Errors
/// [`BenchError::Created`], [`BenchError::Assembled`].
pub(super) fn assembled(target: &Target, policy: NewPolicy) -> Result<Assembled, BenchError> {
    let device = |slot: usize| NewDevice {
        sectors: target.member_bytes / 512,
        uuid: Uuid::from_u128(slot as u128 + 2),
    };
    let slots = (0..target.members)
        .map(|slot| (Some(slot) != target.missing).then(|| device(slot)))
        .collect();
    let name = SetName::new("bench").expect("short");
    let created = create(&NewArray {
        chunk: target.config.chunk_bytes / 512,
        policy,
        assume_clean: true,
        ..NewArray::new(Uuid::from_u128(1), name, Time::from_seconds(1), slots)
    })?;
    Ok(Assembled::new(&created, target.block_bytes)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_than_there_is_is_refused() {
        let error = check_memory(u64::MAX).unwrap_err().to_string();
        assert!(error.contains("make members smaller or fewer"), "{error}");
        assert!(check_memory(1 << 20).is_ok());
    }
}
