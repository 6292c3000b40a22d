//! Empties the data servers that an upgrade takes away: those of a StatefulSet
//! with the highest ordinals.
//!
//! 1. How many pods there are is read from Kubernetes. When no fewer are wanted,
//!    that is all.
//! 2. An api tells who the data servers are. What could not end is refused, and
//!    nothing has changed by then.
//! 3. Each that is to go is told to drain, all of them before the first is empty,
//!    so that none hands over to another that goes.
//! 4. The end is waited for: each hands over what it holds, and retires.
//!
//! It may be cut off anywhere and run again. A drain that has begun goes on
//! without it, and loses nothing.

mod error;
mod listing;
mod plan;

use std::collections::BTreeSet;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use holdfast_core::node::NodeId;
use holdfast_core::roster::MemberState;
use holdfast_runtime::Runtime;
use holdfast_telemetry::shutdown::{Phase, Shutdown};
use http::Method;
use serde::Deserialize;

pub use self::error::DrainError;
use self::listing::{Listing, Member, Pods};
use crate::kubernetes::{ApiError, ApiServer, Call};
use crate::output::{Amount, chain, complain, say};
use crate::site::{Answer, Site, Visitor};

/// Time between two looks, or two tries.
const PAUSE: Duration = Duration::from_millis(500);

/// How long something may be in the way before the first drain has begun.
const PATIENCE: Duration = Duration::from_secs(120);

/// The same without a StatefulSet, where most likely nothing is installed.
const PATIENCE_WITHOUT: Duration = Duration::from_secs(10);

/// Between two lines about the same data server, unless its state changes.
const PROGRESS: Duration = Duration::from_secs(10);

/// What should be emptied.
#[derive(Debug)]
pub struct Options {
    /// The StatefulSet.
    pub statefulset: String,
    /// How many pods stay.
    pub keep: u32,
    /// The admin port of an api.
    pub admin: Site,
    /// Where; the pod's own namespace otherwise.
    pub namespace: Option<String>,
    /// How long all of it may take.
    pub timeout: Duration,
    /// The directory with token, `ca.crt` and namespace.
    pub service_account: PathBuf,
}

/// Does it, as the service account of the pod that this process runs in, until
/// all are empty, the time is over, or `shutdown` begins.
///
/// # Errors
/// [`DrainError`]; drains that have begun go on.
pub async fn run(
    runtime: &Runtime,
    options: &Options,
    shutdown: &Shutdown,
) -> Result<(), DrainError> {
    let visitor = Visitor::new(runtime, true);
    let (began, known, counted) = (runtime.now(), BTreeSet::new(), BTreeSet::new());
    let (draining, told) = (Vec::new(), Vec::new());
    let mut drain = Drain {
        runtime,
        options,
        shutdown,
        visitor,
        began,
        known,
        counted,
        draining,
        told,
        said: None,
    };
    let result = drain.work().await;
    if result.is_err() {
        drain.tell_how_to_go_on();
    }
    result
}

/// `apps/v1` StatefulSet, what is read of it.
#[derive(Debug, Deserialize)]
struct StatefulSet {
    spec: Spec,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    replicas: Option<u32>,
    service_name: Option<String>,
}

struct Drain<'a> {
    runtime: &'a Runtime,
    options: &'a Options,
    shutdown: &'a Shutdown,
    visitor: Visitor,
    began: Duration,
    /// Every data server that an api has told of.
    known: BTreeSet<NodeId>,
    /// Those whose drain counts.
    counted: BTreeSet<NodeId>,
    /// Those that drain and have not retired: pod and id.
    draining: Vec<(String, NodeId)>,
    /// What was last said of each, and when.
    told: Vec<(NodeId, MemberState, Duration)>,
    /// What was last in the way of a drain, and when that was said.
    said: Option<(String, Duration)>,
}

impl Drain<'_> {
    async fn work(&mut self) -> Result<(), DrainError> {
        let Some((pods, patience)) = self.pods().await? else { return Ok(()) };
        let listing = match self.first_listing(&pods, patience).await {
            // Most likely the first installation, by a tool that upgrades only.
            Err(DrainError::Unreachable { .. }) if patience == PATIENCE_WITHOUT => {
                say(format_args!("there is no StatefulSet, and no api: nothing to drain"));
                return Ok(());
            }
            listing => listing?,
        };
        let mut listing = listing;
        loop {
            for member in listing.leaving(&pods) {
                self.begin(member).await?;
            }
            self.note(&listing, &pods);
            if listing.leaving(&pods).is_empty() {
                say(format_args!("all data servers that go are empty and have retired"));
                return Ok(());
            }
            self.pause().await?;
            listing = match self.listing().await {
                Err(error) if error.may_pass() => {
                    complain(format_args!("trying again: {}", chain(&error)));
                    continue;
                }
                listing => listing?,
            };
        }
    }

    /// The pods that are to go, if there are any, and how long something may be
    /// in the way.
    async fn pods(&mut self) -> Result<Option<(Pods, Duration)>, DrainError> {
        let variable = |name: &str| std::env::var(name).ok();
        let api = ApiServer::of_pod(self.runtime, &self.options.service_account, variable)?;
        let found = loop {
            match self.unless_ended(self.statefulset(&api)).await? {
                Err(error) if error.may_pass() && self.has_patience(PATIENCE) => {
                    complain(format_args!("trying again: {}", chain(&error)));
                    self.pause().await?;
                }
                found => break found?,
            }
        };
        let (statefulset, keep) = (self.options.statefulset.clone(), self.options.keep);
        let Some(StatefulSet { spec }) = found else {
            // Growing volumes takes it away for a moment, and the upgrade that
            // should have made it anew may have failed: its pods may be there.
            let pods = Pods { statefulset, service: None, ordinals: keep..u32::MAX };
            return Ok(Some((pods, PATIENCE_WITHOUT)));
        };
        let replicas = spec.replicas.unwrap_or(1);
        if replicas <= keep {
            say(format_args!(
                "StatefulSet {statefulset} has {replicas} replicas and keeps them: nothing to drain"
            ));
            return Ok(None);
        }
        say(format_args!("StatefulSet {statefulset} has {replicas} replicas and keeps {keep}"));
        let pods = Pods { statefulset, service: spec.service_name, ordinals: keep..replicas };
        Ok(Some((pods, PATIENCE)))
    }

    async fn statefulset(&self, api: &ApiServer) -> Result<Option<StatefulSet>, ApiError> {
        let namespace = match &self.options.namespace {
            Some(namespace) => namespace.clone(),
            None => api.own_namespace().await?,
        };
        let name = &self.options.statefulset;
        api.call(Call {
            verb: "get",
            resource: format!("statefulsets, {name} in namespace {namespace}"),
            path: format!("/apis/apps/v1/namespaces/{namespace}/statefulsets/{name}"),
            body: None,
        })
        .await
    }

    /// The data servers, once nothing is in the way of a drain.
    async fn first_listing(
        &mut self,
        pods: &Pods,
        patience: Duration,
    ) -> Result<Listing, DrainError> {
        let until = self.runtime.now() + patience;
        loop {
            let listing = self.listing().await;
            let checked = listing.and_then(|listing| {
                plan::check(&listing, pods)?;
                Ok(listing)
            });
            match checked {
                Err(error) if error.may_pass() && self.runtime.now() + PAUSE < until => {
                    if !self.has_patience(self.options.timeout) {
                        return Err(error);
                    }
                    complain(format_args!("trying again: {}", chain(&error)));
                    self.pause().await?;
                }
                checked => return checked,
            }
        }
    }

    async fn listing(&mut self) -> Result<Listing, DrainError> {
        let site = || self.options.admin.clone();
        let answer = self.ask(Method::GET, "/admin/dataservers").await?;
        if answer.status != 200 {
            return Err(self.refused("list the data servers".to_owned(), &answer));
        }
        let listing: Listing = serde_json::from_slice(&answer.body)
            .map_err(|error| DrainError::Answer { site: site(), reason: error.to_string() })?;
        // An api that has started a moment ago learns them one by one.
        let ids = listing.ids();
        if listing.cluster.is_none() || !self.known.is_subset(&ids) {
            return Err(DrainError::NotYet { site: site() });
        }
        self.known = ids;
        Ok(listing)
    }

    /// Tells a data server to drain, until that counts.
    async fn begin(&mut self, member: &Member) -> Result<(), DrainError> {
        let (pod, node) = (member.pod(), member.node);
        if self.counted.contains(&node) {
            return Ok(());
        }
        let path = format!("/admin/dataservers/{node}/drain");
        // It may have been heard even if there is no answer.
        self.draining.push((pod.to_owned(), node));
        let error = match self.ask(Method::POST, &path).await {
            Ok(answer) if answer.status == 200 => {
                say(format_args!("{pod} ({node}) drains"));
                self.counted.insert(node);
                return Ok(());
            }
            // It has retired, or is seen to by another api that knows less.
            Ok(answer) if matches!(answer.code().as_deref(), Some("wrong-state")) => return Ok(()),
            Ok(answer) => self.refused(format!("drain {pod} ({node})"), &answer),
            Err(error) => error,
        };
        if !error.may_pass() {
            return Err(error);
        }
        // Members that vote drain one after the other, some minutes apart.
        let (text, now) = (format!("trying again: {}", chain(&error)), self.runtime.now());
        let is_said = self
            .said
            .as_ref()
            .is_some_and(|(last, at)| *last == text && now.saturating_sub(*at) < PROGRESS);
        if !is_said {
            complain(format_args!("{text}"));
            self.said = Some((text, now));
        }
        Ok(())
    }

    /// Notes who drains still, and says how far each is.
    fn note(&mut self, listing: &Listing, pods: &Pods) {
        let now = self.runtime.now();
        let leaving = listing.leaving(pods);
        self.draining.clear();
        for member in &leaving {
            let pod = member.pod();
            let drains = member.state == MemberState::Draining;
            if drains || self.counted.contains(&member.node) {
                self.draining.push((pod.to_owned(), member.node));
            }
            // What was just told to drain may be listed as it was before.
            if !drains {
                continue;
            }
            let last = self.told.iter().find(|(node, ..)| *node == member.node);
            let is_old = last.is_none_or(|(_, state, at)| {
                *state != member.state || now.saturating_sub(*at) >= PROGRESS
            });
            if !is_old {
                continue;
            }
            self.told.retain(|(node, ..)| *node != member.node);
            self.told.push((member.node, member.state, now));
            let heard = if member.is_silent() { ", silent" } else { "" };
            say(format_args!(
                "{pod} is {}{heard}: {} copies held ({}), backlog {}",
                member.state.as_str(),
                member.copies_held,
                Amount(member.bytes_held),
                member.repair_backlog
            ));
        }
        let retired = |(node, ..): &(NodeId, MemberState, Duration)| {
            !leaving.iter().any(|member| member.node == *node)
        };
        let members = listing.dataservers.iter();
        for member in members.filter(|member| self.told.iter().any(|told| told.0 == member.node)) {
            if member.state == MemberState::Retired {
                say(format_args!("{} is empty and has retired", member.pod()));
            }
        }
        self.told.retain(|told| !retired(told));
    }

    fn refused(&self, what: String, answer: &Answer) -> DrainError {
        let code = answer.code();
        // An api that has just started may not know this id yet.
        let passes = answer.status >= 500
            || answer.status == 429
            || code.as_deref() == Some("unknown-dataserver");
        let detail = answer.detail().map(|detail| format!(": {detail}")).unwrap_or_default();
        let site = self.options.admin.clone();
        DrainError::Refused { site, what, title: answer.title(), detail, passes }
    }

    async fn ask(&self, method: Method, path: &str) -> Result<Answer, DrainError> {
        let asked = self.visitor.ask(&self.options.admin, method, path, &[], Bytes::new());
        let site = || self.options.admin.clone();
        let answer = self.unless_ended(asked).await?;
        answer.map_err(|source| DrainError::Unreachable { site: site(), source })
    }

    async fn pause(&self) -> Result<(), DrainError> {
        self.unless_ended(self.runtime.sleep(PAUSE)).await
    }

    fn has_patience(&self, patience: Duration) -> bool {
        let patience = patience.min(self.options.timeout);
        self.runtime.now() + PAUSE < self.began + patience
    }

    /// Waits for something, but neither beyond the time nor after a signal.
    async fn unless_ended<T>(&self, work: impl Future<Output = T>) -> Result<T, DrainError> {
        let limit = self.options.timeout;
        let rest = (self.began + limit).saturating_sub(self.runtime.now());
        tokio::select! {
            biased;
            () = self.shutdown.wait_for(Phase::Leaving) => Err(DrainError::Interrupted),
            done = work => Ok(done),
            () = self.runtime.sleep(rest) => Err(DrainError::Late { limit }),
        }
    }

    fn tell_how_to_go_on(&self) {
        if self.draining.is_empty() {
            return;
        }
        for (pod, node) in &self.draining {
            complain(format_args!("{pod} ({node}) may still drain; what it holds stays readable"));
        }
        complain(format_args!(
            "A drain goes on by itself and loses nothing. To go on, run the same upgrade again, with \
             more time. To keep a data server instead, take its drain back before it has retired:"
        ));
        for (_, node) in &self.draining {
            let site = &self.options.admin;
            complain(format_args!("  curl -X DELETE {site}/admin/dataservers/{node}/drain"));
        }
    }
}
