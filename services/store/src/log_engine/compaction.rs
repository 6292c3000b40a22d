//! Giving room back: segments of which little is in use are written again and
//! removed, and so are payload files that nothing points to.
//!
//! The order is what makes it safe: survivors are appended to the log and
//! synced; the index is made durable with them; the log says that the segment is
//! of no more use; only then its file is removed, and only when that is durable
//! do the books forget it. Cut short at any point, it is taken up again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::index::{Entry, FileId, Index, Place};
use super::pressure::{DiskRoom, rate};
use super::queue::{Job, Moving};
use super::record::{RecordKind, decode_segment};
use super::scan::{Found, Item, Payload, ScanRequest, SegmentScan};
use super::segment::SEGMENT_HEADER_BYTES;
use super::shared::{Shared, Survey};
use crate::StoreError;
use crate::payload_file::object_file::{ObjectFile, SCAN_TAIL_BYTES};

/// What is read, and given to the writer, at once.
const STRIDE_BYTES: u64 = 1024 * 1024;

/// How often it is looked for something to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Payload files that are removed between two syncs.
const FILES_AT_ONCE: usize = 256;

/// Gives room back as long as the volume is open.
#[derive(Debug)]
pub(super) struct Compaction {
    shared: Arc<Shared>,
    /// Segments that hold what cannot be moved.
    stuck: BTreeSet<u64>,
    is_swept: bool,
    /// Whether to hurry; as the disk says, unless it is told.
    room: Option<DiskRoom>,
}

/// Part of a segment that was looked through.
struct Stride {
    /// Records in use.
    records: Vec<Moving>,
    /// Where the next stride begins; `None` at the end.
    next: Option<u64>,
    read_bytes: u64,
}

impl Compaction {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, stuck: BTreeSet::new(), is_swept: false, room: None }
    }

    /// The same, as if the disk were full.
    pub(super) fn thorough(shared: Arc<Shared>) -> Self {
        Self { room: Some(DiskRoom::Scarce), ..Self::new(shared) }
    }

    /// Works until the task is aborted or the volume is closed.
    pub(super) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let runtime = shared.disk.runtime();
        loop {
            match self.step().await {
                Ok(true) => {}
                // Woken or not, it looks.
                Ok(false) => drop(runtime.timeout(LOOK_INTERVAL, shared.garbage.notified()).await),
                Err(StoreError::WorkLost) => return,
                Err(error) => {
                    tracing::warn!(%error, "compaction failed and will be tried again");
                    shared.queue.push_housekeeping(Job::GaveUp);
                    runtime.sleep(LOOK_INTERVAL * 10).await;
                }
            }
        }
    }

    /// Does one thing, if there is one to do. Not cancel safe only in that what
    /// was begun is done again.
    pub(super) async fn step(&mut self) -> Result<bool, StoreError> {
        let shared = Arc::clone(&self.shared);
        let _alone = shared.compacting.lock().await;
        if !self.is_swept {
            self.sweep().await?;
            self.is_swept = true;
        }
        self.measure_index().await?;
        if self.remove_doomed_files().await? {
            return Ok(true);
        }
        let (stuck, room) = (self.stuck.clone(), self.room);
        let survey = self.ask(|answer| Job::Survey { stuck, room, answer }).await?;
        let Survey { victim: Some(victim), pressure } = survey else { return Ok(false) };
        self.compact(victim, pressure).await?;
        Ok(true)
    }

    /// The engine looks at its files for this: too much for every batch.
    async fn measure_index(&self) -> Result<(), StoreError> {
        self.blocking(|shared| {
            let bytes = shared.with_index((), |index, ()| index.disk_bytes());
            let bytes = bytes.map_err(|(error, ())| error)?;
            shared.disk.metrics().log().set_index_bytes(bytes);
            Ok(())
        })
        .await
    }

    async fn ask<T>(
        &self,
        job: impl FnOnce(oneshot::Sender<Result<T, StoreError>>) -> Job,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        if !self.shared.queue.push_housekeeping(job(answer)) {
            return Err(StoreError::WorkLost);
        }
        answered.await.unwrap_or(Err(StoreError::WorkLost))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Shared>) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let shared = Arc::clone(&self.shared);
        self.shared.disk.run(move |_| work(&shared)).await
    }

    async fn compact(&mut self, victim: u64, mut pressure: u64) -> Result<(), StoreError> {
        let runtime = self.shared.disk.runtime().clone();
        let base = self.shared.options.compaction_rate_bytes;
        let mut next = Some(SEGMENT_HEADER_BYTES as u64);
        while let Some(from) = next {
            let stride = self.blocking(move |shared| read_stride(shared, victim, from)).await?;
            next = stride.next;
            let records = stride.records;
            if !records.is_empty() {
                self.ask(|answer| Job::Move { records, answer }).await?;
            }
            if let Some(rate) = rate(base, pressure) {
                let micros = stride.read_bytes.saturating_mul(1_000_000) / rate;
                runtime.sleep(Duration::from_micros(micros)).await;
            }
            pressure = self.shared.books().pressure;
        }
        self.remove(victim).await
    }

    async fn remove(&mut self, victim: u64) -> Result<(), StoreError> {
        // An index that survives a power cut then never points to what is gone.
        self.blocking(|shared| {
            let persisted = shared.with_index((), |index, ()| index.persist());
            shared.checked(persisted.map_err(|(error, ())| error)?)
        })
        .await?;
        match self.ask(|answer| Job::Remove { segment: victim, answer }).await {
            Err(StoreError::SegmentInUse { segment, live_bytes }) => {
                tracing::warn!(
                    segment,
                    live_bytes,
                    "a segment holds damaged records that are in use; it is kept"
                );
                self.stuck.insert(victim);
                return Ok(());
            }
            written => written?,
        }
        self.blocking(move |shared| shared.while_open(|| remove_segment(shared, victim))).await?;
        self.ask(|answer| Job::Removed { segment: victim, answer }).await
    }

    async fn remove_doomed_files(&self) -> Result<bool, StoreError> {
        let files = self
            .blocking(|shared| {
                let doomed = shared.with_index((), |index, ()| index.doomed_files(FILES_AT_ONCE));
                let files = shared.checked(doomed.map_err(|(error, ())| error)?)?;
                shared.while_open(|| remove_files(shared, &files))?;
                Ok(files)
            })
            .await?;
        if files.is_empty() {
            return Ok(false);
        }
        self.ask(|answer| Job::FilesRemoved { files, answer }).await?;
        Ok(true)
    }

    /// Removes what earlier runs left behind: payload files whose record was
    /// never written.
    async fn sweep(&self) -> Result<(), StoreError> {
        let below = self.blocking(sweep_files).await?;
        if let Some(below) = below {
            self.shared.queue.push_housekeeping(Job::Swept { below });
        }
        Ok(())
    }
}

fn remove_segment(shared: &Shared, number: u64) -> Result<(), StoreError> {
    let Some(id) = shared.segments.get(number) else { return Ok(()) };
    shared.segments.remove(number);
    shared.disk.remove(&shared.segments.path(id))?;
    shared.disk.sync_directory(&shared.disk.path("log"))
}

fn remove_files(shared: &Shared, files: &[FileId]) -> Result<(), StoreError> {
    let mut directories = BTreeSet::new();
    for file in files {
        shared.large.remove(*file)?;
        directories.insert(file.directory);
    }
    // A directory that is gone went after what was in it.
    let present = shared.large.list_directories()?;
    directories.retain(|directory| present.contains(directory));
    // Durable before the books forget them, else they might come back and stay.
    directories.iter().try_for_each(|directory| shared.large.sync_directory(*directory))?;
    directories.into_iter().try_for_each(|directory| shared.large.remove_if_empty(directory))
}

/// `None` when the sweep must wait: a record that cannot be read may point to
/// any file.
fn sweep_files(shared: &Arc<Shared>) -> Result<Option<u64>, StoreError> {
    if !shared.doubt.is_none() {
        return Ok(None);
    }
    let below = shared.large.first_directory();
    let swept_below = shared.books().swept_below;
    let directories = shared.large.list_directories()?;
    for directory in directories.into_iter().filter(|d| (swept_below..below).contains(d)) {
        let mut orphans = Vec::new();
        let files = shared.large.list(directory)?;
        if files.is_empty() {
            shared.while_open(|| shared.large.remove_if_empty(directory))?;
        }
        for file in files {
            let known = shared.with_index((), |index, ()| index.file(file));
            let is_known = shared.checked(known.map_err(|(error, ())| error)?)?.is_some();
            if !is_known && !is_wanted(shared, file)? {
                orphans.push(file);
            }
        }
        if !orphans.is_empty() {
            tracing::info!(
                directory,
                count = orphans.len(),
                "removing payloads that were never committed"
            );
            shared.while_open(|| remove_files(shared, &orphans))?;
        }
    }
    Ok(Some(below))
}

/// Whether a file that nothing points to is all that is left of a version whose
/// record is damaged.
fn is_wanted(shared: &Shared, file: FileId) -> Result<bool, StoreError> {
    let path = shared.large.path(file);
    let Ok(payload) = ObjectFile::open(&shared.disk, path, SCAN_TAIL_BYTES) else {
        return Ok(false);
    };
    let entry = shared.lookup(payload.name())?;
    let is_its =
        |entry: Entry| entry.is_unreadable() && entry.stat.version == payload.stat().version;
    Ok(entry.is_some_and(is_its))
}

fn read_stride(shared: &Arc<Shared>, victim: u64, from: u64) -> Result<Stride, StoreError> {
    let Some((id, file)) = shared.segments.open(victim)? else {
        return Ok(Stride { records: Vec::new(), next: None, read_bytes: 0 });
    };
    let path = shared.segments.path(id);
    let length = file.len().map_err(crate::disk::io_error("look at the length of", &path))?;
    let request = ScanRequest { salt: id.salt, range: from..length, keeps_payloads: true };
    let mut scan = SegmentScan::new(&*file, request);
    let mut stride = Stride { records: Vec::new(), next: None, read_bytes: 0 };
    while let Some(item) = scan.next() {
        let end = match item {
            Item::Unreadable(range) => range.end,
            Item::Record(found) => {
                let end = found.end();
                let moving =
                    shared.with_index(found, |index, found| survivor(shared, index, victim, found));
                stride.records.extend(moving.map_err(|(error, _)| error)??);
                end
            }
        };
        stride.read_bytes = end - from;
        if stride.read_bytes >= STRIDE_BYTES {
            stride.next = Some(end);
            break;
        }
    }
    Ok(stride)
}

/// The record if it must be written again.
fn survivor(
    shared: &Shared,
    index: &dyn Index,
    victim: u64,
    found: Found,
) -> Result<Option<Moving>, StoreError> {
    let Found { head, offset, payload } = found;
    let from = Place {
        segment: victim,
        offset: u32::try_from(offset).unwrap_or(u32::MAX),
        length: u32::try_from(head.header.record_bytes()).unwrap_or(u32::MAX),
    };
    let Some(name) = &head.name else { return Ok(None) };
    let entry = shared.checked(index.get(name))?;
    let is_needed = match head.header.kind {
        RecordKind::Forget => {
            let origin = payload.bytes().and_then(|bytes| decode_segment(bytes));
            let origin = origin.unwrap_or(u64::MAX);
            let is_older = |number: &u64| *number != victim && *number <= origin;
            entry.is_none() && shared.segments.numbers().iter().any(is_older)
        }
        _ => entry.as_ref().is_some_and(|entry| entry.place == from),
    };
    match (is_needed, payload) {
        (false, _) => Ok(None),
        (true, Payload::Sound(payload)) => Ok(Some(Moving { from, head, payload })),
        (true, Payload::Damaged) => {
            let version = head.header.version;
            tracing::error!(key = %name, segment = victim, offset, "compaction met a damaged record");
            shared.disk.metrics().on_corruption(crate::metrics::Corruption::Refused);
            shared.queue.push_housekeeping(Job::Damaged { name: name.clone(), version });
            Ok(None)
        }
    }
}
