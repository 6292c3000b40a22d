//! Names, metadata and payloads, all of them functions of a seed and a number:
//! whoever knows both can ask for an object without having kept its name.

use bytes::Bytes;
use holdfast_core::name::{Key, ObjectName};
use holdfast_core::object::Metadata;
use holdfast_core::version::Version;
use holdfast_runtime::Runtime;
use holdfast_store::Stamp;

/// The objects of one measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Objects {
    /// Tells them from those of another measurement.
    pub(crate) seed: u64,
    /// Bytes of text in the metadata of each.
    pub(crate) metadata_bytes: usize,
}

impl Objects {
    /// Objects that nobody has yet.
    pub(crate) fn new(metadata_bytes: usize) -> Self {
        Self { seed: Runtime::real().random_u64(), metadata_bytes }
    }

    /// `bench/<random>/<number>`: what is written in the order of the numbers
    /// comes in no order of the names, as with real clients.
    pub(crate) fn name(&self, number: u64) -> ObjectName {
        let key = format!("bench/{:016x}/{number}", mixed(self.seed ^ mixed(number)));
        ObjectName::seed(Key::new(key).expect("it is short and not empty"))
    }

    /// The first version of an object.
    pub(crate) fn stamp(&self, number: u64) -> Stamp {
        let version = Version::from_parts(number + 1, self.seed);
        Stamp { version, metadata: self.metadata(number) }
    }

    /// A content type, and a header for the rest of the bytes.
    fn metadata(&self, number: u64) -> Metadata {
        const CONTENT_TYPE: &str = "application/octet-stream";
        const HEADER: &str = "content-disposition";
        let mut metadata = Metadata {
            content_type: Some(CONTENT_TYPE.to_owned()),
            modified_unix_millis: 1_700_000_000_000 + number,
            ..Metadata::default()
        };
        if let Some(rest) = self.metadata_bytes.checked_sub(CONTENT_TYPE.len() + HEADER.len()) {
            metadata.headers.insert(HEADER.to_owned(), text(self.seed ^ number, rest));
        }
        metadata
    }

    /// Bytes that no compression makes smaller, others for each number.
    pub(crate) fn payload(&self, number: u64, size_bytes: usize) -> Bytes {
        let mut payload = vec![0; size_bytes];
        fill(self.seed ^ mixed(number), &mut payload);
        payload.into()
    }
}

/// Fills a buffer with bytes that no compression makes smaller.
pub(crate) fn fill(seed: u64, buffer: &mut [u8]) {
    let mut state = seed;
    for chunk in buffer.chunks_mut(8) {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        chunk.copy_from_slice(&mixed(state).to_le_bytes()[..chunk.len()]);
    }
}

/// Text in hexadecimal digits.
fn text(seed: u64, bytes: usize) -> String {
    let mut random = vec![0; bytes];
    fill(seed, &mut random);
    random.iter().map(|byte| char::from(b"0123456789abcdef"[usize::from(byte % 16)])).collect()
}

/// The last step of SplitMix64: a different number for each number.
pub(crate) fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
