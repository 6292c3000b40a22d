//! What a check finds, as a program and as a person reads it.

use std::fmt;
use std::path::PathBuf;

use holdfast_core::name::ObjectName;
use holdfast_core::version::Version;
use serde::Serialize;

/// One thing that a check has to say.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What it is.
    pub kind: FindingKind,
    /// Whether it is damage, or merely worth knowing.
    pub is_damage: bool,
    /// The file or directory it is about.
    pub path: PathBuf,
    /// Where in the file, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// How many bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The object, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<ObjectName>,
    /// Its version, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<Version>,
    /// What was found, where the kind does not say it all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

impl Finding {
    pub(super) fn new(kind: FindingKind, path: PathBuf) -> Self {
        let is_damage = kind.is_damage();
        let (offset, bytes, name, version, detail) = (None, None, None, None, None);
        Self { kind, is_damage, path, offset, bytes, name, version, detail }
    }

    pub(super) fn at(self, offset: u64, bytes: u64) -> Self {
        Self { offset: Some(offset), bytes: Some(bytes), ..self }
    }

    pub(super) fn of(self, name: &ObjectName, version: Version) -> Self {
        Self { name: Some(name.clone()), version: Some(version), ..self }
    }

    pub(super) fn because(self, detail: impl ToString) -> Self {
        Self { detail: Some(detail.to_string()), ..self }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grade = if self.is_damage { "damage" } else { "note" };
        write!(f, "{grade}: {}", self.path.display())?;
        if let Some(offset) = self.offset {
            write!(f, " at {offset}")?;
        }
        if let Some(bytes) = self.bytes {
            write!(f, " ({bytes} bytes)")?;
        }
        if let Some(name) = &self.name {
            write!(f, ", {name}")?;
        }
        if let Some(version) = self.version {
            write!(f, " version {version}")?;
        }
        let (what, advice) = self.kind.words();
        write!(f, ": {what}")?;
        if let Some(detail) = &self.detail {
            write!(f, " ({detail})")?;
        }
        if !advice.is_empty() {
            write!(f, "; {advice}")?;
        }
        Ok(())
    }
}

/// What a check can find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FindingKind {
    /// The first bytes of a segment are not what was written.
    SegmentHeader,
    /// Part of a segment holds no record that can be read.
    UnreadableRegion,
    /// The payload of a record that is in use is not what was written.
    DamagedRecord,
    /// The same of a record that is of no more use.
    DamagedGarbage,
    /// A segment that there should be is not there.
    MissingSegment,
    /// Two files have the number of one segment.
    DuplicateSegment,
    /// The end of the log that an interrupted batch left behind.
    TornTail,
    /// The index cannot be used.
    IndexUnusable,
    /// Another release wrote the index.
    IndexOutdated,
    /// There is no index.
    NoIndex,
    /// The index lags behind the log.
    IndexLags,
    /// An earlier start took a part of the log for lost without an index that
    /// remembered it.
    Doubt,
    /// The index knows a version whose record is not there.
    EntryWithoutRecord,
    /// The log has a version that the index does not know.
    RecordWithoutEntry,
    /// The index says something else than the record.
    EntryDiffers,
    /// The books of the index do not add up to what is in the log.
    BooksDiffer,
    /// More forgotten names than could be followed.
    TooManyForgotten,
    /// A payload file that is pointed to is not there.
    PayloadFileMissing,
    /// A payload file is not what was written.
    PayloadFileDamaged,
    /// Nothing points to a payload file.
    OrphanFile,
    /// A payload file has no end that can be read, and there is no index that
    /// tells whether it is needed.
    UnfinishedFile,
    /// A process uses the volume.
    InUse,
    /// A repair could not take this damage away.
    NotRepaired,
}

impl FindingKind {
    fn is_damage(self) -> bool {
        match self {
            Self::DamagedGarbage
            | Self::TornTail
            | Self::IndexOutdated
            | Self::NoIndex
            | Self::IndexLags
            | Self::TooManyForgotten
            | Self::OrphanFile
            | Self::UnfinishedFile
            | Self::InUse => false,
            Self::SegmentHeader
            | Self::UnreadableRegion
            | Self::DamagedRecord
            | Self::MissingSegment
            | Self::DuplicateSegment
            | Self::IndexUnusable
            | Self::Doubt
            | Self::EntryWithoutRecord
            | Self::RecordWithoutEntry
            | Self::EntryDiffers
            | Self::BooksDiffer
            | Self::PayloadFileMissing
            | Self::PayloadFileDamaged
            | Self::NotRepaired => true,
        }
    }

    /// What it means, and what to do about it.
    fn words(self) -> (&'static str, &'static str) {
        const REBUILD: &str = "fsck --repair builds the index anew";
        const COPY: &str = "it answers with an error until a newer version or another copy of \
                            this one is written";
        match self {
            Self::SegmentHeader => (
                "the header of the segment is damaged",
                "its records are read all the same; fsck --repair writes it again",
            ),
            Self::UnreadableRegion => (
                "no record can be read here",
                "fsck --repair puts the bytes into quarantine and accepts the loss of what \
                 nothing else remembers",
            ),
            Self::DamagedRecord => ("the payload in the log is damaged", COPY),
            Self::DamagedGarbage => ("a record of no more use is damaged", "nothing is lost"),
            Self::MissingSegment => (
                "this segment of the log is missing",
                "put its file back; if it is lost, fsck --repair accepts that",
            ),
            Self::DuplicateSegment => (
                "two files have the number of one segment",
                "move the one that does not belong here away",
            ),
            Self::TornTail => (
                "the end of an interrupted write",
                "nobody was told that it was written; the next start drops it",
            ),
            Self::IndexUnusable => ("the index cannot be used", REBUILD),
            Self::IndexOutdated => {
                ("another release wrote the index", "the next start builds it anew from the log")
            }
            Self::NoIndex => (
                "the volume has no index that can be used",
                "the next start builds it from the log",
            ),
            Self::IndexLags => (
                "the index lags behind the log, as after a crash",
                "the next start takes in the rest",
            ),
            Self::Doubt => (
                "part of the log could not be read when the index was built, so what is absent \
                 cannot be told",
                "fsck --repair accepts the loss",
            ),
            Self::EntryWithoutRecord => (
                "the index remembers this version, but its record cannot be read",
                "fsck --repair writes down what the index knows of it",
            ),
            Self::RecordWithoutEntry => ("the index does not know of this record", REBUILD),
            Self::EntryDiffers => ("the index says something else than the record", REBUILD),
            Self::BooksDiffer => ("the index has counted wrong", REBUILD),
            Self::TooManyForgotten => (
                "more names were forgotten than could be followed",
                "the index was compared in one direction only",
            ),
            Self::PayloadFileMissing => ("the payload file is not there", COPY),
            Self::PayloadFileDamaged => ("the payload file is damaged", COPY),
            Self::OrphanFile => {
                ("nothing points to this payload file", "the data server removes it once it runs")
            }
            Self::UnfinishedFile => (
                "the payload file was never finished, or is damaged",
                "a check with the index tells",
            ),
            Self::InUse => (
                "a process uses the volume, so only what can be checked beside it is: whole \
                 segments and payload files",
                "stop the data server to check everything",
            ),
            Self::NotRepaired => ("this could not be repaired", ""),
        }
    }
}
