//! One version to as many members as are to have it.
//!
//! The first R members of a list are sent to at once. Whoever refuses, breaks
//! or stalls is replaced by the next one, under the same version: the same
//! bytes on one member more do no harm. Once W of them have it, the answer is
//! known, and what is still under way goes on in the background.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use holdfast_core::electorate::Electorate;
use holdfast_core::membership::{Member, View};
use holdfast_core::name::ObjectName;
use holdfast_core::node::NodeId;
use holdfast_core::quorum::{Progress, Purpose, Reply, Tally};
use holdfast_core::stamp::Stamp;
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::{RepairHint, WriteAnswer, WriteOutcome};
use tracing::{debug, warn};

use super::Objects;
use crate::data_servers::DataServerError;
use crate::error::ObjectError;

/// How long a member may keep a write waiting before another one is asked as
/// well.
const STALL: Duration = Duration::from_secs(1);

/// A member that a version may be sent to, with its stamp in the locate that the
/// write builds on.
#[derive(Debug, Clone)]
pub(super) struct Recipient {
    pub(super) member: Member,
    pub(super) stamp: Stamp,
}

/// Sends the version to one member.
pub(super) type Send = Arc<
    dyn Fn(Recipient) -> BoxFuture<'static, Result<WriteAnswer, DataServerError>>
        + Sync
        + std::marker::Send,
>;

/// What is sent, to whom.
pub(super) struct Replication {
    pub(super) name: ObjectName,
    pub(super) version: Version,
    pub(super) purpose: Purpose,
    /// Best first.
    pub(super) recipients: Vec<Recipient>,
    /// How many of them are to have it.
    pub(super) copies: usize,
    /// Who has it already.
    pub(super) holders: Vec<NodeId>,
    /// Whether who keeps it waiting for long is replaced.
    pub(super) replaces_stalled: bool,
    pub(super) send: Send,
}

/// Why a version is not acknowledged.
#[derive(Debug)]
pub(super) enum Failure {
    /// It is certain that nobody has it.
    Nothing(ObjectError),
    /// The same: it was found, and who was to take it may have promised not to.
    NeedsPromise,
    /// Somebody may have it.
    Unknown,
}

impl From<Failure> for ObjectError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Nothing(error) => error,
            Failure::NeedsPromise => Self::Unsettled,
            Failure::Unknown => Self::OutcomeUnknown,
        }
    }
}

type Sent = (NodeId, Result<Reply, DataServerError>);
type InFlight = FuturesUnordered<BoxFuture<'static, Sent>>;

struct Run {
    objects: Objects,
    replication: Replication,
    waiting: std::vec::IntoIter<Recipient>,
    in_flight: InFlight,
    tally: Tally,
    /// What the last one said that refused.
    refusal: Option<ObjectError>,
    needs_promise: bool,
    voters: Voters,
}

/// The voters of a name, as of the electorate that was seen last: they are asked
/// for with each answer.
#[derive(Default)]
struct Voters(Option<(Arc<Electorate>, Vec<NodeId>)>);

impl Voters {
    fn refresh(&mut self, view: &View, name: &ObjectName) -> Option<&[NodeId]> {
        if self.0.as_ref().map(|(seen, _)| seen) != view.electorate.as_ref() {
            let voters = |now: &Arc<Electorate>| (Arc::clone(now), now.voters(name));
            self.0 = view.electorate.as_ref().map(voters);
        }
        self.0.as_ref().map(|(_, voters)| voters.as_slice())
    }
}

/// Who is sent to next. Once as many have a version, or are about to, as are to
/// have it, only one that counts: more of the others would acknowledge nothing.
fn next_recipient<T>(
    waiting: &mut std::vec::IntoIter<T>,
    is_enough: bool,
    counts: impl Fn(&T) -> bool,
) -> Option<T> {
    let place = waiting.as_slice().iter().position(|to| !is_enough || counts(to))?;
    let mut left: Vec<T> = waiting.collect();
    let next = left.remove(place);
    *waiting = left.into_iter();
    Some(next)
}

impl Objects {
    /// Sends a version until W members have it, and goes on in the background
    /// until as many as wanted do. Gives the members that said so. Dropping the future leaves it open whether
    /// the write happens.
    ///
    /// # Errors
    /// [`Failure`].
    pub(super) async fn replicate(
        &self,
        mut replication: Replication,
    ) -> Result<Vec<NodeId>, Failure> {
        let mut tally = Tally::new(replication.purpose);
        replication.holders.iter().for_each(|holder| tally.apply(*holder, Reply::Stored));
        let waiting = std::mem::take(&mut replication.recipients).into_iter();
        let run = Run {
            objects: self.clone(),
            replication,
            waiting,
            in_flight: FuturesUnordered::new(),
            tally,
            refusal: None,
            needs_promise: false,
            voters: Voters::default(),
        };
        run.run().await
    }
}

impl Run {
    async fn run(mut self) -> Result<Vec<NodeId>, Failure> {
        let has = self.replication.holders.len();
        for _ in has..self.replication.copies {
            self.send_to_next();
        }
        let runtime = self.objects.runtime.clone();
        let mut stall = runtime.sleep(STALL);
        while self.progress() == Progress::Open {
            tokio::select! {
                biased;
                sent = self.in_flight.next() => match sent {
                    Some(sent) => self.on_sent(sent),
                    None => return Err(self.failure()),
                },
                () = &mut stall => {
                    // Everybody who has not answered yet is slow; one more for
                    // each acknowledgement that is missing.
                    self.replace_stalled();
                    stall = runtime.sleep(STALL);
                }
            }
            if self.progress() == Progress::Open
                && self.in_flight.is_empty()
                && !self.send_to_next()
            {
                return Err(self.failure());
            }
        }
        let holders = self.tally.holders().collect();
        self.finish_in_background();
        Ok(holders)
    }

    fn progress(&mut self) -> Progress {
        let snapshot = self.objects.cluster.snapshot();
        let view = &snapshot.view;
        let voters = self.voters.refresh(view, &self.replication.name);
        self.tally.progress(view.policy.write_quorum(), |node| view.counts_among(voters, node))
    }

    fn send_to_next(&mut self) -> bool {
        let is_enough = self.in_flight.len() + self.holders() >= self.replication.copies;
        let snapshot = self.objects.cluster.snapshot();
        let view = &snapshot.view;
        let voters = self.voters.refresh(view, &self.replication.name);
        let counts = |to: &Recipient| view.counts_among(voters, to.member.id);
        let next = next_recipient(&mut self.waiting, is_enough, counts);
        let Some(recipient) = next else { return false };
        let sent = (self.replication.send)(recipient.clone());
        let objects = self.objects.clone();
        self.in_flight.push(Box::pin(async move {
            let reply = match sent.await {
                // What it takes to understand one answer holds no other one up.
                Ok(answer) => Ok(reply_of(&objects, &recipient, answer).await),
                Err(error) => Err(error),
            };
            (recipient.member.id, reply)
        }));
        true
    }

    /// With one copy the slow member is waited for: a second copy would have to
    /// be found and removed later.
    fn replace_stalled(&mut self) {
        let replaces = self.replication.copies > 1 && self.replication.replaces_stalled;
        if replaces && self.send_to_next() {
            self.objects.metrics.stalled.inc();
            debug!(name = %self.replication.name, "a write stalls: one more data server is asked");
        }
    }

    fn on_sent(&mut self, (node, reply): Sent) {
        let reply = match reply {
            Ok(reply) => reply,
            // Somebody else was first, or this took too long: it is tried anew.
            Err(error) if error.is_outpaced() => {
                debug!(%node, name = %self.replication.name, %error, "a write came too late");
                self.needs_promise |= error.needs_promise();
                Reply::Refused
            }
            Err(error) if error.changed_nothing() => {
                warn!(%node, name = %self.replication.name, version = %self.replication.version, %error, "a data server refused a write");
                self.refusal = Some(match error.is_no_space() {
                    true => ObjectError::NoSpace,
                    false => ObjectError::WriteFailed,
                });
                Reply::Refused
            }
            Err(error) => {
                warn!(%node, name = %self.replication.name, version = %self.replication.version, %error, "a data server did not confirm a write");
                Reply::Unknown
            }
        };
        self.tally.apply(node, reply);
        if !matches!(reply, Reply::Stored | Reply::Superseded { .. }) {
            self.send_to_next();
        }
    }

    fn failure(&mut self) -> Failure {
        if self.needs_promise && self.replication.purpose == Purpose::WriteBack {
            return Failure::NeedsPromise;
        }
        let operation = match self.replication.purpose {
            Purpose::Write => "write",
            Purpose::Conditional => "conditional",
            Purpose::WriteBack => "write-back",
        };
        self.objects.metrics.quorum_failures.with_label_values(&[operation]).inc();
        if self.tally.changed_nothing() || self.replication.purpose == Purpose::WriteBack {
            Failure::Nothing(self.refusal.take().unwrap_or(ObjectError::WriteFailed))
        } else {
            Failure::Unknown
        }
    }

    /// Brings the rest of the copies to their end. What fails is made up for by
    /// repair, which a holder is asked to begin at once.
    fn finish_in_background(mut self) {
        if self.holders() >= self.replication.copies {
            return;
        }
        let runtime = self.objects.runtime.clone();
        runtime.spawn("replicate-rest", async move {
            while let Some(sent) = self.in_flight.next().await {
                self.on_sent(sent);
            }
            if self.holders() < self.replication.copies
                && let Some(holder) = self.tally.holders().next()
            {
                let Self { objects, replication, .. } = self;
                hint_repair(objects, replication.name, holder).await;
            }
        });
    }

    fn holders(&self) -> usize {
        self.tally.holders().count()
    }
}

pub(super) async fn hint_repair(objects: Objects, name: ObjectName, holder: NodeId) {
    let snapshot = objects.cluster.snapshot();
    let Some(Member { id, address, .. }) = snapshot.view.member(holder) else { return };
    let (hint, limit) = (RepairHint { names: vec![name.clone()] }, objects.config.read_timeout);
    // Repair would find it by itself, later.
    if let Err(error) = objects.data_servers.hint_repair(address, *id, &hint, limit).await {
        debug!(node = %id, %name, %error, "a hint to repair was lost");
    }
}

/// Whoever answers may know of a member that counts no more. That is found out
/// before its answer is counted.
async fn reply_of(objects: &Objects, recipient: &Recipient, answer: WriteAnswer) -> Reply {
    let Recipient { member, .. } = recipient;
    let (address, digest) = (member.address.clone(), answer.roster_digest);
    if !objects.cluster.include(member.id, address, digest).await {
        return Reply::Unknown;
    }
    match answer.outcome {
        WriteOutcome::Stored | WriteOutcome::AlreadyStored => Reply::Stored,
        WriteOutcome::Superseded { promised_above, .. } => Reply::Superseded { promised_above },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_count_only_fills_up_the_copies() {
        let counts = |to: &u32| *to < 10;
        let mut waiting = vec![10, 1, 11, 2].into_iter();
        assert_eq!(next_recipient(&mut waiting, true, counts), Some(1));
        assert_eq!(next_recipient(&mut waiting, false, counts), Some(10), "it was not lost");
        assert_eq!(next_recipient(&mut waiting, true, counts), Some(2));
        assert_eq!(next_recipient(&mut waiting, true, counts), None);
        assert_eq!(next_recipient(&mut waiting, false, counts), Some(11));
    }
}
