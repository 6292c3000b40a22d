//! One client: a few objects of its own, one request after the other.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use holdfast_runtime::Runtime;
use holdfast_telemetry::shutdown::{Phase, Shutdown};
use http::Method;

use super::tally::{Operation, Tally};
use super::{Manner, content};
use crate::output::chain;
use crate::site::{Answer, Site, Visitor, object_path};

/// Objects that a client keeps, so that some are read long after they were
/// written, by way of other servers.
const KEPT: usize = 8;

/// Names whose state is not known and that are deleted in the end.
const DOUBTFUL: usize = 1_000;

/// After a failure, so that a server that is away is not asked a million times.
const PAUSE: Duration = Duration::from_millis(20);

/// Longest time for removing what was stored.
const CLEANUP_LIMIT: Duration = Duration::from_secs(10);

pub(super) struct Client {
    runtime: Runtime,
    visitor: Visitor,
    api: Site,
    names: String,
    object_bytes: usize,
    allowed: Vec<String>,
    kept: VecDeque<Object>,
    doubtful: Vec<String>,
    tally: Arc<Tally>,
    ending: Shutdown,
}

struct Object {
    path: String,
    seed: u64,
}

impl Client {
    pub(super) fn new(
        runtime: &Runtime,
        api: &Site,
        names: String,
        manner: &Manner,
        tally: Arc<Tally>,
        ending: Shutdown,
    ) -> Self {
        Self {
            runtime: runtime.clone(),
            visitor: Visitor::new(runtime, manner.keep_alive),
            api: api.clone(),
            names,
            object_bytes: manner.object_bytes,
            allowed: manner.allowed.clone(),
            kept: VecDeque::new(),
            doubtful: Vec::new(),
            tally,
            ending,
        }
    }

    pub(super) async fn run(mut self) {
        let mut number = 0_u64;
        while self.ending.phase() == Phase::Running {
            self.round(number).await;
            number += 1;
        }
        let runtime = self.runtime.clone();
        // What is then left is left behind: the server is away.
        let _ = runtime.timeout(CLEANUP_LIMIT, self.clean_up()).await;
    }

    /// Writes one object, reads one of those that are there, and deletes the
    /// oldest when there are enough.
    async fn round(&mut self, number: u64) {
        let path = object_path(&format!("{}-{number}", self.names));
        let seed = self.runtime.random_u64();
        let body = content(seed, self.object_bytes);
        if self.ask(Operation::Put, &path, body, 200, None).await {
            self.kept.push_back(Object { path, seed });
        } else if self.doubtful.len() < DOUBTFUL {
            self.doubtful.push(path);
        }
        let chosen = usize::try_from(self.runtime.random_u64()).unwrap_or_default();
        let chosen = chosen.checked_rem(self.kept.len()).and_then(|index| self.kept.get(index));
        if let Some(Object { path, seed }) = chosen {
            let expected = content(*seed, self.object_bytes);
            self.ask(Operation::Get, path, Bytes::new(), 200, Some(&expected)).await;
        }
        if self.kept.len() > KEPT {
            let Some(oldest) = self.kept.pop_front() else { return };
            self.delete(oldest.path).await;
        }
    }

    async fn delete(&mut self, path: String) {
        if self.ask(Operation::Delete, &path, Bytes::new(), 204, None).await {
            self.ask(Operation::GetDeleted, &path, Bytes::new(), 404, None).await;
        } else if self.doubtful.len() < DOUBTFUL {
            self.doubtful.push(path);
        }
    }

    async fn clean_up(&mut self) {
        while let Some(object) = self.kept.pop_front() {
            self.delete(object.path).await;
        }
        while let Some(path) = self.doubtful.pop() {
            self.ask(Operation::Delete, &path, Bytes::new(), 204, None).await;
        }
    }

    /// Sends one request, once, and counts it. Whether it was answered as it
    /// should be.
    async fn ask(
        &self,
        operation: Operation,
        path: &str,
        body: Bytes,
        status: u16,
        content: Option<&Bytes>,
    ) -> bool {
        let method = match operation {
            Operation::Put => Method::PUT,
            Operation::Get | Operation::GetDeleted => Method::GET,
            Operation::Delete => Method::DELETE,
        };
        let began = self.runtime.now();
        let asked = self.visitor.ask(&self.api, method, path, &[], body).await;
        let took = self.runtime.now().saturating_sub(began);
        let failure = match asked {
            Ok(answer) if answer.status != status && self.is_allowed(&answer) => {
                self.tally.allowed(operation, took, answer.title());
                return false;
            }
            Err(error) => Some((kind(&error), chain(&error))),
            Ok(answer) if answer.status != status => {
                Some((answer.title(), format!("answered {} instead of {status}", answer.title())))
            }
            Ok(answer) if content.is_some_and(|content| *content != answer.body) => {
                Some(("wrong bytes".to_owned(), format!("{} wrong bytes", answer.body.len())))
            }
            Ok(_) => None,
        };
        let Some((kind, reason)) = failure else {
            self.tally.succeeded(operation, took);
            return true;
        };
        let now = self.runtime.unix_millis();
        self.tally.failed(operation, took, kind, &format!("{now} {path}: {reason}"));
        self.runtime.sleep(PAUSE).await;
        false
    }

    fn is_allowed(&self, answer: &Answer) -> bool {
        answer.code().is_some_and(|code| self.allowed.contains(&code))
    }
}

fn kind(error: &holdfast_http::client::ClientError) -> String {
    let kind = match error {
        _ if error.is_timeout() => "no answer in time",
        _ if error.is_connect() => "no connection",
        _ => "connection broke",
    };
    kind.to_owned()
}
