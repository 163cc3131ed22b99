//! What the commands of a controller have moved, for the health page.

use super::command::{Action, Work};

/// Counts of commands that went well, and of their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Read and Compare commands.
    pub reads: u64,
    /// Write commands.
    pub writes: u64,
    /// Bytes of the former.
    pub bytes_read: u64,
    /// Bytes of the latter.
    pub bytes_written: u64,
}

impl Counts {
    /// A command has gone well.
    pub fn note(&mut self, work: &Work, block_size: u32) {
        let bytes = work.range.bytes(block_size);
        match work.action {
            Action::Read | Action::Compare => {
                self.reads += 1;
                self.bytes_read += bytes;
            }
            Action::Write { .. } => {
                self.writes += 1;
                self.bytes_written += bytes;
            }
            _ => {}
        }
    }

    /// Adds what others have counted.
    pub fn add(&mut self, other: &Self) {
        self.reads += other.reads;
        self.writes += other.writes;
        self.bytes_read += other.bytes_read;
        self.bytes_written += other.bytes_written;
    }

    /// What was counted since this was last asked, if anything was.
    pub fn take(&mut self) -> Option<Self> {
        let counted = std::mem::take(self);
        (counted != Self::default()).then_some(counted)
    }
}
