//! A segment: a file of the log, its name and its header.

use std::path::{Path, PathBuf};

use crc_fast::crc32_iscsi;
use holdfast_runtime::File;

use crate::StoreError;
use crate::disk::io_error;

/// Where records begin.
pub(super) const SEGMENT_HEADER_BYTES: usize = 64;

const MAGIC: [u8; 8] = *b"HFLOG\r\n\x1a";

/// Version of the log's format.
pub(super) const FORMAT_VERSION: u32 = 1;

/// Which segment: its number and its salt, both in the name of its file,
/// `log/<number>-<salt>.seg`, each 16 hexadecimal digits. Numbers grow along the
/// log. The salt is random and ties records to the segment; it is in the name so
/// that a damaged header takes nothing with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SegmentId {
    pub(super) number: u64,
    pub(super) salt: u64,
}

impl SegmentId {
    /// The path of its file, relative to the volume.
    pub(super) fn path(self) -> PathBuf {
        Path::new("log").join(format!("{:016x}-{:016x}.seg", self.number, self.salt))
    }

    /// The segment a file name stands for; `None` for any other file.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let (number, salt) = name.strip_suffix(".seg")?.split_once('-')?;
        let digits = |text: &str| {
            let plain = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            let is_plain = text.len() == 16 && text.bytes().all(plain);
            is_plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
        };
        Some(Self { number: digits(number)?, salt: digits(salt)? })
    }

    /// The first bytes of its file.
    ///
    /// | offset | bytes | what |
    /// |---|---|---|
    /// | 0 | 8 | `HFLOG\r\n\x1a` |
    /// | 8 | 4 | format version, 1 |
    /// | 12 | 4 | 0 |
    /// | 16 | 8 | number |
    /// | 24 | 8 | salt |
    /// | 32 | 28 | 0 |
    /// | 60 | 4 | CRC32C of the 60 bytes before |
    ///
    /// It tells people and later releases what the file is. Records are found
    /// and verified without it.
    pub(super) fn header(self) -> [u8; SEGMENT_HEADER_BYTES] {
        header_with(FORMAT_VERSION, self)
    }

    /// Reads the header of its file. One that the disk does not give is as good as a
    /// damaged one: the name of the file says the same. Blocks.
    ///
    /// # Errors
    /// As [`HeaderCheck::refuse`]; [`StoreError::Io`] when that says nothing of the
    /// disk.
    pub(super) fn read_header(
        self,
        file: &dyn File,
        path: &Path,
    ) -> Result<HeaderCheck, StoreError> {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        let mut read = || file.read_at(&mut header, 0).map_err(io_error("read", path));
        let read = match read() {
            Err(error) if error.is_of_the_medium() => read(),
            result => result,
        };
        match read {
            Ok(read) => {
                self.check_header(header.get(..read).unwrap_or_default()).refuse(path.to_owned())
            }
            Err(error) if error.is_of_the_medium() => {
                tracing::error!(%error, "the disk does not give the header of a segment");
                Ok(HeaderCheck::Damaged)
            }
            Err(error) => Err(error),
        }
    }

    /// What a header says of the format.
    fn check_header(self, bytes: &[u8]) -> HeaderCheck {
        if bytes == self.header() {
            return HeaderCheck::Sound;
        }
        let version = bytes.get(8..12).and_then(|field| field.first_chunk::<4>());
        match version.map(|field| u32::from_le_bytes(*field)) {
            Some(version) if bytes == header_with(version, self) => HeaderCheck::Other(version),
            _ => Self::of_header(bytes).map_or(HeaderCheck::Damaged, HeaderCheck::Foreign),
        }
    }

    /// The segment that a sound header is of.
    fn of_header(bytes: &[u8]) -> Option<Self> {
        let field = |start: usize| bytes.get(start..)?.first_chunk::<8>();
        let number = u64::from_le_bytes(*field(16)?);
        let id = Self { number, salt: u64::from_le_bytes(*field(24)?) };
        (bytes == id.header()).then_some(id)
    }
}

fn header_with(version: u32, id: SegmentId) -> [u8; SEGMENT_HEADER_BYTES] {
    let mut header = [0; SEGMENT_HEADER_BYTES];
    let fields = MAGIC
        .into_iter()
        .chain(version.to_le_bytes())
        .chain([0; 4])
        .chain(id.number.to_le_bytes())
        .chain(id.salt.to_le_bytes());
    header.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    let (checked, crc) = header.split_at_mut(SEGMENT_HEADER_BYTES - 4);
    crc.copy_from_slice(&crc32_iscsi(checked).to_le_bytes());
    header
}

/// What was found at the front of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderCheck {
    /// As it was written.
    Sound,
    /// It belongs to the file and is of another format version.
    Other(u32),
    /// It is sound and belongs to a file of another name.
    Foreign(SegmentId),
    /// Anything else, as after a crash right after the file was made.
    Damaged,
}

impl HeaderCheck {
    /// Refuses a segment that cannot be read as what it is: one of a newer
    /// release, and one under a wrong name, which in the wrong place of the order
    /// would bring back old versions.
    ///
    /// # Errors
    /// [`StoreError::Format`].
    pub(super) fn refuse(self, path: PathBuf) -> Result<Self, StoreError> {
        let reason = match self {
            Self::Sound | Self::Damaged => return Ok(self),
            Self::Other(version) => format!(
                "the segment has format version {version}, which this release does not read; run \
                 the release that wrote it, or a newer one"
            ),
            Self::Foreign(id) => format!(
                "the file was renamed or copied; it is segment {}: give it its name back, or move \
                 it away if that is there too",
                id.path().display()
            ),
        };
        Err(StoreError::Format { path, reason })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_headers_never_change() {
        let id = SegmentId { number: 0x2a, salt: 0x0123_4567_89ab_cdef };
        let path = id.path();
        assert_eq!(path, Path::new("log/000000000000002a-0123456789abcdef.seg"));
        assert_eq!(SegmentId::of_file(&path), Some(id));
        for other in ["2a-0123456789abcdef.seg", "000000000000002A-0123456789abcdef.seg", "x.seg"] {
            assert_eq!(SegmentId::of_file(Path::new(other)), None, "{other}");
        }
        let header = id.header();
        let expected = "48464c4f470d0a1a01000000000000002a00000000000000efcdab8967452301";
        let hex: String = header.iter().take(32).map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
        assert_eq!(id.check_header(&header), HeaderCheck::Sound);
        assert_eq!(id.check_header(&header_with(2, id)), HeaderCheck::Other(2));
        let other = SegmentId { number: 1, ..id };
        assert_eq!(id.check_header(&other.header()), HeaderCheck::Foreign(other));
        assert_eq!(id.check_header(&[0; SEGMENT_HEADER_BYTES]), HeaderCheck::Damaged);
    }
}
