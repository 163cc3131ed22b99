//! What a window rebuilds, or compares with its parity: all others are read, and their XOR is what one lacks,
//! or nothing.

use smallvec::SmallVec;

use super::{Cause, Stage, Stretch, Swath};
use crate::bdev::{Data, Op};
use crate::memory::BufMut;
use crate::raid::gather::push;
use crate::raid::shard::Shard;
use crate::raid::view::Work;
use crate::xor;

/// Most stripes of a swath of a window. With more, what is read would not be in the core's cache any more when
/// it is added up.
pub(super) const STRIPES: u64 = 16;

impl Stretch {
    /// The slot whose member is to be written, if there is one.
    fn target(&self) -> Option<usize> {
        match self.cause {
            Cause::Window { work, .. } => match work {
                Work::Rebuild(slot) => Some(slot),
                Work::Resync => Some(self.parity),
                Work::Check | Work::Repair | Work::Replace(_) => None,
            },
            Cause::Host { .. } => None,
        }
    }
}

impl Shard {
    /// Takes the stretch that begins with a stripe of a window. Returns how many stripes that are; `None`
    /// where it is to be done stripe by stripe.
    pub(in crate::raid) fn take_work(
        &mut self,
        first: u64,
        row: u64,
        epoch: u64,
        work: Work,
    ) -> Option<u32> {
        let view = &self.view;
        let plain = view.bad.is_none() && self.settled.bad.is_none() && view.replacement.is_none();
        let others = match work {
            Work::Rebuild(slot) => view.in_sync(row) && view.writable(slot, row),
            Work::Resync => view.degraded.is_none(),
            Work::Check | Work::Repair => view.degraded.is_none() && view.in_sync(row),
            Work::Replace(_) => false,
        };
        if !self.swaths.begins_at(first) || !plain || !others {
            return None;
        }
        let stripes = self.swaths.stripes();
        let sources = self.geometry.members() - usize::from(!work.is_comparison());
        if !self.set_apart(first, sources * stripes as usize) {
            return None;
        }
        self.swaths.gathered.push(Stretch {
            first,
            row,
            parity: self.geometry.parity_member(row),
            cause: Cause::Window { epoch, work },
        });
        Some(stripes as u32)
    }

    /// Reads what a swath of a window needs.
    pub(super) fn read_swath(&mut self, stretches: SmallVec<[Stretch; 4]>, epoch: u64) {
        if !self.is_open(epoch) {
            for stretch in &stretches {
                self.swaths.held.remove(&stretch.first);
            }
            return;
        }
        let (stripes, members) = (self.swaths.stripes() as usize, self.geometry.members());
        let mut pages = self.swaths.lists.pop().unwrap_or_default();
        pages.resize_with(stretches.len() * members * stripes, || None);
        let targets: SmallVec<[_; 4]> = stretches.iter().map(Stretch::target).collect();
        let key = self.swaths.under_way.insert(Swath {
            stretches,
            stage: Stage::Reading,
            pages,
            in_flight: 0,
            failed: false,
        }) as u32;
        for slot in 0..members {
            for (from, count) in runs(&targets, |target| target != Some(slot)) {
                self.counters.pages_read += (count * stripes) as u64;
                let mut into = self.lists.into.pop().unwrap_or_default();
                let rest = self.swaths.set_apart.len() - count * stripes;
                into.extend(self.swaths.set_apart.drain(rest..));
                self.ask_for_swath(key, slot, (from, count), Op::Read, Data::Read(into));
            }
        }
    }

    /// All that a swath of a window needs was read, or could not be.
    pub(super) fn all_of_swath_read(&mut self, key: u32) {
        let (stripes, members) = (self.swaths.stripes() as usize, self.geometry.members());
        let swath = &mut self.swaths.under_way[key as usize];
        let mut pages = std::mem::take(&mut swath.pages);
        let targets: SmallVec<[_; 4]> = swath.stretches.iter().map(Stretch::target).collect();
        let Cause::Window { epoch, .. } = swath.stretches[0].cause else {
            unreachable!("what a host writes is not read");
        };
        swath.stage = Stage::Writing;
        let good = !swath.failed && self.view.online && self.is_open(epoch);
        if good {
            let of_stretch = pages.chunks_exact_mut(members * stripes);
            let alike = targets.iter().zip(of_stretch);
            let matches = alike.fold(true, |matches, (&target, pages)| {
                matches & add_up(pages, stripes, target)
            });
            self.swaths.under_way[key as usize].failed = !matches;
            for slot in 0..members {
                for (from, count) in runs(&targets, |target| target == Some(slot)) {
                    let mut bytes = self.lists.from.pop().unwrap_or_default();
                    for stretch in from..from + count {
                        let column = (stretch * members + slot) * stripes;
                        for page in &mut pages[column..column + stripes] {
                            let page = page.take().expect("computed above");
                            push(&mut bytes, page.freeze());
                        }
                    }
                    self.counters.reconstructed += (count * stripes) as u64;
                    let op = Op::Write { fua: false };
                    self.ask_for_swath(key, slot, (from, count), op, Data::Write(bytes));
                }
            }
        }
        // What is not written is of no use any more.
        for page in pages.iter_mut().filter_map(Option::take) {
            self.cache.pages.give(page);
        }
        let swath = &mut self.swaths.under_way[key as usize];
        swath.pages = pages;
        if swath.in_flight == 0 {
            self.end_swath(key);
        }
    }
}

/// Where stretches that follow one another begin whose targets `are` so, and how many they are.
fn runs(
    targets: &[Option<usize>],
    are: impl Fn(Option<usize>) -> bool,
) -> impl Iterator<Item = (usize, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        at += targets[at..]
            .iter()
            .take_while(|&&target| !are(target))
            .count();
        let count = targets[at..]
            .iter()
            .take_while(|&&target| are(target))
            .count();
        let run = (at, count);
        at += count;
        (count > 0).then_some(run)
    })
}

/// Makes the pages of a target from those of all others; without a target, says whether they add up to
/// nothing.
fn add_up(pages: &mut [Option<BufMut>], stripes: usize, target: Option<usize>) -> bool {
    let slots = pages.len() / stripes;
    for index in 0..stripes {
        let Some(target) = target else {
            if !xor::equal_xor(&column(pages, index, stripes)) {
                return false;
            }
            continue;
        };
        // One that was read becomes the one that is computed: it is in the core's cache.
        let other = (target + 1) % slots;
        let mut sum = pages[other * stripes + index].take().expect("read");
        xor::xor_assign(&mut sum, &column(pages, index, stripes));
        pages[target * stripes + index] = Some(sum);
    }
    true
}

/// The pages of one stripe.
#[inline(always)]
fn column(pages: &[Option<BufMut>], index: usize, stripes: usize) -> SmallVec<[&[u8]; 16]> {
    // Filled where it is used: to move it would cost as much.
    let mut column = SmallVec::new();
    for page in pages[index..].iter().step_by(stripes).flatten() {
        column.push(&page[..]);
    }
    column
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_as_long_as_they_can_be() {
        let targets = [None, Some(1), Some(1), Some(0), None, Some(1)];
        let all = |are: fn(Option<usize>) -> bool| runs(&targets, are).collect::<Vec<_>>();
        assert_eq!(all(|target| target == Some(1)), [(1, 2), (5, 1)]);
        assert_eq!(all(|target| target != Some(1)), [(0, 1), (3, 2)]);
        assert_eq!(all(|target| target == Some(7)), []);
        assert_eq!(all(|_| true), [(0, 6)]);
    }
}
