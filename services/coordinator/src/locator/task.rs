//! The owner of every lookup.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_bus::{Bus, BusHealth, Message, Topic};
use holdfast_core::membership::View;
use holdfast_core::node::{Address, NodeId};
use holdfast_core::roster::RosterDigest;
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;
use holdfast_core::wire::locate::{BatchAnswer, MAX_BATCH_NAMES, decode_single_answer};
use holdfast_runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tracing::debug;

use super::batch::{Asked, Batch};
use super::guests::GuestQueue;
use super::{GuestLookup, LocatorConfig, LocatorParts, Lookup};
use crate::cluster::{Cluster, Snapshot};
use crate::data_servers::DataServers;
use crate::metrics::LocateMetrics;

/// Marks the answers to batches among the replies. The seed's have no mark.
const CORRELATION_PREFIX: &str = "batch-";

/// What helpers of the task report back.
enum Event {
    Answered { batch: u64, answer: Box<BatchAnswer>, asked: Asked },
    Unreachable { batch: u64, node: NodeId, asked: Asked },
    Included { batch: u64, node: NodeId, digest: RosterDigest, included: bool },
    NotPublished { batch: u64 },
}

pub(super) struct LocatorTask {
    runtime: Runtime,
    config: LocatorConfig,
    cluster: Cluster,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    /// What the batches know.
    applied: Arc<Snapshot>,
    bus: Arc<dyn Bus>,
    health: watch::Receiver<BusHealth>,
    replies: Option<mpsc::Receiver<Message>>,
    data_servers: DataServers,
    metrics: LocateMetrics,
    events: mpsc::Sender<Event>,
    received: mpsc::Receiver<Event>,
    queue: VecDeque<Lookup>,
    batches: BTreeMap<u64, Batch>,
    /// When each member answered last, and the floor that it told.
    stamps: BTreeMap<NodeId, (Stamp, Option<Version>)>,
    guests: GuestQueue,
    next_batch: u64,
}

impl LocatorTask {
    pub(super) fn new(parts: LocatorParts) -> Self {
        let (events, received) = mpsc::channel(4_096);
        Self {
            snapshot: parts.cluster.watch(),
            applied: parts.cluster.snapshot(),
            health: parts.bus.health(),
            // Answers to an earlier run of this process must not be taken for
            // answers to this one.
            next_batch: parts.runtime.random_u64() >> 1,
            runtime: parts.runtime,
            config: parts.config,
            cluster: parts.cluster,
            bus: parts.bus,
            replies: Some(parts.replies),
            data_servers: parts.data_servers,
            metrics: parts.metrics,
            events,
            received,
            queue: VecDeque::new(),
            batches: BTreeMap::new(),
            stamps: BTreeMap::new(),
            guests: GuestQueue::default(),
        }
    }

    pub(super) async fn run(
        mut self,
        mut lookups: mpsc::Receiver<Lookup>,
        mut guest_lookups: mpsc::Receiver<GuestLookup>,
    ) {
        let mut replies = self.replies.take().expect("set in new, taken once, here");
        loop {
            let sleep = self.runtime.sleep(self.until_next_deadline());
            tokio::select! {
                biased;
                Some(message) = replies.recv() => {
                    self.on_reply(&message);
                    // Answers come in bursts: read what is there at once.
                    while let Ok(message) = replies.try_recv() {
                        self.on_reply(&message);
                    }
                }
                Some(event) = self.received.recv() => self.on_event(event),
                changed = self.snapshot.changed() => match changed {
                    Ok(()) => self.on_snapshot(),
                    Err(_) => break,
                },
                lookup = lookups.recv(), if self.queue.len() < super::MAX_WAITING => {
                    let Some(lookup) = lookup else { break };
                    self.queue.push_back(lookup);
                    while self.queue.len() < MAX_BATCH_NAMES
                        && let Ok(lookup) = lookups.try_recv()
                    {
                        self.queue.push_back(lookup);
                    }
                }
                Some(lookup) = guest_lookups.recv(), if self.guests.has_room() => {
                    self.guests.push(lookup);
                }
                () = sleep => {}
            }
            self.advance();
        }
    }

    /// Whatever happened: finish what is decided, give up what is due, send
    /// what may be sent.
    fn advance(&mut self) {
        let now = self.runtime.now();
        self.ask_unanswered_over_http(now);
        let over: Vec<u64> = self
            .batches
            .iter()
            .filter(|(_, batch)| batch.is_decided() || now >= batch.sent + self.config.timeout)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            if let Some(batch) = self.batches.remove(&id) {
                batch.finish(&self.metrics, self.config.window, now);
            }
        }
        if self.guests.deadline().is_some_and(|deadline| now >= deadline) {
            self.guests.finish(None);
        }
        if let Some(message) = self.guests.next(now, self.config.timeout) {
            self.publish(Topic::DataServers, message, None);
        }
        while !self.queue.is_empty() && self.may_send(now) {
            self.send_batch(now);
        }
        self.metrics.waiting.set(self.queue.len() as f64);
    }

    fn may_send(&self, now: Duration) -> bool {
        let young = |batch: &&Batch| now < batch.sent + self.config.batch_patience;
        self.batches.values().filter(young).count() < self.config.batches_in_flight
    }

    fn send_batch(&mut self, now: Duration) {
        // Who waits for everybody must not make the others wait.
        let from_all = self.queue.front().is_some_and(|lookup| lookup.from_all);
        let alike = self.queue.iter().take_while(|lookup| lookup.from_all == from_all);
        let names = alike.count().min(MAX_BATCH_NAMES);
        let lookups: Vec<Lookup> = self
            .queue
            .drain(..names)
            // Whoever asked may have gone while it waited.
            .filter(|lookup| !lookup.reply.is_closed())
            .collect();
        if lookups.is_empty() {
            return;
        }
        let id = self.next_batch;
        self.next_batch = self.next_batch.wrapping_add(1);
        self.metrics.batch_names.observe(lookups.len() as f64);
        let snapshot = self.snapshot.borrow().clone();
        let (stamps, floor) = self.stamps(&snapshot.view);
        let batch = Batch::new(id, lookups, stamps, floor, &snapshot.view, now);
        let message = Message {
            body: batch.encode(),
            correlation_id: Some(format!("{CORRELATION_PREFIX}{id}")),
            wants_reply: true,
            ..Message::default()
        };
        self.batches.insert(id, batch);
        if self.health.borrow().is_connected() {
            self.metrics.requests.with_label_values(&["bus"]).inc();
            self.publish(Topic::Locate, message, Some(id));
        } else {
            self.ask_over_http(id);
        }
        // A batch without anybody to ask is decided already.
        if self.batches.get(&id).is_some_and(Batch::is_decided)
            && let Some(batch) = self.batches.remove(&id)
        {
            batch.finish(&self.metrics, self.config.window, now);
        }
    }

    /// The newest stamp of each member, of its answers and of its heartbeats, and
    /// the highest floor of all.
    fn stamps(&mut self, view: &View) -> (BTreeMap<NodeId, Stamp>, Option<Version>) {
        self.stamps.retain(|node, _| view.member(*node).is_some());
        for member in view.roster_members() {
            if let Some(stamp) = member.stamp {
                self.keep_stamp(member.id, stamp, member.floor);
            }
        }
        let stamps = self.stamps.iter().map(|(node, (stamp, _))| (*node, *stamp));
        let floor = self.stamps.values().filter_map(|(_, floor)| *floor).max();
        (stamps.collect(), floor)
    }

    /// A floor never sinks, whatever run tells it.
    fn keep_stamp(&mut self, node: NodeId, stamp: Stamp, floor: Option<Version>) {
        let kept = self.stamps.entry(node).or_insert((stamp, floor));
        *kept = (stamp.max(kept.0), floor.max(kept.1));
    }

    fn publish(&self, topic: Topic, message: Message, batch: Option<u64>) {
        let (bus, events) = (Arc::clone(&self.bus), self.events.clone());
        self.runtime.spawn("locate-publish", async move {
            if let Err(error) = bus.publish(topic, message).await {
                debug!(%error, "a locate did not go out over the bus");
                if let Some(batch) = batch {
                    let _ = events.send(Event::NotPublished { batch }).await;
                }
            }
        });
    }

    fn ask_unanswered_over_http(&mut self, now: Duration) {
        let due: Vec<u64> = self
            .batches
            .iter()
            .filter(|(_, batch)| now >= batch.sent + self.config.fallback_after)
            .map(|(id, _)| *id)
            .collect();
        for id in due {
            self.ask_over_http(id);
            if let Some(batch) = self.batches.get_mut(&id) {
                batch.give_up_leaving(&self.snapshot.borrow().view);
            }
        }
    }

    fn ask_over_http(&mut self, id: u64) {
        let snapshot = self.snapshot.borrow().clone();
        let Some(batch) = self.batches.get_mut(&id) else { return };
        let unasked = batch.take_unasked();
        if unasked.is_empty() {
            return;
        }
        let request = batch.encode();
        for node in unasked {
            if let Some(member) = snapshot.view.member(node) {
                let address = member.address.clone();
                self.send_over_http(id, node, address, request.clone(), Asked::First);
            }
        }
    }

    fn send_over_http(
        &self,
        id: u64,
        node: NodeId,
        address: Address,
        request: Bytes,
        asked: Asked,
    ) {
        self.metrics.requests.with_label_values(&["http"]).inc();
        let (data_servers, events) = (self.data_servers.clone(), self.events.clone());
        let limit = self.config.timeout;
        self.runtime.spawn("locate-http", async move {
            let event = match data_servers.locate(&address, node, request, limit).await {
                Ok(answer) => Event::Answered { batch: id, answer: Box::new(answer), asked },
                Err(error) => {
                    debug!(%node, %address, %error, "a locate over HTTP failed");
                    Event::Unreachable { batch: id, node, asked }
                }
            };
            let _ = events.send(event).await;
        });
    }

    fn on_reply(&mut self, message: &Message) {
        let correlation = message.correlation_id.as_deref().unwrap_or("");
        let Some(id) = correlation.strip_prefix(CORRELATION_PREFIX) else {
            self.on_guest_reply(message);
            return;
        };
        match BatchAnswer::decode(&message.body) {
            Ok(answer) if id.parse() == Ok(answer.id) => {
                self.on_answer(answer.id, &answer, Asked::First);
            }
            Ok(_) => self.metrics.dropped.with_label_values(&["body"]).inc(),
            Err(error) => {
                debug!(%error, "dropped a locate answer that cannot be understood");
                self.metrics.dropped.with_label_values(&[error.reason()]).inc();
            }
        }
    }

    fn on_guest_reply(&mut self, message: &Message) {
        match decode_single_answer(&message.body) {
            // Holdfast's own data servers answer single names too; they have
            // been asked in a batch.
            Ok(address) if self.snapshot.borrow().view.guests.contains(&address) => {
                self.guests.finish(Some(&address));
            }
            Ok(_) => {}
            Err(error) => self.metrics.dropped.with_label_values(&[error.reason()]).inc(),
        }
    }

    fn on_answer(&mut self, id: u64, answer: &BatchAnswer, asked: Asked) {
        // What is known must be known to the batches, too: whether a roster is
        // included is judged by the one, and who is waited for by the others.
        if self.snapshot.has_changed().unwrap_or(false) {
            self.on_snapshot();
        }
        let stamp = Stamp { generation: answer.generation, mono_millis: answer.mono_millis };
        // Anybody on the broker may answer; only a member's stamp is of use.
        if self.applied.view.member(answer.node).is_some_and(|member| member.in_roster) {
            self.keep_stamp(answer.node, stamp, answer.floor);
        }
        let Some(batch) = self.batches.get_mut(&id) else {
            self.metrics.dropped.with_label_values(&["late"]).inc();
            return;
        };
        if answer.late {
            self.metrics.dropped.with_label_values(&["stale"]).inc();
            if asked == Asked::Again {
                batch.apply_failure(answer.node, asked);
            } else if let Some(request) = batch.ask_again(answer.node, stamp) {
                let address = answer.address.clone();
                self.send_over_http(id, answer.node, address, request, Asked::Again);
            }
            return;
        }
        // Not by what has become known since: the batches do not know it yet.
        let included = self.applied.includes(answer.roster_digest);
        if batch.apply_answer(answer, included) {
            self.include(id, answer);
        }
    }

    /// The answerer knows a roster that is not known here: nothing is concluded
    /// before it is.
    fn include(&self, batch: u64, answer: &BatchAnswer) {
        let (cluster, events) = (self.cluster.clone(), self.events.clone());
        let (node, address, digest) = (answer.node, answer.address.clone(), answer.roster_digest);
        self.runtime.spawn("locate-include", async move {
            let included = cluster.include(node, address, digest).await;
            let _ = events.send(Event::Included { batch, node, digest, included }).await;
        });
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Answered { batch, answer, asked } => self.on_answer(batch, &answer, asked),
            Event::Unreachable { batch, node, asked } => {
                if let Some(batch) = self.batches.get_mut(&batch) {
                    batch.apply_failure(node, asked);
                }
            }
            Event::Included { batch, node, digest, included } => {
                // The snapshot that came of it first: it may name more members.
                self.on_snapshot();
                // Members that it names did not get the question.
                self.ask_over_http(batch);
                if let Some(batch) = self.batches.get_mut(&batch) {
                    batch.apply_included(node, digest, included);
                }
            }
            Event::NotPublished { batch } => self.ask_over_http(batch),
        }
    }

    fn on_snapshot(&mut self) {
        self.applied = self.snapshot.borrow_and_update().clone();
        for batch in self.batches.values_mut() {
            batch.apply_view(&self.applied.view);
        }
    }

    fn until_next_deadline(&self) -> Duration {
        let now = self.runtime.now();
        let batches = self.batches.values().flat_map(|batch| {
            [
                batch.sent + self.config.batch_patience,
                batch.sent + self.config.fallback_after,
                batch.sent + self.config.timeout,
            ]
        });
        batches
            .chain(self.guests.deadline())
            .filter(|deadline| *deadline > now)
            .min()
            .map_or(Duration::from_secs(60), |deadline| deadline - now)
    }
}
