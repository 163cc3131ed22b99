//! The verify model: what every block of a region may hold, and the judgement of what was read.
//!
//! The room knows records, patterns and the state file. It does no device I/O and no timing.

use std::path::{Path, PathBuf};

use super::fault::{Fault, FaultKind};
use super::pattern::{Content, Source, Stamp, inspect};
use super::record::{MAX_GENERATION, Record};
use super::state::{StateError, StateFile, Subject};

/// How many generations back the pieces of a torn block are looked for.
const TORN_HORIZON: u32 = 256;

/// Why the model can't go on.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// The state file failed.
    #[error(transparent)]
    State(#[from] StateError),
    /// The state file is about something else.
    #[error(
        "state file {path} is about another device: {difference}; give another name, or remove it to begin anew"
    )]
    OtherDevice {
        /// The file.
        path: PathBuf,
        /// What gave it away.
        difference: String,
    },
    /// The region is so large that its records do not fit into memory.
    #[error("no memory for the records of {0} blocks; verify a smaller region")]
    OutOfMemory(u64),
    /// A block was written more often than the model counts.
    #[error(
        "lba {0} was written {MAX_GENERATION} times, more than the model counts; begin with a new state file"
    )]
    WornOut(u64),
}

/// How many blocks of a read were judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Blocks that had to hold a known generation.
    pub verified: u64,
    /// Blocks that no write has reached yet, so that nearly anything goes.
    pub unwritten: u64,
}

/// What every block of a region may hold.
#[derive(Debug)]
pub struct Model {
    subject: Subject,
    records: Vec<u64>,
    file: Option<StateFile>,
}

impl Model {
    /// A model of blocks of which nothing is known, kept in memory only.
    ///
    /// # Errors
    /// [`ModelError::OutOfMemory`].
    pub fn new(subject: Subject) -> Result<Self, ModelError> {
        Ok(Self {
            records: empty_records(&subject)?,
            subject,
            file: None,
        })
    }

    /// The same, kept in a state file that is made here.
    ///
    /// # Errors
    /// [`ModelError::OutOfMemory`], [`ModelError::State`].
    pub fn create(path: &Path, subject: Subject) -> Result<Self, ModelError> {
        let mut model = Self::new(subject)?;
        model.file = Some(StateFile::create(path, &subject)?);
        Ok(model)
    }

    /// What an earlier run left in a state file. Writes that were in flight when that run ended
    /// count as unanswered.
    ///
    /// # Errors
    /// [`ModelError::OutOfMemory`], [`ModelError::State`].
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let (mut file, subject) = StateFile::open(path)?;
        let mut records = empty_records(&subject)?;
        file.load(&mut records)?;
        // Reading first, so that the untouched pages of an almost empty model stay untouched.
        for record in records.iter_mut().filter(|r| Record(**r).is_in_flight()) {
            *record = Record(*record).unanswered().0;
        }
        Ok(Self {
            subject,
            records,
            file: Some(file),
        })
    }

    /// What the model is about.
    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// Whether any of the blocks has a write in flight, so that another one has to wait.
    ///
    /// # Panics
    /// When the blocks are not all inside the region, as in every method that takes blocks.
    pub fn is_busy(&self, lba: u64, blocks: u32) -> bool {
        let range = self.range(lba, blocks);
        self.records[range]
            .iter()
            .any(|&r| Record(r).is_in_flight())
    }

    /// Notes that the next generation of the blocks is about to be sent, and fills the payload.
    /// None of them may be busy.
    ///
    /// # Errors
    /// [`ModelError::State`] or [`ModelError::WornOut`]: then it must not be sent.
    pub fn send(&mut self, lba: u64, payload: &mut [u8]) -> Result<(), ModelError> {
        let block_size = self.subject.block_size as usize;
        let range = self.range(lba, (payload.len() / block_size) as u32);
        let start = range.start;
        let volume = self.subject.volume;
        let records = &mut self.records[range];
        let blocks = payload.chunks_exact_mut(block_size);
        for ((record, block), lba) in records.iter_mut().zip(blocks).zip(lba..) {
            let sent = Record(*record).sent().ok_or(ModelError::WornOut(lba))?;
            *record = sent.0;
            let generation = sent.newest();
            let stamp = Stamp {
                volume,
                lba,
                generation,
            };
            stamp.write_to(block);
        }
        Ok(persist(&mut self.file, start, records)?)
    }

    /// Notes how the write of these blocks ended.
    ///
    /// # Errors
    /// [`ModelError::State`].
    pub fn finish(&mut self, lba: u64, blocks: u32, acknowledged: bool) -> Result<(), ModelError> {
        let range = self.range(lba, blocks);
        let start = range.start;
        let records = &mut self.records[range];
        for record in records.iter_mut() {
            let sent = Record(*record);
            *record = if acknowledged {
                sent.acknowledged().0
            } else {
                sent.unanswered().0
            };
        }
        Ok(persist(&mut self.file, start, records)?)
    }

    /// Takes down what the blocks may hold now, when a read of them is about to be sent.
    pub fn note(&self, lba: u64, blocks: u32, noted: &mut Vec<u64>) {
        noted.clear();
        noted.extend_from_slice(&self.records[self.range(lba, blocks)]);
    }

    /// Judges what a read brought: `noted` is what [`Model::note`] took down when it was sent. A
    /// write that was in flight at any time since may or may not show. Faults are appended.
    ///
    /// # Errors
    /// [`ModelError::State`].
    pub fn check(
        &mut self,
        lba: u64,
        payload: &[u8],
        noted: &[u64],
        faults: &mut Vec<Fault>,
    ) -> Result<Checked, ModelError> {
        let block_size = self.subject.block_size as usize;
        assert_eq!(payload.len(), noted.len() * block_size);
        let range = self.range(lba, noted.len() as u32);
        let blocks = payload.chunks_exact(block_size).zip(noted);
        let mut checked = Checked::default();
        for ((index, lba), (block, &noted)) in range.zip(lba..).zip(blocks) {
            let expected = Expected {
                volume: self.subject.volume,
                lba,
                noted: Record(noted),
                now: Record(self.records[index]),
            };
            let generation = match expected.judge(block) {
                Verdict::Verified(generation) => {
                    checked.verified += 1;
                    generation
                }
                Verdict::Unwritten => {
                    checked.unwritten += 1;
                    0
                }
                Verdict::Wrong(fault) => {
                    faults.push(fault);
                    continue;
                }
            };
            if let Some(seen) = expected.settles_at(generation) {
                self.records[index] = seen.0;
                persist(&mut self.file, index, &[seen.0])?;
            }
        }
        Ok(checked)
    }

    /// The next run of at most `most` blocks, at or behind `from`, that were ever sent a write.
    pub fn next_written(&self, from: u64, most: u32) -> Option<(u64, u32)> {
        let first = self.subject.region.first;
        let written = |record: &u64| Record(*record).newest() > 0;
        let skip = from.saturating_sub(first) as usize;
        let rest = self.records.get(skip..)?;
        let start = rest.iter().position(written)?;
        let run = rest[start..].iter().take(most as usize);
        let blocks = run.take_while(|r| written(r)).count();
        Some((first + (skip + start) as u64, blocks as u32))
    }

    /// Makes the state file, if there is one, survive a loss of power.
    ///
    /// # Errors
    /// [`ModelError::State`].
    pub fn sync(&self) -> Result<(), ModelError> {
        match &self.file {
            Some(file) => Ok(file.sync()?),
            None => Ok(()),
        }
    }

    fn range(&self, lba: u64, blocks: u32) -> std::ops::Range<usize> {
        let start = lba
            .checked_sub(self.subject.region.first)
            .expect("the block is inside the region") as usize;
        let end = start + blocks as usize;
        assert!(
            end <= self.records.len(),
            "the blocks are inside the region"
        );
        start..end
    }
}

fn persist(file: &mut Option<StateFile>, start: usize, records: &[u64]) -> Result<(), StateError> {
    match file {
        Some(file) => file.store(start as u64, records),
        None => Ok(()),
    }
}

/// Zeros that cost memory only where they are touched.
fn empty_records(subject: &Subject) -> Result<Vec<u64>, ModelError> {
    let blocks = subject.region.blocks;
    let out_of_memory = || ModelError::OutOfMemory(blocks);
    let count = usize::try_from(blocks).map_err(|_| out_of_memory())?;
    // `vec!` gives up the process where there is no memory, so ask first.
    let mut probe: Vec<u64> = Vec::new();
    probe
        .try_reserve_exact(count)
        .map_err(|_| out_of_memory())?;
    drop(probe);
    Ok(vec![0; count])
}

/// What one block has to hold at the end of a read.
struct Expected {
    volume: u64,
    lba: u64,
    /// When the read was sent.
    noted: Record,
    /// When it came back.
    now: Record,
}

enum Verdict {
    Verified(u32),
    Unwritten,
    Wrong(Fault),
}

impl Expected {
    fn allows(&self, generation: u32) -> bool {
        let since = self.noted.newest() < generation && generation <= self.now.newest();
        self.noted.allows(generation) || since
    }

    fn judge(&self, block: &[u8]) -> Verdict {
        let claimed = Stamp::claimed_by(block);
        let plausible = claimed.volume == self.volume && claimed.lba == self.lba;
        if plausible
            && claimed.generation > 0
            && self.allows(claimed.generation)
            && claimed.is_whole_in(block)
        {
            return Verdict::Verified(claimed.generation);
        }
        let found = inspect(block);
        let seeds = match &found {
            Content::Torn(_) => self.known_seeds(),
            _ => Vec::new(),
        };
        let Some(kind) = self.classify(&found, &seeds) else {
            return Verdict::Unwritten;
        };
        Verdict::Wrong(Fault {
            lba: self.lba,
            kind,
            expected: self.noted,
            found,
            seeds,
        })
    }

    /// What is wrong with content that is not an allowed generation; `None` where nothing is,
    /// because no write has reached the block for certain.
    fn classify(&self, found: &Content, seeds: &[(u64, u32)]) -> Option<FaultKind> {
        let untouched = self.allows(0);
        match found {
            Content::Whole(stamp) if stamp.volume != self.volume => {
                (!untouched).then_some(FaultKind::Foreign)
            }
            Content::Whole(stamp) if stamp.lba != self.lba => Some(FaultKind::Misplaced),
            Content::Whole(stamp) if stamp.generation > self.now.newest() => {
                Some(FaultKind::Unsent)
            }
            Content::Whole(stamp) if stamp.generation < self.noted.oldest() => {
                Some(FaultKind::Stale)
            }
            Content::Whole(_) => Some(FaultKind::Ghost),
            Content::Zeros | Content::Unknown => (!untouched).then_some(FaultKind::Lost),
            Content::Torn(pieces) => {
                let ours = pieces.iter().any(|piece| match piece.source {
                    Source::Header(stamp) => stamp.volume == self.volume,
                    Source::Body(seed) => seeds.iter().any(|&(s, _)| s == seed),
                    Source::Zeros | Source::Unknown => false,
                });
                (ours || !untouched).then_some(FaultKind::Torn)
            }
        }
    }

    /// The seeds of the block's last generations, newest first.
    fn known_seeds(&self) -> Vec<(u64, u32)> {
        let newest = self.now.newest();
        let oldest = newest.saturating_sub(TORN_HORIZON).max(1);
        let seed = |generation| {
            Stamp {
                volume: self.volume,
                lba: self.lba,
                generation,
            }
            .seed()
        };
        (oldest..=newest).rev().map(|g| (seed(g), g)).collect()
    }

    /// The record after a read of this generation, where it tells more than was known: no write
    /// was in flight meanwhile, and more than one generation was possible.
    fn settles_at(&self, generation: u32) -> Option<Record> {
        let quiet = self.noted == self.now && !self.now.is_in_flight();
        (quiet && !self.now.is_settled()).then(|| self.now.seen(generation))
    }
}

#[cfg(test)]
mod tests {
    use super::super::workload::Region;
    use super::*;
    use proptest::prelude::*;

    const BLOCK: usize = 512;
    const FIRST: u64 = 1000;
    const BLOCKS: u64 = 16;
    const SUBJECT: Subject = Subject {
        volume: 0xabcd,
        block_size: BLOCK as u32,
        region: Region {
            first: FIRST,
            blocks: BLOCKS,
        },
        nguid: [0; 16],
    };

    /// A device of a few blocks, and the model of it.
    struct Bench {
        model: Model,
        disk: Vec<u8>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                model: Model::new(SUBJECT).unwrap(),
                disk: vec![0; BLOCK * BLOCKS as usize],
            }
        }

        fn at(lba: u64, blocks: u32) -> std::ops::Range<usize> {
            let start = (lba - FIRST) as usize * BLOCK;
            start..start + blocks as usize * BLOCK
        }

        fn send(&mut self, lba: u64, blocks: u32) -> Vec<u8> {
            let mut payload = vec![0; blocks as usize * BLOCK];
            self.model.send(lba, &mut payload).unwrap();
            payload
        }

        fn write(&mut self, lba: u64, blocks: u32) {
            let payload = self.send(lba, blocks);
            self.disk[Self::at(lba, blocks)].copy_from_slice(&payload);
            self.model.finish(lba, blocks, true).unwrap();
        }

        fn note(&self, lba: u64, blocks: u32) -> Vec<u64> {
            let mut noted = Vec::new();
            self.model.note(lba, blocks, &mut noted);
            noted
        }

        fn check(&mut self, lba: u64, noted: &[u64]) -> (Checked, Vec<Fault>) {
            let mut faults = Vec::new();
            let payload = &self.disk[Self::at(lba, noted.len() as u32)];
            let checked = self.model.check(lba, payload, noted, &mut faults);
            (checked.unwrap(), faults)
        }

        fn read(&mut self, lba: u64, blocks: u32) -> (Checked, Vec<Fault>) {
            let noted = self.note(lba, blocks);
            self.check(lba, &noted)
        }

        fn fault(&mut self, lba: u64) -> (FaultKind, String) {
            let (_, faults) = self.read(lba, 1);
            assert_eq!(faults.len(), 1, "{faults:?}");
            (faults[0].kind, faults[0].to_string())
        }
    }

    #[test]
    fn what_was_acknowledged_verifies() {
        let mut bench = Bench::new();
        bench.write(1002, 4);
        bench.write(1004, 4);
        let (checked, faults) = bench.read(1000, 10);
        assert_eq!(faults, []);
        let expected = Checked {
            verified: 6,
            unwritten: 4,
        };
        assert_eq!(checked, expected);
    }

    #[test]
    fn a_lost_write_is_found() {
        let mut bench = Bench::new();
        bench.write(1003, 1);
        bench.disk[Bench::at(1003, 1)].fill(0);
        let (kind, text) = bench.fault(1003);
        assert_eq!(kind, FaultKind::Lost);
        assert_eq!(text, "lba 1003: lost: expected generation 1, found zeros");
    }

    #[test]
    fn a_stale_block_is_found() {
        let mut bench = Bench::new();
        bench.write(1003, 1);
        let old = bench.disk[Bench::at(1003, 1)].to_vec();
        bench.write(1003, 1);
        bench.disk[Bench::at(1003, 1)].copy_from_slice(&old);
        let (kind, text) = bench.fault(1003);
        assert_eq!(kind, FaultKind::Stale);
        assert_eq!(
            text,
            "lba 1003: stale: expected generation 2, found generation 1"
        );
    }

    #[test]
    fn a_torn_block_is_found_and_both_parts_are_named() {
        let mut bench = Bench::new();
        bench.write(1003, 1);
        let old = bench.disk[Bench::at(1003, 1)].to_vec();
        bench.write(1003, 1);
        bench.disk[Bench::at(1003, 1)][256..].copy_from_slice(&old[256..]);
        let (kind, text) = bench.fault(1003);
        assert_eq!(kind, FaultKind::Torn);
        assert_eq!(
            text,
            "lba 1003: torn: expected generation 2, found bytes 0..24: generation 2, \
             bytes 24..256: generation 2, bytes 256..504: generation 1, bytes 504..512: no pattern"
        );
    }

    #[test]
    fn a_misplaced_block_is_found_wherever_it_lies() {
        let mut bench = Bench::new();
        bench.write(1003, 2);
        let (from, to) = (Bench::at(1003, 1), Bench::at(1004, 1).start);
        bench.disk.copy_within(from.clone(), to);
        assert_eq!(
            bench.fault(1004).1,
            "lba 1004: misplaced: expected generation 1, found generation 1 of lba 1003"
        );
        bench.disk.copy_within(from, Bench::at(1010, 1).start);
        assert_eq!(bench.fault(1010).0, FaultKind::Misplaced);
    }

    #[test]
    fn a_foreign_block_is_found_only_where_ours_must_be() {
        let mut bench = Bench::new();
        bench.write(1003, 1);
        for lba in [1003, 1009] {
            let stranger = Stamp {
                volume: 0x99,
                lba,
                generation: 4,
            };
            stranger.write_to(&mut bench.disk[Bench::at(lba, 1)]);
        }
        assert_eq!(
            bench.fault(1003).1,
            "lba 1003: foreign: expected generation 1, found generation 4 of lba 1003 of volume 0x99"
        );
        assert_eq!(bench.read(1009, 1).1, []);
    }

    #[test]
    fn a_generation_that_was_never_sent_is_found() {
        let mut bench = Bench::new();
        let ahead = Stamp {
            volume: SUBJECT.volume,
            lba: 1003,
            generation: 3,
        };
        ahead.write_to(&mut bench.disk[Bench::at(1003, 1)]);
        assert_eq!(bench.fault(1003).0, FaultKind::Unsent);
    }

    #[test]
    fn an_unanswered_write_may_show_or_not_but_must_stay() {
        let mut bench = Bench::new();
        bench.write(1003, 1);
        let old = bench.disk.clone();
        let new = bench.send(1003, 1);
        bench.model.finish(1003, 1, false).unwrap();
        assert_eq!(bench.read(1003, 1).1, [], "old is allowed");
        bench.disk[Bench::at(1003, 1)].copy_from_slice(&new);
        assert_eq!(bench.fault(1003).0, FaultKind::Ghost, "it has been old");

        bench.disk = old;
        let newer = bench.send(1003, 1);
        bench.model.finish(1003, 1, false).unwrap();
        let old = bench.disk.clone();
        bench.disk[Bench::at(1003, 1)].copy_from_slice(&newer);
        assert_eq!(bench.read(1003, 1).1, [], "new is allowed");
        bench.disk = old;
        assert_eq!(bench.fault(1003).0, FaultKind::Stale, "it has been new");
    }

    #[test]
    fn a_read_beside_a_write_may_see_either() {
        let mut bench = Bench::new();
        bench.write(1003, 1);
        let noted = bench.note(1003, 1);
        let old = bench.disk.clone();
        bench.write(1003, 1);
        assert_eq!(bench.check(1003, &noted).1, [], "the newer one");
        let new = std::mem::replace(&mut bench.disk, old);
        assert_eq!(bench.check(1003, &noted).1, [], "the older one");
        // Nothing was learnt from these: only the newer one is right from now on.
        assert_eq!(bench.fault(1003).0, FaultKind::Stale);
        bench.disk = new;
        assert_eq!(bench.read(1003, 1).1, []);
    }

    #[test]
    fn a_tear_over_unknown_content_is_found() {
        let mut bench = Bench::new();
        let payload = bench.send(1003, 1);
        bench.model.finish(1003, 1, false).unwrap();
        bench.disk[Bench::at(1003, 1)][..256].copy_from_slice(&payload[..256]);
        assert_eq!(bench.fault(1003).0, FaultKind::Torn);
    }

    #[test]
    fn a_busy_block_is_known() {
        let mut bench = Bench::new();
        let _ = bench.send(1004, 2);
        assert!(bench.model.is_busy(1000, 5));
        assert!(bench.model.is_busy(1005, 1));
        assert!(!bench.model.is_busy(1006, 4));
        bench.model.finish(1004, 2, false).unwrap();
        assert!(!bench.model.is_busy(1000, 16));
    }

    #[test]
    fn written_runs_are_listed() {
        let mut bench = Bench::new();
        bench.write(1001, 5);
        bench.write(1015, 1);
        let mut runs = Vec::new();
        let mut from = 0;
        while let Some((lba, blocks)) = bench.model.next_written(from, 4) {
            runs.push((lba, blocks));
            from = lba + u64::from(blocks);
        }
        assert_eq!(runs, [(1001, 4), (1005, 1), (1015, 1)]);
    }

    #[test]
    fn a_run_that_was_killed_leaves_what_it_knew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let mut bench = Bench::new();
        bench.model = Model::create(&path, SUBJECT).unwrap();
        bench.write(1001, 2);
        let _in_flight = bench.send(1002, 1);
        // Dropped without any closing step, as a kill would.
        let disk = bench.disk;
        drop(bench.model);
        let model = Model::open(&path).unwrap();
        let mut bench = Bench { model, disk };
        assert!(!bench.model.is_busy(1000, 16));
        assert_eq!(bench.model.subject(), &SUBJECT);
        let (checked, faults) = bench.read(1000, 16);
        assert_eq!(faults, []);
        assert_eq!(checked.verified, 2);
        bench.disk[Bench::at(1001, 2)].fill(0);
        let kinds: Vec<FaultKind> = bench.read(1001, 2).1.iter().map(|f| f.kind).collect();
        assert_eq!(kinds, [FaultKind::Lost, FaultKind::Lost]);
    }

    proptest! {
        /// A device that does everything right, with writes that fail before, after or in the
        /// middle of their blocks: no fault is ever reported.
        #[test]
        fn a_good_device_is_never_blamed(
            steps in prop::collection::vec((0..BLOCKS, 1..5u32, 0..6u32, any::<bool>()), 1..60),
        ) {
            let mut bench = Bench::new();
            for (offset, blocks, landed, acknowledged) in steps {
                let lba = FIRST + offset;
                let blocks = blocks.min((BLOCKS - offset) as u32);
                let payload = bench.send(lba, blocks);
                let landed = if acknowledged { blocks } else { landed.min(blocks) };
                let bytes = landed as usize * BLOCK;
                bench.disk[Bench::at(lba, landed)].copy_from_slice(&payload[..bytes]);
                bench.model.finish(lba, blocks, acknowledged).unwrap();
                if offset % 2 == 0 {
                    prop_assert_eq!(bench.read(FIRST, BLOCKS as u32).1, []);
                }
            }
            prop_assert_eq!(bench.read(FIRST, BLOCKS as u32).1, []);
        }

        /// Any single byte that differs in an acknowledged block is reported.
        #[test]
        fn any_damage_is_blamed(at in 0..BLOCK, change in 1..=255u8, writes in 1..4) {
            let mut bench = Bench::new();
            for _ in 0..writes {
                bench.write(1003, 1);
            }
            bench.disk[Bench::at(1003, 1).start + at] ^= change;
            prop_assert_eq!(bench.read(1003, 1).1.len(), 1);
        }
    }
}
