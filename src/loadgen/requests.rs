//! The requests of a run: a fixed table, each with a buffer of its own where payloads matter.

use std::time::Instant;

use smallvec::smallvec;

use super::tally::Direction;
use crate::initiator::Payload;
use crate::memory::{Arena, Buf, BufMut, Pool, PoolError};

/// One place in the table: a request in flight, or none.
#[derive(Debug)]
pub(super) struct Request {
    /// The I/O queue that it belongs to.
    pub link: usize,
    /// What it is.
    pub direction: Direction,
    /// First block; of no meaning for a flush.
    pub lba: u64,
    /// Number of blocks.
    pub blocks: u32,
    /// When it was handed in.
    pub since: Instant,
    /// What the blocks could hold at that time, where that matters.
    pub noted: Vec<u64>,
    held: Held,
}

/// What a request keeps of its buffer.
#[derive(Debug)]
enum Held {
    /// It has none.
    Nothing,
    /// All of it: the request is idle.
    Whole(BufMut),
    /// What is behind the part that is being read into.
    Rest(BufMut),
    /// A view of all of it, while a part is being written.
    Shared(Buf),
}

/// The table of requests.
#[derive(Debug)]
pub(super) struct Requests {
    table: Vec<Request>,
    free: Vec<Vec<u32>>,
    /// What is written where payloads do not matter.
    filler: Option<Buf>,
}

impl Requests {
    /// `depth` requests for each of `links` queues, of at most `bytes` bytes. `keep_payloads`
    /// gives each a buffer of its own.
    pub fn new(
        links: usize,
        depth: u16,
        bytes: usize,
        keep_payloads: bool,
        now: Instant,
    ) -> Result<Self, PoolError> {
        let count = links * usize::from(depth);
        let slot = bytes.next_multiple_of(crate::memory::SLOT_ALIGN);
        let slots = if keep_payloads { count } else { 1 };
        let size = slot.saturating_mul(slots);
        let arena = Arena::ordinary(size)?;
        let pool = Pool::new(&arena, slot, slots)?;
        let take = || pool.take().expect("a slot for each request");
        let request = |index: usize| Request {
            link: index / usize::from(depth),
            direction: Direction::Flush,
            lba: 0,
            blocks: 0,
            since: now,
            noted: Vec::new(),
            held: Held::Nothing,
        };
        let mut table: Vec<Request> = (0..count).map(request).collect();
        let mut filler = None;
        if keep_payloads {
            for request in &mut table {
                request.held = Held::Whole(take());
            }
        } else {
            filler = Some(noise(take()));
        }
        let mut free = vec![Vec::new(); links];
        for (index, request) in table.iter().enumerate().rev() {
            free[request.link].push(index as u32);
        }
        Ok(Self {
            table,
            free,
            filler,
        })
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.table.len() - self.free.iter().map(Vec::len).sum::<usize>()
    }

    /// Whether a queue has a request that is not in flight.
    pub fn has_free(&self, link: usize) -> bool {
        !self.free[link].is_empty()
    }

    /// Takes a free request of a queue; there must be one. Its number is the token.
    pub fn take(&mut self, link: usize) -> (u64, &mut Request) {
        let index = self.free[link].pop().expect("the caller looked");
        (u64::from(index), &mut self.table[index as usize])
    }

    /// The request with this token.
    pub fn get(&mut self, token: u64) -> &mut Request {
        &mut self.table[token as usize]
    }

    /// Makes a request free again.
    pub fn put_back(&mut self, token: u64) {
        let request = &self.table[token as usize];
        self.free[request.link].push(token as u32);
    }

    /// A payload of bytes that do not matter.
    pub fn filler(&self, bytes: usize) -> Payload {
        let filler = self.filler.as_ref();
        Payload::Write(smallvec![
            filler.expect("payloads do not matter").slice(..bytes)
        ])
    }
}

impl Request {
    /// A payload to read `bytes` bytes into the request's own buffer.
    pub fn read_payload(&mut self, bytes: usize) -> Payload {
        let Held::Whole(mut buffer) = std::mem::replace(&mut self.held, Held::Nothing) else {
            unreachable!("an idle request has its buffer");
        };
        self.held = Held::Rest(buffer.split_off(bytes));
        Payload::Read(smallvec![buffer])
    }

    /// The first `bytes` bytes of the request's own buffer, to be filled and then written with
    /// [`Request::write_payload`].
    pub fn buffer(&mut self, bytes: usize) -> &mut [u8] {
        match &mut self.held {
            Held::Whole(buffer) => &mut buffer[..bytes],
            _ => unreachable!("an idle request has its buffer"),
        }
    }

    /// A payload to write the first `bytes` bytes of the request's own buffer.
    pub fn write_payload(&mut self, bytes: usize) -> Payload {
        let Held::Whole(buffer) = std::mem::replace(&mut self.held, Held::Nothing) else {
            unreachable!("an idle request has its buffer");
        };
        let whole = buffer.freeze();
        let payload = Payload::Write(smallvec![whole.slice(..bytes)]);
        self.held = Held::Shared(whole);
        payload
    }

    /// Takes the payload back into the request's own buffer, if it has one.
    pub fn take_back(&mut self, payload: Payload) {
        self.held = match (std::mem::replace(&mut self.held, Held::Nothing), payload) {
            (Held::Rest(rest), Payload::Read(mut segments)) => {
                let mut buffer = segments.pop().expect("a read has one buffer");
                let joined = buffer.join(rest);
                joined.expect("the rest was split off this buffer");
                Held::Whole(buffer)
            }
            (Held::Shared(whole), payload) => {
                drop(payload);
                let alone = whole.try_into_mut();
                Held::Whole(alone.expect("the payload was the only other view"))
            }
            (held, _) => held,
        };
    }
}

/// Bytes that no compression makes smaller.
fn noise(mut buffer: BufMut) -> Buf {
    let mut random = super::random::Random::new(1);
    for word in buffer.chunks_exact_mut(8) {
        word.copy_from_slice(&random.next().to_le_bytes());
    }
    buffer.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_survive_reads_and_writes() {
        let mut requests = Requests::new(2, 2, 8192, true, Instant::now()).unwrap();
        for bytes in [512, 8192, 4096] {
            let (token, request) = requests.take(1);
            assert_eq!(request.link, 1);
            request.buffer(bytes).fill(7);
            let payload = request.write_payload(bytes);
            assert_eq!(payload.len(), bytes);
            request.take_back(payload);
            let payload = request.read_payload(bytes);
            assert_eq!(payload.len(), bytes);
            request.take_back(payload);
            assert_eq!(request.buffer(bytes), vec![7; bytes]);
            requests.put_back(token);
        }
        assert_eq!(requests.in_flight(), 0);
    }

    #[test]
    fn each_queue_has_requests_of_its_own() {
        let mut requests = Requests::new(2, 3, 4096, false, Instant::now()).unwrap();
        let mut tokens: Vec<u64> = (0..3).map(|_| requests.take(0).0).collect();
        tokens.sort_unstable();
        assert_eq!(tokens, [0, 1, 2]);
        assert!(!requests.has_free(0) && requests.has_free(1));
        assert_eq!(requests.in_flight(), 3);
        assert_eq!(requests.filler(512).len(), 512);
    }
}
