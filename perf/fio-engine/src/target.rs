//! Whom a job talks to: a transport id in a file name, as SPDK's engine has it, over the engine's options.
//!
//! ```text
//! filename=trtype=TCP adrfam=IPv4 traddr=127.0.0.1 trsvcid=4420 subnqn=nqn.2026-11.io.stripewise\:demo ns=1
//! ```
//! fio cuts file names at colons, so those of the names need a backslash. A file name without any `=` says nothing, and the
//! options say it all.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use stripewise::initiator::ControllerSettings;
use stripewise::nvme::Nqn;
use stripewise::nvme::nqn::NqnError;
use uuid::Uuid;

/// Why nobody can be talked to.
#[derive(Debug, thiserror::Error)]
pub enum TargetError {
    /// Something that had to be said was not.
    #[error("there is no {0}; give it as an option, or in filename= as in \"{EXAMPLE}\"")]
    Missing(&'static str),
    /// A word of the transport id is not one.
    #[error("filename: {0:?} is no part of a transport id; write one as in \"{EXAMPLE}\"")]
    Word(String),
    /// A value makes no sense.
    #[error("{key}={value}: {wanted} is wanted")]
    Value {
        /// Of what.
        key: String,
        /// The value.
        value: String,
        /// What would do.
        wanted: &'static str,
    },
    /// A name is not one.
    #[error("{key}: {source} (in filename= write its colons as \\:)")]
    Name {
        /// Which name.
        key: &'static str,
        /// Why not.
        source: NqnError,
    },
    /// The address does not resolve.
    #[error("traddr={address}: {source}; give an address or a name that resolves")]
    Address {
        /// The address.
        address: String,
        /// Why not.
        source: io::Error,
    },
    /// The address is none of the family.
    #[error("traddr={address} has no {family} address")]
    Family {
        /// The address.
        address: String,
        /// The family.
        family: &'static str,
    },
}

const EXAMPLE: &str = "trtype=TCP adrfam=IPv4 traddr=127.0.0.1 trsvcid=4420 subnqn=nqn.2026-11.io.stripewise\\:demo ns=1";

/// What is said of a target, by the options of a job or by the name of one of its files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// Address, or a name that resolves.
    pub traddr: Option<String>,
    /// `4` or `6` where only addresses of this family are wanted.
    pub adrfam: Option<u8>,
    /// Port; 4420 if nothing is said.
    pub trsvcid: Option<u16>,
    /// Name of the subsystem.
    pub subnqn: Option<String>,
    /// Namespace; 1 if nothing is said.
    pub nsid: Option<u32>,
    /// Name of this host; one of its own for each connection if nothing is said.
    pub hostnqn: Option<String>,
    /// Header digests.
    pub header_digest: Option<bool>,
    /// Data digests.
    pub data_digest: Option<bool>,
}

/// A namespace of a target, and how it is talked to.
#[derive(Clone, Debug)]
pub struct Target {
    /// Where it is.
    pub address: SocketAddr,
    /// The association to make.
    pub settings: ControllerSettings,
    /// Namespace identifier.
    pub nsid: u32,
}

impl Words {
    /// Reads a file name.
    ///
    /// # Errors
    /// [`TargetError::Word`], [`TargetError::Value`].
    pub fn of_filename(name: &str) -> Result<Self, TargetError> {
        let mut words = Self::default();
        if !name.contains('=') {
            return Ok(words);
        }
        for word in name.split_whitespace() {
            let pair = word.split_once('=');
            let (key, value) = pair.ok_or_else(|| TargetError::Word(word.to_owned()))?;
            let wrong = |wanted| TargetError::Value {
                key: key.to_owned(),
                value: value.to_owned(),
                wanted,
            };
            let flag = || match value {
                "0" => Ok(false),
                "1" => Ok(true),
                _ => Err(wrong("0 or 1")),
            };
            match key.to_ascii_lowercase().as_str() {
                "trtype" if value.eq_ignore_ascii_case("tcp") => {}
                "trtype" => return Err(wrong("TCP")),
                "adrfam" if value.eq_ignore_ascii_case("ipv4") => words.adrfam = Some(4),
                "adrfam" if value.eq_ignore_ascii_case("ipv6") => words.adrfam = Some(6),
                "adrfam" => return Err(wrong("IPv4 or IPv6")),
                "traddr" => words.traddr = Some(value.to_owned()),
                "trsvcid" => {
                    words.trsvcid = Some(value.parse().map_err(|_| wrong("a port"))?);
                }
                "subnqn" => words.subnqn = Some(value.to_owned()),
                "ns" | "nsid" => {
                    words.nsid = Some(value.parse().map_err(|_| wrong("a namespace identifier"))?);
                }
                "hostnqn" => words.hostnqn = Some(value.to_owned()),
                "hdgst" => words.header_digest = Some(flag()?),
                "ddgst" => words.data_digest = Some(flag()?),
                _ => return Err(TargetError::Word(word.to_owned())),
            }
        }
        Ok(words)
    }

    /// What is said here, and `otherwise` where nothing is.
    #[must_use]
    pub fn or(self, otherwise: Self) -> Self {
        Self {
            traddr: self.traddr.or(otherwise.traddr),
            adrfam: self.adrfam.or(otherwise.adrfam),
            trsvcid: self.trsvcid.or(otherwise.trsvcid),
            subnqn: self.subnqn.or(otherwise.subnqn),
            nsid: self.nsid.or(otherwise.nsid),
            hostnqn: self.hostnqn.or(otherwise.hostnqn),
            header_digest: self.header_digest.or(otherwise.header_digest),
            data_digest: self.data_digest.or(otherwise.data_digest),
        }
    }

    /// The target that is meant. It is given up when an answer takes longer than `patience`.
    ///
    /// # Errors
    /// [`TargetError`].
    pub fn target(self, patience: Duration) -> Result<Target, TargetError> {
        let traddr = self.traddr.ok_or(TargetError::Missing("traddr"))?;
        let subnqn = self.subnqn.ok_or(TargetError::Missing("subnqn"))?;
        let name =
            |key, text: &str| Nqn::new(text).map_err(|source| TargetError::Name { key, source });
        // An identifier for each association, even where hosts have a name: to a target, one that comes again is a host
        // whose old association is dead.
        let id = Uuid::new_v4();
        let host = match &self.hostnqn {
            Some(text) => name("hostnqn", text)?,
            None => Nqn::from_uuid(id),
        };
        let nsid = self.nsid.unwrap_or(1);
        Ok(Target {
            address: resolve(traddr, self.trsvcid.unwrap_or(4420), self.adrfam)?,
            settings: ControllerSettings {
                subsystem: name("subnqn", &subnqn)?,
                host,
                host_id: id.into_bytes(),
                header_digest: self.header_digest.unwrap_or(false),
                data_digest: self.data_digest.unwrap_or(false),
                // fio does not call an engine while it waits (rates, think times), so nobody could keep it alive.
                keep_alive: Duration::ZERO,
                patience,
                io_queues: 1,
                namespace: Some(nsid),
                events: false,
            },
            nsid,
        })
    }
}

fn resolve(address: String, port: u16, family: Option<u8>) -> Result<SocketAddr, TargetError> {
    let found = (address.as_str(), port).to_socket_addrs();
    let mut found = match found {
        Ok(found) => found,
        Err(source) => return Err(TargetError::Address { address, source }),
    };
    let wanted = |found: &SocketAddr| family.is_none_or(|family| (family == 6) == found.is_ipv6());
    let family = match family {
        Some(4) => "IPv4",
        Some(_) => "IPv6",
        None => "IP",
    };
    found
        .find(wanted)
        .ok_or(TargetError::Family { address, family })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(filename: &str, options: Words) -> Result<Target, String> {
        let words = Words::of_filename(filename).map_err(|e| e.to_string())?;
        let target = words.or(options).target(Duration::from_secs(1));
        target.map_err(|e| e.to_string())
    }

    #[test]
    fn a_transport_id_says_it_all() {
        let text = "trtype=tcp adrfam=IPv4 traddr=127.0.0.1 trsvcid=4421 subnqn=nqn.2026-11.io.stripewise:demo ns=3 \
                    hostnqn=nqn.2026-11.io.stripewise:host hdgst=1 ddgst=0";
        let target = target(text, Words::default()).unwrap();
        assert_eq!(target.address.to_string(), "127.0.0.1:4421");
        assert_eq!(target.nsid, 3);
        assert_eq!(target.settings.namespace, Some(3));
        assert_eq!(
            target.settings.subsystem.as_str(),
            "nqn.2026-11.io.stripewise:demo"
        );
        assert_eq!(
            target.settings.host.as_str(),
            "nqn.2026-11.io.stripewise:host"
        );
        assert!(target.settings.header_digest && !target.settings.data_digest);
    }

    #[test]
    fn options_speak_where_the_filename_does_not() {
        let options = Words {
            traddr: Some("::1".to_owned()),
            trsvcid: Some(1),
            subnqn: Some("nqn.2026-11.io.stripewise:demo".to_owned()),
            data_digest: Some(true),
            ..Words::default()
        };
        let named = target("read.0.0", options.clone()).unwrap();
        assert_eq!(named.address.to_string(), "[::1]:1");
        assert!(named.settings.data_digest);
        assert_eq!(named.nsid, 1);
        let both = target("traddr=127.0.0.2 ddgst=0", options).unwrap();
        assert_eq!(both.address.to_string(), "127.0.0.2:1");
        assert!(!both.settings.data_digest);
    }

    #[test]
    fn each_association_is_another_hosts() {
        let text = "traddr=127.0.0.1 subnqn=nqn.2026-11.io.stripewise:demo";
        let [a, b] = [(); 2].map(|()| target(text, Words::default()).unwrap().settings);
        assert_ne!((a.host_id, a.host), (b.host_id, b.host));
        let text = format!("{text} hostnqn=nqn.2026-11.io.stripewise:host");
        let [a, b] = [(); 2].map(|()| target(&text, Words::default()).unwrap().settings);
        assert_ne!(a.host_id, b.host_id);
        assert_eq!(a.host, b.host);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for (text, word) in [
            ("job.0.0", "traddr"),
            ("traddr=127.0.0.1", "subnqn"),
            ("trtype=RDMA traddr=127.0.0.1", "trtype=RDMA"),
            (
                "traddr=127.0.0.1 subnqn=nqn.2026-11.io.stripewise demo",
                "\"demo\"",
            ),
            ("traddr=127.0.0.1 trsvcid=70000", "trsvcid=70000"),
            ("hdgst=yes", "0 or 1"),
            ("adrfam=IB", "adrfam=IB"),
            ("priority=1", "priority=1"),
            (
                "adrfam=IPv6 traddr=127.0.0.1 subnqn=nqn.2026-11.io.stripewise:demo",
                "IPv6",
            ),
            ("traddr=127.0.0.1 subnqn=demo", "subnqn"),
        ] {
            let error = target(text, Words::default()).unwrap_err();
            assert!(error.contains(word), "{text}: {error}");
        }
    }
}
