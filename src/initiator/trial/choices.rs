//! Bytes that decide something.

/// The bytes of an input that are left. Where there are none any more, all are 0.
#[derive(Clone, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// The choices that `input` makes.
    pub fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    /// Whether all have been made.
    pub fn are_made(&self) -> bool {
        self.0.is_empty()
    }

    /// At most `len` bytes, as they are.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    /// A number of `N` bytes.
    fn number<const N: usize>(&mut self) -> [u8; N] {
        let mut number = [0; N];
        let bytes = self.bytes(N);
        number[..bytes.len()].copy_from_slice(bytes);
        number
    }

    /// A byte.
    pub fn u8(&mut self) -> u8 {
        self.number::<1>()[0]
    }

    /// Two bytes.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.number())
    }

    /// Four bytes.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.number())
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.number())
    }
}
