//! Who is behind each token of the device below: a fixed table, made once.

/// At most as many entries as it was made for, each under an index that stays while it is in.
#[derive(Debug)]
pub(super) struct Slots<T> {
    entries: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    pub(super) fn new(capacity: u32) -> Self {
        Self {
            entries: (0..capacity).map(|_| None).collect(),
            free: (0..capacity).rev().collect(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Puts an entry in and answers its index. Panics when full.
    pub(super) fn insert(&mut self, entry: T) -> u32 {
        let index = self.free.pop().expect("a free slot");
        self.entries[index as usize] = Some(entry);
        index
    }

    /// The entry. Panics when there is none.
    pub(super) fn get_mut(&mut self, index: u32) -> &mut T {
        let entry = self.entries[index as usize].as_mut();
        entry.expect("a slot in use")
    }

    /// Takes the entry out. Panics when there is none: nothing completes twice.
    pub(super) fn take(&mut self, index: u32) -> T {
        let entry = self.entries[index as usize].take();
        self.free.push(index);
        entry.expect("a slot in use")
    }

    /// Takes any entry out; `None` when there is none left.
    pub(super) fn take_any(&mut self) -> Option<T> {
        let index = self.entries.iter().position(Option::is_some)?;
        Some(self.take(index as u32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_is_free_again_after_take() {
        let mut slots = Slots::new(2);
        let a = slots.insert('a');
        let b = slots.insert('b');
        assert!(slots.len() == 2 && a != b);
        assert_eq!(slots.take(a), 'a');
        assert_eq!(slots.len(), 1);
        assert_eq!(slots.insert('c'), a);
        assert_eq!((slots.take(b), slots.take(a)), ('b', 'c'));
    }

    #[test]
    fn any_is_taken_until_none_is_left() {
        let mut slots = Slots::new(3);
        let [a, _, _] = ['a', 'b', 'c'].map(|entry| slots.insert(entry));
        slots.take(a);
        let mut rest: Vec<char> = std::iter::from_fn(|| slots.take_any()).collect();
        rest.sort_unstable();
        assert_eq!((rest, slots.len()), (vec!['b', 'c'], 0));
    }

    #[test]
    #[should_panic(expected = "a slot in use")]
    fn nothing_is_taken_twice() {
        let mut slots = Slots::new(1);
        let a = slots.insert(());
        slots.take(a);
        slots.take(a);
    }
}
