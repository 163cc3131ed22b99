//! The configuration file: calls to make at start, in SPDK's form.
//!
//! `{"subsystems": [{"subsystem": NAME, "config": [{"method": NAME, "params": {..}}]}]}`. The names
//! of the subsystems only group the calls; the calls are those of the RPC. An array of calls in the
//! place of one is a batch, which SPDK's clients write; its calls are made one after the other.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

use crate::rpc::RpcError;

/// Largest file in bytes that is taken for a configuration.
const MAX_SIZE: u64 = 16 << 20;

/// Why a configuration cannot be used. Always names the file.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error(
        "config file {path}: cannot be read: {source}; give the path of a readable file with -c"
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The file is far too large to be one.
    #[error("config file {0}: larger than {MAX_SIZE} bytes; is it a configuration?")]
    TooLarge(PathBuf),
    /// It is not JSON, or not of the form above.
    #[error(
        "config file {path}: {reason}; expected {{\"subsystems\": [{{\"subsystem\": NAME, \"config\": [{{\"method\": NAME, \"params\": {{..}}}}]}}]}}"
    )]
    Form {
        /// The file.
        path: PathBuf,
        /// What is wrong and where.
        reason: String,
    },
    /// A call failed.
    #[error("config file {path}: {place}: {}{}", error.message, hint(error))]
    Call {
        /// The file.
        path: PathBuf,
        /// Which call.
        place: Place,
        /// What the method said.
        error: RpcError,
    },
}

/// A mend for what the methods themselves leave open.
fn hint(error: &RpcError) -> &'static str {
    match error.code {
        RpcError::METHOD_NOT_FOUND => {
            "; correct its name or remove the call (`stripewise rpc rpc_get_methods` lists what there is)"
        }
        _ => "",
    }
}

/// Where in a file a call is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    subsystem: String,
    /// Counted from 1.
    number: usize,
    method: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            subsystem,
            number,
            method,
        } = self;
        write!(f, "subsystem {subsystem}, call {number}, {method}")
    }
}

/// A call of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Where it is.
    pub place: Place,
    /// The method.
    pub method: String,
    /// Its parameters.
    pub params: Option<Value>,
}

/// A configuration: calls in the order in which they are to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    path: PathBuf,
    calls: Vec<Call>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    subsystems: Vec<Subsystem>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subsystem {
    subsystem: String,
    /// Absent or null where there is nothing to configure.
    config: Option<Vec<Entries>>,
}

/// The calls in the place of one: itself, or a batch.
struct Entries(Vec<Entry>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(OneOrMany)
    }
}

/// Reads either. An untagged enum would not tell what is wrong with one, nor where.
struct OneOrMany;

impl<'de> Visitor<'de> for OneOrMany {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a call or an array of calls")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entries, A::Error> {
        let one = Entry::deserialize(MapAccessDeserializer::new(map))?;
        Ok(Entries(vec![one]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Entries, A::Error> {
        let all = Vec::deserialize(SeqAccessDeserializer::new(seq))?;
        Ok(Entries(all))
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    method: String,
    params: Option<Value>,
}

impl Config {
    /// Reads a file. Makes no call.
    ///
    /// # Errors
    /// [`ConfigError`], except for [`ConfigError::Call`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable {
            path: path.to_owned(),
            source,
        };
        if fs::metadata(path).map_err(unreadable)?.len() > MAX_SIZE {
            return Err(ConfigError::TooLarge(path.to_owned()));
        }
        let text = fs::read(path).map_err(unreadable)?;
        Self::parse(path, &text)
    }

    /// Reads what a file at `path` contains.
    ///
    /// # Errors
    /// [`ConfigError::Form`].
    pub fn parse(path: &Path, text: &[u8]) -> Result<Self, ConfigError> {
        let malformed = |reason| ConfigError::Form {
            path: path.to_owned(),
            reason,
        };
        let mut json = serde_json::Deserializer::from_slice(text);
        let file: File = serde_path_to_error::deserialize(&mut json).map_err(|e| {
            let at = e.path().to_string();
            let at = if at == "." {
                String::new()
            } else {
                format!("{at}: ")
            };
            malformed(format!("{at}{}", e.into_inner()))
        })?;
        json.end().map_err(|e| malformed(e.to_string()))?;
        let mut calls = Vec::new();
        for Subsystem { subsystem, config } in file.subsystems {
            let entries = config.into_iter().flatten();
            let entries = entries.flat_map(|Entries(calls)| calls);
            for (index, Entry { method, params }) in entries.enumerate() {
                let place = Place {
                    subsystem: subsystem.clone(),
                    number: index + 1,
                    method: method.clone(),
                };
                calls.push(Call {
                    place,
                    method,
                    params,
                });
            }
        }
        Ok(Self {
            path: path.to_owned(),
            calls,
        })
    }

    /// The calls, in order.
    pub fn calls(&self) -> &[Call] {
        &self.calls
    }

    /// That `call` of this configuration has failed.
    pub fn failed(&self, call: &Call, error: RpcError) -> ConfigError {
        ConfigError::Call {
            path: self.path.clone(),
            place: call.place.clone(),
            error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("a.json"), text.as_bytes())
    }

    #[test]
    fn calls_come_in_the_order_of_the_file() {
        let text = json!({"subsystems": [
            {"subsystem": "accel", "config": null},
            {"subsystem": "sock"},
            {"subsystem": "bdev", "config": [
                {"method": "a", "params": {"x": 1}},
                {"method": "b"},
            ]},
            {"subsystem": "nvmf", "config": [{"method": "c", "params": null}]},
        ]});
        let config = parse(&text.to_string()).unwrap();
        let calls: Vec<_> = config
            .calls()
            .iter()
            .map(|c| (c.method.as_str(), c.params.clone()))
            .collect();
        assert_eq!(
            calls,
            [("a", Some(json!({"x": 1}))), ("b", None), ("c", None)]
        );
        assert_eq!(
            config.calls()[1].place.to_string(),
            "subsystem bdev, call 2, b"
        );
    }

    #[test]
    fn the_calls_of_a_batch_are_made_one_after_the_other() {
        let text = json!({"subsystems": [{"subsystem": "bdev", "config": [
            {"method": "a"}, [{"method": "b"}, {"method": "c"}], [], {"method": "d"},
        ]}]});
        let config = parse(&text.to_string()).unwrap();
        let methods = config.calls().iter().map(|c| c.method.as_str());
        assert_eq!(methods.collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    }

    #[test]
    fn what_is_not_of_the_form_is_told_with_its_place() {
        for (text, names) in [
            ("", "line 1"),
            ("{", "line 1"),
            ("{\"subsystems\": []} x", "trailing"),
            ("[]", "subsystems"),
            ("{}", "missing field `subsystems`"),
            ("{\"subsystem\": []}", "unknown field `subsystem`"),
            ("{\"subsystems\": {}}", "subsystems: invalid type"),
            (
                "{\"subsystems\": [{\"config\": []}]}",
                "missing field `subsystem`",
            ),
            (
                "{\"subsystems\": [{\"subsystem\": \"bdev\", \"config\": [{\"metod\": \"x\"}]}]}",
                "subsystems[0].config[0]",
            ),
            (
                "{\"subsystems\": [{\"subsystem\": \"bdev\", \"config\": [{\"method\": 1}]}]}",
                "subsystems[0].config[0].method: invalid type",
            ),
            (
                "{\"subsystems\": [{\"subsystem\": \"bdev\", \"config\": [[{\"method\": 1}]]}]}",
                "subsystems[0].config[0][0].method: invalid type",
            ),
            (
                "{\"subsystems\": [{\"subsystem\": \"bdev\", \"config\": [1]}]}",
                "expected a call or an array of calls",
            ),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains("config file a.json"), "{error}");
            assert!(error.contains(names), "{text}: {error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("missing.json"), dir.path().to_owned()] {
            let error = Config::read(&path).unwrap_err().to_string();
            assert!(error.contains(path.to_str().unwrap()), "{error}");
            assert!(error.contains("-c"), "{error}");
        }
    }
}
