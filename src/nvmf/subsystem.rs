//! Subsystems: a name, the hosts that may use it, where it listens and what it exports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::address::ListenAddress;
use super::ana::{Reach, Reaches};
use super::error::TargetError;
use super::event_log::EventLogOptions;
use super::host::{HostAccess, HostInfo, HostKeys};
use super::namespace::{Namespace, NamespaceInfo};
use super::target::Recorder;
use super::view::{SubsystemId, SubsystemView};
use crate::nvme::Nqn;

/// What `nvmf_create_subsystem` sets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemOptions {
    /// Its qualified name, at most 223 bytes.
    pub nqn: String,
    /// Serial number: at most 20 printable ASCII characters.
    pub serial_number: String,
    /// Model number: at most 40 printable ASCII characters.
    pub model_number: String,
    /// Highest namespace number, 1 to 1024; 0 means the default of 32.
    pub max_namespaces: u32,
    /// Every host may connect.
    pub allow_any_host: bool,
    /// Lowest controller identifier, from 1.
    pub min_cntlid: u16,
    /// Highest controller identifier, to FFEFh.
    pub max_cntlid: u16,
    /// Whether the same host may hold several associations over the same path. If not, the default,
    /// a new admin Connect takes over from the older association.
    pub allow_duplicate_associations: bool,
    /// Whether hosts are told how its listeners reach groups of namespaces.
    pub ana_reporting: bool,
}

/// Namespaces of a subsystem that asked for the default.
pub const DEFAULT_MAX_NAMESPACES: u32 = 32;

impl SubsystemOptions {
    /// The defaults, for a subsystem of this name.
    pub fn new(nqn: impl Into<String>) -> Self {
        Self {
            nqn: nqn.into(),
            serial_number: "00000000000000000000".into(),
            model_number: "Stripewise".into(),
            max_namespaces: DEFAULT_MAX_NAMESPACES,
            allow_any_host: false,
            min_cntlid: 1,
            max_cntlid: 0xffef,
            allow_duplicate_associations: false,
            ana_reporting: false,
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`TargetError::Invalid`], naming the option.
    pub fn validate(&self) -> Result<(), TargetError> {
        let invalid = |what: String| Err(TargetError::Invalid(what));
        for (name, text, most) in [
            ("serial_number", &self.serial_number, 20),
            ("model_number", &self.model_number, 40),
        ] {
            if text.len() > most || !text.bytes().all(|b| (0x20..0x7f).contains(&b)) {
                return invalid(format!(
                    "{name} {text:?} must be at most {most} printable ASCII characters"
                ));
            }
        }
        if self.max_namespaces > 1024 {
            return invalid(format!(
                "max_namespaces is {}; it must be 1 to 1024",
                self.max_namespaces
            ));
        }
        if self.min_cntlid == 0 || self.max_cntlid > 0xffef || self.min_cntlid > self.max_cntlid {
            return invalid(format!(
                "min_cntlid {} and max_cntlid {} must be 1 to 65519 and in order",
                self.min_cntlid, self.max_cntlid
            ));
        }
        Ok(())
    }
}

/// What a subsystem is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubsystemKind {
    /// Tells hosts where the others are.
    Discovery,
    /// Exports namespaces.
    Nvme,
}

impl SubsystemKind {
    /// The word that the RPC shows.
    pub fn name(self) -> &'static str {
        match self {
            Self::Discovery => "Discovery",
            Self::Nvme => "NVMe",
        }
    }
}

/// A subsystem as `nvmf_get_subsystems` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubsystemInfo {
    /// What it is for; the fields from `serial_number` on mean nothing for discovery.
    pub kind: SubsystemKind,
    /// Its options. `max_namespaces` is never 0 here; `allow_any_host` is the present state.
    pub options: SubsystemOptions,
    /// Where it listens; a port chosen by the kernel is shown as it came out.
    pub listen_addresses: Vec<ListenAddress>,
    /// How each of its listeners reaches groups of namespaces, where that was set.
    pub reaches: BTreeMap<ListenAddress, Reach>,
    /// Hosts on its allow-list, by NQN.
    pub hosts: Vec<HostInfo>,
    /// What it exports, by number.
    pub namespaces: Vec<NamespaceInfo>,
    /// Where its event log is kept, if it has one.
    pub event_log: Option<EventLogOptions>,
}

/// A subsystem, as the control side keeps it.
#[derive(Debug)]
pub struct Subsystem {
    /// Which.
    pub id: SubsystemId,
    /// What it is for.
    pub kind: SubsystemKind,
    /// Its name.
    pub nqn: Nqn,
    /// Its options, `max_namespaces` never 0.
    pub options: SubsystemOptions,
    /// Which hosts may use it.
    pub access: HostAccess,
    /// Keys of those hosts on its list that have to prove who they are, by NQN.
    pub keys: BTreeMap<String, HostKeys>,
    /// Where it listens.
    pub listeners: Vec<ListenAddress>,
    /// How each of its listeners reaches groups of namespaces, where that was set.
    pub reaches: BTreeMap<ListenAddress, Reach>,
    /// What it exports.
    pub namespaces: BTreeMap<u32, Namespace>,
    /// Its event log, if it has one.
    pub recorder: Option<Box<Recorder>>,
}

impl Subsystem {
    /// A subsystem with no listener and no namespace.
    pub fn new(
        id: SubsystemId,
        kind: SubsystemKind,
        nqn: Nqn,
        mut options: SubsystemOptions,
    ) -> Self {
        if options.max_namespaces == 0 {
            options.max_namespaces = DEFAULT_MAX_NAMESPACES;
        }
        Self {
            id,
            kind,
            nqn,
            access: HostAccess {
                allow_any: options.allow_any_host,
                ..HostAccess::default()
            },
            options,
            keys: BTreeMap::new(),
            listeners: Vec::new(),
            reaches: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            recorder: None,
        }
    }

    /// As it is shown.
    pub fn info(&self) -> SubsystemInfo {
        SubsystemInfo {
            kind: self.kind,
            options: SubsystemOptions {
                allow_any_host: self.access.allow_any,
                ..self.options.clone()
            },
            listen_addresses: self.listeners.clone(),
            reaches: self.reaches.clone(),
            hosts: self.access.hosts.iter().map(|nqn| self.host(nqn)).collect(),
            namespaces: self.namespaces.values().map(Namespace::info).collect(),
            event_log: self.recorder.as_ref().map(|r| r.options().clone()),
        }
    }

    fn host(&self, nqn: &str) -> HostInfo {
        let names = self.keys.get(nqn).map(HostKeys::names);
        HostInfo {
            nqn: nqn.to_owned(),
            dhchap_key: names.map(|(host, _)| host.to_owned()),
            dhchap_ctrlr_key: names.and_then(|(_, controller)| controller.map(str::to_owned)),
        }
    }

    /// As it is served.
    pub fn view(&self) -> SubsystemView {
        let most = match self.kind {
            SubsystemKind::Discovery => 0,
            SubsystemKind::Nvme => self.options.max_namespaces,
        };
        let of = |nsid| self.namespaces.get(&nsid).map(|n| Arc::new(n.view()));
        SubsystemView {
            id: self.id,
            nqn: self.nqn.clone(),
            kind: self.kind,
            serial: self.options.serial_number.clone(),
            model: self.options.model_number.clone(),
            namespaces: (1..=most).map(of).collect(),
            event_log: self.recorder.as_ref().map(|r| r.saved().clone()),
            reaches: self.options.ana_reporting.then(|| {
                let listeners = self.listeners.iter();
                Reaches(listeners.map(|&at| (at, self.reach(at))).collect())
            }),
        }
    }

    /// How one of its listeners reaches groups of namespaces.
    pub fn reach(&self, listener: ListenAddress) -> Reach {
        self.reaches.get(&listener).cloned().unwrap_or_default()
    }

    /// Checks the number of an ANA group: there are as many as there may be namespaces.
    ///
    /// # Errors
    /// [`TargetError::Invalid`].
    pub fn check_group(&self, anagrpid: u32) -> Result<(), TargetError> {
        let most = self.options.max_namespaces;
        if (1..=most).contains(&anagrpid) {
            return Ok(());
        }
        Err(TargetError::Invalid(format!(
            "anagrpid is {anagrpid}; it must be 1 to {most} (max_namespaces of {})",
            self.nqn
        )))
    }

    /// Whether a host that came in at `local` may ask for it: discovery is everywhere.
    pub fn listens_at(&self, local: SocketAddr) -> bool {
        self.kind == SubsystemKind::Discovery || self.listeners.iter().any(|l| l.takes(local))
    }

    /// The number of a new namespace: the one wished for, or the lowest free one.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] out of range, [`TargetError::Exists`], [`TargetError::Limit`].
    pub fn choose_nsid(&self, wish: Option<u32>) -> Result<u32, TargetError> {
        let (nqn, most) = (&self.nqn, self.options.max_namespaces);
        match wish {
            Some(nsid) if nsid == 0 || nsid > most => Err(TargetError::Invalid(format!(
                "nsid is {nsid}; it must be 1 to {most} (max_namespaces of {nqn})"
            ))),
            Some(nsid) if self.namespaces.contains_key(&nsid) => {
                Err(TargetError::Exists(format!("namespace {nsid} of {nqn}")))
            }
            Some(nsid) => Ok(nsid),
            None => (1..=most)
                .find(|n| !self.namespaces.contains_key(n))
                .ok_or_else(|| {
                    TargetError::Limit(format!(
                        "{nqn} has {most} namespaces, as many as its max_namespaces"
                    ))
                }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_bad_values_are_named() {
        let good = SubsystemOptions::new("nqn.2026-11.io.example:a");
        good.validate().unwrap();
        let mut bad = good.clone();
        bad.serial_number = "x".repeat(21);
        assert!(
            bad.validate()
                .unwrap_err()
                .to_string()
                .contains("serial_number")
        );
        let mut bad = good.clone();
        bad.model_number = "\u{fc}".into();
        assert!(
            bad.validate()
                .unwrap_err()
                .to_string()
                .contains("model_number")
        );
        let mut bad = good.clone();
        bad.max_namespaces = 1025;
        assert!(
            bad.validate()
                .unwrap_err()
                .to_string()
                .contains("max_namespaces")
        );
        let mut bad = good;
        bad.min_cntlid = 9;
        bad.max_cntlid = 8;
        assert!(bad.validate().unwrap_err().to_string().contains("cntlid"));
    }
}
