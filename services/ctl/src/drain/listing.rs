//! What an api says of the data servers, as far as it matters here.

use std::collections::BTreeSet;
use std::ops::Range;

use holdfast_core::node::{Address, NodeId};
use holdfast_core::policy::Policy;
use holdfast_core::roster::MemberState;
use serde::Deserialize;

/// `GET /admin/dataservers`.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Listing {
    /// Nothing before the api has heard of a cluster.
    pub(super) cluster: Option<NodeId>,
    pub(super) policy: Policy,
    pub(super) dataservers: Vec<Member>,
}

/// One that is or was a member. Of one that has retired, little is told.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Member {
    pub(super) node: NodeId,
    pub(super) address: Address,
    pub(super) state: MemberState,
    #[serde(default)]
    pub(super) hearing: String,
    #[serde(default)]
    pub(super) takes_data: bool,
    #[serde(default)]
    pub(super) free_bytes: u64,
    /// Its share by placement.
    #[serde(default)]
    pub(super) weight: u32,
    /// Copies are spread over zones first.
    #[serde(default)]
    pub(super) zone: Option<String>,
    #[serde(default)]
    pub(super) copies_held: u64,
    #[serde(default)]
    pub(super) bytes_held: u64,
    #[serde(default)]
    pub(super) repair_backlog: u64,
}

impl Member {
    pub(super) fn is_silent(&self) -> bool {
        self.hearing == "silent"
    }

    /// The name of its pod.
    pub(super) fn pod(&self) -> &str {
        self.address.host().split('.').next().unwrap_or_default()
    }
}

/// The pods that are to go.
#[derive(Debug, Clone)]
pub(super) struct Pods {
    pub(super) statefulset: String,
    /// The Service that gives them their names, if it is known.
    pub(super) service: Option<String>,
    pub(super) ordinals: Range<u32>,
}

impl Pods {
    /// The ordinal of the pod that has this address, if the StatefulSet made it.
    pub(super) fn ordinal(&self, address: &Address) -> Option<u32> {
        let mut labels = address.host().split('.');
        let rest = labels.next()?.strip_prefix(self.statefulset.as_str())?.strip_prefix('-')?;
        let service = labels.next();
        if self.service.as_deref().is_some_and(|expected| service != Some(expected)) {
            return None;
        }
        // As Kubernetes writes it: `+1` and `01` are others' names.
        rest.parse().ok().filter(|ordinal: &u32| ordinal.to_string() == rest)
    }

    fn has(&self, member: &Member) -> bool {
        self.ordinal(&member.address).is_some_and(|ordinal| self.ordinals.contains(&ordinal))
    }
}

impl Listing {
    /// Whether any data server is, or was, a pod of the StatefulSet.
    pub(super) fn knows_any(&self, pods: &Pods) -> bool {
        self.dataservers.iter().any(|member| pods.ordinal(&member.address).is_some())
    }

    /// Members that are to go and have not retired yet.
    pub(super) fn leaving(&self, pods: &Pods) -> Vec<&Member> {
        let members = self.dataservers.iter().filter(|member| pods.has(member));
        members.filter(|member| member.state != MemberState::Retired).collect()
    }

    /// Active members that stay.
    pub(super) fn staying(&self, pods: &Pods) -> Vec<&Member> {
        let members = self.dataservers.iter().filter(|member| !pods.has(member));
        members.filter(|member| member.state == MemberState::Active).collect()
    }

    pub(super) fn ids(&self) -> BTreeSet<NodeId> {
        self.dataservers.iter().map(|member| member.node).collect()
    }
}
