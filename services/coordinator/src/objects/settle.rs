//! Bringing a version that was found to as many members as reads count on,
//! before anybody is told of it.

use std::sync::Arc;

use futures_util::FutureExt;
use holdfast_core::locate::Located;
use holdfast_core::name::ObjectName;
use holdfast_core::node::NodeId;
use holdfast_core::quorum::Purpose;
use holdfast_core::version::Version;
use holdfast_core::wire::transfer::CopyRequest;

use super::Objects;
use super::replicate::{Recipient, Replication, Send};
use super::target::{Targets, choose_targets};
use crate::error::ObjectError;

impl Objects {
    /// Writes the newest version that `located` found to W members, tombstones
    /// too. Else one read could see it, and the next one, which hears other
    /// members, something older. `ballot` is the promise under which a
    /// conditional write does it.
    ///
    /// # Errors
    /// [`ObjectError::Unsettled`]: it must not be shown.
    pub(super) async fn write_back(
        &self,
        name: &ObjectName,
        located: &Located,
        ballot: Option<Version>,
    ) -> Result<(), ObjectError> {
        let Some(newest) = located.newest() else { return Ok(()) };
        let stat = newest.stat.clone();
        let snapshot = self.cluster.snapshot();
        let view = &snapshot.view;
        let mut from: Vec<NodeId> = located.newest_holders().map(|holder| holder.node).collect();
        let readable = |node: &NodeId| located.answered.contains(node);
        let counts = view.counting(name);
        let holders: Vec<NodeId> =
            from.iter().copied().filter(|holder| counts(*holder) && readable(holder)).collect();
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
        let send = self.copier(CopyParts { name: name.clone(), stat, from, ballot });
        let replicated = self
            .replicate(Replication {
                name: name.clone(),
                version,
                purpose: Purpose::WriteBack,
                recipients,
                copies: view.policy.write_quorum().max(view.policy.read_quorum()),
                holders,
                send,
            })
            .await;
        let result = if replicated.is_ok() { "ok" } else { "error" };
        self.metrics.write_backs.with_label_values(&[result]).inc();
        replicated.map(|_| ()).map_err(|_| ObjectError::Unsettled)
    }

    fn copier(&self, parts: CopyParts) -> Send {
        let (data_servers, limit) = (self.data_servers.clone(), self.config.copy_timeout);
        let parts = Arc::new(parts);
        Arc::new(move |recipient| {
            let (data_servers, parts) = (data_servers.clone(), Arc::clone(&parts));
            async move {
                let Recipient { member, stamp } = recipient;
                let request = CopyRequest {
                    name: parts.name.clone(),
                    stat: parts.stat.clone(),
                    from: parts.from.clone(),
                    stamp,
                    ballot: parts.ballot,
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
    ballot: Option<Version>,
}
