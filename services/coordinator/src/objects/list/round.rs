//! One page of every member, and what they prove together.

use std::collections::BTreeSet;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use holdfast_core::list::{PageRound, Proven, Span};
use holdfast_core::membership::View;
use holdfast_core::name::{Bucket, Key};
use holdfast_core::node::{Address, NodeId};
use holdfast_core::wire::list::{ListAnswer, ListRequest, MAX_LIST_ENTRIES};
use tracing::debug;

use super::{ListQuery, Objects};
use crate::data_servers::DataServerError;
use crate::error::ObjectError;

/// Members that are asked at once: of each a page is held in memory.
const CONCURRENT_MEMBERS: usize = 32;

/// Fewest entries that a member is asked for: a few more cost little, and a page
/// goes on past tombstones.
const LEAST_ENTRIES: usize = 64;

/// Most entries that a member is asked for when names are listed as one: what
/// lies between two prefixes is not needed.
const MOST_GROUPED: usize = 256;

impl Objects {
    /// Asks every member for what it has after `start_after`, and merges that.
    /// Ends within [`super::ListConfig::timeout`]. Cancel safe.
    #[tracing::instrument(name = "list_round", skip_all)]
    pub(super) async fn list_round(
        &self,
        query: &ListQuery,
        start_after: Option<Key>,
        room: usize,
    ) -> Result<Proven, ObjectError> {
        let began = self.runtime.now();
        let times = self.config.list;
        let mut snapshots = self.cluster.watch();
        let mut snapshot = snapshots.borrow_and_update().clone();
        let limit = choose_limit(room, query.delimiter.is_some(), &snapshot.view);
        let span =
            Span { bucket: Bucket::seed(), prefix: query.prefix.clone(), start_after, limit };
        let mut round = PageRound::new(span.clone(), &snapshot.view);
        let mut asked = BTreeSet::new();
        let mut pages = FuturesUnordered::new();
        let mut is_decided = round.is_decided();
        loop {
            for node in round.waiting() {
                let has_room = pages.len() < CONCURRENT_MEMBERS;
                if let Some(member) = snapshot.view.member(node).filter(|_| has_room)
                    && asked.insert(node)
                {
                    let request = question(&span, member.stamp);
                    let page = self.ask_for_page(node, member.address.clone(), request);
                    pages.push(async move { (node, page.await) });
                }
            }
            let elapsed = self.runtime.now().saturating_sub(began);
            if elapsed >= times.patience {
                round.give_up_leaving(&snapshot.view);
            }
            let is_patient = !is_decided || elapsed < times.patience;
            if round.waiting().is_empty() || elapsed >= times.timeout || !is_patient {
                break;
            }
            let until = if elapsed < times.patience { times.patience } else { times.timeout };
            tokio::select! {
                biased;
                Some((node, page)) = pages.next() => {
                    // What it knows of the roster is included by now: it may name
                    // more members.
                    snapshot = snapshots.borrow_and_update().clone();
                    round.apply_view(&snapshot.view);
                    self.take_page(&mut round, node, page);
                    is_decided = round.is_decided();
                }
                changed = snapshots.changed() => {
                    changed.map_err(|_| ObjectError::ShuttingDown)?;
                    snapshot = snapshots.borrow_and_update().clone();
                    round.apply_view(&snapshot.view);
                    is_decided = round.is_decided();
                }
                () = self.runtime.sleep(until - elapsed) => {}
            }
        }
        // After the window nothing is known: this process was stopped meanwhile,
        // and what the first members told may have been handed over to others
        // before the last were asked.
        if self.runtime.now().saturating_sub(began) >= times.window {
            round.revoke_all();
        }
        round.prove().map_err(|unproven| match unproven.unheard {
            unheard if unheard.is_empty() => ObjectError::NoDataServers,
            silent => ObjectError::IncompleteList { silent },
        })
    }

    fn take_page(
        &self,
        round: &mut PageRound,
        node: NodeId,
        page: Result<ListAnswer, DataServerError>,
    ) {
        let taken = page.map_err(|error| error.to_string()).and_then(|page| {
            let is_unknown = page.unknown || page.late;
            round.apply_page(page).map_err(|error| error.to_string())?;
            if is_unknown { Err("it cannot tell what it has".to_owned()) } else { Ok(()) }
        });
        self.metrics.on_list_page(if taken.is_ok() { "ok" } else { "error" });
        if let Err(error) = taken {
            debug!(%node, %error, "a data server gave no page of a list");
            round.apply_failure(node);
        }
    }

    /// The page of one member, whose roster is included here.
    async fn ask_for_page(
        &self,
        node: NodeId,
        address: Address,
        mut request: ListRequest,
    ) -> Result<ListAnswer, DataServerError> {
        let limit = self.config.list.timeout;
        let mut page = self.data_servers.list(&address, node, &request, limit).await?;
        if page.late {
            self.metrics.on_list_page("late");
            request.stamp = Some(page.stamp());
            page = self.data_servers.list(&address, node, &request, limit).await?;
        }
        // Nothing is concluded before what it knows is known here.
        if !self.cluster.include(node, address, page.roster_digest).await {
            return Err(DataServerError::BadAnswer { what: "its roster, which cannot be had" });
        }
        Ok(page)
    }
}

fn question(span: &Span, stamp: Option<holdfast_core::stamp::Stamp>) -> ListRequest {
    let Span { bucket, prefix, start_after, limit } = span.clone();
    ListRequest { bucket, prefix, start_after, limit, stamp }
}

/// How many entries each member is asked for, when `room` names are wanted: what
/// its share of the copies is likely to be, and some more. It is only a guess.
fn choose_limit(room: usize, is_grouped: bool, view: &View) -> usize {
    let members = view.roster_members().count().max(1);
    let replicas = view.policy.replicas().min(members);
    let share = (room * replicas).div_ceil(members);
    let most = if is_grouped { MOST_GROUPED } else { MAX_LIST_ENTRIES };
    let likely = if replicas == members { room } else { share + share / 4 };
    likely.max(LEAST_ENTRIES).min(most)
}
