//! What can be wrong with a block that was read, and how to say it.

use std::fmt;

use super::pattern::{Content, Piece, Source, Stamp};
use super::record::Record;

/// A kind of corruption.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FaultKind {
    /// Nothing of what was acknowledged is there: zeros, or content of no pattern.
    Lost,
    /// An older generation than the acknowledged one.
    Stale,
    /// A generation that was never acknowledged, after a read had shown that it is not there.
    Ghost,
    /// A generation that was never sent: the state is older than the device's content.
    Unsent,
    /// Parts of different writes in one block.
    Torn,
    /// An intact block of another address.
    Misplaced,
    /// An intact block of another volume.
    Foreign,
}

impl FaultKind {
    /// All kinds.
    pub const ALL: [FaultKind; 7] = [
        FaultKind::Lost,
        FaultKind::Stale,
        FaultKind::Ghost,
        FaultKind::Unsent,
        FaultKind::Torn,
        FaultKind::Misplaced,
        FaultKind::Foreign,
    ];

    /// One word for it.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Lost => "lost",
            FaultKind::Stale => "stale",
            FaultKind::Ghost => "ghost",
            FaultKind::Unsent => "unsent",
            FaultKind::Torn => "torn",
            FaultKind::Misplaced => "misplaced",
            FaultKind::Foreign => "foreign",
        }
    }
}

/// One block that does not hold what it must.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The logical block.
    pub lba: u64,
    /// What kind of corruption.
    pub kind: FaultKind,
    /// What it should hold.
    pub expected: Record,
    /// What it holds.
    pub found: Content,
    /// Generations of this block by the seed of their pattern, for naming the pieces of a torn one.
    pub seeds: Vec<(u64, u32)>,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "lba {}: {}: expected ", self.lba, self.kind.name())?;
        let (oldest, newest) = (self.expected.oldest(), self.expected.newest());
        match (self.expected.is_settled(), oldest) {
            (true, 0) => out.write_str("what was there before the first write")?,
            (true, oldest) => write!(out, "generation {oldest}")?,
            (false, 0) => write!(out, "generation {newest} or older")?,
            (false, oldest) => write!(out, "generation {oldest} to {newest}")?,
        }
        out.write_str(", found ")?;
        match &self.found {
            Content::Zeros => out.write_str("zeros"),
            Content::Unknown => out.write_str("no pattern"),
            Content::Whole(stamp) => self.stamp(out, stamp),
            Content::Torn(pieces) => {
                for (index, piece) in pieces.iter().enumerate() {
                    if index == MOST_PIECES {
                        return write!(out, ", and {} pieces more", pieces.len() - index);
                    }
                    if index > 0 {
                        out.write_str(", ")?;
                    }
                    self.piece(out, piece)?;
                }
                Ok(())
            }
        }
    }
}

/// Pieces of a torn block that are listed.
const MOST_PIECES: usize = 8;

impl Fault {
    fn piece(&self, out: &mut fmt::Formatter<'_>, piece: &Piece) -> fmt::Result {
        write!(out, "bytes {}..{}: ", piece.start, piece.end)?;
        match piece.source {
            Source::Header(stamp) => self.stamp(out, &stamp),
            Source::Zeros => out.write_str("zeros"),
            Source::Unknown => out.write_str("no pattern"),
            Source::Body(seed) => match self.seeds.iter().find(|&&(s, _)| s == seed) {
                Some((_, generation)) => write!(out, "generation {generation}"),
                None => out.write_str("pattern of another block"),
            },
        }
    }

    fn stamp(&self, out: &mut fmt::Formatter<'_>, stamp: &Stamp) -> fmt::Result {
        write!(out, "generation {}", stamp.generation)?;
        if self.kind == FaultKind::Foreign {
            return write!(out, " of lba {} of volume {:#x}", stamp.lba, stamp.volume);
        }
        if stamp.lba != self.lba {
            write!(out, " of lba {}", stamp.lba)?;
        }
        Ok(())
    }
}
