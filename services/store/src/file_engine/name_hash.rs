//! How the name of an object becomes the name of a file.

use std::fmt;
use std::path::{Path, PathBuf};

use holdfast_core::name::ObjectName;
use sha2::{Digest as _, Sha256};

/// SHA-256 of an object's name. A key never becomes a path: whatever is in it,
/// its file has 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NameHash([u8; 32]);

impl NameHash {
    /// Hashes bucket and key, each after its length in 8 bytes, little-endian,
    /// so that no two names give the same input.
    pub(super) fn of(name: &ObjectName) -> Self {
        let mut hasher = Sha256::new();
        for part in [name.bucket.as_str(), name.key.as_str()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        }
        Self(hasher.finalize().into())
    }

    /// The hash a file name stands for; `None` for any other file.
    pub(super) fn of_file(path: &Path) -> Option<Self> {
        let text = path.file_name()?.to_str()?;
        let plain = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
        if text.len() != 64 || !text.as_bytes().iter().all(plain) {
            return None;
        }
        let mut hash = [0; 32];
        for (at, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(hash))
    }

    /// `objects/<first two digits>`, relative to the volume.
    pub(super) fn directory(self) -> PathBuf {
        fan_out_directory(self.first_byte())
    }

    /// `objects/<first two digits>/<all digits>`, relative to the volume.
    pub(super) fn path(self) -> PathBuf {
        self.directory().join(self.to_string())
    }

    /// A number to choose a lock by.
    pub(super) fn stripe(self, stripe_count: usize) -> usize {
        let [.., low, high] = self.0;
        usize::from(u16::from_le_bytes([low, high])) % stripe_count
    }

    fn first_byte(self) -> u8 {
        let [first, ..] = self.0;
        first
    }
}

/// One of the 256 directories that the files of objects are spread over.
pub(super) fn fan_out_directory(first_byte: u8) -> PathBuf {
    Path::new("objects").join(format!("{first_byte:02x}"))
}

impl fmt::Display for NameHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for NameHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use holdfast_core::name::{Bucket, Key};

    use super::*;

    fn name(bucket: &str, key: &str) -> ObjectName {
        let bucket = Bucket::new(bucket).expect("a valid bucket");
        ObjectName::new(bucket, Key::new(key).expect("a valid key"))
    }

    #[test]
    fn a_file_name_is_stable_and_leads_back_to_its_hash() {
        let hash = NameHash::of(&name("objects", "../a"));
        // Written down: another hash would lose every object of an old volume.
        let expected = "605243f5e18999fc58f20574bdd407b3c802fd814e2370e36edb799f8c55087f";
        assert_eq!(hash.to_string(), expected);
        assert_eq!(NameHash::of_file(&hash.path()), Some(hash));
        assert!(hash.path().starts_with(hash.directory()));
    }

    #[test]
    fn the_border_between_bucket_and_key_counts() {
        assert_ne!(NameHash::of(&name("ab", "c")), NameHash::of(&name("a", "bc")));
    }

    #[test]
    fn other_files_have_no_hash() {
        let hash = NameHash::of(&name("objects", "a")).to_string();
        for other in [hash.to_uppercase(), format!("{hash}0"), hash.replacen('0', "g", 1)] {
            assert_ne!(
                NameHash::of_file(Path::new(&other)).map(|hash| hash.to_string()),
                Some(hash.clone())
            );
        }
        assert_eq!(NameHash::of_file(Path::new("README")), None);
    }
}
