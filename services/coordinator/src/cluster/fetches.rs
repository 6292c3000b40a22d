//! Rosters that are fetched from members, and who waits for them.

use std::collections::BTreeMap;

use holdfast_core::node::{Address, NodeId};
use holdfast_core::roster::RosterDigest;
use tokio::sync::oneshot;

/// Why the roster of a member is fetched.
pub(super) struct Want {
    pub(super) address: Address,
    /// The digest that the member told.
    pub(super) digest: RosterDigest,
    /// Who waits until a roster of this digest is included.
    pub(super) waiter: Option<oneshot::Sender<bool>>,
}

/// A roster that is under way.
pub(super) struct Fetch {
    /// What the member told before it was asked: its answer includes all of that.
    pub(super) wants: Vec<Want>,
    /// What it told since: its answer may be older.
    pub(super) later: Vec<Want>,
}

/// At most one fetch from each member is under way.
#[derive(Default)]
pub(super) struct Fetches {
    under_way: BTreeMap<NodeId, Fetch>,
}

impl Fetches {
    /// Notes that the roster of `from` is wanted; gives the address to fetch it
    /// from, or `None` if one is under way, after which this is looked at again.
    pub(super) fn want(&mut self, from: NodeId, want: Want) -> Option<Address> {
        let Some(fetch) = self.under_way.get_mut(&from) else {
            return self.start(from, vec![want]);
        };
        let is_same = |other: &Want| other.digest == want.digest;
        if fetch.wants.iter().any(is_same) {
            fetch.wants.push(want);
        } else if want.waiter.is_some() || !fetch.later.iter().any(is_same) {
            fetch.later.push(want);
        }
        None
    }

    /// As [`Self::want`], for all of these at once; nothing is under way from
    /// `from`.
    pub(super) fn start(&mut self, from: NodeId, wants: Vec<Want>) -> Option<Address> {
        let address = wants.last()?.address.clone();
        self.under_way.insert(from, Fetch { wants, later: Vec::new() });
        Some(address)
    }

    /// The fetch from `from` is over.
    pub(super) fn end(&mut self, from: NodeId) -> Option<Fetch> {
        self.under_way.remove(&from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROM: NodeId = NodeId::from_bits(1);

    fn want(digest: u64, port: u16) -> (Want, oneshot::Receiver<bool>) {
        let (reply, answer) = oneshot::channel();
        let address = format!("ds:{port}").parse().expect("an address");
        (Want { address, digest: RosterDigest(digest), waiter: Some(reply) }, answer)
    }

    fn without_waiter(digest: u64) -> Want {
        Want { waiter: None, ..want(digest, 1).0 }
    }

    #[test]
    fn what_a_member_told_after_it_was_asked_is_not_what_it_answers() {
        let mut fetches = Fetches::default();
        assert!(fetches.want(FROM, want(1, 1).0).is_some(), "the first is fetched");
        assert_eq!(fetches.want(FROM, want(2, 2).0), None);
        assert_eq!(fetches.want(FROM, want(1, 2).0), None);
        let other = NodeId::from_bits(2);
        assert!(fetches.want(other, want(2, 3).0).is_some(), "another member is asked, too");
        let Fetch { wants, later } = fetches.end(FROM).expect("it was under way");
        let digests = |wants: &[Want]| wants.iter().map(|it| it.digest.0).collect::<Vec<_>>();
        assert_eq!((digests(&wants), digests(&later)), (vec![1, 1], vec![2]));
        let address = fetches.start(FROM, later).expect("what is missing is fetched");
        assert_eq!(address.as_str(), "ds:2", "where it was last heard");
        assert!(fetches.end(FROM).is_some() && fetches.end(FROM).is_none());
        assert_eq!(fetches.start(FROM, Vec::new()), None);
        assert!(fetches.end(FROM).is_none(), "nothing was wanted");
    }

    #[test]
    fn heartbeats_that_say_the_same_again_do_not_pile_up() {
        let mut fetches = Fetches::default();
        for digest in [1, 2, 2, 3, 3] {
            fetches.want(FROM, without_waiter(digest));
        }
        assert_eq!(fetches.end(FROM).expect("it was under way").later.len(), 2);
    }
}
