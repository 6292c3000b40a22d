//! What goes wrong: one thing after the other, sometimes two at once, and some
//! that last while others come and go.

use std::time::{Duration, Instant};

use super::change::Change;
use super::deck::Deck;
use super::full::Full;
use super::kind::Kind;
use super::skew::Skewed;
use super::stage::Stage;
use super::{HEALING, Load};
use crate::process::Service;
use crate::workload::Dice;

/// Exit status of a data server that was given up while it was away, and is to be
/// started again.
const GIVEN_UP: i32 = 75;

/// Exit status of one that could not start.
const NOT_STARTED: i32 = 1;

/// A fault that is over.
#[derive(Debug, Clone, Copy)]
pub(super) struct Over {
    /// What it was.
    pub kind: Kind,
    /// When it began, since the start of the load.
    pub start: Duration,
    /// When it was mended, and had a while for its aftermath. A disk that was
    /// emptied is mended when others have replaced it.
    pub end: Duration,
}

/// Makes faults.
#[derive(Debug)]
pub(super) struct Faults {
    dice: Dice,
    deck: Deck,
    started: Instant,
    /// Those that are over.
    pub over: Vec<Over>,
    pub(super) full: Option<Full>,
    pub(super) skewed: Option<Skewed>,
    pub(super) change: Option<Change>,
    /// Members whose disks were emptied.
    gone: Vec<String>,
    /// When the last disk was emptied, until it is replaced.
    wiped: Option<Duration>,
    /// How long it took until everything was whole again before a disk was emptied.
    pub healings: Vec<Duration>,
    /// What must not be.
    pub violations: Vec<String>,
}

impl Faults {
    /// Of these kinds.
    pub(super) fn new(kinds: Vec<Kind>, seed: u64, started: Instant) -> Self {
        Self {
            dice: Dice::new(seed),
            deck: Deck::new(kinds),
            started,
            over: Vec::new(),
            full: None,
            skewed: None,
            change: None,
            gone: Vec::new(),
            wiped: None,
            healings: Vec::new(),
            violations: Vec::new(),
        }
    }

    /// Whether each kind that can be made was.
    pub(super) fn has_made_all(&self) -> bool {
        self.deck.all().iter().all(|kind| self.over.iter().any(|over| over.kind == *kind))
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn roll(&mut self, sides: usize) -> usize {
        usize::try_from(self.dice.roll(sides as u64)).unwrap_or(0)
    }

    pub(super) fn wrong(&mut self, what: String) {
        eprintln!("WRONG: {what}");
        self.violations.push(what);
    }

    /// Makes one fault, or two at once, and mends what does not last.
    pub(super) async fn next(&mut self, stage: &mut Stage, load: &Load) {
        self.end_those_due(stage).await;
        let mut kinds = vec![self.deck.deal(&mut self.dice)];
        if self.roll(5) == 0 {
            kinds.push(self.deck.deal(&mut self.dice));
        }
        // What begins to last may change who is there, so it is first.
        kinds.sort_by_key(|kind| !kind.lasts());
        let mut broken: Vec<(Kind, Victim, Duration)> = Vec::new();
        for kind in kinds {
            if kind.lasts() {
                self.begin_lasting(kind, stage).await;
                continue;
            }
            // Nothing else may be broken when everything is to be whole.
            let is_late = kind == Kind::Wipe && !broken.is_empty();
            if is_late || (kind == Kind::Wipe && !self.becomes_whole(stage, load).await) {
                self.deck.put_back(kind);
                continue;
            }
            let victim = self.victim(kind, stage);
            // Two faults of one process would be one.
            if broken.iter().any(|(_, other, _)| *other == victim) {
                self.deck.put_back(kind);
                continue;
            }
            if let (Kind::Wipe, Victim::Server(place)) = (kind, victim) {
                let Some(node) = stage.node(place).await else {
                    self.deck.put_back(kind);
                    continue;
                };
                self.gone.push(node);
            }
            let start = self.elapsed();
            break_it(kind, victim, stage).await;
            broken.push((kind, victim, start));
        }
        let lasts = 500 + self.dice.roll(4_500);
        tokio::time::sleep(Duration::from_millis(lasts)).await;
        for (kind, victim, _) in &broken {
            mend(*kind, *victim, stage).await;
        }
        self.start_those_that_ended(stage);
        tokio::time::sleep(Duration::from_millis(self.dice.roll(3_000))).await;
        for (kind, _, start) in broken {
            match kind {
                Kind::Wipe => self.wiped = Some(start),
                _ => self.over.push(Over { kind, start, end: self.elapsed() }),
            }
        }
    }

    /// Begins it, or leaves it for the next round.
    async fn begin_lasting(&mut self, kind: Kind, stage: &mut Stage) {
        let has_begun = match kind {
            Kind::Fill => {
                self.relieve(stage).await;
                self.fill(stage).await
            }
            Kind::Skew => {
                self.set_right(stage).await;
                self.skew(stage).await
            }
            _ => self.begin_change(kind, stage).await,
        };
        if !has_begun {
            self.deck.put_back(kind);
        }
    }

    async fn end_those_due(&mut self, stage: &mut Stage) {
        if self.full.as_ref().is_some_and(Full::is_due) {
            self.relieve(stage).await;
        }
        if self.skewed.as_ref().is_some_and(Skewed::is_due) {
            self.set_right(stage).await;
        }
        self.go_on_with_change(stage).await;
        self.look_at_wiped(stage).await;
    }

    async fn look_at_wiped(&mut self, stage: &Stage) {
        let Some(start) = self.wiped else { return };
        if stage.are_replaced(&self.gone).await {
            self.over.push(Over { kind: Kind::Wipe, start, end: self.elapsed() });
            self.wiped = None;
        }
    }

    /// Mends everything and waits until everybody is back.
    pub(super) async fn heal(&mut self, stage: &mut Stage) {
        self.relieve(stage).await;
        self.set_right(stage).await;
        self.finish_change(stage).await;
        let deadline = Instant::now() + HEALING;
        while self.wiped.is_some() && Instant::now() < deadline {
            self.look_at_wiped(stage).await;
            self.start_those_that_ended(stage);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        if self.wiped.is_some() {
            self.wrong(format!("{:?} are not replaced after {HEALING:?}", self.gone));
        }
        for service in stage.cluster.services() {
            while !service.is_ready().await {
                if Instant::now() > deadline {
                    let what = format!("{} is not ready: {}", service.name(), last_words(service));
                    self.violations.push(what);
                    break;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// A disk may be lost only when everything is on all the others that should
    /// have it: waits for that.
    async fn becomes_whole(&mut self, stage: &mut Stage, load: &Load) -> bool {
        self.relieve(stage).await;
        self.finish_change(stage).await;
        let (began, deadline) = (Instant::now(), Instant::now() + HEALING);
        while !(stage.is_complete().await && stage.are_replaced(&self.gone).await) {
            if Instant::now() > deadline {
                let members = stage.members().await;
                self.wrong(format!("not complete after {HEALING:?}: {members:?}"));
                return false;
            }
            self.start_those_that_ended(stage);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        self.look_at_wiped(stage).await;
        if let Err(missing) = load.become_redundant(deadline).await {
            self.wrong(format!("not whole after {HEALING:?}: {missing}"));
            return false;
        }
        self.healings.push(began.elapsed());
        true
    }

    /// Starts those that have ended by themselves, as an orchestrator would, and
    /// holds it against them unless they were given up, or could not start for
    /// want of room.
    pub(super) fn start_those_that_ended(&mut self, stage: &mut Stage) {
        for service in stage.cluster.services() {
            let Some(status) = service.start_again_if_ended() else { continue };
            let is_choked = self.is_kept_from_starting(service.name());
            let is_known = match status.code() {
                Some(GIVEN_UP) => true,
                Some(NOT_STARTED) => is_choked && lacks_room(&last_words(service)),
                _ => false,
            };
            if !is_known {
                let what = format!("{} ended, {status}: {}", service.name(), last_words(service));
                eprintln!("WRONG: {what}");
                self.violations.push(what);
            }
        }
    }

    fn victim(&mut self, kind: Kind, stage: &Stage) -> Victim {
        match kind {
            Kind::KillApi | Kind::PauseApi => Victim::Api(self.roll(stage.cluster.apis.len())),
            Kind::KillBroker | Kind::PauseBroker => Victim::Broker,
            _ => Victim::Server(self.roll(stage.sites.len())),
        }
    }
}

/// Who is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Victim {
    /// By its place.
    Server(usize),
    /// By its place.
    Api(usize),
    Broker,
}

/// Whether a process ended because its disk is full.
fn lacks_room(last_words: &str) -> bool {
    let last = last_words.lines().last().unwrap_or_default().to_lowercase();
    last.contains("this service ends") && last.contains("no space")
}

fn last_words(service: &Service) -> String {
    let log = service.log();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(6)..].join("\n")
}

async fn break_it(kind: Kind, victim: Victim, stage: &mut Stage) {
    let Stage { cluster, sites, .. } = stage;
    match (victim, kind) {
        (Victim::Server(place), Kind::Kill) => cluster.data_servers[place].kill().await,
        (Victim::Server(place), Kind::Pause) => cluster.data_servers[place].pause(),
        (Victim::Server(place), Kind::Restart) => {
            cluster.data_servers[place].stop().await;
        }
        (Victim::Server(place), Kind::Wipe) => {
            cluster.data_servers[place].kill().await;
            std::fs::remove_dir_all(stage.volume(place)).expect("the volume is ours");
        }
        (Victim::Server(place), Kind::CutBroker) => sites[place].to_broker.set_cut(true),
        (Victim::Server(place), _) => sites[place].set_cut(true),
        (Victim::Api(place), Kind::KillApi) => cluster.apis[place].kill().await,
        (Victim::Api(place), _) => cluster.apis[place].pause(),
        (Victim::Broker, Kind::KillBroker) => cluster.broker.kill().await,
        (Victim::Broker, _) => cluster.broker.pause(),
    }
}

async fn mend(kind: Kind, victim: Victim, stage: &mut Stage) {
    let Stage { cluster, sites, .. } = stage;
    match (victim, kind) {
        (Victim::Server(place), Kind::Kill | Kind::Restart | Kind::Wipe) => {
            cluster.data_servers[place].start();
        }
        (Victim::Server(place), Kind::Pause) => cluster.data_servers[place].resume(),
        (Victim::Server(place), _) => sites[place].set_cut(false),
        (Victim::Api(place), Kind::KillApi) => cluster.apis[place].start(),
        (Victim::Api(place), _) => cluster.apis[place].resume(),
        (Victim::Broker, Kind::KillBroker) => cluster.broker.restart().await,
        (Victim::Broker, _) => cluster.broker.resume(),
    }
}
