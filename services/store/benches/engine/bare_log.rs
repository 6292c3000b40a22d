//! The least that a log with group commit has to do: a bounded queue, one
//! writer thread, one write and one `fdatasync` for each batch. No checksum, no
//! header, no index, nothing that could be read again.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::load::Target;

/// Bounds of the log engine's batches, its queue and its segments.
const BATCH_RECORDS: usize = 1024;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
const QUEUE_RECORDS: usize = 1024;
const SEGMENT_BYTES: usize = 128 * 1024 * 1024;

type Record = (Bytes, oneshot::Sender<()>);

/// The queue's end that writers have. The thread ends when it is dropped.
pub(crate) struct BareLog {
    queue: mpsc::Sender<Record>,
}

impl BareLog {
    /// Starts the writer thread, with a first segment in `directory`.
    pub(crate) fn start(directory: PathBuf) -> Self {
        std::fs::create_dir_all(&directory).expect("the directory is ours");
        let (queue, records) = mpsc::channel(QUEUE_RECORDS);
        std::thread::spawn(move || write_all(&directory, records));
        Self { queue }
    }
}

impl Target for BareLog {
    async fn put(&self, _number: u64, payload: Bytes) {
        let (answer, answered) = oneshot::channel();
        self.queue.send((payload, answer)).await.expect("the thread lives as long as the queue");
        answered.await.expect("the thread answers every record");
    }
}

fn write_all(directory: &Path, mut records: mpsc::Receiver<Record>) {
    let (mut number, mut length) = (0, 0);
    let mut segment = create(directory, number);
    let (mut bytes, mut answers) = (Vec::new(), Vec::new());
    while let Some(first) = records.blocking_recv() {
        collect(first, &mut records, &mut bytes, &mut answers);
        if length + bytes.len() > SEGMENT_BYTES {
            (number, length) = (number + 1, 0);
            segment = create(directory, number);
        }
        segment.write_all(&bytes).expect("the disk has room");
        segment.sync_data().expect("the disk works");
        length += bytes.len();
        bytes.clear();
        for answer in answers.drain(..) {
            // A writer that was dropped waits no more.
            let _ = answer.send(());
        }
    }
}

/// Puts what is in the queue into one batch, within its bounds.
fn collect(
    first: Record,
    records: &mut mpsc::Receiver<Record>,
    bytes: &mut Vec<u8>,
    answers: &mut Vec<oneshot::Sender<()>>,
) {
    let mut next = Some(first);
    while let Some((payload, answer)) = next {
        bytes.extend_from_slice(&payload);
        answers.push(answer);
        let is_full = answers.len() >= BATCH_RECORDS || bytes.len() >= BATCH_BYTES;
        next = if is_full { None } else { records.try_recv().ok() };
    }
}

fn create(directory: &Path, number: u64) -> File {
    let path = directory.join(format!("{number:016x}"));
    let mut options = OpenOptions::new();
    let file = options.append(true).create_new(true).open(path).expect("the directory is ours");
    let directory = File::open(directory).expect("the directory is ours");
    directory.sync_all().expect("the disk works");
    file
}
