//! Why a call failed, as the client sees it.

use rustix::io::Errno;
use serde_json::{Value, json};

use crate::bdev::RegistryError;
use crate::control::ControlError;
use crate::nvmf::TargetError;

/// A JSON-RPC error: a code that programs branch on and a sentence that tells a person what is
/// wrong and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (code {code})")]
pub struct RpcError {
    /// One of the codes below, or the negative of an errno.
    pub code: i32,
    /// The sentence.
    pub message: String,
}

impl RpcError {
    /// The bytes are not JSON.
    pub const PARSE: i32 = -32700;
    /// The JSON is not a request.
    pub const INVALID_REQUEST: i32 = -32600;
    /// There is no such method.
    pub const METHOD_NOT_FOUND: i32 = -32601;
    /// The method does not take these parameters.
    pub const INVALID_PARAMS: i32 = -32602;
    /// The method failed for a reason of ours.
    pub const INTERNAL: i32 = -32603;
    /// The method is not for now: only before, or only after, the start is complete.
    pub const WRONG_STATE: i32 = -1;

    /// An error of this code.
    pub fn new(code: i32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }

    /// [`RpcError::INVALID_REQUEST`].
    pub fn invalid_request(reason: &str) -> Self {
        Self::new(Self::INVALID_REQUEST, format!("Invalid request: {reason}"))
    }

    /// [`RpcError::INVALID_PARAMS`].
    pub fn invalid_params(message: impl Into<String>) -> Self {
        Self::new(Self::INVALID_PARAMS, message)
    }

    /// The negative of an errno, with our own sentence.
    pub fn errno(errno: Errno, message: impl Into<String>) -> Self {
        Self::new(-errno.raw_os_error(), message)
    }

    /// The error member of a response.
    pub fn to_value(&self) -> Value {
        json!({"code": self.code, "message": self.message})
    }
}

impl From<ControlError> for RpcError {
    fn from(error: ControlError) -> Self {
        Self::errno(error.errno(), error.to_string())
    }
}

impl From<RegistryError> for RpcError {
    fn from(error: RegistryError) -> Self {
        ControlError::from(error).into()
    }
}

impl From<TargetError> for RpcError {
    /// SPDK answers the NVMe-oF methods with JSON-RPC's own codes where it can.
    fn from(error: TargetError) -> Self {
        let code = match &error {
            TargetError::Invalid(_) | TargetError::NotFound(_) => Self::INVALID_PARAMS,
            TargetError::Bdev(RegistryError::NotFound(_)) => Self::INVALID_PARAMS,
            TargetError::Exists(_) => Self::INTERNAL,
            other => -other.errno(),
        };
        Self::new(code, error.to_string())
    }
}
