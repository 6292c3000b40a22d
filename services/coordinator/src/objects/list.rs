//! Lists: the names of a bucket, in order, merged from the pages of all members.
//!
//! | room | purpose |
//! |---|---|
//! | `round` | one page of every member, and what they prove together |
//! | `page` | what of it a client is shown, and where the next page begins |
//!
//! Each name of a page is a read of it. A page is made of rounds, each of which
//! proves its part by itself: nothing of one is kept for the next.

mod page;
mod round;

use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use holdfast_core::list::Judged;
use holdfast_core::list::group::{group_of, last_key_with};
use holdfast_core::locate::Verdict;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::stamp;
use holdfast_core::wire::list::{ListEntry, MAX_LIST_ENTRIES};

use super::Objects;
use crate::error::ObjectError;
use page::{Cut, Names};

/// After this a page is not gone on with: it ends where it is. A round that has
/// begun is finished.
const PATIENCE: Duration = Duration::from_secs(5);

/// Names of one page that are settled at once.
const CONCURRENT_SETTLES: usize = 16;

/// How lists are timed.
#[derive(Debug, Clone, Copy)]
pub struct ListConfig {
    /// When a round ends, whatever is missing.
    pub timeout: Duration,
    /// After how long members are no longer waited for whose pages cannot change
    /// the outcome. Until then they are: their connections are kept, and may
    /// settle what another page shows.
    pub patience: Duration,
    /// When the pages of a round count no more, see [`holdfast_core::stamp`].
    pub window: Duration,
}

impl ListConfig {
    /// The usual timing for a given `LOCATE_TIMEOUT` and `HEARTBEAT_INTERVAL`. A
    /// page is read from disk, and may take longer than a lookup.
    #[must_use]
    pub fn new(locate_timeout: Duration, heartbeat_interval: Duration) -> Self {
        let window = stamp::window(heartbeat_interval);
        Self { timeout: (locate_timeout * 5).min(window), patience: locate_timeout / 10, window }
    }
}

/// Which names are to be listed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListQuery {
    /// Only names that begin with this; may be empty.
    pub prefix: String,
    /// Names that have this after the prefix are listed as one, by what comes
    /// before it, itself included.
    pub delimiter: Option<String>,
    /// Only what comes after this, in byte order. If it is what names are listed
    /// as, all of those have been.
    pub start_after: Option<Key>,
    /// At most so many objects and prefixes, and at most [`MAX_LIST_ENTRIES`].
    pub limit: usize,
}

/// Part of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ListPage {
    /// The objects, in byte order of their names.
    pub objects: Vec<ListEntry>,
    /// What names are listed as one by, in byte order.
    pub prefixes: Vec<String>,
    /// After what the next page begins; `None` when there is none. A page may be
    /// short, and even empty, and have a next one.
    pub next: Option<Key>,
}

impl ListPage {
    fn len(&self) -> usize {
        self.objects.len() + self.prefixes.len()
    }
}

impl ListQuery {
    /// What stands for all names that begin so, if this name is not listed by
    /// itself.
    fn group_of<'a>(&self, key: &'a Key) -> Option<&'a str> {
        group_of(key, &self.prefix, self.delimiter.as_deref()?)
    }

    /// Where to go on after `token`: behind all names of a group that was listed.
    fn cursor(&self, token: &Key) -> Key {
        let is_group = self.group_of(token) == Some(token.as_str());
        let last = is_group.then(|| last_key_with(token.as_str())).flatten();
        last.unwrap_or_else(|| token.clone())
    }
}

impl Objects {
    /// Lists part of the bucket of `/objects/<name>`. What is shown is on as many
    /// members as reads count on, and what is left out is not there: each name
    /// is as if it had been read between the call and the answer.
    ///
    /// Names that only a data server written for the seed has are not listed.
    ///
    /// # Errors
    /// [`ObjectError::IncompleteList`] when it cannot be told what there is; a
    /// list is never shorter for it. [`ObjectError::Overloaded`],
    /// [`ObjectError::Unsettled`], [`ObjectError::NoDataServers`].
    #[tracing::instrument(name = "list", skip_all)]
    pub async fn list(&self, query: &ListQuery) -> Result<ListPage, ObjectError> {
        let _turn = self.lists.try_acquire().map_err(|_| ObjectError::Overloaded)?;
        let began = self.runtime.now();
        let listed = self.list_page(query, began + PATIENCE).await;
        let seconds = self.runtime.now().saturating_sub(began).as_secs_f64();
        self.metrics.on_list(listed.as_ref().ok().map(ListPage::len), seconds);
        listed
    }

    async fn list_page(&self, query: &ListQuery, until: Duration) -> Result<ListPage, ObjectError> {
        let limit = query.limit.clamp(1, MAX_LIST_ENTRIES);
        let mut page = ListPage::default();
        let began = query.start_after.as_ref().map(|token| query.cursor(token));
        let mut after = began.clone();
        loop {
            let room = limit.saturating_sub(page.len());
            let proven = self.list_round(query, after, room).await?;
            let cut = Cut::new(query, proven, room);
            let settled = self.settle_listed(cut.to_settle(query)).await?;
            let Some(resume) = cut.add_to(&mut page, query, &settled) else { return Ok(page) };
            let is_enough = page.len() >= limit || self.runtime.now() >= until;
            // Whoever comes back with a token that leads to where this began would never
            // get on.
            let leads_on = |token: &Key| Some(query.cursor(token)) > began;
            if is_enough && resume.token.as_ref().is_some_and(leads_on) {
                return Ok(ListPage { next: resume.token, ..page });
            }
            after = Some(resume.after);
        }
    }

    /// What these names are, once they are certain; those that are none are left
    /// out.
    async fn settle_listed(&self, keys: Vec<Key>) -> Result<Names, ObjectError> {
        let settled = keys.into_iter().map(|key| async move {
            let judged = self.settle_one(&key).await;
            self.metrics.on_list_settled(judged.is_ok());
            Ok::<_, ObjectError>((key, judged?))
        });
        stream::iter(settled).buffer_unordered(CONCURRENT_SETTLES).try_collect().await
    }

    async fn settle_one(&self, key: &Key) -> Result<Judged, ObjectError> {
        let located = self.locate_settled(&ObjectName::seed(key.clone())).await?;
        match located.verdict() {
            Verdict::Found(replica) => {
                Ok(Judged::Shown(ListEntry::new(key.clone(), &replica.stat)))
            }
            Verdict::Absent => Ok(Judged::Gone),
            Verdict::Incomplete([]) => Err(ObjectError::NoDataServers),
            Verdict::Incomplete(silent) => {
                Err(ObjectError::IncompleteList { silent: silent.to_vec() })
            }
        }
    }
}
