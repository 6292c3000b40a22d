//! What this engine keeps in a volume.
//!
//! ```text
//! <root>/
//!   log/          the segments
//!   large/        payloads in files of their own
//!   index/        the ordered index, which can be built again from the log
//! ```

use crate::volume::VolumeSpec;

/// For [`crate::volume::prepare`].
pub(crate) fn spec() -> VolumeSpec {
    VolumeSpec {
        engine: "log",
        version: 1,
        directories: ["log", super::large::DIRECTORY, "index"].map(Into::into).into(),
        staging: None,
        advice: &[(
            "file",
            "it was made by a development build before the log engine: copy its objects over \
             HTTP from that build, or give an empty directory",
        )],
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::disallowed_methods, reason = "tests look behind the seam")]

    use std::fs;
    use std::path::{Path, PathBuf};

    use holdfast_runtime::{Runtime, VolumeLock};

    use super::*;
    use crate::disk::Disk;
    use crate::volume::prepare;
    use crate::{FileStore, FileStoreOptions, StoreError};

    /// A directory of its own, removed in the end.
    struct Root(PathBuf);

    impl Root {
        fn new() -> Self {
            let unique = Runtime::real().random_u128();
            let root = std::env::temp_dir().join(format!("holdfast-volume-{unique:032x}"));
            fs::create_dir(&root).unwrap();
            Self(root)
        }

        fn path(&self) -> &Path {
            &self.0
        }

        fn prepare(&self) -> Result<Box<dyn VolumeLock>, StoreError> {
            prepare(&Disk::new(Runtime::real(), self.0.clone(), 0), &spec())
        }

        async fn open_file_engine(&self) -> Result<FileStore, StoreError> {
            let options = FileStoreOptions::default();
            FileStore::open(Runtime::real(), self.0.clone(), options).await
        }
    }

    impl Drop for Root {
        fn drop(&mut self) {
            // What stays is in the temporary directory, where nobody minds.
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn reason<T>(refused: Result<T, StoreError>) -> String {
        match refused {
            Err(StoreError::Format { reason, .. }) => reason,
            Err(error) => panic!("another error: {error}"),
            Ok(_) => panic!("it was accepted"),
        }
    }

    #[test]
    fn a_volume_is_made_once_and_used_once() {
        let root = Root::new();
        for beside in ["node.json", "roster.json.tmp", "format.tmp"] {
            fs::write(root.path().join(beside), "{").unwrap();
        }
        fs::create_dir_all(root.path().join("retired-0123/log")).unwrap();
        // As an open that was cut short leaves it.
        fs::create_dir(root.path().join("large")).unwrap();
        let lock = root.prepare().unwrap();
        let format = fs::read_to_string(root.path().join("format")).unwrap();
        assert_eq!(format, r#"{"format":"holdfast-volume","engine":"log","version":1}"#);
        assert!(["log", "large", "index"].iter().all(|name| root.path().join(name).is_dir()));
        assert!(matches!(root.prepare(), Err(StoreError::InUse { .. })));
        drop(lock);
        fs::write(root.path().join("log/0000000000000001"), "a segment").unwrap();
        root.prepare().expect("it is the same volume");
    }

    #[test]
    fn what_is_no_volume_is_left_as_it_is() {
        for (foreign, expected) in [
            ("README", "is no Holdfast volume"),
            ("objects", "is no Holdfast volume"),
            ("log/0000000000000001", "the format file is gone"),
            ("large/0000000000000001", "the format file is gone"),
            ("index/0", "the format file is gone"),
        ] {
            let root = Root::new();
            let path = root.path().join(foreign);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "kept").unwrap();
            assert!(reason(root.prepare()).contains(expected), "{foreign}");
            assert_eq!(fs::read(&path).unwrap(), b"kept");
            assert!(!root.path().join("format").exists(), "{foreign}");
        }
    }

    #[tokio::test]
    async fn the_volume_of_another_engine_or_release_is_refused_with_what_to_do() {
        let root = Root::new();
        drop(root.open_file_engine().await.unwrap());
        let why = reason(root.prepare());
        assert!(why.contains("copy its objects over HTTP from that build"), "{why}");
        let root = Root::new();
        drop(root.prepare().unwrap());
        let why = reason(root.open_file_engine().await);
        assert!(why.contains("made by the engine \"log\""), "{why}");
        let newer = r#"{"format":"holdfast-volume","engine":"log","version":2}"#;
        fs::write(root.path().join("format"), newer).unwrap();
        let why = reason(root.prepare());
        assert!(why.contains("has format version 2 and this release reads 1"), "{why}");
    }
}
