//! What every [`Store`] must do, as one suite that an engine's tests run.
//!
//! The checks panic where an engine breaks a guarantee of the trait, like any
//! test. What needs the engine's disk (crashes, flipped bits, a full disk) is
//! tested beside the engine.

mod fixture;
mod lists;
mod mending;
mod reads;
mod versions;
mod writes;

use std::future::Future;

use bytes::Bytes;

use crate::Store;

/// Runs every check, each on a store of its own. `make` gives a store that is
/// empty and has room for 64 MiB.
///
/// # Panics
/// When the store breaks a guarantee.
pub async fn check_store<S, F, Fut>(make: F)
where
    S: Store,
    F: Fn() -> Fut,
    Fut: Future<Output = S>,
{
    writes::check_payloads_of_every_size(&make().await).await;
    writes::check_any_name_and_metadata(&make().await).await;
    writes::check_dropped_payloads_leave_nothing(&make().await).await;
    writes::check_staged_payloads_can_be_read(&make().await).await;
    writes::check_usage(&make().await).await;
    writes::check_staged_elsewhere_is_refused(&make().await, &make().await).await;
    versions::check_newest_wins_in_any_order(&make().await).await;
    versions::check_one_version_has_one_content(&make().await).await;
    versions::check_tombstones(&make().await).await;
    versions::check_forget(&make().await).await;
    versions::check_concurrent_writers(&make().await).await;
    versions::check_concurrent_writers_of_one_version(&make().await).await;
    reads::check_ranges(&make().await).await;
    reads::check_exact_versions(&make().await).await;
    reads::check_what_was_settled_under_another_version(&make().await).await;
    reads::check_a_reader_keeps_what_it_opened(&make().await).await;
    reads::check_reads_during_overwrites(&make().await).await;
    reads::check_stat_of_many(&make().await).await;
    mending::check_that_nothing_is_damaged(&make().await).await;
    lists::check_order_and_prefixes(&make().await).await;
    lists::check_entries(&make().await).await;
    lists::check_pages(&make().await).await;
    lists::check_buckets_are_apart(&make().await).await;
    lists::check_tombstones_are_listed(&make().await).await;
    lists::check_a_walk_meets_everything(&make().await).await;
}

/// Checks that a copy that a read has found damaged is told from a sound one,
/// and is replaced by the same version from elsewhere. `damage` spoils a payload
/// that was stored, wherever the empty `store` keeps it.
///
/// # Panics
/// When the store breaks a guarantee.
pub async fn check_mending(store: &dyn Store, damage: impl Fn(&Bytes)) {
    mending::check_mending(store, &damage).await;
}
