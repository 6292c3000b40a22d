//! What behaves like the Kubernetes API server, over TLS and with state, for
//! the requests that let volumes grow: real ones are not to be had where these
//! tests run. Words and statuses are those of `kube-apiserver`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use holdfast_testkit::process::fresh_directory;
use http::Request;
use serde_json::{Value, json};

use crate::authority;
use crate::support::{Answer, Done, answer, ctl, serve};

pub(crate) const NAME: &str = "store-dataserver";

/// Before which request somebody does what.
type Meddler = (&'static str, fn(&mut State));

/// A cluster with one StatefulSet of three pods, and the files of a pod in it.
pub(crate) struct Cluster {
    pub(crate) directory: PathBuf,
    port: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    pub(crate) statefulset: Option<Value>,
    pub(crate) claims: BTreeMap<String, Value>,
    /// Whether each allows expansion, if it says so.
    pub(crate) classes: BTreeMap<String, Option<bool>>,
    pub(crate) pods: usize,
    /// What was asked, a verb and a name.
    pub(crate) log: Vec<String>,
    /// What the service account must not do: a verb and a resource.
    pub(crate) denied: Option<(&'static str, &'static str)>,
    /// A claim that a quota refuses.
    pub(crate) quota: Option<&'static str>,
    /// Requests, by their number, that are done and not answered.
    pub(crate) mute: Range<usize>,
    /// How often a deleted StatefulSet is still seen.
    pub(crate) lingers: usize,
    /// What somebody else does right before a request of this name, once.
    pub(crate) meddler: Option<Meddler>,
    pub(crate) token: String,
    version: u64,
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let directory = fresh_directory("service-account");
        std::fs::copy(authority::certificate(), directory.join("ca.crt")).expect("ours");
        std::fs::write(directory.join("namespace"), "ns").expect("ours");
        std::fs::write(directory.join("token"), "first\n").expect("ours");
        let mut state = State { token: "first".to_owned(), pods: 3, ..State::default() };
        state.classes.insert("fast".to_owned(), Some(true));
        state.make_statefulset("10Gi");
        for ordinal in 0..3 {
            state.add_claim(&format!("data-{NAME}-{ordinal}"), "10Gi");
        }
        // Neighbours that must not be touched.
        state.add_claim(&format!("logs-{NAME}-0"), "1Gi");
        state.add_claim(&format!("data-{NAME}-1-0"), "1Gi");
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let serving = serve(Some(authority::acceptor()), move |request| {
            shared.lock().expect("no panic").handle(&request)
        });
        let port = serving.await.address.rsplit_once(':').expect("a port").1.to_owned();
        Self { directory, port, state }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no panic")
    }

    /// Runs the command in a pod of this cluster.
    pub(crate) async fn grow(&self, size: &str, timeout: &str) -> Done {
        let directory = self.directory.display().to_string();
        let arguments = ["grow-volumes", "--statefulset", NAME, "--claim", "data"];
        let more = ["--size", size, "--timeout", timeout, "--service-account", &directory];
        ctl(&[arguments.as_slice(), &more].concat(), &self.variables()).await
    }

    /// What Kubernetes tells every container.
    pub(crate) fn variables(&self) -> [(&str, &str); 2] {
        [("KUBERNETES_SERVICE_HOST", "127.0.0.1"), ("KUBERNETES_SERVICE_PORT", &self.port)]
    }

    /// How many pods the StatefulSet asks for.
    pub(crate) fn scale(&self, replicas: u32) {
        let mut state = self.state();
        let found = state.statefulset.as_mut().expect("it is there");
        found["spec"]["replicas"] = replicas.into();
    }

    /// What the claims of the StatefulSet ask for.
    pub(crate) fn sizes(&self) -> Vec<String> {
        let begin = format!("data-{NAME}-");
        let state = self.state();
        let claims = state.claims.iter().filter(|(name, _)| {
            name.strip_prefix(&begin).is_some_and(|rest| rest.parse::<u32>().is_ok())
        });
        claims.map(|(_, claim)| storage(claim)).collect()
    }

    /// Requests that change something, since the last look.
    pub(crate) fn changes(&self) -> Vec<String> {
        let mut log = std::mem::take(&mut self.state().log);
        log.retain(|line| line.starts_with("patch") || line.starts_with("delete"));
        log
    }
}

fn storage(claim: &Value) -> String {
    claim["spec"]["resources"]["requests"]["storage"].as_str().expect("a quantity").to_owned()
}

fn gibibytes(quantity: &str) -> u64 {
    quantity.strip_suffix("Gi").and_then(|count| count.parse().ok()).expect("whole Gi")
}

impl State {
    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    /// As `helm upgrade` does once the hook is through.
    pub(crate) fn make_statefulset(&mut self, size: &str) {
        let version = self.next();
        self.statefulset = Some(json!({
            "apiVersion": "apps/v1", "kind": "StatefulSet",
            "metadata": {
                "name": NAME, "namespace": "ns",
                "uid": format!("uid-{version}"), "resourceVersion": version,
            },
            "spec": { "replicas": 3, "serviceName": format!("{NAME}-headless"), "volumeClaimTemplates": [
                { "metadata": { "name": "logs", "creationTimestamp": null },
                  "spec": { "resources": { "requests": { "storage": "1Gi" } } } },
                { "metadata": { "name": "data", "creationTimestamp": null },
                  "spec": { "resources": { "requests": { "storage": size } } } },
            ] },
        }));
    }

    pub(crate) fn add_claim(&mut self, name: &str, size: &str) {
        let version = self.next();
        let claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {
                "name": name, "namespace": "ns",
                "uid": format!("uid-{version}"), "resourceVersion": version,
            },
            "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "fast",
                "resources": { "requests": { "storage": size } },
            },
            "status": { "phase": "Bound" },
        });
        self.claims.insert(name.to_owned(), claim);
    }

    fn handle(&mut self, request: &Request<Bytes>) -> Answer {
        let path = request.uri().path();
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let is_claims = path.starts_with("/api/v1/namespaces/ns/persistentvolumeclaims");
        let verb = match request.method().as_str() {
            "GET" if name == "persistentvolumeclaims" => "list",
            "GET" => "get",
            "PATCH" => "patch",
            "DELETE" => "delete",
            other => panic!("nobody should send {other}"),
        };
        let line = format!("{verb} {name}");
        if let Some((_, meddle)) = self.meddler.take_if(|(before, _)| *before == line) {
            meddle(self);
        }
        self.log.push(line);
        let mut parts = path.rsplit('/');
        let resource = parts.nth(usize::from(verb != "list")).unwrap_or_default();
        let is_mute = self.mute.contains(&(self.log.len() - 1));
        let told = request.headers().get("authorization").map(|value| value.as_bytes());
        let answer = if told != Some(format!("Bearer {}", self.token).as_bytes()) {
            refusal(401, "Unauthorized")
        } else if self.denied == Some((verb, resource)) {
            let user = "system:serviceaccount:ns:hook";
            refusal(403, &format!("User \"{user}\" cannot {verb} resource \"{resource}\" in"))
        } else if path == format!("/apis/apps/v1/namespaces/ns/statefulsets/{name}") {
            if verb == "delete" { self.delete(request) } else { self.read_statefulset(&name) }
        } else if path == format!("/apis/storage.k8s.io/v1/storageclasses/{name}") {
            match self.classes.get(&name) {
                Some(expands) => object(&json!({ "allowVolumeExpansion": expands })),
                None => refusal(404, "not found"),
            }
        } else if is_claims && verb == "list" {
            self.list(request.uri().query().unwrap_or_default())
        } else if is_claims && verb == "patch" {
            self.patch(&name, request)
        } else {
            panic!("nobody should ask for {path}")
        };
        if is_mute { None } else { answer }
    }

    fn read_statefulset(&mut self, name: &str) -> Answer {
        let is_going = |found: &Value| found["metadata"]["deletionTimestamp"].is_string();
        if self.statefulset.as_ref().is_some_and(is_going) {
            match self.lingers.checked_sub(1) {
                Some(rest) => self.lingers = rest,
                None => self.statefulset = None,
            }
        }
        match &self.statefulset {
            Some(found) if name == NAME => object(found),
            _ => refusal(404, "statefulsets.apps not found"),
        }
    }

    fn delete(&mut self, request: &Request<Bytes>) -> Answer {
        let options: Value = serde_json::from_slice(request.body()).expect("DeleteOptions");
        let Some(found) = &mut self.statefulset else { return refusal(404, "not found") };
        let (uid, wanted) = (&found["metadata"]["uid"], &options["preconditions"]["uid"]);
        if wanted.is_string() && wanted != uid {
            return refusal(409, &format!("the UID in the precondition ({wanted}) does not match"));
        }
        if options["propagationPolicy"] != "Orphan" {
            self.pods = 0;
        }
        found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        object(found)
    }

    /// Two on a page, whatever is asked for.
    fn list(&self, query: &str) -> Answer {
        let next = query.split('&').find_map(|pair| pair.strip_prefix("continue="));
        let from = next.map_or(0, |next| next.parse().expect("what we gave"));
        let page: Vec<&Value> = self.claims.values().skip(from).take(2).collect();
        let rest = from + page.len() < self.claims.len();
        let next = if rest { (from + page.len()).to_string() } else { String::new() };
        object(&json!({ "kind": "List", "metadata": { "continue": next }, "items": page }))
    }

    fn patch(&mut self, name: &str, request: &Request<Bytes>) -> Answer {
        let kind = request.headers().get("content-type").map(|value| value.as_bytes());
        if kind != Some(b"application/merge-patch+json") {
            return refusal(415, "the body of the request was in an unknown format");
        }
        let version = self.next();
        let Some(claim) = self.claims.get_mut(name) else { return refusal(404, "not found") };
        let mut patched = claim.clone();
        merge(&mut patched, &serde_json::from_slice(request.body()).expect("JSON"));
        if patched["metadata"] != claim["metadata"] {
            return refusal(409, "the object has been modified; please apply your changes again");
        }
        let class = patched["spec"]["storageClassName"].as_str().unwrap_or_default();
        let expands = self.classes.get(class).copied().flatten() == Some(true);
        let (now, size) = (gibibytes(&storage(claim)), gibibytes(&storage(&patched)));
        if size < now {
            return refusal(422, "spec.resources.requests.storage: Forbidden: less than before");
        }
        if !expands || claim["status"]["phase"] != "Bound" {
            return refusal(403, "only dynamically provisioned pvc can be resized");
        }
        if self.quota == Some(name) {
            return refusal(403, "exceeded quota: storage, requested: requests.storage=10Gi");
        }
        patched["metadata"]["resourceVersion"] = version.into();
        *claim = patched;
        object(claim)
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Some(members) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    for (name, value) in members {
        merge(&mut target[name], value);
    }
}

fn object(value: &Value) -> Answer {
    answer(200, value.to_string())
}

fn refusal(status: u16, message: &str) -> Answer {
    let body = json!({ "kind": "Status", "status": "Failure", "message": message, "code": status });
    answer(status, body.to_string())
}
