//! The bytes of a record, made and read without any I/O.

use bytes::Bytes;
use crc_fast::crc32_iscsi;
use holdfast_core::name::{Bucket, Key, ObjectName};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::version::Version;

use super::index::{Content, FileId};

/// Bytes of the fixed part of a record.
pub(super) const HEADER_BYTES: usize = 80;

/// Records begin at multiples of this, so that a reader that lost its way looks
/// at an eighth of all places only.
pub(super) const ALIGNMENT: usize = 8;

/// Longest metadata that is written or accepted. A `Content-Type` and the kept
/// headers come to a fraction of this.
pub(super) const MAX_METADATA_BYTES: usize = 128 * 1024;

/// Longest payload in a record that is accepted: bounds what a damaged length
/// can ask for.
pub(super) const MAX_INLINE_BYTES: usize = 16 * 1024 * 1024;

const MAGIC: [u8; 4] = *b"HFr1";

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RecordKind {
    /// A version whose payload follows.
    Object,
    /// A version whose payload is in a file; its [`FileId`] follows.
    File,
    /// A version that means deleted.
    Tombstone,
    /// A version whose payload was damaged beyond reading.
    Lost,
    /// Whatever was there of the name is forgotten. The number of the segment
    /// in which this was first written follows: the record is needed while that
    /// segment or an older one is there.
    Forget,
    /// First in a segment: which segments there were when it was begun.
    Census,
    /// A segment of which everything in use has been moved; its number follows.
    Removed,
    /// Everything before this was synced: the end of an orderly run.
    Seal,
    /// Bytes that could not be read and were accepted as lost. What follows the
    /// header is what was found there, and has no checksum. It is written in
    /// place, so its sequence, which is 0, says nothing.
    Gap,
}

impl RecordKind {
    fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Object,
            2 => Self::File,
            3 => Self::Tombstone,
            4 => Self::Lost,
            5 => Self::Forget,
            6 => Self::Census,
            7 => Self::Removed,
            8 => Self::Seal,
            9 => Self::Gap,
            _ => return None,
        })
    }

    fn byte(self) -> u8 {
        match self {
            Self::Object => 1,
            Self::File => 2,
            Self::Tombstone => 3,
            Self::Lost => 4,
            Self::Forget => 5,
            Self::Census => 6,
            Self::Removed => 7,
            Self::Seal => 8,
            Self::Gap => 9,
        }
    }

    /// Whether a record of this kind is about a name.
    fn has_name(self) -> bool {
        match self {
            Self::Object | Self::File | Self::Tombstone | Self::Lost | Self::Forget => true,
            Self::Census | Self::Removed | Self::Seal | Self::Gap => false,
        }
    }
}

/// The fixed part of a record.
///
/// # Layout of a record
/// Begins at a multiple of 8 of its segment. With a bucket of `b` bytes, a key
/// of `k`, metadata of `m` and a payload of `p`:
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | 4 | head checksum: CRC32C of the segment's salt (8 bytes), the offset of the record in its segment (8 bytes), and of bytes 4 to 80 + `b` + `k` + `m` of the record |
/// | 4 | 4 | `HFr1` |
/// | 8 | 1 | kind: 1 object, 2 object in a file, 3 tombstone, 4 lost, 5 forget, 6 census, 7 removed, 8 seal, 9 gap |
/// | 9 | 1 | `b` |
/// | 10 | 2 | `k` |
/// | 12 | 4 | `m` |
/// | 16 | 4 | `p` |
/// | 20 | 4 | CRC32C of the payload |
/// | 24 | 8 | sequence: number of the record, grows along the log |
/// | 32 | 8 | origin: sequence of the write that this is a copy of, or its own |
/// | 40 | 8 | clock of the version |
/// | 48 | 8 | writer of the version |
/// | 56 | 8 | size of the object in bytes |
/// | 64 | 8 | digest of the object, CRC-64/NVME |
/// | 72 | 4 | where in the segment the batch began that the record was written with |
/// | 76 | 4 | 0 |
/// | 80 | `b` + `k` + `m` + `p` | bucket, key, metadata (JSON), payload |
/// | | 0 to 7 | zeros up to a multiple of 8 |
///
/// Numbers are little-endian. The two checksums cover every byte but the
/// padding: the first covers the second. With the first alone it is known which
/// version of which name the record holds, though its payload may be damaged.
/// Salt and offset are in it so that neither a record from another segment nor
/// bytes that a client stored can be taken for a record.
///
/// All before the beginning of a record's batch was synced before the record
/// was written. So what cannot be read before that place is damage, and not the
/// end of an interrupted write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: RecordKind,
    pub(super) sequence: u64,
    pub(super) origin: u64,
    pub(super) version: Version,
    pub(super) size_bytes: u64,
    pub(super) digest: Digest,
    /// Where the record's batch began.
    pub(super) batch_start: u32,
    pub(super) payload_crc: u32,
    bucket_bytes: u8,
    key_bytes: u16,
    metadata_bytes: u32,
    pub(super) payload_bytes: u32,
}

/// A record as it is to be written, without its numbers.
#[derive(Debug, Clone)]
pub(super) struct Draft<'a> {
    pub(super) kind: RecordKind,
    pub(super) name: Option<&'a ObjectName>,
    pub(super) version: Version,
    pub(super) size_bytes: u64,
    pub(super) digest: Digest,
    /// JSON of [`Metadata`], or nothing.
    pub(super) metadata: &'a [u8],
    pub(super) payload: &'a [u8],
    pub(super) payload_crc: u32,
}

impl<'a> Draft<'a> {
    /// A record about a name: its stat, and a payload whose checksum is known.
    pub(super) fn of_stat(
        kind: RecordKind,
        name: &'a ObjectName,
        stat: &Stat,
        metadata: &'a [u8],
        (payload, payload_crc): (&'a [u8], u32),
    ) -> Self {
        let (version, size_bytes, digest) = (stat.version, stat.size_bytes, stat.digest);
        let name = Some(name);
        Self { kind, name, version, size_bytes, digest, metadata, payload, payload_crc }
    }

    /// A record about the log itself.
    pub(super) fn of_log(kind: RecordKind, payload: &'a [u8]) -> Self {
        Self {
            kind,
            name: None,
            version: Version::from_parts(0, 0),
            size_bytes: 0,
            digest: Digest::default(),
            metadata: &[],
            payload,
            payload_crc: crc32_iscsi(payload),
        }
    }

    /// Bytes that the record takes in the log.
    pub(super) fn length(&self) -> usize {
        let name = self.name.map_or(0, |name| name.bucket.as_str().len() + name.key.as_str().len());
        padded(HEADER_BYTES + name + self.metadata.len() + self.payload.len())
    }

    fn header(&self, numbers: Numbers) -> Option<Header> {
        let part = |text: Option<&str>| text.unwrap_or_default().len();
        Some(Header {
            kind: self.kind,
            sequence: numbers.sequence,
            origin: numbers.origin,
            version: self.version,
            size_bytes: self.size_bytes,
            digest: self.digest,
            batch_start: numbers.batch_start,
            payload_crc: self.payload_crc,
            bucket_bytes: u8::try_from(part(self.name.map(|name| name.bucket.as_str()))).ok()?,
            key_bytes: u16::try_from(part(self.name.map(|name| name.key.as_str()))).ok()?,
            metadata_bytes: u32::try_from(self.metadata.len()).ok()?,
            payload_bytes: u32::try_from(self.payload.len()).ok()?,
        })
    }

    /// Appends the record to `out`, which will be written so that the record
    /// lies at `offset` of the segment with this salt. `None`, and nothing
    /// appended, when a part is longer than a reader would accept.
    pub(super) fn encode(&self, out: &mut Vec<u8>, seed: Seed, numbers: Numbers) -> Option<Header> {
        if self.metadata.len() > MAX_METADATA_BYTES || self.payload.len() > MAX_INLINE_BYTES {
            return None;
        }
        let header = self.header(numbers)?;
        let start = out.len();
        out.extend_from_slice(&[0; 4]);
        header.append_to(out);
        if let Some(name) = self.name {
            out.extend_from_slice(name.bucket.as_str().as_bytes());
            out.extend_from_slice(name.key.as_str().as_bytes());
        }
        out.extend_from_slice(self.metadata);
        let checked = out.get(start + 4..).unwrap_or_default();
        let crc = seed.crc_of(checked).to_le_bytes();
        if let Some(place) = out.get_mut(start..start + 4) {
            place.copy_from_slice(&crc);
        }
        out.extend_from_slice(self.payload);
        out.resize(start + padded(out.len() - start), 0);
        Some(header)
    }
}

/// What ties a record to its place: goes into its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seed {
    /// The segment's random number.
    pub(super) salt: u64,
    /// Where in the segment the record begins.
    pub(super) offset: u64,
}

impl Seed {
    fn crc_of(self, checked: &[u8]) -> u32 {
        let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
        digest.update(&self.salt.to_le_bytes());
        digest.update(&self.offset.to_le_bytes());
        digest.update(checked);
        // A 32-bit algorithm has nothing in the upper half.
        u32::try_from(digest.finalize() & u64::from(u32::MAX)).unwrap_or_default()
    }
}

/// What the log gives a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Numbers {
    pub(super) sequence: u64,
    pub(super) origin: u64,
    pub(super) batch_start: u32,
}

/// The next multiple of [`ALIGNMENT`].
pub(super) fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

impl Header {
    /// Everything but the checksum at the front.
    fn append_to(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.kind.byte(), self.bucket_bytes]);
        out.extend_from_slice(&self.key_bytes.to_le_bytes());
        out.extend_from_slice(&self.metadata_bytes.to_le_bytes());
        out.extend_from_slice(&self.payload_bytes.to_le_bytes());
        out.extend_from_slice(&self.payload_crc.to_le_bytes());
        for number in [self.sequence, self.origin, self.version.clock(), self.version.writer()] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.size_bytes.to_le_bytes());
        out.extend_from_slice(&self.digest.0.to_le_bytes());
        out.extend_from_slice(&self.batch_start.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
    }

    /// Reads a header whose checksum is not verified yet; `None` when it cannot
    /// be one. Its lengths are within bounds.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields(bytes.get(4..HEADER_BYTES)?);
        if fields.take::<4>()? != MAGIC {
            return None;
        }
        let [kind, bucket_bytes] = fields.take()?;
        let header = Self {
            kind: RecordKind::from_byte(kind)?,
            bucket_bytes,
            key_bytes: u16::from_le_bytes(fields.take()?),
            metadata_bytes: fields.u32()?,
            payload_bytes: fields.u32()?,
            payload_crc: fields.u32()?,
            sequence: fields.u64()?,
            origin: fields.u64()?,
            version: Version::from_parts(fields.u64()?, fields.u64()?),
            size_bytes: fields.u64()?,
            digest: Digest(fields.u64()?),
            batch_start: fields.u32()?,
        };
        header.is_bounded().then_some(header)
    }

    fn is_bounded(&self) -> bool {
        let within = |bytes: u32, limit: usize| usize::try_from(bytes).is_ok_and(|b| b <= limit);
        // A gap is skipped and not read, so its length needs no bound.
        within(self.metadata_bytes, MAX_METADATA_BYTES)
            && (self.kind == RecordKind::Gap || within(self.payload_bytes, MAX_INLINE_BYTES))
    }

    /// Bytes of header, name and metadata.
    pub(super) fn head_bytes(&self) -> usize {
        // All within usize: the parts were checked when it was decoded.
        HEADER_BYTES
            + usize::from(self.bucket_bytes)
            + usize::from(self.key_bytes)
            + usize::try_from(self.metadata_bytes).unwrap_or(MAX_METADATA_BYTES)
    }

    /// Bytes of the record, padding included.
    pub(super) fn record_bytes(&self) -> u64 {
        let whole = self.head_bytes() as u64 + u64::from(self.payload_bytes);
        whole.next_multiple_of(ALIGNMENT as u64)
    }

    /// Verifies a head and reads what it says; `head` is the first
    /// [`Self::head_bytes`] of the record. `None` when it is damaged.
    pub(super) fn verify(self, head: &[u8], seed: Seed) -> Option<Head> {
        let mut fields = Fields(head);
        let crc = fields.u32()?;
        if head.len() != self.head_bytes() || seed.crc_of(fields.0) != crc {
            return None;
        }
        let mut rest = Fields(head.get(HEADER_BYTES..)?);
        let bucket = rest.text(self.bucket_bytes.into())?;
        let key = rest.text(self.key_bytes.into())?;
        let name = if self.kind.has_name() {
            Some(ObjectName::new(Bucket::new(bucket).ok()?, Key::new(key).ok()?))
        } else {
            None
        };
        Some(Head { header: self, name, metadata: Bytes::copy_from_slice(rest.0) })
    }
}

/// A head whose checksum was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) header: Header,
    /// There for every kind that is about a name.
    pub(super) name: Option<ObjectName>,
    /// JSON of [`Metadata`], or nothing.
    pub(super) metadata: Bytes,
}

impl Head {
    /// What the record says about its version; `None` for metadata that no
    /// release wrote.
    pub(super) fn stat(&self) -> Option<Stat> {
        let Header { version, size_bytes, digest, .. } = self.header;
        let kind = match self.header.kind {
            RecordKind::Tombstone => Kind::Tombstone,
            _ => Kind::Object,
        };
        let metadata = decode_metadata(&self.metadata)?;
        Some(Stat { version, kind, size_bytes, digest, metadata })
    }

    /// Whether a payload is the one that was written.
    pub(super) fn is_payload_sound(&self, payload: &[u8]) -> bool {
        u32::try_from(payload.len()) == Ok(self.header.payload_bytes)
            && crc32_iscsi(payload) == self.header.payload_crc
    }

    /// Where the payload of the entry is that this record makes; `None` for a
    /// record that makes none, or whose reference is malformed.
    pub(super) fn content(&self, payload: &[u8]) -> Option<Content> {
        match self.header.kind {
            RecordKind::Object => Some(Content::Inline),
            RecordKind::File => Some(Content::File(decode_file(payload)?)),
            RecordKind::Tombstone => Some(Content::Nothing),
            RecordKind::Lost => Some(Content::Lost),
            RecordKind::Forget
            | RecordKind::Census
            | RecordKind::Removed
            | RecordKind::Seal
            | RecordKind::Gap => None,
        }
    }
}

/// Metadata as a record holds it. Nothing at all for the default, which most
/// small objects have.
///
/// # Errors
/// As serde_json gives them; does not happen for what [`Metadata`] holds.
pub(super) fn encode_metadata(metadata: &Metadata) -> Result<Vec<u8>, serde_json::Error> {
    if *metadata == Metadata::default() {
        return Ok(Vec::new());
    }
    serde_json::to_vec(metadata)
}

/// The inverse of [`encode_metadata`].
pub(super) fn decode_metadata(bytes: &[u8]) -> Option<Metadata> {
    if bytes.is_empty() {
        return Some(Metadata::default());
    }
    serde_json::from_slice(bytes).ok()
}

/// The payload of a [`RecordKind::File`].
pub(super) fn encode_file(file: FileId) -> [u8; 16] {
    let mut bytes = [0; 16];
    let (directory, number) = bytes.split_at_mut(8);
    directory.copy_from_slice(&file.directory.to_le_bytes());
    number.copy_from_slice(&file.number.to_le_bytes());
    bytes
}

fn decode_file(payload: &[u8]) -> Option<FileId> {
    let mut fields = Fields(payload);
    let file = FileId { directory: fields.u64()?, number: fields.u64()? };
    fields.0.is_empty().then_some(file)
}

/// The payload of [`RecordKind::Forget`] and [`RecordKind::Removed`].
pub(super) fn decode_segment(payload: &[u8]) -> Option<u64> {
    let mut fields = Fields(payload);
    let segment = fields.u64()?;
    fields.0.is_empty().then_some(segment)
}

/// The head of a gap that takes `bytes` bytes of its segment, padding included;
/// what lies behind the head stays. `None` when that is no length of a record.
///
/// Its origin is no write, so that it tells nothing about when it was written.
pub(super) fn encode_gap(seed: Seed, bytes: u64) -> Option<Vec<u8>> {
    let payload_bytes = u32::try_from(bytes.checked_sub(HEADER_BYTES as u64)?).ok()?;
    let batch_start = u32::try_from(seed.offset).ok()?;
    let numbers = Numbers { sequence: 0, origin: u64::MAX, batch_start };
    let header = Draft::of_log(RecordKind::Gap, &[]).header(numbers)?;
    let header = Header { payload_bytes, payload_crc: 0, ..header };
    let mut bytes = vec![0; 4];
    header.append_to(&mut bytes);
    let crc = seed.crc_of(bytes.get(4..)?).to_le_bytes();
    bytes.get_mut(..4)?.copy_from_slice(&crc);
    Some(bytes)
}

/// Takes fields off the front.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (field, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*field)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn text(&mut self, bytes: usize) -> Option<&'a str> {
        let (text, rest) = self.0.split_at_checked(bytes)?;
        self.0 = rest;
        std::str::from_utf8(text).ok()
    }
}
