//! What a controller says that it is.

use serde_json::{Value, json};

use crate::nvme::ascii_text;
use crate::nvme::identify::IdentifyController;
use crate::nvme::property::Version;

/// What a controller is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Serial number.
    pub serial: String,
    /// Model number.
    pub model: String,
    /// Firmware revision.
    pub firmware: String,
    /// Name of its NVM subsystem; empty where it has none, as older ones.
    pub subsystem: String,
    /// PCI vendor identifier.
    pub vendor: u16,
    /// Controller identifier.
    pub cntlid: u16,
    /// Version as major, minor, tertiary, of VS.
    pub version: u32,
    /// Optional admin commands (OACS).
    pub admin_commands: u16,
    /// Whether there are more ports, controllers or access states (CMIC).
    pub sharing: u8,
}

impl Identity {
    /// Of a controller whose property VS is `version`.
    pub(super) fn of(identify: &IdentifyController, version: u32) -> Self {
        Self {
            serial: ascii_text(&identify.sn),
            model: ascii_text(&identify.mn),
            firmware: ascii_text(&identify.fr),
            subsystem: identify
                .subsystem()
                .map_or_else(String::new, |nqn| nqn.as_str().to_owned()),
            vendor: identify.vid.get(),
            cntlid: identify.cntlid.get(),
            version,
            admin_commands: identify.oacs.get(),
            sharing: identify.cmic,
        }
    }

    /// `driver_specific` of a namespace, as SPDK has it: its controller is reached by `trid`, it is number `nsid` there, and
    /// it may be `shared` by controllers.
    ///
    /// Access states (ANA) are not followed, so there is no `ana_state`.
    pub(super) fn describe(&self, trid: Value, nsid: u32, shared: bool) -> Value {
        let Version {
            major,
            minor,
            tertiary,
        } = Version::from_value(self.version);
        let version = match tertiary {
            0 => format!("{major}.{minor}"),
            _ => format!("{major}.{minor}.{tertiary}"),
        };
        let admin = |bit: u16| u32::from(self.admin_commands & bit != 0);
        let mut controller = json!({
            "cntlid": self.cntlid,
            "vendor_id": format!("{:#06x}", self.vendor),
            "model_number": self.model,
            "serial_number": self.serial,
            "firmware_revision": self.firmware,
        });
        if !self.subsystem.is_empty() {
            controller["subnqn"] = self.subsystem.as_str().into();
        }
        controller["oacs"] = json!({
            "security": admin(IdentifyController::OACS_SECURITY),
            "format": admin(IdentifyController::OACS_FORMAT),
            "firmware": admin(IdentifyController::OACS_FIRMWARE),
            "ns_manage": admin(IdentifyController::OACS_NAMESPACE_MANAGEMENT),
        });
        let shares = |bit: u8| self.sharing & bit != 0;
        controller["multi_ctrlr"] = shares(IdentifyController::CMIC_MULTIPLE_CONTROLLERS).into();
        controller["ana_reporting"] = shares(IdentifyController::CMIC_ANA).into();

        let mut namespace = json!({});
        if trid["trtype"] == "PCIe" {
            namespace["pci_address"] = trid["traddr"].clone();
        }
        namespace["trid"] = trid;
        namespace["ctrlr_data"] = controller;
        namespace["vs"] = json!({"nvme_version": version});
        namespace["ns_data"] = json!({"id": nsid, "can_share": shared});
        if self.admin_commands & IdentifyController::OACS_SECURITY != 0 {
            // Locking ranges are left alone.
            namespace["security"] = json!({"opal": false});
        }
        json!({"nvme": [namespace], "mp_policy": "active_passive"})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What SPDK answered for a volume of a cloud, but for the numbers.
    #[test]
    fn a_namespace_is_described_as_spdk_does() {
        let mut identify = IdentifyController::new();
        identify.vid = 0x1d0f.into();
        identify.mn[..13].copy_from_slice(b"Some Storage ");
        identify.mn[13..].fill(b' ');
        identify.sn = *b"vol00ade7db96108da77";
        identify.fr = *b"2.0     ";
        let nqn = b"nqn.2008-08.com.example:vol0";
        identify.subnqn[..nqn.len()].copy_from_slice(nqn);
        let trid = json!({"trtype": "PCIe", "traddr": "0000:00:1c.0"});
        let plain = Identity::of(&identify, 0x0001_0400).describe(trid.clone(), 1, false);
        let expected = json!({
            "nvme": [{
                "pci_address": "0000:00:1c.0",
                "trid": {"trtype": "PCIe", "traddr": "0000:00:1c.0"},
                "ctrlr_data": {
                    "cntlid": 0,
                    "vendor_id": "0x1d0f",
                    "model_number": "Some Storage",
                    "serial_number": "vol00ade7db96108da77",
                    "firmware_revision": "2.0",
                    "subnqn": "nqn.2008-08.com.example:vol0",
                    "oacs": {"security": 0, "format": 0, "firmware": 0, "ns_manage": 0},
                    "multi_ctrlr": false,
                    "ana_reporting": false,
                },
                "vs": {"nvme_version": "1.4"},
                "ns_data": {"id": 1, "can_share": false},
            }],
            "mp_policy": "active_passive",
        });
        // As text: the order of the fields is SPDK's, too.
        assert_eq!(plain.to_string(), expected.to_string());

        // Security, format, firmware and namespace management are bits 0 to 3; several controllers and ANA 1 and 3.
        identify.oacs = 0b1001.into();
        identify.cmic = 0b1010;
        identify.subnqn = [0; 256];
        let full = Identity::of(&identify, 0x0001_0301).describe(trid, 7, true);
        let namespace = &full["nvme"][0];
        let controller = &namespace["ctrlr_data"];
        assert!(controller.get("subnqn").is_none());
        let oacs = json!({"security": 1, "format": 0, "firmware": 0, "ns_manage": 1});
        assert_eq!(controller["oacs"], oacs);
        assert_eq!(controller["multi_ctrlr"], true);
        assert_eq!(controller["ana_reporting"], true);
        assert_eq!(namespace["vs"]["nvme_version"], "1.3.1");
        assert_eq!(namespace["ns_data"], json!({"id": 7, "can_share": true}));
        assert_eq!(namespace["security"]["opal"], false);
    }
}
