//! Stripewise: a polled-mode RAID5 storage target.

pub mod bdev;
pub mod bench;
pub mod cli;
pub mod control;
pub mod initiator;
pub mod loadgen;
mod lock;
pub mod md;
pub mod memory;
pub mod nvme;
pub mod nvmf;
pub mod raid;
pub mod reactor;
pub mod rpc;
pub mod serve;
pub mod xor;
