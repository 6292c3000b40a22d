//! What is read of Kubernetes objects; all else in them is left alone.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::quantity::Quantity;

/// What every object has.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Meta {
    pub(super) name: String,
    /// Not in templates.
    #[serde(default)]
    pub(super) uid: String,
    #[serde(default)]
    pub(super) resource_version: String,
    /// Set while it is being deleted.
    pub(super) deletion_timestamp: Option<String>,
}

/// `apps/v1` StatefulSet.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct StatefulSet {
    pub(super) metadata: Meta,
    pub(super) spec: StatefulSetSpec,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StatefulSetSpec {
    pub(super) volume_claim_templates: Option<Vec<Claim>>,
}

/// `v1` PersistentVolumeClaim, or the template of one.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Claim {
    pub(super) metadata: Meta,
    pub(super) spec: ClaimSpec,
    #[serde(default)]
    pub(super) status: ClaimStatus,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ClaimSpec {
    pub(super) storage_class_name: Option<String>,
    #[serde(default)]
    pub(super) resources: Resources,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct Resources {
    #[serde(default)]
    pub(super) requests: BTreeMap<String, Quantity>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ClaimStatus {
    pub(super) phase: Option<String>,
}

impl Claim {
    /// What it asks for. A claim cannot be made without.
    pub(super) fn request(&self) -> Option<&Quantity> {
        self.spec.resources.requests.get("storage")
    }

    /// Whether it asks for less.
    pub(super) fn is_smaller_than(&self, size: &Quantity) -> bool {
        self.request().is_some_and(|request| request < size)
    }

    /// Its number, if a StatefulSet made it from this template.
    pub(super) fn ordinal(&self, template: &str, statefulset: &str) -> Option<u32> {
        let rest = self.metadata.name.strip_prefix(template)?.strip_prefix('-')?;
        let digits = rest.strip_prefix(statefulset)?.strip_prefix('-')?;
        let is_canonical = digits == "0" || !digits.starts_with(['0', '+']);
        digits.parse().ok().filter(|_| is_canonical)
    }
}

/// `storage.k8s.io/v1` StorageClass.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StorageClass {
    pub(super) allow_volume_expansion: Option<bool>,
}

/// A page of a list.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct List<T> {
    #[serde(default)]
    pub(super) metadata: ListMeta,
    pub(super) items: Option<Vec<T>>,
}

#[derive(Debug, Clone, Default, Deserialize)]
pub(super) struct ListMeta {
    /// Where the next page begins; empty on the last one.
    #[serde(default, rename = "continue")]
    pub(super) next: String,
}
