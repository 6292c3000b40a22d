//! Whether a Holdfast does what it is for.

use std::time::Duration;

use bytes::Bytes;
use holdfast_http::client::ClientError;
use holdfast_runtime::Runtime;
use http::Method;
use thiserror::Error;

use crate::output::{chain, complain, say};
use crate::site::{Answer, Site, Visitor, object_path};

/// One object that lies in the log of a data server and one that has a file of
/// its own: they are written in different ways.
const OBJECT_BYTES: [usize; 2] = [1_000, 1_000_000];

/// The part that is asked for with `Range`.
const RANGE: std::ops::RangeInclusive<usize> = 100..=899;

/// Time between two tries.
const PAUSE: Duration = Duration::from_millis(200);

/// What to test.
#[derive(Debug)]
pub struct Options {
    /// Where objects are stored.
    pub api: Site,
    /// Whose probes and metrics to read.
    pub admin: Vec<Site>,
    /// How long to try again what may pass.
    pub timeout: Duration,
}

/// The first step that failed.
#[derive(Debug, Error)]
#[error("selftest failed: {step}: {reason}")]
pub struct SelftestError {
    step: String,
    reason: String,
}

/// What a try came to.
enum Trouble {
    /// It may be better in a moment: the service just starts, or is away.
    Passing(String),
    /// It must not happen.
    Wrong(String),
}

/// Tests everything, and says each step that it has taken.
///
/// # Errors
/// The first step that failed.
pub async fn run(runtime: &Runtime, options: &Options) -> Result<(), SelftestError> {
    let deadline = runtime.now() + options.timeout;
    let trial = Trial { runtime: runtime.clone(), visitor: Visitor::new(runtime, true), deadline };
    for admin in &options.admin {
        trial.watch(admin).await?;
    }
    for length in OBJECT_BYTES {
        let path = object_path(&format!("holdfastctl-selftest-{:032x}", runtime.random_u128()));
        let content = crate::load::content(runtime.random_u64(), length);
        let object = Object { trial: &trial, api: &options.api, path, content };
        let tested = object.test().await;
        if tested.is_err() {
            object.remove().await;
        }
        tested?;
    }
    say(format_args!("selftest passed"));
    Ok(())
}

struct Trial {
    runtime: Runtime,
    visitor: Visitor,
    deadline: Duration,
}

impl Trial {
    /// Asks until the answer has this status and `check` finds nothing wrong
    /// with it, or until it is clear that it never will.
    async fn step(
        &self,
        (site, method, path): (&Site, Method, &str),
        headers: &[(&'static str, &str)],
        body: &Bytes,
        expected: u16,
        check: impl Fn(&Answer) -> Result<String, String>,
    ) -> Result<(), SelftestError> {
        let step = format!("{method} {site}{path}");
        loop {
            let asked = self.visitor.ask(site, method.clone(), path, headers, body.clone()).await;
            let judged =
                judge(asked, expected).and_then(|answer| check(&answer).map_err(Trouble::Wrong));
            let reason = match judged {
                Ok(seen) => {
                    say(format_args!("ok    {step}: {seen}"));
                    return Ok(());
                }
                Err(Trouble::Passing(reason)) if self.runtime.now() + PAUSE < self.deadline => {
                    complain(format_args!("again {step}: {reason}"));
                    self.runtime.sleep(PAUSE).await;
                    continue;
                }
                Err(Trouble::Passing(reason) | Trouble::Wrong(reason)) => reason,
            };
            return Err(SelftestError { step, reason });
        }
    }

    /// Probes and metrics of a service.
    async fn watch(&self, admin: &Site) -> Result<(), SelftestError> {
        let nothing = Bytes::new();
        let get = |path| (admin, Method::GET, path);
        self.step(get("/readyz"), &[], &nothing, 200, |_| Ok("ready".to_owned())).await?;
        self.step(get("/metrics"), &[], &nothing, 200, |answer| {
            let text = String::from_utf8_lossy(&answer.body);
            let samples = text.lines().filter(|line| line.starts_with("holdfast_"));
            let is_ours = text.contains("\nholdfast_build_info{");
            is_ours
                .then(|| format!("{} samples", samples.count()))
                .ok_or_else(|| "these are not the metrics of a Holdfast service".to_owned())
        })
        .await
    }
}

fn judge(asked: Result<Answer, ClientError>, expected: u16) -> Result<Answer, Trouble> {
    match asked {
        Ok(answer) if answer.status == expected => Ok(answer),
        Ok(answer) => {
            let reason = format!("answered {} instead of {expected}", answer.title());
            let passing = matches!(answer.status, 429 | 502 | 503 | 504);
            Err(if passing { Trouble::Passing(reason) } else { Trouble::Wrong(reason) })
        }
        Err(error) => Err(Trouble::Passing(chain(&error))),
    }
}

struct Object<'a> {
    trial: &'a Trial,
    api: &'a Site,
    path: String,
    content: Bytes,
}

impl Object<'_> {
    async fn test(&self) -> Result<(), SelftestError> {
        let nothing = Bytes::new();
        let length = self.content.len();
        let on = |method| (self.api, method, self.path.as_str());
        let stored = |answer: &Answer| {
            let tagged = answer.headers.contains_key("etag");
            tagged.then(|| format!("{length} bytes stored")).ok_or("without an ETag".to_owned())
        };
        self.trial.step(on(Method::PUT), &[], &self.content, 200, stored).await?;
        self.trial
            .step(on(Method::GET), &[], &nothing, 200, |answer| same(&answer.body, &self.content))
            .await?;
        let (first, last) = (*RANGE.start(), *RANGE.end());
        let range = format!("bytes={first}-{last}");
        let part = self.content.slice(RANGE);
        self.trial
            .step(on(Method::GET), &[("range", &range)], &nothing, 206, |answer| {
                let told = answer.headers.get("content-range").map(|value| value.as_bytes());
                let right = format!("bytes {first}-{last}/{length}");
                if told != Some(right.as_bytes()) {
                    return Err(format!("its Content-Range is not {right:?}"));
                }
                same(&answer.body, &part)
            })
            .await?;
        let done = |what: &'static str| move |_: &Answer| Ok(what.to_owned());
        self.trial.step(on(Method::DELETE), &[], &nothing, 204, done("deleted")).await?;
        self.trial.step(on(Method::GET), &[], &nothing, 404, done("gone")).await
    }

    /// After a failure, so that nothing is left behind; whether it works does
    /// not matter any more.
    async fn remove(&self) {
        let visitor = &self.trial.visitor;
        let _ = visitor.ask(self.api, Method::DELETE, &self.path, &[], Bytes::new()).await;
    }
}

fn same(got: &Bytes, expected: &Bytes) -> Result<String, String> {
    if got == expected {
        return Ok(format!("{} bytes as they were stored", got.len()));
    }
    let at = got.iter().zip(expected).take_while(|(a, b)| a == b).count();
    Err(format!("{} bytes instead of {}, wrong from byte {at} on", got.len(), expected.len()))
}
