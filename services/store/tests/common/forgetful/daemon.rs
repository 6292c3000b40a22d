//! What the kernel asks of the file system, passed to the disk.

use std::ffi::OsStr;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::io::Errno;

use super::super::power::{Body, CHUNK_BYTES, Core, Entry, Ino, PowerDisk};

/// The kernel remembers nothing: each look reaches the disk.
const NO_TIME: Duration = Duration::ZERO;

/// Numbers of files are never used twice.
const GENERATION: Generation = Generation(0);

/// No handle carries anything: files go by number.
const NO_HANDLE: FileHandle = FileHandle(0);

#[derive(Debug)]
pub struct Daemon {
    disk: PowerDisk,
}

impl Daemon {
    pub fn new(disk: &PowerDisk) -> Self {
        Self { disk: disk.clone() }
    }

    fn create_open(&self, at: Entry) -> Result<FileAttr, Errno> {
        let mut core = self.disk.core();
        let ino = core.create(at)?;
        core.open(ino);
        attributes(&core, ino)
    }

    fn make_directory(&self, at: Entry) -> Result<FileAttr, Errno> {
        let mut core = self.disk.core();
        let ino = core.make_directory(at)?;
        attributes(&core, ino)
    }

    fn rename(&self, from: Entry, to: Entry, flags: RenameFlags) -> Result<(), Errno> {
        let mut core = self.disk.core();
        if !(flags - RenameFlags::RENAME_NOREPLACE).is_empty() {
            return Err(Errno::INVAL);
        }
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && core.lookup(&to).is_ok() {
            return Err(Errno::EXIST);
        }
        core.rename(from, to)
    }
}

fn entry(directory: INodeNo, name: &OsStr) -> Entry {
    Entry { directory: directory.0, name: name.into() }
}

fn code(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn attributes(core: &Core, ino: Ino) -> Result<FileAttr, Errno> {
    let node = core.node(ino)?;
    let (size, blocks, kind, perm, nlink) = match &node.body {
        Body::File(content) => {
            let blocks = content.allocated_bytes() / 512;
            let links = u32::from(node.name.is_some());
            (content.len(), blocks, FileType::RegularFile, 0o644, links)
        }
        Body::Directory(_) => (0, 0, FileType::Directory, 0o755, 2),
    };
    let time = SystemTime::UNIX_EPOCH;
    Ok(FileAttr {
        ino: INodeNo(ino),
        size,
        blocks,
        atime: time,
        mtime: time,
        ctime: time,
        crtime: time,
        kind,
        perm,
        nlink,
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn reply_entry(found: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match found {
        Ok(attributes) => reply.entry(&NO_TIME, &attributes, GENERATION),
        Err(errno) => reply.error(code(errno)),
    }
}

fn reply_attributes(found: Result<FileAttr, Errno>, reply: ReplyAttr) {
    match found {
        Ok(attributes) => reply.attr(&NO_TIME, &attributes),
        Err(errno) => reply.error(code(errno)),
    }
}

fn reply_empty(done: Result<(), Errno>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(code(errno)),
    }
}

/// Names of a directory with where the next begins, `.` and `..` left out as
/// nobody asks for them.
fn names(core: &Core, ino: Ino) -> Result<Vec<(Ino, FileType, Box<OsStr>)>, Errno> {
    let kind = |ino| match core.directory(ino) {
        Ok(_) => FileType::Directory,
        Err(_) => FileType::RegularFile,
    };
    let entries = core.directory(ino)?.iter();
    Ok(entries.map(|(name, ino)| (*ino, kind(*ino), Box::from(&**name))).collect())
}

impl Filesystem for Daemon {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let core = self.disk.core();
        let found = core.lookup(&entry(parent, name));
        reply_entry(found.and_then(|ino| attributes(&core, ino)), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply_attributes(attributes(&self.disk.core(), ino.0), reply);
    }

    /// Changes the length; modes, owners and times are not kept.
    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        _mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut core = self.disk.core();
        let done = size.map_or(Ok(()), |size| core.set_len(ino.0, size));
        reply_attributes(done.and_then(|()| attributes(&core, ino.0)), reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        reply: ReplyEntry,
    ) {
        reply_entry(self.make_directory(entry(parent, name)), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(self.disk.core().remove(entry(parent, name), false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        reply_empty(self.disk.core().remove(entry(parent, name), true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        newparent: INodeNo,
        newname: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        reply_empty(self.rename(entry(parent, name), entry(newparent, newname), flags), reply);
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        _mode: u32,
        _umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        let direct = FopenFlags::FOPEN_DIRECT_IO;
        match self.create_open(entry(parent, name)) {
            Ok(made) => reply.created(&NO_TIME, &made, GENERATION, NO_HANDLE, direct),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let mut core = self.disk.core();
        match core.content(ino.0) {
            Ok(_) => {
                core.open(ino.0);
                reply.opened(NO_HANDLE, FopenFlags::FOPEN_DIRECT_IO);
            }
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        self.disk.core().close(ino.0);
        reply.ok();
    }

    /// Not implemented, so that the kernel asks for none any more: a process that ends
    /// flushes its files after this has ended, and would wait for an answer for ever.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(fuser::Errno::ENOSYS);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut buffer = vec![0; size as usize];
        match self.disk.core().read(ino.0, offset, &mut buffer) {
            Ok(read) => reply.data(&buffer[..read]),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        match self.disk.core().write(ino.0, offset, data) {
            Ok(()) => reply.written(u32::try_from(data.len()).expect("the kernel asks for less")),
            Err(errno) => reply.error(code(errno)),
        }
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        reply_empty(self.disk.core().sync_data(ino.0), reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _data: bool, reply: ReplyEmpty) {
        reply_empty(self.disk.core().sync_directory(ino.0), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let names = match names(&self.disk.core(), ino.0) {
            Ok(names) => names,
            Err(errno) => return reply.error(code(errno)),
        };
        // Offsets are numbers of files and not places, so that a directory can
        // change while it is read.
        let mut names: Vec<_> = names.into_iter().filter(|(ino, ..)| *ino > offset).collect();
        names.sort_unstable_by_key(|(ino, ..)| *ino);
        for (ino, kind, name) in names {
            if reply.add(INodeNo(ino), ino, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let core = self.disk.core();
        let free = core.free_bytes() / CHUNK_BYTES;
        let total = core.options.capacity_bytes / CHUNK_BYTES;
        reply.statfs(total, free, free, 1 << 20, 1 << 20, 4096, 255, 4096);
    }
}
