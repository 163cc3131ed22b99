//! Methods about keys, which are read from files and known by name.

use std::path::PathBuf;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Method, Params, When};
use crate::control::{KeyError, System};
use crate::rpc::RpcError;

/// This family's methods.
pub const METHODS: &[Method] = &[
    Method {
        name: "keyring_file_add_key",
        aliases: &[],
        when: When::Always,
        params: &["name", "path"],
        help: "Reads a DH-HMAC-CHAP key from a file that only its owner may read",
        run: keyring_file_add_key,
    },
    Method {
        name: "keyring_file_remove_key",
        aliases: &[],
        when: When::Always,
        params: &["name"],
        help: "Forgets a key that nobody uses",
        run: keyring_file_remove_key,
    },
    Method {
        name: "keyring_get_keys",
        aliases: &[],
        when: When::Always,
        params: &[],
        help: "Lists the keys and the files that they are from",
        run: keyring_get_keys,
    },
];

impl From<KeyError> for RpcError {
    fn from(error: KeyError) -> Self {
        Self::errno(error.errno(), error.to_string())
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AddKey {
    name: String,
    path: PathBuf,
}

fn keyring_file_add_key(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: AddKey = params.read()?;
    system.keyring.add(&p.name, &p.path)?;
    Ok(true.into())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RemoveKey {
    name: String,
}

fn keyring_file_remove_key(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    let p: RemoveKey = params.read()?;
    let users = system.target.key_users(&p.name);
    system.keyring.remove(&p.name, &users)?;
    Ok(true.into())
}

fn keyring_get_keys(system: &mut System, params: Params) -> Result<Answer, RpcError> {
    params.none()?;
    let keys = system.keyring.list().map(|(name, path)| {
        json!({
            "name": name,
            "module": "keyring_file",
            "removed": false,
            "probed": false,
            "refcnt": 1 + system.target.key_users(name).len(),
            "path": path,
        })
    });
    Ok(keys.collect::<Vec<Value>>().into())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::rpc::testing::{call_now, key_file, starting};

    #[test]
    fn keys_are_listed_in_spdks_shape_and_their_files_told_as_configuration() {
        let system = &mut starting();
        let dir = tempfile::tempdir().unwrap();
        let path = key_file(dir.path(), "key");
        fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let params = json!({"name": "key0", "path": path});
        let error = call_now(system, "keyring_file_add_key", params.clone()).unwrap_err();
        assert_eq!(error.code, -1, "EPERM: {}", error.message);
        assert!(error.message.contains("chmod 0600"), "{}", error.message);
        fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let added = call_now(system, "keyring_file_add_key", params.clone());
        assert_eq!(added, Ok(true.into()));
        let keys = call_now(system, "keyring_get_keys", Value::Null).unwrap();
        let expected = json!([{
            "name": "key0", "module": "keyring_file", "removed": false, "probed": false,
            "refcnt": 1, "path": path,
        }]);
        assert_eq!(keys, expected);
        system.finish_startup();
        let part = json!({"name": "keyring"});
        let config = call_now(system, "framework_get_config", part).unwrap();
        let expected = json!([{"method": "keyring_file_add_key", "params": params}]);
        assert_eq!(config, expected);
        let name = json!({"name": "key0"});
        let removed = call_now(system, "keyring_file_remove_key", name.clone());
        assert_eq!(removed, Ok(true.into()));
        let error = call_now(system, "keyring_file_remove_key", name).unwrap_err();
        assert_eq!(error.code, -126, "ENOKEY: {}", error.message);
    }
}
