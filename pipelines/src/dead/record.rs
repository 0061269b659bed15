//! Which letters were given back: a file beside the state, so that none is given back twice.
//!
//! `requeued.jsonl` is announced to, and made durable, before anything is written to the source; `requeued.done` says how many of
//! its lines were written. Where the source is a Kafka topic the truth of that is Kafka's, a cursor in the same transaction as
//! the records, and the file follows it. What was announced and not written is cut off.

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// Why the record cannot be used.
#[derive(Debug, Error)]
pub enum RecordError {
    /// It cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is damaged.
    #[error("{path}, line {line}: {why}; restore it from a backup, or letters might be given back twice")]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Which line.
        line: usize,
        /// Why.
        why: String,
    },
    /// Somebody else is at it.
    #[error("another `avouch dead requeue` is at work in {path}; wait for it")]
    Busy {
        /// The lock.
        path: PathBuf,
    },
    /// It does not fit what the cluster says.
    #[error(
        "{path} does not fit what the source's cluster says was given back ({why}): letters were given back with another state \
         directory; bring its {name} here, or letters would be given back twice"
    )]
    Other {
        /// Which file.
        path: PathBuf,
        /// Its name.
        name: &'static str,
        /// How they differ.
        why: String,
    },
}

/// Which letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Given {
    pub lane: i32,
    pub number: u64,
    pub offset: i64,
}

const NAME: &str = "requeued.jsonl";

/// The record, locked.
pub(super) struct Record {
    path: PathBuf,
    done_path: PathBuf,
    given: Vec<Given>,
    done: u64,
    _lock: File,
}

impl Record {
    pub fn open(state: &Path) -> Result<Self, RecordError> {
        let lock_path = state.join("requeued.lock");
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| RecordError::File { path, source }
        };
        let lock =
            OpenOptions::new().write(true).create(true).truncate(false).open(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(RecordError::Busy { path: lock_path }),
            Err(TryLockError::Error(e)) => return Err(failed(&lock_path)(e)),
        }
        let (path, done_path) = (state.join(NAME), state.join("requeued.done"));
        let read = |path: &Path| match std::fs::read_to_string(path) {
            Ok(text) => Ok(text),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            Err(e) => Err(failed(path)(e)),
        };
        let damaged = |path: &Path, line: usize, why: String| RecordError::Damaged { path: path.to_owned(), line, why };
        let done_text = read(&done_path)?;
        let done = match done_text.trim() {
            "" => 0,
            n => n.parse().map_err(|e| damaged(&done_path, 1, format!("{e}")))?,
        };
        let text = read(&path)?;
        let mut given = Vec::new();
        for (i, line) in text.split_inclusive('\n').enumerate() {
            match serde_json::from_str(line) {
                Ok(one) if line.ends_with('\n') => given.push(one),
                // An announcement that a crash cut short: nothing was written of it.
                _ if i as u64 >= done => break,
                Ok(_) => return Err(damaged(&path, i + 1, "the line is not complete".into())),
                Err(e) => return Err(damaged(&path, i + 1, e.to_string())),
            }
        }
        if (given.len() as u64) < done {
            return Err(damaged(&path, given.len(), format!("{done} letters were given back, and fewer stand here")));
        }
        Ok(Self { path, done_path, given, done, _lock: lock })
    }

    /// What identifies the first `n` letters given back.
    pub fn note(&self, n: u64) -> String {
        let mut hash = Sha256::new();
        for one in self.given.iter().take(n as usize) {
            hash.update(one.lane.to_be_bytes());
            hash.update(one.number.to_be_bytes());
            hash.update(one.offset.to_be_bytes());
        }
        crate::runtime::hex(&hash.finalize())
    }

    /// Follows the cluster's word on how many were written, and cuts off what was only announced.
    pub fn settle(&mut self, position: Option<(u64, String)>) -> Result<(), RecordError> {
        let n = match position {
            // Never anything, or forgotten by the cluster: what is known here holds.
            None => self.done,
            Some((n, note)) => {
                let other = |why: String| RecordError::Other { path: self.path.clone(), name: NAME, why };
                if n > self.given.len() as u64 {
                    return Err(other(format!("{n} letters there, {} here", self.given.len())));
                }
                if n < self.done || note != self.note(n) {
                    return Err(other(format!("its {n} letters are others")));
                }
                n
            }
        };
        self.given.truncate(n as usize);
        self.write_given()?;
        self.set_done(n)
    }

    /// The letters given back.
    pub fn all(&self) -> BTreeSet<(i32, u64)> {
        self.given.iter().map(|g| (g.lane, g.number)).collect()
    }

    /// How many were given back.
    pub fn done(&self) -> u64 {
        self.done
    }

    /// Notes, durably, what is going to be written.
    pub fn announce(&mut self, letters: impl Iterator<Item = Given>) -> Result<u64, RecordError> {
        self.given.extend(letters);
        self.write_given()?;
        Ok(self.given.len() as u64)
    }

    /// All that was announced is written.
    pub fn written(&mut self) -> Result<(), RecordError> {
        self.set_done(self.given.len() as u64)
    }

    fn write_given(&self) -> Result<(), RecordError> {
        let mut text = String::new();
        for one in &self.given {
            text.push_str(&serde_json::json!(one).to_string());
            text.push('\n');
        }
        self.replace(&self.path, text.as_bytes())
    }

    fn set_done(&mut self, n: u64) -> Result<(), RecordError> {
        self.replace(&self.done_path, format!("{n}\n").as_bytes())?;
        self.done = n;
        Ok(())
    }

    fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), RecordError> {
        replace(path, bytes).map_err(|source| RecordError::File { path: path.to_owned(), source })
    }
}

/// Puts a file in place durably, or leaves what was there.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    match path.parent() {
        Some(dir) => File::open(dir)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn given(number: u64) -> Given {
        Given { lane: 0, number, offset: number as i64 + 100 }
    }

    #[test]
    fn what_was_announced_and_not_written_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::open(dir.path()).unwrap();
        record.settle(None).unwrap();
        record.announce([given(0), given(1)].into_iter()).unwrap();
        let note = record.note(2);
        record.written().unwrap();
        record.announce([given(2)].into_iter()).unwrap();
        drop(record);
        let mut record = Record::open(dir.path()).unwrap();
        // The cluster has only the first transaction.
        record.settle(Some((2, note))).unwrap();
        assert_eq!(record.all(), [(0, 0), (0, 1)].into());
    }

    #[test]
    fn what_the_cluster_committed_before_a_crash_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::open(dir.path()).unwrap();
        record.announce([given(0)].into_iter()).unwrap();
        let note = record.note(1);
        drop(record);
        let mut record = Record::open(dir.path()).unwrap();
        assert_eq!(record.done(), 0);
        record.settle(Some((1, note))).unwrap();
        assert_eq!((record.done(), record.all()), (1, [(0, 0)].into()));
    }

    #[test]
    fn another_directorys_record_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::open(dir.path()).unwrap();
        assert!(matches!(record.settle(Some((1, String::new()))), Err(RecordError::Other { .. })));
        record.announce([given(0)].into_iter()).unwrap();
        assert!(matches!(record.settle(Some((1, "other".into()))), Err(RecordError::Other { .. })));
        assert!(matches!(Record::open(dir.path()), Err(RecordError::Busy { .. })));
    }

    #[test]
    fn a_torn_line_counts_only_where_nothing_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let mut record = Record::open(dir.path()).unwrap();
        record.announce([given(0)].into_iter()).unwrap();
        record.written().unwrap();
        drop(record);
        let path = dir.path().join(NAME);
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [whole.as_slice(), b"{\"lane\":0,\"num"].concat()).unwrap();
        assert_eq!(Record::open(dir.path()).unwrap().all(), [(0, 0)].into());
        std::fs::write(&path, &whole[..10]).unwrap();
        assert!(matches!(Record::open(dir.path()), Err(RecordError::Damaged { .. })));
    }
}
