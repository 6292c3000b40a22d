//! Which keys an index in the making has met, in memory that does not grow.

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Enough for ten million keys at a few errors in a hundred.
const WORDS: usize = 2 * 1024 * 1024;

/// Bits of one word that stand for a key.
const BITS: u32 = 4;

/// Says "never" of a key only if it was not added. The more there are, the more
/// often it says "maybe" of others.
pub(super) struct Seen {
    seed: u64,
    words: Vec<u64>,
}

impl Seen {
    /// Nothing yet; hashes keys with this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, words: vec![0; WORDS] }
    }

    pub(super) fn add(&mut self, key: &[u8]) {
        let (at, mask) = self.place_of(key);
        if let Some(word) = self.words.get_mut(at) {
            *word |= mask;
        }
    }

    pub(super) fn may_have(&self, key: &[u8]) -> bool {
        let (at, mask) = self.place_of(key);
        self.words.get(at).is_none_or(|word| word & mask == mask)
    }

    /// Word and bits of a key: all of them in one word, so that a look takes one
    /// access to memory.
    fn place_of(&self, key: &[u8]) -> (usize, u64) {
        let hash = xxh3_64_with_seed(key, self.seed);
        let mask = (0..BITS).fold(0, |mask, n| mask | 1_u64 << (hash >> (6 * n) & 63));
        let word = (hash >> (6 * BITS)) % WORDS as u64;
        (usize::try_from(word).unwrap_or(0), mask)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_never_denied_and_others_mostly_are() {
        let mut seen = Seen::new(7);
        let key = |n: u32| n.to_le_bytes();
        (0..200_000).for_each(|n| seen.add(&key(n)));
        assert!((0..200_000).all(|n| seen.may_have(&key(n))));
        let wrong = (200_000..400_000).filter(|n| seen.may_have(&key(*n))).count();
        assert!(wrong < 200, "{wrong}");
    }
}
