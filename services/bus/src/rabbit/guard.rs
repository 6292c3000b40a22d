//! Makes what the broker sends harmless to the parser behind it.
//!
//! Properties and headers are whatever their sender wrote. lapin's parser
//! descends into nested tables without a limit, on the 2 MiB stack of its
//! thread: one message of 128 KiB with 20,000 tables inside each other would
//! overflow it and end every process that listens. Text that is not UTF-8 makes
//! it give up the connection. Nested tables and arrays are never used here, so
//! they are relabelled as bytes, which have the same form; bad text becomes
//! question marks; properties that cannot be read at all are removed.

use std::io;

use bytes::{Buf, BytesMut};

/// Type, channel and length.
const HEAD_BYTES: usize = 7;

const FRAME_METHOD: u8 = 1;
const FRAME_HEADER: u8 = 2;

/// Largest method or header frame. RabbitMQ allows 128 KiB by default.
const FRAME_LIMIT_BYTES: usize = 1 << 20;

/// A `basic.deliver`, as class and method.
const DELIVER: [u8; 4] = [0, 60, 0, 60];

/// Class, weight and body length, before the property flags.
const CONTENT_BYTES: usize = 12;

/// What the next bytes are.
#[derive(Debug)]
enum State {
    Head,
    /// That many bytes of a frame that is harmless.
    Pass(usize),
    /// That many bytes are missing of a frame that is looked at.
    Collect(usize),
    /// Not AMQP: the greeting of another version. The parser says so.
    Foreign,
}

/// Bytes go in as they come, and out as they may be parsed.
#[derive(Debug)]
pub(super) struct Guard {
    state: State,
    /// A head or a frame, as far as it has come.
    partial: Vec<u8>,
    out: BytesMut,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self { state: State::Head, partial: Vec::new(), out: BytesMut::new() }
    }

    /// Takes bytes from the broker.
    ///
    /// # Errors
    /// When a frame is larger than any may be.
    pub(super) fn push(&mut self, mut input: &[u8]) -> io::Result<()> {
        while !input.is_empty() {
            let wanted = match self.state {
                State::Head => HEAD_BYTES - self.partial.len(),
                State::Pass(left) | State::Collect(left) => left,
                State::Foreign => input.len(),
            };
            let (taken, rest) = input.split_at(wanted.min(input.len()));
            input = rest;
            match self.state {
                State::Head => self.apply_head(taken)?,
                State::Pass(left) => {
                    self.out.extend_from_slice(taken);
                    self.state = after(left - taken.len(), State::Pass);
                }
                State::Collect(left) => self.apply_frame(taken, left - taken.len()),
                State::Foreign => self.out.extend_from_slice(taken),
            }
        }
        Ok(())
    }

    /// Moves bytes that may be parsed into `buffer`; returns how many.
    pub(super) fn pull(&mut self, buffer: &mut [u8]) -> usize {
        let count = self.out.len().min(buffer.len());
        if let Some(target) = buffer.get_mut(..count) {
            self.out.copy_to_slice(target);
        }
        count
    }

    fn apply_head(&mut self, taken: &[u8]) -> io::Result<()> {
        self.partial.extend_from_slice(taken);
        let [kind, _, _, length @ ..] = self.partial.as_slice() else { return Ok(()) };
        let Ok(length) = <[u8; 4]>::try_from(length) else { return Ok(()) };
        // The end marker belongs to the frame.
        let left =
            usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX).saturating_add(1);
        match *kind {
            b'A' => self.pass(State::Foreign),
            FRAME_METHOD | FRAME_HEADER if left > FRAME_LIMIT_BYTES => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too large"));
            }
            FRAME_METHOD | FRAME_HEADER => self.state = State::Collect(left),
            _ => self.pass(State::Pass(left)),
        }
        Ok(())
    }

    fn pass(&mut self, state: State) {
        self.out.extend_from_slice(&self.partial);
        self.partial.clear();
        self.state = state;
    }

    fn apply_frame(&mut self, taken: &[u8], left: usize) {
        self.partial.extend_from_slice(taken);
        self.state = after(left, State::Collect);
        if left > 0 {
            return;
        }
        let mut frame = std::mem::take(&mut self.partial);
        tame(&mut frame);
        self.out.extend_from_slice(&frame);
        frame.clear();
        // The memory is kept for the next frame.
        self.partial = frame;
    }
}

fn after(left: usize, state: fn(usize) -> State) -> State {
    if left == 0 { State::Head } else { state(left) }
}

/// Changes a whole frame so that it parses.
fn tame(frame: &mut Vec<u8>) {
    let kind = frame.first().copied();
    let Some((head, rest)) = frame.split_at_mut_checked(HEAD_BYTES) else { return };
    let Some((_end, payload)) = rest.split_last_mut() else { return };
    match kind {
        Some(FRAME_METHOD) if payload.starts_with(&DELIVER) => {
            // What a broker itself garbled is for the parser to refuse.
            let _ = tame_delivery(payload);
        }
        Some(FRAME_HEADER) if tame_properties(payload).is_none() => {
            let Some(content) = payload.get(..CONTENT_BYTES) else { return };
            *frame = without_properties(head, content);
        }
        _ => (),
    }
}

/// The same frame with no property set.
fn without_properties(head: &[u8], content: &[u8]) -> Vec<u8> {
    let kind_and_channel = head.get(..3).unwrap_or_default();
    let length = u32::try_from(content.len() + 2).unwrap_or_default().to_be_bytes();
    [kind_and_channel, &length, content, &[0, 0], &[0xce]].concat()
}

/// `None` when it is not of the form that the protocol gives.
fn tame_delivery(payload: &mut [u8]) -> Option<()> {
    let mut cursor = Cursor { rest: payload };
    cursor.take(DELIVER.len())?;
    cursor.short_text()?;
    // Delivery tag and the mark of a second delivery.
    cursor.take(9)?;
    cursor.short_text()?;
    cursor.short_text()
}

/// `None` when they cannot be read.
fn tame_properties(payload: &mut [u8]) -> Option<()> {
    let mut cursor = Cursor { rest: payload };
    cursor.take(CONTENT_BYTES)?;
    let flags = u16::from_be_bytes(cursor.array()?);
    for bit in (0..16).rev().filter(|bit| flags & (1 << bit) != 0) {
        match bit {
            13 => tame_table(cursor.long()?)?,
            // Delivery mode and priority.
            12 | 11 => drop(cursor.take(1)?),
            // Timestamp.
            6 => drop(cursor.take(8)?),
            15 | 14 | 10 | 9 | 8 | 7 | 5 | 4 | 3 | 2 => cursor.short_text()?,
            // More flags, which the protocol does not use.
            _ => return None,
        }
    }
    cursor.rest.is_empty().then_some(())
}

/// `None` when it cannot be read.
fn tame_table(table: &mut [u8]) -> Option<()> {
    let mut cursor = Cursor { rest: table };
    while !cursor.rest.is_empty() {
        cursor.short_text()?;
        let kind = cursor.take(1)?.first_mut()?;
        match *kind {
            b't' | b'b' | b'B' => drop(cursor.take(1)?),
            b's' | b'U' | b'u' => drop(cursor.take(2)?),
            b'I' | b'i' | b'f' => drop(cursor.take(4)?),
            b'D' => drop(cursor.take(5)?),
            b'L' | b'l' | b'd' | b'T' => drop(cursor.take(8)?),
            b'S' | b'x' => drop(cursor.long()?),
            b'A' | b'F' => {
                *kind = b'x';
                cursor.long()?;
            }
            b'V' => (),
            _ => return None,
        }
    }
    Some(())
}

struct Cursor<'a> {
    rest: &'a mut [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Option<&'a mut [u8]> {
        let (taken, rest) = std::mem::take(&mut self.rest).split_at_mut_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok().map(|array: &mut [u8; N]| *array)
    }

    fn long(&mut self) -> Option<&'a mut [u8]> {
        let length = u32::from_be_bytes(self.array()?);
        self.take(usize::try_from(length).ok()?)
    }

    fn short_text(&mut self) -> Option<()> {
        let [length] = self.array()?;
        let text = self.take(usize::from(length))?;
        if std::str::from_utf8(text).is_err() {
            text.iter_mut().filter(|byte| !byte.is_ascii()).for_each(|byte| *byte = b'?');
        }
        Some(())
    }
}

#[cfg(test)]
#[path = "guard_tests.rs"]
mod tests;
