//! The bytes of records never change, and no flipped bit passes.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use crc_fast::crc32_iscsi;
use holdfast_core::name::{Bucket, Key, ObjectName};
use holdfast_core::object::Digest;
use holdfast_core::version::Version;
use proptest::prelude::*;

use super::index::FileId;
use super::record::{
    ALIGNMENT, Draft, HEADER_BYTES, Head, Header, Numbers, RecordKind, Seed, encode_file,
    encode_gap,
};

const SEED: Seed = Seed { salt: 0x0123_4567_89ab_cdef, offset: 4096 };

const NUMBERS: Numbers = Numbers { sequence: 7, origin: 5, batch_start: 64 };

fn name() -> ObjectName {
    ObjectName::new(Bucket::new("photos").unwrap(), Key::new("2024/é.jpg").unwrap())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn encoded(draft: &Draft<'_>, seed: Seed, numbers: Numbers) -> Vec<u8> {
    let mut bytes = Vec::new();
    draft.encode(&mut bytes, seed, numbers).unwrap();
    assert_eq!(bytes.len(), draft.length());
    bytes
}

fn decoded(bytes: &[u8], seed: Seed) -> Option<Head> {
    let header = Header::decode(bytes)?;
    header.verify(bytes.get(..header.head_bytes())?, seed)
}

fn about(name: &ObjectName, kind: RecordKind, payload: &'static [u8]) -> Vec<u8> {
    let draft = Draft {
        name: Some(name),
        version: Version::from_parts(0x1122_3344_5566_7788, 9),
        size_bytes: 3,
        digest: Digest(0xa1a2_a3a4_a5a6_a7a8),
        metadata: br#"{"content_type":"image/jpeg"}"#,
        ..Draft::of_log(kind, payload)
    };
    encoded(&draft, SEED, NUMBERS)
}

/// One record of each kind.
fn all() -> Vec<(RecordKind, Vec<u8>)> {
    let name = name();
    let file = encode_file(FileId { directory: 2, number: 3 }).to_vec().leak();
    let segment = 4_u64.to_le_bytes().to_vec().leak();
    let of_log =
        |kind, payload: &'static [u8]| encoded(&Draft::of_log(kind, payload), SEED, NUMBERS);
    vec![
        (RecordKind::Object, about(&name, RecordKind::Object, b"abc")),
        (RecordKind::File, about(&name, RecordKind::File, file)),
        (RecordKind::Tombstone, about(&name, RecordKind::Tombstone, b"")),
        (RecordKind::Lost, about(&name, RecordKind::Lost, b"")),
        (RecordKind::Forget, about(&name, RecordKind::Forget, segment)),
        (RecordKind::Census, of_log(RecordKind::Census, b"[[1,3],[5,5]]")),
        (RecordKind::Removed, of_log(RecordKind::Removed, segment)),
        (RecordKind::Seal, of_log(RecordKind::Seal, b"")),
        (RecordKind::Gap, encode_gap(SEED, 128).unwrap()),
    ]
}

#[test]
fn records_never_change() {
    let pinned: Vec<&str> = include_str!("record_tests.hex").lines().collect();
    let actual: Vec<String> = all().iter().map(|(_, bytes)| hex(bytes)).collect();
    assert_eq!(actual.join("\n"), pinned.join("\n"));
}

#[test]
fn every_kind_is_read_as_it_was_written() {
    for (kind, bytes) in all() {
        let head = decoded(&bytes, SEED).unwrap_or_else(|| panic!("{kind:?}"));
        assert_eq!(head.header.kind, kind);
        let has_name = matches!(
            kind,
            RecordKind::Object
                | RecordKind::File
                | RecordKind::Tombstone
                | RecordKind::Lost
                | RecordKind::Forget
        );
        assert_eq!(head.name, has_name.then(name), "{kind:?}");
        let whole = if kind == RecordKind::Gap { 128 } else { bytes.len() as u64 };
        assert_eq!(head.header.record_bytes(), whole, "{kind:?}");
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_head_is_refused() {
    for (kind, bytes) in all() {
        let head_bytes = Header::decode(&bytes).unwrap().head_bytes();
        for bit in 0..head_bytes * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decoded(&damaged, SEED).is_none(), "bit {bit} of {kind:?}");
        }
        for bit in 0..64 {
            let salt = Seed { salt: SEED.salt ^ (1 << bit), ..SEED };
            let offset = Seed { offset: SEED.offset ^ (1 << bit), ..SEED };
            assert!(decoded(&bytes, salt).is_none(), "salt bit {bit} of {kind:?}");
            assert!(decoded(&bytes, offset).is_none(), "offset bit {bit} of {kind:?}");
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_payload_is_noticed() {
    for (kind, bytes) in all().into_iter().filter(|(kind, _)| *kind != RecordKind::Gap) {
        let head = decoded(&bytes, SEED).unwrap();
        let start = head.header.head_bytes();
        let end = start + usize::try_from(head.header.payload_bytes).unwrap();
        assert!(head.is_payload_sound(&bytes[start..end]), "{kind:?}");
        for bit in start * 8..end * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!head.is_payload_sound(&damaged[start..end]), "bit {bit} of {kind:?}");
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(
        key in "\\PC{1,200}",
        payload in prop::collection::vec(any::<u8>(), 0..2000),
        metadata in prop::collection::vec(any::<u8>(), 0..300),
        numbers in any::<(u64, u64, u32)>(),
        version in any::<(u64, u64)>(),
        sizes in any::<(u64, u64)>(),
        place in any::<(u64, u64)>(),
    ) {
        let Ok(key) = Key::new(key) else { return Ok(()) };
        let name = ObjectName::seed(key);
        let draft = Draft {
            kind: RecordKind::Object,
            name: Some(&name),
            version: Version::from_parts(version.0, version.1),
            size_bytes: sizes.0,
            digest: Digest(sizes.1),
            metadata: &metadata,
            payload: &payload,
            payload_crc: crc32_iscsi(&payload),
        };
        let (sequence, origin, batch_start) = numbers;
        let numbers = Numbers { sequence, origin, batch_start };
        let seed = Seed { salt: place.0, offset: place.1 };
        let bytes = encoded(&draft, seed, numbers);
        prop_assert_eq!(bytes.len() % ALIGNMENT, 0);
        let head = decoded(&bytes, seed).unwrap();
        let header = head.header;
        prop_assert_eq!(header.version, draft.version);
        prop_assert_eq!((header.size_bytes, header.digest), (draft.size_bytes, draft.digest));
        let read = (header.sequence, header.origin, header.batch_start);
        prop_assert_eq!(read, (sequence, origin, batch_start));
        prop_assert_eq!(header.record_bytes(), bytes.len() as u64);
        prop_assert_eq!(&head.metadata[..], &metadata[..]);
        let start = header.head_bytes();
        prop_assert!(head.is_payload_sound(&bytes[start..start + payload.len()]));
        prop_assert_eq!(head.name, Some(name));
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(decoded(&bytes, SEED).is_none());
        let mut framed = vec![0; 4];
        framed.extend_from_slice(b"HFr1\x01");
        framed.extend_from_slice(&bytes);
        prop_assert!(framed.len() < HEADER_BYTES || decoded(&framed, SEED).is_none());
    }
}
