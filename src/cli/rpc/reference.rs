//! All methods as a page of documentation: `docs/rpc.md`.

use std::fmt::Write;

use crate::rpc::methods::{FAMILIES, Method, When};

const HEAD: &str = "\
# Methods

`stripewise generate rpc` writes this page from the table that the process itself reads; a test keeps it so. Parameters in
brackets may be left out. `stripewise rpc help METHOD` tells the same in a terminal, and `rpc_get_methods` lists what the
serving process has.

Names, parameters, results and error codes are SPDK's where SPDK has the method: its own documentation describes them, and
its `rpc.py` can be used. Methods that are marked *ours* are not SPDK's; `scripts/stripewise_rpc.py` teaches them to `rpc.py`
(docs/operations.md).

A call is one JSON-RPC 2.0 object to the socket of the serving process, `/var/tmp/stripewise.sock` unless `serve -r` says
otherwise; parameters are given by name.

| code | meaning |
|---|---|
| -32700, -32600 | it is no JSON, or no call; the connection ends after -32700 |
| -32601 | there is no such method |
| -32602 | a parameter is unknown, missing, of the wrong type or out of range; the message names it |
| -32603 | the process failed to do it; the message says why |
| -1 | not now: the method is for before the start is complete, or for after it |
| -2, -16, -17, -19, -22, -28, -110 and others | minus the operating system's number for what is wrong: not found, busy, exists, no such device, invalid, full, timed out |
";

/// Methods that SPDK does not have.
pub(super) const OURS: &[&str] = &[
    "bdev_raid_accept_parity",
    "bdev_raid_add_spare",
    "bdev_raid_assemble",
    "bdev_raid_check",
    "bdev_raid_examine",
    "bdev_raid_remove_spare",
    "bdev_raid_replace_base_bdev",
    "bdev_raid_set_policy",
    "bdev_raid_set_tuning",
];

/// The page.
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for family in FAMILIES {
        // Writing to a string does not fail.
        let _ = write!(page, "\n## {}\n", family.title);
        for method in family.methods {
            describe(&mut page, method);
        }
    }
    page
}

fn describe(page: &mut String, method: &Method) {
    let params = method.params.iter().map(|p| match p.strip_suffix('?') {
        Some(name) => format!(" [{name}]"),
        None => format!(" {p}"),
    });
    let params: String = params.collect();
    let mut notes = Vec::new();
    if OURS.contains(&method.name) {
        notes.push("ours".to_owned());
    }
    match method.when {
        When::Startup => notes.push("only before the start is complete".to_owned()),
        When::Always => notes.push("also before the start is complete".to_owned()),
        When::Runtime => {}
    }
    if !method.aliases.is_empty() {
        notes.push(format!("also called {}", method.aliases.join(", ")));
    }
    let _ = write!(page, "\n### {}\n\n{}.", method.name, method.help);
    if !notes.is_empty() {
        let _ = write!(page, " *{}*", notes.join("; "));
    }
    if !params.is_empty() {
        let _ = write!(page, "\n\n    {}{params}", method.name);
    }
    page.push('\n');
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;

    use super::*;
    use crate::rpc::methods::find;

    #[test]
    fn the_page_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/rpc.md");
        let written = fs::read_to_string(path).unwrap();
        let mend = "write it anew: cargo run -- generate rpc > docs/rpc.md";
        assert!(
            written == reference(),
            "docs/rpc.md is not what there is; {mend}"
        );
    }

    /// What the plugin of SPDK's rpc.py says of our methods: the JSON between its triple quotes.
    #[test]
    fn the_plugin_knows_our_methods_and_their_parameters() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/stripewise_rpc.py");
        let plugin = fs::read_to_string(path).unwrap();
        let table = plugin
            .split("r'''")
            .nth(1)
            .and_then(|rest| rest.split("'''").next());
        let table: BTreeMap<String, Vec<String>> =
            serde_json::from_str(table.expect("a table in triple quotes")).unwrap();
        for (name, params) in &table {
            // rpc.py has a command of this name, with SPDK's parameters.
            let name = match name.as_str() {
                "stripewise_raid_create" => "bdev_raid_create",
                name => name,
            };
            let method = find(name).unwrap_or_else(|| panic!("there is no {name}"));
            assert_eq!(params, method.params, "{name}");
        }
        for name in OURS {
            assert!(find(name).is_some() && table.contains_key(*name), "{name}");
        }
    }
}
