//! Clients: what they ask for, and what they saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use holdfast_runtime::Runtime;
use holdfast_testkit::client::copies_of_newest;
use holdfast_testkit::history::{Action, MAX_OPERATIONS, Operation, Outcome};
use holdfast_testkit::lists::{Lists, Page};
use holdfast_testkit::workload::{Asked, Dice, Seen, ask, request, understand, value_of};

use crate::client::{Answer, Client};
use crate::cluster::World;
use crate::plan::Plan;
use crate::random::mix;

/// Operations on one key before a new one takes its place.
const OPERATIONS: usize = MAX_OPERATIONS - 24;

/// Who reads in the end.
const READER: usize = usize::MAX;

/// What the clients have done.
#[derive(Debug)]
pub struct Load {
    world: World,
    apis: Vec<String>,
    plan: Plan,
    is_paused: AtomicBool,
    is_over: AtomicBool,
    values: AtomicU64,
    /// By key; one history each.
    histories: Mutex<BTreeMap<String, Vec<Operation>>>,
    /// Key numbers in use and how often each was used.
    keys: Mutex<Vec<(u64, usize)>>,
    lists: Mutex<Lists>,
    wrong: Mutex<Vec<String>>,
    unavailable: AtomicU64,
}

/// Who asks whom, about what.
#[derive(Debug, Clone, Copy)]
pub struct Asking<'a> {
    /// Who asks.
    pub client: usize,
    /// By way of what.
    pub requests: &'a Client,
    /// The address of an api.
    pub api: &'a str,
    /// The path of an object.
    pub key: &'a str,
    /// How long an answer is waited for.
    pub patience: Duration,
}

/// Where a key is.
pub(crate) fn path(number: u64) -> String {
    format!("/objects/key-{number}")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Load {
    /// Nothing yet.
    #[must_use]
    pub fn new(world: World, apis: Vec<String>, plan: &Plan) -> Self {
        Self {
            world,
            apis,
            plan: plan.clone(),
            is_paused: AtomicBool::new(false),
            is_over: AtomicBool::new(false),
            values: AtomicU64::new(1),
            histories: Mutex::default(),
            keys: Mutex::new((0..plan.keys).map(|key| (key, 0)).collect()),
            lists: Mutex::default(),
            wrong: Mutex::default(),
            unavailable: AtomicU64::new(0),
        }
    }

    /// No new requests, until it is lifted.
    pub fn set_paused(&self, paused: bool) {
        self.is_paused.store(paused, Ordering::SeqCst);
    }

    /// No new requests any more.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::SeqCst);
    }

    /// What was seen of each key, by lists too.
    #[must_use]
    pub fn histories(&self) -> BTreeMap<String, Vec<Operation>> {
        let mut all = locked(&self.histories).clone();
        for (key, read) in locked(&self.lists).reads() {
            all.entry(key.to_owned()).or_default().push(read);
        }
        all
    }

    /// Answers that must never come.
    #[must_use]
    pub fn wrong(&self) -> Vec<String> {
        locked(&self.wrong).clone()
    }

    /// Operations that were not possible.
    #[must_use]
    pub fn unavailable(&self) -> u64 {
        self.unavailable.load(Ordering::SeqCst)
    }

    /// Works until it is over.
    pub async fn run(self: Arc<Self>, client: usize, runtime: Runtime, seed: u64) {
        let mut dice = Dice::new(mix(seed, client as u64));
        let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
        let requests = Client::new(&runtime);
        // Some give up soon.
        let patience = Duration::from_secs(if client.is_multiple_of(3) { 1 } else { 12 });
        while !self.is_over.load(Ordering::SeqCst) {
            if !self.is_paused.load(Ordering::SeqCst) {
                let key = self.key(&mut dice, 1);
                if dice.roll(12) == 0 {
                    self.list(client, &requests, patience, &mut dice).await;
                }
                if dice.roll(8) == 0 {
                    self.look_around(client, &requests, patience, &mut dice).await;
                }
                self.operate(client, &requests, patience, &key, &mut dice, &mut seen).await;
            }
            let most = if dice.roll(2) == 0 { 8 } else { self.plan.think_millis };
            let pause = dice.roll(most);
            runtime.sleep(Duration::from_millis(pause)).await;
        }
    }

    /// A key in use, for so many operations; one that was used enough is
    /// replaced.
    fn key(&self, dice: &mut Dice, operations: usize) -> String {
        let mut keys = locked(&self.keys);
        let place = usize::try_from(dice.roll(self.plan.keys)).unwrap_or(0);
        let Some((number, used)) = keys.get_mut(place) else { return String::new() };
        if *used >= OPERATIONS {
            *number += self.plan.keys;
            *used = 0;
        }
        *used += operations;
        path(*number)
    }

    /// Reads a key through every api at once.
    async fn look_around(
        &self,
        client: usize,
        requests: &Client,
        patience: Duration,
        dice: &mut Dice,
    ) {
        let key = &self.key(dice, self.apis.len());
        let reads = self.apis.iter().map(|api| async move {
            let asking = Asking { client, requests, api, key, patience };
            self.ask(asking, request(Action::Read, ""), &mut BTreeMap::new()).await;
        });
        join_all(reads).await;
    }

    /// Lists all keys, page by page, as far as those that are in use.
    async fn list(&self, client: usize, requests: &Client, patience: Duration, dice: &mut Dice) {
        let mut keys = self.keys_in_use();
        let place = usize::try_from(dice.roll(self.apis.len() as u64)).unwrap_or(0);
        let Some(api) = self.apis.get(place) else { return };
        let limit = 2 + dice.roll(16);
        let mut after = String::new();
        while !keys.is_empty() {
            let path = format!("/objects/?limit={limit}&start-after={after}");
            let start = self.world.executor.now();
            let answer = requests.send(api, "GET", &path, None, Vec::new(), patience).await;
            let end = self.world.executor.now();
            let told = answer.as_ref().map_or_else(Clone::clone, Answer::to_string);
            self.world.trace.add(&format!("client {client} {path} {api}: {told}"));
            let answer = match answer {
                Ok(answer) if answer.status == 200 => answer,
                Ok(answer) if answer.status != 503 => {
                    return self.complain(format!("{path} was answered {answer}"));
                }
                _ => {
                    self.unavailable.fetch_add(1, Ordering::SeqCst);
                    return;
                }
            };
            let listed = serde_json::from_slice(&answer.body).unwrap_or_default();
            let next = locked(&self.lists).add(Page { client, start, end }, &mut keys, &listed);
            match next {
                Some(next) if next > after => after = next,
                Some(next) => return self.complain(format!("{path} goes on at {next}")),
                None => return,
            }
        }
    }

    /// Those that were not used enough. Each is used by it.
    fn keys_in_use(&self) -> BTreeSet<String> {
        let mut keys = locked(&self.keys);
        let in_use = keys.iter_mut().filter(|(_, used)| *used < OPERATIONS);
        let used = in_use.map(|(number, used)| {
            *used += 1;
            path(*number)
        });
        used.collect()
    }

    async fn operate(
        &self,
        client: usize,
        requests: &Client,
        patience: Duration,
        key: &str,
        dice: &mut Dice,
        seen: &mut BTreeMap<String, Seen>,
    ) {
        let asked = ask(dice, seen.get(key), self.value());
        let place = usize::try_from(dice.roll(self.apis.len() as u64)).unwrap_or(0);
        let Some(api) = self.apis.get(place) else { return };
        self.ask(Asking { client, requests, api, key, patience }, asked, seen).await;
    }

    /// A value that nobody has written.
    pub fn value(&self) -> u64 {
        self.values.fetch_add(1, Ordering::SeqCst)
    }

    /// Whether a key was used so often that its history cannot take more.
    #[must_use]
    pub fn is_full(&self, key: &str) -> bool {
        locked(&self.histories).get(key).is_some_and(|history| history.len() >= OPERATIONS)
    }

    /// One request; what came of it goes to the history of its key.
    pub async fn ask(&self, asking: Asking<'_>, asked: Asked, seen: &mut BTreeMap<String, Seen>) {
        let Asking { client, requests, api, key, patience } = asking;
        let Asked { action, method, header, body } = asked;
        let start = self.world.executor.now();
        let answer = requests.send(api, method, key, header.as_ref(), body, patience).await;
        let end = self.world.executor.now();
        let outcome = match &answer {
            Ok(answer) => self.outcome(key, action, answer, seen),
            Err(_) => Some(Outcome::Maybe),
        };
        let told = answer.map_or_else(|error| error, |answer| answer.to_string());
        self.world.trace.add(&format!("client {client} {key} {action:?} {api}: {told}"));
        if matches!(outcome, None | Some(Outcome::Maybe)) {
            self.unavailable.fetch_add(1, Ordering::SeqCst);
        }
        if let Some(outcome) = outcome {
            self.record(key, Operation { client, start, end, action, outcome });
        }
    }

    fn record(&self, key: &str, operation: Operation) {
        locked(&self.histories).entry(key.to_owned()).or_default().push(operation);
    }

    /// `None` when it certainly had no effect and says nothing.
    fn outcome(
        &self,
        key: &str,
        action: Action,
        answer: &Answer,
        seen: &mut BTreeMap<String, Seen>,
    ) -> Option<Outcome> {
        if let (Some(value), 200) = (action.written(), answer.status) {
            locked(&self.lists).learn(&answer.etag, value);
        }
        match (action, answer.status) {
            (Action::Read, 200) => {
                let Some(value) = value_of(&answer.body) else {
                    self.complain(format!("{key}: {} bytes that nobody wrote", answer.body.len()));
                    return None;
                };
                locked(&self.lists).learn(&answer.etag, value);
                seen.insert(key.to_owned(), (answer.etag.clone(), value));
                Some(Outcome::Saw(Some(value)))
            }
            (Action::Read, 404) => Some(Outcome::Saw(None)),
            (Action::Read, 503) => None,
            (Action::Read, status) => {
                self.complain(format!("{key}: a read was answered {status} {}", answer.code));
                None
            }
            // It says that nothing was stored; it is held against it.
            (_, 507) if self.world.may_lack_room() && answer.code == "no-space" => None,
            (_, status) => understand(status, &answer.code).unwrap_or_else(|_| {
                self.complain(format!("{key}: {action:?} was answered {answer}"));
                Some(Outcome::Maybe)
            }),
        }
    }

    fn complain(&self, what: String) {
        locked(&self.wrong).push(what);
    }

    /// Reads every key through every api until all answer and all that is there
    /// has `copies` equal copies.
    ///
    /// # Errors
    /// What is missing, when it takes longer than `limit`.
    pub async fn read_back(
        &self,
        runtime: &Runtime,
        copies: usize,
        limit: Duration,
    ) -> Result<(), String> {
        let deadline = self.world.executor.now() + limit;
        let requests = Client::new(runtime);
        let keys: Vec<String> = self.histories().into_keys().collect();
        for key in keys {
            while let Err(missing) = self.look(&requests, &key, copies).await {
                if self.world.executor.now() > deadline {
                    return Err(missing);
                }
                runtime.sleep(Duration::from_millis(500)).await;
            }
        }
        Ok(())
    }

    async fn look(&self, requests: &Client, key: &str, copies: usize) -> Result<(), String> {
        let limit = Duration::from_secs(12);
        let mut seen = BTreeMap::new();
        for api in &self.apis {
            let start = self.world.executor.now();
            let answer = requests.send(api, "GET", key, None, Vec::new(), limit).await;
            let answer = answer.map_err(|error| format!("{key} through {api}: {error}"))?;
            let outcome = self.outcome(key, Action::Read, &answer, &mut seen);
            let Some(outcome) = outcome else {
                return Err(format!("{key} through {api}: {answer}"));
            };
            let end = self.world.executor.now();
            let read = Operation { client: READER, start, end, action: Action::Read, outcome };
            let mut all = locked(&self.histories);
            let history = all.entry(key.to_owned()).or_default();
            // What is read again and again adds nothing.
            history.retain(|one| one.client != READER || one.outcome != outcome);
            history.push(read);
        }
        let path = key.replacen("/objects/", "/locate/", 1) + "?replicas";
        let Some(api) = self.apis.first() else { return Ok(()) };
        let answer = requests.send(api, "GET", &path, None, Vec::new(), limit).await?;
        if answer.status == 404 {
            return Ok(());
        }
        let listed: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let equal = copies_of_newest(&listed);
        if equal >= copies {
            return Ok(());
        }
        Err(format!("{key} has {equal} of {copies} copies: {listed}"))
    }
}
