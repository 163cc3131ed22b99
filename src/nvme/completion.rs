//! The 16-byte completion queue entry (Base 3.3.3.2).

use zerocopy::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::status::Status;

/// One completion. `status` is the raw field: [`Completion::status`] reads it.
#[derive(
    FromBytes,
    IntoBytes,
    KnownLayout,
    Immutable,
    Unaligned,
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
)]
#[repr(C)]
pub struct Completion {
    /// Dword 0: the result of the command, where it has one.
    pub dw0: U32,
    /// Dword 1: the upper half of a 64-bit result (Property Get), otherwise reserved.
    pub dw1: U32,
    /// How far the controller has come in the submission queue.
    pub sqhd: U16,
    /// Submission queue identifier; reserved on fabrics.
    pub sqid: U16,
    /// The command identifier of the command.
    pub cid: U16,
    /// Phase tag in bit 0 (0 on fabrics), status in the other bits.
    pub status_field: U16,
}

layout!(Completion, 16 bytes, {
    dw0 at 0, dw1 at 4, sqhd at 8, sqid at 10, cid at 12, status_field at 14,
});

impl Completion {
    /// A completion of command `cid` with no result; SQHD and SQID are 0.
    #[must_use]
    pub fn new(cid: u16, status: Status) -> Self {
        Self {
            cid: cid.into(),
            status_field: status.field().into(),
            ..Self::default()
        }
    }

    /// The same completion with dword 0 as the result.
    #[must_use]
    pub fn with_result(mut self, result: u32) -> Self {
        self.dw0 = result.into();
        self
    }

    /// The same completion with dwords 0 and 1 as a 64-bit result.
    #[must_use]
    pub fn with_result64(mut self, result: u64) -> Self {
        self.dw0 = ((result & 0xffff_ffff) as u32).into();
        self.dw1 = ((result >> 32) as u32).into();
        self
    }

    /// The same completion with the submission queue head.
    #[must_use]
    pub fn with_sqhd(mut self, sqhd: u16) -> Self {
        self.sqhd = sqhd.into();
        self
    }

    /// The status, without the phase tag.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::from_field(self.status_field.get())
    }

    /// The phase tag, for completion queues in memory.
    #[must_use]
    pub fn phase(&self) -> bool {
        self.status_field.get() & 1 == 1
    }

    /// Dwords 0 and 1 as one number.
    #[must_use]
    pub fn result64(&self) -> u64 {
        u64::from(self.dw1.get()) << 32 | u64::from(self.dw0.get())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_those_of_the_specification() {
        let completion = Completion::new(0x1234, Status::LBA_OUT_OF_RANGE.with_do_not_retry())
            .with_result(0x0403_0201)
            .with_sqhd(9);
        let bytes = [1, 2, 3, 4, 0, 0, 0, 0, 9, 0, 0, 0, 0x34, 0x12, 0x00, 0x81];
        assert_eq!(completion.as_bytes(), bytes);
        assert_eq!(
            completion.status(),
            Status::LBA_OUT_OF_RANGE.with_do_not_retry()
        );
        assert!(!completion.phase());
    }

    #[test]
    fn a_64_bit_result_spans_both_dwords() {
        let completion = Completion::new(1, Status::SUCCESS).with_result64(0x0807_0605_0403_0201);
        assert_eq!(completion.as_bytes()[..8], [1, 2, 3, 4, 5, 6, 7, 8]);
        assert_eq!(completion.result64(), 0x0807_0605_0403_0201);
    }
}
