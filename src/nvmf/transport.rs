//! The options of the TCP transport.

use std::time::Duration;

use super::error::TargetError;

/// What `nvmf_create_transport` sets. Fixed once the transport exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportOptions {
    /// Entries of an I/O queue, 2 to 4096. CAP.MQES is one less.
    pub max_queue_depth: u16,
    /// Entries of an admin queue, 32 to 4096.
    pub max_aq_depth: u16,
    /// I/O queues that a controller may have, 1 to 1024; the admin queue is not counted.
    pub max_io_qpairs_per_ctrlr: u16,
    /// Largest payload in a command capsule of an I/O queue, in bytes; a multiple of 16 up to 64 KiB.
    /// Admin queues always take 8 KiB.
    pub in_capsule_data_size: u32,
    /// Largest payload of a command in bytes: a power of two, 8 KiB to 16 MiB. MDTS says it to hosts.
    pub max_io_size: u32,
    /// Whether the last C2HData may stand for the response, where the host has switched submission
    /// queue flow control off.
    pub c2h_success: bool,
    /// Longest time without a keep-alive of an association that asked for none, for the discovery
    /// controller; I/O controllers that ask for none are never expired.
    pub association_timeout: Duration,
    /// Largest data PDU that a host may send (MAXH2CDATA) in bytes; a multiple of 4 from 4096 up.
    pub max_h2c_data: u32,
    /// How long a peer may leave a handshake step (ICReq, Connect) unfinished.
    pub handshake_timeout: Duration,
    /// How long a host may take to prove who it is, on each queue.
    pub authentication_timeout: Duration,
    /// How long a peer may leave a PDU half sent, a transfer that it was asked for unsent, or
    /// output unread, before its connection is closed.
    pub stall_timeout: Duration,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            max_queue_depth: 128,
            max_aq_depth: 128,
            max_io_qpairs_per_ctrlr: 127,
            in_capsule_data_size: 8192,
            max_io_size: 1 << 20,
            c2h_success: true,
            association_timeout: Duration::from_secs(120),
            max_h2c_data: 128 << 10,
            handshake_timeout: Duration::from_secs(10),
            authentication_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

impl TransportOptions {
    /// Checks every range.
    ///
    /// # Errors
    /// [`TargetError::Invalid`], naming the option and its range.
    pub fn validate(&self) -> Result<(), TargetError> {
        let within = |name: &str, value: u64, low: u64, high: u64| {
            if (low..=high).contains(&value) {
                Ok(())
            } else {
                Err(TargetError::Invalid(format!(
                    "{name} is {value}; it must be {low} to {high}"
                )))
            }
        };
        within("max_queue_depth", self.max_queue_depth.into(), 2, 4096)?;
        within("max_aq_depth", self.max_aq_depth.into(), 32, 4096)?;
        let queues = self.max_io_qpairs_per_ctrlr;
        within("max_io_qpairs_per_ctrlr", queues.into(), 1, 1024)?;
        let capsule = self.in_capsule_data_size;
        within("in_capsule_data_size", capsule.into(), 0, 64 << 10)?;
        if !capsule.is_multiple_of(16) {
            return Err(TargetError::Invalid(format!(
                "in_capsule_data_size is {capsule}; it must be a multiple of 16"
            )));
        }
        within("max_io_size", self.max_io_size.into(), 8 << 10, 16 << 20)?;
        if !self.max_io_size.is_power_of_two() {
            return Err(TargetError::Invalid(format!(
                "max_io_size is {}; it must be a power of two",
                self.max_io_size
            )));
        }
        within("max_h2c_data", self.max_h2c_data.into(), 4096, 16 << 20)?;
        if !self.max_h2c_data.is_multiple_of(4) {
            return Err(TargetError::Invalid(format!(
                "max_h2c_data is {}; it must be a multiple of 4",
                self.max_h2c_data
            )));
        }
        Ok(())
    }
}

/// A transport as `nvmf_get_transports` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransportInfo {
    /// Always `TCP`.
    pub trtype: &'static str,
    /// Its options.
    pub options: TransportOptions,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_bad_values_are_named() {
        let good = TransportOptions::default();
        good.validate().unwrap();
        let bad = [
            (
                "max_queue_depth",
                TransportOptions {
                    max_queue_depth: 1,
                    ..good.clone()
                },
            ),
            (
                "max_aq_depth",
                TransportOptions {
                    max_aq_depth: 31,
                    ..good.clone()
                },
            ),
            (
                "max_io_qpairs_per_ctrlr",
                TransportOptions {
                    max_io_qpairs_per_ctrlr: 0,
                    ..good.clone()
                },
            ),
            (
                "in_capsule_data_size",
                TransportOptions {
                    in_capsule_data_size: 8200,
                    ..good.clone()
                },
            ),
            (
                "max_io_size",
                TransportOptions {
                    max_io_size: 3 << 20,
                    ..good.clone()
                },
            ),
            (
                "max_h2c_data",
                TransportOptions {
                    max_h2c_data: 4095,
                    ..good.clone()
                },
            ),
        ];
        for (name, options) in bad {
            assert!(options.validate().unwrap_err().to_string().contains(name));
        }
    }
}
