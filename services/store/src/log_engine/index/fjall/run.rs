//! Keys and values on their way into tables, which take them in order.

use std::collections::HashMap;

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// A run in the making: all bytes in one buffer, as there are a hundred thousand
/// of each.
pub(super) struct Run {
    seed: u64,
    bytes: Vec<u8>,
    items: Vec<Item>,
    /// Place among the items, by the hash of the key.
    by_hash: HashMap<u64, usize>,
}

/// Where key and value are; they lie one behind the other.
#[derive(Debug, Clone, Copy)]
struct Item {
    start: usize,
    key_bytes: usize,
    /// `None` for a key that is to be gone.
    value_bytes: Option<usize>,
}

impl Run {
    /// An empty one, which hashes keys with this seed.
    pub(super) fn new(seed: u64) -> Self {
        Self { seed, bytes: Vec::new(), items: Vec::new(), by_hash: HashMap::new() }
    }

    /// Bytes of memory that it takes.
    pub(super) fn size(&self) -> usize {
        // An item and its place in the map, which is half empty at worst.
        const ITEM_BYTES: usize = size_of::<Item>() + 2 * size_of::<(u64, usize)>();
        self.bytes.len() + self.items.len() * ITEM_BYTES
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Forgets everything, and keeps the memory for what comes.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.items.clear();
        self.by_hash.clear();
    }

    /// What was set last under a key; `None` when nothing was.
    pub(super) fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let item = *self.items.get(*self.by_hash.get(&xxh3_64_with_seed(key, self.seed))?)?;
        (self.key(item) == key).then(|| self.value(item))
    }

    /// Sets a key, in place of what was set before; `None` for one that is to be
    /// gone. False, and nothing is set, when another key has the same hash: such
    /// two never share a run.
    pub(super) fn set(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let hash = xxh3_64_with_seed(key, self.seed);
        let known = self.by_hash.get(&hash).and_then(|at| self.items.get(*at)).copied();
        if known.is_some_and(|known| self.key(known) != key) {
            return false;
        }
        let item = Item {
            start: self.bytes.len(),
            key_bytes: key.len(),
            value_bytes: value.map(<[u8]>::len),
        };
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        let at = *self.by_hash.entry(hash).or_insert(self.items.len());
        match self.items.get_mut(at) {
            Some(slot) => *slot = item,
            None => self.items.push(item),
        }
        true
    }

    /// Everything in the order of the keys, each of which comes once.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut items = self.items.clone();
        items.sort_unstable_by(|one, other| self.key(*one).cmp(self.key(*other)));
        items.into_iter().map(|item| (self.key(item), self.value(item)))
    }

    fn key(&self, item: Item) -> &[u8] {
        self.part(item.start, item.key_bytes)
    }

    fn value(&self, item: Item) -> Option<&[u8]> {
        item.value_bytes.map(|bytes| self.part(item.start + item.key_bytes, bytes))
    }

    fn part(&self, start: usize, bytes: usize) -> &[u8] {
        self.bytes.get(start..start + bytes).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_each_key_comes_in_order() {
        let mut run = Run::new(7);
        for (key, value) in [("b", Some("1")), ("c", None), ("a", Some("2")), ("b", Some("34"))] {
            assert!(run.set(key.as_bytes(), value.map(str::as_bytes)));
        }
        assert_eq!(run.get(b"b"), Some(Some(&b"34"[..])));
        assert_eq!((run.get(b"c"), run.get(b"d")), (Some(None), None));
        let all: Vec<_> = run.in_order().collect();
        assert_eq!(all, [(&b"a"[..], Some(&b"2"[..])), (b"b", Some(b"34")), (b"c", None)]);
        run.clear();
        assert!(run.is_empty() && run.get(b"b").is_none() && run.in_order().next().is_none());
    }
}
