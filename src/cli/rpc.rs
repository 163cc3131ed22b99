//! `stripewise rpc`: one call to a serving process.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::serve::DEFAULT_SOCKET;

/// Parameters are KEY=VALUE pairs or one JSON object. A VALUE that is JSON is taken as such, and
/// as a string otherwise; a dot in a KEY goes one object deeper.
///
/// Examples:
///   stripewise rpc bdev_get_bdevs
///   stripewise rpc bdev_malloc_create name=m0 num_blocks=65536 block_size=4096
///   stripewise rpc nvmf_subsystem_add_ns nqn=nqn.2026-11.io.stripewise:a namespace.bdev_name=m0
///   stripewise rpc bdev_raid_get_bdevs '{"category": "all"}'
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The socket of the serving process.
    #[arg(short, long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: PathBuf,
    /// Seconds to wait for the answer.
    #[arg(short, long, value_name = "SECONDS", default_value_t = 60)]
    timeout: u32,
    /// The method; rpc_get_methods lists them.
    method: String,
    /// Its parameters.
    #[arg(value_name = "KEY=VALUE | JSON")]
    params: Vec<String>,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum RpcCallError {
    /// A parameter is not of the form.
    #[error("{0}")]
    Params(String),
    /// Nobody is there.
    #[error(
        "cannot reach {}: {source}; is `stripewise serve` running, and is this its socket (-s)?",
        path.display()
    )]
    Connect {
        /// The socket.
        path: PathBuf,
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

impl Args {
    /// Makes the call and prints the result.
    ///
    /// # Errors
    /// [`RpcCallError`].
    pub fn run(self) -> Result<(), RpcCallError> {
        let params = parse_params(&self.params).map_err(RpcCallError::Params)?;
        let result = self.call(params)?;
        let text = serde_json::to_string_pretty(&result).expect("a value is always JSON");
        // A reader that has left is no failure of the call.
        let _ = writeln!(io::stdout(), "{text}");
        Ok(())
    }

    fn call(&self, params: Option<Value>) -> Result<Value, RpcCallError> {
        let stream = UnixStream::connect(&self.socket).map_err(|source| RpcCallError::Connect {
            path: self.socket.clone(),
            source,
        })?;
        let mut response =
            self.exchange(stream, params)
                .map_err(|reason| RpcCallError::NoAnswer {
                    method: self.method.clone(),
                    reason,
                })?;
        if let Some(result) = response.get_mut("result") {
            return Ok(result.take());
        }
        let error = &response["error"];
        Err(RpcCallError::Failed {
            method: self.method.clone(),
            code: error["code"].as_i64().unwrap_or(0),
            message: match error["message"].as_str() {
                Some(text) => text.to_owned(),
                None => response.to_string(),
            },
        })
    }

    fn exchange(&self, mut stream: UnixStream, params: Option<Value>) -> Result<Value, String> {
        let timeout = Duration::from_secs(self.timeout.max(1).into());
        stream
            .set_read_timeout(Some(timeout))
            .and_then(|()| stream.set_write_timeout(Some(timeout)))
            .map_err(|e| e.to_string())?;
        let mut request = json!({"jsonrpc": "2.0", "id": 1, "method": self.method});
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
                timeout.as_secs()
            )),
            Some(Err(e)) => Err(e.to_string()),
        }
    }
}

/// Reads the parameters of the command line.
fn parse_params(words: &[String]) -> Result<Option<Value>, String> {
    let first = words.first().map(|w| w.trim_start());
    if first.is_some_and(|w| w.starts_with('{')) {
        let [text] = words else {
            return Err("give one JSON object, or KEY=VALUE pairs, not both".into());
        };
        let value = serde_json::from_str(text).map_err(|e| format!("parameters: {e}"))?;
        return Ok(Some(value));
    }
    let mut params = Map::new();
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("parameter {word:?} has no value; write it as KEY=VALUE"))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
        insert(&mut params, key, key, value)?;
    }
    Ok((!params.is_empty()).then(|| params.into()))
}

/// Puts `value` where the dots of `key` lead; `whole` is the key as it was written.
fn insert(
    object: &mut Map<String, Value>,
    key: &str,
    whole: &str,
    value: Value,
) -> Result<(), String> {
    let (name, rest) = match key.split_once('.') {
        Some((name, rest)) => (name, Some(rest)),
        None => (key, None),
    };
    if name.is_empty() {
        return Err(format!("parameter {whole:?} has an empty name in it"));
    }
    match (rest, object.get_mut(name)) {
        (None, None) => {
            object.insert(name.to_owned(), value);
            Ok(())
        }
        (Some(rest), None) => {
            let mut inner = Map::new();
            insert(&mut inner, rest, whole, value)?;
            object.insert(name.to_owned(), inner.into());
            Ok(())
        }
        (Some(rest), Some(Value::Object(inner))) => insert(inner, rest, whole, value),
        _ => Err(format!("parameter {whole:?} is given twice")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Option<Value>, String> {
        let words: Vec<String> = words.iter().map(|&w| w.to_owned()).collect();
        parse_params(&words)
    }

    #[test]
    fn values_are_json_where_they_can_be() {
        assert_eq!(parse(&[]), Ok(None));
        let words = [
            "name=m0",
            "n=12",
            "on=true",
            "list=[\"a\",1]",
            "q=\"5\"",
            "e=",
            "eq=a=b",
        ];
        let want = json!({
            "name": "m0", "n": 12, "on": true, "list": ["a", 1], "q": "5", "e": "", "eq": "a=b"
        });
        assert_eq!(parse(&words), Ok(Some(want)));
    }

    #[test]
    fn dots_lead_into_objects() {
        let words = [
            "ns.bdev_name=m0",
            "ns.nsid=2",
            "nqn=nqn.2026-11.io.example:a",
            "a.b.c=1",
        ];
        let want = json!({
            "ns": {"bdev_name": "m0", "nsid": 2},
            "nqn": "nqn.2026-11.io.example:a",
            "a": {"b": {"c": 1}},
        });
        assert_eq!(parse(&words), Ok(Some(want)));
    }

    #[test]
    fn one_json_object_is_taken_whole() {
        let want = json!({"a": {"b": 1}});
        assert_eq!(parse(&[" {\"a\": {\"b\": 1}}"]), Ok(Some(want)));
    }

    #[test]
    fn what_is_neither_is_named() {
        for words in [
            &["name"][..],
            &["a=1", "a=2"],
            &["a=1", "a.b=2"],
            &["a.b=1", "a=2"],
            &["=1"],
            &["a..b=1"],
            &["{}", "a=1"],
            &["{"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
        assert!(parse(&["name"]).unwrap_err().contains("KEY=VALUE"));
    }
}
