//! Stripewise: a polled-mode RAID5 storage target.

pub mod bdev;
pub mod memory;
pub mod nvmf;
pub mod xor;
