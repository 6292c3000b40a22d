//! Lets the volumes of a StatefulSet grow, before an upgrade whose template asks
//! for larger ones.
//!
//! Kubernetes lets nobody change the claim templates of a StatefulSet, and
//! changing them would not touch the claims that are there. So:
//!
//! 1. everything is read, and what cannot work is refused;
//! 2. each claim that asks for less is changed;
//! 3. the StatefulSet is deleted without its pods, which go on; the upgrade
//!    makes it anew, with the new template, and it adopts them.
//!
//! It may be cut off anywhere and run again: each time it looks at what is there
//! and does what is missing. When a claim cannot be changed, those before it
//! stay larger and the StatefulSet stays as it was.

mod objects;
mod plan;
pub mod quantity;

use std::path::PathBuf;
use std::time::Duration;

use holdfast_runtime::Runtime;
use serde_json::json;
use thiserror::Error;

use self::objects::{Claim, List, StatefulSet, StorageClass};
use self::quantity::Quantity;
use crate::kubernetes::{ApiError, ApiServer, Call};
use crate::output::{chain, complain, say};

/// Time between two looks, or two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// Claims on one page.
const PAGE: usize = 100;

/// Pages that are read, so that a list without an end ends.
const MAX_PAGES: usize = 200;

/// What should grow.
#[derive(Debug)]
pub struct Options {
    /// The StatefulSet.
    pub statefulset: String,
    /// The name of the claim in its template.
    pub claim: String,
    /// How large each should be.
    pub size: Quantity,
    /// Where; the pod's own namespace otherwise.
    pub namespace: Option<String>,
    /// How long to try again what may pass, and to wait for the deletion.
    pub timeout: Duration,
    /// The directory with token, `ca.crt` and namespace.
    pub service_account: PathBuf,
}

/// Why the volumes do not grow.
#[derive(Debug, Error)]
pub enum GrowError {
    /// The API server did not do its part.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The StatefulSet has other volumes.
    #[error("StatefulSet {statefulset} has no claim template named {claim}")]
    NoTemplate {
        /// The StatefulSet.
        statefulset: String,
        /// What was looked for.
        claim: String,
    },
    /// Less was asked for.
    #[error(
        "StatefulSet {statefulset} asks for {now} already, and a volume cannot shrink to {size}"
    )]
    Smaller {
        /// The StatefulSet.
        statefulset: String,
        /// What its template asks for.
        now: Quantity,
        /// What was asked for.
        size: Quantity,
    },
    /// A claim has no volume yet.
    #[error(
        "claim {claim} is {phase}, and only one that is Bound can grow: wait until its pod \
         runs, or delete the claim; nothing was changed"
    )]
    Unbound {
        /// The claim.
        claim: String,
        /// What it is instead.
        phase: String,
    },
    /// A volume was made by hand.
    #[error("claim {claim} has no storage class, so its volume cannot grow; nothing was changed")]
    NoClass {
        /// The claim.
        claim: String,
    },
    /// A storage class is gone.
    #[error(
        "StorageClass {class} of claim {claim} does not exist any more, so its volume cannot \
         grow; nothing was changed"
    )]
    ClassIsGone {
        /// The class.
        class: String,
        /// The claim.
        claim: String,
    },
    /// A storage class cannot do it.
    #[error(
        "StorageClass {class} of claim {claim} does not have allowVolumeExpansion: true, so its \
         volume cannot grow; nothing was changed"
    )]
    ClassIsFixed {
        /// The class.
        class: String,
        /// The claim.
        claim: String,
    },
    /// The list of claims does not end.
    #[error("the namespace has more than {} claims", MAX_PAGES * PAGE)]
    TooManyClaims,
    /// The StatefulSet does not go away.
    #[error(
        "StatefulSet {statefulset} is being deleted and is still there after {limit:?}: does \
         kube-controller-manager run?"
    )]
    StillThere {
        /// The StatefulSet.
        statefulset: String,
        /// How long was waited.
        limit: Duration,
    },
}

/// Does it, as the service account of the pod that this process runs in.
///
/// # Errors
/// [`GrowError`].
pub async fn run(runtime: &Runtime, options: &Options) -> Result<(), GrowError> {
    let variable = |name: &str| std::env::var(name).ok();
    let api = ApiServer::of_pod(runtime, &options.service_account, variable)?;
    let namespace = match &options.namespace {
        Some(namespace) => namespace.clone(),
        None => api.own_namespace().await?,
    };
    let deadline = runtime.now() + options.timeout;
    let growth = Growth { runtime, api, namespace, options, deadline };
    loop {
        let error = match growth.attempt().await {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        let may_pass = matches!(&error, GrowError::Api(error) if error.may_pass());
        if !may_pass || runtime.now() + PAUSE > deadline {
            return Err(error);
        }
        complain(format_args!("trying again: {}", chain(&error)));
        runtime.sleep(PAUSE).await;
    }
}

struct Growth<'a> {
    runtime: &'a Runtime,
    api: ApiServer,
    namespace: String,
    options: &'a Options,
    deadline: Duration,
}

impl Growth<'_> {
    /// From the beginning: what was read before may not be true any more.
    async fn attempt(&self) -> Result<(), GrowError> {
        let Options { statefulset: name, claim, size, .. } = self.options;
        let found = self.statefulset().await?;
        let is_to_be_replaced =
            found.as_ref().map(|found| plan::is_to_be_replaced(found, claim, size)).transpose()?;
        self.grow_claims().await?;
        let Some(found) = found else {
            say(format_args!("there is no StatefulSet {name}: the upgrade makes it"));
            return Ok(());
        };
        if is_to_be_replaced != Some(true) {
            say(format_args!("StatefulSet {name} asks for {size} already"));
            return Ok(());
        }
        if found.metadata.deletion_timestamp.is_none() {
            self.delete_without_pods(&found).await?;
        }
        self.wait_until_gone(&found.metadata.uid).await?;
        say(format_args!(
            "StatefulSet {name} is deleted, its pods go on: the upgrade makes it anew"
        ));
        // The StatefulSet may have made one since they were listed.
        self.grow_claims().await
    }

    /// Looks at all claims before it changes the first.
    async fn grow_claims(&self) -> Result<(), GrowError> {
        let Options { statefulset, claim: template, size, .. } = self.options;
        let mut claims = self.claims().await?;
        claims.retain(|claim| claim.ordinal(template, statefulset).is_some());
        claims.sort_by_key(|claim| claim.ordinal(template, statefulset));
        for larger in claims.iter().filter(|claim| claim.request().is_some_and(|now| now > size)) {
            say(format_args!("claim {} asks for more and stays so", larger.metadata.name));
        }
        claims.retain(|claim| claim.is_smaller_than(size));
        for (class, claim) in plan::classes_of(&claims)? {
            self.check_class(class, claim).await?;
        }
        for claim in &claims {
            self.grow_claim(claim).await?;
            say(format_args!("claim {} now asks for {size}", claim.metadata.name));
        }
        Ok(())
    }

    async fn check_class(&self, class: &str, claim: &str) -> Result<(), GrowError> {
        let (class, claim) = (class.to_owned(), claim.to_owned());
        let found: Option<StorageClass> = self
            .api
            .call(Call {
                verb: "get",
                resource: format!("storageclasses, {class}"),
                path: format!("/apis/storage.k8s.io/v1/storageclasses/{class}"),
                body: None,
            })
            .await?;
        match found.map(|found| found.allow_volume_expansion) {
            Some(Some(true)) => Ok(()),
            Some(_) => Err(GrowError::ClassIsFixed { class, claim }),
            None => Err(GrowError::ClassIsGone { class, claim }),
        }
    }

    async fn statefulset(&self) -> Result<Option<StatefulSet>, ApiError> {
        self.api.call(self.call_statefulset("get", None)).await
    }

    fn call_statefulset(&self, verb: &'static str, body: Option<serde_json::Value>) -> Call {
        let (name, namespace) = (&self.options.statefulset, &self.namespace);
        Call {
            verb,
            resource: format!("statefulsets, {name} in namespace {namespace}"),
            path: format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"),
            body: body.map(|body| ("application/json", body)),
        }
    }

    fn call_claims(&self, verb: &'static str, which: &str, rest: &str) -> Call {
        let namespace = &self.namespace;
        Call {
            verb,
            resource: format!("persistentvolumeclaims{which} in namespace {namespace}"),
            path: format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims{rest}"),
            body: None,
        }
    }

    /// All claims of the namespace: some may belong to pods that were scaled
    /// away, and come back with them.
    async fn claims(&self) -> Result<Vec<Claim>, GrowError> {
        let (mut claims, mut next) = (Vec::new(), String::new());
        for _ in 0..MAX_PAGES {
            let from = if next.is_empty() { "" } else { "&continue=" };
            let rest = format!("?limit={PAGE}{from}{next}");
            let page = self.api.call(self.call_claims("list", "", &rest)).await?;
            let Some(List { metadata, items }) = page else { return Ok(claims) };
            claims.extend(items.unwrap_or_default());
            if metadata.next.is_empty() {
                return Ok(claims);
            }
            next = metadata.next;
        }
        Err(GrowError::TooManyClaims)
    }

    /// Only if it is still as it was read: somebody else may have let it grow
    /// further meanwhile.
    async fn grow_claim(&self, claim: &Claim) -> Result<(), ApiError> {
        let meta = &claim.metadata;
        let patch = json!({
            "metadata": { "uid": meta.uid, "resourceVersion": meta.resource_version },
            "spec": { "resources": { "requests": { "storage": self.options.size.to_string() } } },
        });
        let mut call =
            self.call_claims("patch", &format!(", {}", meta.name), &format!("/{}", meta.name));
        call.body = Some(("application/merge-patch+json", patch));
        // Without an answer, it is gone: then it need not grow.
        self.api.call::<serde::de::IgnoredAny>(call).await.map(drop)
    }

    /// Only this very one: another of its name may be somebody else's.
    async fn delete_without_pods(&self, found: &StatefulSet) -> Result<(), ApiError> {
        let options = json!({
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Orphan",
            "preconditions": { "uid": found.metadata.uid },
        });
        let call = self.call_statefulset("delete", Some(options));
        self.api.call::<serde::de::IgnoredAny>(call).await.map(drop)
    }

    /// Kubernetes deletes it once it has taken it off its pods. An upgrade that
    /// came before that would find it and try to change it.
    async fn wait_until_gone(&self, uid: &str) -> Result<(), GrowError> {
        while self.statefulset().await?.is_some_and(|found| found.metadata.uid == uid) {
            if self.runtime.now() > self.deadline {
                let (statefulset, limit) = (self.options.statefulset.clone(), self.options.timeout);
                return Err(GrowError::StillThere { statefulset, limit });
            }
            self.runtime.sleep(PAUSE).await;
        }
        Ok(())
    }
}
