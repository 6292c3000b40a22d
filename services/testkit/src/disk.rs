//! A disk of a service's own, which can be filled while nothing else notices: an
//! ext4 in a sparse file, mounted from a loop device. Needs root.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::watchdog;

const BLOCK_BYTES: u64 = 4_096;

/// A mounted file system. Dropping it unmounts it and removes its file; so does
/// the end of this process, however it ends.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
}

impl Disk {
    /// Makes and mounts an empty one, in `directory`.
    ///
    /// # Errors
    /// Why there can be none: nobody but root may mount, and a container may have
    /// no loop devices.
    pub fn mount(directory: &Path, name: &str, bytes: u64) -> Result<Self, String> {
        let image = directory.join(format!("{name}.ext4"));
        let mount = directory.join(format!("{name}.disk"));
        let told = |error: std::io::Error| error.to_string();
        std::fs::create_dir(&mount).map_err(told)?;
        File::create_new(&image).and_then(|file| file.set_len(bytes)).map_err(told)?;
        run("mkfs.ext4", ["-q", "-F", "-m", "0"].map(OsStr::new), &[&image])?;
        // Before the fact: whatever happens in between, it is unmounted.
        watchdog::watch_mount(&mount);
        let disk = Self { image, mount };
        run("mount", ["-t", "ext4", "-o", "loop"].map(OsStr::new), &[&disk.image, &disk.mount])?;
        Ok(disk)
    }

    /// A directory on it, which may be removed as a whole.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.mount.join("volume")
    }

    /// Fills it until only `left_bytes` are free.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn fill(&self, left_bytes: u64) -> Result<(), String> {
        let told = |error: Errno| format!("{} is not filled: {error}", self.mount.display());
        let space = statvfs(&self.mount).map_err(told)?;
        let wanted = (space.f_bavail * space.f_frsize).saturating_sub(left_bytes);
        let file = File::create(self.ballast()).map_err(|error| error.to_string())?;
        // Taken without being written: it costs nothing but the room. The file
        // system takes some for itself, so the last of it comes in small pieces.
        let (mut taken, mut piece) = (0, wanted);
        while taken < wanted && piece >= BLOCK_BYTES {
            match fallocate(&file, FallocateFlags::empty(), taken, piece.min(wanted - taken)) {
                Ok(()) => taken += piece,
                Err(Errno::NOSPC) => piece /= 2,
                Err(error) => return Err(told(error)),
            }
        }
        Ok(())
    }

    /// Gives the room back.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn relieve(&self) -> Result<(), String> {
        std::fs::remove_file(self.ballast())
            .map_err(|error| format!("{} stays full: {error}", self.mount.display()))
    }

    fn ballast(&self) -> PathBuf {
        self.mount.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What holds it open goes on with it, and it is gone when that ends.
        if run("umount", [OsStr::new("--lazy")], &[&self.mount]).is_ok() {
            watchdog::forget_mount(&self.mount);
        }
        // The directory that they are in is removed in the end.
        let _ = std::fs::remove_dir(&self.mount);
        let _ = std::fs::remove_file(&self.image);
    }
}

fn run<const N: usize>(
    program: &str,
    options: [&OsStr; N],
    paths: &[&PathBuf],
) -> Result<(), String> {
    let mut command = Command::new(program);
    command.args(options).args(paths).stdin(Stdio::null());
    let ended = command.output().map_err(|error| format!("{program}: {error}"))?;
    let said = String::from_utf8_lossy(&ended.stderr);
    match ended.status.success() {
        true => Ok(()),
        false => Err(format!("{program}: {}", said.lines().next().unwrap_or("failed"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fresh_directory;
    use crate::wait;

    fn is_mounted(path: &Path) -> bool {
        let mounts = std::fs::read_to_string("/proc/mounts").expect("Linux has it");
        mounts.lines().any(|line| line.split(' ').nth(1) == path.to_str())
    }

    fn free_bytes(disk: &Disk) -> u64 {
        let space = statvfs(&disk.mount).expect("it is mounted");
        space.f_bavail * space.f_frsize
    }

    #[tokio::test]
    #[allow(clippy::print_stderr, reason = "what is not tested is said")]
    async fn it_fills_and_empties_and_leaves_nothing() {
        let directory = fresh_directory("disk");
        let disk = match Disk::mount(&directory, "one", 64 << 20) {
            Ok(disk) => disk,
            Err(reason) => {
                eprintln!("SKIPPED: no disk can be mounted here: {reason}");
                return;
            }
        };
        let (mount, empty) = (disk.mount.clone(), free_bytes(&disk));
        assert!(is_mounted(&mount) && empty > 32 << 20);
        for left_bytes in [8 << 20, 0] {
            disk.fill(left_bytes).expect("it is empty");
            assert!(free_bytes(&disk) <= left_bytes, "{left_bytes}");
            assert!(free_bytes(&disk) + (1 << 20) > left_bytes, "{left_bytes}");
            let written = std::fs::write(mount.join("more"), vec![1; 1 << 20]);
            assert_eq!(written.is_ok(), left_bytes > 0);
            std::fs::remove_file(mount.join("more")).expect("it was begun");
            disk.relieve().expect("it is full");
            // The kernel may still be writing what was removed.
            wait::until_true("all of the room is back", async || free_bytes(&disk) == empty).await;
        }
        // Somebody may still be there.
        let _open = File::create(mount.join("open")).expect("there is room");
        drop(disk);
        assert!(!is_mounted(&mount));
        assert_eq!(std::fs::read_dir(&directory).expect("it is ours").count(), 0);
    }
}
