//! Data servers that come and go, while other faults do.

use std::time::{Duration, Instant};

use super::faults::{Faults, Over};
use super::kind::Kind;
use super::stage::Stage;
use crate::client;

/// Fewest and most data servers of a run: with three copies, two may be away and
/// one of them for good.
const FEWEST: usize = 4;
const MOST: usize = 7;

/// How long a change may take once nothing else is broken.
const PATIENCE: Duration = Duration::from_secs(120);

/// A change that is under way.
#[derive(Debug)]
pub(super) struct Change {
    kind: Kind,
    /// The data server's name.
    server: String,
    /// Who is to go.
    node: String,
    is_told: bool,
    since: Duration,
}

impl Faults {
    /// Begins to add a data server, or to drain one. Which of the two is not up to
    /// chance when there are as few or as many as there may be. False when it
    /// cannot be now.
    pub(super) async fn begin_change(&mut self, kind: Kind, stage: &mut Stage) -> bool {
        self.finish_change(stage).await;
        let kind = match stage.sites.len() {
            ..=FEWEST => Kind::Add,
            MOST.. => Kind::Drain,
            _ => kind,
        };
        let since = self.elapsed();
        let (place, node) = match kind {
            Kind::Drain => {
                let place = self.roll(stage.sites.len());
                let Some(node) = stage.node(place).await else { return false };
                (place, node)
            }
            _ => {
                stage.add_data_server().await;
                (stage.sites.len() - 1, String::new())
            }
        };
        let server = stage.cluster.data_servers[place].name().to_owned();
        eprintln!("{kind:?}: {server}, of {} data servers", stage.sites.len());
        self.change = Some(Change { kind, server, node, is_told: false, since });
        true
    }

    /// Looks how far a change is, and goes on with it.
    pub(super) async fn go_on_with_change(&mut self, stage: &mut Stage) {
        let Some(mut change) = self.change.take() else { return };
        let is_over = match change.kind {
            Kind::Drain => change.go_on_with_drain(stage).await,
            _ => change.is_joined(stage).await,
        };
        if is_over {
            let Change { kind, since: start, .. } = change;
            self.over.push(Over { kind, start, end: self.elapsed() });
        } else {
            self.change = Some(change);
        }
    }

    /// Waits for the end of a change while nothing else is broken. A drain lasts
    /// as long as a disk is full on which something of it belongs.
    pub(super) async fn finish_change(&mut self, stage: &mut Stage) {
        if self.change.is_none() {
            return;
        }
        self.relieve(stage).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            self.go_on_with_change(stage).await;
            let Some(change) = &self.change else { return };
            if Instant::now() > deadline {
                let members = stage.members().await;
                self.wrong(format!("not over after {PATIENCE:?}: {change:?}: {members:?}"));
                self.change = None;
                return;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
            self.start_those_that_ended(stage);
        }
    }
}

impl Change {
    async fn is_joined(&self, stage: &Stage) -> bool {
        let Some(place) = stage.place(&self.server) else { return true };
        let address = stage.sites[place].link.address();
        let members = stage.members().await;
        members.iter().any(|one| one["address"] == address && one["takes_data"] == true)
    }

    async fn go_on_with_drain(&mut self, stage: &mut Stage) -> bool {
        let members = stage.members().await;
        let member = members.iter().find(|member| member["node"] == self.node.as_str());
        if member.is_some_and(|member| member["state"] == "retired") {
            return self.remove(stage).await;
        }
        if !self.is_told {
            self.tell(stage).await;
        }
        false
    }

    /// Asked again until it counts, as the answer says.
    async fn tell(&mut self, stage: &Stage) {
        let path = format!("/admin/dataservers/{}/drain", self.node);
        for api in &stage.cluster.apis {
            let told = client::request(api.admin(), "POST", &path, &[], b"").await;
            // 409 `lost` and `wrong-state`: it was given up meanwhile, and goes anyway.
            let goes = |code: &str| ["lost", "wrong-state"].contains(&code);
            if told.is_ok_and(|answer| answer.status == 200 || goes(&answer.code())) {
                self.is_told = true;
                return;
            }
        }
    }

    /// One that was given up for lost meanwhile, and came back, is a new member
    /// and stays.
    async fn remove(&self, stage: &mut Stage) -> bool {
        let Some(place) = stage.place(&self.server) else { return true };
        let Some(node) = stage.node(place).await else { return false };
        if node == self.node {
            stage.remove_data_server(place).await;
            eprintln!("{} has retired: {} data servers", self.server, stage.sites.len());
        }
        true
    }
}
