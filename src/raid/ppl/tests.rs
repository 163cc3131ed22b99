//! The logs of one node, step by step: what is written, in which order, and what it says. The bytes
//! are taken apart by hand, as `ppl_header` has them.

use super::*;
use crate::bdev::{Data, Op, Request, Status};
use crate::memory::{Arena, Buf, Pool};
use crate::raid::geometry::{Geometry, Layout};
use crate::raid::message::{Logged, Message};
use crate::raid::view::{Degraded, View};

const PAGE: u32 = 4096;
/// Pages of a chunk, and data chunks of a row.
const PAGES: u64 = 4;
const DATA: u64 = 3;
/// Sectors of a log that is a ring, and of one that is not.
const RING: u16 = 2048;
const SINGLE: u16 = 256;
const SIGNATURE: u32 = 0x5712_9713;
/// Where the log begins on the member, in bytes.
const START: u64 = 64 << 10;

/// Parity is on the last of four members in all rows, and so is the log.
struct Bench {
    logs: Logs,
    pages: Pool,
    /// Requests that were not answered yet.
    asked: Vec<(usize, Request)>,
    told: Vec<(usize, Message)>,
}

/// An entry, as it is on the medium.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    sector: u64,
    parity: u32,
    data: u32,
    disk: u32,
    checksum: u32,
}

impl Bench {
    fn new(sectors: u16, write_caches: u64) -> Self {
        Self::with_requests(sectors, write_caches, 1 << 20)
    }

    fn with_requests(sectors: u16, write_caches: u64, request_bytes: u32) -> Self {
        let chunk = PAGE * PAGES as u32;
        let bytes = 1000 * u64::from(chunk);
        let geometry = Geometry::new(4, bytes, chunk, PAGE, Layout::ParityLast).unwrap();
        let arena = Arena::ordinary(600 * PAGE as usize).unwrap();
        let place = LogPlace {
            start: START,
            sectors,
        };
        let logs = Logs::new(LogsParts {
            id: 0,
            nodes: 1,
            geometry,
            block_bytes: 512,
            request_bytes,
            write_caches,
            view: &View::first(None),
            config: LogsConfig {
                signature: SIGNATURE,
                places: vec![Some(place); 4],
                pool: Pool::new(&arena, 4096, 4).unwrap(),
            },
        });
        Self {
            logs,
            pages: Pool::new(&arena, PAGE as usize, 500).unwrap(),
            asked: Vec::new(),
            told: Vec::new(),
        }
    }

    fn page(&self, fill: u8) -> Buf {
        let mut page = self.pages.take().unwrap();
        page.fill(fill);
        page.freeze()
    }

    /// A stripe that writes so many roles from `first` on; what the others add up to is full of its
    /// number.
    fn note(&mut self, number: u64, first: u8, roles: u8) {
        let part = u64::from(roles) < DATA;
        let record = Record {
            number,
            stripe: number as u32,
            first,
            roles,
            parity: part.then(|| self.page(number as u8)),
        };
        self.logs.note(0, 3, 0, record);
    }

    /// The end of a turn. Returns what is asked of members: bay, operation, first byte, bytes.
    fn turn(&mut self) -> Vec<(usize, Op, u64, usize)> {
        self.logs.run();
        self.collect();
        let ask = |(bay, request): &(usize, Request)| {
            (*bay, request.op, request.lba * 512, request.data.len())
        };
        self.asked.iter().map(ask).collect()
    }

    fn collect(&mut self) {
        let means = self.logs.means();
        self.asked.append(&mut means.requests);
        self.told.append(&mut means.outbox);
    }

    /// The members answer the requests so far. Returns the bytes that were written.
    fn answer(&mut self, status: Status) -> Vec<Vec<u8>> {
        let mut written = Vec::new();
        for (bay, request) in std::mem::take(&mut self.asked) {
            if let Data::Write(segments) = &request.data {
                written.push(segments.iter().flat_map(|s| s.to_vec()).collect());
            }
            self.logs
                .member_done(bay, request.token, status, request.data);
        }
        self.collect();
        written
    }

    /// A turn, and everything that follows from it. Returns the bytes written first.
    fn write(&mut self) -> Vec<u8> {
        assert!(!self.turn().is_empty(), "there is something to be written");
        let first = self.answer(Status::Ok);
        while !self.asked.is_empty() {
            self.answer(Status::Ok);
        }
        first.concat()
    }

    /// Stripes that may be written, or whose entries are gone, since this was last asked.
    fn told(&mut self) -> Vec<(&'static str, u64)> {
        let told = self.told.drain(..).map(|(node, message)| {
            assert_eq!(node, 0);
            match message {
                Message::Logged(Logged { number, bay: 3, .. }) => ("logged", number),
                Message::Struck(Logged { number, bay: 3, .. }) => ("struck", number),
                other => panic!("{other:?}"),
            }
        });
        told.collect()
    }

    fn ended(&mut self, number: u64, bays: u64, strike: bool) {
        let ended = Ended {
            number,
            bays,
            strike,
        };
        self.logs.ended(3, ended);
        self.collect();
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// Generation and entries of a header.
fn header(bytes: &[u8]) -> (u64, Vec<Entry>) {
    let mut plain = bytes[..4096].to_vec();
    plain[532..536].fill(0);
    assert_eq!(crc_fast::crc32_iscsi(&plain), word(bytes, 532));
    assert_eq!(word(bytes, 512), SIGNATURE);
    let generation = u64::from(word(bytes, 520)) | u64::from(word(bytes, 524)) << 32;
    let entry = |n: usize| {
        let at = 536 + 24 * n;
        Entry {
            sector: u64::from(word(bytes, at)) | u64::from(word(bytes, at + 4)) << 32,
            parity: word(bytes, at + 8),
            data: word(bytes, at + 12),
            disk: word(bytes, at + 16),
            checksum: word(bytes, at + 20),
        }
    };
    let entries = (0..word(bytes, 528) as usize).map(entry).collect();
    (generation, entries)
}

/// The sectors at which the entries of a header begin.
fn sectors(bytes: &[u8]) -> Vec<u64> {
    let (_, entries) = header(bytes);
    entries.iter().map(|e| e.sector).collect()
}

#[test]
fn stripes_of_one_turn_are_one_write() {
    let mut bench = Bench::new(RING, 0);
    // Row 1: pages 0 to 2 of role 1, page 3 of roles 0 and 1; row 2: all of page 0.
    for number in [6, 4, 5] {
        bench.note(number, 1, 1);
    }
    bench.note(7, 0, 2);
    bench.note(8, 0, 3);
    bench.turn();
    let empty = bench.answer(Status::Ok).concat();
    assert_eq!(header(&empty), (1, vec![]), "it ends the chain");
    let pages: Vec<u8> = [4, 5, 6, 7]
        .into_iter()
        .flat_map(|fill| vec![fill; 4096])
        .collect();
    assert_eq!(bench.answer(Status::Ok).concat(), pages);
    assert_eq!(bench.told(), []);
    let bytes = bench.answer(Status::Ok).concat();
    assert_eq!(bytes.len(), 4096, "the header goes last, and alone");
    let crc = |fills: &[u8]| {
        let pages = fills.iter().flat_map(|&fill| vec![fill; 4096]);
        crc_fast::crc32_iscsi(&pages.collect::<Vec<_>>())
    };
    let entry = |sector, parity, data, checksum| Entry {
        sector,
        parity,
        data,
        disk: 3,
        checksum,
    };
    // A chunk is 32 sectors, a row 96, a page 8.
    let wanted = [
        entry(96 + 32, 3 * 4096, 3 * 4096, crc(&[4, 5, 6])),
        entry(96 + 24, 4096, 2 * 4096, crc(&[7])),
        entry(192, 0, 3 * 4096, 0),
    ];
    assert_eq!(header(&bytes), (2, wanted.to_vec()));
    let mut logged = bench.told();
    logged.sort();
    assert_eq!(logged, [4, 5, 6, 7, 8].map(|number| ("logged", number)));
}

#[test]
fn where_the_ring_begins_no_entry_is_there_before_its_parity() {
    let mut bench = Bench::new(RING, 0);
    bench.note(0, 0, 1);
    let fua = Op::Write { fua: true };
    // The chain ends where it begins.
    assert_eq!(bench.turn(), [(3, fua, START, 4096)]);
    assert_eq!(header(&bench.answer(Status::Ok)[0]), (1, vec![]));
    assert_eq!(bench.turn(), [(3, fua, START + 4096, 4096)]);
    assert_eq!(bench.answer(Status::Ok), [vec![0; 4096]]);
    assert_eq!(bench.told(), []);
    assert_eq!(bench.turn(), [(3, fua, START, 4096)]);
    let bytes = bench.answer(Status::Ok).concat();
    assert_eq!((header(&bytes).0, sectors(&bytes)), (2, vec![0]));
    assert_eq!(bench.told(), [("logged", 0)]);
}

#[test]
fn with_nothing_open_header_and_parity_are_one_write_behind_the_last() {
    let mut bench = Bench::new(RING, 0);
    bench.note(1, 0, 1);
    bench.write();
    bench.ended(1, 0, false);
    bench.note(2, 0, 1);
    assert_eq!(
        bench.turn(),
        [(3, Op::Write { fua: true }, START + 8192, 8192)]
    );
    let bytes = bench.answer(Status::Ok).concat();
    assert_eq!(header(&bytes).0, 3);
    assert_eq!(bytes[4096..], [2; 4096]);
    assert_eq!(bench.told(), [("logged", 1), ("logged", 2)]);
}

#[test]
fn what_is_open_is_carried_and_its_parity_is_there_before_the_header() {
    let mut bench = Bench::new(RING, 0);
    bench.note(1, 0, 1);
    bench.write();
    bench.note(40, 0, 1);
    let fua = Op::Write { fua: true };
    assert_eq!(bench.turn(), [(3, fua, START + 8192 + 4096, 8192)]);
    let parity = bench.answer(Status::Ok);
    assert_eq!(parity, [[vec![1; 4096], vec![40; 4096]].concat()]);
    assert_eq!(bench.turn(), [(3, fua, START + 8192, 4096)]);
    let bytes = bench.answer(Status::Ok).concat();
    // Page 1 of row 0, and page 0 of row 10.
    assert_eq!(sectors(&bytes), [8, 960]);
    assert_eq!(bench.told(), [("logged", 1), ("logged", 40)]);
}

#[test]
fn stripes_written_whole_are_carried_at_once() {
    let mut bench = Bench::new(RING, 0);
    bench.note(0, 0, 3);
    bench.write();
    bench.note(1, 0, 3);
    assert_eq!(
        bench.turn(),
        [(3, Op::Write { fua: true }, START + 4096, 4096)]
    );
    let bytes = bench.answer(Status::Ok).concat();
    let (_, entries) = header(&bytes);
    assert_eq!(entries.len(), 1, "neighbours share an entry");
    assert_eq!((entries[0].sector, entries[0].data), (0, 2 * 3 * 4096));
}

#[test]
fn a_write_brings_no_less_than_it_carries() {
    let mut bench = Bench::new(RING, 0);
    for number in 0..3 {
        bench.note(8 * number, 0, 1);
    }
    bench.write();
    bench.note(80, 0, 1);
    assert_eq!(bench.turn(), []);
    bench.ended(0, 0, false);
    bench.note(88, 0, 1);
    assert_eq!(
        sectors(&Bench::last(&mut bench)),
        [2 * 96, 4 * 96, 20 * 96, 22 * 96]
    );
    let mut counters = crate::raid::Counters::default();
    bench.logs.count(&mut counters);
    assert_eq!(counters.ppl_waits, 1);
    assert_eq!((counters.ppl_writes, counters.ppl_entries), (2, 7));
    assert_eq!(counters.ppl_pages, 7);
}

impl Bench {
    /// The header that is written at the end of a turn, where its parity goes first.
    fn last(&mut self) -> Vec<u8> {
        assert!(!self.turn().is_empty());
        self.answer(Status::Ok);
        self.turn();
        self.answer(Status::Ok).concat()
    }
}

#[test]
fn a_log_of_one_place_waits_until_nothing_is_open() {
    let mut bench = Bench::new(SINGLE, 0);
    bench.note(1, 0, 1);
    let fua = Op::Write { fua: true };
    assert_eq!(bench.turn(), [(3, fua, START, 8192)]);
    bench.answer(Status::Ok);
    bench.note(2, 0, 1);
    bench.note(3, 0, 3);
    assert_eq!(bench.turn(), []);
    bench.ended(1, 0, false);
    assert_eq!(bench.turn(), [(3, fua, START, 8192)]);
    let bytes = bench.answer(Status::Ok).concat();
    assert_eq!((header(&bytes).0, sectors(&bytes)), (2, vec![16, 24]));
}

#[test]
fn a_ring_starts_over_only_with_nothing_open() {
    let mut bench = Bench::new(RING, 0);
    let mut number = 0;
    // 2048 sectors; a header and a page are 16.
    while {
        bench.note(number, 0, 1);
        let at = bench.turn()[0].2;
        while !bench.asked.is_empty() {
            bench.answer(Status::Ok);
        }
        at + 2 * 8192 < START + 2048 * 512 - 4096 - 8192
    } {
        bench.ended(number, 0, false);
        number += 1;
    }
    // One page more would fit, and no second one.
    bench.note(number + 1, 0, 1);
    bench.note(number + 2, 0, 1);
    assert_eq!(
        bench.turn(),
        [],
        "it would start over, and something is open"
    );
    bench.ended(number, 0, false);
    assert_eq!(bench.turn(), [(3, Op::Write { fua: true }, START, 4096)]);
}

#[test]
fn an_entry_stays_until_the_caches_are_empty() {
    let mut bench = Bench::new(RING, 0b1111);
    bench.note(1, 0, 1);
    bench.write();
    bench.ended(1, 0b1001, false);
    let flush = |bay| (bay, Op::Flush, 0, 0);
    assert_eq!(bench.turn(), [flush(0), flush(3)]);
    // The same stripe again: not before its last entry is dropped.
    bench.note(1, 1, 1);
    assert_eq!(bench.turn().len(), 2);
    // One that ends meanwhile is not covered.
    bench.answer(Status::Ok);
    bench.told();
    assert_eq!(sectors(&bench.write()), [32 + 8]);
    assert_eq!(bench.told(), [("logged", 1)]);
    bench.ended(1, 0, false);
    assert_eq!(bench.turn(), []);
}

#[test]
fn a_flush_covers_what_ended_before_it_began() {
    let mut bench = Bench::new(RING, 0b1111);
    bench.note(1, 0, 1);
    bench.note(2, 0, 1);
    bench.write();
    bench.ended(1, 0b1001, false);
    assert_eq!(bench.turn().len(), 2);
    bench.ended(2, 0b1001, false);
    assert_eq!(bench.turn().len(), 2, "one at a time");
    bench.answer(Status::Ok);
    assert_eq!(bench.turn().len(), 2, "and another one for the second");
    bench.note(1, 0, 1);
    bench.note(40, 0, 1);
    bench.answer(Status::Ok);
    let bytes = bench.write();
    assert_eq!(sectors(&bytes), [8, 960], "neither is carried");
}

#[test]
fn a_flush_that_fails_leaves_the_entry_until_the_loss_is_settled() {
    let mut bench = Bench::new(RING, 0b1111);
    bench.note(1, 0, 1);
    bench.write();
    bench.ended(1, 0b0001, false);
    assert_eq!(bench.turn().len(), 1);
    bench.answer(Status::Gone);
    assert_eq!(bench.turn(), [], "it is not asked again");
    assert_eq!(bench.logs.means().failures, [(0, Status::Gone)]);
    bench.note(1, 0, 1);
    assert_eq!(bench.turn(), []);
    let view = View {
        epoch: 2,
        degraded: Some(Degraded::lost(0)),
        ..View::first(None)
    };
    bench.logs.adopt(&view);
    assert_eq!(
        bench.turn(),
        [],
        "a restart would still believe the lost member"
    );
    bench.logs.settled(2);
    assert_eq!(bench.turn().len(), 1);
}

#[test]
fn what_is_struck_is_out_of_the_newest_header_when_its_owner_hears() {
    let mut bench = Bench::new(RING, 0);
    bench.note(0, 0, 3);
    bench.note(40, 0, 3);
    bench.write();
    bench.told();
    bench.ended(0, 0, true);
    let bytes = bench.write();
    assert_eq!(sectors(&bytes), [960], "the other one is carried");
    assert_eq!(bench.told(), [("struck", 0)]);
    bench.ended(40, 0, true);
    assert!(sectors(&bench.write()).is_empty());
    assert_eq!(bench.told(), [("struck", 40)]);
    assert_eq!(bench.turn(), []);
    assert!(bench.logs.is_idle());
}

#[test]
fn what_is_struck_while_a_header_is_written_waits_for_the_next() {
    let mut bench = Bench::new(RING, 0);
    bench.note(0, 0, 3);
    bench.write();
    bench.told();
    bench.note(40, 0, 3);
    assert_eq!(bench.turn().len(), 1);
    bench.ended(0, 0, true);
    let bytes = bench.answer(Status::Ok).concat();
    assert_eq!(sectors(&bytes), [0, 960], "it was carried");
    assert_eq!(bench.told(), [("logged", 40)]);
    assert_eq!(sectors(&bench.write()), [960]);
    assert_eq!(bench.told(), [("struck", 0)]);
}

#[test]
fn as_much_is_noted_as_fits() {
    // 256 sectors: a header, two blocks that stay free, and 29 pages.
    let mut bench = Bench::new(SINGLE, 0);
    for number in 0..40 {
        bench.note(8 * number, 0, 1);
    }
    let bytes = bench.write();
    assert_eq!((header(&bytes).1.len(), bytes.len()), (29, 30 * 4096));
    // A header has 148 entries.
    let mut bench = Bench::new(RING, 0);
    for number in 0..200 {
        bench.note(8 * number, 0, 3);
    }
    let bytes = bench.write();
    assert_eq!(
        sectors(&bytes),
        (0..148).map(|n| 192 * n).collect::<Vec<_>>()
    );
    assert_eq!(bench.turn(), [], "all of them are carried");
    bench.ended(0, 0, false);
    let bytes = bench.write();
    assert_eq!(header(&bytes).1.len(), 148);
    assert_eq!(bench.told().len(), 149);
}

#[test]
fn a_large_write_is_several_requests() {
    let mut bench = Bench::with_requests(SINGLE, 0, 8192);
    for number in 0..4 {
        bench.note(8 * number, 0, 1);
    }
    let places = |asks: Vec<(usize, Op, u64, usize)>| {
        let places = asks.iter().map(|a| (a.2 - START, a.3));
        places.collect::<Vec<_>>()
    };
    // They may reach the member in any order, so no entry is there meanwhile.
    assert_eq!(places(bench.turn()), [(0, 4096)]);
    assert_eq!(header(&bench.answer(Status::Ok)[0]), (1, vec![]));
    assert_eq!(places(bench.turn()), [(4096, 8192), (12288, 8192)]);
    let last = bench.asked.pop().unwrap();
    bench.answer(Status::Ok);
    assert_eq!(bench.turn(), [], "one part is missing");
    bench.asked.push(last);
    bench.answer(Status::Ok);
    assert_eq!(places(bench.turn()), [(0, 4096)]);
    assert_eq!(bench.told(), []);
    bench.answer(Status::Ok);
    assert_eq!(bench.told().len(), 4);
}

#[test]
fn a_write_that_fails_is_the_members_failure_and_nobody_goes_on() {
    let mut bench = Bench::new(RING, 0);
    bench.note(1, 0, 1);
    bench.turn();
    bench.answer(Status::WriteFault);
    assert_eq!(bench.logs.means().failures, [(3, Status::WriteFault)]);
    bench.note(2, 0, 1);
    assert_eq!((bench.turn(), bench.told()), (vec![], vec![]));
    let view = View {
        epoch: 2,
        degraded: Some(Degraded::lost(3)),
        ..View::first(None)
    };
    bench.logs.adopt(&view);
    bench.logs.settled(2);
    assert_eq!((bench.turn(), bench.told()), (vec![], vec![]));
    assert!(bench.logs.is_idle());
    assert_eq!(bench.pages.available(), 500, "its pages are free");
}

#[test]
fn another_member_begins_with_an_empty_log() {
    let mut bench = Bench::new(RING, 0);
    bench.note(1, 0, 1);
    bench.write();
    let view = |epoch, degraded| View {
        epoch,
        degraded,
        ..View::first(None)
    };
    bench.logs.adopt(&view(2, Some(Degraded::lost(3))));
    let place = LogPlace {
        start: 0,
        sectors: RING,
    };
    bench.logs.open(3, 1, Some(place), false);
    // What was meant for the one before.
    bench.note(2, 0, 1);
    assert_eq!(bench.turn(), []);
    let record = Record {
        number: 3,
        stripe: 3,
        first: 0,
        roles: 3,
        parity: None,
    };
    bench.logs.note(0, 3, 1, record);
    assert_eq!(bench.turn()[0].2, 0);
    assert_eq!(header(&bench.answer(Status::Ok).concat()).0, 1);
}

#[test]
fn a_place_suits_if_a_stripe_fits_and_it_begins_with_a_block() {
    let place = |start, sectors| LogPlace { start, sectors };
    assert!(place(8192, 16).suits(4096, 4096));
    assert!(!place(8192, 15).suits(4096, 4096));
    assert!(place(8192 + 512, 16).suits(4096, 512));
    assert!(!place(8192 + 512, 16).suits(4096, 4096));
    assert!(!place(8192, 144).suits(65536, 512));
    assert!(place(8192, 152).suits(65536, 512));
}
