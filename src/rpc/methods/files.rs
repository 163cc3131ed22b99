//! Methods of files and kernel block devices. SPDK has two modules for them; here both are the same
//! underneath, and differ in how they are shown.

use std::path::PathBuf;

use serde::Deserialize;
use uuid::Uuid;

use super::members::delete;
use super::{Answer, Method, Params, When};
use crate::bdev::{FileApi, Uring};
use crate::control::{ControlError, Kind, System};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "bdev_uring_create",
        aliases: &[],
        when: When::Runtime,
        params: &["filename", "name", "block_size?", "uuid?"],
        help: "Makes a device of a file or kernel block device and answers its name",
        run: bdev_uring_create,
    },
    Method {
        name: "bdev_uring_delete",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Deletes a device of a file; the file stays",
        run: bdev_uring_delete,
    },
    Method {
        name: "bdev_uring_rescan",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Takes a device of a file at the size that the file has now",
        run: bdev_uring_rescan,
    },
    Method {
        name: "bdev_aio_create",
        aliases: &["construct_aio_bdev"],
        when: When::Runtime,
        params: &[
            "name",
            "filename",
            "block_size?",
            "readonly?",
            "fallocate?",
            "uuid?",
            "nowait?",
        ],
        help: "Makes a device of a file as bdev_uring_create does, shown as one of SPDK's AIO module",
        run: bdev_aio_create,
    },
    Method {
        name: "bdev_aio_delete",
        aliases: &["delete_aio_bdev"],
        when: When::Runtime,
        params: &["name"],
        help: "Deletes a device that bdev_aio_create has made; the file stays",
        run: bdev_aio_delete,
    },
    Method {
        name: "bdev_aio_rescan",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Takes a device that bdev_aio_create has made at the size that its file has now",
        run: bdev_aio_rescan,
    },
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UringCreate {
    filename: PathBuf,
    name: String,
    block_size: Option<u32>,
    uuid: Option<Uuid>,
}

fn bdev_uring_create(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: UringCreate = params.read()?;
    create(system, FileApi::Uring, p)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AioCreate {
    name: String,
    filename: PathBuf,
    block_size: Option<u32>,
    readonly: Option<bool>,
    // Space is given back wherever the file can, asked for or not.
    #[serde(rename = "fallocate")]
    _fallocate: Option<bool>,
    uuid: Option<Uuid>,
    nowait: Option<bool>,
}

fn bdev_aio_create(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AioCreate = params.read()?;
    if p.readonly == Some(true) {
        return Err(RpcError::invalid_params(
            "readonly: devices that cannot be written are not supported; leave readonly out",
        ));
    }
    if p.nowait == Some(true) {
        return Err(RpcError::invalid_params(
            "nowait: io_uring never blocks, so there is no such flag here; leave nowait out",
        ));
    }
    let file = UringCreate {
        filename: p.filename,
        name: p.name,
        block_size: p.block_size,
        uuid: p.uuid,
    };
    create(system, FileApi::Aio, file)
}

fn create(system: &mut System, api: FileApi, p: UringCreate) -> Result<Answer, RpcError> {
    let arenas = std::slice::from_ref(&system.arena);
    // 0 is how SPDK says "what the file has".
    let block_size = p.block_size.filter(|&b| b != 0);
    let made = Uring::new_as(api, &p.name, &p.filename, block_size, p.uuid, arenas);
    let device = made.map_err(ControlError::from)?;
    let kind = Kind::File {
        device: device.clone(),
    };
    system.add_device(device, kind)?;
    Ok(p.name.into())
}

fn bdev_uring_delete(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    delete(system, params, FileApi::Uring.word())
}

fn bdev_aio_delete(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    delete(system, params, FileApi::Aio.word())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rescan {
    name: String,
}

fn bdev_uring_rescan(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Rescan = params.read()?;
    system.rescan(&p.name, FileApi::Uring)?;
    Ok(true.into())
}

fn bdev_aio_rescan(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: Rescan = params.read()?;
    system.rescan(&p.name, FileApi::Aio)?;
    Ok(true.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, system};
    use serde_json::{Value, json};

    #[test]
    fn a_file_becomes_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let system = &mut system();
        let uring = json!({"name": "u0", "filename": path, "block_size": 4096});
        assert_eq!(
            call_now(system, "bdev_uring_create", uring.clone()),
            Ok("u0".into())
        );
        let shown = call_now(system, "bdev_get_bdevs", json!({"name": "u0"})).unwrap();
        assert_eq!(shown[0]["num_blocks"], 256);
        assert_eq!(
            shown[0]["driver_specific"]["uring"]["filename"],
            json!(path)
        );
        assert_eq!(
            call_now(system, "bdev_uring_delete", json!({"name": "u0"})),
            Ok(true.into())
        );
        assert!(path.exists());

        let missing = json!({"name": "u1", "filename": dir.path().join("missing")});
        let error = call_now(system, "bdev_uring_create", missing).unwrap_err();
        assert_eq!(error.code, -2);
        assert!(error.message.contains("missing") && error.message.contains("truncate"));
    }

    /// As SPDK shows its AIO module's.
    #[test]
    fn a_file_is_shown_as_an_aio_device_where_it_was_made_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let system = &mut system();
        let aio = json!({"name": "a0", "filename": path, "block_size": 512, "fallocate": true});
        assert_eq!(call_now(system, "bdev_aio_create", aio), Ok("a0".into()));
        let shown = call_now(system, "bdev_get_bdevs", json!({"name": "a0"})).unwrap();
        assert_eq!(shown[0]["product_name"], "AIO disk");
        let expected = json!({
            "filename": path, "block_size_override": true, "readonly": false, "fallocate": true,
        });
        assert_eq!(shown[0]["driver_specific"], json!({"aio": expected}));
        let config = call_now(system, "framework_get_config", json!({"name": "bdev"})).unwrap();
        let made = config.as_array().unwrap().iter();
        let mut made = made.filter(|call| call["method"] == "bdev_aio_create");
        let saved = made.next().unwrap()["params"].clone();
        let other = call_now(system, "bdev_uring_delete", json!({"name": "a0"})).unwrap_err();
        assert_eq!(other.code, -19);
        assert!(other.message.contains("aio"), "{}", other.message);
        call_now(system, "bdev_aio_delete", json!({"name": "a0"})).unwrap();
        // What was saved makes the same.
        call_now(system, "bdev_aio_create", saved).unwrap();
        let again = call_now(system, "bdev_get_bdevs", json!({"name": "a0"})).unwrap();
        assert_eq!(again, shown);
        call_now(system, "bdev_aio_delete", json!({"name": "a0"})).unwrap();
        for asked in ["readonly", "nowait"] {
            let mut params = json!({"name": "a0", "filename": path});
            params[asked] = true.into();
            let error = call_now(system, "bdev_aio_create", params).unwrap_err();
            assert_eq!(error.code, -32602);
            assert!(error.message.contains(asked), "{}", error.message);
        }
    }

    #[test]
    fn a_file_is_taken_at_the_size_that_it_has_unless_its_users_would_lose_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let file = std::fs::File::create(&path).unwrap();
        let system = &mut system();
        let name = json!({"name": "d0"});
        let blocks = |system: &mut System| {
            let shown = call_now(system, "bdev_get_bdevs", json!({"name": "d0"})).unwrap();
            shown[0]["num_blocks"].as_u64().unwrap()
        };
        for api in ["uring", "aio"] {
            file.set_len(1 << 20).unwrap();
            let [create, rescan, delete] =
                ["create", "rescan", "delete"].map(|verb| format!("bdev_{api}_{verb}"));
            let made = json!({"name": "d0", "filename": path, "block_size": 4096});
            call_now(system, &create, made).unwrap();
            let known = system.devices.notices.since(0).count();
            let new = |system: &mut System| -> Vec<&str> {
                let notices = system.devices.notices.since(0).skip(known);
                notices.map(|n| n.event.name()).collect()
            };
            call_now(system, &rescan, name.clone()).unwrap();
            assert_eq!((blocks(system), new(system)), (256, vec![]));
            file.set_len(3 << 20).unwrap();
            assert_eq!(blocks(system), 256);
            assert_eq!(call_now(system, &rescan, name.clone()), Ok(true.into()));
            assert_eq!((blocks(system), new(system)), (768, vec!["bdev_resize"]));
            // In use, it does not shrink.
            call_now(system, "bdev_error_create", json!({"base_name": "d0"})).unwrap();
            file.set_len(2 << 20).unwrap();
            let error = call_now(system, &rescan, name.clone()).unwrap_err();
            assert_eq!(error.code, -16, "{}", error.message);
            assert!(
                error.message.contains("as large as it was"),
                "{}",
                error.message
            );
            assert_eq!(blocks(system), 768);
            call_now(system, "bdev_error_delete", json!({"name": "EE_d0"})).unwrap();
            call_now(system, &rescan, name.clone()).unwrap();
            assert_eq!(blocks(system), 512);
            call_now(system, &delete, name.clone()).unwrap();
            let gone = call_now(system, &rescan, name.clone()).unwrap_err();
            assert_eq!(gone.code, -19);
        }
        assert_eq!(
            call_now(system, "bdev_get_bdevs", Value::Null),
            Ok(json!([]))
        );
    }
}
