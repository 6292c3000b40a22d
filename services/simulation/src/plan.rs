//! What a seed stands for.

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::aims::Aim;
use crate::random::{Random, mix};

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A data server dies at once and is started later.
    Kill,
    /// A data server ends in order and is started later.
    Restart,
    /// A data server stands still.
    Pause,
    /// No byte to or from a data server, and no broker.
    Isolate,
    /// No byte between two hosts, in one direction or both.
    CutLink,
    /// Every connection of a data server breaks.
    Reset,
    /// A data server has no broker, or one that hangs.
    CutBroker,
    /// A data server loses its disk.
    Wipe,
    /// A data server's disk has no room for payloads.
    Fill,
    /// An api dies at once and is started later.
    KillApi,
    /// An api stands still.
    PauseApi,
    /// The broker is gone.
    StopBroker,
    /// The broker hangs.
    FreezeBroker,
    /// A clock jumps.
    Skew,
    /// Everything to and from a host takes long.
    Slow,
    /// One data server more.
    Add,
    /// A data server is drained, and sometimes that is taken back.
    Drain,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Kill,
        Self::Restart,
        Self::Pause,
        Self::Isolate,
        Self::CutLink,
        Self::Reset,
        Self::CutBroker,
        Self::Wipe,
        Self::Fill,
        Self::KillApi,
        Self::PauseApi,
        Self::StopBroker,
        Self::FreezeBroker,
        Self::Skew,
        Self::Slow,
        Self::Add,
        Self::Drain,
    ];
}

/// A run.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Where all that is random comes from.
    pub seed: u64,
    /// What it is about, if it is about one thing. Then there is no other load
    /// and no other fault.
    pub aim: Option<Aim>,
    /// Data servers in the beginning.
    pub servers: usize,
    /// `REPLICAS` in the beginning.
    pub replicas: u32,
    /// What the data servers are told afterwards, one after the other.
    pub changes: Vec<u32>,
    /// Apis.
    pub apis: usize,
    /// Clients.
    pub clients: usize,
    /// Keys that are used at a time.
    pub keys: u64,
    /// Longest pause of a client between two requests, in milliseconds; every
    /// second one is short.
    pub think_millis: u64,
    /// How long faults go on.
    pub duration: Duration,
    /// Which faults.
    pub kinds: Vec<Kind>,
    /// Faults at the same time.
    pub most_faults: usize,
    /// Longest time between two faults, in milliseconds.
    pub calm_millis: u64,
    /// How long messages of the broker take.
    pub bus_delay: RangeInclusive<Duration>,
    /// Part of the messages of the broker that is lost.
    pub bus_loss: f64,
    /// Part of the messages of the broker that comes twice.
    pub bus_duplicates: f64,
    /// Whether data servers know each other's addresses.
    pub has_peers: bool,
    /// Whether faults begin only when voters answer for names.
    pub awaits_voters: bool,
    /// How far wall clocks are off, in milliseconds.
    pub skew_millis: u64,
}

impl Plan {
    /// The run of a seed.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let plan = Self::by_chance(seed);
        match Aim::of(seed) {
            Some(aim) => plan.aimed(aim),
            None => plan,
        }
    }

    /// Mostly few members, so that each of them matters, and a network without
    /// troubles of its own.
    fn aimed(self, aim: Aim) -> Self {
        let random = Random::new(mix(self.seed, 0x6169_6d65));
        let is_small = match aim {
            Aim::WritersDie | Aim::LateWrites => random.percent(60),
            Aim::FallingVoters => false,
            _ => true,
        };
        let most = Duration::from_millis(random.within(0, 4));
        Self {
            aim: Some(aim),
            // Three have no electorate: while one falls, what a lost member takes
            // with it has been copied.
            servers: match (is_small, aim) {
                (true, Aim::DeletesBetween | Aim::FullDisk) => 4,
                (true, _) => 3,
                (false, _) => 5,
            },
            // Where each of three is to have everything, each may have it alone.
            replicas: match aim {
                Aim::UnansweredWrites | Aim::LostTombstones => 3,
                _ if is_small => 2,
                _ => 3,
            },
            changes: Vec::new(),
            apis: if aim == Aim::WritersDie { 3 } else { 2 },
            clients: 0,
            bus_delay: Duration::ZERO..=most,
            bus_loss: 0.0,
            bus_duplicates: 0.0,
            skew_millis: 200,
            ..self
        }
    }

    fn by_chance(seed: u64) -> Self {
        let random = Random::new(mix(seed, 0x706c_616e));
        let pick = |choices: &[f64]| choices.get(random.place(choices.len())).copied();
        let (servers, replicas, changes) = match random.below(10) {
            0..7 => (5, 3, vec![]),
            7..9 => (3, 2, vec![]),
            _ => (5, 1, vec![3, 2]),
        };
        // Each seed leaves some kinds out: what one fault hides another may show.
        let kinds: Vec<Kind> = Kind::ALL.into_iter().filter(|_| random.percent(55)).collect();
        let delay = pick(&[0.002, 0.005, 0.02, 0.2]).unwrap_or_default();
        Self {
            seed,
            aim: None,
            servers,
            replicas,
            changes,
            apis: 2,
            clients: 3 + random.place(4),
            keys: random.within(1, 4),
            think_millis: random.within(150, 600),
            duration: Duration::from_secs(random.within(20, 60)),
            kinds,
            most_faults: 1 + random.place(3),
            calm_millis: random.within(300, 3_000),
            bus_delay: Duration::ZERO..=Duration::from_secs_f64(delay),
            bus_loss: pick(&[0.0, 0.0, 0.01, 0.1, 0.3]).unwrap_or_default(),
            bus_duplicates: pick(&[0.0, 0.02, 0.2]).unwrap_or_default(),
            has_peers: random.percent(60),
            awaits_voters: servers == 5 && replicas == 3 && random.percent(60),
            skew_millis: if random.percent(40) { 600_000 } else { 200 },
        }
    }
}
