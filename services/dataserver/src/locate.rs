//! Answering "which of these do you hold?", over the bus and over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use holdfast_bus::{Bus, Message};
use holdfast_coordinator::cluster::Cluster;
use holdfast_core::name::{ObjectName, seed_locate_candidates};
use holdfast_core::object::{Kind, Stat};
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;
use holdfast_core::wire::PROTOCOL_VERSION;
use holdfast_core::wire::locate::{BatchAnswer, BatchRequest, decode_single, encode_single};
use holdfast_runtime::{Runtime, Task};
use holdfast_store::{Held, Store, StoreError};
use holdfast_telemetry::trace;
use tokio::sync::{Semaphore, mpsc};
use tracing::{Instrument, debug, info_span, warn};

use crate::gate::Gate;
use crate::metrics::DataServerMetrics;
use crate::report::Own;

/// Locate messages that are worked on at once; more wait in the inbox, which is
/// bounded too.
const CONCURRENT: usize = 64;

/// Promises of one batch that are worked on at once: each may wait for a write.
const CONCURRENT_PROMISES: usize = 16;

/// How long a promise may wait for a write of its name, which holds up the
/// answer about all names of its batch. Then the name is unknown.
const PROMISE_PATIENCE: Duration = Duration::from_millis(250);

/// What was found of one batch.
#[derive(Debug, Default)]
struct Lookups {
    found: BTreeMap<u32, Stat>,
    unknown: Vec<u32>,
    promised: Vec<u32>,
    may_have_promised: Vec<(u32, Version)>,
}

impl Lookups {
    /// What is damaged is here, and does not count as a copy.
    fn apply(&mut self, index: u32, answer: Result<Option<Held>, StoreError>) {
        match answer {
            Ok(Some(held)) => {
                if held.is_damaged {
                    self.unknown.push(index);
                }
                self.found.insert(index, held.stat);
            }
            Ok(None) => {}
            Err(error) => {
                warn!(%error, "whether an object is here cannot be told");
                self.unknown.push(index);
            }
        }
    }
}

/// Answers locates. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Answerer {
    runtime: Runtime,
    own: Own,
    store: Arc<dyn Store>,
    gate: Gate,
    cluster: Cluster,
    bus: Arc<dyn Bus>,
    metrics: DataServerMetrics,
}

impl Answerer {
    /// Answers from this store, and promises by this gate.
    #[must_use]
    pub fn new(
        runtime: Runtime,
        own: Own,
        store: Arc<dyn Store>,
        gate: Gate,
        cluster: Cluster,
        bus: Arc<dyn Bus>,
        metrics: DataServerMetrics,
    ) -> Self {
        Self { runtime, own, store, gate, cluster, bus, metrics }
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

    /// Looks every name up, and gives the promises that are asked for.
    ///
    /// The order of the steps is what others rely on. The time of the answer is
    /// taken before the lookups, so that a stamp is never younger than what it
    /// stands for. Whether the question came in time is judged after them. The
    /// floor is read when the promises are given. The roster digest is read
    /// last: a member that joined meanwhile, and may hold what is missing here,
    /// is then part of it.
    pub async fn answer(&self, request: &BatchRequest) -> BatchAnswer {
        let span = info_span!("locate_answer", names = request.names.len());
        if let Some(trace) = &request.trace {
            trace::set_parent(&span, trace);
        }
        // Who is late already need not be looked up for, nor promised anything.
        let mut looked_up = Lookups::default();
        let asked_at = self.runtime.now();
        let mut late = self.is_late(request);
        if !late {
            looked_up = self.look_up(request).instrument(span.clone()).await;
            late = self.is_late(request);
        }
        if late {
            looked_up = Lookups::default();
            self.metrics.locates_late.inc();
        }
        let at = if late { self.runtime.now() } else { asked_at };
        for (index, traceparent) in &request.traces {
            let held = looked_up.found.contains_key(index);
            let child = info_span!("locate_name", held);
            trace::set_parent(&child, traceparent);
        }
        BatchAnswer {
            protocol: PROTOCOL_VERSION,
            id: request.id,
            node: self.own.node,
            generation: self.own.generation,
            address: self.own.address.clone(),
            mono_millis: Stamp::at(self.own.generation, at).mono_millis,
            unix_millis: self.runtime.unix_millis(),
            found: looked_up.found.into_iter().collect(),
            unknown: looked_up.unknown,
            floor: self.gate.floor(),
            promised: looked_up.promised,
            may_have_promised: looked_up.may_have_promised,
            promised_before: self.gate.promised_before(),
            late,
            roster_digest: self.cluster.snapshot().view.digest,
        }
    }

    /// Whether the asker heard of this run too long ago, or never. One that
    /// gives nobody's stamp back does not ask to be told.
    fn is_late(&self, request: &BatchRequest) -> bool {
        let stamp = request.stamps.get(&self.own.node);
        !request.stamps.is_empty()
            && stamp.is_none_or(|stamp| self.gate.check_stamp(*stamp).is_err())
    }

    async fn look_up(&self, request: &BatchRequest) -> Lookups {
        let mut lookups = Lookups::default();
        let inspected = self.store.inspect(&request.names).await;
        let promises = self.gate.may_have_promised(&request.names);
        for ((index, answer), promised) in (0u32..).zip(inspected).zip(promises) {
            // What is promised is looked up in the same step.
            if request.promises.contains_key(&index) {
                continue;
            }
            let held = answer.as_ref().ok().and_then(|held| held.as_ref());
            let held = held.map(|held| held.stat.version);
            let above = promised.filter(|promised| Some(*promised) > held);
            lookups.may_have_promised.extend(above.map(|promised| (index, promised)));
            lookups.apply(index, answer);
        }
        let mut asked = Vec::new();
        for (index, ballot) in &request.promises {
            let name = usize::try_from(*index).ok().and_then(|place| request.names.get(place));
            let Some(name) = name.cloned() else { continue };
            let (answerer, index, ballot) = (self.clone(), *index, *ballot);
            asked.push(async move {
                let promise = answerer.gate.promise(&name, ballot);
                (index, answerer.runtime.timeout(PROMISE_PATIENCE, promise).await)
            });
        }
        let given = stream::iter(asked).buffered(CONCURRENT_PROMISES).collect::<Vec<_>>().await;
        for (index, promised) in given {
            let Ok(promised) = promised else {
                lookups.unknown.push(index);
                continue;
            };
            lookups.apply(index, promised.held);
            if promised.is_given {
                lookups.promised.push(index);
            }
        }
        lookups
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

#[cfg(test)]
#[path = "locate_tests.rs"]
mod tests;
