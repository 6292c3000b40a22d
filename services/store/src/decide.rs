//! What every engine decides alike: put-if-newer, and what a read may ask for.

use std::ops::Range;

use holdfast_core::name::ObjectName;
use holdfast_core::object::{Digest, Kind, Stat};
use holdfast_core::version::Version;

use crate::{PutOutcome, Stamp, StoreError};

/// Whether what is there already answers a write; `None` if it is to be
/// written. Decide it and write under one lock, or two writers both win.
///
/// # Errors
/// [`StoreError::VersionConflict`].
pub(crate) fn settled(
    name: &ObjectName,
    current: Option<&Stat>,
    offered: &Stat,
) -> Result<Option<PutOutcome>, StoreError> {
    let Some(current) = current else { return Ok(None) };
    if current.version < offered.version {
        return Ok(None);
    }
    if current.version > offered.version {
        return Ok(Some(PutOutcome::Superseded { newest: current.clone() }));
    }
    if same_content(current, offered) {
        return Ok(Some(PutOutcome::AlreadyStored));
    }
    Err(StoreError::VersionConflict { name: name.clone(), version: offered.version })
}

/// Metadata is not compared: a retry of a write may carry another wall clock,
/// and the bytes are what two replicas must agree on.
fn same_content(a: &Stat, b: &Stat) -> bool {
    (a.kind, a.size_bytes, a.digest) == (b.kind, b.size_bytes, b.digest)
}

/// What is known of a payload that is being committed.
pub(crate) fn object(stamp: Stamp, size_bytes: u64, digest: Digest) -> Stat {
    let Stamp { version, metadata } = stamp;
    Stat { version, kind: Kind::Object, size_bytes, digest, metadata }
}

/// What is known of a tombstone; the digest is that of nothing.
pub(crate) fn tombstone(stamp: Stamp) -> Stat {
    let Stamp { version, metadata } = stamp;
    Stat { version, kind: Kind::Tombstone, size_bytes: 0, digest: Digest::default(), metadata }
}

/// The version to read, if it is there and has a payload.
pub(crate) fn readable(
    name: &ObjectName,
    newest: Option<&Stat>,
    version: Option<Version>,
) -> Result<Stat, StoreError> {
    newest
        .filter(|stat| stat.kind == Kind::Object)
        .filter(|stat| version.is_none_or(|version| stat.is_known_as(version)))
        .cloned()
        .ok_or_else(|| StoreError::NotFound { name: name.clone() })
}

/// The bytes to read: all of them, or a range that lies within.
pub(crate) fn checked_range(
    range: Option<Range<u64>>,
    size_bytes: u64,
) -> Result<Range<u64>, StoreError> {
    let Range { start, end } = range.unwrap_or(0..size_bytes);
    if start > end || end > size_bytes {
        return Err(StoreError::BadRange { start, end, size_bytes });
    }
    Ok(start..end)
}

#[cfg(test)]
mod tests {
    use holdfast_core::name::Key;
    use holdfast_core::object::Metadata;

    use super::*;

    fn stat(clock: u64, digest: u64) -> Stat {
        Stat {
            version: Version::from_parts(clock, 1),
            kind: Kind::Object,
            size_bytes: 3,
            digest: Digest(digest),
            metadata: Metadata::default(),
        }
    }

    #[test]
    fn only_something_newer_is_written() {
        let name = ObjectName::seed(Key::new("k").expect("one byte"));
        let here = stat(5, 1);
        let answer = |offered: &Stat| settled(&name, Some(&here), offered);
        assert!(matches!(settled(&name, None, &here), Ok(None)));
        assert!(matches!(answer(&stat(6, 1)), Ok(None)));
        assert!(matches!(answer(&stat(5, 1)), Ok(Some(PutOutcome::AlreadyStored))));
        assert!(matches!(answer(&stat(5, 2)), Err(StoreError::VersionConflict { .. })));
        let older = answer(&stat(4, 1)).expect("no conflict");
        assert_eq!(older, Some(PutOutcome::Superseded { newest: here.clone() }));
        let tombstone = Stat { kind: Kind::Tombstone, ..stat(5, 1) };
        assert!(matches!(answer(&tombstone), Err(StoreError::VersionConflict { .. })));
    }
}
