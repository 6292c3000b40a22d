//! The floor: the highest version that this member ever took or promised, for
//! whichever name. Writers go above every floor that they hear.
//!
//! A promise and a deleted copy are forgotten in time; the floor is what stays
//! of them. So it must survive a power cut, and must not cost a sync for each
//! write. What is kept in `floor.json` is a mark that is ahead of the floor by
//! up to ten seconds of the versions' clock, and only a version above it has to
//! wait until the mark is raised. A start takes the mark for the floor.
//!
//! While it runs, the member tells the floor and not the mark: otherwise every
//! write would begin a step above the one before it, and the versions would run
//! away from the clock.
//!
//! Promises have a mark of their own in the same file. What they may bar after
//! they are forgotten is less than what was ever taken: where nobody writes with
//! conditions, it is nothing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_core::version::Version;
use holdfast_runtime::Runtime;
use serde::{Deserialize, Serialize};

use crate::identity::{IdentityError, read_json, write_json};

/// Where the mark is kept, beside `node.json`.
pub(crate) const FLOOR_FILE: &str = "floor.json";

/// How far the mark goes ahead, in milliseconds of the versions' clock.
const STEP_MILLIS: u64 = 10_000;

/// Versions that are further ahead of the own clock than this take no step. A
/// data server that restarts again and again, each time above its mark, would
/// otherwise reach versions that are refused for being too far ahead.
const MOST_AHEAD_MILLIS: u64 = 10 * 60 * 1000;

/// The bits of the clock that count within a millisecond.
const WITHIN_MILLISECOND: u64 = 0xffff;

/// `floor.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FloorFile {
    pub(crate) mark: Version,
    /// The same of promises alone, if any was given. An earlier build did not tell
    /// them from the rest.
    #[serde(default = "anything")]
    pub(crate) promised: Option<Version>,
}

#[allow(clippy::unnecessary_wraps, reason = "serde needs the type of the field")]
fn anything() -> Option<Version> {
    Some(Version::from_parts(u64::MAX, u64::MAX))
}

#[derive(Debug, Clone, Copy, Default)]
struct Heights {
    /// At or above everything that was ever taken or promised.
    floor: Option<Version>,
    /// What is durable; never below `floor`.
    mark: Option<Version>,
    /// What is durable of promises; never below any that was given.
    promised: Option<Version>,
    /// The highest promise of this run; before there is one, what is durable.
    given: Option<Version>,
}

/// The floor of one volume. Clones share it.
#[derive(Debug, Clone)]
pub struct Floor {
    runtime: Runtime,
    root: PathBuf,
    heights: Arc<Mutex<Heights>>,
    /// Held while the file is replaced.
    writing: Arc<tokio::sync::Mutex<()>>,
}

impl Floor {
    /// Takes the floor that an earlier run has left. A volume without one has
    /// none yet: it is new, or was used by a release that promised nothing.
    ///
    /// # Errors
    /// [`IdentityError`]; a damaged file is never replaced.
    pub async fn open(runtime: &Runtime, root: &Path) -> Result<Self, IdentityError> {
        let (files, path) = (runtime.files(), root.join(FLOOR_FILE));
        let read = runtime.blocking(move || read_json::<FloorFile>(files.as_ref(), &path));
        let file = read.await.map_err(|_| IdentityError::Closed)??;
        let mark = file.map(|file| file.mark);
        let promised = file.and_then(|file| file.promised).min(mark);
        Ok(Self {
            runtime: runtime.clone(),
            root: root.to_owned(),
            heights: Arc::new(Mutex::new(Heights { floor: mark, mark, promised, given: promised })),
            writing: Arc::default(),
        })
    }

    /// The floor now.
    #[must_use]
    pub fn get(&self) -> Option<Version> {
        self.heights.lock().unwrap_or_else(PoisonError::into_inner).floor
    }

    /// At least every version that this run and earlier ones have promised: exact, but
    /// for what earlier runs did.
    #[must_use]
    pub fn given(&self) -> Option<Version> {
        self.heights.lock().unwrap_or_else(PoisonError::into_inner).given
    }

    /// The mark of promises: at or above every one that this run and earlier ones have
    /// given, and ahead of them.
    #[must_use]
    pub fn promised(&self) -> Option<Version> {
        self.heights.lock().unwrap_or_else(PoisonError::into_inner).promised
    }

    /// Makes the floor at least `version`: when this returned `Ok`, no later
    /// run will tell a lower one. Cancel safe.
    ///
    /// # Errors
    /// [`IdentityError`]; then `version` must not be taken.
    pub async fn raise(&self, version: Version) -> Result<(), IdentityError> {
        self.reach(version, false).await
    }

    /// The same for a version that is to be promised: when this returned `Ok`,
    /// [`Self::promised`] will not be lower in any later run. Cancel safe.
    ///
    /// # Errors
    /// [`IdentityError`]; then `version` must not be promised.
    pub async fn promise(&self, version: Version) -> Result<(), IdentityError> {
        self.reach(version, true).await
    }

    async fn reach(&self, version: Version, is_promise: bool) -> Result<(), IdentityError> {
        if rise(&self.heights, version, is_promise) {
            return Ok(());
        }
        // The guard goes along: a caller that gives up must not let another one
        // write the file at the same time.
        let turn = Arc::clone(&self.writing).lock_owned().await;
        if rise(&self.heights, version, is_promise) {
            return Ok(());
        }
        let mark = mark_for(version, self.runtime.unix_millis());
        let (files, root) = (self.runtime.files(), self.root.clone());
        let heights = Arc::clone(&self.heights);
        let written = self.runtime.blocking(move || {
            let _turn = turn;
            let Heights { mark: marked, promised, .. } =
                *heights.lock().unwrap_or_else(PoisonError::into_inner);
            let promised = if is_promise { promised.max(Some(mark)) } else { promised };
            let mark = marked.map_or(mark, |marked| marked.max(mark));
            write_json(files.as_ref(), &root, FLOOR_FILE, &FloorFile { mark, promised })?;
            {
                let mut heights = heights.lock().unwrap_or_else(PoisonError::into_inner);
                (heights.mark, heights.promised) = (Some(mark), promised);
            }
            rise(&heights, version, is_promise);
            Ok(())
        });
        written.await.map_err(|_| IdentityError::Closed)?
    }
}

/// Raises the floor if the mark allows it.
fn rise(heights: &Mutex<Heights>, version: Version, is_promise: bool) -> bool {
    let mut heights = heights.lock().unwrap_or_else(PoisonError::into_inner);
    let mark = if is_promise { heights.promised } else { heights.mark };
    let is_marked = mark.is_some_and(|mark| version <= mark);
    if is_marked {
        heights.floor = heights.floor.max(Some(version));
        heights.given = heights.given.max(is_promise.then_some(version));
    }
    is_marked
}

/// The mark to set because of a version that is above the one before.
fn mark_for(version: Version, now_millis: u64) -> Version {
    let ahead_millis = version.unix_millis().saturating_sub(now_millis);
    let step_millis = if ahead_millis > MOST_AHEAD_MILLIS { 0 } else { STEP_MILLIS };
    let clock = version.clock().saturating_add(step_millis << 16) | WITHIN_MILLISECOND;
    Version::from_parts(clock, u64::MAX)
}

#[cfg(test)]
#[path = "floor_tests.rs"]
mod tests;
