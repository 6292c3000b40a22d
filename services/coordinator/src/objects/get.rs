//! GET: the newest content of a name.

use std::io;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, FuturesUnordered, StreamExt};
use holdfast_core::locate::{Located, Verdict};
use holdfast_core::membership::Hearing;
use holdfast_core::name::ObjectName;
use holdfast_core::node::{Address, NodeId};
use holdfast_core::object::{Kind, Stat};
use holdfast_http::client::ResponseBody;
use http_body_util::BodyExt;
use tracing::{debug, warn};

use super::Objects;
use super::replicate::hint_repair;
use super::settle::NotSettled;
use crate::data_servers::{DataServerError, GuestRead};
use crate::error::ObjectError;

/// How often a read that breaks in the middle is gone on with.
const ATTEMPTS: u32 = 5;

/// How long a read tries to settle what it found.
const SETTLE_PATIENCE: Duration = Duration::from_secs(5);

/// The largest object that a read settles under a promise. Larger ones take so
/// long that reads would outbid each other: whoever holds them sees to that.
const MOST_PROMISED_BYTES: u64 = 8 << 20;

/// How often it tries without outbidding whoever is in the way.
const PLAIN_ATTEMPTS: u32 = 3;

/// Bytes on their way to the client. An error means that the object could not
/// be read to its end; the connection must then be reset.
pub type ReadStream = BoxStream<'static, io::Result<Bytes>>;

/// The newest content of a name, and who has it.
#[derive(Debug, Clone)]
pub struct Found {
    /// What it is.
    pub stat: Stat,
    /// The members that have it, in the order in which they are to be read from;
    /// at least one.
    pub holders: Vec<Holder>,
}

/// A member that has what is read.
#[derive(Debug, Clone)]
pub struct Holder {
    node: NodeId,
    address: Address,
}

/// The newest content of a name.
#[derive(Debug)]
pub enum Fetched {
    /// Members have it.
    Member(Found),
    /// Only a data server written for the seed has it.
    Guest(GuestRead),
}

impl Objects {
    /// Finds the newest content of a name. What is found is on as many members
    /// as reads count on, so that nobody who reads later finds anything older.
    ///
    /// # Errors
    /// [`ObjectError::NotFound`] when there certainly is none,
    /// [`ObjectError::Incomplete`] when that cannot be told.
    pub async fn find(&self, name: &ObjectName) -> Result<Fetched, ObjectError> {
        let located = self.locate_settled(name).await?;
        match located.verdict() {
            Verdict::Found(replica) => {
                self.forget_superseded(name, &located);
                let stat = replica.stat.clone();
                Ok(Fetched::Member(Found { stat, holders: self.order_holders(&located) }))
            }
            // A tombstone is younger than what a guest may still have.
            Verdict::Absent if located.newest().is_some() => {
                self.forget_superseded(name, &located);
                Err(ObjectError::NotFound)
            }
            Verdict::Absent => match self.read_guest(name).await? {
                Some(guest) => Ok(Fetched::Guest(guest)),
                None => Err(ObjectError::NotFound),
            },
            Verdict::Incomplete(silent) => {
                let founded = self.cluster.snapshot().view.founded;
                if !founded && let Some(guest) = self.read_guest(name).await? {
                    return Ok(Fetched::Guest(guest));
                }
                if silent.is_empty() {
                    return Err(ObjectError::NoDataServers);
                }
                Err(ObjectError::Incomplete { silent: silent.to_vec() })
            }
        }
    }

    /// Locates a name, and has what is found brought to as many members as reads
    /// count on. While a conditional write of the same name is under way, that
    /// may take a few tries; one whose api has died is outbid, since its promise
    /// would be in the way for long.
    ///
    /// # Errors
    /// [`ObjectError::Unsettled`], or why the name could not be located.
    pub(crate) async fn locate_settled(&self, name: &ObjectName) -> Result<Located, ObjectError> {
        self.settle_within(name, self.config.copy_timeout, MOST_PROMISED_BYTES).await
    }

    /// The same for whoever looks after a name, and is alone in that: whatever its
    /// size, where each copy may take as long as `limit`.
    ///
    /// # Errors
    /// [`ObjectError::Unsettled`], or why the name could not be located.
    pub async fn settle(&self, name: &ObjectName, limit: Duration) -> Result<Located, ObjectError> {
        self.settle_within(name, limit, u64::MAX).await
    }

    /// What is larger than `most_promised` is not settled under a promise.
    async fn settle_within(
        &self,
        name: &ObjectName,
        limit: Duration,
        most_promised: u64,
    ) -> Result<Located, ObjectError> {
        let deadline = self.runtime.now() + SETTLE_PATIENCE;
        let (mut ballot, mut turn) = (None, None);
        for attempt in 1_u32.. {
            let located = match ballot {
                None => self.locate(name).await?,
                Some(ballot) => self.locator.promise(name, ballot).await?,
            };
            let shows_above = |ballot| located.shows_above(ballot);
            let outbid = ballot.is_some_and(|ballot| !located.complete || shows_above(ballot));
            if outbid && self.runtime.now() < deadline {
                let _ = self.next_version(&located);
                ballot = None;
                self.pause().await;
                continue;
            }
            let Some(newest) = located.newest() else { return Ok(located) };
            if located.is_certain() || !located.complete {
                return Ok(located);
            }
            let size_bytes = newest.stat.size_bytes;
            let settled = self.write_back(name, &located, ballot, limit).await;
            let Err(error) = settled else { return Ok(located) };
            debug!(%name, %error, "what was found could not be settled yet");
            let needs_promise = error == NotSettled::NeedsPromise || attempt >= PLAIN_ATTEMPTS;
            if needs_promise && size_bytes > most_promised {
                self.leave_to_repair(name, &located);
                return Err(ObjectError::Unsettled);
            }
            // Whoever was promised something may be about to write it.
            self.pause().await;
            let left = deadline.saturating_sub(self.runtime.now());
            if left.is_zero() {
                return Err(ObjectError::Unsettled);
            }
            // Others of this process take turns, and may have settled it meanwhile:
            // it looks once more, also if its own turn did not come.
            if needs_promise && turn.is_none() && limit <= self.config.copy_timeout {
                turn = self.runtime.timeout(left, self.turns.take(name)).await.ok();
                ballot = None;
            } else if needs_promise || ballot.is_some() {
                // Somebody may have what was written back under the last one, which
                // must never name another content.
                ballot = Some(self.next_version(&located));
            }
        }
        Err(ObjectError::Unsettled)
    }

    /// Has a holder settle a name soon.
    fn leave_to_repair(&self, name: &ObjectName, located: &Located) {
        if let Some(holder) = located.newest_holders().next() {
            let hint = hint_repair(self.clone(), name.clone(), holder.node);
            self.runtime.spawn("hint-repair", hint);
        }
    }

    /// Everybody who has the newest version, beginning anywhere, so that readers
    /// spread over them; who shuts down comes last.
    fn order_holders(&self, located: &Located) -> Vec<Holder> {
        let mut holders: Vec<Holder> = located
            .newest_holders()
            .map(|replica| Holder { node: replica.node, address: replica.address.clone() })
            .collect();
        let turn = self.runtime.random_u64() % (holders.len().max(1) as u64);
        holders.rotate_left(usize::try_from(turn).unwrap_or(0));
        let snapshot = self.cluster.snapshot();
        holders.sort_by_key(|holder| {
            let member = snapshot.view.member(holder.node);
            let heard = member.is_some_and(|member| member.hearing == Hearing::Heard);
            // One whose copy is damaged is asked last.
            !heard || !located.answered.contains(&holder.node)
        });
        holders
    }

    /// Reads what [`Self::find`] found: all of it, or a range that lies within
    /// it. `None` when it is not there any more, or its members are not: find it
    /// again.
    ///
    /// # Errors
    /// [`ObjectError::ReadFailed`], [`ObjectError::Damaged`].
    pub async fn read(
        &self,
        name: &ObjectName,
        found: &Found,
        range: Option<Range<u64>>,
    ) -> Result<Option<ReadStream>, ObjectError> {
        let range = range.unwrap_or(0..found.stat.size_bytes);
        if range.is_empty() {
            return Ok(Some(stream::empty().boxed()));
        }
        match self.open_any(name, found, &range).await {
            Ok((index, body)) => Ok(Some(self.read_on(name, found, range, index, body))),
            Err(errors) => self.why_unreadable(name, errors),
        }
    }

    /// Opens the object at the first holder that answers: one after the other,
    /// the next one when the one before it fails or takes its time. Gives the
    /// place of that holder.
    async fn open_any(
        &self,
        name: &ObjectName,
        found: &Found,
        range: &Range<u64>,
    ) -> Result<(usize, ResponseBody), Vec<DataServerError>> {
        let mut waiting = found.holders.iter().enumerate();
        let mut opening = FuturesUnordered::new();
        let mut errors = Vec::new();
        loop {
            if opening.is_empty() {
                let Some((index, holder)) = waiting.next() else { return Err(errors) };
                opening.push(self.open_indexed(index, name, holder, &found.stat, range));
            }
            let hedge = self.runtime.sleep(self.config.hedge_delay);
            tokio::select! {
                biased;
                Some((index, opened)) = opening.next() => match opened {
                    Ok(body) => return Ok((index, body)),
                    Err(error) => {
                        debug!(node = ?found.holders.get(index), %name, %error, "a read did not begin");
                        errors.push(error);
                    }
                },
                () = hedge, if waiting.len() > 0 => {
                    if let Some((index, holder)) = waiting.next() {
                        self.metrics.reads_hedged.inc();
                        opening.push(self.open_indexed(index, name, holder, &found.stat, range));
                    }
                }
            }
        }
    }

    async fn open_indexed(
        &self,
        index: usize,
        name: &ObjectName,
        holder: &Holder,
        stat: &Stat,
        range: &Range<u64>,
    ) -> (usize, Result<ResponseBody, DataServerError>) {
        (index, self.open(name, holder, stat, range.clone()).await)
    }

    /// Whether all that could be read from is gone, which only a new locate
    /// tells, or could not be read.
    fn why_unreadable(
        &self,
        name: &ObjectName,
        errors: Vec<DataServerError>,
    ) -> Result<Option<ReadStream>, ObjectError> {
        let gone = |error: &DataServerError| {
            error.is_not_found() || matches!(error, DataServerError::Client(_))
        };
        if errors.iter().any(gone) {
            return Ok(None);
        }
        let damaged = |error: &DataServerError| matches!(error, DataServerError::Refused { code, .. } if code == "damaged");
        if !errors.is_empty() && errors.iter().all(damaged) {
            return Err(ObjectError::Damaged);
        }
        warn!(%name, errors = ?errors, "an object could not be read");
        Err(ObjectError::ReadFailed)
    }

    async fn open(
        &self,
        name: &ObjectName,
        holder: &Holder,
        stat: &Stat,
        range: Range<u64>,
    ) -> Result<ResponseBody, DataServerError> {
        let Holder { node, address } = holder;
        let whole = range == (0..stat.size_bytes);
        let range = (!whole).then_some(range);
        let limit = self.config.read_timeout;
        let start =
            self.data_servers.read(address, *node, name, stat.written_as(), range, limit).await?;
        if same_content(&start.stat, stat) {
            Ok(start.body)
        } else {
            Err(DataServerError::BadAnswer { what: "the stat header" })
        }
    }

    /// Passes a body on; when it breaks, goes on at the same byte of the same
    /// version, at another holder first.
    fn read_on(
        &self,
        name: &ObjectName,
        found: &Found,
        range: Range<u64>,
        index: usize,
        body: ResponseBody,
    ) -> ReadStream {
        let mut holders = found.holders.clone();
        let first = index.min(holders.len());
        holders.rotate_left(first);
        let reading = Reading {
            objects: self.clone(),
            name: name.clone(),
            stat: found.stat.clone(),
            holders,
            rest: range,
            body,
            attempts: ATTEMPTS,
        };
        let stream = stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await?.map(|chunk| (chunk, reading)))
        });
        stream.boxed()
    }
}

fn same_content(found: &Stat, expected: &Stat) -> bool {
    found.kind == Kind::Object
        && found.written_as() == expected.written_as()
        && found.size_bytes == expected.size_bytes
        && found.digest == expected.digest
}

struct Reading {
    objects: Objects,
    name: ObjectName,
    stat: Stat,
    /// Who is read from comes first.
    holders: Vec<Holder>,
    /// What has not been passed on yet.
    rest: Range<u64>,
    body: ResponseBody,
    /// How often others may still be asked without any byte in between.
    attempts: u32,
}

impl Reading {
    async fn next(&mut self) -> io::Result<Option<Bytes>> {
        while !self.rest.is_empty() {
            match self.frame().await {
                Ok(chunk) if chunk.is_empty() => {}
                Ok(chunk) => {
                    let left = usize::try_from(self.rest.end - self.rest.start);
                    let chunk = chunk.slice(..chunk.len().min(left.unwrap_or(usize::MAX)));
                    self.rest.start += chunk.len() as u64;
                    // It goes on: that of a large object may take many restarts.
                    self.attempts = ATTEMPTS;
                    return Ok(Some(chunk));
                }
                Err(cause) => self.go_on(&cause).await?,
            }
        }
        Ok(None)
    }

    async fn frame(&mut self) -> Result<Bytes, String> {
        let limit = self.objects.config.body_timeout;
        match self.objects.runtime.timeout(limit, self.body.frame()).await {
            Ok(Some(Ok(frame))) => Ok(frame.into_data().unwrap_or_default()),
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(None) => Err("the answer ended early".to_owned()),
            Err(elapsed) => Err(elapsed.to_string()),
        }
    }

    async fn go_on(&mut self, cause: &str) -> io::Result<()> {
        let continued = &self.objects.metrics.reads_continued;
        let broken = self.holders.first().map(|holder| holder.node);
        while self.attempts > 0 && !self.holders.is_empty() {
            self.attempts -= 1;
            debug!(node = ?broken, %cause, offset = self.rest.start, "a read broke");
            // The others first: who broke may be gone.
            self.holders.rotate_left(1);
            let Some(holder) = self.holders.first() else { break };
            match self.objects.open(&self.name, holder, &self.stat, self.rest.clone()).await {
                Ok(body) => {
                    self.body = body;
                    continued.with_label_values(&["ok"]).inc();
                    return Ok(());
                }
                Err(error) if error.is_not_found() => {
                    // It has something newer. The others may have kept this.
                    self.holders.remove(0);
                    let back = usize::from(!self.holders.is_empty());
                    self.holders.rotate_right(back);
                }
                Err(_) => {
                    let pause = self.objects.runtime.jittered(Duration::from_millis(200));
                    self.objects.runtime.sleep(pause).await;
                }
            }
        }
        continued.with_label_values(&["error"]).inc();
        let name = &self.name;
        warn!(node = ?broken, %name, offset = self.rest.start, %cause, "a read could not be continued");
        Err(io::Error::new(io::ErrorKind::UnexpectedEof, cause.to_owned()))
    }
}
