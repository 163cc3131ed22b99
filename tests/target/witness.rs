//! A host that behaves well while others do not: what they do must not reach it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use super::host::{Association, Name, Queue, icreq, nvm};
use super::process::{Target, wait_for};

/// Blocks that the witness has to itself, from the first one on.
pub const BLOCKS: u64 = 256;

/// Bytes of a block in the volumes that have a witness.
const BLOCK: usize = 4096;

/// A host on a thread of its own, which writes, reads back and compares without end.
#[derive(Debug)]
pub struct Witness {
    rounds: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Witness {
    /// Connects, and waits until it has done its first round.
    pub fn new(target: &Target<'_>) -> Self {
        let rounds = Arc::new(AtomicU64::new(0));
        let stop = Arc::new(AtomicBool::new(false));
        let address = target.site().address();
        let thread = {
            let (rounds, stop) = (rounds.clone(), stop.clone());
            thread::spawn(move || {
                let association = Association::new(address, Name::of(200), icreq(true, true));
                let mut queue = association.io(1, 16);
                while !stop.load(Ordering::Relaxed) {
                    let round = rounds.load(Ordering::Relaxed);
                    work(&mut queue, round);
                    rounds.store(round + 1, Ordering::Relaxed);
                }
            })
        };
        let witness = Self {
            rounds,
            stop,
            thread: Some(thread),
        };
        witness.check("its first round");
        witness
    }

    /// It works: it does a whole round from now on.
    ///
    /// # Panics
    /// Where it does not.
    pub fn check(&self, when: &str) {
        let before = self.rounds.load(Ordering::Relaxed);
        wait_for(&format!("the witness ({when})"), || {
            let thread = self.thread.as_ref().expect("it runs");
            assert!(!thread.is_finished(), "the witness has failed ({when})");
            // The round under way began earlier.
            (self.rounds.load(Ordering::Relaxed) >= before + 2).then_some(())
        });
    }

    /// Ends it; it has failed at nothing.
    pub fn finish(mut self) {
        self.check("its last round");
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("the witness has failed at nothing");
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One round: a small write in a capsule, a large one by request, a flush, both read back.
fn work(queue: &mut Queue, round: u64) {
    let small = pattern(round, BLOCK);
    let lba = round % 64;
    let (response, _) = queue.run(nvm::write(lba, 1), &small);
    assert_eq!(response.status, (0, 0), "{response:?}");
    let large = pattern(!round, 32 * BLOCK);
    let response = queue.push(nvm::write(64 + lba, 32), &large);
    assert_eq!(response.status, (0, 0), "{response:?}");
    let (response, _) = queue.run(nvm::flush(), &[]);
    assert_eq!(response.status, (0, 0), "{response:?}");
    for (lba, written) in [(lba, small), (64 + lba, large)] {
        let len = written.len() as u32;
        let (response, read) = queue.fetch(nvm::read(lba, len / BLOCK as u32), len);
        assert_eq!(response.status, (0, 0), "{response:?}");
        assert!(read == written, "blocks from {lba} hold something else");
    }
}

/// Bytes that differ from round to round and from place to place.
fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64 / 8)
        .flat_map(|n| (seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n).to_le_bytes())
        .collect()
}
