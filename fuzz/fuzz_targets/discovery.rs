//! Arbitrary bytes as the log page of a discovery service: see `src/bdev/nvme/tcp/trial.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::bdev::nvme::tcp::discovery;

fuzz_target!(|input: &[u8]| discovery(input));
