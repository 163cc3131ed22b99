//! The discovery service announced by multicast DNS (RFC 6762, RFC 6763; NVMe's TP 8009), so that
//! hosts of the same network find it by themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use mdns_sd::{ServiceDaemon, ServiceInfo};

use super::ControlError;
use crate::nvmf::DISCOVERY_NQN;

/// The type of discovery services over TCP.
const SERVICE: &str = "_nvme-disc._tcp.local.";

/// How long the network is told that a service has ended.
const GOODBYE: Duration = Duration::from_millis(500);

/// What is announced, until it is dropped. A thread of its own answers.
pub struct Announcement {
    daemon: ServiceDaemon,
    host: String,
    addresses: Vec<SocketAddr>,
    /// What is registered, and under which full name.
    told: Vec<(Place, String)>,
}

impl fmt::Debug for Announcement {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Announcement")
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

impl Announcement {
    /// Nothing is announced yet.
    ///
    /// # Errors
    /// [`ControlError::Announcement`] when multicast DNS cannot be spoken.
    pub fn begin() -> Result<Self, ControlError> {
        let daemon = ServiceDaemon::new().map_err(failed)?;
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        // The first label: what follows is not of this network's making.
        let host = host.trim().split('.').next().unwrap_or_default();
        Ok(Self {
            daemon,
            host: match host {
                "" => "stripewise".to_owned(),
                host => host.to_owned(),
            },
            addresses: Vec::new(),
            told: Vec::new(),
        })
    }

    /// Announces the service at these addresses and at no others. Does nothing where they are those
    /// of before.
    pub fn tell(&mut self, addresses: &[SocketAddr]) {
        if self.addresses == addresses {
            return;
        }
        self.addresses = addresses.to_vec();
        let mut places = places(addresses);
        for (place, name) in std::mem::take(&mut self.told) {
            // What stays is not taken back in between.
            match places.iter().position(|new| *new == place) {
                Some(at) => self.told.push((places.remove(at), name)),
                // With other addresses it is told anew below, under the same name.
                None if places.iter().any(|new| new.port == place.port) => {}
                None => self.end(&name),
            }
        }
        for place in places {
            match self.register(&place) {
                Ok(name) => self.told.push((place, name)),
                Err(error) => tracing::warn!("the discovery service is not announced: {error}"),
            }
        }
    }

    /// Announces one place; gives its full name.
    fn register(&self, place: &Place) -> Result<String, mdns_sd::Error> {
        let info = place.service(&self.host)?;
        let name = info.get_fullname().to_owned();
        self.daemon.register(info)?;
        Ok(name)
    }

    fn end(&self, name: &str) {
        // What it has to say comes from its thread; nobody waits for that.
        if let Err(error) = self.daemon.unregister(name) {
            tracing::debug!("{name} stays announced until it is forgotten: {error}");
        }
    }
}

impl Drop for Announcement {
    fn drop(&mut self) {
        let names = self.told.iter().map(|(_, name)| name);
        let ends: Vec<_> = names
            .filter_map(|n| self.daemon.unregister(n).ok())
            .collect();
        // However many there are: the control thread does not wait longer for them than for one.
        let until = Instant::now() + GOODBYE;
        for ended in ends {
            let _ = ended.recv_deadline(until);
        }
        let _ = self.daemon.shutdown();
    }
}

fn failed(error: mdns_sd::Error) -> ControlError {
    ControlError::Announcement(error.to_string())
}

/// A port, and the addresses where it is open.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    port: u16,
    /// None for all of this machine's.
    addresses: Option<Vec<IpAddr>>,
}

impl Place {
    fn service(&self, host: &str) -> Result<ServiceInfo, mdns_sd::Error> {
        let name = format!("stripewise-{host}-{}", self.port);
        let properties = [("p", "tcp"), ("nqn", DISCOVERY_NQN)];
        let addresses = self.addresses.clone().unwrap_or_default();
        let host = format!("{host}.local.");
        let info = ServiceInfo::new(
            SERVICE,
            &name,
            &host,
            &addresses[..],
            self.port,
            &properties[..],
        )?;
        Ok(match self.addresses {
            None => info.enable_addr_auto(),
            Some(_) => info,
        })
    }
}

/// The addresses by port. Those that only this machine reaches are left out.
fn places(addresses: &[SocketAddr]) -> Vec<Place> {
    let mut ports: BTreeMap<u16, Option<Vec<IpAddr>>> = BTreeMap::new();
    for address in addresses.iter().filter(|a| !a.ip().is_loopback()) {
        let known = ports
            .entry(address.port())
            .or_insert_with(|| Some(Vec::new()));
        match known {
            _ if address.ip().is_unspecified() => *known = None,
            Some(known) => known.push(address.ip()),
            None => {}
        }
    }
    let place = |(port, addresses)| Place { port, addresses };
    ports.into_iter().map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_by_port_and_loopback_is_not() {
        let told = places(&[
            "10.0.0.1:4420".parse().unwrap(),
            "10.0.0.2:4420".parse().unwrap(),
            "127.0.0.1:4420".parse().unwrap(),
            "127.0.0.1:9".parse().unwrap(),
            "0.0.0.0:8009".parse().unwrap(),
            "10.0.0.1:8009".parse().unwrap(),
        ]);
        let two = ["10.0.0.1", "10.0.0.2"].map(|a| a.parse().unwrap());
        assert_eq!(
            told,
            [
                Place {
                    port: 4420,
                    addresses: Some(two.to_vec())
                },
                Place {
                    port: 8009,
                    addresses: None
                },
            ]
        );
        let info = told[0].service("box").unwrap();
        assert_eq!(
            info.get_fullname(),
            "stripewise-box-4420._nvme-disc._tcp.local."
        );
        assert_eq!((info.get_hostname(), info.get_port()), ("box.local.", 4420));
        assert_eq!(info.get_property_val_str("p"), Some("tcp"));
    }
}
