//! A target that does what the bytes say, against one queue of the initiator: see `src/initiator/trial`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::initiator::trial::session;

fuzz_target!(|input: &[u8]| session(input));
