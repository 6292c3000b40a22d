//! What the server, the socket and the requests of one connection know of each
//! other.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::task::Waker;
use std::time::Duration;

use futures_util::task::AtomicWaker;
use holdfast_runtime::Runtime;

use crate::server::ServerLimits;

/// What the server wants of its connections; only ever goes up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Order {
    /// Go on.
    Serve,
    /// Tell the client to go elsewhere, but take what it sends until then.
    Leave,
    /// Take no new request.
    Finish,
    /// End now.
    Drop,
}

/// Shared by the parts of one connection. All of it is atomics, because each
/// request and each read touch it.
#[derive(Debug)]
pub(crate) struct Control {
    runtime: Runtime,
    order: AtomicU8,
    waker: AtomicWaker,
    in_flight: AtomicUsize,
    /// Runtime time in milliseconds since when no request is in flight.
    quiet_since: AtomicU64,
    /// When the first bytes of the next head came; 0 before.
    head_since: AtomicU64,
    served: AtomicBool,
    http2: AtomicBool,
    write_blocked: AtomicBool,
    body_left: AtomicBool,
}

impl Control {
    pub(crate) fn new(runtime: &Runtime) -> Arc<Self> {
        Arc::new(Self {
            runtime: runtime.clone(),
            order: AtomicU8::new(Order::Serve as u8),
            waker: AtomicWaker::new(),
            in_flight: AtomicUsize::new(0),
            quiet_since: AtomicU64::new(millis(runtime.now())),
            head_since: AtomicU64::new(0),
            served: AtomicBool::new(false),
            http2: AtomicBool::new(false),
            write_blocked: AtomicBool::new(false),
            body_left: AtomicBool::new(false),
        })
    }

    pub(crate) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// Gives an order and wakes the connection.
    pub(crate) fn give(&self, order: Order) {
        self.order.fetch_max(order as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Whether `order` or a higher one was given.
    pub(crate) fn ordered(&self, order: Order) -> bool {
        self.order.load(Ordering::Acquire) >= order as u8
    }

    /// Which task an order wakes.
    pub(crate) fn register(&self, waker: &Waker) {
        self.waker.register(waker);
    }

    /// When a connection without a request must end; `None` while it has one.
    ///
    /// The first head has `header_timeout` from the start. A later one has it
    /// from its first byte, but never less than `idle_timeout` from the end of
    /// the request before it. So a head sent byte by byte is bounded, and no
    /// client is cut off for having been idle just short of the limit.
    pub(crate) fn quiet_deadline(&self, limits: &ServerLimits) -> Option<Duration> {
        let busy = self.in_flight.load(Ordering::Acquire) > 0;
        if busy || self.write_blocked.load(Ordering::Acquire) {
            return None;
        }
        let quiet = Duration::from_millis(self.quiet_since.load(Ordering::Acquire));
        if !self.served.load(Ordering::Acquire) {
            return Some(quiet + limits.header_timeout);
        }
        let idle = quiet + limits.idle_timeout;
        match self.head_since.load(Ordering::Acquire) {
            0 => Some(idle),
            head => Some(idle.max(Duration::from_millis(head) + limits.header_timeout)),
        }
    }

    /// Bytes came from the client.
    pub(crate) fn on_bytes(&self) {
        let busy = self.in_flight.load(Ordering::Acquire) > 0;
        if !busy && self.head_since.load(Ordering::Acquire) == 0 {
            self.head_since.store(millis(self.runtime.now()).max(1), Ordering::Release);
        }
    }

    /// A write was accepted by the socket, or has to wait.
    pub(crate) fn on_write(&self, blocked: bool) {
        self.write_blocked.store(blocked, Ordering::Release);
    }

    /// A request body was dropped before its end.
    pub(crate) fn on_body_left(&self) {
        self.body_left.store(true, Ordering::Release);
    }

    pub(crate) fn body_was_left(&self) -> bool {
        self.body_left.load(Ordering::Acquire)
    }

    /// A head was read; `http2` is its protocol.
    pub(crate) fn on_request(self: &Arc<Self>, http2: bool) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::AcqRel);
        self.served.store(true, Ordering::Release);
        self.head_since.store(0, Ordering::Release);
        self.http2.store(http2, Ordering::Release);
        InFlight(Arc::clone(self))
    }

    pub(crate) fn is_http2(&self) -> bool {
        self.http2.load(Ordering::Acquire)
    }
}

/// Counts one request while it lives.
pub(crate) struct InFlight(Arc<Control>);

impl Drop for InFlight {
    fn drop(&mut self) {
        // In this order: a deadline is computed once nothing is in flight.
        self.0.quiet_since.store(millis(self.0.runtime.now()), Ordering::Release);
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
