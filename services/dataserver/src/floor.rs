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
}

#[derive(Debug, Clone, Copy, Default)]
struct Heights {
    /// At or above everything that was ever taken or promised.
    floor: Option<Version>,
    /// What is durable; never below `floor`.
    mark: Option<Version>,
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
        Ok(Self {
            runtime: runtime.clone(),
            root: root.to_owned(),
            heights: Arc::new(Mutex::new(Heights { floor: mark, mark })),
            writing: Arc::default(),
        })
    }

    /// The floor now.
    #[must_use]
    pub fn get(&self) -> Option<Version> {
        self.heights.lock().unwrap_or_else(PoisonError::into_inner).floor
    }

    /// Makes the floor at least `version`: when this returned `Ok`, no later
    /// run will tell a lower one. Cancel safe.
    ///
    /// # Errors
    /// [`IdentityError`]; then `version` must be neither taken nor promised.
    pub async fn raise(&self, version: Version) -> Result<(), IdentityError> {
        if rise(&self.heights, version) {
            return Ok(());
        }
        // The guard goes along: a caller that gives up must not let another one
        // write the file at the same time.
        let turn = Arc::clone(&self.writing).lock_owned().await;
        if rise(&self.heights, version) {
            return Ok(());
        }
        let mark = mark_for(version, self.runtime.unix_millis());
        let (files, root) = (self.runtime.files(), self.root.clone());
        let heights = Arc::clone(&self.heights);
        let written = self.runtime.blocking(move || {
            let _turn = turn;
            write_json(files.as_ref(), &root, FLOOR_FILE, &FloorFile { mark })?;
            heights.lock().unwrap_or_else(PoisonError::into_inner).mark = Some(mark);
            rise(&heights, version);
            Ok(())
        });
        written.await.map_err(|_| IdentityError::Closed)?
    }
}

/// Raises the floor if the mark allows it.
fn rise(heights: &Mutex<Heights>, version: Version) -> bool {
    let mut heights = heights.lock().unwrap_or_else(PoisonError::into_inner);
    let is_marked = heights.mark.is_some_and(|mark| version <= mark);
    if is_marked {
        heights.floor = heights.floor.max(Some(version));
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
