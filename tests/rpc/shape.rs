//! The shape of a JSON value: its keys and types, whatever their order.
//!
//! A golden file is a value in which types stand for values: `"number"`, `"string"`, `"bool"`, `"string or null"`, `"true"`,
//! `"any"`. A key that ends in `?` may be missing; `*` stands for all keys that are not named; a list has one element, the
//! shape of all of them.

use std::collections::BTreeSet;

use serde_json::Value;

/// Where `value` is not of this shape; keys that are more than it has must be in `additions`, by their path.
pub fn differences(shape: &Value, value: &Value, additions: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    compare(shape, value, "", additions, &mut found);
    found
}

fn compare(shape: &Value, value: &Value, path: &str, additions: &[&str], found: &mut Vec<String>) {
    match shape {
        Value::String(kind) => {
            let fits = match kind.as_str() {
                "any" => true,
                "number" => value.is_number(),
                "string" => value.is_string(),
                "bool" => value.is_boolean(),
                "string or null" => value.is_string() || value.is_null(),
                "true" => *value == Value::Bool(true),
                other => panic!("{path}: there is no kind {other:?}"),
            };
            if !fits {
                found.push(format!("{path}: {value} is no {kind}"));
            }
        }
        Value::Array(of) => {
            let Some(elements) = value.as_array() else {
                found.push(format!("{path}: {value} is no list"));
                return;
            };
            for element in elements {
                compare(&of[0], element, &format!("{path}[]"), additions, found);
            }
        }
        Value::Object(keys) => {
            let Some(object) = value.as_object() else {
                found.push(format!("{path}: {value} is no object"));
                return;
            };
            let mut known = BTreeSet::new();
            for (key, of) in keys {
                let name = key.trim_end_matches('?');
                known.insert(name);
                let path = format!("{path}.{name}");
                match object.get(name) {
                    Some(member) => compare(of, member, &path, additions, found),
                    None if key.ends_with('?') || key == "*" => {}
                    None => found.push(format!("{path}: is missing")),
                }
            }
            for (name, member) in object.iter().filter(|(k, _)| !known.contains(k.as_str())) {
                let path = format!("{path}.{name}");
                match keys.get("*") {
                    Some(of) => compare(of, member, &path, additions, found),
                    None if additions.contains(&path.as_str()) => {}
                    None => found.push(format!("{path}: is more than SPDK has")),
                }
            }
        }
        other => panic!("{path}: {other} is no shape"),
    }
}

/// A shape that lets everything through would make every test pass.
#[test]
fn what_differs_is_found() {
    use serde_json::json;
    let shape = json!({"a": "number", "b?": ["string"], "c": {"*": "bool"}});
    let good = json!({"a": 1, "c": {"x": true}});
    assert!(differences(&shape, &good, &[]).is_empty());
    for (bad, says) in [
        (json!({"a": "1", "c": {}}), ".a"),
        (json!({"c": {}}), ".a: is missing"),
        (json!({"a": 1, "b": [1], "c": {}}), ".b[]"),
        (json!({"a": 1, "c": {"x": 1}}), ".c.x"),
        (json!({"a": 1, "c": {}, "d": 1}), ".d: is more"),
        (json!([]), "no object"),
    ] {
        let found = differences(&shape, &bad, &[]);
        assert!(found.len() == 1 && found[0].contains(says), "{found:?}");
    }
    let more = json!({"a": 1, "c": {}, "d": 1});
    assert!(differences(&shape, &more, &[".d"]).is_empty());
}
