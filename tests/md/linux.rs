//! An array as mdadm describes it, read with md's formula for where blocks lie: nothing of
//! Stripewise has a part in it.

use super::golden::{Golden, number};

/// Bytes of the blocks of the pattern, and of the units in which md computes parity.
pub const BLOCK: usize = 4096;

/// The shape of an array, from mdadm's words.
#[derive(Clone, Debug)]
pub struct Shape {
    layout: String,
    /// Slots.
    pub members: usize,
    /// Blocks of a chunk.
    pub chunk: u64,
    /// Blocks of a member that are used.
    pub blocks: u64,
}

impl Shape {
    /// The shape of a golden array.
    pub fn of(golden: &Golden) -> Self {
        let said = |key| golden.said(0, key);
        let members = number(said("Raid Devices")) as usize;
        let chunk = said("Chunk Size").strip_suffix('K');
        let kib: u64 = chunk.and_then(|kib| kib.parse().ok()).expect("KiB");
        // "6144 KiB (6.00 MiB 6.29 MB)"
        let array = number(said("Array Size")) as u64;
        Self {
            layout: said("Layout").to_owned(),
            members,
            chunk: kib / 4,
            blocks: array / 4 / (members as u64 - 1),
        }
    }

    /// Blocks that hold data.
    pub fn data_blocks(&self) -> u64 {
        self.blocks * (self.members as u64 - 1)
    }

    /// The slot that has the parity of a row of chunks.
    pub fn parity_slot(&self, row: u64) -> usize {
        let turn = (row % self.members as u64) as usize;
        let last = self.members - 1;
        match self.layout.as_str() {
            "left-asymmetric" | "left-symmetric" => last - turn,
            "right-asymmetric" | "right-symmetric" => turn,
            "parity-first" => 0,
            "parity-last" => last,
            other => panic!("layout {other:?}"),
        }
    }

    /// The slot that has the `nth` data chunk of a row.
    fn data_slot(&self, row: u64, nth: usize) -> usize {
        let parity = self.parity_slot(row);
        match self.layout.as_str() {
            // Data goes on behind the parity, around the end.
            "left-symmetric" | "right-symmetric" => (parity + 1 + nth) % self.members,
            // Data steps over the parity.
            _ => nth + usize::from(nth >= parity),
        }
    }

    /// The row of chunks that a member's block belongs to.
    pub fn row(&self, block: u64) -> u64 {
        block / self.chunk
    }

    /// Where a block of the array is: its slot, and which block of the member.
    pub fn locate(&self, block: u64) -> (usize, u64) {
        let (chunk, within) = (block / self.chunk, block % self.chunk);
        let data = self.members as u64 - 1;
        let (row, nth) = (chunk / data, (chunk % data) as usize);
        (self.data_slot(row, nth), row * self.chunk + within)
    }
}

/// The data of members in their slots.
#[derive(Clone, Debug)]
pub struct Slots {
    /// The shape of the array.
    pub shape: Shape,
    /// What each slot's member holds, where there is one that can be believed.
    data: Vec<Option<Vec<u8>>>,
    /// The number of that member.
    members: Vec<Option<usize>>,
    /// How many of its blocks are right: those that it has been rebuilt up to.
    right: Vec<u64>,
    /// Blocks of members that are lost: slot and block.
    bad: Vec<(usize, u64)>,
}

impl Slots {
    /// The members that Linux used while the array ran, or all that have a slot if it was killed.
    pub fn of(golden: &Golden) -> Self {
        let shape = Shape::of(golden);
        let mut slots = Self {
            data: vec![None; shape.members],
            members: vec![None; shape.members],
            right: vec![shape.blocks; shape.members],
            shape,
            bad: Vec::new(),
        };
        for (index, slot) in used(golden) {
            slots.insert(golden, index, slot);
        }
        slots
    }

    /// Puts a member into a slot, without the blocks that mdadm lists as bad.
    fn insert(&mut self, golden: &Golden, member: usize, slot: usize) {
        let data_offset = data_offset(golden, member);
        let len = self.shape.blocks as usize * BLOCK;
        let start = data_offset as usize * 512;
        self.members[slot] = Some(member);
        self.data[slot] = Some(golden.images[member][start..start + len].to_vec());
        if let Some(sectors) = golden.examined(member, "Recovery Offset") {
            self.right[slot] = number(sectors) as u64 / 8;
        }
        let record = &golden.record["members"][member.to_string()]["badblocks"];
        for range in record.as_array().into_iter().flatten() {
            let field = |name: &str| range[name].as_u64().expect("a number");
            let first = field("sector") - data_offset;
            let sectors = first..first + field("sectors");
            self.bad.extend(sectors.map(|sector| (slot, sector / 8)));
        }
    }

    /// Whether this member is in the slot.
    pub fn is_from(&self, slot: usize, member: usize) -> bool {
        self.members[slot] == Some(member)
    }

    /// Empties a slot.
    pub fn without(mut self, slot: usize) -> Self {
        self.data[slot] = None;
        self
    }

    /// What a member holds.
    pub fn stored(&self, slot: usize, block: u64) -> Option<&[u8]> {
        let bytes = self.data[slot].as_ref()?;
        let start = block as usize * BLOCK;
        let good = block < self.right[slot] && !self.bad.contains(&(slot, block));
        good.then(|| &bytes[start..start + BLOCK])
    }

    /// Changes what a member holds; nothing happens where there is none.
    pub fn store(&mut self, slot: usize, block: u64, bytes: &[u8]) {
        let start = block as usize * BLOCK;
        if let Some(data) = &mut self.data[slot] {
            data[start..start + BLOCK].copy_from_slice(bytes);
        }
    }

    /// What a member's block must be for the parity of its row to be right; none where another
    /// member's is not there.
    pub fn computed(&self, slot: usize, block: u64) -> Option<Vec<u8>> {
        let mut sum = vec![0; BLOCK];
        for other in (0..self.shape.members).filter(|&other| other != slot) {
            xor(&mut sum, self.stored(other, block)?);
        }
        Some(sum)
    }

    /// A block of the array; none if it can't be known.
    pub fn read(&self, block: u64) -> Option<Vec<u8>> {
        let (slot, block) = self.shape.locate(block);
        let stored = self.stored(slot, block).map(<[u8]>::to_vec);
        stored.or_else(|| self.computed(slot, block))
    }

    /// The whole array; none if not all of it can be known.
    pub fn content(&self) -> Option<Vec<u8>> {
        let blocks: Option<Vec<_>> = (0..self.shape.data_blocks())
            .map(|b| self.read(b))
            .collect();
        blocks.map(|blocks| blocks.concat())
    }

    /// Blocks of the members in which parity is wrong.
    pub fn mismatches(&self) -> Vec<u64> {
        let wrong = |&block: &u64| {
            let parity = self.shape.parity_slot(self.shape.row(block));
            self.computed(parity, block).as_deref() != self.stored(parity, block)
        };
        (0..self.shape.blocks).filter(wrong).collect()
    }
}

/// Adds the bytes of a block to others.
pub fn xor(sum: &mut [u8], bytes: &[u8]) {
    for (sum, byte) in sum.iter_mut().zip(bytes) {
        *sum ^= byte;
    }
}

/// Where a member's data begins, in sectors.
pub fn data_offset(golden: &Golden, member: usize) -> u64 {
    // Version 1.0 does not say: there it is 0.
    golden
        .examined(member, "Data Offset")
        .map_or(0, |said| number(said) as u64)
}

/// The slot that a member names as its own.
pub fn slot(golden: &Golden, member: usize) -> Option<usize> {
    let role = golden.said(member, "Device Role");
    role.strip_prefix("Active device ")
        .map(|slot| number(slot) as usize)
}

/// Members that Linux used, all or in part: their number and their slot.
fn used(golden: &Golden) -> Vec<(usize, usize)> {
    let table = golden.record["running"]["detail"]["Devices"].as_array();
    let Some(table) = table else {
        let all = 0..golden.images.len();
        let seated = all.map(|member| (member, slot(golden, member).expect("a slot")));
        return seated.collect();
    };
    let in_use = table.iter().filter(|row| {
        let state = row["State"].as_str().expect("a state");
        state.starts_with("active sync") || state == "spare rebuilding"
    });
    let mut used: Vec<(usize, usize)> = Vec::new();
    for row in in_use {
        let device = row["Device"].as_str().expect("a device");
        // The member with bad blocks was used through device-mapper.
        let member = device
            .strip_prefix("loop")
            .map_or(1, |n| number(n) as usize);
        let slot = number(row["RaidDevice"].as_str().expect("a slot")) as usize;
        // A replacement comes behind the member that is still there.
        if used.iter().all(|&(_, taken)| taken != slot) {
            used.push((member, slot));
        }
    }
    used
}

/// The word that fills a block of the pattern (see `tests/md/guest/pattern.pl`).
pub fn word(generation: u64, block: u64) -> u64 {
    (generation << 32 | (block + 1)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Whether a block is one of the pattern.
pub fn is_pattern(bytes: &[u8], generation: u64, block: u64) -> bool {
    let word = word(generation, block).to_le_bytes();
    bytes.len() == BLOCK && bytes.chunks(8).all(|eight| eight == word)
}
