//! A gate before the log: it holds the writer back until a whole batch waits,
//! so that which writes share a batch does not depend on timing.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use holdfast_runtime::{File, FileSystem, OpenMode, Space, VolumeLock};

use crate::common::power::PowerDisk;

/// A batch takes far less.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the writer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Pass {
    #[default]
    Everything,
    /// Up to the end of the next sync of a segment.
    OneBatch,
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    pass: Pass,
    is_waiting: bool,
}

/// Clones are the same gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<(Mutex<State>, Condvar)>);

impl Gate {
    /// The writer stops before it next changes the log.
    pub fn close(&self) {
        self.set(Pass::Nothing);
    }

    /// Lets one batch through and then closes again.
    pub fn pass_one_batch(&self) {
        self.set(Pass::OneBatch);
    }

    pub fn open(&self) {
        self.set(Pass::Everything);
    }

    /// Waits until the writer stands before the gate.
    pub fn until_it_waits(&self) {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap();
        let is_away = |state: &mut State| !state.is_waiting;
        let (state, waited) = changed.wait_timeout_while(state, PATIENCE, is_away).unwrap();
        drop(state);
        assert!(!waited.timed_out(), "the writer does not come: was a batch not synced?");
    }

    fn set(&self, pass: Pass) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        state.pass = pass;
        if pass != Pass::Nothing {
            state.is_waiting = false;
        }
        changed.notify_all();
    }

    fn go_through(&self) {
        let (state, changed) = &*self.0;
        let mut state = state.lock().unwrap();
        while state.pass == Pass::Nothing {
            state.is_waiting = true;
            changed.notify_all();
            state = changed.wait(state).unwrap();
        }
    }

    fn on_synced(&self) {
        let (state, _) = &*self.0;
        let mut state = state.lock().unwrap();
        if state.pass == Pass::OneBatch {
            state.pass = Pass::Nothing;
        }
    }
}

/// A disk whose log is behind a gate.
#[derive(Debug)]
pub struct GatedDisk {
    pub disk: PowerDisk,
    pub gate: Gate,
}

/// A segment.
#[derive(Debug)]
struct GatedFile {
    file: Box<dyn File>,
    gate: Gate,
}

impl File for GatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.gate.go_through();
        self.file.write_all_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        let synced = self.file.sync_data();
        self.gate.on_synced();
        synced
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }
}

impl FileSystem for GatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Box<dyn File>> {
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        if !is_segment || mode == OpenMode::Read {
            return self.disk.open(path, mode);
        }
        self.gate.go_through();
        let file = self.disk.open(path, mode)?;
        Ok(Box::new(GatedFile { file, gate: self.gate.clone() }))
    }

    fn create_direct(&self, path: &Path) -> io::Result<Option<Box<dyn File>>> {
        self.disk.create_direct(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn create_directories(&self, path: &Path) -> io::Result<()> {
        self.disk.create_directories(path)
    }

    fn remove_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_directory(path)
    }

    fn remove_directory_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_directory_all(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_directory(path)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.list(path)
    }

    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }

    fn try_lock(&self, path: &Path) -> io::Result<Option<Box<dyn VolumeLock>>> {
        self.disk.try_lock(path)
    }
}
