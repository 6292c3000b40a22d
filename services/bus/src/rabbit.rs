//! The bus over RabbitMQ.
//!
//! One supervisor task keeps one connection. A session is what lives on one
//! connection: channels, queues of its own and consumers. When anything of it
//! breaks, all of it is thrown away and built anew: a client that recovers on
//! its own asks for queues that are gone, and its consumers stay dead while its
//! publishes succeed.
//!
//! That messages travel is proven, not assumed: the session sends itself an
//! echo through the broker. A broker that hangs or that blocks publishers gives
//! no error.

mod config;
mod convert;
mod echo;
mod guard;
mod session;
mod setup;
mod supervisor;
mod transport;

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
pub use config::{RabbitConfig, RabbitParts, RabbitUrlError};
use holdfast_runtime::Runtime;
use lapin::types::ShortString;
use session::Link;
use tokio::sync::watch;

use crate::inbox::{Inbox, Postbox};
use crate::{Bus, BusError, BusHealth, BusMetrics, Message, Topic, check_reply_to};

/// A connection to RabbitMQ that comes back by itself. Dropping it ends the
/// connection abruptly; [`Bus::close`] ends it in order.
#[derive(Debug)]
pub struct RabbitBus {
    shared: Arc<Shared>,
}

/// What the callers share with the supervisor.
struct Shared {
    runtime: Runtime,
    config: RabbitConfig,
    metrics: BusMetrics,
    health: watch::Sender<BusHealth>,
    /// There exactly while the health is `Connected`.
    link: RwLock<Option<Arc<Link>>>,
    stop: watch::Sender<bool>,
    /// Becomes true when the supervisor has ended.
    ended: watch::Sender<bool>,
}

impl RabbitBus {
    /// Starts to connect, and returns at once: a broker that is away is waited
    /// for. Messages about `topics` and answers arrive in the [`Inbox`].
    #[must_use]
    pub fn start(runtime: Runtime, config: RabbitConfig, topics: &[Topic]) -> (Arc<Self>, Inbox) {
        let metrics = BusMetrics::new();
        let (postbox, inbox) = Postbox::new(metrics.clone());
        let shared = Arc::new(Shared {
            runtime: runtime.clone(),
            config,
            metrics,
            health: watch::Sender::new(BusHealth::Disconnected),
            link: RwLock::new(None),
            stop: watch::Sender::new(false),
            ended: watch::Sender::new(false),
        });
        let supervisor = supervisor::run(Arc::clone(&shared), postbox, topics.to_vec());
        // It ends by `stop`, so that it can close the connection in order.
        drop(runtime.spawn("rabbit-supervisor", supervisor));
        (Arc::new(Self { shared }), inbox)
    }

    /// What this bus counts.
    #[must_use]
    pub fn metrics(&self) -> &BusMetrics {
        &self.shared.metrics
    }

    async fn send(&self, to: To<'_>, message: Message) -> Result<(), BusError> {
        message.check()?;
        let link = self.shared.link().ok_or(BusError::Away)?;
        let limit = self.shared.config.publish_timeout;
        let publish = link.publish(to, &message);
        match self.shared.runtime.timeout(limit, publish).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => {
                link.broken.notify_one();
                Err(BusError::Broker { source: Box::new(error) })
            }
            Err(_elapsed) => Err(BusError::Timeout { limit }),
        }
    }

    async fn counted(&self, to: To<'_>, message: Message) -> Result<(), BusError> {
        let sent = self.send(to, message).await;
        sent.inspect_err(|error| self.shared.metrics.publish_failed(error))
    }
}

#[async_trait]
impl Bus for RabbitBus {
    async fn publish(&self, topic: Topic, message: Message) -> Result<(), BusError> {
        self.counted(To::Topic(topic), message).await
    }

    async fn reply(&self, reply_to: &str, message: Message) -> Result<(), BusError> {
        let queue = check_reply_to(reply_to).map(|()| ShortString::from(reply_to));
        match queue {
            Ok(queue) => self.counted(To::Queue(&queue), message).await,
            Err(error) => {
                self.shared.metrics.publish_failed(&error);
                Err(error)
            }
        }
    }

    fn health(&self) -> watch::Receiver<BusHealth> {
        self.shared.health.subscribe()
    }

    async fn close(&self) {
        let mut ended = self.shared.ended.subscribe();
        self.shared.stop.send_replace(true);
        // The sender lives in `shared`: this cannot fail.
        let _ = ended.wait_for(|ended| *ended).await;
    }
}

impl Drop for RabbitBus {
    fn drop(&mut self) {
        self.shared.stop.send_replace(true);
    }
}

/// Where a message goes.
#[derive(Debug, Clone, Copy)]
enum To<'a> {
    Topic(Topic),
    /// By way of the default exchange, which drops what no queue takes.
    Queue(&'a ShortString),
}

impl Shared {
    fn link(&self) -> Option<Arc<Link>> {
        self.link.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Publishers see the link before anybody hears that it is there, and lose
    /// it before anybody hears that it is gone.
    fn set_health(&self, health: BusHealth, link: Option<Arc<Link>>) {
        *self.link.write().unwrap_or_else(PoisonError::into_inner) = link;
        self.metrics.health(health);
        self.health.send_if_modified(|current| {
            let changed = *current != health;
            *current = health;
            changed
        });
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("config", &self.config)
            .field("health", &*self.health.borrow())
            .finish_non_exhaustive()
    }
}
