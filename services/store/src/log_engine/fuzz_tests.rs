//! Segments that were mutated at random are read without a panic, to their end.
//!
//! `HOLDFAST_FUZZ_SECONDS` says for how long (3 unless set). The seed of a case
//! that fails is printed; `HOLDFAST_FUZZ_SEED` runs it alone.

#![allow(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "tests look behind the seam"
)]
#![allow(clippy::print_stdout, reason = "how much was tried is worth knowing")]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test may panic")]

use std::io;
use std::time::{Duration, Instant};

use crc_fast::crc32_iscsi;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::object::Digest;
use holdfast_core::version::Version;
use holdfast_runtime::File;

use super::record::{ALIGNMENT, Draft, HEADER_BYTES, Header, Numbers, RecordKind, Seed};
use super::scan::{Item, Payload, ScanRequest, SegmentScan, is_synced};
use super::segment::{SEGMENT_HEADER_BYTES, SegmentId};

const SALT: u64 = 0x5a17;

const KINDS: [RecordKind; 9] = [
    RecordKind::Object,
    RecordKind::File,
    RecordKind::Tombstone,
    RecordKind::Lost,
    RecordKind::Forget,
    RecordKind::Census,
    RecordKind::Removed,
    RecordKind::Seal,
    RecordKind::Gap,
];

/// A small generator: the same seed gives the same case everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % bound.max(1) as u64).unwrap()
    }

    fn range(&mut self, length: usize) -> std::ops::Range<usize> {
        let (a, b) = (self.below(length + 1), self.below(length + 1));
        a.min(b)..a.max(b)
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next().to_le_bytes()[0]).collect()
    }

    /// Now and then a number at a border.
    fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => [0, 1, u64::MAX, u64::MAX - 1, 1 << 32][self.below(5)],
            1 => self.next(),
            _ => self.next() % 1000,
        }
    }
}

/// A file in memory.
#[derive(Debug)]
struct Memory(Vec<u8>);

impl File for Memory {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let rest = usize::try_from(offset).ok().and_then(|start| self.0.get(start..));
        let rest = rest.unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn write_all_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A record with a right checksum and any content.
fn append_record(dice: &mut Dice, out: &mut Vec<u8>, offset: usize, sequence: u64) {
    let kind = KINDS[dice.below(KINDS.len())];
    let key: String = (0..=dice.below(30))
        .map(|_| char::from(b'a' + dice.next().to_le_bytes()[0] % 26))
        .collect();
    let name = ObjectName::seed(Key::new(key).unwrap());
    let has_name = dice.below(8) != 0;
    let payload_bytes = [8, 16, dice.below(300)][dice.below(3)];
    let payload = dice.bytes(payload_bytes);
    let metadata_bytes = dice.below(40);
    let metadata = if dice.below(2) == 0 { Vec::new() } else { dice.bytes(metadata_bytes) };
    let draft = Draft {
        kind,
        name: has_name.then_some(&name),
        version: Version::from_parts(dice.number(), dice.number()),
        size_bytes: dice.number(),
        digest: Digest(dice.next()),
        metadata: &metadata,
        payload: &payload,
        payload_crc: if dice.below(8) == 0 { 0 } else { crc32_iscsi(&payload) },
    };
    let origin = if dice.below(2) == 0 { sequence } else { dice.number() };
    let batch_start = u32::try_from(dice.number() & u64::from(u32::MAX)).unwrap();
    let numbers = Numbers { sequence, origin, batch_start };
    let seed = Seed { salt: SALT, offset: offset as u64 };
    draft.encode(out, seed, numbers).unwrap();
}

fn segment(dice: &mut Dice) -> Vec<u8> {
    let mut bytes = SegmentId { number: 1, salt: SALT }.header().to_vec();
    for sequence in 0..1 + dice.below(30) as u64 {
        let offset = bytes.len();
        let sequence = if dice.below(16) == 0 { dice.number() } else { sequence };
        append_record(dice, &mut bytes, offset, sequence);
    }
    bytes
}

fn mutate(dice: &mut Dice, bytes: &mut Vec<u8>) {
    let length = bytes.len();
    if length == 0 {
        return;
    }
    match dice.below(9) {
        0 => bytes[dice.below(length)] ^= 1 << dice.below(8),
        1 => bytes[dice.below(length)] = dice.next().to_le_bytes()[0],
        2 => bytes.truncate(dice.below(length)),
        3 => {
            let range = dice.range(length);
            bytes.drain(range);
        }
        4 => {
            let copy = bytes[dice.range(length.min(2000))].to_vec();
            let at = dice.below(length);
            bytes.splice(at..at, copy);
        }
        5 => {
            let (first, second) = (dice.below(length) / 512, dice.below(length) / 512);
            for at in 0..512 {
                let (first, second) = (first * 512 + at, second * 512 + at);
                if first < length && second < length {
                    bytes.swap(first, second);
                }
            }
        }
        6 => {
            let sector = dice.below(length) / 512 * 512;
            bytes[sector..(sector + 512).min(length)].fill(0);
        }
        7 => {
            let at = dice.below(length) / ALIGNMENT * ALIGNMENT;
            let mut record = Vec::new();
            let sequence = dice.number();
            append_record(dice, &mut record, at, sequence);
            let end = (at + record.len()).min(length);
            bytes.splice(at..end, record);
        }
        _ => {
            let at = dice.below(length);
            bytes.truncate(at);
            let tail = dice.below(600);
            bytes.extend(dice.bytes(tail));
        }
    }
}

/// Reads all of it, and checks that what was found lies side by side.
fn check(bytes: Vec<u8>, start: u64) {
    let length = bytes.len() as u64;
    let file = Memory(bytes);
    let request = ScanRequest { salt: SALT, range: start..length, keeps_payloads: true };
    let mut scan = SegmentScan::new(&file, request);
    let mut at = start;
    let mut last = None;
    while let Some(item) = scan.next() {
        match item {
            Item::Unreadable(range) => {
                assert_eq!(range.start, at, "nothing is left out");
                assert!(range.end > range.start && range.end <= length);
                at = range.end;
            }
            Item::Record(found) => {
                assert_eq!(found.offset, at, "nothing is left out");
                assert!(found.end() > at && found.end() <= length);
                at = found.end();
                let header = found.head.header;
                if header.kind != RecordKind::Gap {
                    assert!(last.is_none_or(|last| last < header.sequence), "out of order");
                    last = Some(header.sequence);
                }
                let _ = found.head.stat();
                if let Payload::Sound(payload) = &found.payload {
                    let is_sound =
                        header.kind == RecordKind::Gap || found.head.is_payload_sound(payload);
                    assert!(is_sound, "a payload that was not verified");
                    let _ = found.head.content(payload);
                }
                let _ = is_synced(&file, SALT, found.offset..length);
            }
        }
    }
    assert_eq!(at, length.max(start), "it ends at the end");
    assert!(scan.next().is_none(), "it stays at the end");
}

fn case(seed: u64) {
    let mut dice = Dice(seed);
    let mut bytes = segment(&mut dice);
    for _ in 0..dice.below(6) {
        mutate(&mut dice, &mut bytes);
    }
    for offset in (0..bytes.len()).step_by(ALIGNMENT).take(64) {
        let Some(header) = Header::decode(&bytes[offset..]) else { continue };
        let end = (offset + header.head_bytes()).min(bytes.len());
        let seed = Seed { salt: SALT, offset: offset as u64 };
        if let Some(head) = header.verify(&bytes[offset..end], seed) {
            let _ = (head.stat(), head.content(&bytes[offset..end]));
        }
        assert!(header.head_bytes() >= HEADER_BYTES);
    }
    let start = if dice.below(8) == 0 { dice.below(300) } else { SEGMENT_HEADER_BYTES };
    check(bytes, (start / ALIGNMENT * ALIGNMENT) as u64);
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().expect("it is a number"))
}

#[test]
fn a_mutated_segment_is_read_to_its_end() {
    if let Some(seed) = variable("HOLDFAST_FUZZ_SEED") {
        return case(seed);
    }
    let seconds = variable("HOLDFAST_FUZZ_SECONDS").unwrap_or(3);
    let deadline = Instant::now() + Duration::from_secs(seconds);
    let first = u64::from(std::process::id()) << 32;
    let mut seed = first;
    while Instant::now() < deadline {
        if std::panic::catch_unwind(|| case(seed)).is_err() {
            panic!("the case of HOLDFAST_FUZZ_SEED={seed} failed");
        }
        seed += 1;
    }
    println!("{} cases from seed {first} on", seed - first);
    assert!(seed > first, "nothing was tried");
}
