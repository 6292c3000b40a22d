//! Clients that write and read a few keys at random, and remember everything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::lists;
use crate::client::{self, Response};
use crate::history::{Action, MAX_OPERATIONS, Operation, Outcome};
use crate::lists::Lists;
use crate::workload::{self, Asked, Dice};

/// Keys that are used at a time.
const KEYS: u64 = 5;

/// Operations on one key before a new one takes its place.
pub(super) const OPERATIONS: usize = MAX_OPERATIONS - 24;

/// Of so many requests one is a list.
const REQUESTS_PER_LIST: u64 = 16;

/// What the clients have done.
#[derive(Debug)]
pub(super) struct Load {
    apis: Vec<String>,
    copies: AtomicUsize,
    started: Instant,
    stopped: AtomicBool,
    values: AtomicU64,
    /// By key; one history each.
    histories: Mutex<BTreeMap<String, Vec<Operation>>>,
    /// Key numbers in use and how often each was used.
    pub(super) keys: Mutex<Vec<(u64, usize)>>,
    pub(super) lists: Mutex<Lists>,
    wrong_bytes: Mutex<Vec<String>>,
    /// Answers that must not be.
    unexpected: Mutex<Vec<String>>,
    /// Writes that were refused for want of room: when they were asked for and
    /// answered.
    no_room: Mutex<Vec<(Duration, Duration)>>,
    /// When each client's operations succeeded.
    successes: Mutex<Vec<(usize, Duration)>>,
    pub(super) unavailable: AtomicU64,
    /// Bursts of creators.
    pub(super) bursts: AtomicU64,
}

impl Load {
    pub(super) fn new(apis: Vec<String>, copies: usize) -> Self {
        Self {
            apis,
            copies: AtomicUsize::new(copies),
            started: Instant::now(),
            stopped: AtomicBool::new(false),
            values: AtomicU64::new(1),
            histories: Mutex::default(),
            keys: Mutex::new((0..KEYS).map(|key| (key, 0)).collect()),
            lists: Mutex::default(),
            wrong_bytes: Mutex::default(),
            unexpected: Mutex::default(),
            no_room: Mutex::default(),
            successes: Mutex::default(),
            unavailable: AtomicU64::new(0),
            bursts: AtomicU64::new(0),
        }
    }

    pub(super) fn started(&self) -> Instant {
        self.started
    }

    /// Copies that each object is to have.
    pub(super) fn copies(&self) -> usize {
        self.copies.load(Ordering::SeqCst)
    }

    /// From now on it is to have so many.
    pub(super) fn expect_copies(&self, copies: usize) {
        self.copies.store(copies, Ordering::SeqCst);
    }

    pub(super) fn apis(&self) -> &[String] {
        &self.apis
    }

    /// Remembers what was read in the end; what is read again and again adds
    /// nothing.
    pub(super) fn remember_last(&self, key: &str, read: Operation) {
        let mut all = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
        let history = all.entry(key.to_owned()).or_default();
        history.retain(|one| one.client != read.client || one.outcome != read.outcome);
        history.push(read);
    }

    pub(super) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::SeqCst)
    }

    /// A value that was never written before.
    pub(super) fn new_value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::SeqCst)
    }

    /// What was asked of each key, lists included.
    pub(super) fn histories(&self) -> BTreeMap<String, Vec<Operation>> {
        let mut all = self.histories.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, read) in lists.reads() {
            all.entry(key.to_owned()).or_default().push(read);
        }
        all
    }

    /// How many names lists told of.
    pub(super) fn listed_count(&self) -> usize {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).count()
    }

    pub(super) fn wrong_bytes(&self) -> Vec<String> {
        self.wrong_bytes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn unexpected(&self) -> Vec<String> {
        self.unexpected.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn no_room(&self) -> Vec<(Duration, Duration)> {
        self.no_room.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn successes(&self) -> Vec<(usize, Duration)> {
        self.successes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Works until it is stopped.
    pub(super) async fn run(self: Arc<Self>, client: usize, seed: u64) {
        let mut dice = Dice::new(seed ^ (client as u64 + 1) << 32);
        let mut seen: BTreeMap<String, (String, u64)> = BTreeMap::new();
        while !self.is_stopped() {
            if dice.roll(REQUESTS_PER_LIST) == 0 {
                self.list(client, &mut dice).await;
            } else {
                let key = self.key(&mut dice);
                self.operate(client, &key, &mut dice, &mut seen).await;
            }
            tokio::time::sleep(Duration::from_millis(dice.roll(30))).await;
        }
    }

    /// A key in use; one that was used enough is replaced.
    fn key(&self, dice: &mut Dice) -> String {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let place = usize::try_from(dice.roll(KEYS)).unwrap_or(0);
        let (number, used) = &mut keys[place];
        if *used >= OPERATIONS {
            *number += KEYS;
            *used = 0;
        }
        *used += 1;
        lists::path(*number)
    }

    async fn operate(
        &self,
        client: usize,
        key: &str,
        dice: &mut Dice,
        seen: &mut BTreeMap<String, (String, u64)>,
    ) {
        let known = seen.get(key).cloned();
        let asked = workload::ask(dice, known.as_ref(), self.new_value());
        let api = &self.apis[usize::try_from(dice.roll(self.apis.len() as u64)).unwrap_or(0)];
        if let Some(end) = self.ask(client, api, key, asked, seen).await {
            self.succeeded(client, end);
        }
    }

    /// Asks, and remembers what came of it. Gives when the answer came, if that says
    /// anything for certain.
    pub(super) async fn ask(
        &self,
        client: usize,
        api: &str,
        key: &str,
        asked: Asked,
        seen: &mut BTreeMap<String, (String, u64)>,
    ) -> Option<Duration> {
        let Asked { action, method, header, body } = asked;
        let headers: Vec<(&str, &str)> =
            header.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let start = self.started.elapsed();
        let answer = client::request(api, method, key, &headers, &body).await;
        let end = self.started.elapsed();
        let outcome = match answer {
            // It says that nothing was stored, and whether a disk was full is looked
            // at in the end.
            Ok(answer) if answer.status == 507 && answer.code() == "no-space" => {
                let mut all = self.no_room.lock().unwrap_or_else(PoisonError::into_inner);
                all.push((start, end));
                None
            }
            Ok(answer) => self.understand(key, action, &answer, seen),
            Err(_) => Some(Outcome::Maybe),
        };
        if let Some(outcome) = outcome {
            let operation = Operation { client, start, end, action, outcome };
            let mut all = self.histories.lock().unwrap_or_else(PoisonError::into_inner);
            all.entry(key.to_owned()).or_default().push(operation);
        }
        let is_certain = outcome.is_some_and(|outcome| outcome != Outcome::Maybe);
        if !is_certain {
            self.was_unavailable();
        }
        is_certain.then_some(end)
    }

    pub(super) fn was_unavailable(&self) {
        self.unavailable.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn succeeded(&self, client: usize, end: Duration) {
        let mut all = self.successes.lock().unwrap_or_else(PoisonError::into_inner);
        all.push((client, end));
    }

    /// `None` when it certainly had no effect and says nothing.
    fn understand(
        &self,
        key: &str,
        action: Action,
        answer: &Response,
        seen: &mut BTreeMap<String, (String, u64)>,
    ) -> Option<Outcome> {
        if let (Some(value), 200) = (action.written(), answer.status) {
            self.was_told(answer, value);
        }
        match (action, answer.status) {
            (Action::Read, 200) => {
                let value = self.value_of(key, &answer.body);
                if let (Some(value), Some(etag)) = (value, answer.header("etag")) {
                    seen.insert(key.to_owned(), (etag.to_owned(), value));
                    self.was_told(answer, value);
                }
                value.map(|value| Outcome::Saw(Some(value)))
            }
            (Action::Read, 404) => Some(Outcome::Saw(None)),
            (Action::Read, 503) => None,
            (Action::Read, _) => {
                self.did_not_expect(key, action, answer);
                None
            }
            (_, status) => workload::understand(status, &answer.code()).unwrap_or_else(|_| {
                self.did_not_expect(key, action, answer);
                Some(Outcome::Maybe)
            }),
        }
    }

    fn was_told(&self, answer: &Response, value: u64) {
        let Some(etag) = answer.header("etag") else { return };
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).learn(etag, value);
    }

    pub(super) fn did_not_expect(&self, key: &str, action: Action, answer: &Response) {
        let what = format!("{key}: {action:?} was answered {}: {}", answer.status, answer.text());
        self.unexpected.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    pub(super) fn value_of(&self, key: &str, body: &[u8]) -> Option<u64> {
        let value = workload::value_of(body);
        if value.is_some() {
            return value;
        }
        let mut wrong = self.wrong_bytes.lock().unwrap_or_else(PoisonError::into_inner);
        wrong.push(format!("{key}: {} bytes that nobody wrote", body.len()));
        None
    }
}
