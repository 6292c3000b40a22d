//! Giving room back: segments of which little is in use are written again and
//! removed, and so are payload files that nothing points to.
//!
//! The order is what makes it safe: survivors are appended to the log and
//! synced; the index is made durable with them; the log says that the segment is
//! of no more use; only then its file is removed, and only when that is durable
//! do the books forget it. Cut short at any point, it is taken up again.
//!
//! What stands in the way of one file is no reason to leave the others: it is
//! reported, the file stays, and it is tried again later.
//!
//! | module | does |
//! |---|---|
//! | here | what is done next, and segments |
//! | `payloads` | removing payload files |

mod payloads;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use self::payloads::{Removal, Swept, remove_files, sweep};
use super::index::{FileId, Index, Place, SegmentUsage};
use super::pressure::{DiskRoom, rate};
use super::queue::{Job, Moving};
use super::record::{RecordKind, decode_segment};
use super::scan::{Found, Item, Payload, ScanRequest, SegmentScan};
use super::segment::SEGMENT_HEADER_BYTES;
use super::shared::{Shared, Survey};
use crate::StoreError;
use crate::disk::io_error;
use crate::metrics::Corruption;

/// What is read, and given to the writer, at once.
const STRIDE_BYTES: u64 = 1024 * 1024;

/// How often it is looked for something to do.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// When what could not be given back is tried again. Somebody may have mended it
/// by then.
const RETRY_INTERVAL: Duration = Duration::from_mins(10);

/// Payload files that are removed between two syncs.
const FILES_AT_ONCE: usize = 256;

/// Gives room back as long as the volume is open.
#[derive(Debug)]
pub(super) struct Compaction {
    shared: Arc<Shared>,
    /// Segments that hold what cannot be moved, or cannot be read.
    stuck: Stuck<u64>,
    /// Payload files that cannot be removed.
    stuck_files: Stuck<FileId>,
    /// Payload files that are gone, which the index does not know yet.
    unbooked: BTreeSet<FileId>,
    /// Directories of payload files that are still to be swept; `None` for all.
    unswept: Option<BTreeSet<u64>>,
    sweep_at: Duration,
    /// When payload files are looked for while a segment is read.
    files_at: Duration,
    /// Whether to hurry; as the disk says, unless it is told.
    room: Option<DiskRoom>,
}

/// What could not be given back, and when it is tried again.
#[derive(Debug)]
struct Stuck<T>(BTreeMap<T, Duration>);

impl<T: Copy + Ord> Stuck<T> {
    fn add(&mut self, what: T, now: Duration) {
        self.0.insert(what, now + RETRY_INTERVAL);
    }

    /// What is not to be tried yet.
    fn waiting(&self, now: Duration) -> BTreeSet<T> {
        self.0.iter().filter(|(_, at)| now < **at).map(|(what, _)| *what).collect()
    }
}

/// Part of a segment that was looked through.
struct Stride {
    /// Records in use.
    records: Vec<Moving>,
    seen: Seen,
    /// Where the next stride begins; `None` at the end.
    next: Option<u64>,
    read_bytes: u64,
}

/// What was met in a segment.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    /// Of all forgets, needed or not.
    forget_bytes: u64,
    /// Records in use that cannot be moved.
    damaged_count: u64,
}

/// What becomes of a record when its segment goes.
enum Fate {
    /// Nothing needs it.
    Dropped,
    /// It must be written again.
    Moved(Moving),
    /// It must not be lost, and cannot be written again.
    Kept,
}

impl Compaction {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            stuck: Stuck(BTreeMap::new()),
            stuck_files: Stuck(BTreeMap::new()),
            unbooked: BTreeSet::new(),
            unswept: None,
            sweep_at: Duration::ZERO,
            files_at: Duration::ZERO,
            room: None,
        }
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
        self.sweep().await?;
        self.measure_index().await?;
        let has_removed = self.remove_doomed_files().await?;
        let (stuck, room) = (self.stuck.waiting(self.now()), self.room);
        let survey = self.ask(|answer| Job::Survey { stuck, room, answer }).await?;
        let Survey { victim: Some(victim), pressure } = survey else { return Ok(has_removed) };
        match self.compact(victim, pressure).await {
            // The others can be read. What says nothing of this one is tried again.
            Err(error) if is_of_the_file(&error) => {
                tracing::warn!(
                    %error,
                    segment = victim,
                    "a segment cannot be given back; it is tried again later"
                );
                self.stuck.add(victim, self.now());
            }
            compacted => compacted?,
        }
        Ok(true)
    }

    fn now(&self) -> Duration {
        self.shared.disk.runtime().now()
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

    async fn compact(&mut self, victim: u64, pressure: u64) -> Result<(), StoreError> {
        // The last batch of the segment may be on its way still: when this is
        // answered, it can be read, and the index knows it.
        self.ask(|answer| Job::Move { records: Vec::new(), answer }).await?;
        if self.is_given_up(victim).await? {
            // A stop, or an error, kept it: what was needed of it was copied before.
            return self.remove(victim).await;
        }
        if self.stuck.0.contains_key(&victim) {
            // What was in the way may still be, and its forgets would be copied each
            // time: first it is only looked at.
            let seen = self.go_through(victim, pressure, false).await?;
            if seen.damaged_count > 0 || self.unread_forget_bytes(victim, seen).await? > 0 {
                self.stuck.add(victim, self.now());
                return Ok(());
            }
        }
        let seen = self.go_through(victim, pressure, true).await?;
        let unread_bytes = self.unread_forget_bytes(victim, seen).await?;
        if unread_bytes > 0 {
            tracing::warn!(
                segment = victim,
                unread_bytes,
                "part of a segment cannot be read, in which names were forgotten; it is kept \
                 until it is mended: stop the data server and run holdfast-dataserver fsck --repair"
            );
            self.stuck.add(victim, self.now());
            return Ok(());
        }
        self.remove(victim).await
    }

    /// Whether nothing of a segment is in use, its forgets included.
    async fn is_given_up(&self, victim: u64) -> Result<bool, StoreError> {
        self.blocking(move |shared| {
            let segments = shared.with_index((), |index, ()| index.segments());
            let segments = shared.checked(segments.map_err(|(error, ())| error)?)?;
            let is_unused =
                |usage: &SegmentUsage| usage.live_bytes == 0 && usage.forget_bytes.is_empty();
            Ok(segments.get(&victim).is_some_and(is_unused))
        })
        .await
    }

    /// Reads a segment, and writes what is in use again if `moves`. Payload files
    /// are removed meanwhile: they may be written faster than a segment is read.
    async fn go_through(
        &mut self,
        victim: u64,
        mut pressure: u64,
        moves: bool,
    ) -> Result<Seen, StoreError> {
        let runtime = self.shared.disk.runtime().clone();
        let base = self.shared.options.compaction_rate_bytes;
        let (mut seen, mut next) = (Seen::default(), Some(SEGMENT_HEADER_BYTES as u64));
        while let Some(from) = next {
            let stride = self.blocking(move |shared| read_stride(shared, victim, from)).await?;
            let records = stride.records;
            next = stride.next;
            seen.forget_bytes += stride.seen.forget_bytes;
            seen.damaged_count += stride.seen.damaged_count;
            if moves && !records.is_empty() {
                self.ask(|answer| Job::Move { records, answer }).await?;
            }
            if let Some(rate) = rate(base, pressure) {
                let micros = stride.read_bytes.saturating_mul(1_000_000) / rate;
                runtime.sleep(Duration::from_micros(micros)).await;
            }
            if runtime.now() >= self.files_at {
                self.remove_doomed_files().await?;
            }
            pressure = self.shared.books().pressure;
        }
        Ok(seen)
    }

    /// Bytes of forgets that are in a segment, as the books say, and were not met
    /// there. Without them, what they forgot would be back when the index is built
    /// anew, so the segment must stay as long as there is one before it.
    async fn unread_forget_bytes(&self, victim: u64, seen: Seen) -> Result<u64, StoreError> {
        self.blocking(move |shared| {
            let numbers = shared.segments.numbers();
            let is_first = numbers.first().is_none_or(|first| *first >= victim);
            // One that is gone had been read whole.
            if is_first || !numbers.contains(&victim) {
                return Ok(0);
            }
            let segments = shared.with_index((), |index, ()| index.segments());
            let segments = shared.checked(segments.map_err(|(error, ())| error)?)?;
            let forgets = segments.get(&victim).map(|usage| usage.forget_bytes.values().sum());
            Ok(forgets.unwrap_or(0_u64).saturating_sub(seen.forget_bytes))
        })
        .await
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
                self.stuck.add(victim, self.now());
                return Ok(());
            }
            written => written?,
        }
        self.blocking(move |shared| shared.while_open(|| remove_segment(shared, victim))).await?;
        self.ask(|answer| Job::Removed { segment: victim, answer }).await?;
        self.stuck.0.remove(&victim);
        Ok(())
    }

    async fn remove_doomed_files(&mut self) -> Result<bool, StoreError> {
        let now = self.now();
        self.files_at = now + LOOK_INTERVAL;
        let stuck = self.stuck_files.waiting(now);
        let unbooked = self.unbooked.clone();
        let removal = self
            .blocking(move |shared| {
                let limit = FILES_AT_ONCE + stuck.len() + unbooked.len();
                let doomed = shared.with_index((), |index, ()| index.doomed_files(limit));
                let mut files = shared.checked(doomed.map_err(|(error, ())| error)?)?;
                files.retain(|file| !stuck.contains(file) && !unbooked.contains(file));
                shared.while_open(|| remove_files(shared, files))
            })
            .await?;
        let Removal { gone, kept, error } = removal;
        if let Some(error) = error {
            tracing::warn!(
                %error,
                count = kept.len(),
                "payload files cannot be removed; it is tried again later"
            );
        }
        let is_changed = !gone.is_empty() || !kept.is_empty();
        self.stuck_files.0.retain(|file, _| !gone.contains(file));
        kept.into_iter().for_each(|file| self.stuck_files.add(file, now));
        // While the index cannot be written, that is not in the books, and the next
        // files are to go all the same: they may be the room that it needs.
        self.unbooked.extend(gone);
        if !self.unbooked.is_empty() {
            let files = self.unbooked.iter().copied().collect();
            self.ask(|answer| Job::FilesRemoved { files, answer }).await?;
            self.unbooked.clear();
        }
        Ok(is_changed)
    }

    /// Removes what earlier runs left behind: payload files whose record was
    /// never written.
    async fn sweep(&mut self) -> Result<(), StoreError> {
        let (now, unswept) = (self.now(), self.unswept.clone());
        if now < self.sweep_at || unswept.as_ref().is_some_and(BTreeSet::is_empty) {
            return Ok(());
        }
        self.sweep_at = now + RETRY_INTERVAL;
        match self.blocking(move |shared| sweep(shared, unswept)).await {
            Ok(Swept { below, unswept }) => {
                self.unswept = Some(unswept);
                if let Some(below) = below {
                    self.shared.queue.push_housekeeping(Job::Swept { below });
                }
                Ok(())
            }
            Err(StoreError::WorkLost) => Err(StoreError::WorkLost),
            Err(error) => {
                tracing::warn!(%error, "payload files cannot be swept; it is tried again later");
                Ok(())
            }
        }
    }
}

/// Whether it is this very file that cannot be read or removed.
fn is_of_the_file(error: &StoreError) -> bool {
    let is_denied = |source: &io::Error| source.kind() == io::ErrorKind::PermissionDenied;
    error.is_of_the_medium()
        || error.is_no_such_file()
        || matches!(error, StoreError::Io { source, .. } if is_denied(source))
}

fn remove_segment(shared: &Shared, number: u64) -> Result<(), StoreError> {
    let Some((id, file)) = shared.segments.open(number)? else { return Ok(()) };
    shared.segments.remove(number);
    if let Err(error) = shared.disk.remove(&shared.segments.path(id))
        && !error.is_no_such_file()
    {
        // As long as it is there, forgets of what is in it are needed.
        shared.segments.add(id, file);
        return Err(error);
    }
    shared.disk.sync_directory(&shared.disk.path("log"))
}

fn read_stride(shared: &Arc<Shared>, victim: u64, from: u64) -> Result<Stride, StoreError> {
    let mut stride =
        Stride { records: Vec::new(), seen: Seen::default(), next: None, read_bytes: 0 };
    let Some((id, file)) = shared.segments.open(victim)? else { return Ok(stride) };
    let path = shared.segments.path(id);
    let length = file.len().map_err(io_error("look at the length of", &path))?;
    let request = ScanRequest { salt: id.salt, range: from..length, keeps_payloads: true };
    let mut scan = SegmentScan::new(&*file, request);
    let mut is_refused = false;
    while let Some(item) = scan.next() {
        if let Some(error) = scan.take_io_error() {
            tracing::warn!(%error, path = %path.display(), "the disk does not give part of a segment");
            is_refused = true;
        }
        let end = match item {
            Item::Unreadable(range) => range.end,
            Item::Record(found) => {
                let end = found.end();
                if found.head.header.kind == RecordKind::Forget {
                    stride.seen.forget_bytes += end - found.offset;
                }
                let fate = shared.with_index(found, |index, found| {
                    fate(shared, index, victim, found, is_refused)
                });
                match fate.map_err(|(error, _)| error)?? {
                    Fate::Dropped => {}
                    Fate::Moved(moving) => stride.records.push(moving),
                    Fate::Kept => stride.seen.damaged_count += 1,
                }
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

/// `is_refused` when it may be for the disk that a record seems damaged.
fn fate(
    shared: &Shared,
    index: &dyn Index,
    victim: u64,
    found: Found,
    is_refused: bool,
) -> Result<Fate, StoreError> {
    let Found { head, offset, payload } = found;
    let from = Place {
        segment: victim,
        offset: u32::try_from(offset).unwrap_or(u32::MAX),
        length: u32::try_from(head.header.record_bytes()).unwrap_or(u32::MAX),
    };
    let Some(name) = &head.name else { return Ok(Fate::Dropped) };
    let entry = shared.checked(index.get(name))?;
    if head.header.kind == RecordKind::Forget {
        let payload = origin_of(&payload, victim);
        let origin = decode_segment(&payload).unwrap_or(victim);
        let is_older = |number: &u64| *number != victim && *number <= origin;
        let is_needed = entry.is_none() && shared.segments.numbers().iter().any(is_older);
        let moving = is_needed.then_some(Moving { from, head, payload });
        return Ok(moving.map_or(Fate::Dropped, Fate::Moved));
    }
    let Some(entry) = entry.filter(|entry| entry.place == from) else { return Ok(Fate::Dropped) };
    match payload {
        Payload::Sound(payload) => Ok(Fate::Moved(Moving { from, head, payload })),
        Payload::Damaged => {
            // What the disk does not give now, it may give another time.
            if !entry.is_damaged && !is_refused {
                let version = head.header.version;
                tracing::error!(key = %name, segment = victim, offset, "compaction met a damaged record");
                shared.disk.metrics().on_corruption(Corruption::Refused);
                shared.queue.push_housekeeping(Job::Damaged { name: name.clone(), version });
            }
            Ok(Fate::Kept)
        }
    }
}

/// The payload of a forget. One that is damaged is made anew: what it forgot lies
/// before it, so it is needed as long as its own segment or an older one is there.
fn origin_of(payload: &Payload, victim: u64) -> Bytes {
    let sound = payload.bytes().filter(|bytes| decode_segment(bytes).is_some());
    sound.cloned().unwrap_or_else(|| Bytes::copy_from_slice(&victim.to_le_bytes()))
}
