use std::collections::BTreeMap;

use proptest::prelude::*;

use holdfast_core::name::{Bucket, Key};

use super::super::{DoubtfulRegion, Position};
use super::*;

fn name() -> impl Strategy<Value = ObjectName> {
    // Short ones of few letters, so that prefixes and neighbours are met.
    let bucket = "[a-c.-]{1,3}".prop_map(|text| Bucket::new(text).unwrap());
    let key = prop_oneof!["[\u{0}\u{1}a/\u{ff}\u{10ffff}]{1,4}", "\\PC{1,40}", "[a-z]{1024}"];
    (bucket, key).prop_map(|(bucket, key)| ObjectName::new(bucket, Key::new(key).unwrap()))
}

fn content() -> impl Strategy<Value = Content> {
    prop_oneof![
        Just(Content::Nothing),
        Just(Content::Inline),
        Just(Content::Lost),
        any::<(u64, u64)>()
            .prop_map(|(directory, number)| Content::File(FileId { directory, number })),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let headers = prop::collection::btree_map("[a-z-]{1,12}", "\\PC{0,20}", 0..4);
    let written_as = prop::option::of(any::<(u64, u64)>());
    (prop::option::of("\\PC{0,20}"), headers, any::<u64>(), written_as).prop_map(
        |(content_type, headers, modified_unix_millis, written_as)| Metadata {
            content_type,
            headers,
            modified_unix_millis,
            written_as: written_as.map(|(clock, writer)| Version::from_parts(clock, writer)),
        },
    )
}

fn stat() -> impl Strategy<Value = Stat> {
    let kind = prop_oneof![Just(Kind::Object), Just(Kind::Tombstone)];
    (any::<(u64, u64, u64, u64)>(), kind, metadata()).prop_map(
        |((clock, writer, size_bytes, digest), kind, metadata)| Stat {
            version: Version::from_parts(clock, writer),
            kind,
            size_bytes,
            digest: Digest(digest),
            metadata,
        },
    )
}

fn entry() -> impl Strategy<Value = Entry> {
    (stat(), content(), any::<(u64, u32, u32, u64, bool)>()).prop_map(
        |(stat, content, (segment, offset, length, origin, is_damaged))| Entry {
            stat,
            content,
            place: Place { segment, offset, length },
            origin,
            is_damaged,
        },
    )
}

/// Bytes with a checksum that is right, so that what is behind it is reached, but
/// for the fields of an entry, which are read before.
fn sealed_noise(key: &[u8], noise: &[u8]) -> Vec<u8> {
    sealed(key, noise.to_vec())
}

/// An entry whose headers are anything, with checksums that are right.
fn noisy_headers(key: &[u8], entry: &Entry, noise: &[u8]) -> Vec<u8> {
    let mut value = encode_brief(key, entry).unwrap();
    let second = value.len() - CRC_BYTES;
    value.extend_from_slice(noise);
    seal(key, &mut value, second);
    value
}

proptest! {
    #[test]
    fn an_entry_comes_back(name in name(), entry in entry()) {
        let key = entry_key(&name);
        let value = encode_entry(&key, &entry).unwrap();
        prop_assert_eq!(decode_entry_key(&key).unwrap(), (name.bucket.as_str(), name.key.as_str()));
        prop_assert_eq!(&decode_entry(&key, &value).unwrap(), &entry);
        prop_assert_eq!(decode_brief(&key, &value).unwrap(), Brief::from(&entry));
    }

    #[test]
    fn keys_sort_as_names_do(one in name(), other in name()) {
        prop_assert_eq!(entry_key(&one).cmp(&entry_key(&other)), one.cmp(&other));
        prop_assert!(entry_key(&one).starts_with(ENTRY_PREFIX));
    }

    #[test]
    fn other_keys_come_back(directory: u64, number: u64) {
        let file = FileId { directory, number };
        prop_assert_eq!(decode_doomed_key(&doomed_key(file)).unwrap(), file);
        prop_assert_eq!(decode_segment_key(&segment_key(number)).unwrap(), number);
    }

    #[test]
    fn a_checkpoint_comes_back(number: u64, least_seqno: u64, next_sequence: u64, end: u64) {
        let stamp = BatchStamp { number, least_seqno };
        let doubt = vec![DoubtfulRegion { segment: number, start: 0, end, bound: 7 }];
        let covered = Position { segment: end, offset: 1 };
        let checkpoint = Checkpoint { next_sequence, doubt, covered, ..Checkpoint::default() };
        let value = encode_checkpoint(stamp, &checkpoint).unwrap();
        prop_assert_eq!(decode_checkpoint(&value).unwrap(), (stamp, checkpoint));
        prop_assert_eq!(decode_stamp(&value).unwrap(), stamp);
    }

    #[test]
    fn a_usage_comes_back(total_bytes: u64, live_bytes: u64, forget: BTreeMap<u64, u64>) {
        let usage = SegmentUsage { total_bytes, live_bytes, forget_bytes: forget };
        let key = segment_key(3);
        let value = encode_segment(&key, &usage).unwrap();
        prop_assert_eq!(decode_segment(&key, &value).unwrap(), usage);
    }

    #[test]
    fn a_flipped_bit_is_noticed(name in name(), entry in entry(), at: prop::sample::Index) {
        let key = entry_key(&name);
        let mut value = encode_entry(&key, &entry).unwrap();
        let bit = at.index(value.len() * 8);
        value[bit / 8] ^= 1 << (bit % 8);
        let whole = decode_entry(&key, &value);
        prop_assert!(matches!(whole, Err(IndexError::Damaged { .. })), "bit {}", bit);
        // Headers are not looked at, and not given out.
        match decode_brief(&key, &value) {
            Ok(brief) => {
                prop_assert!(bit / 8 >= encode_brief(&key, &entry).unwrap().len(), "bit {}", bit);
                prop_assert_eq!(brief, Brief::from(&entry));
            }
            Err(error) => prop_assert!(matches!(error, IndexError::Damaged { .. }), "bit {}", bit),
        }
    }

    #[test]
    fn headers_do_not_go_with_another_entry(name in name(), one in entry(), other in entry()) {
        let key = entry_key(&name);
        let (first, second) = (encode_brief(&key, &one).unwrap(), encode_brief(&key, &other).unwrap());
        let headers = encode_entry(&key, &other).unwrap().split_off(second.len());
        let mixed = [first.clone(), headers].concat();
        let is_refused = matches!(decode_entry(&key, &mixed), Err(IndexError::Damaged { .. }));
        prop_assert!(is_refused || first == second);
    }

    #[test]
    fn malformed_headers_are_damage(
        name in name(),
        entry in entry(),
        count in 0_u32..4,
        texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3), 0..8),
        more in prop::collection::vec(any::<u8>(), 0..2),
    ) {
        let key = entry_key(&name);
        let mut noise = count.to_le_bytes().to_vec();
        for text in &texts {
            put_length(&mut noise, text.len()).unwrap();
            noise.extend_from_slice(text);
        }
        noise.extend_from_slice(&more);
        let value = noisy_headers(&key, &entry, &noise);
        let are_texts = texts.iter().all(|text| str::from_utf8(text).is_ok());
        let is_sound = are_texts && texts.len() == 2 * count as usize && more.is_empty();
        match decode_entry(&key, &value) {
            Ok(_) => prop_assert!(is_sound),
            Err(IndexError::Damaged { .. }) => prop_assert!(!is_sound),
            Err(error) => prop_assert!(false, "{}", error),
        }
        prop_assert_eq!(decode_brief(&key, &value).unwrap(), Brief::from(&entry));
    }

    #[test]
    fn no_bytes_make_decoding_panic(key: Vec<u8>, noise: Vec<u8>) {
        let _ = decode_entry_key(&key);
        let _ = decode_doomed_key(&key);
        let _ = decode_segment_key(&key);
        for value in [noise.clone(), sealed_noise(&key, &noise)] {
            let _ = decode_entry(&key, &value);
            let _ = decode_brief(&key, &value);
            let _ = decode_segment(&key, &value);
            let _ = check_mark(&key, &value);
        }
        for value in [noise.clone(), sealed_noise(CHECKPOINT_KEY, &noise)] {
            let _ = decode_checkpoint(&value);
            let _ = decode_stamp(&value);
        }
    }
}

#[test]
fn a_value_under_another_key_is_noticed() {
    let (one, other) = (segment_key(1), segment_key(2));
    let value = encode_segment(&one, &SegmentUsage::default()).unwrap();
    assert!(decode_segment(&one, &value).is_ok());
    assert!(matches!(decode_segment(&other, &value), Err(IndexError::Damaged { .. })));
    let mark = encode_mark(&one);
    assert!(check_mark(&one, &mark).is_ok());
    assert!(matches!(check_mark(&other, &mark), Err(IndexError::Damaged { .. })));
}

proptest! {
    #[test]
    fn unknown_flags_are_damage(name in name(), entry in entry(), flag in 6_u8..8) {
        let key = entry_key(&name);
        let mut brief = encode_brief(&key, &entry).unwrap();
        brief.truncate(brief.len() - CRC_BYTES);
        brief[0] |= 1 << flag;
        let mut value = sealed(&key, brief);
        let second = value.len() - CRC_BYTES;
        put_length(&mut value, 0).unwrap();
        seal(&key, &mut value, second);
        let (whole, brief) = (decode_entry(&key, &value), decode_brief(&key, &value));
        let are_refused = matches!(whole, Err(IndexError::Damaged { .. }))
            && matches!(brief, Err(IndexError::Damaged { .. }));
        prop_assert!(are_refused);
    }
}

#[test]
fn the_checksum_is_made_of_published_ones() {
    // The check value of CRC-32/ISCSI in the catalogue of parametrised CRCs;
    // that of nothing is 0.
    assert_eq!(checksum(b"", b"123456789"), 0xe306_9283);
    assert_eq!(checksum(b"123456789", b""), 0xe306_9283_u32.rotate_left(16));
}
