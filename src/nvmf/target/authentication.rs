//! Hosts that have to prove who they are: their keys, and what becomes of their messages.

use std::time::Instant;

use super::Target;
use super::hosts::check_keys;
use super::takeover::{self, Proven};
use crate::nvme::Nqn;
use crate::nvmf::algorithms::Algorithms;
use crate::nvmf::auth::{Job, Judgement, Parties, Then};
use crate::nvmf::error::TargetError;
use crate::nvmf::host::HostKeys;
use crate::nvmf::message::{ConnectionId, GroupCommand};
use crate::nvmf::stats::AuthenticationInfo;

impl Target {
    /// Gives a host on the allow-list other keys, or none, so that it need not prove who it is. Who
    /// is connected stays so.
    ///
    /// # Errors
    /// [`TargetError::NotFound`], [`TargetError::Invalid`] for discovery.
    pub fn set_host_keys(
        &mut self,
        nqn: &str,
        hostnqn: &str,
        keys: Option<HostKeys>,
    ) -> Result<(), TargetError> {
        let subsystem = self.subsystem_mut(nqn)?;
        if !subsystem.access.hosts.contains(hostnqn) {
            return Err(TargetError::NotFound(format!("host {hostnqn} of {nqn}")));
        }
        check_keys(nqn, keys.as_ref())?;
        subsystem.keys.remove(hostnqn);
        let keys = keys.map(|keys| (hostnqn.to_owned(), keys));
        subsystem.keys.extend(keys);
        Ok(())
    }

    /// Who uses the key of this name, in words: host and subsystem.
    pub fn key_users(&self, name: &str) -> Vec<String> {
        let mut users = Vec::new();
        for (nqn, subsystem) in &self.subsystems {
            for (host, keys) in &subsystem.keys {
                let (one, other) = keys.names();
                if one == name || other == Some(name) {
                    users.push(format!("host {host} of {nqn}"));
                }
            }
        }
        users
    }

    /// How hosts may prove who they are.
    pub fn authentication(&self) -> &Algorithms {
        &self.authentication
    }

    /// Sets how hosts may prove who they are.
    ///
    /// # Errors
    /// [`TargetError::Invalid`] for nothing at all.
    pub fn set_authentication(&mut self, algorithms: Algorithms) -> Result<(), TargetError> {
        algorithms.validate()?;
        self.authentication = algorithms;
        Ok(())
    }

    /// Notes whether the host of a new queue has to prove who it is.
    pub(super) fn expect_authentication(&mut self, connection: ConnectionId, wanted: bool) {
        if let Some(entry) = self.associations.connection_mut(connection) {
            entry.authentication = wanted.then(AuthenticationInfo::default);
        }
    }

    /// A host has sent a message.
    pub(super) fn authenticate(
        &mut self,
        group: usize,
        connection: ConnectionId,
        message: Vec<u8>,
    ) {
        // Without parties the connection is being closed.
        let (Some(parties), Some(hub)) = (self.parties(connection), &self.hub) else {
            return;
        };
        let job = Job {
            connection,
            group,
            parties,
            message,
        };
        if let Err(error) = self.authenticator.hear(job, &hub.outbox) {
            tracing::error!(
                "hosts cannot be authenticated, because there is no thread for it: {error}"
            );
            self.close(vec![connection]);
        }
    }

    /// A host's message was judged.
    pub(super) fn judged(&mut self, group: usize, judgement: Judgement, now: Instant) {
        let connection = judgement.connection;
        let Some(entry) = self.associations.connection_mut(connection) else {
            return;
        };
        entry.authentication = Some(judgement.info());
        let peer = entry.peer;
        let verdict = self.authenticator.judged(judgement);
        if let Then::End(explanation) = verdict.then {
            let host = self.associations.association(connection);
            let host = host.map_or("a host", |a| a.hostnqn.as_str());
            tracing::warn!("{host} at {peer} is not admitted: {explanation}");
        }
        let admitted = verdict.then == Then::Admit;
        let verdict = Box::new(verdict);
        if admitted {
            let proven = Proven {
                connection,
                group,
                verdict,
            };
            return self.admit(proven, now + takeover::PATIENCE);
        }
        self.groups.send(
            group,
            GroupCommand::Judged {
                connection,
                verdict,
            },
        );
    }

    /// Who talks on a connection, with the keys that they have now.
    fn parties(&self, connection: ConnectionId) -> Option<Parties> {
        let association = self.associations.association(connection)?;
        let mut subsystems = self.subsystems.values();
        let subsystem = subsystems.find(|s| s.id == association.subsystem)?;
        let host: &Nqn = &association.hostnqn;
        Some(Parties {
            host: host.clone(),
            subsystem: subsystem.nqn.clone(),
            keys: subsystem.keys.get(host.as_str()).cloned(),
            algorithms: self.authentication.clone(),
        })
    }
}
