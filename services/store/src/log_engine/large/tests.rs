//! Payload files on a real disk, with faults.

#![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt};
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::object::{Digest, Kind, Metadata, Stat};
use holdfast_core::version::Version;
use holdfast_runtime::Runtime;

use super::*;
use crate::log_engine::faulty::{Fault, FaultyFiles, Step};
use crate::payload_file::checksum::{BlockSums, digest_of};
use crate::payload_file::layout::encode_trailer;
use crate::payload_file::stream::PayloadReader;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// A volume's directory of payload files, removed in the end.
struct Volume {
    root: PathBuf,
    faults: Arc<FaultyFiles>,
    files: Arc<LargeFiles>,
}

impl Volume {
    fn new() -> Self {
        let unique = Runtime::real().random_u128();
        let root = std::env::temp_dir().join(format!("holdfast-large-{unique:032x}"));
        fs::create_dir_all(root.join(DIRECTORY)).unwrap();
        let faults = FaultyFiles::new();
        let runtime = Runtime::real().with_files(Arc::clone(&faults) as _);
        let disk = Arc::new(Disk::new(runtime, root.clone(), 0));
        Self { root, faults, files: Arc::new(LargeFiles::new(disk, 7)) }
    }

    fn buffered() -> Self {
        let volume = Self::new();
        volume.faults.refuse_direct();
        volume
    }

    async fn staged(&self, payload: &Bytes) -> Result<LargeStaged, StoreError> {
        let mut staging = LargeStaging::new(&self.files);
        // No length that anything is a multiple of.
        for chunk in payload.chunks(100_003) {
            staging.write(payload.slice_ref(chunk)).await?;
        }
        staging.finish().await
    }

    async fn durable(&self, key: &str, payload: &Bytes) -> Result<DurableFile, StoreError> {
        let staged = self.staged(payload).await?;
        assert_eq!(staged.size_bytes(), payload.len() as u64);
        assert_eq!(staged.digest(), digest_of(payload));
        let stat = stat(staged.size_bytes(), staged.digest());
        staged.complete(name(key), stat).await
    }

    async fn stored(&self, key: &str, payload: &Bytes) -> FileId {
        self.durable(key, payload).await.expect("the disk is sound").keep()
    }

    async fn read(
        &self,
        id: FileId,
        payload: &Bytes,
        range: std::ops::Range<u64>,
    ) -> Result<Bytes, StoreError> {
        let stat = stat(payload.len() as u64, digest_of(payload));
        let file = open(&self.files, id, &name("a"), &stat)?;
        let disk = Arc::clone(&self.files.disk);
        let reader = PayloadReader::new(disk, file, Arc::new(|_| {}));
        let first = reader.first_chunk(&range)?;
        let chunks = reader.stream(range, first).try_collect::<Vec<_>>().await?;
        Ok(chunks.into_iter().fold(BytesMut::new(), joined).freeze())
    }

    async fn read_all(&self, id: FileId, payload: &Bytes) -> Result<Bytes, StoreError> {
        self.read(id, payload, 0..payload.len() as u64).await
    }

    fn present(&self) -> Vec<FileId> {
        let directories = self.files.list_directories().unwrap();
        directories.iter().flat_map(|number| self.files.list(*number).unwrap()).collect()
    }

    /// Waits for what is removed in the background.
    async fn until_empty(&self, what: &str) {
        let runtime = Runtime::real();
        let deadline = runtime.now() + Duration::from_secs(20);
        while !self.present().is_empty() {
            assert!(runtime.now() < deadline, "{what}: files stay: {:?}", self.present());
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // What stays is in the temporary directory, where nobody minds.
        let _ = fs::remove_dir_all(&self.root);
    }
}

fn joined(mut all: BytesMut, chunk: Bytes) -> BytesMut {
    all.extend_from_slice(&chunk);
    all
}

fn name(key: &str) -> ObjectName {
    ObjectName::seed(Key::new(key).expect("a valid key"))
}

fn stat(size_bytes: u64, digest: Digest) -> Stat {
    let version = Version::from_parts(5, 1);
    Stat { version, kind: Kind::Object, size_bytes, digest, metadata: Metadata::default() }
}

/// Bytes without a pattern that a checksum could miss.
fn payload(size_bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_be_bytes()[0]
    };
    (0..size_bytes).map(next).collect()
}

/// What a file with this payload must hold.
fn expected_file(key: &str, payload: &Bytes) -> Vec<u8> {
    let mut sums = BlockSums::new();
    sums.update(payload);
    let stat = stat(sums.size_bytes(), sums.digest());
    let trailer = encode_trailer(&name(key), &stat, sums.sums()).unwrap();
    [payload, trailer.as_slice()].concat()
}

fn is_corrupt<T>(result: &Result<T, StoreError>, part: &str) -> bool {
    matches!(result, Err(StoreError::Corrupt { what, .. }) if *what == part)
}

#[tokio::test]
async fn every_size_is_read_back_and_its_bytes_do_not_depend_on_the_way_they_were_written() {
    let (direct, buffered) = (Volume::new(), Volume::buffered());
    let around = |size: usize| [size - 1, size, size + 1];
    let borders = [4096, 128 * KIB, MIB, MIB + 4096, 2 * MIB].map(around);
    let sizes = borders.into_iter().flatten().chain([0, 3 * MIB + 5, 5 * MIB]);
    for size_bytes in sizes {
        let payload = payload(size_bytes);
        let expected = expected_file("a", &payload);
        for volume in [&direct, &buffered] {
            let id = volume.stored("a", &payload).await;
            assert!(fs::read(volume.files.path(id)).unwrap() == expected, "{size_bytes}");
            assert!(volume.read_all(id, &payload).await.unwrap() == payload, "{size_bytes}");
        }
    }
}

#[tokio::test]
async fn a_range_is_read_from_wherever_it_lies() {
    let (volume, payload) = (Volume::new(), payload(3 * MIB + 5));
    let id = volume.stored("a", &payload).await;
    let mib = MIB as u64;
    for range in [0..0, 0..1, mib - 1..mib + 1, 5..3 * mib, 3 * mib + 4..3 * mib + 5] {
        let expected = &payload[usize::try_from(range.start).unwrap()..][..];
        let expected = &expected[..usize::try_from(range.end - range.start).unwrap()];
        let read = volume.read(id, &payload, range.clone()).await.unwrap();
        assert!(read == expected, "{range:?}");
    }
}

#[tokio::test]
async fn a_flipped_bit_is_never_served() {
    let (volume, payload) = (Volume::new(), payload(300 * KIB + 1));
    let path = volume.files.path(volume.stored("a", &payload).await);
    let id = volume.present()[0];
    let sound = fs::read(&path).unwrap();
    let places = (0..payload.len()).step_by(20_011).chain(payload.len()..sound.len());
    for at in places {
        let mut bytes = sound.clone();
        bytes[at] ^= 1 << (at % 8);
        fs::write(&path, bytes).unwrap();
        let read = volume.read_all(id, &payload).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "byte {at}: {read:?}");
    }
    for length in [0, 1, 31, payload.len(), sound.len() - 1] {
        fs::write(&path, &sound[..length]).unwrap();
        let read = volume.read_all(id, &payload).await;
        assert!(matches!(read, Err(StoreError::Corrupt { .. })), "cut to {length}: {read:?}");
    }
}

#[tokio::test]
async fn damage_after_the_file_was_opened_is_told_and_ends_the_stream() {
    let (volume, payload) = (Volume::new(), payload(3 * MIB));
    let id = volume.stored("a", &payload).await;
    let path = volume.files.path(id);
    let mut bytes = fs::read(&path).unwrap();
    bytes[MIB + 5] ^= 1;
    fs::write(&path, bytes).unwrap();
    let file = open(&volume.files, id, &name("a"), &stat(3 << 20, digest_of(&payload))).unwrap();
    let told = Arc::new(AtomicBool::new(false));
    let note = Arc::clone(&told);
    let on_damage = Arc::new(move |_: &StoreError| note.store(true, Ordering::SeqCst));
    let reader = PayloadReader::new(Arc::clone(&volume.files.disk), file, on_damage);
    let first = reader.first_chunk(&(0..3 << 20)).unwrap();
    let chunks: Vec<_> = reader.stream(0..3 << 20, first).collect().await;
    assert!(chunks[0].as_ref().is_ok_and(|chunk| *chunk == payload[..MIB]));
    assert!(is_corrupt(&chunks[1].as_ref().map_err(corrupt), "a payload block"));
    assert_eq!(chunks.len(), 2, "an error ends the stream");
    assert!(told.load(Ordering::SeqCst));
}

fn corrupt(error: &StoreError) -> StoreError {
    let StoreError::Corrupt { what, .. } = error else { panic!("not damage: {error}") };
    let (expected, actual) = (String::new(), String::new());
    StoreError::Corrupt { path: PathBuf::new(), what, expected, actual }
}

#[tokio::test]
async fn a_lost_file_or_the_file_of_another_version_is_damage_and_never_absent() {
    let (volume, payload) = (Volume::new(), payload(200 * KIB));
    let id = volume.stored("a", &payload).await;
    let right = stat(payload.len() as u64, digest_of(&payload));
    let opened = |key: &str, stat: &Stat| open(&volume.files, id, &name(key), stat);
    assert!(opened("a", &right).is_ok());
    assert!(is_corrupt(&opened("b", &right), "the name in the trailer"));
    let other = Stat { version: Version::from_parts(6, 1), ..right.clone() };
    assert!(is_corrupt(&opened("a", &other), "the version in the trailer"));
    let other = Stat { size_bytes: 5, ..right.clone() };
    assert!(is_corrupt(&opened("a", &other), "the length in the trailer"));
    let other = Stat { digest: Digest(5), ..right.clone() };
    assert!(is_corrupt(&opened("a", &other), "the digest in the trailer"));
    volume.files.remove(id).unwrap();
    assert!(is_corrupt(&opened("a", &right), "the payload file"));
    volume.files.remove(id).expect("what is gone is removed");
}

#[tokio::test]
async fn a_file_is_synced_when_it_is_durable_and_its_directory_before_it_is_made() {
    for volume in [Volume::new(), Volume::buffered()] {
        let id = volume.stored("a", &payload(3 * MIB + 5)).await;
        assert_eq!(id, FileId { directory: 7, number: 0 });
        let path = volume.files.path(id);
        let steps = volume.faults.take_steps();
        let large = Step::SyncDirectory(volume.root.join(DIRECTORY));
        assert_eq!(steps[..2], [large, Step::Create(path.clone())]);
        assert!(steps[2..steps.len() - 1].iter().all(|step| *step == Step::Write(path.clone())));
        assert_eq!(steps.last(), Some(&Step::SyncData(path)));
        volume.files.sync_directory(7).unwrap();
        let directory = volume.root.join("large/0000000000000007");
        assert_eq!(volume.faults.take_steps(), [Step::SyncDirectory(directory)]);
    }
}

#[tokio::test]
async fn a_full_directory_is_followed_by_a_new_one() {
    let volume = Volume::new();
    let ids: Vec<FileId> =
        (0..=FILES_PER_DIRECTORY).map(|_| volume.files.next_id().unwrap()).collect();
    let last = FileId { directory: 7, number: FILES_PER_DIRECTORY - 1 };
    assert_eq!(ids[ids.len() - 2..], [last, FileId { directory: 8, number: 0 }]);
    assert_eq!(volume.files.list_directories().unwrap(), [7, 8]);
}

#[tokio::test]
async fn what_is_not_the_volumes_is_not_listed() {
    let volume = Volume::new();
    let id = volume.stored("a", &payload(10)).await;
    let foreign = ["0", "README", "000000000000000G", "+000000000000001", "000000000000000A"];
    for name in foreign {
        fs::write(volume.root.join(DIRECTORY).join(name), "").unwrap();
        fs::write(volume.files.path(id).with_file_name(name), "").unwrap();
    }
    assert_eq!(volume.files.list_directories().unwrap(), [7]);
    assert_eq!(volume.files.list(7).unwrap(), [id]);
    assert!(volume.files.list(8).is_err(), "a directory that is lost is not empty");
}

#[tokio::test]
async fn a_full_disk_is_said_and_leaves_nothing_behind() {
    let payload = payload(5 * MIB + 5);
    for volume in [Volume::new(), Volume::buffered()] {
        for spared in 0..=5 {
            volume.faults.fail_after(Fault::WriteFull, spared);
            let refused = volume.durable("a", &payload).await;
            assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{spared}: {refused:?}");
            volume.faults.heal();
            volume.until_empty("a full disk").await;
        }
        volume.faults.set_free_bytes(2 * MIB as u64);
        volume.stored("a", &payload.slice(..MIB)).await;
        volume.faults.set_free_bytes(KIB as u64);
        let refused = volume.durable("a", &payload).await;
        assert!(matches!(refused, Err(StoreError::NoSpace { .. })), "{refused:?}");
        assert_eq!(volume.present().len(), 1);
    }
}

#[tokio::test]
async fn after_a_write_that_failed_nothing_more_is_taken() {
    let volume = Volume::new();
    let mut staging = LargeStaging::new(&volume.files);
    volume.faults.fail_after(Fault::WriteFull, 1);
    let piece = payload(MIB);
    let mut refused = 0;
    for _ in 0..9 {
        refused += usize::from(staging.write(piece.clone()).await.is_err());
    }
    assert!(refused >= 6, "{refused} of 9 were refused");
    volume.faults.heal();
    assert!(staging.write(piece.slice(..5)).await.is_err());
    volume.until_empty("a failed write").await;
}

#[tokio::test]
async fn what_is_dropped_before_it_is_kept_is_removed() {
    let (volume, payload) = (Volume::new(), payload(3 * MIB + 5));
    let mut staging = LargeStaging::new(&volume.files);
    staging.write(payload.clone()).await.unwrap();
    drop(staging);
    volume.until_empty("staging").await;
    drop(volume.staged(&payload).await.unwrap());
    volume.until_empty("staged").await;
    let durable = volume.durable("a", &payload).await.unwrap();
    assert_eq!(volume.present(), [durable.id()]);
    drop(durable);
    volume.until_empty("durable").await;
    let kept = volume.stored("a", &payload).await;
    assert_eq!(volume.present(), [kept]);
    assert!(volume.read_all(kept, &payload).await.unwrap() == payload);
}

#[tokio::test]
async fn a_failed_sync_poisons_and_removes() {
    let (volume, payload) = (Volume::new(), payload(200 * KIB));
    volume.faults.fail_after(Fault::SyncData, 0);
    let failed = volume.durable("a", &payload).await;
    assert!(matches!(failed, Err(StoreError::Poisoned { .. })), "{failed:?}");
    volume.faults.heal();
    let refused = volume.durable("a", &payload).await;
    assert!(matches!(refused, Err(StoreError::Poisoned { .. })), "{refused:?}");
    volume.until_empty("a failed sync").await;
}

#[tokio::test]
async fn a_directory_whose_name_is_not_durable_gets_no_file() {
    let volume = Volume::new();
    volume.faults.fail_after(Fault::SyncDirectory, 0);
    let failed = volume.durable("a", &payload(200 * KIB)).await;
    assert!(matches!(failed, Err(StoreError::Poisoned { .. })), "{failed:?}");
    assert!(volume.present().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_at_the_same_time_get_files_of_their_own() {
    let volume = Volume::new();
    let payloads: Vec<Bytes> = (0..16).map(|n| payload(n * 300_001)).collect();
    let written = payloads.iter().map(|payload| volume.durable("a", payload));
    let files = try_join_all(written).await.unwrap();
    let ids: Vec<FileId> = files.into_iter().map(DurableFile::keep).collect();
    for (id, payload) in ids.iter().zip(&payloads) {
        assert!(volume.read_all(*id, payload).await.unwrap() == *payload, "{id:?}");
    }
    assert_eq!(volume.present().len(), payloads.len());
}
