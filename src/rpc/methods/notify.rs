//! Methods that tell what has happened.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Method, Params, When};
use crate::control::{Event, Notice, System};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "notify_get_types",
        aliases: &["get_notification_types"],
        when: When::Runtime,
        params: &[],
        help: "Lists the kinds of notifications",
        run: notify_get_types,
    },
    Method {
        name: "notify_get_notifications",
        aliases: &["get_notifications"],
        when: When::Runtime,
        params: &["id?", "max?"],
        help: "Tells what has happened, from a number on; the latest 1024 are known",
        run: notify_get_notifications,
    },
];

fn notify_get_types(_: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    Ok(Event::ALL.map(Event::name).to_vec().into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GetNotifications {
    #[serde(default)]
    id: u64,
    max: Option<u64>,
}

fn notify_get_notifications(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: GetNotifications = params.read()?;
    let most = usize::try_from(p.max.unwrap_or(u64::MAX)).unwrap_or(usize::MAX);
    let known = system.devices.notices.since(p.id).take(most);
    Ok(known.map(show).collect::<Vec<_>>().into())
}

fn show(notice: &Notice) -> Value {
    json!({
        "type": notice.event.name(),
        "ctx": notice.device,
        "id": notice.id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rpc::testing::{call_now, system};

    #[test]
    fn devices_that_come_and_go_are_told_by_number() {
        let system = &mut system();
        let types = call_now(system, "notify_get_types", Value::Null).unwrap();
        assert_eq!(
            types,
            json!(["bdev_register", "bdev_unregister", "bdev_resize"])
        );
        let none = call_now(system, "notify_get_notifications", Value::Null).unwrap();
        assert_eq!(none, json!([]));
        let null = json!({"name": "n0", "num_blocks": 8, "block_size": 512});
        call_now(system, "bdev_null_create", null).unwrap();
        call_now(system, "bdev_error_create", json!({"base_name": "n0"})).unwrap();
        call_now(system, "bdev_error_delete", json!({"name": "EE_n0"})).unwrap();
        let all = json!([
            {"type": "bdev_register", "ctx": "n0", "id": 0},
            {"type": "bdev_register", "ctx": "EE_n0", "id": 1},
            {"type": "bdev_unregister", "ctx": "EE_n0", "id": 2},
        ]);
        let mut told = |params| call_now(system, "notify_get_notifications", params).unwrap();
        assert_eq!(told(Value::Null), all);
        assert_eq!(told(json!({"id": 1, "max": 1})), json!([all[1]]));
        assert_eq!(told(json!({"id": 2})), json!([all[2]]));
        assert_eq!(told(json!({"id": 3})), json!([]));
        assert_eq!(told(json!({"max": 0})), json!([]));
    }
}
