//! A large payload that its owners have received and that waits for its version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_core::locate::Located;
use holdfast_core::membership::{Hearing, View};
use holdfast_core::node::NodeId;
use holdfast_core::object::Stat;
use holdfast_core::wire::transfer::{CopyRequest, WriteAnswer, WriteOutcome};
use tokio::sync::watch;

use crate::data_servers::{DataServerError, DataServers, Upload, WriteRequest};
use crate::objects::Objects;
use crate::objects::replicate::Recipient;

/// As fast, at least, a data server must fetch a payload from another one, in
/// bytes per second.
const COPY_RATE_BYTES: u64 = 8 << 20;

/// A payload that is staged at several members. Dropping it takes back what was
/// not committed.
#[derive(Debug)]
pub(in crate::objects) struct Uploads {
    objects: Objects,
    size_bytes: u64,
    staged: BTreeMap<NodeId, Staged>,
    /// They were to have it and were left behind.
    left_behind: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Staged {
    upload: Upload,
    committed: AtomicBool,
}

impl Uploads {
    /// Nobody has it yet.
    pub(super) fn new(objects: Objects, size_bytes: u64) -> Self {
        Self { objects, size_bytes, staged: BTreeMap::new(), left_behind: BTreeSet::new() }
    }

    /// A data server has all of it.
    pub(super) fn add(&mut self, node: NodeId, upload: Upload) {
        let committed = AtomicBool::new(false);
        self.staged.insert(node, Staged { upload, committed });
    }

    /// A data server was to have it, and has not.
    pub(super) fn leave_behind(&mut self, node: NodeId) {
        self.left_behind.insert(node);
    }

    /// Who has it.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.staged.keys()
    }

    /// Length in bytes.
    pub(in crate::objects) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether `node` has received it from the client.
    pub(in crate::objects) fn has(&self, node: NodeId) -> bool {
        self.staged.contains_key(&node)
    }

    /// Whether `node` was to receive it and failed.
    pub(in crate::objects) fn was_left_behind(&self, node: NodeId) -> bool {
        self.left_behind.contains(&node)
    }

    /// The members that have it and take data.
    pub(in crate::objects) fn recipients(&self, view: &View, located: &Located) -> Vec<Recipient> {
        let recipient = |node: &NodeId| {
            let member = view.member(*node)?;
            let stamp = located.stamp_or_earlier(*node)?;
            let usable = member.counts() && member.hearing != Hearing::Leaving;
            usable.then(|| Recipient { member: member.clone(), stamp })
        };
        self.staged.keys().filter_map(recipient).collect()
    }

    async fn commit(
        &self,
        data_servers: &DataServers,
        node: NodeId,
        request: &WriteRequest,
        limit: Duration,
    ) -> Result<WriteAnswer, DataServerError> {
        let Some(staged) = self.staged.get(&node) else {
            return Err(DataServerError::AnotherNode);
        };
        let answer = data_servers.commit(&staged.upload, request, limit).await;
        if answer.is_ok() {
            staged.committed.store(true, Ordering::SeqCst);
        }
        answer
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        for (_, staged) in std::mem::take(&mut self.staged) {
            if staged.committed.load(Ordering::SeqCst) {
                continue;
            }
            let objects = self.objects.clone();
            self.objects.runtime.spawn("abandon", async move {
                // If this fails the data server drops the payload by itself later.
                let limit = objects.config.read_timeout;
                let _ = objects.data_servers.abandon(&staged.upload, limit).await;
            });
        }
    }
}

/// One version of what was uploaded, on its way to those who are to have it: they
/// commit it, or fetch it from one that has.
#[derive(Debug)]
pub(in crate::objects) struct Handing {
    uploads: Arc<Uploads>,
    /// How many commits are made.
    commit_count: usize,
    commits: watch::Sender<Commits>,
}

/// What became of the commits of a version.
#[derive(Debug, Default)]
struct Commits {
    holders: Vec<NodeId>,
    failed_count: usize,
}

impl Handing {
    /// Nobody has the version yet; these are to have it.
    pub(in crate::objects) fn new(uploads: Arc<Uploads>, recipients: &[Recipient]) -> Self {
        let commit_count = recipients.iter().filter(|to| uploads.has(to.member.id)).count();
        Self { uploads, commit_count, commits: watch::Sender::default() }
    }

    /// Makes a member hold the version: gives its payload that `to` has its name and
    /// version, or has it fetched from the first that did so, within `limit` and
    /// what its length needs.
    ///
    /// A fetched copy is as good as one that the client's bytes came to: it is
    /// the same content under the same version, taken through the same checks.
    pub(in crate::objects) async fn hand(
        &self,
        to: Recipient,
        request: &WriteRequest,
        limit: Duration,
    ) -> Result<WriteAnswer, DataServerError> {
        let Recipient { member, stamp } = to;
        let data_servers = &self.uploads.objects.data_servers;
        if self.uploads.has(member.id) {
            let answer = self.uploads.commit(data_servers, member.id, request, limit).await;
            self.note(member.id, &answer);
            return answer;
        }
        let holders = self.uploads.objects.runtime.timeout(limit, self.holders()).await;
        let from = holders.ok().flatten().ok_or(DataServerError::NoHolder)?;
        self.uploads.objects.metrics.uploads_fetched.inc();
        let size_bytes = self.uploads.size_bytes;
        let stat = Stat {
            version: request.version,
            kind: request.kind,
            size_bytes,
            digest: request.digest,
            metadata: request.metadata.clone(),
        };
        // After a long transfer it is looked up whether it still is the newest.
        let name = request.name.clone();
        let copy = CopyRequest { name, stat, from, held_as: None, stamp, is_settled: false };
        let limit = limit + Duration::from_secs(size_bytes / COPY_RATE_BYTES);
        data_servers.copy(&member.address, member.id, &copy, limit).await
    }

    fn note(&self, node: NodeId, answer: &Result<WriteAnswer, DataServerError>) {
        let outcome = answer.as_ref().map(|answer| &answer.outcome);
        let holds = matches!(outcome, Ok(WriteOutcome::Stored | WriteOutcome::AlreadyStored));
        self.commits.send_modify(|commits| match holds {
            true => commits.holders.push(node),
            false => commits.failed_count += 1,
        });
    }

    /// Who has the version; waits for the first. `None` once all have failed.
    async fn holders(&self) -> Option<Vec<NodeId>> {
        let is_known = |commits: &Commits| {
            !commits.holders.is_empty() || commits.failed_count >= self.commit_count
        };
        let mut commits = self.commits.subscribe();
        let commits = commits.wait_for(is_known).await.ok()?;
        (!commits.holders.is_empty()).then(|| commits.holders.clone())
    }
}
