//! A small object store that is honest, or not.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Method, Request, Response};

use crate::support::{Answer, Serving, answer, serve};

/// In which way it is not what it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    /// One bit of what is read is another.
    Flips,
    /// The end of what is read is missing.
    Cuts,
    /// What was stored is not there.
    Forgets,
    /// Nothing is deleted.
    KeepsDeleted,
    /// `Range` gives another part.
    ShiftsRange,
    /// Every fifth request is answered 500.
    Fails,
    /// Every fifth request finds its connection closed.
    HangsUp,
    /// The first requests are answered 503.
    StartsLate,
}

#[derive(Debug)]
pub(crate) struct Liar {
    serving: Serving,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    lie: Lie,
    objects: HashMap<String, Bytes>,
    requests: usize,
}

impl Liar {
    pub(crate) async fn start(lie: Lie) -> Self {
        let state = State { lie, objects: HashMap::new(), requests: 0 };
        let state = Arc::new(Mutex::new(state));
        let shared = Arc::clone(&state);
        let serving =
            serve(None, move |request| shared.lock().expect("no panic").handle(&request)).await;
        Self { serving, state }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.serving.address)
    }

    pub(crate) fn connections(&self) -> usize {
        self.serving.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn requests(&self) -> usize {
        self.state.lock().expect("no panic").requests
    }

    pub(crate) fn objects(&self) -> usize {
        self.state.lock().expect("no panic").objects.len()
    }
}

impl State {
    fn handle(&mut self, request: &Request<Bytes>) -> Answer {
        self.requests += 1;
        let fifth = self.requests.is_multiple_of(5);
        match self.lie {
            Lie::Fails if fifth => return answer(500, r#"{"code":"internal"}"#),
            Lie::HangsUp if fifth => return None,
            Lie::StartsLate if self.requests < 4 => {
                return answer(503, r#"{"code":"no-data-servers"}"#);
            }
            _ => {}
        }
        let path = request.uri().path().to_owned();
        match *request.method() {
            Method::PUT => {
                self.objects.insert(path, request.body().clone());
                Some(Response::builder().header("etag", "\"1\"").body(Bytes::new()).expect("good"))
            }
            Method::DELETE => {
                if self.lie != Lie::KeepsDeleted {
                    self.objects.remove(&path);
                }
                answer(204, "")
            }
            _ => self.read(&path, request),
        }
    }

    fn read(&self, path: &str, request: &Request<Bytes>) -> Answer {
        let found = self.objects.get(path).filter(|_| self.lie != Lie::Forgets);
        let Some(content) = found else { return answer(404, r#"{"code":"not-found"}"#) };
        let mut content = content.to_vec();
        match self.lie {
            Lie::Flips => content[0] ^= 1,
            Lie::Cuts => content.truncate(content.len() - 1),
            _ => {}
        }
        let Some(range) = request.headers().get("range") else { return answer(200, content) };
        let range = range.to_str().ok().and_then(|range| range.strip_prefix("bytes="));
        let (first, last) = range.and_then(|range| range.split_once('-')).expect("one range");
        let (first, last): (usize, usize) =
            (first.parse().expect("a number"), last.parse().expect("a number"));
        let shift = usize::from(self.lie == Lie::ShiftsRange);
        let told = format!("bytes {first}-{last}/{}", content.len());
        let part = Bytes::copy_from_slice(&content[first + shift..=last + shift]);
        Some(
            Response::builder().status(206).header("content-range", told).body(part).expect("good"),
        )
    }
}
