//! Arbitrary bytes from an RPC client: no panic, the same answers however the bytes are cut, every
//! answer is JSON with an id and a result or an error, and what is kept for the client is bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use stripewise::control::{LogLevel, LogSwitch, Machine, System};
use stripewise::memory::Arena;
use stripewise::rpc::methods::{Answer, call};
use stripewise::rpc::session::{Session, UNREAD_MAX};
use stripewise::rpc::{Outcome, RpcError};

/// Methods that reach out of the process: to signals, files and the network.
const OUTSIDE: [&str; 4] = [
    "spdk_kill_instance",
    "kill_instance",
    "bdev_uring_create",
    "nvmf_subsystem_add_listener",
];

/// What differs from run to run, and so can't be compared.
const UNSTEADY: [&str; 2] = ["ticks", "uuid"];

fn answer(system: &mut System, method: &str, params: Option<Value>) -> Outcome {
    if OUTSIDE.contains(&method) {
        return Err(RpcError::new(1, "not here"));
    }
    match call(system, method, params)? {
        Answer::Now(value) => Ok(value),
        Answer::Later(_) => Ok("later".into()),
    }
}

fn converse(stream: &[u8], piece: usize) -> Vec<Value> {
    let arena = Arena::ordinary(64 * 1024).expect("memory");
    let log = LogSwitch::new(LogLevel::Error, |_| {});
    let mut system = System::new(Machine::without_reactors(), arena, log);
    system.finish_startup();
    let mut session = Session::default();
    let mut answers = Vec::new();
    for bytes in stream.chunks(piece) {
        session.receive(bytes);
        loop {
            while let Some((ticket, request)) = session.next_call() {
                let outcome = answer(&mut system, &request.method, request.params);
                session.answer(ticket, outcome);
                assert!(session.output().len() < UNREAD_MAX);
            }
            let sent = serde_json::Deserializer::from_slice(session.output()).into_iter();
            answers.extend(sent.map(|answer: Result<Value, _>| answer.expect("answers are JSON")));
            session.sent(session.output().len());
            // Paused for answers that were not read, which they are now.
            if !session.may_have_calls() {
                break;
            }
        }
    }
    answers
}

fn check(answer: &Value) {
    if let Some(batch) = answer.as_array() {
        assert!(!batch.is_empty());
        return batch.iter().for_each(check);
    }
    assert_eq!(answer["jsonrpc"], "2.0");
    let has = |key| usize::from(answer.get(key).is_some());
    assert_eq!(
        (has("id"), has("result") + has("error")),
        (1, 1),
        "{answer}"
    );
    if let Some(error) = answer.get("error") {
        assert!(error["code"].is_i64() && error["message"].is_string());
    }
}

/// The same without what differs from run to run.
fn steady(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(steady).collect(),
        Value::Object(all) => {
            let kept = all
                .iter()
                .filter(|(key, _)| !UNSTEADY.contains(&key.as_str()));
            kept.map(|(key, value)| (key.clone(), steady(value)))
                .collect()
        }
        Value::String(text) if text.len() == 36 || text.len() == 32 => "an identity".into(),
        other => other.clone(),
    }
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, stream) = input;
    let cut = converse(stream, usize::from(piece) + 1);
    cut.iter().for_each(check);
    let whole = converse(stream, stream.len().max(1));
    let steadied = |answers: &[Value]| -> Vec<Value> { answers.iter().map(steady).collect() };
    assert_eq!(steadied(&cut), steadied(&whole));
});
