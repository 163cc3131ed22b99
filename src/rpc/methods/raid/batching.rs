//! The parameter `batching` of a new volume.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::raid::{BatchScope, Batching};
use crate::rpc::RpcError;

/// How stripes are gathered and batched; what is left out is as by default.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchingParams {
    scope: Option<String>,
    request_size_kb: Option<u32>,
    preread_limit: Option<u32>,
    partial_wait_us: Option<u32>,
    join_wait_us: Option<u32>,
}

impl BatchingParams {
    /// What the parameters say.
    ///
    /// # Errors
    /// A scope that there is not.
    pub fn read(self) -> Result<Batching, RpcError> {
        let mut batching = Batching::default();
        if let Some(name) = &self.scope {
            batching.scope = BatchScope::by_name(name).ok_or_else(|| {
                let all = BatchScope::ALL.map(BatchScope::name).join(", ");
                RpcError::invalid_params(format!(
                    "batching.scope: there is no {name:?}; use one of {all}"
                ))
            })?;
        }
        if let Some(kb) = self.request_size_kb {
            batching.request_bytes = kb.saturating_mul(1024);
        }
        if let Some(limit) = self.preread_limit {
            batching.preread_limit = limit;
        }
        let micros = |us: u32| Duration::from_micros(us.into());
        batching.partial_wait = self.partial_wait_us.map_or(batching.partial_wait, micros);
        batching.join_wait = self.join_wait_us.map_or(batching.join_wait, micros);
        Ok(batching)
    }
}

/// The parameter that says this.
pub fn show(batching: &Batching) -> Value {
    json!({
        "scope": batching.scope.name(),
        "request_size_kb": batching.request_bytes / 1024,
        "preread_limit": batching.preread_limit,
        "partial_wait_us": batching.partial_wait.as_micros() as u64,
        "join_wait_us": batching.join_wait.as_micros() as u64,
    })
}
