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
//! Every value ends with a checksum of key and value, made of their CRC-32Cs, and
//! an entry has two: what the engine below does not notice is noticed here, and a
//! value that turns up under another key too.

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
const CONTENT_MASK: u8 = 3;
const HAS_CONTENT_TYPE: u8 = 1 << 4;
const HAS_WRITTEN_AS: u8 = 1 << 5;
const UNKNOWN_FLAGS: u8 = !0 << 6;

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

/// An entry as a value, in two parts with a checksum each: a page of a list takes
/// the first part of a thousand entries, and should not have to read the headers
/// only to know that they are not damaged.
///
/// | Bytes | What |
/// |---|---|
/// | 1 | bit 0: tombstone, bit 1: damaged, bits 2 and 3: content, bit 4: has a content type, bit 5: has a version that it was written as |
/// | 8, 8 | version: clock, writer |
/// | 8, 8 | size and digest of the payload |
/// | 8, 4, 4 | record: segment, offset, length |
/// | 8 | origin |
/// | 8, 8 | payload file: directory, number; only for content 2 |
/// | 8 | when it was modified |
/// | 4, its length | content type, UTF-8; only with bit 4 |
/// | 8, 8 | under which version it was written, if not under its own: clock, writer; only with bit 5 |
/// | 4 | checksum of key and all before |
/// | 4 | count of headers |
/// | each: 4, its length, 4, its length | name and value, UTF-8, in order |
/// | 4 | checksum of key and all from the first checksum on, so that no headers go with another entry |
pub(super) fn encode_entry(key: &[u8], entry: &Entry) -> Result<Vec<u8>, IndexError> {
    let mut bytes = encode_brief(key, entry)?;
    let second = bytes.len() - CRC_BYTES;
    let headers = &entry.stat.metadata.headers;
    put_length(&mut bytes, headers.len())?;
    for text in headers.iter().flat_map(|(name, value)| [name, value]) {
        put_text(&mut bytes, text)?;
    }
    seal(key, &mut bytes, second);
    Ok(bytes)
}

/// The first part of it.
fn encode_brief(key: &[u8], entry: &Entry) -> Result<Vec<u8>, IndexError> {
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
    put(&mut bytes, &[stat.metadata.modified_unix_millis]);
    if let Some(content_type) = &stat.metadata.content_type {
        put_text(&mut bytes, content_type)?;
    }
    if let Some(version) = stat.metadata.written_as {
        put(&mut bytes, &[version.clock(), version.writer()]);
    }
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
    let metadata = &entry.stat.metadata;
    let content_type = if metadata.content_type.is_some() { HAS_CONTENT_TYPE } else { 0 };
    let written_as = if metadata.written_as.is_some() { HAS_WRITTEN_AS } else { 0 };
    tombstone | damaged | content << CONTENT_SHIFT | content_type | written_as
}

/// The entry that [`encode_entry`] was given.
pub(super) fn decode_entry(key: &[u8], value: &[u8]) -> Result<Entry, IndexError> {
    let (first, second) = parts(key, value)?;
    let headers = headers_of(opened(key, second)?);
    let headers = headers.ok_or_else(|| damaged("the headers of an entry are malformed"))?;
    let First { version, kind, size_bytes, digest, content, place, origin, is_damaged, .. } = first;
    let metadata = Metadata {
        content_type: first.content_type.map(str::to_owned),
        headers,
        modified_unix_millis: first.modified_unix_millis,
        written_as: first.written_as,
    };
    let stat = Stat { version, kind, size_bytes, digest, metadata };
    Ok(Entry { stat, content, place, origin, is_damaged })
}

/// As much of it as a list shows. The headers are not looked at.
pub(super) fn decode_brief<'a>(key: &[u8], value: &'a [u8]) -> Result<Brief<'a>, IndexError> {
    let (first, _) = parts(key, value)?;
    Ok(Brief {
        version: first.version,
        written_as: first.written_as,
        kind: first.kind,
        size_bytes: first.size_bytes,
        digest: first.digest,
        content_type: first.content_type,
        modified_unix_millis: first.modified_unix_millis,
        is_unreadable: is_unreadable(first.is_damaged, first.content),
    })
}

/// The first part of an entry.
struct First<'a> {
    version: Version,
    kind: Kind,
    size_bytes: u64,
    digest: Digest,
    content: Content,
    place: Place,
    origin: u64,
    is_damaged: bool,
    modified_unix_millis: u64,
    content_type: Option<&'a str>,
    written_as: Option<Version>,
}

/// The first part, verified, and the second one, which is not.
fn parts<'a>(key: &[u8], value: &'a [u8]) -> Result<(First<'a>, &'a [u8]), IndexError> {
    let mut fields = Fields(value);
    let cut_short = || damaged("an entry is cut short or has unknown flags");
    let first = first_fields(&mut fields).ok_or_else(cut_short)?;
    let second = fields.0;
    let length = value.len() - second.len() + CRC_BYTES;
    opened(key, value.get(..length).ok_or_else(cut_short)?)?;
    Ok((first, second))
}

fn first_fields<'a>(fields: &mut Fields<'a>) -> Option<First<'a>> {
    let flags = fields.u8().filter(|flags| flags & UNKNOWN_FLAGS == 0)?;
    let has = |flag| flags & flag != 0;
    let kind = if has(IS_TOMBSTONE) { Kind::Tombstone } else { Kind::Object };
    let version = fields.version()?;
    let (size_bytes, digest) = (fields.u64()?, Digest(fields.u64()?));
    let place = Place { segment: fields.u64()?, offset: fields.u32()?, length: fields.u32()? };
    let origin = fields.u64()?;
    let content = match flags >> CONTENT_SHIFT & CONTENT_MASK {
        0 => Content::Nothing,
        1 => Content::Inline,
        2 => Content::File(FileId { directory: fields.u64()?, number: fields.u64()? }),
        _ => Content::Lost,
    };
    let modified_unix_millis = fields.u64()?;
    let content_type = if has(HAS_CONTENT_TYPE) { Some(fields.text()?) } else { None };
    let written_as = if has(HAS_WRITTEN_AS) { Some(fields.version()?) } else { None };
    Some(First {
        version,
        kind,
        size_bytes,
        digest,
        content,
        place,
        origin,
        is_damaged: has(IS_DAMAGED),
        modified_unix_millis,
        content_type,
        written_as,
    })
}

/// The headers in the second part; the first checksum is before them.
fn headers_of(second: &[u8]) -> Option<BTreeMap<String, String>> {
    let mut fields = Fields(second);
    fields.take::<CRC_BYTES>()?;
    let count = fields.u32()?;
    let mut headers = BTreeMap::new();
    for _ in 0..count {
        headers.insert(fields.text()?.to_owned(), fields.text()?.to_owned());
    }
    fields.0.is_empty().then_some(headers)
}

fn put_text(bytes: &mut Vec<u8>, text: &str) -> Result<(), IndexError> {
    put_length(bytes, text.len())?;
    bytes.extend_from_slice(text.as_bytes());
    Ok(())
}

fn put_length(bytes: &mut Vec<u8>, length: usize) -> Result<(), IndexError> {
    let length = u32::try_from(length)
        .map_err(|_| IndexError::Failed { reason: "metadata of 4 GiB".to_owned() })?;
    bytes.extend_from_slice(&length.to_le_bytes());
    Ok(())
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
    seal(key, &mut value, 0);
    value
}

/// Ends a value with a checksum of what it has from `start` on.
fn seal(key: &[u8], value: &mut Vec<u8>, start: usize) {
    let crc = checksum(key, value.get(start..).unwrap_or_default());
    value.extend_from_slice(&crc.to_le_bytes());
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

    fn version(&mut self) -> Option<Version> {
        Some(Version::from_parts(self.u64()?, self.u64()?))
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        str::from_utf8(bytes).ok()
    }

    fn u64_of_key(&mut self) -> Option<u64> {
        self.take().map(u64::from_be_bytes)
    }
}

#[cfg(test)]
#[path = "entry_tests.rs"]
mod tests;
