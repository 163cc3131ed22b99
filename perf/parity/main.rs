//! Parity speed against ISA-L's `xor_gen`, in one run.
//!
//! `cargo bench --bench parity` prints a table, with `-- --json` the same as JSON, and with `-- --all-kernels` every kernel
//! that this CPU has. In each case all contenders take turns in short slices, in an order drawn anew for every round, so that
//! whatever else the machine does hits all of them alike. A cell is the median slice, then the slowest and the fastest; the
//! ratio is the median over the rounds of a contender's speed over ISA-L's in the same round.
//!
//! GB/s are source bytes (10^9) per second of CPU time. *hot* works on the same blocks again and again, which stay in L1 or L2 as far as
//! they fit. *cold* takes blocks that were last touched a whole working set ago, scattered over huge pages.

mod isal;
mod memory;

use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use stripewise::xor::Kernel;

use isal::Isal;
use memory::Memory;

/// Data blocks of a stripe; the parity comes on top.
const SOURCES: [usize; 4] = [3, 4, 7, 15];
/// The most blocks in a call: sources and destination.
const MOST: usize = 16;
/// Bytes of a block.
const LENGTHS: [usize; 4] = [4 << 10, 16 << 10, 64 << 10, 1 << 20];

#[derive(Parser)]
struct Arguments {
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Measure every kernel that this CPU can run, not only the one in use.
    #[arg(long)]
    all_kernels: bool,
    /// Slices per contender and case.
    #[arg(long, default_value_t = 101)]
    slices: usize,
    /// Microseconds that a slice takes, about; at least one call.
    #[arg(long, default_value_t = 1500)]
    slice_us: u64,
    /// Working set of the cold cases in MiB, a power of two. It should be well above the last-level cache.
    #[arg(long, default_value_t = 1024)]
    cold_mib: usize,
    /// Given by `cargo bench`. Without it (`cargo test --benches`) one short slice shows that the bench works.
    #[arg(long, hide = true)]
    bench: bool,
}

/// One of those that are compared.
enum Contender {
    Plain(&'static Kernel),
    Uncached(&'static Kernel),
    Isal(Isal),
}

impl Contender {
    fn name(&self) -> String {
        match self {
            Self::Plain(kernel) => kernel.name().to_owned(),
            Self::Uncached(kernel) => format!("{} uncached", kernel.name()),
            Self::Isal(_) => "isa-l".to_owned(),
        }
    }

    /// Sets the last of `blocks` to the XOR of the others. `sources` is room for as many slices, written once per call as the
    /// pointers are, so that neither side pays for more than its own arguments.
    ///
    /// # Safety
    ///
    /// The blocks are distinct, `len` initialised bytes each, 32-byte aligned, and nothing else uses them.
    unsafe fn xor(&self, blocks: &mut [*mut u8], sources: &mut [&[u8]], len: usize) {
        let kernel = match self {
            Self::Plain(kernel) | Self::Uncached(kernel) => kernel,
            // SAFETY: the caller's promise.
            Self::Isal(isal) => return unsafe { isal.xor_gen(blocks, len) },
        };
        for (source, block) in sources.iter_mut().zip(&*blocks) {
            // SAFETY: the caller's promise.
            *source = unsafe { std::slice::from_raw_parts(*block, len) };
        }
        // SAFETY: the caller's promise; the last block is none of the sources.
        let dst = unsafe { std::slice::from_raw_parts_mut(blocks[sources.len()], len) };
        match self {
            Self::Uncached(_) => kernel.xor_into_uncached(dst, sources),
            _ => kernel.xor_into(dst, sources),
        }
    }
}

/// Which blocks are worked on.
struct Case {
    cold: bool,
    sources: usize,
    len: usize,
}

impl Case {
    fn all() -> impl Iterator<Item = Self> {
        [false, true].into_iter().flat_map(|cold| {
            LENGTHS.into_iter().flat_map(move |len| {
                SOURCES
                    .into_iter()
                    .map(move |sources| Self { cold, sources, len })
            })
        })
    }

    /// CPU time that a contender takes for `calls` calls.
    fn time(&self, contender: &Contender, memory: &mut Memory, calls: usize) -> Duration {
        let mut blocks = [std::ptr::null_mut(); MOST];
        let blocks = &mut blocks[..=self.sources];
        let mut sources: [&[u8]; MOST] = [&[]; MOST];
        let sources = &mut sources[..self.sources];
        memory.same(self.len, blocks);
        let start = cpu_time();
        for _ in 0..calls {
            if self.cold {
                memory.fresh(self.len, blocks);
            }
            // SAFETY: `memory` hands out distinct blocks, aligned to their length, and keeps no reference to them.
            unsafe { contender.xor(blocks, sources, self.len) };
        }
        cpu_time() - start
    }

    /// What a contender makes of one stripe.
    fn result(&self, contender: &Contender, memory: &Memory) -> Vec<u8> {
        let mut blocks = [std::ptr::null_mut(); MOST];
        let blocks = &mut blocks[..=self.sources];
        memory.same(self.len, blocks);
        let mut sources: [&[u8]; MOST] = [&[]; MOST];
        // SAFETY: as in `time`; the destination is read after the call has ended.
        unsafe {
            blocks[self.sources].write_bytes(0xff, self.len);
            contender.xor(blocks, &mut sources[..self.sources], self.len);
            std::slice::from_raw_parts(blocks[self.sources], self.len).to_vec()
        }
    }

    /// How many calls fill a slice.
    fn calls(&self, contender: &Contender, memory: &mut Memory, slice: Duration) -> usize {
        let mut calls = 1;
        loop {
            let took = self.time(contender, memory, calls);
            if took * 4 > slice {
                return (calls as f64 * slice.as_secs_f64() / took.as_secs_f64()).ceil() as usize;
            }
            calls *= 2;
        }
    }

    fn measure(&self, arguments: &Arguments, contenders: &[Contender], memory: &mut Memory) -> Row {
        let expected = self.result(&contenders[0], memory);
        for contender in contenders {
            assert!(
                self.result(contender, memory) == expected,
                "{} computes something else",
                contender.name()
            );
        }
        let calls = self.calls(
            &contenders[0],
            memory,
            Duration::from_micros(arguments.slice_us),
        );
        let mut slices = vec![Vec::with_capacity(arguments.slices); contenders.len()];
        let mut order: Vec<_> = (0..contenders.len()).collect();
        let mut random = 0x2545_f491_4f6c_dd1d_u64;
        for _ in 0..arguments.slices {
            for i in (1..order.len()).rev() {
                random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                order.swap(i, (random >> 33) as usize % (i + 1));
            }
            for &i in &order {
                let took = self.time(&contenders[i], memory, calls);
                slices[i].push((calls * self.sources * self.len) as f64 / took.as_secs_f64() / 1e9);
            }
        }
        let isal = contenders
            .iter()
            .position(|contender| matches!(contender, Contender::Isal(_)));
        let speeds = contenders.iter().enumerate().map(|(i, contender)| {
            let versus_isal = isal.filter(|&isal| isal != i).map(|isal| {
                let mut ratios: Vec<_> = slices[i]
                    .iter()
                    .zip(&slices[isal])
                    .map(|(ours, isal)| ours / isal)
                    .collect();
                ratios.sort_by(f64::total_cmp);
                ratios[ratios.len() / 2]
            });
            let mut slices = slices[i].clone();
            slices.sort_by(f64::total_cmp);
            let (median, min, max) = (
                slices[slices.len() / 2],
                slices[0],
                slices[slices.len() - 1],
            );
            Speed {
                name: contender.name(),
                median,
                min,
                max,
                versus_isal,
            }
        });
        let temperature = if self.cold { "cold" } else { "hot" };
        Row {
            temperature,
            sources: self.sources,
            block_bytes: self.len,
            speeds: speeds.collect(),
        }
    }
}

/// CPU time of this thread: time in which the kernel lets others run is nobody's slowness.
fn cpu_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

/// What one contender did in one case, in GB/s of source bytes.
#[derive(Serialize)]
struct Speed {
    name: String,
    median: f64,
    min: f64,
    max: f64,
    versus_isal: Option<f64>,
}

/// One row of the table.
#[derive(Serialize)]
struct Row {
    temperature: &'static str,
    sources: usize,
    block_bytes: usize,
    speeds: Vec<Speed>,
}

impl Row {
    fn print(&self) {
        print!(
            "{:<4} {:>3}+1 {:>5} KiB",
            self.temperature,
            self.sources,
            self.block_bytes >> 10
        );
        for Speed {
            median,
            min,
            max,
            versus_isal,
            ..
        } in &self.speeds
        {
            print!(
                "  {:<29}",
                match versus_isal {
                    Some(ratio) => format!("{median:6.1} ({min:5.1}-{max:5.1}) {ratio:5.2}x"),
                    None => format!("{median:6.1} ({min:5.1}-{max:5.1})"),
                }
            );
        }
        println!();
    }
}

/// Everything that was measured, and how.
#[derive(Serialize)]
struct Report {
    unit: &'static str,
    kernel: &'static str,
    /// Why there is nothing to compare with, if so.
    isal_missing: Option<&'static str>,
    slices: usize,
    slice_us: u64,
    cold_mib: usize,
    rows: Vec<Row>,
}

fn main() {
    let mut arguments = Arguments::parse();
    if !arguments.bench {
        (arguments.slices, arguments.slice_us, arguments.cold_mib) = (1, 100, 32);
    }
    let isal = Isal::load();
    let isal_missing = isal.as_ref().err().copied();
    let others = Kernel::available()
        .skip(1)
        .filter(|_| arguments.all_kernels);
    let mut contenders = vec![
        Contender::Plain(Kernel::active()),
        Contender::Uncached(Kernel::active()),
    ];
    contenders.extend(others.map(Contender::Plain));
    contenders.extend(isal.ok().map(Contender::Isal));
    let mut memory = Memory::new(arguments.cold_mib << 20);

    if !arguments.json {
        let Arguments {
            slices,
            slice_us,
            cold_mib,
            ..
        } = arguments;
        println!(
            "GB/s of source bytes, in CPU time: median (slowest-fastest) of {slices} slices of {slice_us} us; x: times ISA-L's speed"
        );
        println!(
            "hot: the same blocks again and again; cold: blocks scattered over {cold_mib} MiB"
        );
        if let Some(reason) = isal_missing {
            println!("no comparison with ISA-L: {reason}");
        }
        print!("{:<18}", "");
        for contender in &contenders {
            print!("  {:<29}", contender.name());
        }
        println!();
    }
    let mut rows = Vec::new();
    for case in Case::all() {
        let row = case.measure(&arguments, &contenders, &mut memory);
        if !arguments.json {
            row.print();
        }
        rows.push(row);
    }
    if arguments.json {
        let Arguments {
            slices,
            slice_us,
            cold_mib,
            ..
        } = arguments;
        let (unit, kernel) = ("GB/s of source bytes, in CPU time", Kernel::active().name());
        let report = Report {
            unit,
            kernel,
            isal_missing,
            slices,
            slice_us,
            cold_mib,
            rows,
        };
        println!(
            "{}",
            serde_json::to_string_pretty(&report).expect("plain data")
        );
    }
}
