//! Page I/O of a turn, before it becomes member requests: a lane for each member and operation, in which pages
//! are taken in the order of their stripes, so that those that follow one another become one request.

use super::member_io::{PageIo, PageOp};

/// Bits of a place in a lane. A member has fewer than 2^52 stripes: an NVMe namespace has no more than 2^64
/// bytes. So the number of a stripe and the place of its page fit into one word, and words are sorted quickly.
const PLACE: u32 = 12;
const PLACES: u64 = (1 << PLACE) - 1;

/// Page I/O for which most lanes have room from the start.
const ROOM: usize = 512;

/// All lanes of a shard.
#[derive(Debug)]
pub(super) struct Lanes {
    /// By slot, and in it by operation.
    lanes: Vec<Lane>,
    /// Those in which there is something, in the order in which that came.
    busy: Vec<u16>,
}

/// Page I/O of one member and one operation.
#[derive(Debug, Default)]
pub(super) struct Lane {
    index: u16,
    /// Page I/O in order of arrival; what was taken is not there any more.
    pages: Vec<Option<PageIo>>,
    /// The number of the stripe and the place in `pages` of those that come next, the last first.
    order: Vec<u64>,
}

impl Lanes {
    /// Empty lanes of so many members and one that is to replace another.
    pub(super) fn new(members: usize) -> Self {
        let lane = |index| {
            let room = match index % PageOp::KINDS {
                // Reads and plain writes: a warm shard allocates nothing.
                0 | 1 => ROOM,
                _ => 0,
            };
            Lane {
                index: index as u16,
                pages: Vec::with_capacity(room),
                order: Vec::with_capacity(room),
            }
        };
        Self {
            lanes: (0..(members + 1) * PageOp::KINDS).map(lane).collect(),
            busy: Vec::with_capacity(16),
        }
    }

    /// Adds one.
    pub(super) fn push(&mut self, io: PageIo) {
        let index = usize::from(io.slot) * PageOp::KINDS + io.op.rank();
        let lane = &mut self.lanes[index];
        if lane.pages.is_empty() {
            self.busy.push(index as u16);
        }
        lane.pages.push(Some(io));
    }

    /// Takes out what `out` says.
    pub(super) fn take_if(&mut self, out: impl Fn(&PageIo) -> bool) -> Vec<PageIo> {
        let mut taken = Vec::new();
        for &index in &self.busy {
            let pages = &mut self.lanes[usize::from(index)].pages;
            for page in pages.iter_mut() {
                taken.extend(page.take_if(|io| out(io)));
            }
            pages.retain(Option::is_some);
        }
        let lanes = &self.lanes;
        self.busy
            .retain(|&index| !lanes[usize::from(index)].pages.is_empty());
        taken
    }

    /// A lane in which there is something. It is to come back empty, by
    /// [`Lanes::give_back`].
    pub(super) fn next(&mut self) -> Option<Lane> {
        let index = self.busy.pop()?;
        Some(std::mem::take(&mut self.lanes[usize::from(index)]))
    }

    /// Takes a lane back of which everything was taken.
    pub(super) fn give_back(&mut self, lane: Lane) {
        debug_assert!(lane.pages.is_empty());
        let index = usize::from(lane.index);
        self.lanes[index] = lane;
    }
}

impl Lane {
    /// How many of the next follow one another, `most` at most, if there are any. The one of a stripe that
    /// `may_follow` does not allow is the first of the next ones, as is one that is alone.
    pub(super) fn follow(
        &mut self,
        most: usize,
        may_follow: impl Fn(u64) -> bool,
    ) -> Option<usize> {
        if self.order.is_empty() {
            self.sort();
        }
        let mut rest = self.order.iter().rev().copied();
        let first = rest.next()?;
        if self.is_alone(first) {
            return Some(1);
        }
        let first = first >> PLACE;
        let follows = |ahead: usize, word: u64| {
            let number = word >> PLACE;
            number == first + ahead as u64 && may_follow(number) && !self.is_alone(word)
        };
        let others = (1..most).zip(rest);
        Some(1 + others.take_while(|&(n, word)| follows(n, word)).count())
    }

    fn is_alone(&self, word: u64) -> bool {
        let io = self.pages[(word & PLACES) as usize].as_ref();
        io.is_some_and(|io| io.alone)
    }

    /// Takes the next one. Panics if there is none.
    pub(super) fn take(&mut self) -> PageIo {
        let word = self.order.pop().expect("there is one");
        let place = (word & PLACES) as usize;
        let io = self.pages[place].take().expect("each is taken once");
        if self.order.is_empty() {
            // As many as there are places have been taken, or all of them.
            self.pages.drain(..self.pages.len().min(1 << PLACE));
        }
        io
    }

    /// Puts as many in order as there are places.
    fn sort(&mut self) {
        let words = self.pages.iter().zip(0..1 << PLACE).map(|(io, place)| {
            let io = io.as_ref().expect("nothing was taken yet");
            debug_assert!(io.number < 1 << (64 - PLACE));
            io.number << PLACE | place
        });
        self.order.extend(words);
        self.order.sort_unstable_by(|a, b| b.cmp(a));
    }
}

#[cfg(test)]
mod tests {
    use super::super::member_io::Page;
    use super::*;

    fn io(slot: u8, op: PageOp, number: u64) -> PageIo {
        PageIo {
            slot,
            op,
            number,
            stripe: 0,
            role: 0,
            page: Page::None,
            alone: false,
        }
    }

    /// The slot and the numbers of the requests that come out.
    fn requests(lanes: &mut Lanes, most: usize, per_row: u64) -> Vec<(u8, Vec<u64>)> {
        let mut requests = Vec::new();
        while let Some(mut lane) = lanes.next() {
            while let Some(count) = lane.follow(most, |number| number % per_row != 0) {
                let pages: Vec<_> = (0..count).map(|_| lane.take()).collect();
                requests.push((pages[0].slot, pages.iter().map(|io| io.number).collect()));
            }
            lanes.give_back(lane);
        }
        requests.sort();
        requests
    }

    #[test]
    fn pages_that_follow_one_another_are_one_request() {
        let mut lanes = Lanes::new(3);
        let write = PageOp::Write { fua: false };
        for number in [5, 1 << 51, 4, 9, 6, 16, 15, 17] {
            lanes.push(io(0, PageOp::Read, number));
        }
        lanes.push(io(3, PageOp::Read, 7));
        lanes.push(io(0, write, 7));
        lanes.push(PageIo {
            alone: true,
            ..io(0, write, 8)
        });
        lanes.push(io(0, write, 9));
        let expected = [
            (0, vec![4, 5]),
            (0, vec![6]),
            (0, vec![7]),
            (0, vec![8]),
            (0, vec![9]),
            (0, vec![9]),
            (0, vec![15]),
            (0, vec![16, 17]),
            (0, vec![1 << 51]),
            (3, vec![7]),
        ];
        assert_eq!(requests(&mut lanes, 2, 16), expected);
        assert_eq!(requests(&mut lanes, 2, 16), []);
    }

    #[test]
    fn more_than_there_are_places_come_out_too() {
        let mut lanes = Lanes::new(3);
        let count = (2 << PLACE) + 3;
        for number in (0..count).rev() {
            lanes.push(io(1, PageOp::Read, number));
        }
        let mut numbers: Vec<_> = requests(&mut lanes, 64, u64::MAX)
            .into_iter()
            .flat_map(|(_, numbers)| numbers)
            .collect();
        numbers.sort_unstable();
        assert!(numbers.into_iter().eq(0..count));
    }

    #[test]
    fn what_is_taken_out_does_not_come_out() {
        let mut lanes = Lanes::new(3);
        for number in 0..6 {
            lanes.push(io((number % 2) as u8, PageOp::Read, number));
        }
        let taken = lanes.take_if(|io| io.slot == 1 || io.number == 2);
        let taken: Vec<_> = taken.iter().map(|io| io.number).collect();
        assert_eq!(taken, [2, 1, 3, 5]);
        assert_eq!(
            requests(&mut lanes, 2, u64::MAX),
            [(0, vec![0]), (0, vec![4])]
        );
    }
}
