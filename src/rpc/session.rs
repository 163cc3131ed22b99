//! One client's conversation, without its socket: bytes in, calls out, answers in, bytes out.
//!
//! Everything that a client can make us keep is bounded: the bytes of one unfinished request, the
//! calls of one batch, the calls not yet answered, and the answers not yet read. A client that does
//! not read its answers gets no more of its requests handled.

use std::collections::{HashMap, VecDeque};

use serde_json::{Value, json};

use super::framing::Framer;
use super::request::{BadRequest, Request};
use super::{Outcome, RpcError};

/// Most calls in one batch.
pub const MAX_BATCH: usize = 1024;

/// Most calls that are handed out and not yet answered.
pub const MAX_OPEN: usize = 64;

/// Bytes of unread answers above which no further call is handed out.
pub const UNREAD_PAUSE: usize = 256 * 1024;

/// Bytes of unread answers above which the conversation is given up.
pub const UNREAD_MAX: usize = 16 * 1024 * 1024;

/// The right and duty to answer one call.
#[derive(Debug, PartialEq)]
pub struct Ticket {
    id: Value,
    batch: Option<u64>,
}

/// A conversation.
#[derive(Debug, Default)]
pub struct Session {
    framer: Framer,
    /// Calls of a batch that have not been handed out, with their tickets.
    waiting: VecDeque<(Ticket, Result<Request, RpcError>)>,
    batches: HashMap<u64, Batch>,
    batches_begun: u64,
    /// Tickets handed out.
    open: usize,
    out: Vec<u8>,
    /// How many of `out` the client has.
    sent: usize,
    input_ended: bool,
}

/// The answers of a batch so far.
#[derive(Debug)]
struct Batch {
    unanswered: usize,
    text: Vec<u8>,
}

impl Session {
    /// Takes bytes that the client sent, at most as many as fit while [`Session::wants_input`].
    pub fn receive(&mut self, bytes: &[u8]) {
        if !self.input_ended {
            self.framer.push(bytes);
        }
    }

    /// The client will send no more; what it did send is still handled and answered.
    pub fn end_input(&mut self) {
        self.input_ended = true;
    }

    /// The next call to handle, until there is none for now. Its ticket must come back with
    /// [`Session::answer`]. What is wrong with a request is answered here.
    pub fn next_call(&mut self) -> Option<(Ticket, Request)> {
        while !self.is_paused() {
            let (ticket, request) = match self.waiting.pop_front() {
                Some(call) => call,
                None => self.read_value()?,
            };
            self.open += 1;
            match request {
                Ok(request) => return Some((ticket, request)),
                Err(error) => self.answer(ticket, Err(error)),
            }
        }
        None
    }

    /// Answers a call. A success without an id to tell it under is not told.
    pub fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        self.open -= 1;
        let response = match outcome {
            Ok(_) if ticket.id.is_null() => None,
            Ok(result) => Some(json!({"jsonrpc": "2.0", "id": ticket.id, "result": result})),
            Err(error) => {
                Some(json!({"jsonrpc": "2.0", "id": ticket.id, "error": error.to_value()}))
            }
        };
        let text = response.map(|r| r.to_string().into_bytes());
        match (ticket.batch, text) {
            (Some(number), text) => self.answer_in_batch(number, text),
            (None, None) => {}
            (None, Some(text)) => {
                self.out.extend(text);
                self.out.push(b'\n');
            }
        }
    }

    /// What the client has not been sent yet.
    pub fn output(&self) -> &[u8] {
        &self.out[self.sent..]
    }

    /// Notes that the client has been sent `bytes` more of [`Session::output`].
    pub fn sent(&mut self, bytes: usize) {
        self.sent += bytes;
        if self.sent == self.out.len() {
            self.out = Vec::new();
            self.sent = 0;
        }
    }

    /// Whether [`Session::next_call`] is worth asking again without new bytes.
    pub fn may_have_calls(&self) -> bool {
        !self.is_paused() && (!self.waiting.is_empty() || self.framer.has_more())
    }

    /// Whether it is of use to read from the client now.
    pub fn wants_input(&self) -> bool {
        !self.input_ended && !self.is_paused() && !self.may_have_calls()
    }

    /// Whether the client is owed nothing.
    pub fn is_quiet(&self) -> bool {
        self.open == 0 && self.output().is_empty() && !self.may_have_calls()
    }

    /// Whether the client will send, or we shall take, no more.
    pub fn has_ended(&self) -> bool {
        self.input_ended
    }

    /// Whether nothing more will happen.
    pub fn is_over(&self) -> bool {
        self.input_ended && self.is_quiet()
    }

    /// Whether the client has left more answers unread than it may.
    pub fn is_clogged(&self) -> bool {
        self.unread() > UNREAD_MAX
    }

    /// Reads one value from the stream and, unless it is a batch, makes a call of it.
    fn read_value(&mut self) -> Option<(Ticket, Result<Request, RpcError>)> {
        match self.framer.next_value() {
            Ok(None) => None,
            Ok(Some(Value::Array(calls))) => self.read_batch(calls),
            Ok(Some(value)) => Some(call(value, None)),
            Err(_) if self.input_ended => None,
            Err(error) => {
                self.input_ended = true;
                let ticket = Ticket {
                    id: Value::Null,
                    batch: None,
                };
                Some((
                    ticket,
                    Err(RpcError::new(RpcError::PARSE, error.to_string())),
                ))
            }
        }
    }

    fn read_batch(&mut self, calls: Vec<Value>) -> Option<(Ticket, Result<Request, RpcError>)> {
        let refused = match calls.len() {
            0 => Some("a batch has at least one call".to_owned()),
            n if n > MAX_BATCH => Some(format!("a batch has at most {MAX_BATCH} calls")),
            _ => None,
        };
        if let Some(reason) = refused {
            let ticket = Ticket {
                id: Value::Null,
                batch: None,
            };
            return Some((ticket, Err(RpcError::invalid_request(&reason))));
        }
        let number = self.batches_begun;
        self.batches_begun += 1;
        let batch = Batch {
            unanswered: calls.len(),
            text: Vec::new(),
        };
        self.batches.insert(number, batch);
        let calls = calls.into_iter().map(|value| call(value, Some(number)));
        self.waiting.extend(calls);
        self.waiting.pop_front()
    }

    fn answer_in_batch(&mut self, number: u64, text: Option<Vec<u8>>) {
        let batch = self.batches.get_mut(&number);
        let batch = batch.expect("a batch stays until its last call is answered");
        if let Some(text) = text {
            batch
                .text
                .push(if batch.text.is_empty() { b'[' } else { b',' });
            batch.text.extend(text);
        }
        batch.unanswered -= 1;
        if batch.unanswered == 0 {
            let batch = self.batches.remove(&number).expect("found above");
            if !batch.text.is_empty() {
                self.out.extend(batch.text);
                self.out.extend(b"]\n");
            }
        }
    }

    fn is_paused(&self) -> bool {
        self.open >= MAX_OPEN || self.unread() >= UNREAD_PAUSE
    }

    fn unread(&self) -> usize {
        let gathered: usize = self.batches.values().map(|b| b.text.len()).sum();
        self.output().len() + gathered
    }
}

fn call(value: Value, batch: Option<u64>) -> (Ticket, Result<Request, RpcError>) {
    match Request::from_value(value) {
        Ok(request) => {
            let id = request.id.clone();
            (Ticket { id, batch }, Ok(request))
        }
        Err(BadRequest { id, error }) => (Ticket { id, batch }, Err(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A session in which every call succeeds with its own method's name, or fails if that is
    /// "fail"; what the client then reads, value by value.
    fn converse(input: &[u8]) -> (Session, Vec<Value>) {
        let mut session = Session::default();
        session.receive(input);
        while let Some((ticket, request)) = session.next_call() {
            session.answer(ticket, outcome(&request));
        }
        let answers = read(&mut session);
        (session, answers)
    }

    fn outcome(request: &Request) -> Outcome {
        match request.method.as_str() {
            "fail" => Err(RpcError::new(-5, "it failed")),
            name => Ok(name.into()),
        }
    }

    fn read(session: &mut Session) -> Vec<Value> {
        let stream = serde_json::Deserializer::from_slice(session.output()).into_iter();
        let answers = stream.collect::<Result<_, _>>().unwrap();
        session.sent(session.output().len());
        answers
    }

    #[test]
    fn answers_carry_the_id_they_were_asked_under() {
        let (session, answers) = converse(
            br#"{"id":1,"method":"a"}{"jsonrpc":"2.0","id":"x","method":"b"}{"id":2,"method":"fail"}"#,
        );
        let want = [
            json!({"jsonrpc": "2.0", "id": 1, "result": "a"}),
            json!({"jsonrpc": "2.0", "id": "x", "result": "b"}),
            json!({"jsonrpc": "2.0", "id": 2, "error": {"code": -5, "message": "it failed"}}),
        ];
        assert_eq!(answers, want);
        assert!(session.is_quiet() && !session.is_over());
    }

    #[test]
    fn each_answer_ends_its_line() {
        let mut session = Session::default();
        session.receive(br#"{"id":1,"method":"a"}{"id":2,"method":"b"}"#);
        while let Some((ticket, request)) = session.next_call() {
            session.answer(ticket, outcome(&request));
        }
        let text = std::str::from_utf8(session.output()).unwrap();
        assert_eq!(text.lines().count(), 2);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn without_an_id_only_errors_are_answered() {
        let (_, answers) = converse(br#"{"method":"a"}{"method":"fail"}{"id":null,"method":"a"}"#);
        assert_eq!(answers.len(), 1);
        assert_eq!(answers[0]["id"], Value::Null);
        assert_eq!(answers[0]["error"]["code"], -5);
        let mut session = Session::default();
        session.receive(br#"{"method":"a"}"#);
        let (ticket, _) = session.next_call().unwrap();
        session.answer(ticket, Ok(Value::Null));
        assert!(session.output().is_empty(), "not even an empty line");
    }

    #[test]
    fn a_batch_is_answered_as_one_array_without_its_notifications() {
        let (_, answers) =
            converse(br#"[{"id":1,"method":"a"},{"method":"b"},7,{"id":2,"method":"fail"}]"#);
        assert_eq!(answers.len(), 1);
        let batch = answers[0].as_array().unwrap();
        assert_eq!(batch.len(), 3);
        assert_eq!(batch[0]["result"], "a");
        assert_eq!(batch[1]["error"]["code"], -32600);
        assert_eq!(batch[2]["error"]["code"], -5);
        let (_, silent) = converse(br#"[{"method":"a"},{"method":"b"}]"#);
        assert!(silent.is_empty());
    }

    #[test]
    fn a_batch_of_none_or_too_many_is_refused() {
        let many = format!("[{}]", vec!["{}"; MAX_BATCH + 1].join(","));
        for input in ["[]", many.as_str()] {
            let (session, answers) = converse(input.as_bytes());
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0]["error"]["code"], -32600);
            assert!(!session.is_over());
        }
        let most = format!("[{}]", vec!["{}"; MAX_BATCH].join(","));
        let (_, answers) = converse(most.as_bytes());
        assert_eq!(answers[0].as_array().unwrap().len(), MAX_BATCH);
    }

    #[test]
    fn answers_may_come_in_another_order() {
        let mut session = Session::default();
        session.receive(br#"{"id":1,"method":"a"}[{"id":2,"method":"b"},{"id":3,"method":"c"}]"#);
        let calls: Vec<_> = std::iter::from_fn(|| session.next_call()).collect();
        assert_eq!(calls.len(), 3);
        session.end_input();
        for (ticket, request) in calls.into_iter().rev() {
            assert!(!session.is_over());
            session.answer(ticket, outcome(&request));
        }
        let answers = read(&mut session);
        assert_eq!(answers[0][0]["id"], 3);
        assert_eq!(answers[0][1]["id"], 2);
        assert_eq!(answers[1]["id"], 1);
        assert!(session.is_over());
    }

    #[test]
    fn what_is_not_json_is_answered_once_and_ends_the_conversation() {
        let (mut session, answers) = converse(br#"{"id":1,"method":"a"} GET / {"id":2}"#);
        assert_eq!(answers.len(), 2);
        assert_eq!(answers[1]["id"], Value::Null);
        assert_eq!(answers[1]["error"]["code"], -32700);
        assert!(session.is_over());
        session.receive(br#"{"id":3,"method":"a"}"#);
        assert!(session.next_call().is_none());
        assert!(session.output().is_empty());
    }

    #[test]
    fn a_client_that_does_not_read_is_paused_and_loses_nothing() {
        let mut session = Session::default();
        let request = br#"{"id":1,"method":"a"}"#;
        let wanted = 3 * UNREAD_PAUSE / request.len();
        session.receive(&request.repeat(wanted));
        let mut answered = 0;
        let mut serve = |session: &mut Session| {
            while let Some((ticket, request)) = session.next_call() {
                session.answer(ticket, outcome(&request));
                answered += 1;
            }
        };
        serve(&mut session);
        assert!(!session.wants_input());
        assert!(!session.is_clogged());
        let mut read_back = read(&mut session).len();
        while read_back < wanted {
            serve(&mut session);
            assert!(!session.output().is_empty());
            assert!(session.output().len() < UNREAD_PAUSE + 1024);
            read_back += read(&mut session).len();
        }
        assert!(session.wants_input());
        assert_eq!((answered, read_back), (wanted, wanted));
    }

    #[test]
    fn calls_in_the_air_are_bounded() {
        let mut session = Session::default();
        session.receive(&br#"{"id":1,"method":"a"}"#.repeat(MAX_OPEN + 1));
        let mut calls: Vec<_> = std::iter::from_fn(|| session.next_call()).collect();
        assert_eq!(calls.len(), MAX_OPEN);
        assert!(!session.wants_input());
        let (ticket, _) = calls.pop().unwrap();
        session.answer(ticket, Ok(Value::Null));
        assert!(session.next_call().is_some());
    }

    #[test]
    fn answers_beyond_every_measure_clog() {
        let mut session = Session::default();
        session.receive(br#"{"id":1,"method":"a"}"#);
        let (ticket, _) = session.next_call().unwrap();
        session.answer(ticket, Ok("x".repeat(UNREAD_MAX).into()));
        assert!(session.is_clogged());
    }
}
