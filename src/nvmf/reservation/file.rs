//! The file in which a reservation outlives a loss of power, as SPDK writes it: a JSON object with
//! `ptpl`, `rtype`, `crkey`, `bdev_uuid`, `holder_uuid` and `registrants` of `rkey` and `host_uuid`.

use std::fs;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::state::{MOST_REGISTRANTS, Registrant};
use super::{HostId, Reservation};
use crate::nvme::reservation::ReservationType;
use crate::nvmf::durable;

/// Which file, and of which device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationFile {
    /// Where it is.
    pub path: PathBuf,
    /// The device that it is about.
    pub device: Uuid,
}

#[derive(Deserialize, Serialize)]
struct Content {
    ptpl: bool,
    #[serde(default)]
    rtype: u8,
    #[serde(default)]
    crkey: u64,
    #[serde(default)]
    bdev_uuid: String,
    #[serde(default)]
    holder_uuid: String,
    #[serde(default)]
    registrants: Vec<Entry>,
}

#[derive(Deserialize, Serialize)]
struct Entry {
    rkey: u64,
    host_uuid: Uuid,
}

impl ReservationFile {
    /// Reads it. A file that is not there, or is empty, is of a namespace without reservations.
    ///
    /// # Errors
    /// In words, with the name of the file and the mend: a file that cannot be read, is damaged, or is
    /// of another device.
    pub fn read(&self) -> Result<Reservation, String> {
        let path = self.path.display();
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Reservation::default()),
            Err(error) => return Err(format!("ptpl_file {path} cannot be read: {error}")),
        };
        if text.is_empty() {
            return Ok(Reservation::default());
        }
        let damaged = |what: String| {
            format!(
                "ptpl_file {path} is damaged ({what}); put back a copy of it, or remove it, and with it all reservations of the namespace"
            )
        };
        let content: Content =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if !content.ptpl {
            return Ok(Reservation::default());
        }
        if content.bdev_uuid.parse() != Ok(self.device) {
            return Err(format!(
                "ptpl_file {path} is of the device {}, and this one is {}; name the file of this device, or remove it, and with it all reservations of the namespace",
                content.bdev_uuid, self.device
            ));
        }
        content.reservation().map_err(damaged)
    }

    /// Writes it, so that after a crash at any time it is as it was, or as it is to be.
    ///
    /// # Errors
    /// What the operating system said.
    pub fn write(&self, reservation: &Reservation) -> io::Result<()> {
        let mut text = serde_json::to_vec(&self.content(reservation))?;
        text.push(b'\n');
        durable::replace(&self.path, &text)
    }

    fn content(&self, reservation: &Reservation) -> Content {
        let persists = reservation.persists;
        let uuid = |host: HostId| Uuid::from_bytes(host);
        let held = reservation.held.filter(|_| persists);
        let holder = held.filter(|(kind, _)| !kind.is_held_by_all());
        let registrants = reservation.registrants.iter().filter(|_| persists);
        Content {
            ptpl: persists,
            rtype: held.map_or(0, |(kind, _)| kind.code()),
            crkey: held.map_or(0, |(_, holder)| reservation.key(holder).unwrap_or(0)),
            bdev_uuid: self.device.to_string(),
            holder_uuid: holder.map_or(String::new(), |(_, host)| uuid(host).to_string()),
            registrants: registrants
                .map(|r| Entry {
                    rkey: r.key,
                    host_uuid: uuid(r.host),
                })
                .collect(),
        }
    }
}

impl Content {
    fn reservation(self) -> Result<Reservation, String> {
        let mut reservation = Reservation {
            persists: true,
            ..Reservation::default()
        };
        for entry in &self.registrants {
            let host = entry.host_uuid.into_bytes();
            if reservation.key(host).is_some() {
                return Err(format!("host_uuid {} is there twice", entry.host_uuid));
            }
            let key = entry.rkey;
            reservation.registrants.push(Registrant { host, key });
        }
        if reservation.registrants.len() > MOST_REGISTRANTS {
            return Err(format!("more than {MOST_REGISTRANTS} registrants"));
        }
        if self.rtype != 0 {
            let kind = ReservationType::from_code(self.rtype)
                .ok_or_else(|| format!("rtype {} is none", self.rtype))?;
            let holder = if kind.is_held_by_all() {
                reservation.registrants.first().map(|r| r.host)
            } else {
                let named = self.holder_uuid.parse::<Uuid>().ok();
                let named = named.map(Uuid::into_bytes);
                named.filter(|&host| reservation.key(host).is_some())
            };
            let holder = holder
                .ok_or_else(|| format!("holder_uuid {:?} is no registrant", self.holder_uuid))?;
            reservation.held = Some((kind, holder));
        }
        Ok(reservation)
    }
}
