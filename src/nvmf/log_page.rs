//! What a controller answers to Get Log Page.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use zerocopy::{FromZeros, IntoBytes};

use super::counts::Counts;
use super::event_log::Lifetime;
use super::identify::firmware_revision;
use super::view::DiscoveryView;
use crate::nvme::Nqn;
use crate::nvme::feature::FeatureId;
use crate::nvme::identify::NamespaceList;
use crate::nvme::log_page::{
    CommandEffects, DiscoveryEntry, DiscoveryHeader, FeatureEffects, FirmwareSlots, Health,
    LogPageId, SecureChannel, SubsystemType, SupportedLogPages,
};
use crate::nvme::opcode::{AdminOpcode, IoOpcode};

/// Composite temperature that is told, in kelvin: 0 would be taken for an absurd reading by tools.
const TEMPERATURE: u16 = 293;

/// Pages of an I/O controller.
pub const IO_PAGES: &[LogPageId] = &[
    LogPageId::SupportedLogPages,
    LogPageId::ErrorInformation,
    LogPageId::Health,
    LogPageId::FirmwareSlots,
    LogPageId::ChangedNamespaces,
    LogPageId::CommandEffects,
    LogPageId::FeatureEffects,
    LogPageId::MiEffects,
    LogPageId::ReservationNotification,
];

/// Pages of a discovery controller.
pub const DISCOVERY_PAGES: &[LogPageId] = &[
    LogPageId::SupportedLogPages,
    LogPageId::FeatureEffects,
    LogPageId::Discovery,
];

/// Admin commands of an I/O controller.
const ADMIN_COMMANDS: &[AdminOpcode] = &[
    AdminOpcode::GetLogPage,
    AdminOpcode::Identify,
    AdminOpcode::Abort,
    AdminOpcode::SetFeatures,
    AdminOpcode::GetFeatures,
    AdminOpcode::AsyncEventRequest,
    AdminOpcode::KeepAlive,
];

/// I/O commands of an I/O controller.
const IO_COMMANDS: &[IoOpcode] = &[
    IoOpcode::Flush,
    IoOpcode::Write,
    IoOpcode::Read,
    IoOpcode::Compare,
    IoOpcode::WriteZeroes,
    IoOpcode::DatasetManagement,
    IoOpcode::ReservationRegister,
    IoOpcode::ReservationReport,
    IoOpcode::ReservationAcquire,
    IoOpcode::ReservationRelease,
];

/// Which pages there are (00h).
pub fn supported(pages: &[LogPageId]) -> Vec<u8> {
    SupportedLogPages::from_pages(pages).as_bytes().to_vec()
}

/// Which features there are (12h).
pub fn features(features: &[FeatureId]) -> Vec<u8> {
    FeatureEffects::from_features(features).as_bytes().to_vec()
}

/// Health (02h): a device of this kind does not wear. `errors`: entries of error information so far;
/// `counts`: what was moved; `lifetime`: how often the subsystem was started, where that is known.
pub fn health(
    errors: u64,
    counts: &Counts,
    lifetime: Option<&Lifetime>,
    now: Instant,
) -> [u8; 512] {
    let mut health = Health::new_zeroed();
    health.temperature = TEMPERATURE.into();
    health.host_reads = u128::from(counts.reads).into();
    health.host_writes = u128::from(counts.writes).into();
    health.data_units_read = Health::data_units(counts.bytes_read.into()).into();
    health.data_units_written = Health::data_units(counts.bytes_written.into()).into();
    health.error_entries = u128::from(errors).into();
    if let Some(lifetime) = lifetime {
        health.power_cycles = u128::from(lifetime.cycles).into();
        health.power_on_hours = lifetime.hours(now).into();
    }
    health.available_spare = 100;
    health.available_spare_threshold = 10;
    zerocopy::transmute!(health)
}

/// Firmware slots (03h): one, active.
pub fn firmware() -> Vec<u8> {
    FirmwareSlots::single(firmware_revision())
        .as_bytes()
        .to_vec()
}

/// Commands supported and effects (05h).
pub fn commands() -> Vec<u8> {
    let effects = CommandEffects::from_commands(ADMIN_COMMANDS, IO_COMMANDS);
    effects.as_bytes().to_vec()
}

/// Management commands supported and effects (13h): none.
pub fn management() -> Vec<u8> {
    vec![0; 4096]
}

/// Changed namespaces (04h); more than 1024 are told as all.
pub fn changed_namespaces(nsids: impl ExactSizeIterator<Item = u32>) -> Vec<u8> {
    let list = match nsids.len() {
        0..=1024 => NamespaceList::from_ids(nsids),
        _ => NamespaceList::overflow(),
    };
    list.as_bytes().to_vec()
}

/// The discovery log (70h) as a host sees it that came in at `local`: the ports of every subsystem
/// that it may use, and other discovery services. A port on every address is told as the address that
/// the host knows already.
pub fn discovery(view: &DiscoveryView, hostnqn: &Nqn, local: SocketAddr) -> Vec<u8> {
    let mut entries = Vec::new();
    for subsystem in &view.subsystems {
        if !subsystem.access.allows(hostnqn.as_str()) {
            continue;
        }
        for &listener in &subsystem.listeners {
            let reached = reached(listener, local);
            let port_id = entries.len() as u16;
            let entry = DiscoveryEntry::tcp(
                SubsystemType::Nvm,
                &subsystem.nqn,
                reached,
                port_id,
                view.admin_queue_entries,
            );
            entries.push(entry);
        }
    }
    for referral in &view.referrals {
        let kind = match referral.subnqn.is_discovery() {
            true => SubsystemType::Referral,
            false => SubsystemType::Nvm,
        };
        let mut entry = DiscoveryEntry::tcp(
            kind,
            &referral.subnqn,
            referral.address.0,
            entries.len() as u16,
            view.admin_queue_entries,
        );
        if referral.secure_channel {
            entry.treq = SecureChannel::Required.code();
        }
        entries.push(entry);
    }
    let header = DiscoveryHeader::new(view.generation, entries.len() as u64);
    let mut page = header.as_bytes().to_vec();
    for entry in &entries {
        page.extend_from_slice(entry.as_bytes());
    }
    page
}

fn reached(listener: SocketAddr, local: SocketAddr) -> SocketAddr {
    let wildcard = listener.ip().is_unspecified();
    // A listener on :: is reached over IPv4 as well.
    let local_ip = match local.ip() {
        IpAddr::V6(ip) => ip.to_ipv4_mapped().map_or(local.ip(), IpAddr::V4),
        IpAddr::V4(_) => local.ip(),
    };
    let fits = listener.is_ipv6() || local_ip.is_ipv4();
    if wildcard && fits {
        SocketAddr::new(local_ip, listener.port())
    } else {
        listener
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_on_every_address_is_told_as_the_one_the_host_knows() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let cases = [
            ("10.0.0.1:4420", "10.0.0.9:8009", "10.0.0.1:4420"),
            ("0.0.0.0:4420", "10.0.0.9:8009", "10.0.0.9:4420"),
            ("[::]:4420", "[fe80::1]:8009", "[fe80::1]:4420"),
            ("[::]:4420", "[::ffff:10.0.0.9]:8009", "10.0.0.9:4420"),
            ("0.0.0.0:4420", "[fe80::1]:8009", "0.0.0.0:4420"),
        ];
        for (listener, local, told) in cases {
            assert_eq!(reached(at(listener), at(local)), at(told));
        }
    }
}
