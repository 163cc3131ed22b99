//! What `serve` prints once everything is up: what it serves, and lines to paste.

use std::fmt::Write;

use super::serve::DEFAULT_SOCKET;
use crate::control::{ArrayInfo, System};
use crate::memory::PageKind;
use crate::nvmf::{ListenAddress, SubsystemInfo, SubsystemKind};
use crate::rpc::Address;

/// The text. `program` is how this program was called.
pub fn text(system: &System, rpc: &Address, program: &str) -> String {
    let mut out = String::new();
    let subsystems = system.target.subsystems();
    let subsystems: Vec<_> = subsystems
        .iter()
        .filter(|s| s.kind == SubsystemKind::Nvme)
        .collect();
    // Writing to a string cannot fail.
    let _ = writeln!(
        out,
        "Stripewise {} is up: {}.",
        env!("CARGO_PKG_VERSION"),
        machine(system)
    );
    for subsystem in &subsystems {
        let _ = write!(out, "{}", describe(system, subsystem));
    }
    let _ = writeln!(out, "RPC: {rpc}");
    let rpc = match *rpc == Address::from(DEFAULT_SOCKET) {
        true => format!("{program} rpc"),
        false => format!("{program} rpc -s {rpc}"),
    };
    let _ = writeln!(out, "Try:");
    let first = subsystems
        .iter()
        .find_map(|s| Some((s, s.listen_addresses.first()?)));
    if let Some((subsystem, address)) = first {
        let nqn = &subsystem.options.nqn;
        let (traddr, port) = (reachable(address), address.trsvcid());
        let _ = writeln!(out, "  nvme connect -t tcp -a {traddr} -s {port} -n {nqn}");
        let _ = writeln!(
            out,
            "  {program} perf --traddr {traddr} --trsvcid {port} --subnqn {nqn} --rw randwrite --bs 4k --iodepth 32 --runtime 10"
        );
    }
    if system.arrays.infos(&system.devices).is_empty() {
        let _ = writeln!(out, "  {rpc} rpc_get_methods");
    } else {
        let _ = writeln!(out, "  {rpc} bdev_raid_get_bdevs category=all");
    }
    out
}

fn machine(system: &System) -> String {
    let stats = system
        .reactors
        .as_ref()
        .map_or_else(Vec::new, |r| r.stats());
    let cores: Vec<String> = stats.iter().map(|s| s.core.to_string()).collect();
    let pages = match system.arena.page_kind() {
        PageKind::Huge => "huge",
        PageKind::Ordinary => "ordinary",
    };
    format!(
        "{} {}, {} of memory on {pages} pages",
        if cores.len() == 1 { "core" } else { "cores" },
        cores.join(","),
        size(system.arena.size() as u64),
    )
}

fn describe(system: &System, subsystem: &SubsystemInfo) -> String {
    let addresses: Vec<String> = subsystem
        .listen_addresses
        .iter()
        .map(|a| a.to_string())
        .collect();
    let place = match addresses.is_empty() {
        true => "without a listener".to_owned(),
        false => format!("at {}", addresses.join(", ")),
    };
    let mut out = format!("{} {place}\n", subsystem.options.nqn);
    for namespace in &subsystem.namespaces {
        let Ok(bdev) = system.devices.registry.get(&namespace.bdev_name) else {
            continue;
        };
        let info = bdev.info();
        let what = match system.arrays.info(&info.name, &system.devices) {
            Some(array) => raid(&array),
            None => info.product.to_owned(),
        };
        let bytes = size(info.bytes());
        let _ = writeln!(
            out,
            "  namespace {}: {}, {bytes}, {what}",
            namespace.nsid, info.name
        );
    }
    out
}

fn raid(array: &ArrayInfo) -> String {
    let members: Vec<&str> = array
        .slots
        .iter()
        .map(|slot| slot.name.as_deref().unwrap_or("(missing)"))
        .collect();
    format!(
        "RAID5 of {}, {} KiB chunk, {}",
        members.join(" "),
        array.options.strip_kb,
        array.state.name()
    )
}

/// The address that a host on this machine gives.
fn reachable(address: &ListenAddress) -> String {
    match address.0.ip() {
        ip if !ip.is_unspecified() => ip.to_string(),
        ip if ip.is_ipv4() => "127.0.0.1".to_owned(),
        _ => "::1".to_owned(),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut unit = 0;
    let mut whole = bytes;
    while whole >= 10 * 1024 && unit + 1 < UNITS.len() {
        whole /= 1024;
        unit += 1;
    }
    format!("{whole} {}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_with_two_digits_at_least() {
        assert_eq!(size(512), "512 bytes");
        assert_eq!(size(768 << 20), "768 MiB");
        assert_eq!(size(1 << 30), "1024 MiB");
        assert_eq!(size(3 << 40), "3072 GiB");
        assert_eq!(size(30 << 40), "30 TiB");
    }

    #[test]
    fn a_wildcard_is_reached_over_loopback() {
        let address = |text: &str| ListenAddress(text.parse().unwrap());
        assert_eq!(reachable(&address("0.0.0.0:1")), "127.0.0.1");
        assert_eq!(reachable(&address("[::]:1")), "::1");
        assert_eq!(reachable(&address("10.1.2.3:1")), "10.1.2.3");
    }
}
