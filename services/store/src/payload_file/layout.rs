//! The bytes of an object file, made and read without any I/O.

use std::io;

use crc_fast::crc32_iscsi;
use holdfast_core::name::{Bucket, Key, ObjectName};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::version::Version;
use serde::{Deserialize, Serialize};

use super::damage::Damage;

/// Payload bytes under one checksum. A range read costs at most this much more
/// at each end, and the block table is 1/32,768 of the payload.
pub(crate) const BLOCK_BYTES: usize = BLOCK_LENGTH as usize;

/// The same as the footer has it.
const BLOCK_LENGTH: u32 = 128 * 1024;

/// Largest block that is accepted from a file; a read holds a few in memory.
const MAX_BLOCK_BYTES: u32 = 1024 * 1024;

/// Bytes of one entry of the block table.
pub(crate) const SUM_BYTES: u64 = 4;

/// Bytes of the footer.
pub(crate) const FOOTER_BYTES: usize = 32;

/// Largest description that is accepted. A key of 1024 bytes, each escaped as
/// six, and a `Content-Type` come to a tenth of this.
const MAX_DESCRIPTION_BYTES: u32 = 128 * 1024;

const FORMAT_VERSION: u32 = 1;

/// As in PNG, the line ends show a transfer that changed them.
const MAGIC: [u8; 8] = *b"HFOBJ\r\n\x1a";

/// The last bytes of an object file, from which all else is found.
///
/// # Layout of an object file
/// With a payload of `p` bytes in blocks of `b`, and a description of `d`:
///
/// | offset | bytes | what |
/// |---|---|---|
/// | 0 | `p` | payload |
/// | `p` | 4 · ⌈`p`/`b`⌉ | block table: CRC32C of each payload block, the last one may be short |
/// | end − 32 − `d` | `d` | description: JSON, see [`Description`] |
/// | end − 32 | 8 | `p` |
/// | end − 24 | 4 | `b` |
/// | end − 20 | 4 | `d` |
/// | end − 16 | 4 | format version, 1 |
/// | end − 12 | 4 | CRC32C of the description and the 20 footer bytes before this |
/// | end − 8 | 8 | magic `HFOBJ\r\n\x1a` |
///
/// Numbers are little-endian. The block table has no checksum of its own: an
/// entry and its block vouch for each other, so a part of a large object can be
/// verified without reading the whole table. A tombstone has `p` = 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footer {
    /// Payload length.
    pub(crate) payload_bytes: u64,
    /// Length of a payload block.
    pub(crate) block_bytes: u32,
    /// Length of the description.
    pub(crate) description_bytes: u32,
    crc: u32,
}

impl Footer {
    fn checked_part(&self) -> [u8; 20] {
        let mut part = [0; 20];
        let fields = self
            .payload_bytes
            .to_le_bytes()
            .into_iter()
            .chain(self.block_bytes.to_le_bytes())
            .chain(self.description_bytes.to_le_bytes())
            .chain(FORMAT_VERSION.to_le_bytes());
        part.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        part
    }

    fn crc_with(&self, description: &[u8]) -> u32 {
        crc32_iscsi(&[description, self.checked_part().as_slice()].concat())
    }

    /// Reads the last [`FOOTER_BYTES`] of a file of `file_bytes`. What it says
    /// fits the file, but is not verified before [`Self::description`].
    pub(crate) fn decode(file_bytes: u64, footer: &[u8]) -> Result<Self, Damage> {
        let mut fields = Fields(footer);
        let (payload_bytes, block_bytes) = (fields.u64(), fields.u32());
        let (description_bytes, version, crc) = (fields.u32(), fields.u32(), fields.u32());
        if fields.0 != MAGIC {
            return Err(Damage::new("the magic", hex(&MAGIC), hex(fields.0)));
        }
        Damage::unless_equal("the format version", FORMAT_VERSION, version)?;
        let footer = Self { payload_bytes, block_bytes, description_bytes, crc };
        footer.check_lengths(file_bytes)?;
        Ok(footer)
    }

    fn check_lengths(&self, file_bytes: u64) -> Result<(), Damage> {
        if !self.block_bytes.is_power_of_two() || self.block_bytes > MAX_BLOCK_BYTES {
            let expected = format!("a power of two up to {MAX_BLOCK_BYTES}");
            return Err(Damage::new("the block length", expected, self.block_bytes));
        }
        if self.description_bytes > MAX_DESCRIPTION_BYTES {
            let expected = format!("at most {MAX_DESCRIPTION_BYTES}");
            return Err(Damage::new("the description length", expected, self.description_bytes));
        }
        let length = self.payload_bytes.checked_add(self.trailer_bytes());
        match length {
            Some(length) => Damage::unless_equal("the file length", length, file_bytes),
            None => Err(Damage::new("the payload length", file_bytes, self.payload_bytes)),
        }
    }

    /// Table, description and footer. Cannot overflow: the table is at most a
    /// quarter of the largest number, since blocks have one byte or more.
    fn trailer_bytes(&self) -> u64 {
        let table =
            self.payload_bytes.div_ceil(u64::from(self.block_bytes)).saturating_mul(SUM_BYTES);
        table.saturating_add(u64::from(self.description_bytes) + FOOTER_BYTES as u64)
    }

    /// Verifies and reads the description.
    pub(crate) fn description(&self, bytes: &[u8]) -> Result<(ObjectName, Stat), Damage> {
        let actual = self.crc_with(bytes);
        Damage::unless_equal("the trailer checksum", hex_crc(self.crc), hex_crc(actual))?;
        let (name, stat) = serde_json::from_slice::<Description>(bytes)
            .map_err(|error| Damage::new("the description", "valid JSON", error))?
            .into_parts();
        Damage::unless_equal("the described length", self.payload_bytes, stat.size_bytes)?;
        Ok((name, stat))
    }
}

/// What an object file says of itself, so that it can be read without anything
/// beside it. JSON; unknown fields are ignored, so that a later release can add
/// some.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Description {
    bucket: Bucket,
    key: Key,
    version: Version,
    kind: Kind,
    size_bytes: u64,
    digest: Digest,
    #[serde(default)]
    metadata: Metadata,
}

impl Description {
    fn new(name: &ObjectName, stat: &Stat) -> Self {
        let ObjectName { bucket, key } = name.clone();
        let Stat { version, kind, size_bytes, digest, metadata } = stat.clone();
        Self { bucket, key, version, kind, size_bytes, digest, metadata }
    }

    fn into_parts(self) -> (ObjectName, Stat) {
        let Self { bucket, key, version, kind, size_bytes, digest, metadata } = self;
        (ObjectName { bucket, key }, Stat { version, kind, size_bytes, digest, metadata })
    }
}

/// All that follows the payload: block table, description and footer.
///
/// # Errors
/// When the description is longer than a reader would accept.
pub(crate) fn encode_trailer(name: &ObjectName, stat: &Stat, sums: &[u32]) -> io::Result<Vec<u8>> {
    let description = serde_json::to_vec(&Description::new(name, stat))?;
    let description_bytes = u32::try_from(description.len())
        .ok()
        .filter(|bytes| *bytes <= MAX_DESCRIPTION_BYTES)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the metadata is too long"))?;
    let block_bytes = BLOCK_LENGTH;
    let mut footer =
        Footer { payload_bytes: stat.size_bytes, block_bytes, description_bytes, crc: 0 };
    footer.crc = footer.crc_with(&description);
    let mut trailer: Vec<u8> = sums.iter().flat_map(|sum| sum.to_le_bytes()).collect();
    trailer.extend_from_slice(&description);
    trailer.extend_from_slice(&footer.checked_part());
    trailer.extend_from_slice(&footer.crc.to_le_bytes());
    trailer.extend_from_slice(&MAGIC);
    Ok(trailer)
}

/// Takes numbers off the front; those that are missing read as 0, which no
/// check accepts.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else {
            self.0 = &[];
            return [0; N];
        };
        self.0 = rest;
        *field
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A CRC32C as it is shown to people.
pub(crate) fn hex_crc(crc: u32) -> String {
    format!("{crc:08x}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn example() -> (ObjectName, Stat) {
        let name = ObjectName::seed(Key::new("a\0b").expect("three bytes"));
        let stat = Stat {
            version: Version::from_parts(5, 7),
            kind: Kind::Object,
            size_bytes: 9,
            digest: Digest(0xae8b_1486_0a79_9888),
            metadata: Metadata {
                content_type: Some("text/plain".to_owned()),
                modified_unix_millis: 1_700_000_000_000,
                ..Metadata::default()
            },
        };
        (name, stat)
    }

    /// Volumes of the first release hold these very bytes: a change here is a
    /// new format version, and the old one must still be read.
    #[test]
    fn the_bytes_of_a_trailer_never_change() {
        let (name, stat) = example();
        let description = concat!(
            r#"{"bucket":"objects","key":"a\u0000b","#,
            r#""version":"0000000000000005-0000000000000007","kind":"object","#,
            r#""size_bytes":9,"digest":"ae8b14860a799888","#,
            r#""metadata":{"content_type":"text/plain","modified_unix_millis":1700000000000}}"#
        );
        let trailer = encode_trailer(&name, &stat, &[0xe306_9283]).expect("it is short");
        let (table, rest) = trailer.split_at(4);
        let (text, footer) = rest.split_at(description.len());
        assert_eq!(hex(table), "839206e3");
        assert_eq!(std::str::from_utf8(text), Ok(description));
        assert_eq!(
            hex(footer),
            "0900000000000000\
             00000200\
             dc000000\
             01000000\
             490f0d61\
             48464f424a0d0a1a"
        );
        let footer = Footer::decode(9 + trailer.len() as u64, footer).expect("it is sound");
        assert_eq!(footer.description(text), Ok((name, stat)));
    }

    #[test]
    fn a_description_that_nobody_would_accept_is_not_written() {
        let (name, mut stat) = example();
        stat.metadata.content_type = Some("x".repeat(MAX_DESCRIPTION_BYTES as usize));
        assert!(encode_trailer(&name, &stat, &[]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            footer in proptest::collection::vec(any::<u8>(), 0..40),
            lengths in any::<(u64, u32, u32, u64)>(),
            description in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            prop_assert!(Footer::decode(lengths.3, &footer).is_err());
            let (payload_bytes, block_bytes, description_bytes, file_bytes) = lengths;
            let made = Footer { payload_bytes, block_bytes, description_bytes, crc: 0 };
            let bytes = [made.checked_part().as_slice(), &[0; 4], &MAGIC].concat();
            if let Ok(read) = Footer::decode(file_bytes, &bytes) {
                prop_assert!(read.description(&description).is_err());
            }
        }
    }
}
