//! Checksums of a payload that comes in pieces.

use crc_fast::{CrcAlgorithm, crc32_iscsi};
use holdfast_core::object::Digest;

use super::layout::BLOCK_BYTES;

/// The block table and the digest of a payload as it grows.
#[derive(Debug)]
pub(crate) struct BlockSums {
    sums: Vec<u32>,
    whole: crc_fast::Digest,
    size_bytes: u64,
}

impl BlockSums {
    pub(crate) fn new() -> Self {
        let whole = crc_fast::Digest::new(CrcAlgorithm::Crc64Nvme);
        Self { sums: Vec::new(), whole, size_bytes: 0 }
    }

    /// Adds bytes. All but the last piece must be whole blocks.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.sums.extend(bytes.chunks(BLOCK_BYTES).map(crc32_iscsi));
        self.whole.update(bytes);
        self.size_bytes += bytes.len() as u64;
    }

    pub(crate) fn sums(&self) -> &[u32] {
        &self.sums
    }

    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn digest(&self) -> Digest {
        Digest(self.whole.finalize())
    }
}

/// The digest of a payload that is read in pieces, each digested alone.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct JoinedDigest {
    digest: u64,
    size_bytes: u64,
}

impl JoinedDigest {
    pub(crate) fn append(&mut self, piece: Digest, piece_bytes: u64) {
        self.digest = if self.size_bytes == 0 {
            piece.0
        } else {
            let algorithm = CrcAlgorithm::Crc64Nvme;
            crc_fast::checksum_combine(algorithm, self.digest, piece.0, piece_bytes)
        };
        self.size_bytes += piece_bytes;
    }

    pub(crate) fn digest(self) -> Digest {
        Digest(self.digest)
    }

    pub(crate) fn size_bytes(self) -> u64 {
        self.size_bytes
    }
}

/// The digest of one piece.
pub(crate) fn digest_of(bytes: &[u8]) -> Digest {
    Digest(crc_fast::checksum(CrcAlgorithm::Crc64Nvme, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_algorithms_are_the_published_ones() {
        // The check values of CRC-32/ISCSI and CRC-64/NVME in the catalogue of
        // parametrised CRC algorithms; other ones would not read old volumes.
        assert_eq!(crc32_iscsi(b"123456789"), 0xe306_9283);
        assert_eq!(digest_of(b"123456789"), Digest(0xae8b_1486_0a79_9888));
        assert_eq!(digest_of(b""), Digest::default());
    }

    #[test]
    fn a_digest_joined_from_pieces_is_that_of_the_whole() {
        let payload: Vec<u8> = (0..300_000_u32).flat_map(|n| n.to_le_bytes()).collect();
        let mut sums = BlockSums::new();
        sums.update(&payload);
        let mut joined = JoinedDigest::default();
        for piece in payload.chunks(70_001) {
            joined.append(digest_of(piece), piece.len() as u64);
        }
        assert_eq!(joined.digest(), sums.digest());
        assert_eq!(sums.digest(), digest_of(&payload));
        assert_eq!(sums.sums().len(), payload.len().div_ceil(BLOCK_BYTES));
    }
}
