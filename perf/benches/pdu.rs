//! What NVMe/TCP's PDUs cost: a target's decoder on what hosts send, and the headers that it answers with.
//!
//! `cargo bench --bench pdu`. A time of decoding is that of 32 PDUs, which come in one piece; those of encoding are per PDU. Payloads
//! are not copied: the decoder counts them, and computes their digests where there are some.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stripewise::nvme::io::{BlockRange, IoCommand};
use stripewise::nvme::tcp::digest::crc32c;
use stripewise::nvme::tcp::{
    C2hData, CapsuleCmd, CapsuleResp, Decoder, Event, FromHost, H2cData, PduFormat, R2t, Rules,
    Wanted,
};
use stripewise::nvme::{Completion, Status};

/// Bytes of a block, and of the data of each PDU that has some.
const BLOCK: u32 = 4096;

/// PDUs that come in one piece.
const BATCH: usize = 32;

const RANGE: BlockRange = BlockRange {
    slba: 1000,
    blocks: 1,
};

/// Without digests and with both.
fn formats() -> [(&'static str, PduFormat); 2] {
    let digests = PduFormat {
        header_digest: true,
        data_digest: true,
        ..PduFormat::default()
    };
    [("plain", PduFormat::default()), ("digests", digests)]
}

/// The bytes of [`BATCH`] PDUs with this header and, where there is one, a payload.
fn stream(header: &[u8], payload: &[u8], format: &PduFormat) -> Vec<u8> {
    let mut pdu = [header, payload].concat();
    if format.data_digest && !payload.is_empty() {
        pdu.extend_from_slice(&crc32c(payload).to_le_bytes());
    }
    pdu.repeat(BATCH)
}

/// Decodes all of it and says how many PDUs there were.
fn decode(decoder: &mut Decoder<FromHost>, mut bytes: &[u8]) -> usize {
    let mut pdus = 0;
    while !bytes.is_empty() {
        if let Wanted::Payload(left) = decoder.wanted() {
            let (piece, rest) = bytes.split_at(left as usize);
            black_box(decoder.payload(piece));
            bytes = rest;
            continue;
        }
        let fed = decoder.feed(bytes).expect("PDUs that follow the rules");
        pdus += usize::from(matches!(fed.event, Some(Event::Pdu { .. })));
        bytes = &bytes[fed.used..];
    }
    pdus
}

fn decoding(criterion: &mut Criterion) {
    let payload = vec![0x5a; BLOCK as usize];
    for (name, format) in formats() {
        let mut group = criterion.benchmark_group(format!("decode, {name}"));
        group.throughput(Throughput::Elements(BATCH as u64));
        let command = |io: IoCommand, in_capsule| {
            let command = io.to_command(1);
            CapsuleCmd { command }.encode(&format, in_capsule)
        };
        let read = IoCommand::Read {
            range: RANGE,
            fua: false,
        };
        let write = IoCommand::Write {
            range: RANGE,
            fua: false,
        };
        let data = H2cData {
            cccid: 7,
            ttag: 7,
            offset: 0,
            len: BLOCK,
            last: true,
        };
        let streams = [
            ("read command", stream(&command(read, 0), &[], &format)),
            (
                "write with 4 KiB in its capsule",
                stream(&command(write, BLOCK), &payload, &format),
            ),
            (
                "4 KiB that were asked for",
                stream(&data.encode(&format), &payload, &format),
            ),
        ];
        for (what, bytes) in &streams {
            let mut decoder = Decoder::<FromHost>::new();
            decoder.establish(Rules {
                format,
                max_capsule_data: BLOCK,
                max_data: BLOCK,
            });
            assert_eq!(decode(&mut decoder, bytes), BATCH, "{what}");
            group.bench_function(*what, |b| {
                b.iter(|| decode(&mut decoder, black_box(bytes)));
            });
        }
    }
}

fn encoding(criterion: &mut Criterion) {
    for (name, format) in formats() {
        let mut group = criterion.benchmark_group(format!("encode, {name}"));
        let completion = Completion::new(7, Status::SUCCESS);
        group.bench_function("response", |b| {
            b.iter(|| black_box(CapsuleResp { completion }).encode(&format));
        });
        let data = C2hData {
            cccid: 7,
            offset: 0,
            len: BLOCK,
            last: true,
            success: false,
        };
        group.bench_function("header of 4 KiB for a host", |b| {
            b.iter(|| black_box(data).encode(&format));
        });
        let request = R2t {
            cccid: 7,
            ttag: 7,
            offset: 0,
            len: BLOCK,
        };
        group.bench_function("request for data", |b| {
            b.iter(|| black_box(request).encode(&format));
        });
    }
}

criterion_group!(benches, decoding, encoding);
criterion_main!(benches);
