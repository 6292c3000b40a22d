//! Bringing a version that was found to as many members as reads count on,
//! before anybody is told of it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use holdfast_core::locate::Located;
use holdfast_core::name::ObjectName;
use holdfast_core::node::NodeId;
use holdfast_core::quorum::Purpose;
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::CopyRequest;
use thiserror::Error;

use super::Objects;
use super::replicate::{Failure, Recipient, Replication, Send};
use super::target::{Targets, choose_targets};

impl Objects {
    /// Writes the newest version that `located` found to W members, tombstones
    /// too. Else one read could see it, and the next one, which hears other
    /// members, something older. Each copy may take as long as `limit`.
    ///
    /// With `ballot`, a version that `located` has promises of, it is settled under
    /// that. So it is above whatever was judged without it, and is on a member that
    /// was not heard. Those that have it take it once more, since what counts is
    /// under which version they have it.
    ///
    /// # Errors
    /// [`NotSettled`]: it must not be shown.
    pub(super) async fn write_back(
        &self,
        name: &ObjectName,
        located: &Located,
        ballot: Option<Version>,
        limit: Duration,
    ) -> Result<(), NotSettled> {
        let Some(newest) = located.newest() else { return Ok(()) };
        if ballot.is_some_and(|ballot| located.shows_above(ballot)) {
            return Err(NotSettled::Failed);
        }
        if ballot.is_none() && located.may_be_missed() {
            return Err(NotSettled::NeedsPromise);
        }
        let found = newest.stat.clone();
        // Whatever it was settled as meanwhile, too.
        let held_as = ballot.map(|_| found.written_as());
        let stat = ballot.map_or_else(|| found.clone(), |ballot| found.settled_as(ballot));
        let is_settled = ballot.is_none() && located.is_accepted;
        let snapshot = self.cluster.snapshot();
        let view = &snapshot.view;
        let mut from: Vec<NodeId> = located.newest_holders().map(|holder| holder.node).collect();
        let readable = |node: &NodeId| located.answered.contains(node);
        let counts = view.counting(name);
        let holders: Vec<NodeId> =
            from.iter().copied().filter(|holder| counts(*holder) && readable(holder)).collect();
        let holders = if ballot.is_none() { holders } else { Vec::new() };
        // Stable: good copies first.
        from.sort_by_key(|node| !readable(node));
        let recipients = match choose_targets(view, located, name, stat.size_bytes) {
            Ok(Targets::Members(members)) => {
                members.into_iter().filter(|to| !holders.contains(&to.member.id)).collect()
            }
            // There may be nobody else to take it: what is missing then is told
            // below.
            Ok(Targets::Guests) | Err(_) => Vec::new(),
        };
        let version = stat.version;
        let copies = CopyParts { name: name.clone(), stat, from, held_as, is_settled };
        let send = self.copier(copies, limit);
        let replicated = self
            .replicate(Replication {
                name: name.clone(),
                version,
                purpose: Purpose::WriteBack,
                recipients,
                copies: view.policy.write_quorum().max(view.policy.read_quorum()),
                holders,
                // What may take long is not sent to one more every second.
                replaces_stalled: limit <= self.config.copy_timeout,
                send,
            })
            .await;
        let settled = match replicated {
            Ok(_) => Ok(()),
            // It is not over yet.
            Err(Failure::NeedsPromise) => return Err(NotSettled::NeedsPromise),
            Err(_) => Err(NotSettled::Failed),
        };
        let result = if settled.is_ok() { "ok" } else { "error" };
        self.metrics.write_backs.with_label_values(&[result]).inc();
        settled
    }

    fn copier(&self, parts: CopyParts, limit: Duration) -> Send {
        let data_servers = self.data_servers.clone();
        let parts = Arc::new(parts);
        Arc::new(move |recipient| {
            let (data_servers, parts) = (data_servers.clone(), Arc::clone(&parts));
            async move {
                let Recipient { member, stamp } = recipient;
                let request = CopyRequest {
                    name: parts.name.clone(),
                    stat: parts.stat.clone(),
                    from: parts.from.clone(),
                    held_as: parts.held_as,
                    stamp,
                    is_settled: parts.is_settled,
                };
                data_servers.copy(&member.address, member.id, &request, limit).await
            }
            .boxed()
        })
    }
}

struct CopyParts {
    name: ObjectName,
    stat: holdfast_core::object::Stat,
    from: Vec<NodeId>,
    held_as: Option<Version>,
    is_settled: bool,
}

/// Why what was found is on too few members still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(super) enum NotSettled {
    /// Something above it may have been promised, and judged without it.
    #[error("it must be settled under a promise")]
    NeedsPromise,
    /// Too few members took it.
    #[error("too few data servers took it")]
    Failed,
}
