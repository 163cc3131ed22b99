//! What a completion means for the request behind it.

use super::super::super::{Op, Status};
use crate::nvme::Status as NvmeStatus;

/// What becomes of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ended like this.
    Done(Status),
    /// It may succeed if it is sent again.
    Again,
}

/// Reads the status of a completion of one of `op`'s commands.
pub(super) fn outcome(status: NvmeStatus, op: Op) -> Outcome {
    if status.is_success() {
        return Outcome::Done(Status::Ok);
    }
    let is_one_of = |list: &[NvmeStatus]| list.iter().any(|&other| status.is(other));
    if is_one_of(&[NvmeStatus::COMPARE_FAILURE]) {
        return Outcome::Done(Status::Miscompare);
    }
    if is_one_of(&[NvmeStatus::LBA_OUT_OF_RANGE]) {
        return Outcome::Done(Status::OutOfRange);
    }
    if is_one_of(&[NvmeStatus::INVALID_OPCODE, NvmeStatus::INVALID_FIELD]) {
        return Outcome::Done(Status::Unsupported);
    }
    if is_one_of(&[NvmeStatus::INVALID_NAMESPACE_OR_FORMAT]) {
        return Outcome::Done(Status::Gone);
    }
    let may_pass = is_one_of(&[
        NvmeStatus::INTERNAL_ERROR,
        NvmeStatus::DATA_TRANSFER_ERROR,
        NvmeStatus::ABORTED_SQ_DELETION,
        NvmeStatus::COMMAND_INTERRUPTED,
        NvmeStatus::TRANSIENT_TRANSPORT_ERROR,
        NvmeStatus::NAMESPACE_NOT_READY,
    ]);
    match may_pass && !status.do_not_retry() {
        true => Outcome::Again,
        false => Outcome::Done(op.failure()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_what_a_raid_can_deal_with() {
        let write = Op::Write { fua: false };
        let done = |status: NvmeStatus, op| match outcome(status, op) {
            Outcome::Done(status) => status,
            Outcome::Again => panic!("{status} is for good"),
        };
        // The numbers of the specification, as a device sends them.
        assert_eq!(done(NvmeStatus::new(0, 0), Op::Read), Status::Ok);
        assert_eq!(
            done(NvmeStatus::new(2, 0x81), Op::Read),
            Status::MediumError
        );
        assert_eq!(done(NvmeStatus::new(2, 0x80), write), Status::WriteFault);
        assert_eq!(
            done(NvmeStatus::new(2, 0x85), Op::Compare),
            Status::Miscompare
        );
        assert_eq!(done(NvmeStatus::new(0, 0x80), Op::Read), Status::OutOfRange);
        assert_eq!(
            done(NvmeStatus::new(0, 0x01), Op::Flush),
            Status::Unsupported
        );
        assert_eq!(done(NvmeStatus::new(0, 0x0b), Op::Read), Status::Gone);
        // Write protected, capacity exceeded, vendor specific.
        assert_eq!(done(NvmeStatus::new(0, 0x20), write), Status::WriteFault);
        assert_eq!(done(NvmeStatus::new(0, 0x81), write), Status::WriteFault);
        assert_eq!(
            done(NvmeStatus::new(7, 0x11), Op::Read),
            Status::MediumError
        );
        // What we aborted is not tried again.
        assert_eq!(
            done(NvmeStatus::new(0, 0x07), Op::Flush),
            Status::WriteFault
        );
    }

    #[test]
    fn what_may_pass_is_tried_again_unless_the_device_says_no() {
        for code in [0x04, 0x06, 0x08, 0x21, 0x22, 0x82] {
            let status = NvmeStatus::new(0, code);
            assert_eq!(outcome(status, Op::Read), Outcome::Again, "{status}");
            let never = outcome(status.with_do_not_retry(), Op::Read);
            assert_eq!(never, Outcome::Done(Status::MediumError));
        }
    }
}
