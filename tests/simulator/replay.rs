//! What md's kernel does with a partial parity log when it starts an array that was not stopped
//! (`ppl_load_distributed`, `ppl_recover`), as far as one row is concerned. Written from its rules,
//! and from nothing of ours but the XOR.

use stripewise::raid::Geometry;
use stripewise::xor;

const SECTOR: u64 = 512;
const HEADER: usize = 4096;

/// An entry of the newest header, with its partial parity.
pub struct Entry {
    pub data_sector: u64,
    pub data_size: u64,
    pub parity: Vec<u8>,
    /// The checksum of the partial parity is right.
    pub intact: bool,
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn long(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// The bytes of a header, if they are one.
fn header(bytes: &[u8], signature: u32) -> Option<&[u8]> {
    let mut plain = bytes.get(..HEADER)?.to_vec();
    plain[532..536].fill(0);
    let whole = crc_fast::crc32_iscsi(&plain) == word(bytes, 532);
    (whole && word(bytes, 512) == signature).then(|| &bytes[..HEADER])
}

fn entries_of(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    header[536..]
        .chunks_exact(24)
        .take(word(header, 528) as usize)
}

/// The entries of the newest header of an area; `None` if there is no header at all.
pub fn newest(area: &[u8], signature: u32) -> Option<Vec<Entry>> {
    let mut found: Option<(usize, &[u8])> = None;
    let mut at = 0;
    while at < area.len() - HEADER {
        let Some(header) = header(&area[at..], signature) else {
            break;
        };
        if found.is_some_and(|(_, last)| long(last, 520) > long(header, 520)) {
            break;
        }
        found = Some((at, header));
        let parity: usize = entries_of(header).map(|e| word(e, 8) as usize).sum();
        at += HEADER + parity;
        assert!(
            at < area.len() - HEADER,
            "the kernel would look for the partial parity in the wrong place"
        );
    }
    let (at, header) = found?;
    let mut behind = at + HEADER;
    let entry = |e: &[u8]| {
        let parity = area[behind..behind + word(e, 8) as usize].to_vec();
        behind += parity.len();
        Entry {
            data_sector: long(e, 0),
            data_size: word(e, 12).into(),
            intact: crc_fast::crc32_iscsi(&parity) == word(e, 20),
            parity,
        }
    };
    Some(entries_of(header).map(entry).collect())
}

impl std::fmt::Debug for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (sector, bytes, parity) = (self.data_sector, self.data_size, self.parity.len());
        let intact = self.intact;
        write!(
            f,
            "{bytes} bytes at {sector}, parity {parity}, intact {intact}"
        )
    }
}

impl Entry {
    /// The row that it is of.
    pub fn row(&self, geometry: &Geometry) -> u64 {
        geometry.place(self.data_sector * SECTOR).row
    }

    /// The strips that were written: first byte of the array, and bytes of each.
    fn written(&self, geometry: &Geometry) -> (Vec<u64>, u64) {
        let chunk = u64::from(geometry.chunk_bytes());
        let data = geometry.data() as u64;
        let parity_bytes = self.parity.len() as u64;
        let first = self.data_sector * SECTOR;
        let (disks, strip, end) = if parity_bytes < chunk {
            let (disks, strip) = match parity_bytes {
                0 => (data, self.data_size / data),
                _ => (self.data_size / parity_bytes, parity_bytes),
            };
            (disks, strip, first + (disks - 1) * chunk + strip)
        } else {
            (data, chunk, first + self.data_size)
        };
        let strips = (0..disks).map(|disk| first + disk * chunk);
        (strips.filter(|start| *start < end).collect(), strip)
    }

    /// Makes the parity of its row right, a sector at a time. `chunks` is what each member has
    /// there, and `lacks` says of a slot and a byte of the chunk whether it has not. Where a block
    /// is lacking that was written, parity stays as it is.
    pub fn replay(
        &self,
        geometry: &Geometry,
        chunks: &mut [Vec<u8>],
        lacks: &dyn Fn(usize, usize) -> bool,
    ) {
        if !self.intact {
            return;
        }
        let row = self.row(geometry);
        let (strips, bytes) = self.written(geometry);
        for at in (0..bytes).step_by(SECTOR as usize) {
            let places = strips.iter().map(|start| geometry.place(start + at));
            let places: Vec<_> = places.collect();
            assert!(
                places.iter().all(|place| place.row == row),
                "it is of one row"
            );
            let within = places[0].within as usize;
            let sector = within..within + SECTOR as usize;
            let slots = places.iter().map(|place| geometry.member(row, place.role));
            let slots: Vec<_> = slots.collect();
            if slots.iter().any(|&slot| lacks(slot, within)) {
                continue;
            }
            let mut sum = vec![0; SECTOR as usize];
            if !self.parity.is_empty() {
                sum.copy_from_slice(&self.parity[at as usize..][..SECTOR as usize]);
            }
            let blocks = slots.iter().map(|&slot| &chunks[slot][sector.clone()]);
            xor::xor_assign(&mut sum, &blocks.collect::<Vec<_>>());
            chunks[geometry.parity_member(row)][sector].copy_from_slice(&sum);
        }
    }

    /// Whether the block of a slot at a byte of the chunk was written together with others: then
    /// nobody knows what it was to become, if its member is lost and it was not written yet.
    pub fn gives_up(&self, geometry: &Geometry, slot: usize, within: usize) -> bool {
        let (strips, bytes) = self.written(geometry);
        let row = self.row(geometry);
        self.intact
            && strips.len() > 1
            && strips.iter().any(|&start| {
                let place = geometry.place(start);
                let from = place.within as usize;
                geometry.member(row, place.role) == slot
                    && (from..from + bytes as usize).contains(&within)
            })
    }
}
