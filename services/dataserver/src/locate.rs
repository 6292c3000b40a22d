//! Answering "which of these do you hold?", over the bus and over HTTP.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use holdfast_bus::{Bus, Message};
use holdfast_coordinator::cluster::Cluster;
use holdfast_core::name::{ObjectName, seed_locate_candidates};
use holdfast_core::object::Kind;
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::locate::{BatchAnswer, BatchRequest, decode_single, encode_single};
use holdfast_runtime::{Runtime, Task};
use holdfast_store::Store;
use holdfast_telemetry::trace;
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument, debug, info_span, warn};

use crate::metrics::DataServerMetrics;
use crate::report::Own;

/// Locate messages that are worked on at once; more wait in the inbox, which is
/// bounded too.
const CONCURRENT: usize = 64;

/// Answers locates. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Answerer {
    runtime: Runtime,
    own: Own,
    store: Arc<dyn Store>,
    cluster: Cluster,
    bus: Arc<dyn Bus>,
    metrics: DataServerMetrics,
}

impl Answerer {
    /// Answers from this store.
    #[must_use]
    pub fn new(
        runtime: Runtime,
        own: Own,
        store: Arc<dyn Store>,
        cluster: Cluster,
        bus: Arc<dyn Bus>,
        metrics: DataServerMetrics,
    ) -> Self {
        Self { runtime, own, store, cluster, bus, metrics }
    }

    /// Answers what comes over the bus until the tasks are aborted.
    #[must_use]
    pub fn start(
        &self,
        batches: mpsc::Receiver<Message>,
        singles: mpsc::Receiver<Message>,
    ) -> [Task; 2] {
        let (batch, single) = (self.clone(), self.clone());
        [
            self.runtime.spawn("locate-batches", batch.answer_batches(batches)),
            self.runtime.spawn("locate-singles", single.answer_singles(singles)),
        ]
    }

    async fn answer_batches(self, mut batches: mpsc::Receiver<Message>) {
        let permits = Arc::new(Semaphore::new(CONCURRENT));
        while let Some(message) = batches.recv().await {
            let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
            let answerer = self.clone();
            self.runtime.spawn("locate-batch", async move {
                answerer.on_batch(message).await;
                drop(permit);
            });
        }
    }

    async fn on_batch(&self, message: Message) {
        let Some(reply_to) = message.reply_to.as_deref() else {
            self.metrics.locates_dropped.with_label_values(&["body"]).inc();
            return;
        };
        let request = match BatchRequest::decode(&message.body) {
            Ok(request) => request,
            Err(error) => {
                debug!(%error, "dropped a locate request that cannot be understood");
                self.metrics.locates_dropped.with_label_values(&[error.reason()]).inc();
                return;
            }
        };
        let answer = self.answer(&request).await;
        self.metrics.locates_answered.with_label_values(&["batch"]).inc();
        self.reply(reply_to, answer.encode(), message.correlation_id).await;
    }

    /// Looks every name up. The roster digest is read after the lookups: a
    /// member that joined meanwhile, and may hold what is missing here, is then
    /// part of it.
    pub async fn answer(&self, request: &BatchRequest) -> BatchAnswer {
        let span = info_span!("locate_answer", names = request.names.len());
        if let Some(trace) = &request.trace {
            trace::set_parent(&span, trace);
        }
        let looked_up = self.store.stat(&request.names).instrument(span.clone()).await;
        let (mut found, mut unknown) = (Vec::new(), Vec::new());
        for (index, looked_up) in (0u32..).zip(looked_up) {
            match looked_up {
                Ok(Some(stat)) => found.push((index, stat)),
                Ok(None) => {}
                Err(error) => {
                    warn!(%error, "whether an object is here cannot be told");
                    unknown.push(index);
                }
            }
        }
        let held: BTreeSet<u32> = found.iter().map(|(index, _)| *index).collect();
        for (index, traceparent) in &request.traces {
            let held = held.contains(index);
            let child = info_span!("locate_name", held);
            trace::set_parent(&child, traceparent);
        }
        BatchAnswer {
            protocol: PROTOCOL_VERSION,
            id: request.id,
            node: self.own.node,
            generation: self.own.generation,
            address: self.own.address.clone(),
            roster_digest: self.cluster.snapshot().view.digest,
            mono_millis: u64::try_from(self.runtime.now().as_millis()).unwrap_or(u64::MAX),
            unix_millis: self.runtime.unix_millis(),
            found,
            unknown,
            floor: None,
            promised: Vec::new(),
            late: false,
        }
    }

    async fn answer_singles(self, mut singles: mpsc::Receiver<Message>) {
        while let Some(message) = singles.recv().await {
            self.on_single(&message).await;
        }
    }

    /// As the seed does: the address if the object is here, and silence if not.
    async fn on_single(&self, message: &Message) {
        let name = match decode_single(&message.body) {
            Ok(name) => name,
            Err(error) => {
                debug!(%error, "dropped a single-name locate that cannot be understood");
                self.metrics.locates_dropped.with_label_values(&[error.reason()]).inc();
                return;
            }
        };
        let Some(reply_to) = message.reply_to.as_deref() else { return };
        self.metrics.locates_answered.with_label_values(&["single"]).inc();
        if self.holds(&name).await {
            let body = encode_single(self.own.address.as_str());
            self.reply(reply_to, body, message.correlation_id.clone()).await;
        }
    }

    async fn holds(&self, text: &str) -> bool {
        let candidates: Vec<ObjectName> =
            seed_locate_candidates(text).into_iter().map(ObjectName::seed).collect();
        let mut stats = self.store.stat(&candidates).await.into_iter().flatten().flatten();
        stats.any(|stat| stat.kind == Kind::Object)
    }

    async fn reply(&self, reply_to: &str, body: Vec<u8>, correlation_id: Option<String>) {
        let message = Message { body: Bytes::from(body), correlation_id, ..Message::default() };
        if let Err(error) = self.bus.reply(reply_to, message).await {
            debug!(%error, "an answer to a locate was not sent");
        }
    }

    pub(crate) fn on_http(&self) {
        self.metrics.locates_answered.with_label_values(&["http"]).inc();
    }
}
