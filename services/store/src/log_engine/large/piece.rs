//! Memory that payloads are gathered in before they are written.

use bytes::{Buf, Bytes};
use holdfast_runtime::DIRECT_ALIGNMENT_BYTES;

/// Bytes at an address that direct writes can begin at.
#[derive(Debug)]
pub(super) struct Piece {
    /// Never grows, so that its address stays.
    storage: Vec<u8>,
    /// The first aligned byte.
    start: usize,
    capacity: usize,
    filled: usize,
}

impl Piece {
    /// Room for `capacity` bytes.
    pub(super) fn new(capacity: usize) -> Self {
        let storage = vec![0; capacity + DIRECT_ALIGNMENT_BYTES];
        let start = storage.as_ptr().align_offset(DIRECT_ALIGNMENT_BYTES);
        Self { storage, start, capacity, filled: 0 }
    }

    /// Takes as many bytes as there is room for off the front of `bytes`.
    pub(super) fn fill(&mut self, bytes: &mut Bytes) {
        let room = self.storage.get_mut(self.start + self.filled..self.start + self.capacity);
        let room = room.unwrap_or_default();
        let count = room.len().min(bytes.len());
        if let (Some(room), Some(taken)) = (room.get_mut(..count), bytes.get(..count)) {
            room.copy_from_slice(taken);
            bytes.advance(count);
            self.filled += count;
        }
    }

    pub(super) fn filled(&self) -> &[u8] {
        self.storage.get(self.start..self.start + self.filled).unwrap_or_default()
    }

    pub(super) fn is_full(&self) -> bool {
        self.filled == self.capacity
    }

    pub(super) fn is_empty(&self) -> bool {
        self.filled == 0
    }

    pub(super) fn clear(&mut self) {
        self.filled = 0;
    }

    /// Keeps what a direct write can take and gives the rest, which is shorter
    /// than [`DIRECT_ALIGNMENT_BYTES`].
    pub(super) fn split_unaligned(&mut self) -> Vec<u8> {
        let aligned = self.filled - self.filled % DIRECT_ALIGNMENT_BYTES;
        let rest = self.filled().get(aligned..).unwrap_or_default().to_vec();
        self.filled = aligned;
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_aligned_and_is_filled_to_its_end() {
        let mut piece = Piece::new(8192);
        let mut bytes = Bytes::from(vec![7; 10_000]);
        piece.fill(&mut bytes);
        assert!(piece.is_full());
        assert_eq!((piece.filled(), bytes.len()), ([7; 8192].as_slice(), 10_000 - 8192));
        assert_eq!(piece.filled().as_ptr().align_offset(DIRECT_ALIGNMENT_BYTES), 0);
        piece.clear();
        piece.fill(&mut bytes);
        assert!(bytes.is_empty() && !piece.is_full());
    }

    #[test]
    fn what_no_direct_write_takes_is_split_off() {
        for (filled, kept) in [(0, 0), (1, 0), (4095, 0), (4096, 4096), (8191, 4096)] {
            let mut piece = Piece::new(8192);
            piece.fill(&mut Bytes::from(vec![7; filled]));
            assert_eq!(piece.split_unaligned(), vec![7; filled - kept]);
            assert_eq!(piece.filled(), vec![7; kept]);
        }
    }
}
