//! Reads and writes.

use super::host::Host;
use super::world::World;
use crate::nvme::io::{BlockRange, IoCommand};

fn range(slba: u64, blocks: u32) -> BlockRange {
    BlockRange { slba, blocks }
}

fn write(slba: u64, blocks: u32) -> crate::nvme::Command {
    let range = range(slba, blocks);
    IoCommand::Write { range, fua: false }.to_command(1)
}

fn read(slba: u64, blocks: u32) -> crate::nvme::Command {
    let range = range(slba, blocks);
    IoCommand::Read { range, fua: false }.to_command(1)
}

/// Bytes that differ from block to block and from byte to byte.
fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 7 + i / 512 + seed * 13) as u8)
        .collect()
}

#[test]
fn what_is_written_reads_back() {
    let mut world = World::new();
    let (_admin, mut io) = Host::queue(&mut world);
    let small = pattern(1, 4096);
    assert!(
        io.run(&mut world, write(8, 8), &small)
            .status()
            .is_success()
    );
    let large = pattern(2, 200 * 512);
    let answer = io.push(&mut world, write(100, 200), &large);
    assert!(answer.status().is_success(), "{answer:?}");
    let answer = io.fetch(&mut world, read(8, 8), 4096);
    assert_eq!(answer.data, small);
    let answer = io.fetch(&mut world, read(100, 200), 200 * 512);
    assert_eq!(answer.data, large);
}
