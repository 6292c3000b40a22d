//! Pages of a bucket, in order, straight from the index.

use std::ops::{Bound, ControlFlow};
use std::sync::Arc;

use holdfast_core::name::Key;
use holdfast_core::wire::list::ListEntry;

use super::index::{Brief, IndexError};
use super::shared::Shared;
use crate::index::{MAX_PAGE_ENTRIES, first_after};
use crate::{ListPage, ListRequest, StoreError};

/// See [`crate::Store::list`]. Blocks.
pub(super) fn page(shared: &Shared, request: &ListRequest) -> Result<ListPage, StoreError> {
    let unreadable_count = shared.unreadable_count();
    let mut page = ListPage { unreadable_count, ..ListPage::default() };
    let Some(start) = first_after(request) else { return Ok(page) };
    let limit = request.limit.min(MAX_PAGE_ENTRIES);
    // All at once: it grows too large to be moved again and again.
    page.entries.reserve(limit);
    let mut content_types = ContentTypes::default();
    let mut malformed = false;
    let mut visit = |bucket: &str, key: &str, brief: Brief<'_>| {
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
        page.entries.push(ListEntry {
            key,
            version: brief.version,
            written_as: brief.written_as,
            kind: brief.kind,
            size_bytes: brief.size_bytes,
            digest: brief.digest,
            content_type: brief.content_type.map(|text| content_types.shared(text)),
            modified_unix_millis: brief.modified_unix_millis,
            is_damaged: brief.is_unreadable,
        });
        ControlFlow::Continue(())
    };
    let from = match &start {
        Bound::Included(name) => Bound::Included(name),
        Bound::Excluded(name) => Bound::Excluded(name),
        Bound::Unbounded => Bound::Unbounded,
    };
    let listed = shared.with_index((), |index, ()| index.list(from, &mut visit));
    let listed = listed.map_err(|(error, ())| error)?;
    shared.checked(if malformed { Err(IndexError::not_a_name()) } else { listed })?;
    Ok(page)
}

/// Neighbours have one content type mostly: they share the text of it.
#[derive(Debug, Default)]
struct ContentTypes {
    last: Option<Arc<str>>,
}

impl ContentTypes {
    fn shared(&mut self, text: &str) -> Arc<str> {
        match &self.last {
            Some(last) if **last == *text => Arc::clone(last),
            _ => Arc::clone(self.last.insert(text.into())),
        }
    }
}
