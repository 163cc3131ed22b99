//! What a target is to serve, as a configuration file.

use std::fs::File;

use serde_json::{Value, json};

use super::process::Site;

/// The subsystem that every target here has.
pub const NQN: &str = "nqn.2026-11.io.stripewise:test";

/// The volume.
pub const VOLUME: &str = "volume";

/// What members are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Memory of the process.
    Ram,
    /// Files, which outlive it.
    File,
}

/// A RAID5 volume, exported as namespace 1.
#[derive(Clone, Debug)]
pub struct Plan {
    pub kind: Kind,
    /// Members of the volume; their devices are `m0`, `m1` ...
    pub members: usize,
    /// Devices beyond those, named on in the same way.
    pub spares: usize,
    /// Size of a device in MiB.
    pub mib: u64,
    pub block_size: u32,
    pub strip_kb: u32,
    /// Whether each device has one on top, `EE_m0` .., that can be made to fail; the members are
    /// those then.
    pub failing: bool,
    pub allow_any_host: bool,
    /// Further parameters of the volume.
    pub tuning: Value,
    /// Largest request of a host in bytes.
    pub max_io_size: u32,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            kind: Kind::Ram,
            members: 4,
            spares: 0,
            mib: 16,
            block_size: 4096,
            strip_kb: 64,
            failing: false,
            allow_any_host: true,
            tuning: json!({}),
            max_io_size: 1 << 20,
        }
    }
}

/// One call of a configuration.
pub fn call(method: &str, params: Value) -> Value {
    json!({"method": method, "params": params})
}

/// A configuration of these calls.
pub fn config(calls: Vec<Value>) -> Value {
    json!({"subsystems": [{"subsystem": "all", "config": calls}]})
}

impl Plan {
    /// The name of a device as a member.
    pub fn member(&self, number: usize) -> String {
        match self.failing {
            true => format!("EE_m{number}"),
            false => format!("m{number}"),
        }
    }

    /// Blocks of the volume.
    pub fn blocks(&self) -> u64 {
        (self.members as u64 - 1) * (self.mib << 20) / u64::from(self.block_size)
    }

    /// The calls that make the devices. Files are made where there are none.
    pub fn disks(&self, site: &Site) -> Vec<Value> {
        let mut calls = Vec::new();
        for number in 0..self.members + self.spares {
            let name = format!("m{number}");
            calls.push(match self.kind {
                Kind::Ram => {
                    let num_blocks = (self.mib << 20) / u64::from(self.block_size);
                    let block_size = self.block_size;
                    let params =
                        json!({"name": name, "num_blocks": num_blocks, "block_size": block_size});
                    call("bdev_malloc_create", params)
                }
                Kind::File => {
                    let path = site.file(&name);
                    let file = File::options()
                        .create(true)
                        .truncate(false)
                        .write(true)
                        .open(&path);
                    let sized = file.and_then(|f| f.set_len(self.mib << 20));
                    sized.expect("a file for a member");
                    let params =
                        json!({"name": name, "filename": path, "block_size": self.block_size});
                    call("bdev_uring_create", params)
                }
            });
            if self.failing {
                calls.push(call("bdev_error_create", json!({"base_name": name})));
            }
        }
        calls
    }

    /// The calls that make the devices and the volume.
    pub fn devices(&self, site: &Site) -> Vec<Value> {
        let mut calls = self.disks(site);
        let members: Vec<String> = (0..self.members).map(|n| self.member(n)).collect();
        let mut volume = json!({
            "name": VOLUME, "raid_level": "raid5", "strip_size_kb": self.strip_kb,
            "base_bdevs": members,
        });
        for (name, value) in self.tuning.as_object().expect("an object") {
            volume[name] = value.clone();
        }
        calls.push(call("bdev_raid_create", volume));
        calls
    }

    /// The whole configuration.
    pub fn config(&self, site: &Site) -> Value {
        self.exported(site, self.devices(site))
    }

    /// The configuration of a volume whose members say themselves what they are.
    pub fn found(&self, site: &Site) -> Value {
        self.exported(site, self.disks(site))
    }

    /// These calls, and those that export the volume.
    pub fn exported(&self, site: &Site, mut calls: Vec<Value>) -> Value {
        let listen = json!({
            "trtype": "TCP", "adrfam": "IPv4",
            "traddr": site.address().ip().to_string(),
            "trsvcid": site.address().port().to_string(),
        });
        let subsystem = json!({"nqn": NQN, "allow_any_host": self.allow_any_host});
        let namespace = json!({"nqn": NQN, "namespace": {"bdev_name": VOLUME}});
        calls.extend([
            call(
                "nvmf_create_transport",
                json!({"trtype": "TCP", "max_io_size": self.max_io_size}),
            ),
            call("nvmf_create_subsystem", subsystem),
            call("nvmf_subsystem_add_ns", namespace),
            call(
                "nvmf_subsystem_add_listener",
                json!({"nqn": NQN, "listen_address": listen}),
            ),
        ]);
        config(calls)
    }
}
