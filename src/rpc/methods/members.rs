//! Methods that make and delete block devices.

use serde::Deserialize;
use uuid::Uuid;

use super::changing::{Changing, Then};
use super::{Answer, Method, Params, When};
use crate::bdev::{Delay, DelayKind, ErrorBdev, Fault, Injection, IoType, Malloc, Null};
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
        name: "bdev_null_resize",
        aliases: &[],
        when: When::Runtime,
        params: &["name", "new_size"],
        help: "Gives a device that keeps nothing a larger size, in MiB",
        run: bdev_null_resize,
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
        name: "bdev_delay_update_latency",
        aliases: &[],
        when: When::Runtime,
        params: &["delay_bdev_name", "latency_type", "latency_us"],
        help: "Changes avg_read, p99_read, avg_write or p99_write of a delay device, in microseconds",
        run: bdev_delay_update_latency,
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
    let kind = Kind::Null {
        device: made.clone(),
    };
    system.add_device(made, kind)?;
    Ok(p.name.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NullResize {
    name: String,
    new_size: u64,
}

fn bdev_null_resize(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: NullResize = params.read()?;
    system.resize_null(&p.name, p.new_size)?;
    Ok(true.into())
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

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum LatencyType {
    AvgRead,
    P99Read,
    AvgWrite,
    P99Write,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpdateLatency {
    delay_bdev_name: String,
    latency_type: LatencyType,
    latency_us: u64,
}

fn bdev_delay_update_latency(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: UpdateLatency = params.read()?;
    let (_, kind) = system.devices.of_kind(&p.delay_bdev_name, "delay")?;
    let Kind::Delay { delay, .. } = kind else {
        unreachable!("of_kind has looked");
    };
    let kind = match p.latency_type {
        LatencyType::AvgRead => DelayKind::AvgRead,
        LatencyType::P99Read => DelayKind::P99Read,
        LatencyType::AvgWrite => DelayKind::AvgWrite,
        LatencyType::P99Write => DelayKind::P99Write,
    };
    delay
        .set_latency(kind, p.latency_us)
        .map_err(ControlError::from)?;
    Ok(true.into())
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

/// Deletes a device of the kind that `word` names.
pub(super) fn delete(
    system: &mut System,
    params: Params,
    word: &'static str,
) -> Result<Answer, RpcError> {
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
    fn a_null_device_grows_and_does_not_shrink() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 512, "block_size": 4096});
        call_now(system, "bdev_null_create", null).unwrap();
        let resize = |mib: u64| json!({"name": "n0", "new_size": mib});
        assert_eq!(
            call_now(system, "bdev_null_resize", resize(3)),
            Ok(true.into())
        );
        let shown = call_now(system, "bdev_get_bdevs", json!({"name": "n0"})).unwrap();
        assert_eq!(shown[0]["num_blocks"], 768);
        // The same is no news.
        call_now(system, "bdev_null_resize", resize(3)).unwrap();
        let notices = call_now(system, "notify_get_notifications", json!({"id": 1})).unwrap();
        assert_eq!(
            notices,
            json!([{"type": "bdev_resize", "ctx": "n0", "id": 1}])
        );
        let config = call_now(system, "framework_get_config", json!({"name": "bdev"})).unwrap();
        let made = config.as_array().unwrap().iter();
        let mut made = made.filter(|call| call["method"] == "bdev_null_create");
        assert_eq!(made.next().unwrap()["params"]["num_blocks"], 768);
        for (mib, says) in [
            (2, "does not shrink"),
            (0, "does not shrink"),
            (u64::MAX, "less than 2^63"),
        ] {
            let error = call_now(system, "bdev_null_resize", resize(mib)).unwrap_err();
            assert_eq!(error.code, -22, "{}", error.message);
            assert!(error.message.contains(says), "{}", error.message);
        }
    }

    /// In the order of SPDK's own scripts: averages before percentiles, up and down.
    #[test]
    fn the_delays_of_a_device_are_changed_and_saved() {
        let system = &mut system();
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        let delay = json!({
            "base_bdev_name": "n0", "name": "d0", "avg_read_latency": 30, "p99_read_latency": 30,
            "avg_write_latency": 30, "p99_write_latency": 30,
        });
        call_now(system, "bdev_delay_create", delay).unwrap();
        let kinds = ["avg_read", "avg_write", "p99_read", "p99_write"];
        for us in [31_000_000, 30] {
            for kind in kinds {
                let update =
                    json!({"delay_bdev_name": "d0", "latency_type": kind, "latency_us": us});
                let updated = call_now(system, "bdev_delay_update_latency", update);
                assert_eq!(updated, Ok(true.into()));
            }
            let shown = call_now(system, "bdev_get_bdevs", json!({"name": "d0"})).unwrap();
            let config = call_now(system, "framework_get_config", json!({"name": "bdev"})).unwrap();
            let saved = config.as_array().unwrap().iter();
            let mut saved = saved.filter(|call| call["method"] == "bdev_delay_create");
            let saved = &saved.next().unwrap()["params"];
            for kind in kinds {
                let key = format!("{kind}_latency");
                assert_eq!(shown[0]["driver_specific"]["delay"][&key], us);
                assert_eq!(saved[&key], us);
            }
        }
        for (name, kind, code) in [("n0", "avg_read", -19), ("d0", "p50_read", -32602)] {
            let update = json!({"delay_bdev_name": name, "latency_type": kind, "latency_us": 1});
            let error = call_now(system, "bdev_delay_update_latency", update).unwrap_err();
            assert_eq!(error.code, code, "{}", error.message);
        }
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
