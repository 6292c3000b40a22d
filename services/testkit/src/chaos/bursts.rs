//! Bursts of creators: many create one new name at the same time, and at most one of
//! them may be told that it did. Nothing else is done with these names.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::join_all;

use super::clients::Load;
use crate::history::{Action, Operation, Outcome};
use crate::workload;

/// Creators of one name.
pub(super) const CREATORS: usize = 64;

/// From one burst to the next.
const PAUSE: Duration = Duration::from_secs(10);

/// How often it is looked whether the run is over.
const LOOK: Duration = Duration::from_millis(100);

/// The numbers of creators begin here: other clients have lower ones.
const FIRST: usize = 1_000;

/// Where their names are: where nobody lists.
const PATH: &str = "/objects/burst/";

/// Whether a key is that of a burst.
pub(super) fn is_of_one(key: &str) -> bool {
    key.starts_with(PATH)
}

/// Whether somebody was told that it created the object.
pub(super) fn has_winner(operations: &[Operation]) -> bool {
    let has_won =
        |one: &Operation| matches!((one.action, one.outcome), (Action::Create(_), Outcome::Done));
    operations.iter().any(has_won)
}

impl Load {
    /// Lets creators meet from time to time, until it is stopped.
    pub(super) async fn run_bursts(self: Arc<Self>) {
        loop {
            let next = self.started().elapsed() + PAUSE;
            while self.started().elapsed() < next {
                if self.is_stopped() {
                    return;
                }
                tokio::time::sleep(LOOK).await;
            }
            self.burst().await;
        }
    }

    /// One burst, through every api; then the name is read through each.
    async fn burst(&self) {
        let number = self.bursts.fetch_add(1, Ordering::SeqCst);
        let key = format!("{PATH}{number}");
        let creators = (0..CREATORS).zip(self.apis().iter().cycle());
        let creators = creators
            .map(|(creator, api)| (FIRST + creator, api, Action::Create(self.new_value())))
            .map(|(client, api, action)| self.act(client, api, &key, action));
        join_all(creators).await;
        for api in self.apis() {
            self.act(FIRST + CREATORS, api, &key, Action::Read).await;
        }
    }

    async fn act(&self, client: usize, api: &str, key: &str, action: Action) {
        let asked = workload::request(action, "");
        self.ask(client, api, key, asked, &mut BTreeMap::new()).await;
    }
}
