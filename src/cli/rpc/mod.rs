//! `stripewise rpc`: one call to a serving process.

mod config;
mod help;
mod reference;

use std::io::{self, Write};

use serde_json::{Map, Value};

pub use self::reference::reference;
use super::client::{Client, ClientError};

/// Parameters are KEY=VALUE pairs or one JSON object. A VALUE that is JSON is taken as such, and
/// as a string otherwise; a dot in a KEY goes one object deeper.
///
/// Examples:
///   stripewise rpc bdev_get_bdevs
///   stripewise rpc bdev_malloc_create name=m0 num_blocks=65536 block_size=4096
///   stripewise rpc nvmf_subsystem_add_ns nqn=nqn.2026-11.io.stripewise:a namespace.bdev_name=m0
///   stripewise rpc bdev_raid_get_bdevs '{"category": "all"}'
///   stripewise rpc help
///   stripewise rpc help bdev_raid_create
///   stripewise rpc save_config > stripewise.json
///   stripewise rpc load_config filename=stripewise.json
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    #[command(flatten)]
    client: Client,
    /// The method; help lists them.
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
    /// The call came to nothing.
    #[error(transparent)]
    Client(#[from] ClientError),
}

impl Args {
    /// Makes the call and prints the result.
    ///
    /// # Errors
    /// [`RpcCallError`].
    pub fn run(self) -> Result<(), RpcCallError> {
        if self.method == "help" {
            let text = help::text(&self.params).map_err(RpcCallError::Params)?;
            let _ = write!(io::stdout(), "{text}");
            return Ok(());
        }
        let params = parse_params(&self.params).map_err(RpcCallError::Params)?;
        let result = match config::run(&self.client, &self.method, params.as_ref()) {
            Some(done) => done?,
            None => self.client.call(&self.method, params)?,
        };
        let text = serde_json::to_string_pretty(&result).expect("a value is always JSON");
        // A reader that has left is no failure of the call.
        let _ = writeln!(io::stdout(), "{text}");
        Ok(())
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
    use serde_json::json;

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
