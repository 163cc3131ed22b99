//! Every method with everything that is wrong with its input, as the table of methods tells it: the right code, and a message
//! that names what is wrong.

use serde_json::{Map, Value, json};

use super::{Method, When, all, call};
use crate::rpc::RpcError;
use crate::rpc::testing::{starting, system};

/// What no parameter takes.
fn nonsense() -> Value {
    json!([[[]]])
}

fn refusal(method: &Method, params: impl Into<Option<Value>>) -> RpcError {
    let params = params.into();
    let mut system = match method.when {
        When::Startup => starting(),
        _ => system(),
    };
    let outcome = call(&mut system, method.name, params.clone());
    outcome.expect_err(&format!("{} takes {params:?}", method.name))
}

#[test]
fn a_parameter_of_the_wrong_type_is_named() {
    for method in all() {
        for param in method.params.iter().map(|p| p.trim_end_matches('?')) {
            let error = refusal(method, json!({ param: nonsense() }));
            assert_eq!(error.code, -32602, "{} {param}: {error:?}", method.name);
            let named = error.message.contains(method.name) && error.message.contains(param);
            assert!(named, "{} {param}: {}", method.name, error.message);
        }
    }
}

#[test]
fn a_parameter_that_is_missing_is_named() {
    for method in all() {
        let required: Vec<&str> = method
            .params
            .iter()
            .copied()
            .filter(|p| !p.ends_with('?'))
            .collect();
        let Some(first) = required.first() else {
            continue;
        };
        for params in [Some(json!({})), None] {
            let error = refusal(method, params);
            assert_eq!(error.code, -32602, "{}: {error:?}", method.name);
            let named = required
                .iter()
                .any(|p| error.message.contains(&format!("missing field `{p}`")));
            assert!(named, "{} without {first}: {}", method.name, error.message);
        }
    }
}

#[test]
fn a_parameter_that_there_is_not_is_named_with_those_that_there_are() {
    for method in all() {
        let error = refusal(method, json!({"no_such_parameter": 1}));
        assert_eq!(error.code, -32602, "{}: {error:?}", method.name);
        assert!(
            error.message.contains("`no_such_parameter`"),
            "{}",
            error.message
        );
        for param in method.params.iter().map(|p| p.trim_end_matches('?')) {
            assert!(error.message.contains(param), "{param}: {}", error.message);
        }
    }
}

#[test]
fn parameters_are_given_by_name() {
    for method in all() {
        for params in [json!([]), json!(["x"]), json!("x"), json!(1), json!(true)] {
            let error = refusal(method, params.clone());
            assert_eq!(error.code, -32602, "{} {params}: {error:?}", method.name);
            assert!(error.message.contains(method.name), "{}", error.message);
        }
    }
}

/// Before its time or after it, a method is not asked what is wrong with its parameters.
#[test]
fn a_method_at_the_wrong_time_is_refused_with_the_mend() {
    for method in all() {
        let (mut system, mend) = match method.when {
            When::Always => continue,
            When::Startup => (system(), "--wait-for-rpc"),
            When::Runtime => (starting(), "framework_start_init"),
        };
        for params in [Map::new().into(), nonsense()] {
            let error = call(&mut system, method.name, Some(params)).expect_err(method.name);
            assert_eq!(error.code, -1, "{}: {error:?}", method.name);
            let told = error.message.contains(method.name) && error.message.contains(mend);
            assert!(told, "{}", error.message);
        }
    }
}
