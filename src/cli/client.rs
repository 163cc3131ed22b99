//! A client of a serving process: one call to its socket.

use std::io::{self, BufReader, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::serve::{DEFAULT_SOCKET, address};
use crate::rpc::Address;
use crate::rpc::address::Stream;

/// Where the process is, and how patient the caller.
#[derive(Clone, Debug, clap::Args)]
pub struct Client {
    /// Where the serving process takes RPC: its socket, or IP or IP:PORT.
    #[arg(short, long, value_name = "SOCKET", default_value = DEFAULT_SOCKET, value_parser = address)]
    socket: Address,
    /// Seconds to wait for an answer.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u32,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody is there.
    #[error(
        "cannot reach {address}: {source}; is `stripewise serve` running, and is this its socket (-s)?"
    )]
    Connect {
        /// Where it was looked for.
        address: Address,
        /// What the operating system said.
        source: io::Error,
    },
    /// The answer did not come, or was cut off.
    #[error("{method}: no answer: {reason}")]
    NoAnswer {
        /// The method.
        method: String,
        /// What happened.
        reason: String,
    },
    /// The method failed.
    #[error("{method}: {message} (code {code})")]
    Failed {
        /// The method.
        method: String,
        /// The error's code.
        code: i64,
        /// What it says.
        message: String,
    },
}

impl Client {
    /// Makes a call and gives its result.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn call(&self, method: &str, params: Option<Value>) -> Result<Value, ClientError> {
        let connected = self.socket.connect(self.patience());
        let stream = connected.map_err(|source| ClientError::Connect {
            address: self.socket.clone(),
            source,
        })?;
        let response = self.exchange(stream, method, params);
        let mut response = response.map_err(|reason| ClientError::NoAnswer {
            method: method.to_owned(),
            reason,
        })?;
        if let Some(result) = response.get_mut("result") {
            return Ok(result.take());
        }
        let error = &response["error"];
        Err(ClientError::Failed {
            method: method.to_owned(),
            code: error["code"].as_i64().unwrap_or(0),
            message: match error["message"].as_str() {
                Some(text) => text.to_owned(),
                None => response.to_string(),
            },
        })
    }

    /// How long each read and write may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout.max(1).into())
    }

    fn exchange(
        &self,
        mut stream: Stream,
        method: &str,
        params: Option<Value>,
    ) -> Result<Value, String> {
        let mut request = json!({"jsonrpc": "2.0", "id": 1, "method": method});
        if let Some(params) = params {
            request["params"] = params;
        }
        stream
            .write_all(request.to_string().as_bytes())
            .map_err(|e| e.to_string())?;
        let responses = serde_json::Deserializer::from_reader(BufReader::new(stream));
        match responses.into_iter().next() {
            None => Err("the other side closed the connection".into()),
            Some(Ok(response)) => Ok(response),
            Some(Err(e)) if e.io_error_kind() == Some(io::ErrorKind::WouldBlock) => Err(format!(
                "none within {} s; see --timeout",
                self.patience().as_secs()
            )),
            Some(Err(e)) => Err(e.to_string()),
        }
    }
}
