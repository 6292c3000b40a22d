//! A mounted file system that forgets at a power cut what was not synced, for
//! tests of what does its own I/O. It is a [`PowerDisk`] behind FUSE: the rules
//! are those, and every call of the program reaches the disk at once.

#![allow(clippy::disallowed_types, reason = "it is below what the seam reaches")]

mod daemon;

use std::fmt;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use fuser::{Config, Session, SessionACL};
use rustix::mount::{MountFlags, UnmountFlags};

use self::daemon::Daemon;
use super::TempDir;
use super::power::{Choice, Options, PowerDisk};

/// A file system in a temporary directory, unmounted when it is dropped.
pub struct ForgetfulMount {
    disk: PowerDisk,
    mounted: Option<Mounted>,
    directory: TempDir,
}

impl fmt::Debug for ForgetfulMount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "ForgetfulMount({})", self.directory.path().display())
    }
}

impl ForgetfulMount {
    /// Mounts an empty disk; `None`, and the reason on standard error, where
    /// there is no FUSE or no right to mount.
    pub fn new(options: Options) -> Option<Self> {
        let options = Options { keeps_history: false, ..options };
        let (disk, directory) = (PowerDisk::with(options), TempDir::new());
        match Mounted::new(&disk, directory.path()) {
            Ok(mounted) => Some(Self { disk, mounted: Some(mounted), directory }),
            Err(error) if is_refusal(&error) => {
                skip(&error);
                None
            }
            Err(error) => panic!("mounting failed: {error}"),
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The disk below, for faults, capacity and damage. Paths on it start at
    /// the mount point. A power cut makes it another one. Touch nothing on the
    /// mount while holding [`PowerDisk::core`]: the server needs it to answer.
    pub fn disk(&self) -> PowerDisk {
        self.disk.clone()
    }

    /// Cuts the power and mounts what is left at the same place. Who still has
    /// files open from before reads and writes a disk that no longer matters.
    pub fn power_cut(&mut self, choice: Choice) {
        self.replace(self.disk.cut_now(choice));
    }

    /// Mounts another disk at the same place. For a program that goes on by
    /// path: cut the disk, let the program end on what no longer matters, and
    /// only then put the cut one in its place.
    pub fn replace(&mut self, disk: PowerDisk) {
        self.mounted = None;
        self.mounted = Some(Mounted::new(&disk, self.path()).expect("it was mounted before"));
        self.disk = disk;
    }
}

impl Drop for ForgetfulMount {
    fn drop(&mut self) {
        // Before the directory: it can be removed only when nothing is in it.
        self.mounted = None;
    }
}

/// A machine that cannot, as opposed to a test that is broken.
fn is_refusal(error: &io::Error) -> bool {
    use io::ErrorKind::{NotFound, PermissionDenied};
    matches!(error.kind(), NotFound | PermissionDenied)
        || error.raw_os_error() == Some(rustix::io::Errno::NODEV.raw_os_error())
}

#[expect(clippy::print_stderr, reason = "the reason why a test is skipped")]
fn skip(error: &io::Error) {
    eprintln!("skipped: no FUSE file system can be mounted here: {error}");
}

/// One mount and the thread that serves it. The thread ends when nothing on the
/// mount is open any more, which nobody waits for.
struct Mounted {
    path: PathBuf,
    _server: JoinHandle<io::Result<()>>,
}

impl Mounted {
    fn new(disk: &PowerDisk, path: &Path) -> io::Result<Self> {
        let device = OwnedFd::from(fs::File::options().read(true).write(true).open("/dev/fuse")?);
        attach(&device, path)?;
        // From here on it is unmounted whatever happens.
        let unmount = UnmountOnDrop(path);
        let config = Config::default();
        let session = Session::from_fd(Daemon::new(disk), device, SessionACL::Owner, config)?;
        let server = session.spawn()?.guard;
        std::mem::forget(unmount);
        Ok(Self { path: path.to_owned(), _server: server })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(UnmountOnDrop(&self.path));
    }
}

struct UnmountOnDrop<'a>(&'a Path);

impl Drop for UnmountOnDrop<'_> {
    fn drop(&mut self) {
        // Files may be open: the name goes now, the rest when they are closed.
        // It fails only if somebody else unmounted it, and then it is done.
        let _ = rustix::mount::unmount(self.0, UnmountFlags::DETACH);
    }
}

fn attach(device: &OwnedFd, path: &Path) -> io::Result<()> {
    let (user, group) = (rustix::process::getuid(), rustix::process::getgid());
    let options = format!(
        "fd={},rootmode=40000,user_id={},group_id={}",
        device.as_raw_fd(),
        user.as_raw(),
        group.as_raw()
    );
    let options = std::ffi::CString::new(options).expect("there is no zero in it");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("forgetful", path, "fuse.forgetful", flags, options.as_c_str())?)
}
