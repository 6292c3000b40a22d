//! Whether everything that was acknowledged is there, and often enough.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream;

use super::clients::Load;
use crate::client;
use crate::history::{Action, Operation, Outcome};

/// Names that are looked at at once.
const AT_ONCE: usize = 8;

/// Who reads everything back.
const READER: usize = usize::MAX;

/// What is there in the end.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    /// Names with an object.
    pub objects: usize,
    /// Names without one.
    pub absent: usize,
}

impl Load {
    /// Waits until each name has been seen with as many copies as it is to have.
    ///
    /// # Errors
    /// What is missing after the deadline.
    pub(super) async fn become_redundant(&self, deadline: Instant) -> Result<(), String> {
        let looked = stream::iter(self.keys()).map(|key| async move {
            until(deadline, async || self.has_copies(&key).await.map(drop)).await
        });
        let looked: Vec<_> = looked.buffer_unordered(AT_ONCE).collect().await;
        looked.into_iter().collect()
    }

    /// Reads every name through every api until all have answered and all that is
    /// there has its copies.
    ///
    /// # Errors
    /// What is missing after the deadline.
    pub(super) async fn read_back(&self, deadline: Instant) -> Result<Found, String> {
        let looked = stream::iter(self.keys()).map(|key| async move {
            until(deadline, async || {
                for api in self.apis() {
                    self.read_once_more(api, &key).await?;
                }
                self.has_copies(&key).await
            })
            .await
        });
        let looked: Vec<Result<bool, String>> = looked.buffer_unordered(AT_ONCE).collect().await;
        let mut found = Found::default();
        for is_there in looked {
            match is_there? {
                true => found.objects += 1,
                false => found.absent += 1,
            }
        }
        Ok(found)
    }

    fn keys(&self) -> Vec<String> {
        self.histories().into_keys().collect()
    }

    async fn read_once_more(&self, api: &str, key: &str) -> Result<(), String> {
        let start = self.started().elapsed();
        let answer = client::get(api, key).await.map_err(|error| format!("{key}: {error}"))?;
        let outcome = match answer.status {
            200 => self.value_of(key, &answer.body).map(|value| Outcome::Saw(Some(value))),
            404 => Some(Outcome::Saw(None)),
            status => return Err(format!("{key} through {api}: {status} {}", answer.text())),
        };
        let outcome = outcome.ok_or_else(|| format!("{key}: wrong bytes"))?;
        let end = self.started().elapsed();
        let read = Operation { client: READER, start, end, action: Action::Read, outcome };
        self.remember_last(key, read);
        Ok(())
    }

    /// Whether there is an object; then it has all its copies.
    async fn has_copies(&self, key: &str) -> Result<bool, String> {
        let path = key.replacen("/objects/", "/locate/", 1) + "?replicas";
        let answer = client::get(&self.apis()[0], &path).await;
        let answer = answer.map_err(|error| format!("{key}: {error}"))?;
        match answer.status {
            200 => {}
            404 => return Ok(false),
            status => return Err(format!("{key} is not found: {status} {}", answer.text())),
        }
        match client::copies_of_newest(&answer.json()) {
            count if count >= self.copies() => Ok(true),
            count => {
                Err(format!("{key} has {count} of {} copies: {}", self.copies(), answer.text()))
            }
        }
    }
}

/// Looks until it is well, or gives what is not after the deadline.
pub(super) async fn until<T>(
    deadline: Instant,
    mut look: impl AsyncFnMut() -> Result<T, String>,
) -> Result<T, String> {
    loop {
        match look().await {
            Err(_) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            over => return over,
        }
    }
}
