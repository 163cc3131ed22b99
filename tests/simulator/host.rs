//! The host's side: what every block of the volume may hold, by the writes that were sent and how
//! they ended.
//!
//! A block holds a *value*: 0 for zeros, else the number of the write that stored it. A block's
//! bytes say value and block number over and over, so that a torn or misplaced block is seen.

use std::collections::{BTreeMap, BTreeSet};

/// One block.
#[derive(Debug, Default, Clone)]
struct Block {
    /// Values it may hold if no write is in flight, and when the write of each ended.
    values: Vec<(u64, u64)>,
    /// Writes in flight: number of the request, value, when it was sent.
    writers: Vec<(u64, u64, u64)>,
}

#[derive(Debug)]
pub struct Model {
    block_bytes: usize,
    blocks: Vec<Block>,
    /// Values that each read in flight may return, by request and block.
    reads: BTreeMap<u64, BTreeMap<u64, BTreeSet<u64>>>,
    /// Counts events.
    clock: u64,
}

impl Model {
    pub fn new(blocks: u64, block_bytes: u32) -> Self {
        let zeros = Block {
            values: vec![(0, 0)],
            writers: Vec::new(),
        };
        Self {
            block_bytes: block_bytes as usize,
            blocks: vec![zeros; blocks as usize],
            reads: BTreeMap::new(),
            clock: 1,
        }
    }

    /// The bytes of a block that holds `value`.
    pub fn bytes(&self, lba: u64, value: u64) -> Vec<u8> {
        match value {
            0 => vec![0; self.block_bytes],
            _ => {
                let pair = [value.to_le_bytes(), (!lba).to_le_bytes()].concat();
                pair.repeat(self.block_bytes / pair.len())
            }
        }
    }

    /// The value that these bytes of a block hold, or what is wrong with them.
    fn value(&self, lba: u64, bytes: &[u8]) -> Result<u64, String> {
        let value = u64::from_le_bytes(bytes[..8].try_into().expect("eight bytes"));
        if self.bytes(lba, value) == bytes {
            return Ok(value);
        }
        let second = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
        Err(format!(
            "block {lba} is torn or misplaced: value {value}, block {}",
            !second
        ))
    }

    /// Whether a write to a block is in flight.
    pub fn is_written(&self, lba: u64) -> bool {
        !self.blocks[lba as usize].writers.is_empty()
    }

    /// Whether a block may be found with these bytes after a crash. One that is being written may
    /// hold anything.
    pub fn allows(&self, lba: u64, bytes: &[u8]) -> bool {
        let block = &self.blocks[lba as usize];
        let value = self.value(lba, bytes);
        let known = value.is_ok_and(|value| block.values.iter().any(|v| v.0 == value));
        known || !block.writers.is_empty()
    }

    /// The one value that a block must hold now, if there is only one.
    pub fn certain(&self, lba: u64) -> Option<u64> {
        match &self.blocks[lba as usize] {
            Block { values, writers } if writers.is_empty() && values.len() == 1 => {
                Some(values[0].0)
            }
            _ => None,
        }
    }

    pub fn write_sent(&mut self, request: u64, lba: u64, blocks: u32, value: u64) {
        self.clock += 1;
        for at in lba..lba + u64::from(blocks) {
            self.blocks[at as usize]
                .writers
                .push((request, value, self.clock));
            for read in self.reads.values_mut() {
                if let Some(allowed) = read.get_mut(&at) {
                    allowed.insert(value);
                }
            }
        }
    }

    /// The write was acknowledged (`Some(true)`), did nothing (`None`), or failed and may have
    /// happened or not (`Some(false)`).
    pub fn write_ended(&mut self, request: u64, lba: u64, blocks: u32, done: Option<bool>) {
        self.clock += 1;
        let now = self.clock;
        for at in lba..lba + u64::from(blocks) {
            let block = &mut self.blocks[at as usize];
            let position = block.writers.iter().position(|w| w.0 == request);
            let (_, value, sent) = block.writers.remove(position.expect("it was sent"));
            match done {
                None => {}
                Some(false) => block.values.push((value, now)),
                Some(true) => {
                    // What ended before this write was sent is overwritten for sure.
                    block.values.retain(|&(_, ended)| ended > sent);
                    block.values.push((value, now));
                }
            }
        }
    }

    pub fn read_sent(&mut self, request: u64, lba: u64, blocks: u32) {
        let mut allowed = BTreeMap::new();
        for at in lba..lba + u64::from(blocks) {
            let block = &self.blocks[at as usize];
            let values = block.values.iter().map(|v| v.0);
            let values = values.chain(block.writers.iter().map(|w| w.1));
            allowed.insert(at, values.collect());
        }
        self.reads.insert(request, allowed);
    }

    /// Checks what a read returned; `None` if it failed.
    pub fn read_ended(&mut self, request: u64, bytes: Option<&[u8]>) {
        let allowed = self.reads.remove(&request).expect("it was sent");
        let Some(bytes) = bytes else { return };
        let blocks = bytes.chunks_exact(self.block_bytes);
        assert_eq!(blocks.len(), allowed.len());
        for ((lba, values), bytes) in allowed.iter().zip(blocks) {
            let value = self
                .value(*lba, bytes)
                .unwrap_or_else(|e| panic!("{e}, expected {values:?}"));
            assert!(
                values.contains(&value),
                "block {lba} holds {value}, not one of {values:?}"
            );
        }
    }

    /// Whether a block may hold these bytes while nothing is in flight.
    pub fn check(&self, lba: u64, bytes: &[u8]) {
        let block = &self.blocks[lba as usize];
        assert!(
            block.writers.is_empty(),
            "a write to block {lba} never ended"
        );
        let value = self.value(lba, bytes).unwrap_or_else(|e| panic!("{e}"));
        let known = block.values.iter().any(|v| v.0 == value);
        assert!(
            known,
            "block {lba} holds {value}, not one of {:?}",
            block.values
        );
    }
}
