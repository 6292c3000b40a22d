//! Digests of what consists of fields.

use xxhash_rust::xxh3::Xxh3;

/// Fields of any length, one after the other: what differs in any of them, or in
/// where one ends, differs in the digest. The same on every machine and in every
/// release.
#[derive(Default)]
pub(crate) struct Fields(Xxh3);

impl Fields {
    /// Adds the next one.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// Of all of them.
    pub(crate) fn digest(&self) -> u64 {
        self.0.digest()
    }
}
