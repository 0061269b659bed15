//! The name a process writes transactions under: its own for as long as it lives, and that of whoever is started in its
//! place, so that the transaction a killed process left open is ended at once and not when its time is over.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use rand::RngCore as _;
use rand::rngs::OsRng;

use super::super::error::RuntimeError;

/// More processes than ever share a directory.
const MOST: u32 = 4_096;

/// A name from `<state>/repartition`, held for as long as this lives.
#[derive(Debug)]
pub struct WriterName {
    pipeline: String,
    path: PathBuf,
    file: File,
    token: String,
}

impl WriterName {
    /// Takes the first name that nobody has, or makes one. Names are random, since processes on other machines may have
    /// directories of their own.
    pub fn take(state: &Path, pipeline: &str) -> Result<Self, RuntimeError> {
        let dir = state.join("repartition");
        std::fs::create_dir_all(&dir).map_err(|source| RuntimeError::File { path: dir.clone(), source })?;
        for n in 0..MOST {
            let path = dir.join(format!("writer-{n}"));
            let fail = |source| RuntimeError::File { path: path.clone(), source };
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).map_err(fail)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => continue,
                Err(TryLockError::Error(e)) => return Err(fail(e)),
            }
            let mut token = String::new();
            file.read_to_string(&mut token).map_err(fail)?;
            let whole = token.len() == 32 && token.bytes().all(|b| b.is_ascii_hexdigit());
            let mut name = Self { pipeline: pipeline.to_owned(), path: path.clone(), file, token };
            if !whole {
                name.renew()?;
            }
            return Ok(name);
        }
        Err(RuntimeError::Start(format!("{}: all {MOST} names are taken", dir.display())))
    }

    /// Makes a new name: a copy of the directory elsewhere writes under the old one.
    pub fn renew(&mut self) -> Result<(), RuntimeError> {
        let mut bytes = [0u8; 16];
        OsRng.fill_bytes(&mut bytes);
        self.token = super::super::hex(&bytes);
        let written = self.file.set_len(0).and_then(|()| self.file.write_all_at(self.token.as_bytes(), 0));
        written.map_err(|source| RuntimeError::File { path: self.path.clone(), source })
    }

    /// The transactional id.
    pub fn id(&self) -> String {
        format!("avouch.{}.repartition.{}", self.pipeline, self.token)
    }
}

impl Drop for WriterName {
    fn drop(&mut self) {
        // Closing the file is not enough: a process just being started from here may hold a copy of it until it execs.
        let _ = self.file.unlock();
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn who_comes_after_has_the_name_and_who_comes_beside_another() {
        let dir = tempfile::tempdir().unwrap();
        let first = WriterName::take(dir.path(), "p").unwrap();
        let beside = WriterName::take(dir.path(), "p").unwrap();
        let id = first.id();
        assert_ne!(id, beside.id());
        drop(first);
        let mut again = WriterName::take(dir.path(), "p").unwrap();
        assert_eq!(again.id(), id);
        again.renew().unwrap();
        assert_ne!(again.id(), id);
        let renewed = again.id();
        drop(again);
        assert_eq!(WriterName::take(dir.path(), "p").unwrap().id(), renewed);
    }

    #[test]
    fn half_a_name_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("repartition")).unwrap();
        std::fs::write(dir.path().join("repartition/writer-0"), "abc").unwrap();
        let id = WriterName::take(dir.path(), "p").unwrap().id();
        assert_eq!(id.len(), "avouch.p.repartition.".len() + 32);
    }
}
