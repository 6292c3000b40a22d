//! The bytes of the index: one ordered map of keys and values for everything,
//! so that a batch has one place in one order.
//!
//! | Key | Value |
//! |---|---|
//! | `c` | the checkpoint: a [`BatchStamp`], then JSON |
//! | `d`, directory, number | a payload file that is doomed: nothing |
//! | `e`, bucket, NUL, key | an entry, see [`encode_entry`] |
//! | `f`, directory, number | a payload file that is live: nothing |
//! | `s`, segment | its usage: JSON |
//!
//! Numbers in keys are big-endian, so that they sort; a bucket has no NUL, so
//! that entries sort as their names do. Numbers in values are little-endian.
//! Every value ends with a checksum of key and value, made of their CRC-32Cs: what the engine below does
//! not notice is noticed here, and a value that turns up under another key too.

use std::collections::BTreeMap;

use crc_fast::crc32_iscsi;
use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::version::Version;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Brief, Checkpoint, Content, Entry, FileId, IndexError, Place, SegmentUsage, is_unreadable,
};

/// Where the checkpoint is.
pub(super) const CHECKPOINT_KEY: &[u8] = b"c";

const DOOMED: u8 = b'd';
const ENTRY: u8 = b'e';
const LIVE: u8 = b'f';
const SEGMENT: u8 = b's';

const CRC_BYTES: usize = 4;

/// Bits of the first byte of an entry.
const IS_TOMBSTONE: u8 = 1;
const IS_DAMAGED: u8 = 1 << 1;
const CONTENT_SHIFT: u8 = 2;

/// The place of a batch among all batches of an index. The journal check relies
/// on it: batches of one journal must follow each other without a gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct BatchStamp {
    /// The first batch of an index is 1.
    pub(super) number: u64,
    /// Sequence number that the engine was going to give next; that of the batch
    /// is not below it.
    pub(super) least_seqno: u64,
}

/// The key of an entry.
pub(super) fn entry_key(name: &ObjectName) -> Vec<u8> {
    let (bucket, key) = (name.bucket.as_str().as_bytes(), name.key.as_str().as_bytes());
    let mut bytes = Vec::with_capacity(bucket.len() + key.len() + 2);
    bytes.push(ENTRY);
    bytes.extend_from_slice(bucket);
    bytes.push(0);
    bytes.extend_from_slice(key);
    bytes
}

/// What the keys of all entries begin with, and no other key.
pub(super) const ENTRY_PREFIX: &[u8] = &[ENTRY];

/// Bucket and key of the name that [`entry_key`] was given.
pub(super) fn decode_entry_key(bytes: &[u8]) -> Result<(&str, &str), IndexError> {
    let name = || {
        let rest = str::from_utf8(bytes.strip_prefix(&[ENTRY])?).ok()?;
        rest.split_once('\0')
    };
    name().ok_or_else(IndexError::not_a_name)
}

/// The key of a payload file that is live.
pub(super) fn live_key(file: FileId) -> [u8; 17] {
    file_key(LIVE, file)
}

/// The key of a payload file that is doomed.
pub(super) fn doomed_key(file: FileId) -> [u8; 17] {
    file_key(DOOMED, file)
}

/// What the keys of all doomed files begin with.
pub(super) const DOOMED_PREFIX: &[u8] = &[DOOMED];

/// The file that [`doomed_key`] was given.
pub(super) fn decode_doomed_key(bytes: &[u8]) -> Result<FileId, IndexError> {
    let mut fields = Fields(bytes);
    match (fields.u8(), fields.u64_of_key(), fields.u64_of_key(), fields.0) {
        (Some(DOOMED), Some(directory), Some(number), []) => Ok(FileId { directory, number }),
        _ => Err(damaged("the key of a doomed file is no file")),
    }
}

fn file_key(prefix: u8, file: FileId) -> [u8; 17] {
    let mut bytes = [prefix; 17];
    let numbers = file.directory.to_be_bytes().into_iter().chain(file.number.to_be_bytes());
    bytes.iter_mut().skip(1).zip(numbers).for_each(|(byte, digit)| *byte = digit);
    bytes
}

/// The key of the usage of a segment.
pub(super) fn segment_key(segment: u64) -> [u8; 9] {
    let mut bytes = [SEGMENT; 9];
    bytes.iter_mut().skip(1).zip(segment.to_be_bytes()).for_each(|(byte, digit)| *byte = digit);
    bytes
}

/// What the keys of all segments begin with.
pub(super) const SEGMENT_PREFIX: &[u8] = &[SEGMENT];

/// The segment that [`segment_key`] was given.
pub(super) fn decode_segment_key(bytes: &[u8]) -> Result<u64, IndexError> {
    let mut fields = Fields(bytes);
    match (fields.u8(), fields.u64_of_key(), fields.0) {
        (Some(SEGMENT), Some(segment), []) => Ok(segment),
        _ => Err(damaged("the key of a segment is no segment")),
    }
}

/// An entry as a value.
///
/// | Bytes | What |
/// |---|---|
/// | 1 | bit 0: tombstone, bit 1: damaged, bits 2 and 3: content |
/// | 8, 8 | version: clock, writer |
/// | 8, 8 | size and digest of the payload |
/// | 8, 4, 4 | record: segment, offset, length |
/// | 8 | origin |
/// | 8, 8 | payload file: directory, number; only for content 2 |
/// | rest | [`Metadata`], see [`put_metadata`] |
/// | 4 | checksum |
pub(super) fn encode_entry(key: &[u8], entry: &Entry) -> Result<Vec<u8>, IndexError> {
    let mut bytes = Vec::with_capacity(256);
    bytes.push(flags(entry));
    let Entry { stat, place, .. } = entry;
    put(&mut bytes, &[stat.version.clock(), stat.version.writer()]);
    put(&mut bytes, &[stat.size_bytes, stat.digest.0, place.segment]);
    bytes.extend_from_slice(&place.offset.to_le_bytes());
    bytes.extend_from_slice(&place.length.to_le_bytes());
    put(&mut bytes, &[entry.origin]);
    if let Content::File(file) = entry.content {
        put(&mut bytes, &[file.directory, file.number]);
    }
    put_metadata(&mut bytes, &stat.metadata)?;
    Ok(sealed(key, bytes))
}

fn flags(entry: &Entry) -> u8 {
    let content = match entry.content {
        Content::Nothing => 0,
        Content::Inline => 1,
        Content::File(_) => 2,
        Content::Lost => 3,
    };
    let tombstone = if entry.stat.kind == Kind::Tombstone { IS_TOMBSTONE } else { 0 };
    let damaged = if entry.is_damaged { IS_DAMAGED } else { 0 };
    tombstone | damaged | content << CONTENT_SHIFT
}

/// The entry that [`encode_entry`] was given.
pub(super) fn decode_entry(key: &[u8], value: &[u8]) -> Result<Entry, IndexError> {
    let mut headers = BTreeMap::new();
    let Parts { fixed, rest } = parts(key, value, |name, value| {
        headers.insert(name.text()?.to_owned(), value.text()?.to_owned());
        Some(())
    })?;
    let Fixed { version, kind, size_bytes, digest, content, place, origin, is_damaged } = fixed;
    let metadata = Metadata {
        content_type: rest.content_type.map(str::to_owned),
        headers,
        modified_unix_millis: rest.modified_unix_millis,
        written_as: rest.written_as,
    };
    let stat = Stat { version, kind, size_bytes, digest, metadata };
    Ok(Entry { stat, content, place, origin, is_damaged })
}

/// As much of it as a list shows. The headers, which would take longer to make
/// than everything else, are passed over.
pub(super) fn decode_brief<'a>(key: &[u8], value: &'a [u8]) -> Result<Brief<'a>, IndexError> {
    let Parts { fixed, rest } = parts(key, value, |_, _| Some(()))?;
    Ok(Brief {
        version: fixed.version,
        written_as: rest.written_as,
        kind: fixed.kind,
        size_bytes: fixed.size_bytes,
        digest: fixed.digest,
        content_type: rest.content_type,
        modified_unix_millis: rest.modified_unix_millis,
        is_unreadable: is_unreadable(fixed.is_damaged, fixed.content),
    })
}

/// An entry but for its headers.
struct Parts<'a> {
    fixed: Fixed,
    rest: Rest<'a>,
}

/// What every entry has in the same place.
struct Fixed {
    version: Version,
    kind: Kind,
    size_bytes: u64,
    digest: Digest,
    content: Content,
    place: Place,
    origin: u64,
    is_damaged: bool,
}

/// Of the metadata what is not a header.
struct Rest<'a> {
    content_type: Option<&'a str>,
    modified_unix_millis: u64,
    written_as: Option<Version>,
}

/// Verifies a value and takes it apart; `on_header` takes each name and its
/// value, and says `None` when they are none.
fn parts<'a>(
    key: &[u8],
    value: &'a [u8],
    on_header: impl FnMut(Text<'a>, Text<'a>) -> Option<()>,
) -> Result<Parts<'a>, IndexError> {
    let mut fields = Fields(opened(key, value)?);
    let fixed = fixed_fields(&mut fields);
    let fixed = fixed.ok_or_else(|| damaged("an entry is cut short or has unknown flags"))?;
    let rest = metadata_of(&mut fields, on_header).filter(|_| fields.0.is_empty());
    let rest = rest.ok_or_else(|| damaged("the metadata of an entry is malformed"))?;
    Ok(Parts { fixed, rest })
}

fn fixed_fields(fields: &mut Fields<'_>) -> Option<Fixed> {
    let flags = fields.u8()?;
    let kind = if flags & IS_TOMBSTONE == 0 { Kind::Object } else { Kind::Tombstone };
    let version = Version::from_parts(fields.u64()?, fields.u64()?);
    let (size_bytes, digest) = (fields.u64()?, Digest(fields.u64()?));
    let place = Place { segment: fields.u64()?, offset: fields.u32()?, length: fields.u32()? };
    let origin = fields.u64()?;
    let content = match flags >> CONTENT_SHIFT {
        0 => Content::Nothing,
        1 => Content::Inline,
        2 => Content::File(FileId { directory: fields.u64()?, number: fields.u64()? }),
        3 => Content::Lost,
        _ => return None,
    };
    let is_damaged = flags & IS_DAMAGED != 0;
    Some(Fixed { version, kind, size_bytes, digest, content, place, origin, is_damaged })
}

/// Metadata in a form that is read a thousand times for a page of a list, where
/// JSON would take longer than everything else.
///
/// | Bytes | What |
/// |---|---|
/// | 8 | when it was modified |
/// | 4 | count of texts |
/// | each text: 4, its length | length, UTF-8 |
///
/// | nothing, or 8, 8 | under which version it was written, if not under its own: clock, writer |
///
/// The texts are the names and values of the headers, in order, and the content
/// type last, if there is one.
fn put_metadata(bytes: &mut Vec<u8>, metadata: &Metadata) -> Result<(), IndexError> {
    put(bytes, &[metadata.modified_unix_millis]);
    let headers = metadata.headers.iter().flat_map(|(name, value)| [name, value]);
    let texts = headers.chain(&metadata.content_type);
    let count = 2 * metadata.headers.len() + usize::from(metadata.content_type.is_some());
    put_length(bytes, count)?;
    for text in texts {
        put_length(bytes, text.len())?;
        bytes.extend_from_slice(text.as_bytes());
    }
    if let Some(version) = metadata.written_as {
        put(bytes, &[version.clock(), version.writer()]);
    }
    Ok(())
}

fn put_length(bytes: &mut Vec<u8>, length: usize) -> Result<(), IndexError> {
    let length = u32::try_from(length)
        .map_err(|_| IndexError::Failed { reason: "metadata of 4 GiB".to_owned() })?;
    bytes.extend_from_slice(&length.to_le_bytes());
    Ok(())
}

fn metadata_of<'a>(
    fields: &mut Fields<'a>,
    mut on_header: impl FnMut(Text<'a>, Text<'a>) -> Option<()>,
) -> Option<Rest<'a>> {
    let modified_unix_millis = fields.u64()?;
    let count = fields.u32()?;
    for _ in 0..count / 2 {
        on_header(fields.text()?, fields.text()?)?;
    }
    let content_type = if count % 2 == 1 { Some(fields.text()?.text()?) } else { None };
    let written_as = match fields.0.is_empty() {
        true => None,
        false => Some(Version::from_parts(fields.u64()?, fields.u64()?)),
    };
    Some(Rest { content_type, modified_unix_millis, written_as })
}

/// The value of a key that says all.
pub(super) fn encode_mark(key: &[u8]) -> Vec<u8> {
    sealed(key, Vec::with_capacity(CRC_BYTES))
}

/// Checks what [`encode_mark`] made.
pub(super) fn check_mark(key: &[u8], value: &[u8]) -> Result<(), IndexError> {
    match opened(key, value)? {
        [] => Ok(()),
        _ => Err(damaged("a mark has content")),
    }
}

/// The usage of a segment as a value.
pub(super) fn encode_segment(key: &[u8], usage: &SegmentUsage) -> Result<Vec<u8>, IndexError> {
    let mut bytes = Vec::new();
    put_json(&mut bytes, usage)?;
    Ok(sealed(key, bytes))
}

/// The usage that [`encode_segment`] was given.
pub(super) fn decode_segment(key: &[u8], value: &[u8]) -> Result<SegmentUsage, IndexError> {
    from_json(opened(key, value)?)
}

/// A checkpoint as a value.
pub(super) fn encode_checkpoint(
    stamp: BatchStamp,
    checkpoint: &Checkpoint,
) -> Result<Vec<u8>, IndexError> {
    let mut bytes = Vec::new();
    put(&mut bytes, &[stamp.number, stamp.least_seqno]);
    put_json(&mut bytes, checkpoint)?;
    Ok(sealed(CHECKPOINT_KEY, bytes))
}

/// The stamp and the checkpoint that [`encode_checkpoint`] was given.
pub(super) fn decode_checkpoint(value: &[u8]) -> Result<(BatchStamp, Checkpoint), IndexError> {
    let (stamp, json) = split_checkpoint(value)?;
    Ok((stamp, from_json(json)?))
}

/// The stamp alone.
pub(super) fn decode_stamp(value: &[u8]) -> Result<BatchStamp, IndexError> {
    split_checkpoint(value).map(|(stamp, _)| stamp)
}

fn split_checkpoint(value: &[u8]) -> Result<(BatchStamp, &[u8]), IndexError> {
    let mut fields = Fields(opened(CHECKPOINT_KEY, value)?);
    match (fields.u64(), fields.u64()) {
        (Some(number), Some(least_seqno)) => Ok((BatchStamp { number, least_seqno }, fields.0)),
        _ => Err(damaged("a checkpoint is cut short")),
    }
}

fn put(bytes: &mut Vec<u8>, numbers: &[u64]) {
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
}

fn put_json(bytes: &mut Vec<u8>, value: &impl Serialize) -> Result<(), IndexError> {
    serde_json::to_writer(bytes, value).map_err(|error| IndexError::Failed {
        reason: format!("a value has no JSON form: {error}"),
    })
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, IndexError> {
    serde_json::from_slice(bytes).map_err(|error| damaged(&format!("a value is no JSON: {error}")))
}

/// Ends a value with its checksum.
fn sealed(key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let crc = checksum(key, &value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

/// A value without its checksum, if that is right.
fn opened<'a>(key: &[u8], value: &'a [u8]) -> Result<&'a [u8], IndexError> {
    match value.split_last_chunk::<CRC_BYTES>() {
        Some((content, crc)) if checksum(key, content) == u32::from_le_bytes(*crc) => Ok(content),
        Some(_) => Err(damaged("a value does not match its checksum")),
        None => Err(damaged("a value is too short for a checksum")),
    }
}

/// Two checksums in one: that of the key is turned, so that key and value cannot
/// change places.
fn checksum(key: &[u8], value: &[u8]) -> u32 {
    crc32_iscsi(key).rotate_left(16) ^ crc32_iscsi(value)
}

fn damaged(reason: &str) -> IndexError {
    IndexError::Damaged { reason: reason.to_owned() }
}

/// Bytes that are taken off from the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.take::<1>().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<Text<'a>> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Text(bytes))
    }

    fn u64_of_key(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

/// The bytes of what should be a text.
struct Text<'a>(&'a [u8]);

impl<'a> Text<'a> {
    fn text(&self) -> Option<&'a str> {
        str::from_utf8(self.0).ok()
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
