//! Where one JSON value ends and the next begins.
//!
//! Requests come as JSON values back to back, with nothing needed between them. The framer looks
//! at every byte once, keeps only what it needs to find the end of a value, and leaves the rest of
//! the grammar to the parser that then reads the whole value.

use serde_json::Value;

/// Longest value in bytes, and so the most that a client can make us keep.
pub const MAX_VALUE: usize = 256 * 1024;

/// Deepest nesting of arrays and objects in one value.
pub const MAX_DEPTH: usize = 64;

/// Why a byte stream can't be cut into values. The stream is of no use after it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not JSON.
    #[error("Parse error: {0}")]
    Syntax(String),
    /// A value nested deeper than [`MAX_DEPTH`].
    #[error("Parse error: nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    /// A value longer than [`MAX_VALUE`].
    #[error("Parse error: a request is longer than {MAX_VALUE} bytes")]
    TooLong,
}

/// Cuts a byte stream into JSON values.
#[derive(Debug, Default)]
pub struct Framer {
    bytes: Vec<u8>,
    /// Where in `bytes` the value being scanned begins.
    start: usize,
    /// The first of `bytes` that the scanner has not seen.
    next: usize,
    scanner: Scanner,
    failed: Option<FrameError>,
}

impl Framer {
    /// Adds what came from the client. Call [`Framer::next_value`] until it has no more before
    /// adding again: that is what bounds the buffer.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.failed.is_some() {
            return;
        }
        self.bytes.drain(..self.start);
        self.next -= self.start;
        self.start = 0;
        self.bytes.extend_from_slice(bytes);
    }

    /// Takes the next whole value, or `None` until more bytes have come.
    ///
    /// # Errors
    /// [`FrameError`], from then on always the same one.
    pub fn next_value(&mut self) -> Result<Option<Value>, FrameError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let value = self.cut();
        if let Err(error) = &value {
            *self = Self {
                failed: Some(error.clone()),
                ..Self::default()
            };
        }
        value
    }

    /// Whether there are bytes that [`Framer::next_value`] has not looked at.
    pub fn has_more(&self) -> bool {
        self.failed.is_none() && self.next < self.bytes.len()
    }

    fn cut(&mut self) -> Result<Option<Value>, FrameError> {
        while let Some(&byte) = self.bytes.get(self.next) {
            let step = self.scanner.step(byte)?;
            if !matches!(step, Step::Past) {
                self.next += 1;
            }
            match step {
                Step::Between => self.start = self.next,
                Step::Inside if self.next - self.start < MAX_VALUE => {}
                Step::Inside => return Err(FrameError::TooLong),
                Step::Last | Step::Past => return self.take().map(Some),
            }
        }
        Ok(None)
    }

    /// Parses the scanned bytes and leaves them behind.
    fn take(&mut self) -> Result<Value, FrameError> {
        let value = serde_json::from_slice(&self.bytes[self.start..self.next]);
        self.start = self.next;
        value.map_err(|e| FrameError::Syntax(e.to_string()))
    }
}

/// What a byte is to the value being scanned.
enum Step {
    /// Not part of any value.
    Between,
    /// Part of it, and more must follow.
    Inside,
    /// Its last byte.
    Last,
    /// The first byte after it.
    Past,
}

#[derive(Debug, Default)]
struct Scanner {
    state: State,
    /// The bracket that closes each open array and object, outermost first.
    closers: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// No value has begun.
    #[default]
    Between,
    /// Inside brackets, outside a string.
    Structure,
    /// A number or literal that is not inside brackets.
    Scalar,
    /// Inside a string.
    Text,
    /// After a backslash inside a string.
    Escape,
}

impl Scanner {
    fn step(&mut self, byte: u8) -> Result<Step, FrameError> {
        match self.state {
            State::Between if is_space(byte) => Ok(Step::Between),
            State::Between | State::Structure => self.structure(byte),
            State::Scalar if is_scalar(byte) => Ok(Step::Inside),
            State::Scalar => {
                self.state = State::Between;
                Ok(Step::Past)
            }
            State::Escape => {
                self.state = State::Text;
                Ok(Step::Inside)
            }
            State::Text => match byte {
                b'"' => Ok(self.closed()),
                b'\\' => {
                    self.state = State::Escape;
                    Ok(Step::Inside)
                }
                _ => Ok(Step::Inside),
            },
        }
    }

    fn structure(&mut self, byte: u8) -> Result<Step, FrameError> {
        match byte {
            b'{' | b'[' => {
                if self.closers.len() == MAX_DEPTH {
                    return Err(FrameError::TooDeep);
                }
                self.closers.push(if byte == b'{' { b'}' } else { b']' });
                self.state = State::Structure;
                Ok(Step::Inside)
            }
            b'}' | b']' if self.closers.last() == Some(&byte) => {
                self.closers.pop();
                Ok(self.closed())
            }
            b'"' => {
                self.state = State::Text;
                Ok(Step::Inside)
            }
            _ if is_scalar(byte) => {
                if self.closers.is_empty() {
                    self.state = State::Scalar;
                }
                Ok(Step::Inside)
            }
            b',' | b':' if !self.closers.is_empty() => Ok(Step::Inside),
            _ if is_space(byte) => Ok(Step::Inside),
            _ => Err(FrameError::Syntax(format!(
                "unexpected {:?}",
                char::from(byte)
            ))),
        }
    }

    /// A string or bracket has been closed: where that leaves us.
    fn closed(&mut self) -> Step {
        if self.closers.is_empty() {
            self.state = State::Between;
            Step::Last
        } else {
            self.state = State::Structure;
            Step::Inside
        }
    }
}

/// Whether JSON lets the byte stand between tokens.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// Whether the byte can be part of a number, `true`, `false` or `null`.
fn is_scalar(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'E') || b"truefalsn".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    /// Everything a framer makes of a stream that arrives in these pieces.
    fn values<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Value>, Option<FrameError>) {
        let mut framer = Framer::default();
        let mut values = Vec::new();
        for piece in pieces {
            framer.push(piece);
            loop {
                match framer.next_value() {
                    Ok(Some(value)) => values.push(value),
                    Ok(None) => break,
                    Err(error) => return (values, Some(error)),
                }
            }
        }
        (values, None)
    }

    fn whole(text: &str) -> (Vec<Value>, Option<FrameError>) {
        values([text.as_bytes()])
    }

    #[test]
    fn values_need_nothing_between_them() {
        let (got, error) = whole(r#"{"a":[1,{"b":"}]\"{"}]}[]{}"x"  12 true "y"#);
        let want = vec![
            json!({"a": [1, {"b": "}]\"{"}]}),
            json!([]),
            json!({}),
            json!("x"),
            json!(12),
            json!(true),
        ];
        assert_eq!(
            (got, error),
            (want, None),
            "the last string is not closed yet"
        );
    }

    #[test]
    fn half_a_value_waits() {
        for text in ["{", "{\"a\":", "[1,2", "\"abc", "\"abc\\", "12"] {
            let mut framer = Framer::default();
            framer.push(text.as_bytes());
            assert_eq!(framer.next_value(), Ok(None), "{text}");
        }
    }

    #[test]
    fn what_is_not_json_is_an_error_as_soon_as_it_shows() {
        for text in [
            "}",
            "{]",
            "hello",
            "{'a'",
            "{ab",
            ",",
            "\u{1}",
            "[1}",
            "{}}",
            "GET / HTTP/1.1",
        ] {
            let (_, error) = whole(text);
            assert!(matches!(error, Some(FrameError::Syntax(_))), "{text}");
        }
        for text in [
            "{\"a\"}",
            "{a:1}",
            "[1 2]",
            "[nul]",
            "tru ",
            "[01]",
            "[\"\u{1}\"]",
        ] {
            let (_, error) = whole(text);
            assert!(matches!(error, Some(FrameError::Syntax(_))), "{text}");
        }
    }

    #[test]
    fn an_error_lasts() {
        let mut framer = Framer::default();
        framer.push(b"}");
        let first = framer.next_value();
        assert!(first.is_err());
        framer.push(b"{}");
        assert_eq!(framer.next_value(), first);
        assert!(!framer.has_more());
    }

    #[test]
    fn depth_and_length_are_bounded() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(whole(&nested(MAX_DEPTH)).0.len(), 1);
        assert_eq!(whole(&nested(MAX_DEPTH + 1)).1, Some(FrameError::TooDeep));

        let text = |n: usize| format!("\"{}\"", "a".repeat(n - 2));
        assert_eq!(whole(&text(MAX_VALUE)).0.len(), 1);
        assert_eq!(whole(&text(MAX_VALUE + 1)).1, Some(FrameError::TooLong));
        let spaces = " ".repeat(2 * MAX_VALUE) + "{}";
        assert_eq!(whole(&spaces), (vec![json!({})], None));
    }

    fn any_json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 32, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::vec((any::<String>(), inner), 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_values(
            sent in prop::collection::vec(any_json(), 0..6),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut stream = Vec::new();
            for value in &sent {
                stream.extend(serde_json::to_vec(value).unwrap());
                if !value.is_object() && !value.is_array() {
                    stream.push(b'\n');
                }
            }
            let mut cuts: Vec<usize> = cuts.iter().map(|c| c.index(stream.len() + 1)).collect();
            cuts.extend([0, stream.len()]);
            cuts.sort_unstable();
            let pieces = cuts.windows(2).map(|c| &stream[c[0]..c[1]]);
            prop_assert_eq!(values(pieces), (sent, None));
        }

        #[test]
        fn arbitrary_bytes_never_panic(pieces in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..32),
                "[\\[\\]{}\",:0-9a-z\\\\ ]{0,32}".prop_map(String::into_bytes),
            ],
            0..8,
        )) {
            let apart = values(pieces.iter().map(Vec::as_slice));
            let together: Vec<u8> = pieces.concat();
            prop_assert_eq!(apart, values([together.as_slice()]));
        }
    }
}
