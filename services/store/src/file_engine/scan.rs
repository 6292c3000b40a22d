//! Rebuilding the catalogue from the trailers of the files.

use std::path::PathBuf;
use std::sync::Arc;

use futures_util::{StreamExt, TryStreamExt, stream};
use holdfast_core::object::Stat;

use super::catalog::{Catalog, Target};
use super::name_hash::{NameHash, fan_out_directory};
use crate::StoreError;
use crate::disk::Disk;
use crate::metrics::Corruption;
use crate::payload_file::damage::Damage;
use crate::payload_file::object_file::{ObjectFile, SCAN_TAIL_BYTES};

/// Directories that are scanned at the same time: enough to keep a disk busy
/// that answers many reads at once.
const DIRECTORIES_AT_ONCE: usize = 8;

type Found = Result<(Target, Stat), (NameHash, StoreError)>;

/// Reads every trailer of the volume.
///
/// # Errors
/// When a directory cannot be listed or synced. A file that cannot be read does
/// not spoil the others.
pub(super) async fn scan(disk: &Arc<Disk>, catalog: &Catalog) -> Result<(), StoreError> {
    stream::iter(0..=u8::MAX)
        .map(|first_byte| disk.run(move |disk| scan_directory(disk, first_byte)))
        .buffer_unordered(DIRECTORIES_AT_ONCE)
        .try_for_each(|found| {
            take_in(catalog, found, disk);
            std::future::ready(Ok(()))
        })
        .await
}

/// What is found is made durable before it is answered: the process before this
/// one may have been killed between a rename and its sync.
fn scan_directory(disk: &Disk, first_byte: u8) -> Result<Vec<Found>, StoreError> {
    let directory = disk.path(fan_out_directory(first_byte));
    let files = disk.list(&directory)?;
    if !files.is_empty() {
        disk.sync_directory(&directory)?;
    }
    Ok(files.into_iter().filter_map(|path| scan_file(disk, path)).collect())
}

fn scan_file(disk: &Disk, path: PathBuf) -> Option<Found> {
    let hash = NameHash::of_file(&path).filter(|hash| disk.path(hash.path()) == path);
    let Some(hash) = hash else {
        tracing::warn!(path = %path.display(), "this file is not one of the volume's; it is left alone");
        return None;
    };
    Some(describe(disk, path, hash).map_err(|error| (hash, error)))
}

fn describe(disk: &Disk, path: PathBuf, hash: NameHash) -> Result<(Target, Stat), StoreError> {
    let file = ObjectFile::open(disk, path, SCAN_TAIL_BYTES)?;
    let target = Target::new(file.name().clone());
    Damage::unless_equal("the name in the trailer", hash.to_string(), target.hash.to_string())
        .map_err(|damage| damage.at(file.path().to_owned()))?;
    Ok((target, file.stat().clone()))
}

fn take_in(catalog: &Catalog, found: Vec<Found>, disk: &Disk) {
    let mut readable = Vec::with_capacity(found.len());
    for found in found {
        match found {
            Ok(entry) => readable.push(entry),
            Err((hash, error)) => {
                tracing::error!(%error, "an object of unknown name cannot be read");
                disk.metrics().on_corruption(Corruption::Unreadable);
                catalog.mark_unreadable(hash, error);
            }
        }
    }
    catalog.apply(readable);
}
