//! A large payload that its owners have received and that waits for its version.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use holdfast_core::locate::Located;
use holdfast_core::membership::{Hearing, Member, View};
use holdfast_core::node::NodeId;
use holdfast_core::object::Digest;
use holdfast_core::wire::transfer::WriteAnswer;
use tracing::warn;

use crate::data_servers::{DataServerError, DataServers, Upload, WriteRequest};
use crate::objects::Objects;
use crate::objects::replicate::Recipient;

/// A payload that is staged at several members. Dropping it takes back what was
/// not committed.
#[derive(Debug)]
pub(in crate::objects) struct Uploads {
    objects: Objects,
    size_bytes: u64,
    digest: Digest,
    staged: BTreeMap<NodeId, Staged>,
    /// They were to have it and were left behind.
    left_behind: BTreeSet<NodeId>,
}

#[derive(Debug)]
struct Staged {
    upload: Upload,
    committed: AtomicBool,
    /// How often it could not be read.
    failures: usize,
}

/// How often a payload that cannot be read where it waits is asked for, before it is
/// taken for lost.
const READS: usize = 3;

impl Uploads {
    /// Nobody has it yet.
    pub(super) fn new(objects: Objects, size_bytes: u64, digest: Digest) -> Self {
        let (staged, left_behind) = (BTreeMap::new(), BTreeSet::new());
        Self { objects, size_bytes, digest, staged, left_behind }
    }

    /// A data server says that it has all of it; false if that is something else,
    /// which it need not keep.
    pub(super) fn add(&mut self, node: NodeId, upload: Upload) -> bool {
        let received = &upload.received;
        if (received.size_bytes, received.digest) != (self.size_bytes, self.digest) {
            warn!(%node, "a payload changed on its way to the data server");
            self.abandon(upload);
            return false;
        }
        let committed = AtomicBool::new(false);
        self.staged.insert(node, Staged { upload, committed, failures: 0 });
        true
    }

    /// Where it can be read: where that has failed the least, of those that are not
    /// `busy` if there are any.
    pub(super) fn source(&self, busy: &BTreeSet<NodeId>) -> Option<&Upload> {
        let least = |(node, staged): &(&NodeId, &Staged)| (busy.contains(node), staged.failures);
        self.staged.iter().min_by_key(least).map(|(_, staged)| &staged.upload)
    }

    /// It could not be read there, or not as it was. After a few times it is taken
    /// for lost there.
    pub(super) fn doubt(&mut self, node: NodeId) {
        let Some(staged) = self.staged.get_mut(&node) else { return };
        staged.failures += 1;
        if staged.failures >= READS {
            self.lose(node);
        }
    }

    /// A data server was to have it and has not, or has it no more.
    pub(super) fn lose(&mut self, node: NodeId) {
        self.left_behind.insert(node);
        if let Some(staged) = self.staged.remove(&node) {
            self.abandon(staged.upload);
        }
    }

    /// Who has it.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &NodeId> {
        self.staged.keys()
    }

    /// Where it is.
    pub(super) fn all(&self) -> impl Iterator<Item = &Upload> {
        self.staged.values().map(|staged| &staged.upload)
    }

    /// Length in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether `node` has it.
    pub(super) fn has(&self, node: NodeId) -> bool {
        self.staged.contains_key(&node)
    }

    /// Whether `node` was to receive it and failed.
    pub(super) fn was_left_behind(&self, node: NodeId) -> bool {
        self.left_behind.contains(&node)
    }

    /// The members that have it and take data.
    pub(super) fn usable<'a>(&'a self, view: &'a View) -> impl Iterator<Item = &'a Member> {
        let members = self.staged.keys().filter_map(|node| view.member(*node));
        members.filter(|member| member.counts() && member.hearing != Hearing::Leaving)
    }

    /// Those of them that have answered.
    pub(in crate::objects) fn recipients(&self, view: &View, located: &Located) -> Vec<Recipient> {
        let recipient = |member: &Member| {
            let stamp = located.stamp_or_earlier(member.id)?;
            Some(Recipient { member: member.clone(), stamp })
        };
        self.usable(view).filter_map(recipient).collect()
    }

    /// Gives the payload that `node` has its name and version.
    pub(in crate::objects) async fn commit(
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

    /// If this fails the data server drops the payload by itself later.
    fn abandon(&self, upload: Upload) {
        let objects = self.objects.clone();
        self.objects.runtime.spawn("abandon", async move {
            let limit = objects.config.read_timeout;
            let _ = objects.data_servers.abandon(&upload, limit).await;
        });
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        for (_, staged) in std::mem::take(&mut self.staged) {
            if !staged.committed.load(Ordering::SeqCst) {
                self.abandon(staged.upload);
            }
        }
    }
}
