//! How a device's answer is told to a host.

use crate::bdev;
use crate::nvme::Status;

/// The NVMe status for a device's.
///
/// A device that is gone or offline must make hosts give the command up, for no other path leads
/// to it and repeating does not help: Internal Error with Do Not Retry. A path related status would
/// make a multipath host queue the command until another path comes, for ever.
pub fn of_device(status: bdev::Status) -> Status {
    match status {
        bdev::Status::Ok => Status::SUCCESS,
        bdev::Status::MediumError => Status::UNRECOVERED_READ_ERROR.with_do_not_retry(),
        bdev::Status::WriteFault => Status::WRITE_FAULT.with_do_not_retry(),
        bdev::Status::Gone | bdev::Status::Offline => Status::INTERNAL_ERROR.with_do_not_retry(),
        bdev::Status::OutOfRange => Status::LBA_OUT_OF_RANGE.with_do_not_retry(),
        bdev::Status::Miscompare => Status::COMPARE_FAILURE.with_do_not_retry(),
        bdev::Status::Unsupported => Status::INVALID_OPCODE.with_do_not_retry(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_final_and_has_its_code() {
        // Status codes as the Base specification numbers them: SCT << 8 | SC.
        let codes = [
            (bdev::Status::MediumError, 0x281),
            (bdev::Status::WriteFault, 0x280),
            (bdev::Status::Gone, 0x006),
            (bdev::Status::Offline, 0x006),
            (bdev::Status::OutOfRange, 0x080),
            (bdev::Status::Miscompare, 0x285),
            (bdev::Status::Unsupported, 0x001),
        ];
        for (status, code) in codes {
            assert_eq!(of_device(status).code(), code);
            assert!(of_device(status).do_not_retry());
        }
        assert!(of_device(bdev::Status::Ok).is_success());
    }
}
