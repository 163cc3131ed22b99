//! A controller that answers what the bytes say, against bring-up, devices and log pages of the initiator:
//! see `src/bdev/nvme/tcp/trial.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::bdev::nvme::tcp::association;

fuzz_target!(|input: &[u8]| association(input));
