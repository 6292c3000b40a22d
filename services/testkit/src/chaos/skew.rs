//! Wall clocks that are wrong: those of a data server and of an api, each by
//! minutes of its own, ahead or behind. They start with them, live with them
//! while other faults come and go, and then see them jump back.

use std::time::{Duration, Instant, SystemTime};

use super::faults::{Faults, Over};
use super::kind::Kind;
use super::stage::{Stage, state};
use crate::clock::WrongClock;
use crate::wait;

/// Members refuse what is more than an hour ahead of them, so two clocks differ
/// by less: while one is ahead, another may be behind later, below what was
/// written meanwhile.
const LEAST_SECONDS: usize = 2 * 60;
const MOST_SECONDS: usize = 29 * 60;

/// By how much what is asked for and what is seen may differ: the answer takes a
/// while where much else goes on.
const INACCURACY_MILLIS: i64 = 5_000;

/// Clocks that are wrong.
#[derive(Debug)]
pub(super) struct Skewed {
    server: (String, WrongClock),
    api: (usize, WrongClock),
    since: Duration,
    until: Instant,
}

impl Skewed {
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.until
    }
}

impl Faults {
    /// Restarts a data server and an api with wrong clocks; false when no data
    /// server is active now, or one was chosen that its full disk would keep from
    /// starting.
    pub(super) async fn skew(&mut self, stage: &mut Stage) -> bool {
        let Ok(clocks) = stage.clocks.clone() else { return false };
        let since = self.elapsed();
        let api = self.roll(stage.cluster.apis.len());
        let first = self.roll(stage.sites.len());
        let Some(place) = stage.an_active_one(first).await else { return false };
        let (servers_ahead, apis_ahead) = (self.seconds_ahead(), self.seconds_ahead());
        let directory = stage.cluster.directory().to_owned();
        let file = |name: &str| directory.join(format!("{name}-{}.clock", since.as_millis()));
        let server = &mut stage.cluster.data_servers[place];
        if self.is_kept_from_starting(server.name()) {
            return false;
        }
        let servers = clocks.give(server, file(server.name()), servers_ahead);
        let name = server.name().to_owned();
        server.stop().await;
        server.start();
        if let Err(reason) = self.is_ahead(servers_ahead, place, stage).await {
            self.wrong(format!("the clock of {name} was to be {servers_ahead} s ahead: {reason}"));
        }
        let service = &mut stage.cluster.apis[api];
        let apis = clocks.give(service, file(service.name()), apis_ahead);
        service.stop().await;
        service.start();
        eprintln!("clocks: {name} {servers_ahead:+} s, {} {apis_ahead:+} s", service.name());
        let lasts = Duration::from_secs(8 + self.roll(20) as u64);
        let until = Instant::now() + lasts;
        self.skewed = Some(Skewed { server: (name, servers), api: (api, apis), since, until });
        true
    }

    /// Sets the clocks right while the processes run.
    pub(super) async fn set_right(&mut self, stage: &mut Stage) {
        let Some(Skewed { server: (name, clock), api: (api, apis), since, .. }) =
            self.skewed.take()
        else {
            return;
        };
        // It may have been drained and removed.
        match stage.place(&name) {
            None => clock.set(0),
            Some(place) => {
                clock.take(&mut stage.cluster.data_servers[place]);
                if let Err(reason) = self.is_ahead(0, place, stage).await {
                    self.wrong(format!("the clock of {name} was to be right again: {reason}"));
                }
            }
        }
        apis.take(&mut stage.cluster.apis[api]);
        self.over.push(Over { kind: Kind::Skew, start: since, end: self.elapsed() });
    }

    fn seconds_ahead(&mut self) -> i64 {
        let seconds = LEAST_SECONDS + self.roll(MOST_SECONDS - LEAST_SECONDS);
        let seconds = i64::try_from(seconds).expect("less than an hour");
        if self.roll(2) == 0 { seconds } else { -seconds }
    }

    /// Whether a data server's wall clock is so, and its monotonic one true: what
    /// jumps as a whole is another fault.
    async fn is_ahead(
        &mut self,
        seconds: i64,
        place: usize,
        stage: &mut Stage,
    ) -> Result<(), String> {
        let deadline = Instant::now() + wait::LIMIT;
        let said = loop {
            let server = &stage.cluster.data_servers[place];
            match state(server).await {
                Some(said) => break said,
                // It looks again when it starts.
                None if self.is_kept_from_starting(server.name()) => return Ok(()),
                None if Instant::now() > deadline => return Err("it does not answer".to_owned()),
                None => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            self.start_those_that_ended(stage);
        };
        let millis = |field: &str| said[field].as_i64().unwrap_or_default();
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = millis("sent_unix_millis") - now.as_millis() as i64 - seconds * 1_000;
        let boot = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let monotonic = millis("mono_millis") - (boot.tv_sec * 1_000 + boot.tv_nsec / 1_000_000);
        match wall.abs().max(monotonic.abs()) {
            off if off < INACCURACY_MILLIS => Ok(()),
            _ => Err(format!("its wall clock is {wall} ms off, its monotonic one {monotonic} ms")),
        }
    }
}
