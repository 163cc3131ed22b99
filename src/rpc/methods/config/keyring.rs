//! The configuration of the keyring: where the keys are, never what they are.

use serde_json::json;

use super::Call;
use crate::control::System;

pub(super) fn calls(system: &System) -> Vec<Call> {
    let call =
        |(name, path)| Call::new("keyring_file_add_key", json!({"name": name, "path": path}));
    system.keyring.list().map(call).collect()
}
