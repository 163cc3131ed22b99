//! What the NVMe PCIe driver costs for each request: writes to doorbells, and, under callgrind, instructions.
//!
//! `cargo bench --bench nvme` prints a table of doorbells. `perf/nvme/instructions` runs one line of it after the other
//! under callgrind: `--op read --depth 8 --requests 10000` is such a run, and collects what the channel's `submit`, `kick`
//! and `poll` do, without the device, which works between them.
//!
//! A device is either done with all its commands in each turn, or, with `--singly`, with one: then a queue is as deep as it
//! gets, and doorbells can't be shared.

mod device;

use std::time::Instant;

use clap::{Parser, ValueEnum};
use device::{BLOCKS, Device};
use stripewise::bdev::nvme::pcie::{Controller, Options};
use stripewise::bdev::{Completion, Data, Op, Request, Status};
use stripewise::memory::{Pool, Segments, SegmentsMut};

/// Requests of a line of the table: many turns of the rings.
const REQUESTS: u64 = 100_000;

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Read,
    Write,
}

/// What is run.
#[derive(Debug, Parser)]
struct Run {
    /// One line instead of the table.
    #[arg(long)]
    op: Option<Kind>,
    /// Requests in flight.
    #[arg(long, default_value_t = 1)]
    depth: usize,
    /// Bytes of a request, a multiple of 4096.
    #[arg(long, default_value_t = 4096)]
    bytes: usize,
    /// The device is done with one command in a turn, and not with all.
    #[arg(long)]
    singly: bool,
    /// The device takes SGLs.
    #[arg(long)]
    sgls: bool,
    /// Requests.
    #[arg(long, default_value_t = REQUESTS)]
    requests: u64,
    /// Given by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Keeps `depth` requests in flight until `run.requests` are done; answers doorbells for each: submission, completion.
fn measure(run: &Run, kind: Kind, depth: usize, singly: bool) -> [f64; 2] {
    let device = Device::new(run.sgls);
    let options = Options {
        queues: 1,
        ..Options::new("Nvme0")
    };
    let controller = Controller::attach(device.access(), options).expect("the device comes up");
    let mut channel = controller.namespaces()[0].open().expect("a queue");
    let pool = Pool::new(device.arena(), run.bytes, depth).expect("memory");
    let mut idle: Vec<Data> = Vec::with_capacity(depth);
    idle.extend((0..depth).map(|_| {
        let buffer = pool.take().expect("a buffer for each request");
        match kind {
            Kind::Read => Data::Read(SegmentsMut::from_iter([buffer])),
            Kind::Write => Data::Write(Segments::from_iter([buffer.freeze()])),
        }
    }));
    let blocks = (run.bytes / 4096) as u32;
    let mut done: Vec<Completion> = Vec::with_capacity(depth);
    let (mut sent, mut ended) = (0, 0);
    while ended < run.requests {
        for data in idle.drain(..) {
            let request = Request {
                token: sent,
                op: match kind {
                    Kind::Read => Op::Read,
                    Kind::Write => Op::Write { fua: false },
                },
                lba: sent * 37 % (BLOCKS - u64::from(blocks)),
                blocks,
                data,
            };
            channel.submit(request).expect("room for a request");
            sent += 1;
        }
        channel.kick();
        device.work(if singly { 1 } else { usize::MAX });
        channel.poll(Instant::now(), &mut done);
        for completion in done.drain(..) {
            assert_eq!(completion.status, Status::Ok);
            ended += 1;
            idle.push(completion.data);
        }
    }
    device.rung().map(|writes| writes as f64 / ended as f64)
}

fn main() {
    let run = Run::parse();
    if let Some(kind) = run.op {
        let [submission, completion] = measure(&run, kind, run.depth, run.singly);
        println!(
            "doorbells for each request: {submission:.4} submission, {completion:.4} completion"
        );
        return;
    }
    println!("doorbells for each request     all done in a turn       one done in a turn");
    println!("                            submission  completion   submission  completion");
    for kind in [Kind::Read, Kind::Write] {
        for depth in [1, 8, 64] {
            let [together, singly] = [false, true].map(|singly| measure(&run, kind, depth, singly));
            println!(
                "4 KiB {kind:?}, depth {depth:<10} {:>10.4}  {:>10.4}   {:>10.4}  {:>10.4}",
                together[0], together[1], singly[0], singly[1]
            );
        }
    }
}
