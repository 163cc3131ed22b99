//! Commands that tests send, and bytes that they carry.

use crate::nvme::dsm::{DatasetManagement, DsmRange};
use crate::nvme::io::{BlockRange, IoCommand};
use crate::nvme::{Command, Fuse};
use zerocopy::IntoBytes;

fn range(slba: u64, blocks: u32) -> BlockRange {
    BlockRange { slba, blocks }
}

pub fn read(slba: u64, blocks: u32) -> Command {
    let range = range(slba, blocks);
    IoCommand::Read { range, fua: false }.to_command(1)
}

pub fn write(slba: u64, blocks: u32) -> Command {
    let range = range(slba, blocks);
    IoCommand::Write { range, fua: false }.to_command(1)
}

pub fn write_fua(slba: u64, blocks: u32) -> Command {
    let range = range(slba, blocks);
    IoCommand::Write { range, fua: true }.to_command(1)
}

pub fn compare(slba: u64, blocks: u32) -> Command {
    let range = range(slba, blocks);
    IoCommand::Compare { range, fua: false }.to_command(1)
}

pub fn zeroes(slba: u64, blocks: u32, deallocate: bool) -> Command {
    let range = range(slba, blocks);
    let command = IoCommand::WriteZeroes {
        range,
        fua: false,
        deallocate,
    };
    command.to_command(1)
}

pub fn flush() -> Command {
    IoCommand::Flush.to_command(1)
}

/// Dataset Management, and its data: the ranges and then nothing up to `len` bytes.
pub fn deallocate(ranges: &[(u64, u32)], len: usize) -> (Command, Vec<u8>) {
    let dsm = DatasetManagement::deallocate(ranges.len() as u16);
    let command = IoCommand::DatasetManagement(dsm).to_command(1);
    let mut data = Vec::new();
    for &(slba, blocks) in ranges {
        data.extend_from_slice(DsmRange::new(slba, blocks).as_bytes());
    }
    data.resize(len, 0);
    (command, data)
}

/// The halves of a fused Compare and Write.
pub fn halves(slba: u64, blocks: u32) -> (Command, Command) {
    let first = compare(slba, blocks).with_fuse(Fuse::First);
    (first, write(slba, blocks).with_fuse(Fuse::Second))
}

/// Bytes that differ from block to block and from byte to byte.
pub fn pattern(seed: usize, len: usize) -> Vec<u8> {
    (0..len)
        .map(|i| (i * 7 + i / 512 * 31 + seed * 13) as u8)
        .collect()
}
