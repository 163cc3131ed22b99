//! Methods that make and delete block devices.

use std::path::PathBuf;

use serde::Deserialize;
use uuid::Uuid;

use super::changing::{Changing, Then};
use super::{Answer, Method, Params, When};
use crate::bdev::{Delay, ErrorBdev, Fault, Injection, IoType, Malloc, Null, Uring};
use crate::control::{ControlError, Deletion, Kind, System};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "bdev_malloc_create",
        aliases: &["construct_malloc_bdev"],
        when: When::Runtime,
        params: &[
            "name?",
            "num_blocks",
            "block_size",
            "uuid?",
            "optimal_io_boundary?",
            "physical_block_size?",
            "md_size?",
            "md_interleave?",
            "dif_type?",
            "dif_is_head_of_md?",
            "dif_pi_format?",
            "numa_id?",
        ],
        help: "Makes a RAM disk and answers its name",
        run: bdev_malloc_create,
    },
    Method {
        name: "bdev_malloc_delete",
        aliases: &["delete_malloc_bdev"],
        when: When::Runtime,
        params: &["name"],
        help: "Deletes a RAM disk",
        run: bdev_malloc_delete,
    },
    Method {
        name: "bdev_null_create",
        aliases: &["construct_null_bdev"],
        when: When::Runtime,
        params: &[
            "name",
            "num_blocks",
            "block_size",
            "uuid?",
            "physical_block_size?",
            "md_size?",
            "dif_type?",
            "dif_is_head_of_md?",
            "dif_pi_format?",
        ],
        help: "Makes a device that keeps nothing and answers its name",
        run: bdev_null_create,
    },
    Method {
        name: "bdev_null_delete",
        aliases: &["delete_null_bdev"],
        when: When::Runtime,
        params: &["name"],
        help: "Deletes a device that keeps nothing",
        run: bdev_null_delete,
    },
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
        name: "bdev_delay_create",
        aliases: &[],
        when: When::Runtime,
        params: &[
            "base_bdev_name",
            "name",
            "avg_read_latency",
            "p99_read_latency",
            "avg_write_latency",
            "p99_write_latency",
            "uuid?",
        ],
        help: "Puts a device that is slower by so many microseconds on another one",
        run: bdev_delay_create,
    },
    Method {
        name: "bdev_delay_delete",
        aliases: &[],
        when: When::Runtime,
        params: &["name"],
        help: "Deletes a delay device",
        run: bdev_delay_delete,
    },
    Method {
        name: "bdev_error_create",
        aliases: &["construct_error_bdev"],
        when: When::Runtime,
        params: &["base_name", "uuid?"],
        help: "Puts a device EE_<base_name> that can be made to fail on another one",
        run: bdev_error_create,
    },
    Method {
        name: "bdev_error_delete",
        aliases: &["delete_error_bdev"],
        when: When::Runtime,
        params: &["name"],
        help: "Deletes an error injection device",
        run: bdev_error_delete,
    },
    Method {
        name: "bdev_error_inject_error",
        aliases: &["bdev_inject_error"],
        when: When::Runtime,
        params: &[
            "name",
            "io_type",
            "error_type",
            "num?",
            "corrupt_offset?",
            "corrupt_value?",
            "lba?",
            "num_blocks?",
            "write_heals?",
        ],
        help: "Makes an error injection device fail the next requests of a kind",
        run: bdev_error_inject_error,
    },
];

/// Refuses a parameter that SPDK has and we have not, unless it asks for nothing.
fn unsupported(name: &str, asks_for_something: bool) -> Result<(), RpcError> {
    if !asks_for_something {
        return Ok(());
    }
    Err(RpcError::invalid_params(format!(
        "{name}: per-block metadata is not supported; leave {name} out"
    )))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct MallocCreate {
    name: Option<String>,
    num_blocks: u64,
    block_size: u32,
    uuid: Option<Uuid>,
    // Hints that change nothing here.
    #[serde(rename = "optimal_io_boundary")]
    _optimal_io_boundary: Option<u32>,
    #[serde(rename = "physical_block_size")]
    _physical_block_size: Option<u32>,
    #[serde(rename = "numa_id")]
    _numa_id: Option<i32>,
    md_size: Option<u32>,
    #[serde(rename = "md_interleave")]
    _md_interleave: Option<bool>,
    dif_type: Option<i32>,
    #[serde(rename = "dif_is_head_of_md")]
    _dif_is_head_of_md: Option<bool>,
    #[serde(rename = "dif_pi_format")]
    _dif_pi_format: Option<u32>,
}

fn bdev_malloc_create(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: MallocCreate = params.read()?;
    unsupported("md_size", p.md_size.unwrap_or(0) != 0)?;
    unsupported("dif_type", p.dif_type.unwrap_or(0) != 0)?;
    let name = p.name.unwrap_or_else(|| free_name(system, "Malloc"));
    let made =
        Malloc::new(&name, p.block_size, p.num_blocks, p.uuid).map_err(ControlError::from)?;
    system.add_device(made, Kind::Malloc)?;
    Ok(name.into())
}

/// The first of `Prefix0`, `Prefix1` .. that no device has.
fn free_name(system: &System, prefix: &str) -> String {
    let mut names = (0u64..).map(|n| format!("{prefix}{n}"));
    let is_free = |name: &String| system.devices.registry.get(name).is_err();
    names
        .find(is_free)
        .expect("there are fewer devices than numbers")
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NullCreate {
    name: String,
    num_blocks: u64,
    block_size: u32,
    uuid: Option<Uuid>,
    #[serde(rename = "physical_block_size")]
    _physical_block_size: Option<u32>,
    md_size: Option<u32>,
    dif_type: Option<i32>,
    #[serde(rename = "dif_is_head_of_md")]
    _dif_is_head_of_md: Option<bool>,
    #[serde(rename = "dif_pi_format")]
    _dif_pi_format: Option<u32>,
}

fn bdev_null_create(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: NullCreate = params.read()?;
    unsupported("md_size", p.md_size.unwrap_or(0) != 0)?;
    unsupported("dif_type", p.dif_type.unwrap_or(0) != 0)?;
    let made =
        Null::new(&p.name, p.block_size, p.num_blocks, p.uuid).map_err(ControlError::from)?;
    system.add_device(made, Kind::Null)?;
    Ok(p.name.into())
}

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
    let arenas = std::slice::from_ref(&system.arena);
    // 0 is how SPDK says "what the file has".
    let block_size = p.block_size.filter(|&b| b != 0);
    let made = Uring::new(&p.name, &p.filename, block_size, p.uuid, arenas);
    let kind = Kind::Uring { path: p.filename };
    system.add_device(made.map_err(ControlError::from)?, kind)?;
    Ok(p.name.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DelayCreate {
    base_bdev_name: String,
    name: String,
    avg_read_latency: u64,
    p99_read_latency: u64,
    avg_write_latency: u64,
    p99_write_latency: u64,
    uuid: Option<Uuid>,
}

fn bdev_delay_create(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: DelayCreate = params.read()?;
    if p.uuid.is_some() {
        return Err(RpcError::invalid_params(
            "uuid: a delay device has its own, made of its base's; leave uuid out",
        ));
    }
    system.stack_device(&p.base_bdev_name, &p.name, |base| {
        let below = base.info().name.clone();
        let made = Delay::new(
            base,
            &p.name,
            p.avg_read_latency,
            p.p99_read_latency,
            p.avg_write_latency,
            p.p99_write_latency,
        )?;
        let kind = Kind::Delay {
            base: below,
            delay: made.clone(),
        };
        Ok((made, kind))
    })?;
    Ok(p.name.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ErrorCreate {
    base_name: String,
    uuid: Option<Uuid>,
}

fn bdev_error_create(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: ErrorCreate = params.read()?;
    if p.uuid.is_some() {
        return Err(RpcError::invalid_params(
            "uuid: an error injection device has its own, made of its base's; leave uuid out",
        ));
    }
    let name = format!("EE_{}", p.base_name);
    system.stack_device(&p.base_name, &name, |base| {
        let made = ErrorBdev::new(base.clone());
        let kind = Kind::Error {
            base: base.info().name.clone(),
            injector: made.clone(),
        };
        Ok((made, kind))
    })?;
    Ok(true.into())
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "snake_case")]
enum InjectIoType {
    Clear,
    Read,
    Write,
    Unmap,
    Flush,
    WriteZeroes,
    All,
}

impl InjectIoType {
    /// The requests to hit; none to clear.
    fn target(self) -> Option<IoType> {
        match self {
            Self::Clear => None,
            Self::Read => Some(IoType::Read),
            Self::Write => Some(IoType::Write),
            Self::Unmap => Some(IoType::Unmap),
            Self::Flush => Some(IoType::Flush),
            Self::WriteZeroes => Some(IoType::WriteZeroes),
            Self::All => Some(IoType::All),
        }
    }
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum InjectErrorType {
    Failure,
    Gone,
    Pending,
    CorruptData,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InjectError {
    name: String,
    io_type: InjectIoType,
    error_type: InjectErrorType,
    num: Option<u64>,
    corrupt_offset: Option<u64>,
    corrupt_value: Option<u8>,
    lba: Option<u64>,
    num_blocks: Option<u64>,
    #[serde(default)]
    write_heals: bool,
}

fn bdev_error_inject_error(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: InjectError = params.read()?;
    let (_, kind) = system.devices.of_kind(&p.name, "error injection")?;
    let Kind::Error { injector, .. } = kind else {
        unreachable!("of_kind has looked");
    };
    let Some(io_type) = p.io_type.target() else {
        injector.clear();
        return Ok(true.into());
    };
    let injection = Injection {
        io_type,
        fault: match p.error_type {
            InjectErrorType::Failure => Fault::Failure,
            InjectErrorType::Gone => Fault::Gone,
            InjectErrorType::Pending => Fault::Pending,
            InjectErrorType::CorruptData => Fault::CorruptData {
                offset: p.corrupt_offset.unwrap_or(0),
                value: p.corrupt_value.unwrap_or(0),
            },
        },
        // SPDK fails one request unless told otherwise.
        num: Some(p.num.unwrap_or(1)),
        lbas: match (p.lba, p.num_blocks) {
            (None, None) => None,
            (Some(lba), blocks) => Some(lba..lba.saturating_add(blocks.unwrap_or(1))),
            (None, Some(_)) => {
                return Err(RpcError::invalid_params(
                    "num_blocks: the blocks need a first one; give lba too",
                ));
            }
        },
        write_heals: p.write_heals,
    };
    injector.inject(injection).map_err(ControlError::from)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Delete {
    name: String,
}

fn delete(system: &mut System, params: Params, word: &'static str) -> Result<Answer, RpcError> {
    let p: Delete = params.read()?;
    match system.delete_device(&p.name, word)? {
        Deletion::Done => Ok(true.into()),
        Deletion::UnderWay(change) => Ok(Changing::then(change, Then::DeleteMember)),
    }
}

fn bdev_malloc_delete(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    delete(system, params, "malloc")
}

fn bdev_null_delete(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    delete(system, params, "null")
}

fn bdev_uring_delete(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    delete(system, params, "uring")
}

fn bdev_delay_delete(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    delete(system, params, "delay")
}

fn bdev_error_delete(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    delete(system, params, "error injection")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, system};
    use serde_json::{Value, json};

    #[test]
    fn devices_come_and_go_under_their_names() {
        let system = &mut system();
        let unnamed = json!({"num_blocks": 8, "block_size": 512});
        for name in ["Malloc0", "Malloc1"] {
            let made = call_now(system, "bdev_malloc_create", unnamed.clone());
            assert_eq!(made, Ok(name.into()));
        }
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 4096, "uuid": Uuid::nil()});
        assert_eq!(call_now(system, "bdev_null_create", null), Ok("n0".into()));
        let delay = json!({
            "base_bdev_name": "n0", "name": "d0", "avg_read_latency": 1, "p99_read_latency": 2,
            "avg_write_latency": 3, "p99_write_latency": 4,
        });
        assert_eq!(
            call_now(system, "bdev_delay_create", delay),
            Ok("d0".into())
        );
        let error = json!({"base_name": "d0"});
        assert_eq!(
            call_now(system, "bdev_error_create", error),
            Ok(true.into())
        );
        for (method, name) in [
            ("bdev_error_delete", "EE_d0"),
            ("bdev_delay_delete", "d0"),
            ("bdev_null_delete", "n0"),
            ("bdev_malloc_delete", "Malloc0"),
            ("bdev_malloc_delete", "Malloc1"),
        ] {
            assert_eq!(
                call_now(system, method, json!({"name": name})),
                Ok(true.into())
            );
        }
        assert_eq!(
            call_now(system, "bdev_get_bdevs", Value::Null),
            Ok(json!([]))
        );
    }

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

    #[test]
    fn what_cannot_be_made_is_told_with_its_code() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null.clone()).unwrap();
        for (method, params, code, names) in [
            ("bdev_null_create", null, -17, "n0 already exists"),
            (
                "bdev_malloc_create",
                json!({"num_blocks": 8, "block_size": 520}),
                -22,
                "512 or 4096",
            ),
            (
                "bdev_malloc_create",
                json!({"num_blocks": 0, "block_size": 512}),
                -22,
                "at least one block",
            ),
            (
                "bdev_malloc_create",
                json!({"num_blocks": "8", "block_size": 512}),
                -32602,
                "num_blocks: invalid type",
            ),
            (
                "bdev_malloc_create",
                json!({"num_blocks": -8, "block_size": 512}),
                -32602,
                "num_blocks",
            ),
            (
                "bdev_malloc_create",
                json!({"block_size": 512}),
                -32602,
                "missing field `num_blocks`",
            ),
            (
                "bdev_malloc_create",
                json!({"num_blocks": 8, "block_size": 512, "md_size": 8}),
                -32602,
                "md_size",
            ),
            (
                "bdev_malloc_create",
                json!({"num_blocks": 8, "block_size": 512, "uuid": "x"}),
                -32602,
                "uuid",
            ),
            (
                "bdev_malloc_create",
                json!({"num_block": 8, "block_size": 512}),
                -32602,
                "`num_block`",
            ),
            (
                "bdev_malloc_delete",
                json!({"name": "absent"}),
                -19,
                "bdev_get_bdevs",
            ),
            (
                "bdev_malloc_delete",
                json!({"name": "n0"}),
                -19,
                "is no malloc device",
            ),
            (
                "bdev_error_create",
                json!({"base_name": "absent"}),
                -19,
                "absent",
            ),
            (
                "bdev_delay_create",
                json!({
                    "base_bdev_name": "n0", "name": "d0", "avg_read_latency": 9, "p99_read_latency": 2,
                    "avg_write_latency": 3, "p99_write_latency": 4,
                }),
                -22,
                "p99 read latency",
            ),
            (
                "bdev_error_inject_error",
                json!({
                    "name": "n0", "io_type": "read", "error_type": "failure",
                }),
                -19,
                "error injection",
            ),
        ] {
            let error = call_now(system, method, params).unwrap_err();
            assert_eq!(error.code, code, "{method}: {}", error.message);
            assert!(error.message.contains(names), "{method}: {}", error.message);
        }
        let left = call_now(system, "bdev_get_bdevs", Value::Null).unwrap();
        assert_eq!(left.as_array().unwrap().len(), 1);
        assert_eq!(left[0]["claimed"], false);
    }

    #[test]
    fn errors_are_injected_as_asked() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        call_now(system, "bdev_error_create", json!({"base_name": "n0"})).unwrap();
        let mut inject = |params: Value| {
            let mut all = json!({"name": "EE_n0"});
            all.as_object_mut()
                .unwrap()
                .extend(params.as_object().unwrap().clone());
            let outcome = call_now(system, "bdev_error_inject_error", all);
            let (_, kind) = system.devices.of_kind("EE_n0", "error injection").unwrap();
            let Kind::Error { injector, .. } = kind else {
                panic!("{kind:?}");
            };
            (outcome, injector.injections())
        };
        let (outcome, now) = inject(json!({"io_type": "read", "error_type": "failure"}));
        assert_eq!(outcome, Ok(true.into()));
        let first = Injection {
            io_type: IoType::Read,
            fault: Fault::Failure,
            num: Some(1),
            lbas: None,
            write_heals: false,
        };
        assert_eq!(now, std::slice::from_ref(&first));
        let (_, now) = inject(json!({
            "io_type": "write", "error_type": "corrupt_data", "num": 3, "corrupt_offset": 5,
            "corrupt_value": 255, "lba": 2, "num_blocks": 4, "write_heals": true,
        }));
        let second = Injection {
            io_type: IoType::Write,
            fault: Fault::CorruptData {
                offset: 5,
                value: 255,
            },
            num: Some(3),
            lbas: Some(2..6),
            write_heals: true,
        };
        assert_eq!(now, [first, second]);
        for bad in [
            json!({"io_type": "read", "error_type": "failure", "num": 0}),
            json!({"io_type": "read", "error_type": "corrupt_data"}),
            json!({"io_type": "read", "error_type": "failure", "lba": 8}),
            json!({"io_type": "read", "error_type": "failure", "num_blocks": 1}),
            json!({"io_type": "guess", "error_type": "failure"}),
            json!({"io_type": "read", "error_type": "nomem"}),
        ] {
            let (outcome, now) = inject(bad.clone());
            assert!(outcome.is_err(), "{bad}");
            assert_eq!(now.len(), 2);
        }
        let (outcome, now) = inject(json!({"io_type": "clear", "error_type": "failure"}));
        assert_eq!((outcome, now), (Ok(true.into()), vec![]));
    }
}
