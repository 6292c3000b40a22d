//! What clients ask for at random, and what the answers mean.

use crate::history::{Action, Outcome};

/// A small random number generator (xorshift64*).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// The numbers of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) % sides.max(1)
    }
}

/// What was seen of a key last: its ETag and its value.
pub type Seen = (String, u64);

/// A request: method, a header of its condition, body.
#[derive(Debug, Clone)]
pub struct Asked {
    /// What it is in the history.
    pub action: Action,
    /// The method.
    pub method: &'static str,
    /// Its condition.
    pub header: Option<(&'static str, String)>,
    /// What is sent.
    pub body: Vec<u8>,
}

/// What a client asks for next, of a key of which it may know something.
/// `value` was never written before.
#[must_use]
pub fn ask(dice: &mut Dice, known: Option<&Seen>, value: u64) -> Asked {
    let action = match (dice.roll(100), known) {
        (0..30, _) => Action::Write(value),
        (30..38, _) => Action::Delete,
        (38..48, _) => Action::Create(value),
        (48..60, Some((_, expected))) => Action::Replace { expected: *expected, value },
        _ => Action::Read,
    };
    request(action, known.map(|(etag, _)| etag.as_str()).unwrap_or_default())
}

/// The request for an action. `etag` is that of the content which a replacement
/// expects.
#[must_use]
pub fn request(action: Action, etag: &str) -> Asked {
    let header = match action {
        Action::Create(_) => Some(("If-None-Match", "*".to_owned())),
        Action::Replace { .. } => Some(("If-Match", etag.to_owned())),
        Action::Write(_) | Action::Delete | Action::Read => None,
    };
    let (method, body) = match action {
        Action::Read => ("GET", Vec::new()),
        Action::Delete => ("DELETE", Vec::new()),
        Action::Write(value) | Action::Create(value) | Action::Replace { value, .. } => {
            ("PUT", content(value))
        }
    };
    Asked { action, method, header, body }
}

/// An answer that should never come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unexpected;

/// What an answer to anything but a read says; `None` when it certainly had no
/// effect.
///
/// # Errors
/// [`Unexpected`].
pub fn understand(status: u16, code: &str) -> Result<Option<Outcome>, Unexpected> {
    match status {
        200 | 204 => Ok(Some(Outcome::Done)),
        412 => Ok(Some(Outcome::Refused)),
        // These say that nothing was stored; it is held against them.
        503 => match code {
            "no-quorum" | "write-failed" | "contended" | "no-data-servers" | "shutting-down" => {
                Ok(None)
            }
            _ => Ok(Some(Outcome::Maybe)),
        },
        _ => Err(Unexpected),
    }
}

/// The value that a body stands for; `None` when nobody wrote these bytes.
#[must_use]
pub fn value_of(body: &[u8]) -> Option<u64> {
    let text = String::from_utf8_lossy(body);
    let value = text.split(';').next().and_then(|number| number.parse().ok());
    value.filter(|value| content(*value) == body)
}

/// What is written for a value: the number and filling that depends on it. Some
/// are large enough to be streamed.
#[must_use]
pub fn content(value: u64) -> Vec<u8> {
    let length = match value % 23 {
        0 => 700_000 + value % 1_000,
        1..5 => 20_000 + value % 7_000,
        _ => value % 200,
    };
    let mut body = format!("{value};").into_bytes();
    body.extend((0..length).map(|index| ((index.wrapping_mul(value | 1) >> 3) % 251) as u8));
    body
}
