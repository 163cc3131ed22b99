//! The features of one controller.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use zerocopy::{FromBytes, IntoBytes};

use crate::nvme::Status;
use crate::nvme::feature::{
    EXTENDED_HOST_IDENTIFIER, FeatureId, HostBehavior, VOLATILE_WRITE_CACHE_ENABLED,
};

/// Features of an I/O controller.
pub const IO_FEATURES: &[FeatureId] = &[
    FeatureId::Arbitration,
    FeatureId::PowerManagement,
    FeatureId::TemperatureThreshold,
    FeatureId::ErrorRecovery,
    FeatureId::VolatileWriteCache,
    FeatureId::NumberOfQueues,
    FeatureId::WriteAtomicity,
    FeatureId::AsyncEventConfiguration,
    FeatureId::Timestamp,
    FeatureId::KeepAliveTimer,
    FeatureId::HostBehaviorSupport,
    FeatureId::IoCommandSetProfile,
    FeatureId::HostIdentifier,
    FeatureId::ReservationNotificationMask,
    FeatureId::ReservationPersistence,
];

/// Features of a discovery controller.
pub const DISCOVERY_FEATURES: &[FeatureId] = &[
    FeatureId::AsyncEventConfiguration,
    FeatureId::KeepAliveTimer,
    FeatureId::HostIdentifier,
];

/// Bytes that a host sends with Set Features of this feature.
pub fn data_from_host(feature: FeatureId) -> u32 {
    match feature {
        FeatureId::Timestamp => 8,
        FeatureId::HostBehaviorSupport => size_of::<HostBehavior>() as u32,
        _ => 0,
    }
}

/// What a feature is: a dword, or data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Dword 0 of the completion.
    Dword(u32),
    /// Bytes for the host.
    Data(Vec<u8>),
}

/// Deallocated or Unwritten Logical Block Error Enable of Error Recovery.
const DULBE: u32 = 1 << 16;

/// The temperature threshold of the composite sensor, over, in kelvin: never reached.
const TEMPERATURE_THRESHOLD: u32 = 343;

/// Temperature Threshold is about the lower threshold (THSEL 01b), which is never crossed either.
const UNDER_TEMPERATURE: u32 = 1 << 20;

/// Features that are no more than what the host has set, and the few that are fixed. Those that the
/// controller acts on (queues, events, keep alive) are its own.
#[derive(Debug)]
pub struct Features {
    hostid: [u8; 16],
    arbitration: u32,
    temperature: u32,
    error_recovery: u32,
    write_atomicity: u32,
    timestamp: Timestamp,
    behavior: [u8; 512],
}

/// Milliseconds since 1970 that the host has set, and when; or the time of this machine.
#[derive(Clone, Copy, Debug)]
struct Timestamp {
    set: Option<(u64, Instant)>,
}

impl Features {
    /// The features of a new controller of this host.
    pub fn new(hostid: [u8; 16]) -> Self {
        Self {
            hostid,
            arbitration: 0,
            temperature: TEMPERATURE_THRESHOLD,
            error_recovery: 0,
            write_atomicity: 0,
            timestamp: Timestamp { set: None },
            behavior: [0; 512],
        }
    }

    /// Reads one of these features; `dword` is dword 11 of the command.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] for one that is not kept here.
    pub fn get(&self, feature: FeatureId, dword: u32, now: Instant) -> Result<Value, Status> {
        Ok(match feature {
            FeatureId::Arbitration => Value::Dword(self.arbitration),
            FeatureId::PowerManagement | FeatureId::IoCommandSetProfile => Value::Dword(0),
            FeatureId::TemperatureThreshold if dword & UNDER_TEMPERATURE != 0 => Value::Dword(0),
            FeatureId::TemperatureThreshold => Value::Dword(self.temperature),
            FeatureId::ErrorRecovery => Value::Dword(self.error_recovery),
            FeatureId::VolatileWriteCache => Value::Dword(VOLATILE_WRITE_CACHE_ENABLED),
            FeatureId::WriteAtomicity => Value::Dword(self.write_atomicity),
            FeatureId::Timestamp => Value::Data(self.timestamp.bytes(now).to_vec()),
            FeatureId::HostBehaviorSupport => Value::Data(self.behavior.to_vec()),
            FeatureId::HostIdentifier if dword & EXTENDED_HOST_IDENTIFIER != 0 => {
                Value::Data(self.hostid.to_vec())
            }
            _ => return Err(Status::INVALID_FIELD.with_do_not_retry()),
        })
    }

    /// Sets one of these features to `dword` (dword 11 of the command), or to `data` for those that
    /// [`data_from_host`] names.
    ///
    /// # Errors
    /// [`Status::INVALID_FIELD`] for a value that cannot be, or one that is not kept here;
    /// [`Status::FEATURE_NOT_CHANGEABLE`] for switching the write cache off, which is the devices';
    /// [`Status::COMMAND_SEQUENCE_ERROR`] for the host identifier, which Connect has set.
    pub fn set(
        &mut self,
        feature: FeatureId,
        dword: u32,
        data: &[u8],
        now: Instant,
    ) -> Result<(), Status> {
        let invalid_field = Err(Status::INVALID_FIELD.with_do_not_retry());
        match feature {
            FeatureId::Arbitration => self.arbitration = dword,
            // Power state 0 and command set combination 0 are all there are.
            FeatureId::PowerManagement if dword & 0x1f == 0 => {}
            FeatureId::IoCommandSetProfile if dword & 0x1ff == 0 => {}
            FeatureId::TemperatureThreshold if dword & UNDER_TEMPERATURE != 0 => {}
            FeatureId::TemperatureThreshold => self.temperature = dword & 0xffff,
            FeatureId::ErrorRecovery if dword & DULBE == 0 => self.error_recovery = dword,
            FeatureId::VolatileWriteCache => {
                if dword & VOLATILE_WRITE_CACHE_ENABLED == 0 {
                    return Err(Status::FEATURE_NOT_CHANGEABLE.with_do_not_retry());
                }
            }
            FeatureId::WriteAtomicity => self.write_atomicity = dword & 1,
            FeatureId::Timestamp => {
                let Some(bytes) = data.first_chunk::<8>() else {
                    return invalid_field;
                };
                let ms = u64::from_le_bytes(*bytes) & 0xffff_ffff_ffff;
                self.timestamp.set = Some((ms, now));
            }
            FeatureId::HostBehaviorSupport => {
                let Ok((behavior, _)) = HostBehavior::read_from_prefix(data) else {
                    return invalid_field;
                };
                if behavior.acre > 1 || behavior.etdas > 1 || behavior.lbafee > 1 {
                    return invalid_field;
                }
                self.behavior.copy_from_slice(behavior.as_bytes());
            }
            FeatureId::HostIdentifier => {
                return Err(Status::COMMAND_SEQUENCE_ERROR.with_do_not_retry());
            }
            _ => return invalid_field,
        }
        Ok(())
    }
}

impl Timestamp {
    /// The data structure of the feature: 48 bits of milliseconds, then where they come from:
    /// 001b in bits 3:1 for a host, 000b for the controller's own clock.
    fn bytes(self, now: Instant) -> [u8; 8] {
        let (ms, origin) = match self.set {
            Some((ms, at)) => (ms + millis(now.saturating_duration_since(at)), 0b001),
            None => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH);
                (since.map_or(0, millis), 0b000)
            }
        };
        (ms & 0xffff_ffff_ffff | origin << 49).to_le_bytes()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_goes_on_from_where_the_host_set_it() {
        let now = Instant::now();
        let mut features = Features::new([0; 16]);
        let feature = FeatureId::Timestamp;
        features
            .set(feature, 0, &1_000_000u64.to_le_bytes(), now)
            .unwrap();
        let later = now + Duration::from_millis(1500);
        let Ok(Value::Data(bytes)) = features.get(feature, 0, later) else {
            panic!("a timestamp is data");
        };
        // 1 001 500 = 0f481ch, origin 001b in bits 3:1 of byte 6.
        assert_eq!(bytes, [0x1c, 0x48, 0x0f, 0, 0, 0, 0x02, 0]);
        assert!(features.set(feature, 0, &[1, 2], now).is_err());
    }

    #[test]
    fn what_cannot_be_changed_says_so() {
        let now = Instant::now();
        let mut features = Features::new([7; 16]);
        let mut set = |feature, dword| features.set(feature, dword, &[], now).unwrap_err().code();
        assert_eq!(set(FeatureId::VolatileWriteCache, 0), 0x10e);
        assert_eq!(set(FeatureId::HostIdentifier, 1), 0x00c);
        assert_eq!(set(FeatureId::PowerManagement, 1), 0x002);
        assert_eq!(set(FeatureId::ErrorRecovery, 1 << 16), 0x002);
        assert_eq!(set(FeatureId::LbaRangeType, 0), 0x002);
        let id = features.get(FeatureId::HostIdentifier, 1, now);
        assert_eq!(id, Ok(Value::Data(vec![7; 16])));
        assert!(features.get(FeatureId::HostIdentifier, 0, now).is_err());
    }
}
