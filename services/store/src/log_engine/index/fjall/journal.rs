//! The journals: `<n>.jnl`, the last of which is written to. Each is a sequence
//! of batches, with zeros behind them up to 64 MiB.
//!
//! | Bytes | What |
//! |---|---|
//! | 1, 4, 8 | 1, count of items, sequence number |
//! | each item: 1, 1, 1 | 2, kind of value, 0 for no compression |
//! | 8, 2, 4, 4 | keyspace, length of key, and twice that of the value |
//! | rest of item | key, value |
//! | 1, 8, 4 | 3, xxh3-64 of all items, `FJL` 3 |
//!
//! Each of our batches has a checkpoint with a [`BatchStamp`]. Batches must be
//! numbered without a gap, and a sequence number must lie between what the stamp
//! of its batch and that of the next one say: then fjall applies all of them and
//! in their order.

use std::path::PathBuf;

use holdfast_runtime::{File, FileSystem, OpenMode};
use xxhash_rust::xxh3::Xxh3Default;

use super::super::IndexError;
use super::super::entry::{BatchStamp, CHECKPOINT_KEY, decode_stamp};
use super::check::{number_of, strange};
use super::failure::{damaged, io_error};

pub(super) const SUFFIX: &str = ".jnl";
const READ_BYTES: usize = 256 * 1024;

/// Between the stamp of a batch and its commit, fjall's workers take a few
/// sequence numbers at the most; a number further off is damage.
const MAX_SEQNO_LEAD: u64 = 1 << 16;

/// Checks all journals among `names`, and cuts the last one, and the last one that
/// has batches, behind its last whole batch. Returns the number of the newest batch.
pub(super) fn check(files: &dyn FileSystem, names: &[PathBuf]) -> Result<Option<u64>, IndexError> {
    let mut journals = Vec::new();
    for path in names.iter().filter(|path| path.extension().is_some_and(|it| it == "jnl")) {
        journals.push((number_of(path, SUFFIX).ok_or_else(|| strange(path))?, path));
    }
    journals.sort_unstable();
    let Some((_, active)) = journals.pop() else { return Err(damaged("it has no journal")) };
    let mut newest = None;
    // A journal is synced before the next one is begun, so not even a power cut
    // leaves it torn. A full disk does: the next one may have been begun by the
    // time that this is noticed, and nothing is written to it.
    let mut torn: Option<Journal> = None;
    for (_, sealed) in journals {
        let mut journal = Journal::open(files, sealed, OpenMode::Write)?;
        let has_batches = journal.check_batches(&mut newest)?;
        let is_whole = journal.has_only_zeros_left()?;
        match torn {
            Some(_) if has_batches || !is_whole => return Err(breaks_off()),
            None if !is_whole => torn = Some(journal),
            _ => {}
        }
    }
    let mut journal = Journal::open(files, active, OpenMode::Write)?;
    let has_batches = journal.check_batches(&mut newest)?;
    if let Some(torn) = torn {
        if has_batches {
            return Err(breaks_off());
        }
        torn.cut()?;
        // fjall syncs the last one alone. What comes after this one must not be
        // there without its end.
        torn.file.sync_data().map_err(|error| io_error(&error))?;
    }
    journal.cut()?;
    Ok(newest.map(|batch| batch.stamp.number))
}

fn breaks_off() -> IndexError {
    damaged("a journal breaks off, and another one follows it")
}

/// A whole batch.
#[derive(Debug, Clone, Copy)]
struct Batch {
    seqno: u64,
    stamp: BatchStamp,
}

impl Batch {
    fn check(&self, before: Option<&Self>) -> Result<(), IndexError> {
        let Self { seqno, stamp } = self;
        let lead = seqno.checked_sub(stamp.least_seqno);
        let in_order = lead.is_some_and(|lead| lead < MAX_SEQNO_LEAD);
        let follows = before.is_none_or(|before| {
            before.stamp.number.checked_add(1) == Some(stamp.number)
                && before.seqno < stamp.least_seqno
        });
        match in_order && follows {
            true => Ok(()),
            false => Err(damaged(format!("batch {} does not follow the last", stamp.number))),
        }
    }
}

struct Journal {
    file: Box<dyn File>,
    len: u64,
    /// Where the last whole batch ends.
    end: u64,
    /// What was read and not yet used: from `used` on, which is at `end` and
    /// what follows it.
    buffer: Vec<u8>,
    used: usize,
    /// Where `buffer` ends in the file.
    read: u64,
}

impl Journal {
    fn open(
        files: &dyn FileSystem,
        path: &std::path::Path,
        mode: OpenMode,
    ) -> Result<Self, IndexError> {
        let file = files.open(path, mode).map_err(|error| io_error(&error))?;
        let len = file.len().map_err(|error| io_error(&error))?;
        Ok(Self { file, len, end: 0, buffer: Vec::new(), used: 0, read: 0 })
    }

    /// Whether there are any.
    fn check_batches(&mut self, newest: &mut Option<Batch>) -> Result<bool, IndexError> {
        while let Some(batch) = self.next_batch()? {
            batch.check(newest.as_ref())?;
            *newest = Some(batch);
            self.end = self.position();
        }
        Ok(self.end > 0)
    }

    /// `None` where no whole batch follows.
    fn next_batch(&mut self) -> Result<Option<Batch>, IndexError> {
        let Some((count, seqno)) = self.start()? else { return Ok(None) };
        let mut hash = Xxh3Default::new();
        let mut stamp = None;
        for _ in 0..count {
            let Some(item) = self.item()? else { return Ok(None) };
            hash.update(item);
            stamp = checkpoint_of(item).or(stamp);
        }
        if self.take(13)? != Some(&closing(hash.digest())) {
            return Ok(None);
        }
        // The checksum is right, so this is what was written.
        let stamp = stamp.ok_or_else(|| damaged("a batch has no checkpoint"))??;
        Ok(Some(Batch { seqno, stamp }))
    }

    fn start(&mut self) -> Result<Option<(u32, u64)>, IndexError> {
        let fields = self.take(13)?.and_then(|bytes| {
            let (count, seqno) = bytes.strip_prefix(&[1])?.split_first_chunk()?;
            Some((u32::from_le_bytes(*count), u64::from_le_bytes(*seqno.first_chunk()?)))
        });
        Ok(fields)
    }

    /// The bytes of an item, all that the checksum covers.
    fn item(&mut self) -> Result<Option<&[u8]>, IndexError> {
        let Some(header) = self.peek(ITEM_HEADER_BYTES)? else { return Ok(None) };
        let Some((key_bytes, value_bytes)) = lengths(header) else { return Ok(None) };
        self.take(ITEM_HEADER_BYTES.saturating_add(key_bytes).saturating_add(value_bytes))
    }

    fn take(&mut self, bytes: usize) -> Result<Option<&[u8]>, IndexError> {
        if self.peek(bytes)?.is_none() {
            return Ok(None);
        }
        let start = self.used;
        self.used = self.used.saturating_add(bytes);
        Ok(self.buffer.get(start..self.used))
    }

    /// The next bytes, if the file has that many.
    fn peek(&mut self, bytes: usize) -> Result<Option<&[u8]>, IndexError> {
        let missing = bytes.saturating_sub(self.buffer.len().saturating_sub(self.used));
        let left = usize::try_from(self.len.saturating_sub(self.read)).unwrap_or(usize::MAX);
        if missing > left {
            return Ok(None);
        }
        if missing > 0 {
            self.fill(missing.max(READ_BYTES).min(left))?;
        }
        Ok(self.buffer.get(self.used..self.used.saturating_add(bytes)))
    }

    fn fill(&mut self, bytes: usize) -> Result<(), IndexError> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let old = self.buffer.len();
        self.buffer.resize(old.saturating_add(bytes), 0);
        let added = self.buffer.get_mut(old..).expect("it was made longer");
        super::check::read_exact(&*self.file, added, self.read)?;
        self.read = self.read.saturating_add(bytes as u64);
        Ok(())
    }

    fn position(&self) -> u64 {
        let unused = self.buffer.len().saturating_sub(self.used);
        self.read.saturating_sub(unused as u64)
    }

    fn has_only_zeros_left(&mut self) -> Result<bool, IndexError> {
        self.buffer.clear();
        self.used = 0;
        self.read = self.end;
        while self.read < self.len {
            let left = usize::try_from(self.len - self.read).unwrap_or(READ_BYTES).min(READ_BYTES);
            if self.take(left)?.is_none_or(|bytes| bytes.iter().any(|byte| *byte != 0)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// fjall syncs the file when it has opened it.
    fn cut(&self) -> Result<(), IndexError> {
        match self.end < self.len {
            true => self.file.set_len(self.end).map_err(|error| io_error(&error)),
            false => Ok(()),
        }
    }
}

const ITEM_HEADER_BYTES: usize = 1 + 1 + 1 + 8 + 2 + 4 + 4;

/// Lengths of key and value, if this is an item.
fn lengths(header: &[u8]) -> Option<(usize, usize)> {
    let [2, _, 0, rest @ ..] = header else { return None };
    let (_keyspace, rest) = rest.split_first_chunk::<8>()?;
    let (key_bytes, rest) = rest.split_first_chunk()?;
    let (value_bytes, stored_bytes) = rest.split_first_chunk::<4>()?;
    let value_bytes = (value_bytes == stored_bytes).then(|| u32::from_le_bytes(*value_bytes))?;
    Some((u16::from_le_bytes(*key_bytes).into(), usize::try_from(value_bytes).ok()?))
}

fn checkpoint_of(item: &[u8]) -> Option<Result<BatchStamp, IndexError>> {
    let (key_bytes, _) = lengths(item.get(..ITEM_HEADER_BYTES)?)?;
    let (key, value) = item.get(ITEM_HEADER_BYTES..)?.split_at_checked(key_bytes)?;
    (key == CHECKPOINT_KEY).then(|| decode_stamp(value))
}

fn closing(hash: u64) -> [u8; 13] {
    let mut bytes = *b"\x03........FJL\x03";
    bytes.iter_mut().skip(1).zip(hash.to_le_bytes()).for_each(|(byte, digit)| *byte = digit);
    bytes
}
