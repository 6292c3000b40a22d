//! Lookups among data servers written for the seed: one name a message, an
//! address for an answer, and silence for a no.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use holdfast_bus::Message;
use holdfast_core::node::Address;
use holdfast_core::wire::locate::encode_single;
use tokio::sync::oneshot;

use super::GuestLookup;

/// Guest lookups that wait for their turn; when the channel in front of this
/// queue is full too, more are answered "overloaded".
const MAX_QUEUED: usize = 256;

struct Asked {
    deadline: Duration,
    replies: Vec<oneshot::Sender<Option<Address>>>,
}

/// The queue of guest lookups; one is out at a time.
#[derive(Default)]
pub(super) struct GuestQueue {
    waiting: VecDeque<GuestLookup>,
    asked: Option<Asked>,
}

impl GuestQueue {
    pub(super) fn has_room(&self) -> bool {
        self.waiting.len() < MAX_QUEUED
    }

    pub(super) fn push(&mut self, lookup: GuestLookup) {
        self.waiting.push_back(lookup);
    }

    pub(super) fn deadline(&self) -> Option<Duration> {
        self.asked.as_ref().map(|asked| asked.deadline)
    }

    /// The next message to send, if none is out. Lookups of the same name that
    /// wait share it.
    pub(super) fn next(&mut self, now: Duration, timeout: Duration) -> Option<Message> {
        if self.asked.is_some() {
            return None;
        }
        // Whoever asked may have given up.
        self.waiting.retain(|lookup| !lookup.reply.is_closed());
        let first = self.waiting.pop_front()?;
        let mut replies = vec![first.reply];
        let (same, other): (VecDeque<_>, VecDeque<_>) =
            self.waiting.drain(..).partition(|lookup| lookup.escaped == first.escaped);
        replies.extend(same.into_iter().map(|lookup| lookup.reply));
        self.waiting = other;
        self.asked = Some(Asked { deadline: now + timeout, replies });
        Some(Message {
            body: Bytes::from(encode_single(&first.escaped)),
            wants_reply: true,
            ..Message::default()
        })
    }

    /// An answer came, or none will.
    pub(super) fn finish(&mut self, address: Option<&Address>) {
        for reply in self.asked.take().map(|asked| asked.replies).unwrap_or_default() {
            let _ = reply.send(address.cloned());
        }
    }
}
