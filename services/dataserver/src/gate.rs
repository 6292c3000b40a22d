//! The gate: the only way by which this data server changes anything about a
//! name, promises anything about it, or lets go of it.
//!
//! It holds what others rely on: the age of what a request builds on, promises,
//! pins and the floor. Each decision about a name and the change that follows
//! from it are one step: no promise is given, and no copy is dropped or pinned,
//! between the moment at which a write is let in and the moment at which it is
//! durable. Writes of one name do run side by side; between them the store
//! decides.

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_core::membership::Moment;
use holdfast_core::name::ObjectName;
use holdfast_core::node::{Generation, NodeId};
use holdfast_core::object::{Kind, Stat};
use holdfast_core::replica::{MustStay, Offered, Pins, PromisedAbove, Promises};
use holdfast_core::stamp::{Stamp, StampError, window};
use holdfast_core::version::{TooFarAhead, Version};
use holdfast_core::wire::transfer::{PinRequest, WriteOutcome};
use holdfast_runtime::{Runtime, Task};
use holdfast_store::{Held, PutOutcome, Staged, Stamp as Content, Store, StoreError};
use thiserror::Error;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tracing::{Instrument, Span, debug, warn};

use crate::floor::Floor;
use crate::identity::IdentityError;
use crate::metrics::DataServerMetrics;
use crate::name_locks::NameLocks;
use crate::superseded::Superseded;

/// How long a promise waits for what was promised to another writer before, and
/// in how many steps. Well below the patience of those who ask for promises; by
/// steps, so that it ends whatever the clock does.
const COURTESY: Duration = Duration::from_millis(50);
const COURTESY_STEPS: u32 = 10;

/// Writes that may be under way at once, those included whose senders have gone: up
/// to 128 KiB of each are in memory. More than the clients of one data server have
/// connections, by default.
const MAX_WRITES: usize = 2_048;

/// Why the gate did not let a request through.
#[derive(Debug, Error)]
pub enum GateError {
    /// It builds on an answer that counts no more.
    #[error(transparent)]
    Stale(#[from] StampError),
    /// A promise stands in its way.
    #[error(transparent)]
    Promised(#[from] PromisedAbove),
    /// Its version lies too far ahead.
    #[error(transparent)]
    Ahead(#[from] TooFarAhead),
    /// The floor could not be raised: nothing was changed.
    #[error(transparent)]
    Floor(#[from] IdentityError),
    /// The volume refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// As many writes are under way as may be.
    #[error("too many writes are under way: the disk does not keep up")]
    Busy,
}

/// What a write builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Basis {
    /// This data server's stamp in the answer that the write builds on. Whether
    /// one may be missing, whoever takes the request decides.
    pub stamp: Option<Stamp>,
    /// How it comes to be offered.
    pub offered: Offered,
}

/// What came of asking for a promise.
#[derive(Debug)]
pub struct Promised {
    /// What is there, looked up in the same step.
    pub held: Result<Option<Held>, StoreError>,
    /// Whether it was promised to take nothing older than the ballot.
    pub is_given: bool,
}

/// What became of a copy that was let go of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropEnd {
    /// It is gone.
    Dropped,
    /// Something else is here by now.
    NotHere,
    /// It stays: too much time has passed, or too little.
    TooLate,
}

/// What the gate is made of.
#[derive(Debug)]
pub struct GateParts {
    /// The seam.
    pub runtime: Runtime,
    /// The volume.
    pub store: Arc<dyn Store>,
    /// This run.
    pub generation: Generation,
    /// How often others are heard; the window follows from it.
    pub heartbeat_interval: Duration,
    /// The volume's floor.
    pub floor: Floor,
    /// Where it is counted.
    pub metrics: DataServerMetrics,
}

/// See the module. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    runtime: Runtime,
    store: Arc<dyn Store>,
    generation: Generation,
    window: Duration,
    floor: Floor,
    metrics: DataServerMetrics,
    locks: NameLocks,
    promises: Arc<Mutex<Promises>>,
    pins: Arc<Mutex<Pins>>,
    superseded: Superseded,
    writes: Arc<Semaphore>,
}

impl Gate {
    /// A gate that has promised nothing yet, in a run that begins now.
    #[must_use]
    pub fn new(parts: GateParts) -> Self {
        let GateParts { runtime, store, generation, heartbeat_interval, floor, metrics } = parts;
        let window = window(heartbeat_interval);
        let pins = Pins::new(window, runtime.now());
        let forgotten = floor.promised();
        Self {
            runtime,
            store,
            generation,
            window,
            floor,
            metrics,
            locks: NameLocks::default(),
            promises: Arc::new(Mutex::new(Promises::new(window, forgotten))),
            pins: Arc::new(Mutex::new(pins)),
            superseded: Superseded::default(),
            writes: Arc::new(Semaphore::new(MAX_WRITES)),
        }
    }

    /// How long a message may be under way and still count.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.window
    }

    /// The highest version that this member ever took or promised.
    #[must_use]
    pub fn floor(&self) -> Option<Version> {
        self.floor.get()
    }

    /// The highest version that this run may have promised for each name, if nothing
    /// came of it here; in the order of the names.
    #[must_use]
    pub fn may_have_promised(&self, names: &[ObjectName]) -> Vec<Option<Version>> {
        let promises = self.promises();
        names.iter().map(|name| promises.may_have_promised(name)).collect()
    }

    /// The highest version that earlier runs may have promised, for whichever name.
    #[must_use]
    pub fn promised_before(&self) -> Option<Version> {
        self.promises().by_earlier_runs()
    }

    /// Judges a stamp that came back.
    ///
    /// # Errors
    /// [`StampError`]; what came with it must have no effect.
    pub fn check_stamp(&self, stamp: Stamp) -> Result<(), StampError> {
        stamp.check(self.generation, self.runtime.now(), self.window)
    }

    /// Whether a write would be let in now. It is asked again when the write is
    /// made; this saves the work in front of it.
    ///
    /// # Errors
    /// [`GateError`], but for [`GateError::Floor`] and [`GateError::Store`].
    pub fn check(
        &self,
        name: &ObjectName,
        version: Version,
        basis: Basis,
    ) -> Result<(), GateError> {
        version.check_not_ahead(self.runtime.unix_millis())?;
        if let Some(stamp) = basis.stamp {
            self.check_stamp(stamp).inspect_err(|_| self.metrics.stale_stamps.inc())?;
        }
        let allowed = self.promises().check(name, version, basis.offered, self.now());
        Ok(allowed.inspect_err(|_| self.metrics.promise_refusals.inc())?)
    }

    /// Makes a staged payload the content of `name`, if it is newer than what is
    /// there. Durable when this returned `Ok`. Dropping the future leaves it open
    /// whether the write happens, but no promise is given in the meantime.
    ///
    /// # Errors
    /// [`GateError`]; only after [`GateError::Store`] anything may have changed.
    pub async fn commit(
        &self,
        name: ObjectName,
        basis: Basis,
        content: Content,
        staged: Box<dyn Staged>,
    ) -> Result<WriteOutcome, GateError> {
        self.commit_taken(name, basis, content, async { Ok(staged) }).await
    }

    /// As [`Self::commit`], of a payload that is taken from where it waits once
    /// nothing stands in its way any more: what is refused stays there, and can be
    /// offered again.
    ///
    /// # Errors
    /// As [`Self::commit`], and those of `taken`; then nothing was changed.
    pub async fn commit_taken<E: From<GateError> + Send + 'static>(
        &self,
        name: ObjectName,
        basis: Basis,
        content: Content,
        taken: impl Future<Output = Result<Box<dyn Staged>, E>> + Send + 'static,
    ) -> Result<WriteOutcome, E> {
        let gate = self.clone();
        let permit = self.admit()?;
        self.to_its_end("gate-commit", async move {
            let _permit = permit;
            let version = content.version;
            let _turn = gate.locks.share(&name).await;
            gate.check(&name, version, basis)?;
            gate.floor.raise(version).await.map_err(GateError::from)?;
            let staged = taken.await?;
            let outcome = gate.store.commit(name.clone(), content, staged).await;
            let outcome = outcome.map_err(GateError::from)?;
            gate.promises().came(&name, version);
            Ok(gate.outcome(&name, version, outcome))
        })
        .await
    }

    /// A write goes on when its sender has gone, and keeps its payload: not for any
    /// number of them, while the disk hangs.
    fn admit(&self) -> Result<OwnedSemaphorePermit, GateError> {
        Arc::clone(&self.writes).try_acquire_owned().map_err(|_| GateError::Busy)
    }

    /// Makes a tombstone the content of `name`, as [`Self::commit`] does with a
    /// payload.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub async fn delete(
        &self,
        name: ObjectName,
        basis: Basis,
        content: Content,
    ) -> Result<WriteOutcome, GateError> {
        let gate = self.clone();
        let permit = self.admit()?;
        self.to_its_end("gate-delete", async move {
            let _permit = permit;
            let version = content.version;
            let _turn = gate.locks.share(&name).await;
            gate.check(&name, version, basis)?;
            gate.floor.raise(version).await?;
            let outcome = gate.store.delete(name.clone(), content).await?;
            gate.promises().came(&name, version);
            Ok(gate.outcome(&name, version, outcome))
        })
        .await
    }

    /// Forgets exactly `version` of `name` in a window from now, because a newer
    /// one is durable elsewhere; if something else is here by then, that is kept.
    /// `on_end` is told whether that went well. False when it is to be forgotten
    /// anyway, or too many are; then `on_end` is told nothing.
    ///
    /// Within the window somebody who asked another member before that one had
    /// the newer version may still ask this one: whoever finds neither takes the
    /// name for absent. A restart forgets it; repair finds it again.
    pub fn forget_later(
        &self,
        name: ObjectName,
        version: Version,
        on_end: impl FnOnce(bool) + Send + 'static,
    ) -> bool {
        if !self.superseded.begin(&name, version) {
            return false;
        }
        let gate = self.clone();
        self.runtime.spawn("forget-superseded", async move {
            gate.runtime.sleep(gate.window).await;
            let turn = gate.locks.share(&name).await;
            let forgotten = gate.store.forget(&name, version).await;
            if let Err(error) = &forgotten {
                debug!(key = %name, %version, %error, "a superseded copy was not forgotten");
            }
            drop(turn);
            gate.superseded.end(&name, version);
            on_end(forgotten.is_ok());
        });
        true
    }

    /// Looks `name` up, and promises to take nothing below `ballot` for it if
    /// nothing at or above it is there or promised. The floor is raised first,
    /// so that a restart, which forgets promises, does not forget this.
    ///
    /// A conditional write that was promised something lately may land first: two
    /// writers would else outbid each other in turn.
    ///
    /// Cancel safe; a promise of which nobody hears ends by itself.
    pub async fn promise(&self, name: &ObjectName, ballot: Version) -> Promised {
        self.let_land(name, ballot).await;
        let _turn = self.locks.alone(name).await;
        let mut all_held = self.store.inspect(std::slice::from_ref(name)).await;
        let held = all_held.pop().unwrap_or(Err(StoreError::WorkLost));
        let is_given = match &held {
            Ok(held) => self.give(name, ballot, held.as_ref().map(|it| it.stat.version)).await,
            Err(_) => false,
        };
        Promised { held, is_given }
    }

    async fn let_land(&self, name: &ObjectName, ballot: Version) {
        for _ in 0..COURTESY_STEPS {
            if !self.promises().is_awaited(name, ballot, COURTESY, self.now()) {
                return;
            }
            self.runtime.sleep(COURTESY / COURTESY_STEPS).await;
        }
    }

    async fn give(&self, name: &ObjectName, ballot: Version, held: Option<Version>) -> bool {
        let is_outranked = held.is_some_and(|held| held >= ballot);
        if is_outranked || ballot.check_not_ahead(self.runtime.unix_millis()).is_err() {
            return false;
        }
        if let Err(error) = self.floor.promise(ballot).await {
            warn!(%error, "no promise was given, since the floor could not be raised");
            return false;
        }
        let mut promises = self.promises();
        let given = promises.promise(name, ballot, held, self.now());
        self.metrics.set_promises(promises.count());
        given.is_ok()
    }

    /// At least every version that this run and earlier ones have promised.
    #[must_use]
    pub fn promised(&self) -> Option<Version> {
        self.floor.given()
    }

    /// Bars what others have promised to take no more before they knew of this
    /// member: what is written below `promised`, and what may have been missed.
    /// Durable when this returned `Ok`. Cancel safe.
    ///
    /// # Errors
    /// [`GateError::Floor`].
    pub async fn inherit(&self, promised: Version) -> Result<(), GateError> {
        self.floor.promise(promised).await?;
        self.promises().inherit(promised);
        Ok(())
    }

    /// Agrees that the tombstone `version` of `name` may be forgotten: nothing
    /// older is here, and nothing older is taken from now on. The floor is raised
    /// first, so that whatever is written later goes above the tombstone, also
    /// when nobody remembers it. Cancel safe.
    pub async fn agree_to_collect(&self, name: &ObjectName, version: Version) -> bool {
        let _turn = self.locks.alone(name).await;
        let held = self.store.stat(std::slice::from_ref(name)).await.pop();
        let nothing_else = match held {
            Some(Ok(None)) => true,
            Some(Ok(Some(stat))) => stat.version == version && stat.kind == Kind::Tombstone,
            // What cannot be read may be older.
            Some(Err(_)) | None => false,
        };
        if !nothing_else {
            return false;
        }
        if let Err(error) = self.floor.raise(version).await {
            warn!(%error, "a tombstone stays, since the floor could not be raised");
            return false;
        }
        let mut promises = self.promises();
        let barred = promises.bar(name, version, self.now());
        self.metrics.set_promises(promises.count());
        barred.is_ok()
    }

    /// Forgets the tombstone `version` of `name`, if this run still takes nothing
    /// older. False when it stays. Dropping the future does not stop it.
    ///
    /// # Errors
    /// [`GateError::Store`].
    pub async fn collect(&self, name: ObjectName, version: Version) -> Result<bool, GateError> {
        let gate = self.clone();
        self.to_its_end("gate-collect", async move {
            let _turn = gate.locks.alone(&name).await;
            if !gate.promises().bars(&name, version, gate.now()) {
                return Ok(false);
            }
            gate.store.forget(&name, version).await?;
            Ok(true)
        })
        .await
    }

    /// Pins what is asked for: gives the places of the copies that are here in
    /// that version or a newer one, can be read as far as is known, and stay
    /// until the pin ends. Cancel safe; a pin of which nobody hears ends by
    /// itself.
    pub async fn pin(&self, request: &PinRequest) -> Vec<u32> {
        let asker = (request.node, request.generation);
        let mut pinned = Vec::new();
        for (index, (name, version)) in (0u32..).zip(&request.copies) {
            if self.pin_one(name, *version, asker).await {
                pinned.push(index);
            }
        }
        self.metrics.set_pins(self.pins().count());
        pinned
    }

    async fn pin_one(
        &self,
        name: &ObjectName,
        version: Version,
        asker: (NodeId, Generation),
    ) -> bool {
        let _turn = self.locks.alone(name).await;
        let held = self.store.inspect(std::slice::from_ref(name)).await.pop();
        let held = held.and_then(Result::ok).flatten().filter(|held| !held.is_damaged);
        let held = held.map(|held| held.stat.version);
        self.pins().pin(name, version, held, asker, self.now()).is_ok()
    }

    /// Begins to let go of the copy of `name`: from now on no pins are given for
    /// it. To be followed by [`Self::drop_if`] or [`Self::keep`].
    ///
    /// # Errors
    /// [`MustStay`].
    pub fn begin_let_go(&self, name: &ObjectName) -> Result<(), MustStay> {
        self.pins().begin(name, self.now())
    }

    /// Drops exactly `version` of `name`, which this member began to let go of,
    /// if it may: the window has passed until `confirmed_at`, when the second
    /// round of pins was asked for, and not again since. Ends letting go,
    /// whatever comes of it. Dropping the future does not stop it.
    ///
    /// # Errors
    /// [`GateError::Store`].
    pub async fn drop_if(
        &self,
        name: ObjectName,
        version: Version,
        confirmed_at: Moment,
    ) -> Result<DropEnd, GateError> {
        let gate = self.clone();
        self.to_its_end("gate-drop", async move {
            let _turn = gate.locks.alone(&name).await;
            let may_drop = gate.pins().may_drop(&name, confirmed_at, gate.now());
            let let_go = match may_drop {
                false => Ok(DropEnd::TooLate),
                true => gate.store.forget(&name, version).await.map(|dropped| match dropped {
                    true => DropEnd::Dropped,
                    false => DropEnd::NotHere,
                }),
            };
            gate.keep(&name);
            Ok(let_go?)
        })
        .await
    }

    /// Ends letting go of the copy of `name`, which stays.
    pub fn keep(&self, name: &ObjectName) {
        self.pins().end(name);
    }

    /// Forgets promises and pins that have ended, until the task is aborted.
    #[must_use]
    pub fn start_sweeper(&self) -> Task {
        let gate = self.clone();
        self.runtime.spawn("gate-sweeper", async move {
            loop {
                gate.runtime.sleep(gate.window).await;
                gate.sweep();
            }
        })
    }

    fn sweep(&self) {
        let now = self.now();
        let (mut promises, mut pins) = (self.promises(), self.pins());
        promises.expire(now);
        pins.expire(now);
        self.metrics.set_promises(promises.count());
        self.metrics.set_pins(pins.count());
    }

    fn outcome(&self, name: &ObjectName, version: Version, outcome: PutOutcome) -> WriteOutcome {
        match outcome {
            PutOutcome::Stored => WriteOutcome::Stored,
            PutOutcome::AlreadyStored => WriteOutcome::AlreadyStored,
            PutOutcome::Superseded { newest } => self.superseded(name, version, newest),
        }
    }

    /// What is told of a version that is older than what is here.
    #[must_use]
    pub fn superseded(&self, name: &ObjectName, version: Version, newest: Stat) -> WriteOutcome {
        let promised_above = self.promises().is_above(name, version, self.now());
        WriteOutcome::Superseded { newest, promised_above }
    }

    /// Works to the end also when the caller gives up: what the store has begun
    /// it ends, and the turn must last as long.
    async fn to_its_end<T: Send + 'static, E: From<GateError> + Send + 'static>(
        &self,
        task: &'static str,
        work: impl Future<Output = Result<T, E>> + Send + 'static,
    ) -> Result<T, E> {
        let (done, result) = oneshot::channel();
        let work = work.instrument(Span::current());
        self.runtime.spawn(task, async move {
            // Nobody may wait for it any more.
            let _ = done.send(work.await);
        });
        result.await.unwrap_or_else(|_| Err(GateError::Store(StoreError::WorkLost).into()))
    }

    fn now(&self) -> Moment {
        self.runtime.now()
    }

    fn promises(&self) -> MutexGuard<'_, Promises> {
        self.promises.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pins(&self) -> MutexGuard<'_, Pins> {
        self.pins.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
