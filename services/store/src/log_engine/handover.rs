//! Where the writer leaves the batch that it plans, so that the thread that
//! waits for the disk finds the next one without asking: the disk waits for
//! nobody. As long as it is not taken, the writer takes it back to add to it.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::segment::SegmentId;

/// A batch for the disk.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) segment: SegmentId,
    /// Where in the segment it begins.
    pub(super) start: u32,
    pub(super) bytes: Vec<u8>,
    /// Directories whose new files must be durable before the records are.
    pub(super) directories: Vec<u64>,
    /// Whether nothing goes into it any more: the writer waits until it is taken.
    pub(super) is_full: bool,
}

/// One place for one batch. What is planned rests on all that was taken before:
/// after a batch that could not be written nothing is taken until
/// [`Self::go_on`].
#[derive(Debug, Default)]
pub(super) struct Handover {
    place: Mutex<Place>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Place {
    offered: Option<Write>,
    is_halted: bool,
    is_closed: bool,
    /// Whether the disk's thread waits and nobody has woken it: to wake it is a
    /// call to the kernel, whether it waits or not.
    is_waiting: bool,
}

impl Handover {
    /// Leaves a batch to be taken at any moment from now on. There is none there.
    pub(super) fn offer(&self, write: Write) {
        let mut place = self.place();
        debug_assert!(place.offered.is_none(), "it was taken, or taken back");
        place.offered = Some(write);
        self.wake(place);
    }

    /// The batch that was offered, if it was not taken: then it never is.
    pub(super) fn take_back(&self) -> Option<Write> {
        self.place().offered.take()
    }

    /// Whether nothing is offered.
    pub(super) fn is_empty(&self) -> bool {
        self.place().offered.is_none()
    }

    /// Waits for a batch: `None` once the place is closed. Blocks.
    pub(super) fn take(&self) -> Option<Write> {
        let mut place = self.place();
        loop {
            if place.is_closed {
                return None;
            }
            if !place.is_halted
                && let Some(write) = place.offered.take()
            {
                return Some(write);
            }
            place.is_waiting = true;
            place = self.changed.wait(place).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Wakes the thread that takes, if it waits.
    fn wake(&self, mut place: MutexGuard<'_, Place>) {
        let is_waiting = std::mem::take(&mut place.is_waiting);
        drop(place);
        if is_waiting {
            self.changed.notify_one();
        }
    }

    /// The batch that was taken last could not be written. To be called by the
    /// thread that takes, before it tells anybody.
    pub(super) fn halt(&self) {
        self.place().is_halted = true;
    }

    /// Nothing that is offered from now on rests on the batch that failed.
    pub(super) fn go_on(&self) {
        let mut place = self.place();
        place.is_halted = false;
        self.wake(place);
    }

    /// What was not taken never is. The writer is gone; if it ended in order,
    /// nothing is there.
    pub(super) fn close(&self) {
        let mut place = self.place();
        place.is_closed = true;
        self.wake(place);
    }

    fn place(&self) -> MutexGuard<'_, Place> {
        // Each change is complete before anything can panic.
        self.place.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn write(start: u32) -> Write {
        let segment = SegmentId { number: 1, salt: 0 };
        Write { segment, start, bytes: Vec::new(), directories: Vec::new(), is_full: false }
    }

    #[test]
    fn a_batch_is_taken_once_or_taken_back() {
        let handover = Handover::default();
        handover.offer(write(1));
        assert_eq!(handover.take_back().map(|write| write.start), Some(1));
        assert!(handover.take_back().is_none());
        handover.offer(write(2));
        assert_eq!(handover.take().map(|write| write.start), Some(2));
        assert!(handover.is_empty() && handover.take_back().is_none());
        handover.offer(write(3));
        handover.close();
        assert!(handover.take().is_none(), "nobody would answer for it");
    }

    #[test]
    fn what_rests_on_a_failed_batch_is_not_taken() {
        let handover = Handover::default();
        handover.offer(write(1));
        let (taken, takes) = channel();
        thread::scope(|scope| {
            scope.spawn(|| {
                while let Some(write) = handover.take() {
                    if write.start == 1 {
                        handover.halt();
                    }
                    taken.send(write.start).expect("the test waits for it");
                }
            });
            assert_eq!(takes.recv(), Ok(1));
            handover.offer(write(2));
            let waited = takes.recv_timeout(Duration::from_millis(50));
            assert_eq!(waited, Err(RecvTimeoutError::Timeout));
            assert_eq!(handover.take_back().map(|write| write.start), Some(2));
            handover.go_on();
            handover.offer(write(3));
            assert_eq!(takes.recv(), Ok(3));
            handover.close();
        });
    }
}
