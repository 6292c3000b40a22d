//! What the kernel counted: bytes written, memory, the file system.

use std::path::Path;

/// A number of `/proc/self/io`: what this process made the kernel send to a
/// disk. Pages are counted when they become dirty, direct writes when they are
/// made; the journal of the file system is not in it.
pub(crate) fn written_bytes() -> u64 {
    field(&read("/proc/self/io"), "write_bytes:").expect("the kernel accounts I/O by task")
}

/// A number of `/proc/self/status`, in bytes.
pub(crate) fn memory_bytes(name: &str) -> u64 {
    let kibibytes = field(&read("/proc/self/status"), name);
    kibibytes.expect("every Linux process has it") * 1024
}

/// Memory of the machine that is in no use, not even by the page cache.
pub(crate) fn free_memory_bytes() -> u64 {
    field(&read("/proc/meminfo"), "MemFree:").expect("every Linux kernel says it") * 1024
}

/// Bytes written to the block device below a directory, by whomever, journal
/// included. `None` when the file system is not on a block device of its own.
pub(crate) fn device_written_bytes(directory: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    let device = std::fs::metadata(directory).ok()?.dev();
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    let stat = std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/stat")).ok()?;
    // The seventh field: sectors written, of 512 bytes whatever the disk has.
    let sectors: u64 = stat.split_whitespace().nth(6)?.parse().ok()?;
    Some(sectors * 512)
}

/// Waits until the whole file system is on the disk, so that the next
/// measurement does not pay for the last one.
pub(crate) fn sync_file_system(directory: &Path) {
    let directory = std::fs::File::open(directory).expect("the directory is ours");
    rustix::fs::syncfs(&directory).expect("the disk works");
}

/// What kind of file system a directory is on, as `/proc/mounts` calls it.
pub(crate) fn file_system(directory: &Path) -> String {
    let directory = directory.canonicalize().expect("the directory is ours");
    let mounts = read("/proc/mounts");
    let fields = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let above = fields.filter(|fields| fields.len() > 2 && directory.starts_with(fields[1]));
    let nearest = above.max_by_key(|fields| fields[1].len());
    nearest.map_or_else(|| "unknown".to_owned(), |fields| fields[2].to_owned())
}

fn field(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).expect("it is a Linux kernel")
}
