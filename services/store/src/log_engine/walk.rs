//! Every name of the volume, in order, straight from the index.

use std::ops::{Bound, ControlFlow};

use holdfast_core::name::ObjectName;

use super::index::Entry;
use super::shared::Shared;
use crate::index::MAX_PAGE_ENTRIES;
use crate::{StoreError, WalkPage, Walked};

/// See [`crate::Store::walk`]. Blocks.
pub(super) fn page(
    shared: &Shared,
    after: Option<&ObjectName>,
    limit: usize,
) -> Result<WalkPage, StoreError> {
    let unreadable_count = shared.unreadable_count();
    let mut page = WalkPage { unreadable_count, ..WalkPage::default() };
    let limit = limit.min(MAX_PAGE_ENTRIES);
    let mut visit = |name: ObjectName, entry: Entry| {
        if page.entries.len() >= limit {
            page.more = true;
            return ControlFlow::Break(());
        }
        let is_damaged = entry.is_unreadable();
        page.entries.push(Walked { name, stat: entry.stat, is_damaged });
        ControlFlow::Continue(())
    };
    let from = after.map_or(Bound::Unbounded, Bound::Excluded);
    let walked = shared.with_index((), |index, ()| index.scan(from, &mut visit));
    shared.checked(walked.map_err(|(error, ())| error)?)?;
    Ok(page)
}
