//! Clients that write, read back, compare and delete all the time, and count
//! what goes wrong: for a rollout that must not fail a request.

mod client;
mod tally;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use holdfast_runtime::Runtime;
use holdfast_telemetry::shutdown::{Phase, Shutdown};

use self::client::Client;
pub use self::tally::{Summary, Tally};
use crate::output::{complain, say};
use crate::site::Site;

/// What to load, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to.
    pub api: Site,
    /// How.
    pub manner: Manner,
}

/// How to load.
#[derive(Debug, Clone)]
pub struct Manner {
    /// How many clients at once.
    pub clients: usize,
    /// For how long.
    pub time: Duration,
    /// Length of an object.
    pub object_bytes: usize,
    /// What names begin with.
    pub prefix: String,
    /// Codes of problems that are expected, such as `incomplete` while a data
    /// server restarts: they are counted, and no failure.
    pub allowed: Vec<String>,
    /// Whether a client keeps its connection.
    pub keep_alive: bool,
    /// Whether the summary is JSON.
    pub json: bool,
}

impl Default for Manner {
    fn default() -> Self {
        Self {
            clients: 8,
            time: Duration::from_secs(60),
            object_bytes: 16 << 10,
            prefix: "load".to_owned(),
            allowed: Vec::new(),
            keep_alive: true,
            json: false,
        }
    }
}

/// Loads until the time is over or `shutdown` begins, removes what it has
/// stored, and says what it has seen. A second signal ends it at once.
///
/// The exit status is 0 if there were requests and all were answered as they
/// should be.
pub async fn run(runtime: &Runtime, options: &Options, shutdown: &Shutdown) -> ExitCode {
    let summary = load(runtime, options, shutdown).await;
    if options.manner.json {
        say(format_args!("{}", summary.json()));
    } else {
        say(format_args!("{summary}"));
    }
    if summary.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn load(runtime: &Runtime, options: &Options, shutdown: &Shutdown) -> Summary {
    let Options { api, manner } = options;
    let tally = Arc::new(Tally::default());
    let ending = Shutdown::new();
    let run = runtime.random_u64();
    let began = runtime.now();
    let mut tasks = Vec::new();
    for number in 0..manner.clients {
        let names = format!("{}-{run:016x}-{number}", manner.prefix);
        let client = Client::new(runtime, api, names, manner, Arc::clone(&tally), ending.clone());
        tasks.push(runtime.spawn("load", client.run()));
    }
    tokio::select! {
        biased;
        () = shutdown.wait_for(Phase::Leaving) => {}
        () = runtime.sleep(manner.time) => {}
    }
    ending.begin();
    let all = async {
        for task in &mut tasks {
            task.finished().await;
        }
    };
    tokio::select! {
        biased;
        () = all => {}
        () = shutdown.wait_for(Phase::Forced) => complain(format_args!("ended at once")),
    }
    tally.summary(runtime.now().saturating_sub(began))
}

/// Bytes that can be made again from the seed, by which no two objects are
/// alike.
#[must_use]
pub fn content(seed: u64, length: usize) -> Bytes {
    let mut bytes = BytesMut::with_capacity(length + 8);
    let mut state = seed;
    while bytes.len() < length {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes.freeze()
}
