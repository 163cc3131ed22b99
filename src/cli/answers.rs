//! What a serving process says of itself, asked for in one go: for whoever watches it.

use serde_json::{Value, json};

use super::client::{Client, ClientError};

/// The answers to the methods that tell how things are.
#[derive(Clone, Debug)]
pub struct Answers {
    /// `spdk_get_version`.
    pub version: Value,
    /// `framework_get_reactors`.
    pub reactors: Value,
    /// `thread_get_pollers`.
    pub pollers: Value,
    /// `bdev_get_iostat`.
    pub iostat: Value,
    /// `bdev_raid_get_bdevs` of all categories.
    pub volumes: Value,
    /// `nvmf_get_stats`.
    pub groups: Value,
    /// `nvmf_get_subsystems`.
    pub subsystems: Value,
    /// `bdev_nvme_get_controllers`.
    pub controllers: Value,
}

impl Answers {
    /// Asks.
    ///
    /// # Errors
    /// [`ClientError`] of the first method that was not answered.
    pub fn ask(client: &Client) -> Result<Self, ClientError> {
        let ask = |method: &str| client.call(method, None);
        Ok(Self {
            version: ask("spdk_get_version")?,
            reactors: ask("framework_get_reactors")?,
            pollers: ask("thread_get_pollers")?,
            iostat: ask("bdev_get_iostat")?,
            volumes: client.call("bdev_raid_get_bdevs", Some(json!({"category": "all"})))?,
            groups: ask("nvmf_get_stats")?,
            subsystems: ask("nvmf_get_subsystems")?,
            controllers: ask("bdev_nvme_get_controllers")?,
        })
    }
}

/// The elements of an answer that is a list; none of another.
pub fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

/// The text of this name; empty where there is none.
pub fn text<'a>(object: &'a Value, key: &str) -> &'a str {
    object[key].as_str().unwrap_or_default()
}

/// A number, wherever it is; 0 for what is none.
pub fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}
