//! One writer a lane: an exclusive lock, and a generation.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::{StoreError, io};

type Result<T> = std::result::Result<T, StoreError>;

/// Held for as long as it lives; the operating system lets go of it when the process dies, however it dies.
#[derive(Debug)]
pub(super) struct LaneLock {
    dir: PathBuf,
    path: PathBuf,
    file: File,
    pub generation: u64,
}

/// The generation in a lock file (0 when there is none yet), and its text.
fn read(path: &Path) -> Result<(u64, String)> {
    let bytes = io::read_if_there(path)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).trim().to_owned();
    let generation = text.split(' ').nth(1).and_then(|g| g.parse().ok()).unwrap_or(0);
    Ok((generation, text))
}

impl LaneLock {
    /// Takes the lock, or says who has it.
    pub fn take(dir: &Path) -> Result<Self> {
        let path = dir.join("lock");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        let file = options.open(&path).map_err(io::failed("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let (_, holder) = read(&path)?;
                let holder = if holder.is_empty() { "it has not said who it is yet".into() } else { holder };
                return Err(StoreError::Locked { dir: dir.to_path_buf(), holder });
            }
            Err(TryLockError::Error(e)) => return Err(io::failed("lock", &path)(e)),
        }
        let (generation, _) = read(&path)?;
        Ok(Self { dir: dir.to_path_buf(), path, file, generation })
    }

    /// Begins a generation after the last one known to the lock file and to any checkpoint.
    pub fn begin(&mut self, newest_checkpoint: u64) -> Result<u64> {
        self.generation = self.generation.max(newest_checkpoint) + 1;
        let text = format!("generation {} process {}\n", self.generation, std::process::id());
        io::write_at(&self.file, &self.path, text.as_bytes(), 0)?;
        self.file.set_len(text.len() as u64).map_err(io::failed("truncate", &self.path))?;
        io::sync(&self.file, &self.path)?;
        Ok(self.generation)
    }

    /// Errs when the lock file is no longer the one we hold (someone deleted it, and may have started another writer), or
    /// names another generation.
    pub fn still_ours(&self) -> Result<()> {
        let (found, text) = read(&self.path)?;
        let held = self.file.metadata().map_err(io::failed("look at", &self.path))?;
        let same = std::fs::metadata(&self.path).is_ok_and(|m| (m.dev(), m.ino()) == (held.dev(), held.ino()));
        if same && found == self.generation {
            return Ok(());
        }
        let found =
            if text.is_empty() { "the lock file was deleted".to_owned() } else { format!("the lock file says {text}") };
        Err(StoreError::Fenced { dir: self.dir.clone(), ours: self.generation, found })
    }
}

impl Drop for LaneLock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process just being started from here may hold a copy of it until it execs.
        let _ = self.file.unlock();
    }
}
