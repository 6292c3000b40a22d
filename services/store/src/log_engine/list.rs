//! Pages of a bucket, in order, straight from the index.

use std::ops::{Bound, ControlFlow};

use holdfast_core::name::Key;

use super::index::{Detail, Entry, IndexError};
use super::shared::Shared;
use crate::index::{MAX_PAGE_ENTRIES, first_after};
use crate::{ListPage, ListRequest, StoreError};

/// See [`crate::Store::list`]. Blocks.
pub(super) fn page(shared: &Shared, request: &ListRequest) -> Result<ListPage, StoreError> {
    let unreadable_count = shared.unreadable_count();
    let mut page = ListPage { unreadable_count, ..ListPage::default() };
    let Some(start) = first_after(request) else { return Ok(page) };
    let limit = request.limit.min(MAX_PAGE_ENTRIES);
    let mut malformed = false;
    let mut visit = |bucket: &str, key: &str, entry: Entry| {
        if bucket != request.bucket.as_str() || !key.starts_with(&request.prefix) {
            return ControlFlow::Break(());
        }
        if page.entries.len() >= limit {
            page.more = true;
            return ControlFlow::Break(());
        }
        let Ok(key) = Key::new(key) else {
            malformed = true;
            return ControlFlow::Break(());
        };
        if entry.is_unreadable() {
            page.damaged.push(key.clone());
        }
        page.entries.push((key, entry.stat));
        ControlFlow::Continue(())
    };
    let from = match &start {
        Bound::Included(name) => Bound::Included(name),
        Bound::Excluded(name) => Bound::Excluded(name),
        Bound::Unbounded => Bound::Unbounded,
    };
    let walked =
        shared.with_index((), |index, ()| index.walk(from, Detail::WithoutHeaders, &mut visit));
    let walked = walked.map_err(|(error, ())| error)?;
    shared.checked(if malformed { Err(IndexError::not_a_name()) } else { walked })?;
    Ok(page)
}
