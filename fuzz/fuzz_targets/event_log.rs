//! Arbitrary bytes as the file of a persistent event log: see `src/nvmf/event_log/file.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    stripewise::nvmf::event_log_trial(input);
});
