//! A disk that fills. Whatever fills it leaves half of the reserve, which is for
//! deletes, or not a byte. Every payload is refused until there is room again.
//! Meanwhile other faults come and go.

use std::time::{Duration, Instant};

use super::faults::{Faults, Over};
use super::kind::Kind;
use super::stage::{RESERVE_BYTES, Stage, state};
use crate::client;
use crate::process::Service;

/// How long a data server may take to notice. It looks before it takes anything.
const NOTICE: Duration = Duration::from_secs(5);

/// How long one that may have just been started may take to take data again.
const RELIEF: Duration = Duration::from_secs(60);

/// A disk that is full.
#[derive(Debug)]
pub(super) struct Full {
    server: String,
    left_bytes: u64,
    since: Duration,
    until: Instant,
}

impl Full {
    pub(super) fn is_due(&self) -> bool {
        Instant::now() >= self.until
    }

    /// Whether this data server cannot even start: that takes some room.
    fn keeps_from_starting(&self, server: &str) -> bool {
        self.left_bytes == 0 && self.server == server
    }
}

impl Faults {
    /// Whether a full disk keeps this data server from starting now.
    pub(super) fn is_kept_from_starting(&self, server: &str) -> bool {
        self.full.as_ref().is_some_and(|full| full.keeps_from_starting(server))
    }

    /// Fills a disk; false when no data server takes data now.
    pub(super) async fn fill(&mut self, stage: &mut Stage) -> bool {
        let first = self.roll(stage.sites.len());
        let Some(place) = stage.an_active_one(first).await else { return false };
        let name = stage.cluster.data_servers[place].name().to_owned();
        let Some(disk) = &stage.sites[place].disk else { return false };
        let since = self.elapsed();
        let left_bytes = if self.roll(2) == 0 { 0 } else { RESERVE_BYTES / 2 };
        eprintln!("the disk of {name} has {left_bytes} bytes left");
        if let Err(reason) = disk.fill(left_bytes) {
            self.wrong(format!("a fault could not be made: {reason}"));
        }
        if let Err(status) = self.is_answered(507, NOTICE, place, stage).await {
            self.wrong(format!("the disk of {name} is full, and it answers a write {status}"));
        }
        let until = Instant::now() + Duration::from_secs(4 + self.roll(8) as u64);
        self.full = Some(Full { server: name, left_bytes, since, until });
        true
    }

    /// Gives the room back: that must be enough.
    pub(super) async fn relieve(&mut self, stage: &mut Stage) {
        let Some(Full { server, since, .. }) = &self.full else { return };
        let (name, since) = (server.clone(), *since);
        // It may have been drained and removed.
        if let Some(place) = stage.place(&name) {
            let relieved = stage.sites[place].disk.as_ref().map(crate::disk::Disk::relieve);
            if let Some(Err(reason)) = relieved {
                self.wrong(format!("a fault could not be mended: {reason}"));
            }
            if let Err(status) = self.is_answered(200, RELIEF, place, stage).await {
                self.wrong(format!(
                    "the disk of {name} has room again, and it answers a write {status}"
                ));
            }
        }
        self.full = None;
        self.over.push(Over { kind: Kind::Fill, start: since, end: self.elapsed() });
    }

    /// Waits until a payload that is offered to this very data server, not through
    /// an api, is answered so; gives what it is answered otherwise. One that is to
    /// go takes nothing, and need not.
    async fn is_answered(
        &mut self,
        status: u16,
        limit: Duration,
        place: usize,
        stage: &mut Stage,
    ) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            let server = &stage.cluster.data_servers[place];
            let goes = ["draining", "retired"];
            if state(server).await.is_some_and(|it| goes.iter().any(|goes| it["state"] == *goes)) {
                return Ok(());
            }
            match offer(server).await {
                Ok(answered) if answered == status => return Ok(()),
                Ok(answered) if Instant::now() > deadline => return Err(answered.to_string()),
                Err(error) if Instant::now() > deadline => return Err(error.to_string()),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
            self.start_those_that_ended(stage);
        }
    }
}

/// Offers a payload, and takes it back.
async fn offer(server: &Service) -> std::io::Result<u16> {
    let staging = "/internal/v1/staging";
    let answer = client::request(server.address(), "POST", staging, &[], b"some").await?;
    if answer.status == 200
        && let Some(id) = answer.json().as_str()
    {
        client::delete(server.address(), &format!("{staging}/{id}")).await?;
    }
    Ok(answer.status)
}
