//! Arbitrary data structures, as a host reads them from a controller and a controller from a host: no panic, no
//! endless list.
#![no_main]

use libfuzzer_sys::fuzz_target;
use stripewise::nvme::Nqn;
use stripewise::nvme::dhchap::{HostMessage, Secret};
use stripewise::nvme::dsm::ranges_of;
use stripewise::nvme::fabrics::{ConnectData, ConnectParameter, ConnectResult};
use stripewise::nvme::identify::{
    ControllerList, IdentifyController, IdentifyNamespace, NamespaceList, descriptors,
};
use stripewise::nvme::log_page::{discovery_entries, portion};
use stripewise::nvme::property::{Capabilities, Configuration, ControllerStatus};
use zerocopy::FromBytes;

fuzz_target!(|input: &[u8]| {
    assert!(descriptors(input).count() <= input.len());
    assert!(ranges_of(input).len() == input.len() / 16);
    if let Some((_, entries)) = discovery_entries(input) {
        for entry in entries {
            let _ = (
                entry.subsystem(),
                entry.address_text(),
                entry.service_text(),
                entry.tcp_address(),
            );
        }
    }
    if let Ok((_, HostMessage::Reply(reply))) = HostMessage::parse(input) {
        let parts = 2 * reply.response.len() + reply.value.len();
        assert_eq!(16 + parts, input.len());
    }
    let _ = Secret::parse(input);
    if let Ok((data, _)) = ConnectData::ref_from_prefix(input) {
        for name in [data.subsystem(), data.host()].into_iter().flatten() {
            assert_eq!(Nqn::from_field(&name.to_field()), Ok(name));
        }
        let _ = (data.subsystem_text(), data.host_text());
    }
    if let Ok((identify, _)) = IdentifyController::ref_from_prefix(input) {
        let _ = (
            identify.max_transfer(identify.rab),
            identify.in_capsule_data(),
            identify.subsystem(),
        );
    }
    if let Ok((identify, _)) = IdentifyNamespace::ref_from_prefix(input) {
        let _ = identify.block_size();
    }
    if let Ok((list, _)) = NamespaceList::ref_from_prefix(input) {
        assert!(list.iter().count() <= 1024);
    }
    if let Ok((list, _)) = ControllerList::ref_from_prefix(input) {
        assert!(list.iter().count() <= 2047);
    }
    if let Some((word, rest)) = input.split_first_chunk() {
        let word = u64::from_le_bytes(*word);
        let _ = portion(rest, word, word.rotate_left(7));
        let capabilities = Capabilities::from_value(word);
        assert_eq!(Capabilities::from_value(capabilities.value()), capabilities);
        let low = (word & 0xffff_ffff) as u32;
        let _ = (
            Configuration(low).shutdown(),
            ConnectParameter::from_result(low),
        );
        assert_eq!(ConnectResult::from_dword(low).dword(), low & 0x0006_ffff);
        let status = ControllerStatus::from_value(low);
        assert_eq!(ControllerStatus::from_value(status.value()), status);
    }
});
