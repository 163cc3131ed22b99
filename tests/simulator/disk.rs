//! A virtual disk: bytes, and what goes wrong with them.

use std::collections::BTreeSet;

use stripewise::bdev::{Completion, Data, Op, Request, Status};

#[derive(Debug)]
pub struct Disk {
    bytes: Vec<u8>,
    block: u32,
    /// Blocks that can't be read until they are written.
    pub latent: BTreeSet<u64>,
    /// Answers nothing but [`Status::Gone`].
    pub gone: bool,
    /// Writes that fail from now on.
    pub write_faults: u32,
    /// Reads that failed for a latent error.
    pub failed_reads: u64,
}

impl Disk {
    pub fn new(bytes: u64, block: u32, fill: u8) -> Self {
        Self {
            bytes: vec![fill; bytes as usize],
            block,
            latent: BTreeSet::new(),
            gone: false,
            write_faults: 0,
            failed_reads: 0,
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Serves a request, the whole of it at this moment.
    pub fn serve(&mut self, request: Request) -> Completion {
        let Request {
            token,
            op,
            lba,
            blocks,
            mut data,
        } = request;
        assert_eq!(
            data.len(),
            op.payload(blocks, self.block),
            "{op:?} of {blocks} blocks"
        );
        let status = self.work(op, lba, blocks, &mut data);
        Completion {
            token,
            status,
            data,
        }
    }

    fn work(&mut self, op: Op, lba: u64, blocks: u32, data: &mut Data) -> Status {
        if self.gone {
            return Status::Gone;
        }
        let block = self.block as usize;
        let range = lba as usize * block..(lba as usize + blocks as usize) * block;
        if range.end > self.bytes.len() {
            return Status::OutOfRange;
        }
        let touched = lba..lba + u64::from(blocks);
        match (op, data) {
            (Op::Read, Data::Read(segments)) => {
                if self.latent.range(touched).next().is_some() {
                    self.failed_reads += 1;
                    return Status::MediumError;
                }
                let mut from = &self.bytes[range];
                for segment in segments.iter_mut() {
                    let (head, tail) = from.split_at(segment.len());
                    segment.copy_from_slice(head);
                    from = tail;
                }
                Status::Ok
            }
            (Op::Write { .. }, Data::Write(segments)) => {
                if self.write_faults > 0 {
                    self.write_faults -= 1;
                    return Status::WriteFault;
                }
                self.latent.retain(|b| !touched.contains(b));
                let mut at = range.start;
                for segment in segments.iter() {
                    self.bytes[at..at + segment.len()].copy_from_slice(segment);
                    at += segment.len();
                }
                Status::Ok
            }
            (Op::WriteZeroes { .. }, Data::None) => {
                if self.write_faults > 0 {
                    self.write_faults -= 1;
                    return Status::WriteFault;
                }
                self.latent.retain(|b| !touched.contains(b));
                self.bytes[range].fill(0);
                Status::Ok
            }
            (Op::Flush, Data::None) => Status::Ok,
            (op, data) => panic!("members are never asked to {op:?} with {data:?}"),
        }
    }
}
