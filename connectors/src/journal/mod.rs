//! A journal: the input log of a lane whose source can be read only once.
//!
//! What arrives is written here and made durable before it is acknowledged; the lane reads the journal. So its verdicts
//! are a function of the journal, however often the process was killed, and the journal can be judged again.
//!
//! ```text
//! <state>/<pipeline>/journal/
//!   journal-<first offset, 20 digits>       segments; the last one is appended to
//!   recall                                  the last message under each packet identifier, as of some offset
//!   lock                                    held by the process that writes or reads it
//! ```
//!
//! # Bytes of a segment
//!
//! A segment is a run of groups, each written and fsynced in one go. A group is a header of 32 bytes and a payload:
//!
//! | bytes | |
//! | --- | --- |
//! | 4 | `AVJ1` |
//! | 4 | length of the payload |
//! | 8 | offset of its first record |
//! | 4 | number of records |
//! | 4 | session: grows by one whenever the other side had forgotten us |
//! | 4 | CRC-32 of the payload |
//! | 4 | CRC-32 of the 28 bytes before |
//!
//! A record is its time of arrival in milliseconds (8), packet identifier (2), length of the topic (2), length of the
//! value (4), topic, value. All integers are little-endian.
//!
//! # Bytes of `recall`
//!
//! `AVR1`, offset (8), session (4), number of entries (4), the entries in the order of their identifiers: packet identifier
//! (2) and the SHA-256 (32) of length of the topic (8), topic and value; then the CRC-32 of all before (4). It is replaced as a
//! whole after the first group of each segment. The broker may hold any number of messages against us whose acknowledgement
//! it never saw, in segments long deleted.
//!
//! # Invariants
//!
//! 1. A record is handed to a reader only when its group is durable.
//! 2. Opening cuts off a torn last group: its fsync had not returned, so nothing of it was acknowledged. Any other group
//!    that is not whole is damage, and an error.
//! 3. Segments are deleted from the oldest on, and only below what [`JournalHandle::release`] was told. What redeliveries
//!    are recognised by is kept apart from them.
//! 4. When the journal holds `max_bytes`, writing waits. Nothing is dropped.
//! 5. One process has it: the lock is held for as long as the writer or a reader lives.

mod reader;
mod recall;
mod segment;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use thiserror::Error;

pub use reader::{JournalBatch, JournalReader};
pub use writer::{JournalWriter, Message};

/// How a journal behaves.
#[derive(Debug, Clone)]
pub struct JournalOptions {
    /// Bytes of a segment, about.
    pub segment_bytes: u64,
    /// Bytes the journal may hold; writing waits beyond.
    pub max_bytes: u64,
    /// How long records are kept after the lane needs them no more, milliseconds.
    pub keep_ms: i64,
}

/// Why a journal cannot be used.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What it said.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("the journal {} is in use by another process ({holder}); one process writes it. Stop that one first", dir.display())]
    Locked {
        /// The journal.
        dir: PathBuf,
        /// What the lock file says of the other.
        holder: String,
    },
    /// Bytes are not what was written.
    #[error("the journal {} is damaged at byte {at}: {why}; restore it from a copy", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where.
        at: u64,
        /// What is wrong.
        why: String,
    },
    /// What is to be read is not there.
    #[error("the journal in {} holds offsets {first} to {end}, but the lane goes on at {wanted}; {help}", dir.display())]
    Gone {
        /// The journal.
        dir: PathBuf,
        /// First offset it has.
        first: i64,
        /// Offset its next record will have.
        end: i64,
        /// Offset asked for.
        wanted: i64,
        /// What to do.
        help: &'static str,
    },
    /// An earlier write failed; what the disk holds is known only by opening it again.
    #[error("the journal failed before: {why}")]
    Failed {
        /// The first failure.
        why: String,
    },
}

type Result<T> = std::result::Result<T, JournalError>;

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> JournalError {
    let path = path.to_path_buf();
    move |source| JournalError::Io { doing, path, source }
}

/// A segment as readers may see it: everything in it is durable.
#[derive(Debug, Clone)]
struct Segment {
    first: i64,
    path: PathBuf,
    len: u64,
    /// When its last record arrived, milliseconds.
    last_ms: i64,
}

#[derive(Debug)]
struct State {
    /// In order, at least one.
    segments: Vec<Segment>,
    /// Offset after the last durable record.
    end: i64,
    /// Whether writing waits because the journal is full.
    full: bool,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    /// The lane is closed before its bridge is: its lock alone would let another process write here too soon.
    lock: File,
    state: Mutex<State>,
    /// Told when there is more to read, when there is more room, and at the end.
    changed: Condvar,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is replaced in single steps, so it is whole even if a thread died holding it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // Closing the file is not enough: a process just being started from here may hold a copy of it until it execs.
        let _ = self.lock.unlock();
    }
}

/// Takes the lock of a journal, or says who has it.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let mut options = File::options();
    let file =
        options.read(true).write(true).create(true).truncate(false).open(&path).map_err(failed("open", &path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let holder = std::fs::read_to_string(&path).unwrap_or_default().trim().to_owned();
            let holder = if holder.is_empty() { "it has not said who it is yet".into() } else { holder };
            return Err(JournalError::Locked { dir: dir.to_path_buf(), holder });
        }
        Err(TryLockError::Error(e)) => return Err(failed("lock", &path)(e)),
    }
    let who = format!("process {}\n", std::process::id());
    file.set_len(0).and_then(|()| (&file).write_all(who.as_bytes())).map_err(failed("write", &path))?;
    Ok(file)
}

/// What others may know of a journal, and tell it.
#[derive(Debug, Clone)]
pub struct JournalHandle {
    shared: Arc<Shared>,
    keep_ms: i64,
}

impl JournalHandle {
    /// Offset after the last durable record.
    pub fn end(&self) -> i64 {
        self.shared.state().end
    }

    /// Bytes on disk.
    pub fn bytes(&self) -> u64 {
        self.shared.state().segments.iter().map(|s| s.len).sum()
    }

    /// Whether writing waits for room.
    pub fn is_full(&self) -> bool {
        self.shared.state().full
    }

    /// Says that nothing below `offset` will be read again. Deletes the segments that are wholly below it, and whose last
    /// record is older than `keep_ms` before `now_ms`.
    pub fn release(&self, offset: i64, now_ms: i64) -> Result<()> {
        let mut state = self.shared.state();
        while let [first, second, ..] = state.segments.as_slice()
            && second.first <= offset
            && first.last_ms <= now_ms.saturating_sub(self.keep_ms)
        {
            let path = first.path.clone();
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed("delete", &path)(e)),
                _ => {}
            }
            state.segments.remove(0);
        }
        drop(state);
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Ends waiting writes: they fail. For stopping.
    pub fn close(&self) {
        self.shared.state().closed = true;
        self.shared.changed.notify_all();
    }
}
