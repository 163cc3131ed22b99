//! From stripes to the entries of a header: neighbours of a row that write the same roles share one.

use crate::md::SECTOR;
use crate::md::ppl::{self, PplEntry};
use crate::memory::Buf;
use crate::raid::geometry::Geometry;
use crate::raid::message::Logged;

/// What a log is to note of a stripe.
#[derive(Clone, Debug)]
pub(in crate::raid) struct Record {
    /// The stripe.
    pub number: u64,
    /// Its place in the cache of its owner.
    pub stripe: u32,
    /// The first data role that is written.
    pub first: u8,
    /// How many are, one behind the other.
    pub roles: u8,
    /// What the others add up to; `None` if there are none.
    pub parity: Option<Buf>,
}

/// What a log is told of a stripe whose round has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The stripe.
    pub(in crate::raid) number: u64,
    /// Bays that were written, and that not forced to the medium.
    pub(in crate::raid) bays: u64,
    /// The owner waits until the entry is not on the medium any more.
    pub(in crate::raid) strike: bool,
}

impl Record {
    /// Bytes of partial parity.
    pub(super) fn parity_bytes(&self) -> u64 {
        self.parity.as_ref().map_or(0, |page| page.len() as u64)
    }

    /// What the owner is told when this is in the log of a bay's member, or not any more.
    pub(super) fn logged(&self, bay: usize, generation: u32) -> Logged {
        Logged {
            bay,
            generation,
            stripe: self.stripe,
            number: self.number,
        }
    }

    /// Whether `next` may stand in one entry with this one, behind it.
    pub(super) fn goes_on_with(&self, next: &Record, geometry: &Geometry) -> bool {
        next.number == self.number + 1
            && next.first == self.first
            && next.roles == self.roles
            && geometry.row_of(next.number) == geometry.row_of(self.number)
    }
}

/// The entry of stripes of which each goes on with the next.
pub(super) fn entry<'a>(
    run: impl ExactSizeIterator<Item = &'a Record> + Clone,
    geometry: &Geometry,
) -> PplEntry {
    let first = run.clone().next().expect("a run has stripes");
    let (stripes, stripe_bytes) = (run.len() as u32, geometry.stripe_bytes());
    let row = geometry.row_of(first.number);
    let within = first.number % geometry.stripes_per_row() * u64::from(stripe_bytes);
    let chunk = u64::from(geometry.chunk_bytes());
    let start = row * geometry.row_bytes() + u64::from(first.first) * chunk + within;
    let pages = run.filter_map(|record| record.parity.as_deref());
    PplEntry {
        data_sector: start / SECTOR,
        pp_size: match first.parity {
            Some(_) => stripes * stripe_bytes,
            None => 0,
        },
        data_size: stripes * stripe_bytes * u32::from(first.roles),
        parity_disk: geometry.parity_member(row) as u32,
        checksum: ppl::parity_checksum(pages),
    }
}
