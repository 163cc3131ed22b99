//! Arbitrary bytes as what a controller on the PCIe bus says of itself and its namespaces: see
//! `src/bdev/nvme/pcie/shape.rs`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::bdev::nvme::pcie::trial;

fuzz_target!(|input: &[u8]| {
    let mut pages = input.chunks(4096);
    let mut page = || pages.next().unwrap_or_default();
    trial([page(), page(), page()]);
});
