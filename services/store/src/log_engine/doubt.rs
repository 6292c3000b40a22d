//! What a volume cannot know, because a part of its log cannot be read.

use super::index::{DoubtfulRegion, Entry};

/// The parts of the log of which no name can be read, and no index remembers
/// what they held.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Doubt {
    regions: Vec<DoubtfulRegion>,
}

impl Doubt {
    pub(super) fn new(regions: Vec<DoubtfulRegion>) -> Self {
        Self { regions }
    }

    /// Where nothing can be read, if the answer about a name depends on it: a
    /// name that is not there may have been, and a version that was written
    /// before the end of the region may have been replaced in it.
    pub(super) fn clouding(&self, entry: Option<&Entry>) -> Option<DoubtfulRegion> {
        let origin = entry.map(|entry| entry.origin);
        let is_clouded =
            |region: &&DoubtfulRegion| origin.is_none_or(|origin| origin < region.bound);
        self.regions.iter().find(is_clouded).copied()
    }

    pub(super) fn regions(&self) -> &[DoubtfulRegion] {
        &self.regions
    }

    pub(super) fn is_none(&self) -> bool {
        self.regions.is_empty()
    }
}
