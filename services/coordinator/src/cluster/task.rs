//! The owner of the membership state.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use holdfast_bus::{BusHealth, Message};
use holdfast_core::membership::{Applied, Change, Membership, Moment, View};
use holdfast_core::node::{Address, NodeId};
use holdfast_core::roster::{Entry, Roster, RosterDigest};
use holdfast_core::wire::heartbeat::{self, Heartbeat, NodeReport};
use holdfast_runtime::Runtime;
use tokio::sync::{Notify, mpsc, watch};
use tracing::{debug, error, info, warn};

use super::fetches::{Fetch, Fetches, Want};
use super::{ClusterConfig, ClusterParts, Command, MergeError, RosterKeeper, Snapshot, discovery};
use crate::data_servers::DataServers;
use crate::metrics::ClusterMetrics;

/// Digests of merged rosters that are remembered. Forgetting one costs a fetch.
const INCLUDED_DIGESTS: usize = 256;

/// Would-be guests that are probed at once: anybody on the broker can name an
/// address.
const GUESTS_PROBED: usize = 64;

/// Where to tell what is known.
pub(super) struct Publisher {
    pub(super) snapshot: watch::Sender<Arc<Snapshot>>,
    /// Told after each change of it.
    pub(super) published: Arc<Notify>,
}

pub(super) struct ClusterTask {
    runtime: Runtime,
    config: ClusterConfig,
    membership: Membership,
    keeper: Option<Arc<dyn RosterKeeper>>,
    heartbeats: mpsc::Receiver<Message>,
    health: watch::Receiver<BusHealth>,
    data_servers: DataServers,
    metrics: ClusterMetrics,
    publisher: Publisher,
    commands: mpsc::Sender<Command>,
    included: VecDeque<RosterDigest>,
    fetches: Fetches,
    probing: BTreeSet<NodeId>,
    guests_probed: BTreeSet<Address>,
    /// Addresses that have series among the metrics.
    counted: BTreeSet<Address>,
    foreign_reported: BTreeSet<NodeId>,
}

impl ClusterTask {
    pub(super) fn new(
        parts: ClusterParts,
        publisher: Publisher,
        commands: mpsc::Sender<Command>,
        now: Moment,
    ) -> Self {
        let membership = Membership::new(parts.config.heartbeat_expiry, parts.roster, now);
        let mut task = Self {
            runtime: parts.runtime,
            config: parts.config,
            membership,
            keeper: parts.keeper,
            heartbeats: parts.heartbeats,
            health: parts.health,
            data_servers: parts.data_servers,
            metrics: parts.metrics,
            publisher,
            commands,
            included: VecDeque::new(),
            fetches: Fetches::default(),
            probing: BTreeSet::new(),
            guests_probed: BTreeSet::new(),
            counted: BTreeSet::new(),
            foreign_reported: BTreeSet::new(),
        };
        task.publish(now);
        task
    }

    /// Four looks per heartbeat interval: silence is noticed at most a quarter
    /// of an interval after the expiry.
    fn tick(&self) -> Duration {
        self.config.heartbeat_interval / 4
    }

    pub(super) async fn run(mut self, mut commands: mpsc::Receiver<Command>) {
        let discovery = discovery::start(
            &self.runtime,
            self.config.clone(),
            self.data_servers.clone(),
            self.publisher.snapshot.subscribe(),
            self.health.clone(),
            self.commands.clone(),
        );
        let mut tick = self.runtime.sleep(Duration::ZERO);
        loop {
            tokio::select! {
                biased;
                command = commands.recv() => match command {
                    Some(command) => self.on_command(command).await,
                    None => break,
                },
                Some(message) = self.heartbeats.recv() => self.on_heartbeat(&message),
                () = &mut tick => {
                    self.on_tick();
                    tick = self.runtime.sleep(self.tick());
                }
            }
            self.publish(self.runtime.now());
        }
        discovery.abort();
    }

    fn on_heartbeat(&mut self, message: &Message) {
        match heartbeat::decode(&message.body, &message.headers) {
            // A data server hears itself without the broker.
            Ok(Heartbeat::Member(report)) if self.is_own_echo(&report) => {}
            Ok(Heartbeat::Member(report)) => {
                let now = self.runtime.unix_millis();
                let ahead = report.sent_unix_millis as f64 - now as f64;
                let labels = &[report.address.as_str()];
                self.metrics.clock_skew.with_label_values(labels).set(ahead / 1_000.0);
                let delay = now.saturating_sub(report.sent_unix_millis);
                self.metrics.heartbeat_delay.observe(Duration::from_millis(delay).as_secs_f64());
                self.apply_report(*report);
            }
            Ok(Heartbeat::Guest(address)) => self.on_guest_heartbeat(address),
            Err(error) => {
                debug!(%error, "dropped a heartbeat that cannot be understood");
                self.metrics.heartbeats_dropped.with_label_values(&[error.reason()]).inc();
            }
        }
    }

    fn is_own_echo(&self, report: &NodeReport) -> bool {
        if Some(report.node) != self.config.own {
            return false;
        }
        let view = self.publisher.snapshot.borrow();
        view.view
            .member(report.node)
            .is_some_and(|own| own.generation == report.generation && own.address == report.address)
    }

    /// A heartbeat proves only that somebody knows the address; whether a data
    /// server is there, a probe tells.
    fn on_guest_heartbeat(&mut self, address: Address) {
        let now = self.runtime.now();
        if self.membership.is_guest(&address) {
            let changes = self.membership_guest(address, now);
            self.on_changes(changes);
            return;
        }
        if self.guests_probed.len() >= GUESTS_PROBED || !self.guests_probed.insert(address.clone())
        {
            return;
        }
        let (data_servers, commands) = (self.data_servers.clone(), self.commands.clone());
        let limit = self.probe_limit();
        self.runtime.spawn("guest-probe", async move {
            let alive = data_servers.answers_http(&address, limit).await;
            let _ = commands.send(Command::GuestProbed { address, alive }).await;
        });
    }

    fn membership_guest(&mut self, address: Address, now: Moment) -> Vec<Change> {
        self.metrics.on_heartbeat(&address, self.runtime.unix_millis());
        self.membership.apply_guest(address, now)
    }

    fn apply_report(&mut self, report: NodeReport) {
        let now = self.runtime.now();
        let (id, address, digest) = (report.node, report.address.clone(), report.roster_digest);
        match self.membership.apply_report(report, now) {
            Applied::Taken { changes, fetch_roster, interval } => {
                self.metrics.on_heartbeat(&address, self.runtime.unix_millis());
                if let Some(interval) = interval {
                    self.metrics.heartbeat_interval.observe(interval.as_secs_f64());
                }
                self.on_changes(changes);
                if fetch_roster && !self.is_included(digest) {
                    let address = self.fetches.want(id, Want { address, digest, waiter: None });
                    self.fetch(id, address);
                }
            }
            Applied::Stale => self.metrics.heartbeats_dropped.with_label_values(&["stale"]).inc(),
            Applied::Refused => {
                self.metrics.heartbeats_dropped.with_label_values(&["refused"]).inc();
            }
        }
    }

    fn on_changes(&self, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Appeared(node) => info!(%node, "data server is heard"),
                // Anybody on the broker can pose as a newcomer.
                Change::FellSilent(node) if self.membership.roster().get(node).is_none() => {
                    info!(%node, "a data server that is no member fell silent");
                }
                Change::FellSilent(node) => warn!(%node, "data server fell silent"),
                Change::Left(node) => info!(%node, "data server is shutting down"),
                Change::Restarted(node) => info!(%node, "data server has restarted"),
                Change::GuestAppeared(address) => info!(%address, "guest data server is heard"),
                Change::GuestExpired(address) => info!(%address, "guest data server fell silent"),
                Change::RosterChanged(digest) => info!(%digest, "roster has changed"),
            }
        }
    }

    async fn on_command(&mut self, command: Command) {
        match command {
            Command::Report(report) => self.apply_report(*report),
            Command::GuestProbed { address, alive } => {
                self.guests_probed.remove(&address);
                if alive {
                    let changes = self.membership_guest(address, self.runtime.now());
                    self.on_changes(changes);
                }
            }
            Command::Merge { roster, reply } => {
                let merged = self.merge(&roster).await;
                self.publish(self.runtime.now());
                // Who asked may have gone; the roster is merged all the same.
                let _ = reply.send(merged);
            }
            Command::Retire { drained, reply } => {
                let retired = self.retire(&drained).await;
                self.publish(self.runtime.now());
                let _ = reply.send(retired);
            }
            Command::Fetch { from, address, digest, reply } => {
                if self.is_included(digest) {
                    let _ = reply.send(true);
                } else {
                    let want = Want { address, digest, waiter: Some(reply) };
                    let address = self.fetches.want(from, want);
                    self.fetch(from, address);
                }
            }
            Command::Fetched { from, roster } => self.on_fetched(from, roster).await,
            Command::ProbeEnded { id } => {
                self.probing.remove(&id);
            }
        }
    }

    async fn retire(&mut self, drained: &Entry) -> Result<bool, MergeError> {
        let roster = self.membership.roster();
        let cluster = roster.cluster.ok_or(MergeError::Unfounded)?;
        if roster.get(drained.id) != Some(drained) {
            return Ok(false);
        }
        self.merge(&Roster::of_entry(cluster, drained.retired())).await.map(|_| true)
    }

    async fn merge(&mut self, roster: &Roster) -> Result<Roster, MergeError> {
        let mut merged = self.membership.roster().clone();
        if merged.merge(roster)? {
            if let Some(keeper) = &self.keeper {
                // Durable first: a digest that others hear of must outlive a
                // power cut.
                let persisted = keeper.persist(&merged).await;
                persisted.map_err(|reason| MergeError::Persist { reason })?;
            }
            let changes = self.membership.apply_roster(&merged, self.runtime.now())?;
            self.on_changes(changes);
        }
        self.remember_included(roster.digest());
        Ok(merged)
    }

    /// Asks `from` for its roster, if there is where to.
    fn fetch(&self, from: NodeId, address: Option<Address>) {
        let Some(address) = address else { return };
        let (data_servers, commands) = (self.data_servers.clone(), self.commands.clone());
        let limit = self.probe_limit();
        self.runtime.spawn("roster-fetch", async move {
            let roster = match data_servers.roster(&address, from, limit).await {
                Ok(roster) => Some(roster),
                Err(error) => {
                    debug!(node = %from, %address, %error, "could not fetch the roster");
                    None
                }
            };
            let _ = commands.send(Command::Fetched { from, roster }).await;
        });
    }

    async fn on_fetched(&mut self, from: NodeId, roster: Option<Roster>) {
        let included = match roster {
            Some(roster) => match self.merge(&roster).await {
                Ok(_) => true,
                Err(error) => {
                    if self.foreign_reported.insert(from) {
                        error!(node = %from, %error, "cannot merge the roster of a data server");
                    }
                    false
                }
            },
            None => false,
        };
        let result = if included { "ok" } else { "error" };
        self.metrics.roster_fetches.with_label_values(&[result]).inc();
        let Some(Fetch { wants, later }) = self.fetches.end(from) else { return };
        if included {
            // What it had when it was asked is part of what it has.
            wants.iter().for_each(|want| self.remember_included(want.digest));
        }
        self.publish(self.runtime.now());
        for waiter in wants.into_iter().filter_map(|want| want.waiter) {
            let _ = waiter.send(included);
        }
        let (included, missing): (Vec<Want>, Vec<Want>) =
            later.into_iter().partition(|want| self.is_included(want.digest));
        for waiter in included.into_iter().filter_map(|want| want.waiter) {
            let _ = waiter.send(true);
        }
        let address = self.fetches.start(from, missing);
        self.fetch(from, address);
    }

    fn on_tick(&mut self) {
        let now = self.runtime.now();
        let changes = self.membership.apply_time(now);
        self.on_changes(changes);
        for (id, address) in self.membership.overdue(self.patience(), now) {
            if Some(id) != self.config.own && self.probing.insert(id) {
                self.probe(id, address);
            }
        }
    }

    /// How long to wait for a heartbeat before asking: a little over one
    /// interval while the broker works, and not at all while it does not.
    fn patience(&self) -> Duration {
        if self.health.borrow().is_connected() {
            self.config.heartbeat_interval * 5 / 4
        } else {
            self.config.heartbeat_interval * 3 / 4
        }
    }

    fn probe_limit(&self) -> Duration {
        (self.config.heartbeat_interval / 2).min(Duration::from_secs(2))
    }

    fn probe(&self, id: NodeId, address: Address) {
        let (data_servers, commands) = (self.data_servers.clone(), self.commands.clone());
        let (metrics, limit) = (self.metrics.clone(), self.probe_limit());
        self.runtime.spawn("probe", async move {
            let answer = data_servers.state(&address, limit).await;
            let result = if answer.is_ok() { "ok" } else { "error" };
            metrics.probes.with_label_values(&[result]).inc();
            match answer {
                Ok(report) => {
                    let _ = commands.send(Command::Report(Box::new(report))).await;
                }
                Err(error) => debug!(node = %id, %address, %error, "a probe got no answer"),
            }
            let _ = commands.send(Command::ProbeEnded { id }).await;
        });
    }

    fn is_included(&self, digest: RosterDigest) -> bool {
        digest == self.membership.roster().digest() || self.included.contains(&digest)
    }

    fn remember_included(&mut self, digest: RosterDigest) {
        if !self.included.contains(&digest) {
            self.included.push_back(digest);
        }
        if self.included.len() > INCLUDED_DIGESTS {
            self.included.pop_front();
        }
    }

    /// Series of addresses at which nobody is known any more are dropped.
    fn forget_addresses(&mut self, view: &View) {
        let known: BTreeSet<Address> = view
            .members
            .iter()
            .map(|member| &member.address)
            .chain(&view.guests)
            .cloned()
            .collect();
        self.counted.difference(&known).for_each(|address| self.metrics.forget(address));
        self.counted = known;
    }

    fn publish(&mut self, now: Moment) {
        let view = self.membership.view(now);
        self.forget_addresses(&view);
        let is_new = self.publisher.snapshot.send_if_modified(|old| {
            if old.view == view && old.included.len() == self.included.len() {
                return false;
            }
            self.metrics.on_view(&view);
            *old = Arc::new(Snapshot {
                view,
                roster: self.membership.roster().clone(),
                included: self.included.iter().copied().collect(),
                at: now,
            });
            true
        });
        if is_new {
            self.publisher.published.notify_waiters();
        }
    }
}
