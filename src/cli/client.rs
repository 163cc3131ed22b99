//! A client of a serving process: one call to its socket.

use std::io::{self, BufReader, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::serve::{DEFAULT_SOCKET, address};
use crate::rpc::Address;
use crate::rpc::address::Stream;

/// Calls in one batch: their answers wait for one another in the process, and those of histograms are large.
const BATCH: usize = 64;

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
        let mut response = self.exchange(method, &request(1, method, params))?;
        match response.get_mut("result") {
            Some(result) => Ok(result.take()),
            None => Err(failed(method, &response)),
        }
    }

    /// Calls a method once with each of these parameters, many calls in one batch, and gives the results in the
    /// order of the parameters; `None` for a call that failed.
    ///
    /// # Errors
    /// [`ClientError`] where a batch was not answered as such.
    pub fn call_each(
        &self,
        method: &str,
        params: &[Value],
    ) -> Result<Vec<Option<Value>>, ClientError> {
        let mut results = Vec::with_capacity(params.len());
        for params in params.chunks(BATCH) {
            let calls = params.iter().zip(0..);
            let calls = calls.map(|(params, id)| request(id, method, Some(params.clone())));
            let mut response = self.exchange(method, &calls.collect())?;
            let Some(answers) = response.as_array_mut() else {
                return Err(failed(method, &response));
            };
            // They may come in any order.
            let mut of_batch = vec![None; params.len()];
            for answer in answers {
                let id = answer["id"]
                    .as_u64()
                    .and_then(|id| usize::try_from(id).ok());
                if let Some(place) = id.and_then(|id| of_batch.get_mut(id)) {
                    *place = answer.get_mut("result").map(Value::take);
                }
            }
            results.append(&mut of_batch);
        }
        Ok(results)
    }

    /// How long each read and write may take.
    fn patience(&self) -> Duration {
        Duration::from_secs(self.timeout.max(1).into())
    }

    /// Sends a request, or several, and gives the answer.
    fn exchange(&self, method: &str, request: &Value) -> Result<Value, ClientError> {
        let connected = self.socket.connect(self.patience());
        let stream = connected.map_err(|source| ClientError::Connect {
            address: self.socket.clone(),
            source,
        })?;
        self.answer(stream, request)
            .map_err(|reason| ClientError::NoAnswer {
                method: method.to_owned(),
                reason,
            })
    }

    fn answer(&self, mut stream: Stream, request: &Value) -> Result<Value, String> {
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

fn request(id: usize, method: &str, params: Option<Value>) -> Value {
    let mut request = json!({"jsonrpc": "2.0", "id": id, "method": method});
    if let Some(params) = params {
        request["params"] = params;
    }
    request
}

/// The error of a response without a result.
fn failed(method: &str, response: &Value) -> ClientError {
    let error = &response["error"];
    ClientError::Failed {
        method: method.to_owned(),
        code: error["code"].as_i64().unwrap_or(0),
        message: match error["message"].as_str() {
            Some(text) => text.to_owned(),
            None => response.to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// A client of a server that answers each connection with the next of `answers`; and what that was asked.
    fn served(answers: Vec<Value>) -> (Client, thread::JoinHandle<Vec<Value>>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let client = Client {
            socket: Address::Unix(path),
            timeout: 60,
        };
        let server = thread::spawn(move || {
            let _folder = folder;
            let ask = |answer: Value| {
                let (mut stream, _) = listener.accept().expect("a client");
                let asked = serde_json::Deserializer::from_reader(&stream)
                    .into_iter()
                    .next();
                stream
                    .write_all(answer.to_string().as_bytes())
                    .expect("sent");
                asked.expect("a request").expect("JSON")
            };
            answers.into_iter().map(ask).collect()
        });
        (client, server)
    }

    #[test]
    fn calls_of_a_batch_are_told_apart_by_their_numbers() {
        let (client, server) = served(vec![json!([
            {"jsonrpc": "2.0", "id": 2, "result": "c"},
            {"jsonrpc": "2.0", "id": 1, "error": {"code": -19, "message": "none"}},
            {"jsonrpc": "2.0", "id": 0, "result": "a"},
            {"jsonrpc": "2.0", "id": 9, "result": "not asked for"},
        ])]);
        let params = ["x", "y", "z"].map(|name| json!({"name": name}));
        let results = client.call_each("m", &params).expect("an answer");
        assert_eq!(results, [Some(json!("a")), None, Some(json!("c"))]);
        let expected = json!([
            {"jsonrpc": "2.0", "id": 0, "method": "m", "params": {"name": "x"}},
            {"jsonrpc": "2.0", "id": 1, "method": "m", "params": {"name": "y"}},
            {"jsonrpc": "2.0", "id": 2, "method": "m", "params": {"name": "z"}},
        ]);
        assert_eq!(server.join().expect("it ended"), [expected]);
    }

    #[test]
    fn many_calls_are_several_batches_and_none_is_no_call() {
        let answer = |ids: std::ops::Range<usize>| -> Value {
            let one = |id| json!({"jsonrpc": "2.0", "id": id, "result": id});
            ids.map(one).collect()
        };
        let (client, server) = served(vec![answer(0..64), answer(0..6)]);
        let params: Vec<Value> = (0..70).map(|n| json!({"n": n})).collect();
        let results = client.call_each("m", &params).expect("an answer");
        let expected: Vec<_> = (0..64).chain(0..6).map(|n| Some(json!(n))).collect();
        assert_eq!(results, expected);
        let asked = server.join().expect("it ended");
        assert_eq!(asked[1][5]["params"], json!({"n": 69}));
        assert_eq!(client.call_each("m", &[]).expect("nothing"), []);
    }

    #[test]
    fn a_batch_that_is_refused_is_told() {
        let refusal =
            json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "no"}});
        let (client, server) = served(vec![refusal]);
        let error = client.call_each("m", &[json!({})]).expect_err("a refusal");
        assert!(error.to_string().contains("no (code -32600)"), "{error}");
        server.join().expect("it ended");
    }
}
