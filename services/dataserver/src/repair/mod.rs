//! Looking after copies: what this data server does by itself about what it
//! holds.
//!
//! | module | does |
//! |---|---|
//! | [`beside`] | has large objects copied while the lap goes on |
//! | [`lap`] | one way around the index, and what was found on it |
//! | `look` | looks names up and does what [`holdfast_core::repair::plan`] says |
//! | `collect` | has all members forget tombstones together |
//! | `let_go` | drops copies that belong elsewhere, once others have pinned theirs |
//! | [`hints`] | names that are to be looked at soon |
//! | [`pacer`] | how much at once, and how fast |
//! | [`metrics`] | what is counted |
//!
//! One task goes around the index, page by page. When who should hold copies
//! changes, a new lap begins where the task is, at full speed; without a cause,
//! laps are slow, and one is made every half `REPAIR_INTERVAL`.

pub mod beside;
mod collect;
pub mod hints;
pub mod lap;
mod let_go;
mod look;
pub mod metrics;
pub mod pacer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_coordinator::cluster::Cluster;
use holdfast_coordinator::data_servers::DataServers;
use holdfast_coordinator::objects::Objects;
use holdfast_core::membership::{Hearing, Member, Moment};
use holdfast_core::name::ObjectName;
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::wire::heartbeat::{Pass, RepairReport};
use holdfast_runtime::{Runtime, Task};
use holdfast_store::{Held, Store};
use tracing::{debug, warn};

use self::hints::Hints;
use self::lap::{Lap, Redundancy, Shape};
use self::let_go::LetGo;
use self::look::{Look, Subject};
use self::metrics::RepairMetrics;
use self::pacer::{Activity, Pacer};
use crate::config::RepairSettings;
use crate::gate::Gate;
use crate::report::Reporter;

/// Names of one page: as many as one locate message takes.
const PAGE: usize = holdfast_core::wire::locate::MAX_BATCH_NAMES;

/// The longest pause between two pages of a slow lap.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What repair needs.
#[derive(Debug, Clone)]
pub struct RepairParts {
    /// The seam.
    pub runtime: Runtime,
    /// `REPAIR_*`.
    pub settings: RepairSettings,
    /// The volume.
    pub store: Arc<dyn Store>,
    /// How copies are dropped.
    pub gate: Gate,
    /// Who should hold what.
    pub cluster: Cluster,
    /// Who does hold what.
    pub objects: Objects,
    /// The way to the others.
    pub data_servers: DataServers,
    /// Who this is, and where it is told how far repair is.
    pub reporter: Arc<Reporter>,
    /// How busy clients keep this data server.
    pub activity: Activity,
    /// What is to be looked at soon.
    pub hints: Hints,
    /// Where it is counted.
    pub metrics: RepairMetrics,
    /// How often others are heard.
    pub heartbeat_interval: Duration,
}

/// The task's state.
struct Repair {
    parts: RepairParts,
    look: Look,
    lap: Option<Lap>,
    /// Where the last lap ended.
    shape: Option<Shape>,
    /// What the last lap ended with, or what was told of the ones since that were
    /// begun anew before they ended.
    redundancy: Redundancy,
    /// Members that are heard, and their runs.
    heard: BTreeSet<(NodeId, Generation)>,
    passed: Option<Pass>,
    /// When the next lap begins without a cause.
    due: Moment,
    /// How long to wait after a lap that left something to do.
    retry: Duration,
    /// How long after a lap the next one begins when copies that were let go of
    /// stay.
    let_go_again: Duration,
    /// Whether the next lap was put forward for that.
    is_pulled: bool,
}

/// Looks after copies until the task is aborted.
#[must_use]
pub fn start(parts: RepairParts) -> Task {
    let runtime = parts.runtime.clone();
    let let_go = LetGo::new(&parts);
    let pacer = Pacer::new(runtime.clone(), parts.settings.rate_bytes, parts.activity.clone());
    let look = Look::new(parts.clone(), let_go, pacer);
    let (due, retry) = (runtime.now(), parts.gate.window());
    let heard = BTreeSet::new();
    let repair = Repair {
        parts,
        look,
        lap: None,
        shape: None,
        redundancy: Redundancy::default(),
        heard,
        passed: None,
        due,
        retry,
        let_go_again: retry,
        is_pulled: false,
    };
    runtime.spawn("repair", repair.run())
}

impl Repair {
    async fn run(mut self) {
        loop {
            self.follow_changes();
            let names = self.parts.hints.take(PAGE);
            if !names.is_empty() {
                self.look_at(names).await;
            }
            match self.lap.take() {
                Some(lap) => self.go_on(lap).await,
                None => self.rest().await,
            }
        }
    }

    /// Begins a lap when who should hold copies is not what it was at the
    /// beginning of the last one, or when it is time.
    fn follow_changes(&mut self) {
        let shape = self.shape();
        let is_back = self.follow_absence();
        if is_back || shape.as_ref() != self.shape.as_ref() {
            debug!(is_back, "who should or can hold copies has changed: looking at all of them");
            // Where the task is: a member that comes and goes must not keep it
            // at the beginning of the index for ever.
            let cut_short = self.lap.take();
            if let Some(lap) = &cut_short {
                self.redundancy = lap.redundancy(&self.redundancy);
            }
            let start = cut_short.and_then(Lap::into_cursor);
            let begin = |shape| Lap::new(start, shape, self.now(), true).with_cause();
            self.lap = shape.clone().map(begin);
            self.shape = shape;
            self.retry = self.parts.gate.window();
            self.let_go_again = self.retry;
            self.is_pulled = false;
        } else if self.lap.is_none() {
            // What was let go of after the lap, and stays, is not left for long, but
            // for longer each time.
            if self.look.is_unfinished() && !self.is_pulled {
                self.is_pulled = true;
                self.due = self.due.min(self.now() + self.let_go_again);
                self.let_go_again = (self.let_go_again * 2).min(self.parts.settings.interval / 2);
            }
            let has_ended = self.look.take_ended();
            if !has_ended && self.now() < self.due {
                return;
            }
            let hurry = self.look.take_unfinished() || has_ended;
            self.is_pulled = false;
            self.lap = shape.map(|shape| Lap::new(None, shape, self.now(), hurry));
        }
    }

    /// Whether a member is heard that was away, or that has started again since:
    /// it lacks what was written meanwhile.
    fn follow_absence(&mut self) -> bool {
        let snapshot = self.parts.cluster.snapshot();
        let is_heard = |member: &&Member| member.hearing == Hearing::Heard;
        let heard = snapshot.view.roster_members().filter(is_heard);
        let heard = heard.map(|member| (member.id, member.generation)).collect();
        let before = std::mem::replace(&mut self.heard, heard);
        self.heard.difference(&before).next().is_some()
    }

    /// Who should hold copies as things are; `None` without a cluster.
    fn shape(&self) -> Option<Shape> {
        let snapshot = self.parts.cluster.snapshot();
        let view = &snapshot.view;
        view.founded.then(|| Shape::of(view, self.parts.settings.delay, self.now()))
    }

    fn now(&self) -> Moment {
        self.parts.runtime.now()
    }

    /// Looks at names out of turn.
    async fn look_at(&mut self, names: Vec<ObjectName>) {
        let Some(shape) = self.shape.clone() else { return };
        let held = self.parts.store.inspect(&names).await;
        let subject = |(name, held): (_, Result<Option<Held>, _>)| Subject {
            name,
            is_damaged: held.is_ok_and(|held| held.is_some_and(|held| held.is_damaged)),
        };
        let subjects = names.into_iter().zip(held).map(subject).collect();
        let found = self.look.look(subjects, &shape).await;
        if found.unfinished > 0 {
            self.due = self.due.min(self.now() + self.retry);
            self.look.set_unfinished();
        }
    }

    /// One page of the lap.
    async fn go_on(&mut self, mut lap: Lap) {
        let began = self.now();
        let page = self.parts.store.walk(lap.cursor(), PAGE).await;
        let page = match page {
            Ok(page) => page,
            Err(error) => {
                warn!(%error, "repair cannot read the index");
                self.lap = Some(lap);
                self.parts.runtime.sleep(self.parts.gate.window()).await;
                return;
            }
        };
        let names = lap.take_page(page);
        let subjects: Vec<_> = names.into_iter().map(Subject::from).collect();
        let looked_at = subjects.len();
        let found = self.look.look(subjects, lap.shape()).await;
        lap.add(&found);
        self.parts.metrics.set_redundancy(&lap.redundancy(&self.redundancy));
        self.tell(Some(&lap)).await;
        if lap.is_complete() {
            self.end(lap).await;
            return;
        }
        let pause = self.pause(&lap, looked_at, self.now().saturating_sub(began)).await;
        self.lap = Some(lap);
        if !pause.is_zero() {
            self.wait(pause).await;
        }
    }

    /// A slow lap takes about half of the interval; one in a hurry leaves
    /// clients half of the time.
    async fn pause(&self, lap: &Lap, looked_at: usize, took: Duration) -> Duration {
        if lap.is_urgent() {
            return if self.parts.activity.is_busy() { took } else { Duration::ZERO };
        }
        let held = self.held().await.0.max(1);
        let share = looked_at as f64 / held as f64;
        let pause = self.parts.settings.interval.as_secs_f64() / 2.0 * share.min(1.0);
        Duration::from_secs_f64(pause).saturating_sub(took).max(took).min(LONGEST_PAUSE)
    }

    async fn end(&mut self, lap: Lap) {
        let now = self.now();
        let found = lap.found();
        // Who should hold what may have changed while the last names were looked
        // at: then this lap proves nothing.
        let stands = self.shape().as_ref() == Some(lap.shape());
        let has_to_do = found.unfinished > 0 || self.look.is_unfinished();
        self.redundancy = found.redundancy;
        self.parts.metrics.set_redundancy(&self.redundancy);
        self.parts.metrics.on_lap(now.saturating_sub(lap.began()), self.unix_seconds());
        if stands && found.is_proof() {
            self.passed = Some(lap.to_pass());
        }
        // A lap that got something done is followed soon; one that did not, later
        // and later.
        let done = found.done + self.look.take_done();
        if !has_to_do || done > 0 {
            self.retry = self.parts.gate.window();
        }
        if done > 0 {
            self.let_go_again = self.parts.gate.window();
        }
        if has_to_do {
            self.due = now + self.retry;
            self.retry = (self.retry * 2).min(self.parts.settings.interval / 2);
        } else {
            self.due = now + self.parts.settings.interval / 2;
        }
        self.tell(None).await;
    }

    fn unix_seconds(&self) -> f64 {
        Duration::from_millis(self.parts.runtime.unix_millis()).as_secs_f64()
    }

    /// Nothing to do but to look for a cause now and then.
    async fn rest(&self) {
        self.tell(None).await;
        self.wait(self.parts.heartbeat_interval).await;
    }

    /// Waits, but not while there are hints.
    async fn wait(&self, pause: Duration) {
        tokio::select! {
            biased;
            () = self.parts.hints.wait() => {}
            () = self.parts.runtime.sleep(pause.min(self.parts.heartbeat_interval)) => {}
        }
    }

    /// Copies, and their payload bytes. What cannot be told is not few.
    async fn held(&self) -> (u64, u64) {
        let usage = self.parts.store.usage().await;
        usage.map_or((u64::MAX, u64::MAX), |usage| {
            (usage.object_count + usage.tombstone_count, usage.live_bytes)
        })
    }

    async fn tell(&self, lap: Option<&Lap>) {
        let (copies_held, bytes_held) = self.held().await;
        let backlog = lap.map_or(0, |lap| copies_held.saturating_sub(lap.found().looked_at));
        let backlog = backlog + self.parts.hints.count();
        self.parts.metrics.set_backlog(backlog);
        let passed = self.passed.clone();
        self.parts.reporter.set_repair(RepairReport {
            passed,
            backlog,
            copies_held,
            bytes_held,
            ..RepairReport::default()
        });
    }
}
