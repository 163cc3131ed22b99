//! What one JSON value asks for.

use serde_json::{Map, Value};

use super::RpcError;

/// One call.
#[derive(Clone, Debug, PartialEq)]
pub struct Request {
    /// A number or string that comes back with the answer; null where the client gave none, and
    /// then only an error is answered.
    pub id: Value,
    /// The method's name.
    pub method: String,
    /// An array or object of parameters.
    pub params: Option<Value>,
}

/// A request that can't be taken, and the id to tell it under.
#[derive(Clone, Debug, PartialEq)]
pub struct BadRequest {
    /// The id, null where there is none that could be used.
    pub id: Value,
    /// What is wrong.
    pub error: RpcError,
}

impl Request {
    /// Reads a request from a JSON value.
    ///
    /// # Errors
    /// [`RpcError::INVALID_REQUEST`], saying which member is wrong.
    pub fn from_value(value: Value) -> Result<Self, BadRequest> {
        let refused = |id: Value, reason: &str| BadRequest {
            id,
            error: RpcError::invalid_request(reason),
        };
        let Value::Object(mut members) = value else {
            return Err(refused(Value::Null, "a call is a JSON object"));
        };
        let id = match members.remove("id") {
            None => Value::Null,
            Some(id @ (Value::Null | Value::Number(_) | Value::String(_))) => id,
            Some(_) => return Err(refused(Value::Null, "id must be a number or a string")),
        };
        match Self::from_members(members) {
            Ok((method, params)) => Ok(Self { id, method, params }),
            Err(reason) => Err(refused(id, &reason)),
        }
    }

    fn from_members(mut members: Map<String, Value>) -> Result<(String, Option<Value>), String> {
        let version = members.remove("jsonrpc");
        if version.is_some_and(|v| v != "2.0") {
            return Err("jsonrpc, where present, must be \"2.0\"".into());
        }
        let Some(Value::String(method)) = members.remove("method") else {
            return Err("method must be a string".into());
        };
        let params = match members.remove("params") {
            None | Some(Value::Null) => None,
            Some(params @ (Value::Object(_) | Value::Array(_))) => Some(params),
            Some(_) => return Err("params must be an object or an array".into()),
        };
        match members.keys().next() {
            None => Ok((method, params)),
            Some(unknown) => Err(format!(
                "unknown member {unknown:?}; a call has jsonrpc, id, method and params"
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn bad(value: Value) -> BadRequest {
        Request::from_value(value).unwrap_err()
    }

    #[test]
    fn version_id_and_params_may_be_left_out() {
        let full = json!({"jsonrpc": "2.0", "id": 7, "method": "m", "params": {"a": 1}});
        let want = Request {
            id: json!(7),
            method: "m".into(),
            params: Some(json!({"a": 1})),
        };
        assert_eq!(Request::from_value(full), Ok(want));
        for bare in [
            json!({"method": "m"}),
            json!({"method": "m", "id": null, "params": null}),
        ] {
            let want = Request {
                id: Value::Null,
                method: "m".into(),
                params: None,
            };
            assert_eq!(Request::from_value(bare), Ok(want));
        }
    }

    #[test]
    fn what_is_no_request_is_told_under_its_id() {
        for (value, id) in [
            (json!(1), Value::Null),
            (json!("m"), Value::Null),
            (json!(null), Value::Null),
            (json!({}), Value::Null),
            (json!({"id": [1], "method": "m"}), Value::Null),
            (json!({"id": true, "method": "m"}), Value::Null),
            (json!({"id": 3}), json!(3)),
            (json!({"id": 3, "method": 5}), json!(3)),
            (json!({"id": "x", "method": "m", "params": 5}), json!("x")),
            (json!({"id": 3, "method": "m", "jsonrpc": "1.0"}), json!(3)),
            (json!({"id": 3, "method": "m", "jsonrpc": 2}), json!(3)),
            (json!({"id": 3, "method": "m", "extra": 1}), json!(3)),
        ] {
            let bad = bad(value.clone());
            assert_eq!(bad.error.code, -32600, "{value}");
            assert_eq!(bad.id, id, "{value}");
        }
        let named = bad(json!({"method": "m", "extra": 1})).error.message;
        assert!(named.contains("extra"), "{named}");
    }
}
