//! What a client is shown of what was proven, and where the next page begins.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_core::list::group::last_key_before;
use holdfast_core::list::{Judged, Proven};
use holdfast_core::name::Key;

use super::{ListPage, ListQuery};

/// What was found of names that were not certain before.
pub(super) type Names = BTreeMap<Key, Judged>;

/// As much of what was proven as there is room for.
#[derive(Debug)]
pub(super) struct Cut {
    names: Vec<(Key, Judged)>,
    /// Names that are listed as one of which one at least certainly is there.
    groups: BTreeSet<String>,
    /// Up to which key this is all; `None` is to the end.
    end: Option<Key>,
}

impl Cut {
    /// Takes names until there may be more than `room` of them; those that are
    /// listed as one are one.
    pub(super) fn new(query: &ListQuery, proven: Proven, room: usize) -> Self {
        let Proven { names: all, mut end } = proven;
        let (mut names, mut groups) = (Vec::<(Key, Judged)>::new(), BTreeSet::new());
        let (mut count, mut last_group) = (0, None);
        for (key, judged) in all {
            let group = query.group_of(&key).map(str::to_owned);
            let is_new = group.is_none() || group != last_group;
            if judged != Judged::Gone && is_new {
                if count == room {
                    end = names.last().map(|(key, _)| key.clone());
                    break;
                }
                count += 1;
                last_group.clone_from(&group);
            }
            if let (Some(group), Judged::Shown(_)) = (group, &judged) {
                groups.insert(group);
            }
            names.push((key, judged));
        }
        Self { names, groups, end }
    }

    /// The names that must be certain before this can be shown.
    pub(super) fn to_settle(&self, query: &ListQuery) -> Vec<Key> {
        let is_listed =
            |key: &Key| query.group_of(key).is_some_and(|group| self.groups.contains(group));
        let uncertain = self.names.iter().filter(|(_, judged)| *judged == Judged::Uncertain);
        uncertain.filter(|(key, _)| !is_listed(key)).map(|(key, _)| key.clone()).collect()
    }

    /// Adds what is there to the page, and says where to go on; `None` at the end.
    pub(super) fn add_to(
        self,
        page: &mut ListPage,
        query: &ListQuery,
        settled: &Names,
    ) -> Option<Resume> {
        for (key, judged) in self.names {
            let judged = settled.get(&key).cloned().unwrap_or(judged);
            let Judged::Shown(entry) = judged else { continue };
            match query.group_of(&key) {
                None => page.objects.push(entry),
                Some(group) if page.prefixes.last().is_some_and(|last| last == group) => {}
                Some(group) => page.prefixes.push(group.to_owned()),
            }
        }
        let end = self.end?;
        let group = query.group_of(&end).map(str::to_owned);
        Some(match group {
            // Of a group that is listed nothing more is.
            Some(group) if page.prefixes.last() == Some(&group) => {
                let token = Key::new(group).unwrap_or_else(|_| end.clone());
                Resume { after: query.cursor(&token), token: Some(token) }
            }
            // As a token it would say that its group was listed, and there may be
            // more of that: what comes right before it makes it be read again.
            Some(group) if group == end.as_str() => {
                Resume { token: last_key_before(&group), after: end }
            }
            Some(_) | None => Resume { token: Some(end.clone()), after: end },
        })
    }
}

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resume {
    /// After this key, in the same request.
    pub(super) after: Key,
    /// What a client gives back to go on there, if it can be said.
    pub(super) token: Option<Key>,
}

#[cfg(test)]
#[path = "page_tests.rs"]
mod tests;
