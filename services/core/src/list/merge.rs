//! One order out of many.

use std::collections::BTreeMap;

use crate::name::Key;
use crate::node::NodeId;
use crate::wire::list::ListEntry;

/// What one member has after the start, in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MemberPage {
    /// The entries; none only if there is nothing.
    pub entries: Vec<ListEntry>,
    /// Whether more follow.
    pub more: bool,
}

impl MemberPage {
    /// The last key of which it tells, if there are others after it.
    fn end(&self) -> Option<&Key> {
        self.entries.last().filter(|_| self.more).map(|entry| &entry.key)
    }
}

/// The pages of several members as one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Merged<'a> {
    /// Each name, in order, and who has what of it, tombstones too.
    pub names: Vec<(&'a Key, Vec<(NodeId, &'a ListEntry)>)>,
    /// The last key up to which every member has told all that it has: the
    /// smallest last key of those that have more. `None` when nobody has.
    pub end: Option<&'a Key>,
}

/// Merges pages that are each in order, and leaves out what lies after the end:
/// there a member that has more may have something, too.
#[must_use]
pub fn merge(pages: &BTreeMap<NodeId, MemberPage>) -> Merged<'_> {
    let end = pages.values().filter_map(MemberPage::end).min();
    let mut rests: Vec<(NodeId, &[ListEntry])> =
        pages.iter().map(|(node, page)| (*node, page.entries.as_slice())).collect();
    let mut names = Vec::new();
    loop {
        let heads = rests.iter().filter_map(|(_, rest)| rest.first().map(|entry| &entry.key));
        let Some(key) = heads.min().filter(|key| end.is_none_or(|end| *key <= end)) else {
            return Merged { names, end };
        };
        let mut held = Vec::new();
        for (node, rest) in &mut rests {
            if let Some((entry, others)) = rest.split_first()
                && entry.key == *key
            {
                held.push((*node, entry));
                *rest = others;
            }
        }
        names.push((key, held));
    }
}
