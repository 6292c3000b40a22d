//! What the kernel says a process uses.

/// A reading of `/proc/<pid>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Resident memory.
    pub resident_bytes: u64,
    /// The most resident memory since the start or [`Usage::reset_peak`].
    pub peak_resident_bytes: u64,
    /// Threads.
    pub threads: u64,
    /// Open file descriptors.
    pub descriptors: usize,
}

impl Usage {
    /// Reads it.
    ///
    /// # Panics
    /// When there is no such process.
    #[must_use]
    pub fn of(pid: u32) -> Self {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"));
        let status = status.expect("the process runs");
        let number = |field: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
            number.unwrap_or_else(|| panic!("{field} is not in /proc/{pid}/status"))
        };
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a child of ours");
        Self {
            resident_bytes: number("VmRSS:") * 1_024,
            peak_resident_bytes: number("VmHWM:") * 1_024,
            threads: number("Threads:"),
            descriptors: descriptors.count(),
        }
    }

    /// Makes the present size the peak.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn reset_peak(pid: u32) {
        std::fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("a child of ours");
    }
}
